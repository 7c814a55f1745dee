"""YAML files of settings, as EasyEdit's users write them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError
from .registry import did_you_mean
from .shipped import HPARAMS

_MOST_NODES = 100_000  # of a file of settings
_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def yaml_path(path: str | Path) -> Path:
    """``path`` with the ending ``.yaml``, which EasyEdit's users may leave out.

    Raises:
        ConfigError: it names no file.
    """
    path = Path(path)
    if not path.name:
        raise ConfigError(f"{str(path)!r} names no hparams file")
    return path if path.suffix in (".yaml", ".yml") else path.with_name(path.name + ".yaml")


class _Loader(yaml.SafeLoader):
    """YAML's plain values; a key that stands twice is an error, not the last of the two."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            said = f"the key {twice!r} stands twice"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """The YAML value that ``text`` is; see :func:`read_value`.

    Raises:
        ValueError: it is not YAML, has a key twice, is nested too deeply, or its aliases make it
            endless or too large.
    """
    try:
        value = yaml.load(text, _Loader)
        if _nodes(value, {}) > _MOST_NODES:
            raise ValueError("its aliases make it endless or too large")
        return read_value(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except Exception as error:  # PyYAML's tags raise nearly anything: !!int 'abc', 2001-99-99
        raise ValueError(str(error)) from error


def _nodes(value: Any, known: dict[int, float]) -> float:
    """How many values there are in ``value`` if every alias is written out."""
    if not isinstance(value, (dict, list, tuple)):
        return 1
    if id(value) not in known:
        known[id(value)] = math.inf  # what is met again before it is counted holds itself
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_nodes(item, known) for item in items)
    return known[id(value)]


def read_yaml(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The mapping in a YAML file, whose name may lack ``.yaml``; and the path of the file.

    Raises:
        ConfigError: the file is missing, not YAML or not a mapping, or has a key twice.
    """
    path = yaml_path(path)
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(
            f"hparams file {path} does not exist; {did_you_mean(path.stem, near)}"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"hparams file {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"hparams file {path} is not a mapping of settings")
    return path, values


def read_value(value: Any) -> Any:
    """A YAML value; YAML 1.1 reads 1e-5 as text, and EasyEdit's files are full of such numbers."""
    if isinstance(value, dict):
        return {key: read_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [read_value(item) for item in value]
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


@cache
def settings_file(name: str) -> dict[str, Any]:
    """The content of a file below ``hparams/``, empty where there is none; not to be changed.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = HPARAMS / f"{name}.yaml"
    return read_yaml(path)[1] if path.is_file() else {}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``below`` with what ``above`` sets; mappings are merged key by key."""
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            value = merged(under, value)
        found[key] = value
    return found
