"""``easyedit-mm doctor``: what is installed, which EasyEdit was found, what can run, what is not.

Looks, and changes nothing: no model is loaded and nothing is registered.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import typer
import yaml

from ..core.environment import cores, cpu_name, package_version
from ..core.errors import EasyEditMMError
from ..core.shipped import HPARAMS

Level = Literal["ok", "note", "broken"]

# Distribution and the lowest version that is supported.
SUPPORTED = (
    ("torch", "2.1"),
    ("torchvision", None),
    ("transformers", "4.49"),
    ("open_clip_torch", "2.24"),
    ("safetensors", "0.4"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``broken`` things stop the plugin, notes stop a part of it."""

    level: Level
    topic: str
    text: str
    remedy: str = ""


@dataclass
class Diagnosis:
    """Everything that was looked at."""

    findings: list[Finding] = field(default_factory=list)
    hparams: list[dict[str, Any]] = field(default_factory=list)

    @property
    def broken(self) -> bool:
        """Whether something must be repaired before anything runs."""
        return any(finding.level == "broken" for finding in self.findings)

    def add(self, level: Level, topic: str, text: str, remedy: str = "") -> None:
        """Append a finding."""
        self.findings.append(Finding(level, topic, text, remedy))

    def to_json(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"format": 1, "broken": self.broken, **asdict(self)}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What is installed here, which EasyEdit was found, what can run and what is missing."""
    report = examine()
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        show(report)
    raise typer.Exit(1 if report.broken else 0)


def examine() -> Diagnosis:
    """Look at this machine."""
    report = Diagnosis()
    report.add("ok", "python", platform.python_version())
    _packages(report)
    _device(report)
    _easyedit(report)
    _embedded(report)
    _hparams(report)
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


def _device(report: Diagnosis) -> None:
    try:
        import torch
    except Exception as error:  # a broken install fails in many ways
        remedy = "install torch and torchvision from the same index"
        report.add("broken", "device", f"torch does not import: {error}", remedy)
        return
    report.add("ok", "device", f"{cpu_name()}, {cores()} cores, {torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        text = f"cuda:{index} {torch.cuda.get_device_name(index)}, {memory:.0f} GiB"
        report.add("ok", "device", text)


def _easyedit(report: Diagnosis) -> None:
    try:
        from ..bridge import inspect_host, status
    except Exception as error:
        report.add(
            "broken", "EasyEdit bridge", f"does not import: {error}", "reinstall the package"
        )
        return
    host = inspect_host()
    if host.generation is None:
        text = host.problem or "not found"
        remedy = host.remedy or "install it, or set EASYEDIT_ROOT to a checkout"
        report.add("note", "EasyEdit", f"{text} (only needed to run through its classes)", remedy)
        return
    names = {"pypi": "the PyPI release", "head": "the GitHub generation (HEAD)"}
    version = host.versions.get("easyeditor")
    text = f"{names.get(host.generation, host.generation)}{f' {version}' if version else ''}"
    level: Level = "broken" if host.problem else "ok"
    report.add(level, "EasyEdit", f"{text}, {host.source}: {host.path}", host.remedy or "")
    if host.problem:
        report.add("broken", "EasyEdit", host.problem, host.remedy or "")
    _host_versions(report, host.generation, host.versions.get("transformers"))
    state = status()
    hooks = (
        f"registered: {', '.join(state.methods)}"
        if state.registered
        else "not registered in this process (easyedit_mm_plugins.register() does it)"
    )
    report.add("ok", "hooks", hooks)
    for problem in state.problems:
        report.add("note", "hooks", problem)


def _host_versions(report: Diagnosis, generation: str, transformers: str | None) -> None:
    """Which transformers each generation of EasyEdit imports with."""
    from packaging.version import Version

    if transformers is None:
        return
    if generation == "pypi" and not Version("4.49") <= Version(transformers) < Version("4.54"):
        report.add(
            "note",
            "EasyEdit",
            f"its PyPI release imports with transformers 4.49 to 4.53.3, not {transformers}",
            "pip install 'transformers>=4.49,<4.54', or use a checkout of EasyEdit",
        )
    if generation == "head" and Version(transformers) < Version("4.53"):
        report.add(
            "note",
            "EasyEdit",
            f"its GitHub generation imports with transformers 4.53.3 and newer, not {transformers}",
            "pip install -U transformers",
        )


def _embedded(report: Diagnosis) -> None:
    from ..backbones import BACKBONES
    from ..core.shipped import ASSETS
    from ..methods import METHODS, shipped_editor

    for backbone in (entry.name for entry in BACKBONES if entry.embedded):
        editors = [e.name for e in METHODS if shipped_editor(e, backbone)]
        if not (ASSETS / backbone / "config.json").is_file():
            remedy = "reinstall the package, or retrain it (make backbones)"
            report.add("broken", backbone, f"its files are not in {ASSETS}", remedy)
        else:
            trained = ", ".join(editors) or "none"
            report.add("ok", backbone, f"shipped; trained editors: {trained}")


def _hparams(report: Diagnosis) -> None:
    """Every shipped YAML: can it run here, and what does it lack."""
    try:
        from ..bridge import missing_for
    except Exception:  # already reported
        return
    for path in sorted(HPARAMS.rglob("*.yaml")):
        name = str(path.relative_to(HPARAMS))
        entry: dict[str, Any] = {"file": name, "runs": True, "missing": []}
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            lacking = missing_for(values)
        except (OSError, yaml.YAMLError, EasyEditMMError) as error:
            report.add("broken", name, str(error), "reinstall the package")
            continue
        for thing in lacking:
            entry["missing"].append(asdict(thing))
            if thing.what == "image folder" and "data/scenes" in thing.where:
                entry["missing"][-1]["remedy"] = "run easyedit-mm scenes"
            # Pictures are a matter of the data; the model can be edited without them.
            entry["runs"] &= not thing.blocking or thing.what == "image folder"
        report.hparams.append(entry)


def show(report: Diagnosis) -> None:
    """Print the report."""
    from rich.markup import escape

    from ..core.console import CONSOLE

    marks = {"ok": "[green]ok[/]    ", "note": "[yellow]note[/]  ", "broken": "[red]broken[/]"}
    for finding in report.findings:
        CONSOLE.print(
            f"{marks[finding.level]} [bold]{escape(finding.topic)}[/]  {escape(finding.text)}",
            soft_wrap=True,
        )
        if finding.remedy:
            CONSOLE.print(f"         remedy: {finding.remedy}", markup=False, soft_wrap=True)
    if report.hparams:
        CONSOLE.print("\n[bold]hparams files[/]")
    for entry in report.hparams:
        mark = "[yellow]lacks[/]  "
        if entry["runs"]:
            fetched = any(not thing["blocking"] for thing in entry["missing"])
            mark = "[green]fetches[/]" if fetched else "[green]runs[/]   "
        CONSOLE.print(f"{mark} {escape(entry['file'])}", soft_wrap=True)
        for thing in entry["missing"]:
            when = "" if thing["blocking"] else ", or let it be fetched at first use"
            CONSOLE.print(
                f"         {thing['what']} ({thing['where']}): {thing['remedy']}{when}",
                markup=False,
                soft_wrap=True,
            )
    verdict = "[red]something is broken, see above[/]" if report.broken else "[green]all well[/]"
    CONSOLE.print(f"\n{verdict}")
