"""The small files of a run folder: configuration, environment, and the refusal to mix runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..core.environment import environment
from ..core.errors import RunError
from ..core.files import read_json, write_json, write_text
from ..core.secrets import redact_values

FORMAT = 1  # of all files in a run folder


def read_config(path: Path) -> dict[str, Any] | None:
    """The content of ``config.yaml``, or ``None`` where there is none.

    Raises:
        RunError: it cannot be read, or is of a newer format.
    """
    if not path.exists():
        return None
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    check_format(value, path)
    return value


def write_config(
    path: Path,
    config: Mapping[str, Any],
    execution: Mapping[str, Any],
    editors: Mapping[str, Any],
    backbones: Mapping[str, Any],
) -> None:
    """Write ``config.yaml``: what must be the same to go on, what need not, who was measured."""
    value = {
        "format": FORMAT,
        "config": config,
        "execution": execution,
        "editors": editors,
        "backbones": backbones,
    }
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def check_format(value: Any, path: Path) -> None:
    """Raise :class:`RunError` if ``value``, read from ``path``, is of a newer or no format."""
    version = value.get("format") if isinstance(value, dict) else None
    if not isinstance(version, int):
        raise RunError(
            f"{path} is not a file of a run folder (no format number)",
            remedy="choose another run name, or start over with --overwrite",
        )
    if version > FORMAT:
        raise RunError(
            f"{path} has format {version}, this version knows {FORMAT}",
            remedy="update easyedit-mm-plugins, or choose another run name",
        )


def note_environment(path: Path, execution: Mapping[str, Any], seed: int) -> None:
    """Write ``env.json``; when a run goes on elsewhere, add under "resumed" what differs there."""
    given = {key: str(execution[key]) for key in ("device", "dtype") if execution.get(key)}
    now = environment(**given, seed=seed)
    if path.exists():
        first = read_json(path)
        last = dict(first)
        for earlier in first.get("resumed", []):
            last |= earlier
        changed = {k: v for k, v in now.items() if last.get(k) != v and k != "started"}
        if not changed:
            return
        changed["at"] = now["started"]
        now = {**first, "resumed": [*first.get("resumed", []), changed]}
    write_json(path, now)


def refuse_mixing(run: Path, what: str, known: Any, wanted: Any) -> None:
    """Raise :class:`RunError` with every key in which ``wanted`` differs from what ``run`` has."""
    different = [f"{key}: {old!r} there, {new!r} now" for key, old, new in _compare(known, wanted)]
    if different:
        listed = "\n    ".join(different)
        raise RunError(
            f"{run} was made with another {what}:\n    {listed}",
            remedy="choose another name (--name), or drop what is there (--overwrite)",
        )


def plain(value: Any) -> Any:
    """``value`` as JSON would hold it, so that it compares equal after a round trip.

    Keys and passwords are replaced by ``***``, since it is written to the run folder.
    """
    return redact_values(json.loads(json.dumps(value, default=str)))


def _compare(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted names at which two JSON values differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _compare(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new
