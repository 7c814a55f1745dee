"""From a command line in Hydra's language to configurations, one per backbone and data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...backbones.entries import BACKBONES
from ...core.errors import ConfigError, UnknownNameError
from ...core.registry import did_you_mean
from ...core.shipped import HPARAMS
from ...methods.entries import METHODS
from .schema import CompareConfig, node_name, register, schema_defaults

NAME = "compare"
_WORD = re.compile(r"[\w-]+")
_SEVERAL = {"backbone": "backbones", "data": "data_sets"}


def expand(words: Sequence[str]) -> list[str]:
    """Overrides as Hydra takes them, from what people may write.

    ``method=mscke-mend`` becomes ``method=[mscke_mend]``, ``backbone=[a,b]`` and ``data=[a,b]``
    the lists ``backbones`` and ``data_sets``, ``backbone=FOLDER`` and ``data=FILE.json`` the groups
    that take a path.
    """
    expanded: list[str] = []
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or key not in ("method", "backbone", "data"):
            expanded.append(word)
        elif key == "method":
            listed = value if value.startswith("[") or "," in value else f"[{value}]"
            nodes = _WORD.sub(lambda found: node_name(found[0]), listed)
            expanded.append(f"method={nodes}")
        elif value.startswith("["):
            expanded += [f"{_SEVERAL[key]}={value}"]
        elif key == "backbone":
            expanded += _backbone(value)
        else:
            expanded += _data(value)
    return expanded


def _backbone(value: str) -> list[str]:
    if "," not in value and value not in BACKBONES and Path(value).is_dir():
        return ["backbone=folder", f"backbone.name={_quoted(value)}"]
    return [f"backbone={BACKBONES.key(value)}"]


def _data(value: str) -> list[str]:
    if "," not in value and Path(value).suffix == ".json":
        return ["data=fgvedit", f"data.path={_quoted(value)}"]
    return [f"data={'scenes-fgvedit' if value == 'scenes' else value}"]


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


@contextmanager
def hydra_ready() -> Iterator[None]:
    """Hydra knows the package's groups and schema inside the block."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    register()
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(HPARAMS), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = before


def compose_all(words: Sequence[str]) -> list[Any]:
    """One configuration for each backbone and data set that ``words`` ask for.

    Raises:
        ConfigError: a key, value or group that is not known, with the nearest that is.
    """
    overrides = expand(words)
    with hydra_ready():
        first = _compose(overrides)
        rest = [w for w in overrides if w.split("=")[0].lstrip("+~") not in _SEVERAL]
        backbones, sets = list(first.backbones), list(first.data_sets)
        if not backbones and not sets:
            return [first]
        own = {key: [w for w in overrides if w.split("=")[0] == key] for key in _SEVERAL}
        return [
            _compose([*rest, *backbone, *data])
            for backbone in ([_backbone(name) for name in backbones] or [own["backbone"]])
            for data in ([_data(name) for name in sets] or [own["data"]])
        ]


def _compose(overrides: list[str]) -> Any:
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return compose(NAME, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from None


def explain(error: BaseException, overrides: Sequence[str]) -> ConfigError:
    """Hydra's error in the words of this package, with the nearest names."""
    text = str(error).split("\n")[0]
    missing = re.search(r"Could not (?:find|load) '([\w./-]+)/([^/']+)'", text)
    if missing:
        group, name = missing.groups()
        options = options_of(group)
        return UnknownNameError(f"no {group} {name!r}; {did_you_mean(name, options)}")
    if text.startswith("Ambiguous value"):
        return ConfigError(
            text, remedy="several at once are written [a,b]; a,b is a sweep and needs -m"
        )
    cause: BaseException | None = error
    while cause is not None:
        key = getattr(cause, "full_key", None)
        if key and key != "_dummy_":
            return _about_key(str(key), str(cause).split("\n")[0])
        cause = cause.__cause__ or cause.__context__
    return ConfigError(text, remedy=f"the command line was: {' '.join(overrides)}")


def _about_key(key: str, text: str) -> ConfigError:
    if "not in" not in text:
        return ConfigError(f"{key}: {text[0].lower()}{text[1:]}")
    parent, _, name = key.rpartition(".")
    known = keys_of(parent)
    if not known:
        return UnknownNameError(f"unknown key {key}")
    if parent == "method" and name in known:
        return ConfigError(
            f"{key}: {name} is not among the methods that are compared",
            remedy=f"add it: method=[...,{name}]",
        )
    return UnknownNameError(f"unknown key {key}; {did_you_mean(name, known)}")


def options_of(group: str) -> list[str]:
    """The options of a config group, from files and from the registries."""
    found = {p.stem for p in (HPARAMS / group).glob("*.yaml")}
    if group == "method":
        found |= {node_name(name) for name in METHODS.names()}
    if group == "backbone":
        found |= set(BACKBONES.names())
    return sorted(found)


def keys_of(node: str) -> list[str]:
    """The keys that a node of the configuration may have."""
    from omegaconf import OmegaConf

    group, _, rest = node.partition(".")
    if node == "method":
        return options_of("method")
    if group == "method":
        method, _, rest = rest.partition(".")
        config: Any = schema_defaults(method)
    else:
        config, rest = OmegaConf.to_container(OmegaConf.structured(CompareConfig)), node
    for part in rest.split(".") if rest else ():
        config = config.get(part) or {}
    return [str(key) for key in config] if isinstance(config, dict) else []
