"""The small files of a run folder, their checks, and the refusal to mix two runs in one folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..core.environment import environment
from ..core.errors import ConfigError, DataError, RunError
from ..core.files import file_digest, read_json, write_json, write_text
from ..core.secrets import redact_values
from .field_types import check_fields, has_type

FORMAT = 1  # of all files in a run folder

_CONFIG_FIELDS = {
    "format": int,
    "config": dict[str, Any],
    "execution": dict[str, Any] | None,
    "editors": dict[str, dict[str, Any]] | None,
    "backbones": dict[str, dict[str, Any]] | None,
}
_CONFIG_PARTS = {
    "protocol": dict[str, Any] | None,
    "dataset": dict[str, Any] | str | None,
    "datasets": dict[str, dict[str, Any]] | None,
}
_PROTOCOL_FIELDS = {"seed": int, "bootstrap": int}
_DATASET_FIELDS = {"name": str, "n": int}
_ENVIRONMENT_FIELDS = {
    "started": str | None,
    "git_commit": str | None,
    "resumed": list[dict[str, Any]],
}
_MOST_RESAMPLES = 1_000_000
_LONGEST_NAME = 255  # bytes, of a file's name on common file systems
_RESTORE = "restore the file, choose another run name, or start over with --overwrite"
_SUMMARISE = "delete the file and start the same command again, which writes it"
_FORGET = "delete the file; the next start of the run writes it"


def read_config(path: Path) -> dict[str, Any] | None:
    """The content of ``config.yaml``, or ``None`` where there is none.

    Raises:
        RunError: it cannot be read, is of a newer format, or holds values of other types.
    """
    if not path.exists():
        return None
    try:
        value = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except RecursionError:
        raise RunError(f"{path} is nested too deeply", remedy=_RESTORE) from None
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        # ValueError: !!int 'abc', 2001-99-99; TypeError: a list as a key
        raise RunError(f"{path} cannot be read: {error}", remedy=_RESTORE) from error
    check_format(value, path)
    try:
        check_fields(value, _CONFIG_FIELDS, optional=("execution", "editors", "backbones"))
        _check_config(value["config"])
        for editor in (value.get("editors") or {}).values():
            _check_known(editor, {"settings": dict[str, Any] | None})
        for backbone in (value.get("backbones") or {}).values():
            _check_known(backbone, {"parameters": float | None})
        json.dumps(value, default=str, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}", remedy=_RESTORE) from None
    return value


class _Loader(yaml.SafeLoader):
    """Takes no aliases, with which a small file becomes a value larger than the memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not used in this file")
        return super().compose_node(parent, index)


def _check_config(config: Mapping[str, Any]) -> None:
    """The parts of a run's configuration that tables and reports read."""
    _check_known(config, _CONFIG_PARTS)
    protocol = config.get("protocol") or {}
    _check_known(protocol, _PROTOCOL_FIELDS)
    if protocol.get("seed", 0) < 0 or not 1 <= protocol.get("bootstrap", 1) <= _MOST_RESAMPLES:
        raise ValueError("the seed or the number of resamples (bootstrap) is out of range")
    one, several = config.get("dataset"), config.get("datasets") or {}
    for dataset in [*several.values(), *([one] if isinstance(one, dict) else [])]:
        _check_known(dataset, _DATASET_FIELDS)


def _check_known(value: Any, types: Mapping[str, Any]) -> None:
    check_fields(value, types, optional=types, others=True)


def read_summary(path: Path) -> dict[str, Any] | None:
    """The content of ``summary.json``, or ``None`` where there is none.

    Raises:
        RunError: it cannot be read, or is of a newer format.
    """
    if not path.exists():
        return None
    try:
        value = read_json(path)
    except DataError as error:
        raise RunError(error.message, remedy=_SUMMARISE) from error
    check_format(value, path)
    return value


def read_environment(path: Path) -> dict[str, Any]:
    """The content of ``env.json``; empty where there is none.

    Raises:
        RunError: it cannot be read, or is not an object.
    """
    if not path.exists():
        return {}
    try:
        value = read_json(path)
    except DataError as error:
        raise RunError(str(error).partition("\n")[0], remedy=_FORGET) from error
    try:
        _check_known(value, _ENVIRONMENT_FIELDS)
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}", remedy=_FORGET) from None
    return value


def write_config(
    path: Path,
    config: Mapping[str, Any],
    execution: Mapping[str, Any],
    editors: Mapping[str, Any],
    backbones: Mapping[str, Any],
) -> None:
    """Write ``config.yaml``; see :class:`runs.RunFolder` for its parts."""
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
    """Write ``env.json``; if a run goes on in another environment, add the changes as "resumed"."""
    given = {key: str(execution[key]) for key in ("device", "dtype") if execution.get(key)}
    now = environment(**given, seed=seed)
    first = read_environment(path)
    if first:
        last = dict(first)
        for earlier in first.get("resumed", []):
            last |= earlier
        changed = {k: v for k, v in now.items() if last.get(k) != v and k != "started"}
        if not changed:
            return
        changed["at"] = now["started"]
        now = {**first, "resumed": [*first.get("resumed", []), changed]}
    write_json(path, now)


def checksums(run: Path, rows: Any) -> dict[str, str]:
    """SHA-256 of the files in ``run`` that figures come from, and of the summary's ``rows``."""
    files = sorted(
        path
        for pattern in ("config.yaml", "cases.jsonl", "status.jsonl", "before-*.jsonl")
        for path in run.glob(pattern)
    )
    text = json.dumps(rows, sort_keys=True)
    return {
        **{path.name: file_digest(path) if path.is_file() else "no file" for path in files},
        "rows": hashlib.sha256(text.encode()).hexdigest(),
    }


def changed_files(run: Path) -> list[str]:
    """Names in :func:`checksums` whose content is another than when the run was summarised.

    Empty where no summary has checksums: the run has not ended, or an earlier version wrote it.

    Raises:
        RunError: ``summary.json`` is damaged.
    """
    path = run / "summary.json"
    summary = read_summary(path) or {}
    noted = summary.get("checksums")
    if noted is None:
        return []
    if not has_type(noted, dict[str, str]):
        raise RunError(f"{path} is damaged: checksums are not texts by name", remedy=_SUMMARISE)
    found = checksums(run, summary.get("rows"))
    return sorted(name for name in noted | found if noted.get(name) != found.get(name))


def run_path(runs: str | Path, name: str | Path) -> Path:
    """The folder of the run called ``name`` in the folder ``runs``.

    Raises:
        ConfigError: the name leads out of ``runs``, or no folder can have it.
    """
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in str(name):
        raise ConfigError(
            f"{str(name)!r} is not a name of a run: it must lie inside {runs}",
            remedy="give a name such as mscke-blip2, without .. and without a leading /",
        )
    if any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME for part in parts):
        raise ConfigError(
            f"the run name {str(name)[:40]!r}... is too long",
            remedy=f"give a name of at most {_LONGEST_NAME} bytes (--name)",
        )
    return Path(runs) / name


def refuse_mixing(run: Path, what: str, known: Any, wanted: Any) -> None:
    """Raise :class:`RunError` if ``wanted`` differs from the run's ``known``; it names the keys."""
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
