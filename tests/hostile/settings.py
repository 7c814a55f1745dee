"""Settings: YAML files of every method, for editing and training, and values of ``--set``.

Oracle: settings that are accepted have, under every key of the file, the value that YAML's own
reader finds there, of the same type (a whole number may become one with a point; one text a list of
it; ``1e-5`` a number), and defaults under all others. A key that stands twice in a file is refused.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from easyedit_mm_plugins.cli.train import parse_changes
from easyedit_mm_plugins.methods.entries import METHODS
from easyedit_mm_plugins.methods.settings import HParams, build

from .attack import Attack, Different, Draw, Kind
from .mutations import TEXTS, changed, damaged, plain, texts

_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
# Lists of lists of lists, each twice the one before: a file of 200 letters, and 2**24 values.
_LAUGHS = "[&a [1], " + ", ".join(
    f"&{one} [*{before}, *{before}]"
    for before, one in zip("abcdefghijklmnopqrstuvwx", "bcdefghijklmnopqrstuvwxy", strict=True)
)
# As they may stand behind a key in a file.
_RAW = (
    *TEXTS, "!!int 'abc'", "!!float x", "!!binary x", "!!timestamp x", "!!set {a}", "!!null x",
    "!!python/name:os.system", "!unknown x", "&a [*a]", "*a", "<<: {lr: 1}", "[" * 3000, "9" * 5000,
    "{" * 50, "2001-99-99", "2001-01-01", "12:30:45", "0o17", "0b11", "1e-5", "1E5", ".inf", ".nan",
    "- a", "? a", "|\n  x", ">", "'", '"\\x', "{a: 1, a: 2}", "\t", "%TAG", "---\na", "yes", "off",
    f"{_LAUGHS}]",
)  # fmt: skip


def start(folder: Path) -> Attack:
    classes: list[tuple[type[HParams], str, dict[str, Any]]] = []
    for entry in METHODS:
        for cls in (entry.settings_class, entry.training_class):
            if cls is not None and hasattr(cls, "from_hparams"):
                short = f"{entry.alg}/scenes-blip2"
                values = cls.from_hparams(short).to_dict()
                classes.append((cls, short, _plain(values)))
    file = folder / "settings.yaml"

    def attack(draw: Draw) -> None:
        cls, _, values = draw(st.sampled_from(classes))
        how = draw(st.sampled_from(("value", "value", "raw", "raw", "bytes", "set", "twice")))
        if how == "set":
            key = draw(st.sampled_from([*values, "nothing", "", " ", "a.b", "__class__"]))
            text = draw(st.sampled_from(_RAW) | texts)
            changes = parse_changes([f"{key}={text}"])
            found = build(cls, values | changes, "--set").to_dict()
            _compare(cls, found, values | {key.strip(): _read(text)})
            return
        if how == "value":
            values = changed(draw, values, plain)
            text = yaml.safe_dump(values, sort_keys=False, allow_unicode=draw(st.booleans()))
        else:
            key = draw(st.sampled_from([*values]))
            text = yaml.safe_dump({k: v for k, v in values.items() if k != key or how == "bytes"})
            if how == "raw":
                text += f"{key}: {draw(st.sampled_from(_RAW) | texts)}\n"
            if how == "twice":
                text += yaml.safe_dump({key: values[key]}) * 2
        data = text.encode("utf-8", "surrogatepass")
        if how == "bytes":
            data = damaged(draw, data)
        file.write_bytes(data)
        found = cls.from_hparams(file).to_dict()
        if how == "twice":
            raise Different("a key that stands twice in a file is accepted")
        _compare(cls, found, yaml.safe_load(data))

    return attack


def _compare(cls: type[HParams], found: dict[str, Any], given: Any) -> None:
    defaults = {}
    for field in dataclasses.fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            defaults[field.name] = _plain(field.default_factory())
        else:
            defaults[field.name] = field.default
    defaults |= {"alg_name": cls._alg, "alg": cls._alg}
    for key, value in found.items():
        wanted = given[key] if key in given else defaults[key]
        if key in ("alg", "alg_name"):
            wanted = wanted or cls._alg
        if not _same(wanted, _plain(value)):
            raise Different(f"{cls.__name__}.{key} is {value!r}, the file says {wanted!r}")
    if lost := [key for key in given if key not in found]:
        raise Different(f"{cls.__name__}: {lost[0]!r} is ignored")


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, dict) and isinstance(found, dict):
        return all(k in found and _same(v, found[k]) for k, v in wanted.items())
    if isinstance(wanted, (list, tuple)) and isinstance(found, (list, tuple)) and len(found) < 99:
        return len(wanted) == len(found) and all(map(_same, wanted, found))
    if isinstance(wanted, str) and isinstance(found, list):
        return found == [wanted]
    if isinstance(wanted, str) and isinstance(found, float):
        return _SCIENTIFIC.fullmatch(wanted) is not None and float(wanted) == found
    if {type(wanted), type(found)} == {int, float}:
        # the number nearest to a large integer
        return wanted == found or (abs(wanted) < 1e300 and float(wanted) == float(found))
    if wanted is None and isinstance(found, dict):  # a part of the settings at its defaults
        return True
    return type(wanted) is type(found) and (wanted == found or wanted != wanted)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _read(text: str) -> Any:
    return yaml.safe_load(text)


KIND = Kind("settings", (4000, 400), start)
