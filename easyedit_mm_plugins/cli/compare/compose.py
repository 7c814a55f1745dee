"""From a command line in Hydra's language to configurations, one per backbone and data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...backbones.entries import BACKBONES, is_place
from ...core.errors import ConfigError, UnknownNameError
from ...core.registry import did_you_mean
from ...core.shipped import HPARAMS
from ...methods.entries import METHODS
from .schema import FOLDER, CompareConfig, method_node, node_name, options_of, register

NAME = "compare"
_GROUPS = ("method", "backbone", "data", "eval", "experiment")
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
    if "," not in value and is_place(value):
        return [f"backbone={FOLDER}", f"backbone.name={_quoted(value)}"]
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

    check(overrides)
    try:
        return compose(NAME, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from None


def check(overrides: Sequence[str], *, sweep: bool = False) -> None:
    """Names in the overrides, before Hydra composes.

    Args:
        sweep: several values of a key may stand beside each other.

    Raises:
        UnknownNameError: an option that a group does not have, with the nearest that it has.
        ConfigError: Hydra cannot parse an override, or it is a sweep where there is none.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise explain(error, overrides) from None
    for override in parsed:
        swept = override.is_sweep_override()
        if swept and not sweep:
            raise ConfigError(
                f"{override.input_line} has several values",
                remedy="several at once are written [a,b]; a,b is a sweep and needs -m",
            )
        group, value = override.key_or_group, override.value()
        if group not in _GROUPS or value is None:
            continue
        chosen = list(override.sweep_string_iterator()) if swept else value
        for name in chosen if isinstance(chosen, list) else [chosen]:
            for part in str(name).strip("[]").split(","):
                if part and part not in (known := options_of(group)):
                    raise UnknownNameError(f"no {group} {part!r}; {did_you_mean(part, known)}")


def explain(error: BaseException, overrides: Sequence[str]) -> ConfigError:
    """Hydra's error in the words of this package, with the nearest names."""
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    cause: BaseException | None = error
    while cause is not None:
        key = getattr(cause, "full_key", None)
        if key and key != "_dummy_":
            if isinstance(cause, (ConfigAttributeError, ConfigKeyError)):
                return _unknown_key(str(key))
            text = str(cause).split("\n")[0]
            return ConfigError(f"{key}: {text[0].lower()}{text[1:]}")
        cause = cause.__cause__ or cause.__context__
    text = str(error).split("\n")[0]
    return ConfigError(text, remedy=f"the command line was: {' '.join(overrides)}")


def _unknown_key(key: str) -> ConfigError:
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


def keys_of(node: str) -> list[str]:
    """The keys that a node of the configuration may have."""
    from omegaconf import OmegaConf

    if node == "method":
        return options_of("method")
    group, _, rest = node.partition(".")
    config: Any = OmegaConf.to_container(OmegaConf.structured(CompareConfig))
    if group == "method":
        method, _, node = rest.partition(".")
        config = method_node(METHODS.get(method), FOLDER) if method in METHODS else {}
    for part in node.split(".") if node else ():
        config = config.get(part) or {}
    return [str(key) for key in config] if isinstance(config, dict) else []
