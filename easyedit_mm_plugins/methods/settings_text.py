"""Settings as the complete, commented YAML file that EasyEdit's users edit."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from ..backbones.entries import BACKBONES
from ..core.errors import UnknownNameError
from ..core.registry import did_you_mean, resolve
from ..core.yaml_files import merged
from .entries import METHODS
from .settings import build, settings_for
from .settings_files import ShortName

# EasyEdit's own algorithms that are not behind an entry: its code reads the files, ours does not.
_EASYEDITS = {
    "SERAC_MULTI": (
        "SERAC by EasyEdit's own code",
        "easyedit_mm_plugins.methods.serac.config:EasyEditSeracHyperParams",
        "easyedit_mm_plugins.methods.serac.config:EasyEditSeracTrainingHyperParams",
    )
}
NEEDED = "???"  # a setting that must be given, as OmegaConf writes it
_SECTIONS = ("Model", "Method", "Training")


def names() -> Iterator[ShortName]:
    """Every method with settings, on every base model, for editing and for training."""
    backbones = list(BACKBONES)
    for entry in {entry.alg: entry for entry in METHODS}.values():
        for training, cls in enumerate((entry.settings, entry.training)):
            if cls is not None:
                yield from (ShortName(entry.alg, b.name, bool(training)) for b in backbones)
    for alg in _EASYEDITS:
        for training in (False, True):
            yield from (ShortName(alg, b.name, training) for b in backbones if b.easyedit)


def settings_of(name: ShortName | str) -> tuple[ShortName, str, Any]:
    """The name itself, the title of the method, and the class of its settings.

    Raises:
        UnknownNameError: there are no settings of that name; offers the nearest.
    """
    known = list(names())
    parsed = ShortName.parse(name) if isinstance(name, str) else name
    if parsed is None or parsed not in known:
        raise UnknownNameError(
            f"no settings are called {name}; {did_you_mean(str(name), [str(n) for n in known])}",
            remedy="easyedit-mm hparams list shows all of them",
        )
    if parsed.alg in _EASYEDITS:
        title, *classes = _EASYEDITS[parsed.alg]
        return parsed, title, resolve(classes[parsed.training])
    entry = next(entry for entry in METHODS if entry.alg == parsed.alg)
    return parsed, entry.title, entry.training_class if parsed.training else entry.settings_class


def complete(name: ShortName) -> dict[str, Any]:
    """All settings of that name as plain values; what differs, as the shipped files write it.

    As in EasyEdit's files the method is called ``alg`` for training and ``alg_name`` for editing.
    """
    *_, cls = settings_of(name)
    found = merged(defaults(cls), settings_for(cls, name))
    key = "alg" if name.training else "alg_name"
    values = {k: value for k, value in found.items() if k not in ("alg", "alg_name")}
    return {key: name.alg, **values} if key in found else values


def defaults(cls: type[Any]) -> dict[str, Any]:
    """The defaults of a settings class as plain values; :data:`NEEDED` where there is none."""
    found = {}
    for field in dataclasses.fields(cls):
        value = field.default
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        found[field.name] = NEEDED if value is dataclasses.MISSING else _plain(value)
    return found


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def as_yaml(name: ShortName | str) -> str:
    """The file for ``name``: every setting below what it means; reading it gives equal settings.

    Raises:
        UnknownNameError: as for :func:`settings_of`.
    """
    wanted, title, cls = settings_of(name)
    values = complete(wanted)
    made = build(cls, values, str(wanted))
    doing = "Training" if wanted.training else "Editing with"
    lines = [f"# {doing} {title}: {BACKBONES.get(wanted.backbone).title}."]
    for section in _SECTIONS:
        inside = {key: value for key, value in values.items() if _section(cls, key) == section}
        lines += ["", f"# {section}", *_lines(made, inside)] if inside else []
    return "\n".join(lines) + "\n"


def _section(cls: type[Any], key: str) -> str:
    """The section of the class furthest up that has the field."""
    owners = (
        base for base in reversed(cls.__mro__) if key in vars(base).get("__annotations__", ())
    )
    return getattr(next(owners, cls), "_section", "Method")


def _lines(made: Any, values: Mapping[str, Any], indent: str = "") -> list[str]:
    """Fields of ``made``, each below its documentation."""
    lines = []
    for key, value in values.items():
        meaning = made.documentation(key) if hasattr(made, "documentation") else ""
        words = " ".join(meaning.replace("``", "").split())
        wrapped = textwrap.wrap(words, 98 - len(indent), break_on_hyphens=False)
        lines += [f"{indent}# {line}" for line in wrapped]
        inner = getattr(made, key)
        if dataclasses.is_dataclass(inner):
            lines += [f"{indent}{key}:", *_lines(inner, value, f"{indent}  ")]
        else:
            flow = None if isinstance(value, (list, dict)) else False  # inner lists on one line
            text = yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=flow, width=98)
            lines += textwrap.indent(text, indent).splitlines()
    return lines
