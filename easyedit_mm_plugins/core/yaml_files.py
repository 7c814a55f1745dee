"""YAML files of settings, as EasyEdit's users write them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError
from .registry import did_you_mean
from .shipped import HPARAMS

_SCIENTIFIC = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def yaml_path(path: str | Path) -> Path:
    """``path`` with the ending ``.yaml``, which EasyEdit's users may leave out."""
    path = Path(path)
    return path if path.suffix in (".yaml", ".yml") else path.with_name(path.name + ".yaml")


def read_yaml(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """The mapping in a YAML file, whose name may lack ``.yaml``; and the path of the file.

    Raises:
        ConfigError: the file is missing, not YAML, or not a mapping.
    """
    path = yaml_path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        near = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(
            f"hparams file {path} does not exist; {did_you_mean(path.stem, near)}"
        ) from None
    except RecursionError:
        raise ConfigError(f"hparams file {path} is nested too deeply") from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: !!int 'abc', 2001-99-99
        raise ConfigError(f"hparams file {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"hparams file {path} is not a mapping of settings")
    return path, read_value(values)


def read_value(value: Any) -> Any:
    """A YAML value; YAML 1.1 reads 1e-5 as text, and EasyEdit's files are full of such numbers."""
    if isinstance(value, dict):
        return {key: read_value(item) for key, item in value.items()}
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
