"""``easyedit-mm doctor``: what is installed, which EasyEdit was found, what can run, what is not.

Looks, and changes nothing: no model is loaded and nothing is registered. EasyEdit is imported in a
process of its own.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..core.environment import cores, cpu_name, package_version
from ..core.errors import EasyEditMMError

if TYPE_CHECKING:
    from ..backbones import BackboneEntry
    from ..host.requirements import Missing
    from ..methods import MethodEntry

Level = Literal["ok", "note", "broken"]

# Distribution and the lowest version that is supported.
SUPPORTED = (
    ("torch", "2.1"),
    ("torchvision", None),
    ("transformers", "4.49"),
    ("open_clip_torch", "2.24"),
    ("safetensors", "0.4"),
)
GENERATIONS = {"pypi": "the PyPI release", "head": "the GitHub generation (HEAD)"}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    ``broken``: something cannot run that is installed, shipped or asked for. ``note``: something
    cannot run that may not be needed.
    """

    level: Level
    topic: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class MethodCheck:
    """Whether a method's settings for a base model run here, and what they need otherwise."""

    method: str
    needs: list[str] = field(default_factory=list)
    untrained: bool = False  # no trained editor is here


@dataclass(frozen=True)
class BackboneCheck:
    """What a base model lacks, and what each method can do on it.

    Attributes:
        lacks: what must be here before it runs.
        fetches: what is fetched from the network at first use.
    """

    backbone: str
    lacks: list[Missing]
    fetches: list[Missing]
    methods: list[MethodCheck]


@dataclass(frozen=True)
class FamilyCheck:
    """A family of models that load by folder or hub id, and what it needs.

    Attributes:
        family: its name for people.
        model_type: what ``config.json`` calls it.
        needs: what must be installed before it loads; empty: it loads here.
        gigabytes: of usual weights in bfloat16, by hub id; the processor lies beside them.
    """

    family: str
    model_type: str
    needs: list[str]
    gigabytes: dict[str, float]


@dataclass
class Diagnosis:
    """Everything that was looked at."""

    findings: list[Finding] = field(default_factory=list)
    backbones: list[BackboneCheck] = field(default_factory=list)
    families: list[FamilyCheck] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether something cannot run that should."""
        return any(finding.level == "broken" for finding in self.findings)

    def add(self, level: Level, topic: str, text: str, remedy: str | None = None) -> None:
        """Append a finding."""
        self.findings.append(Finding(level, topic, text, remedy or ""))

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"format": 2, "broken": self.broken, **asdict(self), "next": next_steps(self)}


def doctor(
    method: Annotated[
        list[str] | None, typer.Option(help="Must run here, or the exit code is 1; repeatable.")
    ] = None,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Must run here, or the exit code is 1; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What is installed here, which EasyEdit was found, what can run and what is missing."""
    from ..core.console import ERRORS

    with ERRORS.status("looking, EasyEdit's import takes some seconds ..."):
        report = examine(method or [], backbone or [])
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        show(report)
    raise typer.Exit(1 if report.broken else 0)


def examine(methods: list[str] | None = None, backbones: list[str] | None = None) -> Diagnosis:
    """Look at this machine.

    Args:
        methods, backbones: what must run here; by default nothing needs to, and all are listed.

    Raises:
        UnknownNameError: a name that nothing has.
    """
    report = Diagnosis()
    report.add("ok", "python", platform.python_version())
    _packages(report)
    if not _device(report):
        return report  # nothing else imports without torch
    from ..backbones import BACKBONES
    from ..methods import METHODS

    METHODS.check(*methods or [])
    BACKBONES.check(*backbones or [])
    easyedit = _easyedit(report)
    chosen = _entries(report, METHODS, methods)
    for base in _entries(report, BACKBONES, backbones):
        checked = check_backbone(base, chosen, easyedit=easyedit)
        report.backbones.append(checked)
        _asked_for(report, checked, bool(backbones), bool(methods), base.embedded)
    if not backbones:
        report.families = check_families()
    return report


def _packages(report: Diagnosis) -> None:
    from packaging.version import Version

    for distribution, lowest in SUPPORTED:
        found = package_version(distribution)
        if found is None:
            remedy = f"pip install '{distribution}{f'>={lowest}' if lowest else ''}'"
            report.add("broken", distribution, "not installed", remedy)
        elif lowest and Version(found) < Version(lowest):
            text = f"{found}, but {lowest} or newer is needed"
            report.add("broken", distribution, text, f"pip install -U '{distribution}>={lowest}'")
        else:
            report.add("ok", distribution, found)


def _device(report: Diagnosis) -> bool:
    """Report the devices; whether torch imports."""
    try:
        import torch
    except Exception as error:  # a broken install fails in many ways
        remedy = "install torch and torchvision from the same index"
        report.add("broken", "device", f"torch does not import: {error}", remedy)
        return False
    report.add("ok", "device", f"{cpu_name()}, {cores()} cores, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        text = f"cuda:{index} {torch.cuda.get_device_name(index)}, {memory:.0f} GiB"
        report.add("ok", "device", text)
    return True


def _easyedit(report: Diagnosis) -> bool:
    """Report EasyEdit; whether it imports."""
    from ..host.easyedit import ENV
    from ..host.requirements import inspect_host

    host = inspect_host(try_import=True)
    if host.generation is None:
        wanted = ENV in os.environ
        text = host.problem or "not found"
        if not wanted:
            text += "; only its own classes and the methods built on them need it"
        report.add("broken" if wanted else "note", "EasyEdit", text, host.remedy)
        return False
    if host.problem:
        report.add("broken", "EasyEdit", host.problem, host.remedy)
        return False
    version = host.versions.get("easyeditor")
    text = f"{GENERATIONS[host.generation]}{f' {version}' if version else ''}"
    report.add("ok", "EasyEdit", f"{text}, {host.source}: {host.path}; it imports")
    return True


def _entries(report: Diagnosis, table: Any, names: list[str] | None) -> list[Any]:
    """The entries of ``names``, by default all; one that does not import is reported."""
    found = {}
    for name in names or table.names():
        try:
            entry = table.get(name)
            found[entry.name] = entry
        except Exception as error:  # another package's; the others are looked at all the same
            level: Level = "broken" if names else "note"
            report.add(level, name, f"the {table.kind} does not import: {error}")
    return sorted(found.values(), key=lambda entry: (entry.order, entry.name))


def check_backbone(
    base: BackboneEntry, methods: list[MethodEntry], *, easyedit: bool
) -> BackboneCheck:
    """What ``base`` lacks here, and what each of ``methods`` needs on it.

    Args:
        easyedit: EasyEdit can be imported.
    """
    from ..host.requirements import Missing, missing_for

    missing = missing_for(_settings(None, base))
    if base.easyedit and not easyedit:
        missing.insert(0, Missing("its code", "EasyEdit", "install EasyEdit"))
    return BackboneCheck(
        base.name,
        [one for one in missing if one.blocking],
        [one for one in missing if not one.blocking],
        [_check_method(method, base, easyedit) for method in methods],
    )


def check_families() -> list[FamilyCheck]:
    """Every tested family of vision-language models, and what is lacking for it here."""
    from packaging.version import Version

    from ..backbones.families import FAMILIES

    found = []
    for family in FAMILIES.values():
        needs, here = [], package_version("transformers")
        if here is None or Version(here) < Version(family.since):
            needs.append(f"transformers>={family.since}")
        needs += [name for name in family.needs if package_version(name) is None]
        sizes = {hub: round(2 * billions, 1) for hub, billions in family.weights.items()}
        found.append(FamilyCheck(family.title, family.model_type, needs, sizes))
    return found


def _settings(method: MethodEntry | None, base: BackboneEntry) -> dict[str, Any]:
    """The shipped settings of a method for a base model, or the base model's alone."""
    from ..backbones.settings import model_settings
    from ..methods.settings import shipped_settings

    shipped = shipped_settings(method.alg, base.name) if method else None
    values = shipped or model_settings(base.name)
    # Pictures are a matter of the data: a model can be edited without them.
    return {key: v for key, v in values.items() if key not in ("coco_image", "rephrase_image")}


def _check_method(method: MethodEntry, base: BackboneEntry, easyedit: bool) -> MethodCheck:
    from ..host.requirements import missing_for
    from ..methods import shipped_editor

    needs = []
    if method.needs_easyedit and not easyedit:
        needs.append("EasyEdit")
    try:
        _ = method.editor_class, method.settings_class
        own = {m.where for m in missing_for(_settings(None, base))}
        lacking = [m for m in missing_for(_settings(method, base)) if m.where not in own]
    except EasyEditMMError as error:
        return MethodCheck(method.name, [error.message])
    except Exception as error:  # another package's method fails in many ways
        return MethodCheck(method.name, [f"{type(error).__name__}: {error}"])
    untrained = any(m.what == "trained editor" for m in lacking)
    if method.needs_training and not shipped_editor(method, base.name):
        untrained = True
    needs += [m.where for m in lacking if m.blocking and m.what != "trained editor"]
    return MethodCheck(method.name, needs, untrained)


def _asked_for(
    report: Diagnosis, checked: BackboneCheck, backbone: bool, method: bool, embedded: bool
) -> None:
    """Add what cannot run although it was asked for, or is shipped."""
    for one in checked.lacks if backbone or embedded else ():
        text = f"lacks {one.where} ({one.what})"
        report.add("broken", checked.backbone, text, f"{one.what}: {one.remedy}")
    for found in checked.methods if method and (backbone or embedded) else ():
        topic = f"{found.method} on {checked.backbone}"
        if found.needs:
            report.add("broken", topic, f"needs {', '.join(found.needs)}")
        elif found.untrained:
            remedy = f"easyedit-mm train --method {found.method} --backbone {checked.backbone}"
            report.add("broken", topic, "needs a trained editor, and none is shipped", remedy)


def next_steps(report: Diagnosis) -> list[str]:
    """What to do now: first what is broken, then what would bring more."""
    steps = [
        f"{finding.topic}: {finding.remedy}"
        for level in ("broken", "note")
        for finding in report.findings
        if finding.level == level and finding.remedy
    ]
    if not report.broken:
        steps.append("see an edit: easyedit-mm demo (a few minutes on a CPU)")
        steps.append("measure one: easyedit-mm evaluate --method mscke --limit 20")
    return list(dict.fromkeys(steps))


def show(report: Diagnosis) -> None:
    """Print the report, one line for each thing."""
    from rich.markup import escape

    from ..core.console import CONSOLE

    def line(mark: str, topic: str, text: str) -> None:
        CONSOLE.print(f"{mark} [bold]{escape(f'{topic:<16}')}[/] {escape(text)}", soft_wrap=True)

    marks = {"ok": "[green]ok[/]     ", "note": "[yellow]note[/]   ", "broken": "[red]broken[/] "}
    for finding in report.findings:
        line(marks[finding.level], finding.topic, finding.text)
    if report.backbones:
        CONSOLE.print("\n[bold]Base models, and the methods that run on each[/]")
    for checked in report.backbones:
        if checked.lacks:
            lacks = ", ".join(one.where for one in checked.lacks)
            line("[yellow]lacks[/]  ", checked.backbone, lacks)
            continue
        mark = "[green]runs[/]   "
        parts = [", ".join(m.method for m in checked.methods if not (m.needs or m.untrained))]
        if checked.fetches:
            mark = "[green]fetches[/]"
            parts.insert(0, f"{', '.join(m.where for m in checked.fetches)} at first use; then")
        untrained = [m.method for m in checked.methods if m.untrained and not m.needs]
        if untrained:
            parts.append(f"- to be trained first: {', '.join(untrained)}")
        parts += [f"- {m.method} needs {', '.join(m.needs)}" for m in checked.methods if m.needs]
        line(mark, checked.backbone, " ".join(part for part in parts if part))
    if report.families:
        CONSOLE.print(
            "\n[bold]Families of models that load by folder or hub id[/] (model and processor in "
            "one place; GB of the weights in bfloat16, activations come on top)",
            soft_wrap=True,
        )
    for family in report.families:
        sizes = ", ".join(f"{hub} {size:g} GB" for hub, size in family.gigabytes.items())
        if family.needs:
            line("[yellow]lacks[/]  ", family.family, f"{', '.join(family.needs)}; {sizes}")
        else:
            line("[green]loads[/]  ", family.family, sizes)
    state = "[red]Something is broken.[/] " if report.broken else ""
    CONSOLE.print(f"\n{state}[bold]What to do next[/]")
    for number, step in enumerate(next_steps(report), 1):
        CONSOLE.print(f"{number}. {step}", markup=False, soft_wrap=True)
