"""``easyedit-mm compare``: a configuration in Hydra's language becomes a grid, is run and shown."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...backbones.entries import BACKBONES
from ...core.distributed import Ranks
from ...core.errors import ConfigError
from ...core.shipped import HPARAMS
from ...data.entries import DATASETS
from ...evaluation import Protocol, RunFolder
from ...evaluation.grid import BackboneSpec, DataSpec, Grid, MethodSpec
from ...methods.entries import METHODS
from ...methods.settings import build, shipped_settings
from .compose import NAME, check, compose_all, expand, explain
from .schema import (
    FOLDER,
    MISSING,
    BackboneConfig,
    DataConfig,
    EvalConfig,
    method_node,
    node_name,
    register,
)

# What neither changes a number nor which rows belong together has no place in a run's name.
_NAMELESS = ("method", "backbone", "backbones", "data", "data_sets", "eval", "experiment")
_NAMELESS_KEYS = (
    "out",
    "overwrite",
    "data.path",
    "data.images",
    "backbone.name",
    "backbone.source",
    "backbone.device",
    "backbone.device_map",
    "eval.batch_size",
    "eval.processes",
)


def compare(words: Sequence[str]) -> None:
    """Run what the command line asks for; with Hydra's flags (``-m``, ``--cfg`` ...) by Hydra.

    Raises:
        ConfigError: before anything is loaded, a key, type or name that is wrong.
        EasyEditMMError: from the run.
    """
    try:
        import hydra  # noqa: F401
    except ImportError:
        raise ConfigError(
            "compare needs hydra-core", remedy="pip install 'easyedit-mm-plugins[experiments]'"
        ) from None
    if any(word.startswith("-") for word in words):
        by_hydra(list(words))
        return
    configs = compose_all(words)
    show(run(configs, words))


def run(configs: Sequence[Any], words: Sequence[str]) -> RunFolder:
    """Measure configurations, which differ in backbone and data only, into one run folder."""
    from ...evaluation.runner import run_grid

    plan, out = grid(configs), configs[0].out
    return run_grid(plan, out or default_out(configs, words), overwrite=configs[0].overwrite)


def show(found: RunFolder) -> None:
    """The table, and where everything is; by one process alone."""
    if not Ranks.here().first:
        return
    from ...core.console import CONSOLE
    from ..options import show_run

    show_run(found, found.rows())
    CONSOLE.print(f"written to {found.path}/", markup=False)


def grid(configs: Sequence[Any]) -> Grid:
    """The grid of configurations that :func:`compose_all` gave.

    Raises:
        ConfigError: a value that cannot be used.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        plain: list[Any] = [
            OmegaConf.to_container(c, resolve=True, throw_on_missing=False) for c in configs
        ]
    except OmegaConfBaseException as error:
        raise explain(error, []) from None
    backbones: dict[str, BackboneSpec] = {}
    sets: dict[str, DataSpec] = {}
    specs: dict[str, dict[str, MethodSpec]] = {}
    measured = _section(EvalConfig, plain[0], "eval")
    for config in plain:
        base = BackboneSpec(**vars(_section(BackboneConfig, config, "backbone")))
        data = _section(DataConfig, config, "data")
        name = data.name if data.path is None else f"{data.name}:{data.path}"
        if data.path is None and data.name in DATASETS and DATASETS.get(data.name).takes_path:
            raise ConfigError(
                f"data.path is not set, the file of {data.name}", remedy="write data.path=FILE.json"
            )
        options = {key: getattr(measured, key) for key in ("limit", "extra", "skip_bad")}
        backbones[base.label] = base
        sets[name] = DataSpec(name, data.images, data.suite, **options)
        specs[base.label] = {
            METHODS.key(method): _method(METHODS.key(method), node, base)
            for method, node in config["method"].items()
        }
    return Grid(
        [METHODS.key(method) for method in plain[0]["method"]],
        list(backbones.values()),
        list(sets.values()),
        Protocol(
            measured.protocol,
            measured.locality_top_k,
            measured.max_new_tokens,
            measured.seed,
            measured.bootstrap,
        ),
        measured.batch_size,
        specs,
        measured.processes,
        "---\n".join(OmegaConf.to_yaml(config, resolve=True) for config in configs),
    )


def _section(cls: type[Any], config: dict[str, Any], name: str) -> Any:
    """One part of a configuration as its dataclass; keys added with ``+`` are refused, too."""
    values = config[name]
    missing = [key for key, value in values.items() if value == MISSING]
    if missing:
        raise ConfigError(
            f"{name}.{missing[0]} is not set", remedy=f"write {name}.{missing[0]}=..."
        )
    return build(cls, values, name)


def _method(method: str, node: dict[str, Any] | None, backbone: BackboneSpec) -> MethodSpec:
    """A method's settings; ``None`` where none are shipped for the backbone and nothing is set.

    A setting that is missing then is this row's failure, not the whole comparison's.

    Raises:
        ConfigError: a value that cannot be used.
    """
    entry = METHODS.get(method)
    shipped = shipped_settings(entry.alg, backbone.label) is not None
    known = backbone.label if backbone.label in BACKBONES else FOLDER
    if not node or (not shipped and node == method_node(entry, known)):
        return MethodSpec(method, None)
    if node.get("model_name") == MISSING:
        node["model_name"] = backbone.label
    node = {key: value for key, value in node.items() if value != MISSING}
    if entry.settings_class is not None:
        build(entry.settings_class, node, f"method.{node_name(method)}")
    return MethodSpec(method, node)


def default_out(configs: Sequence[Any], words: Sequence[str]) -> Path:
    """A run's name from what is compared and from every override that can change a number."""
    overrides = expand(words)
    chosen = dict(word.split("=", 1) for word in overrides if "=" in word)
    names = [chosen.get("experiment", chosen.get("+experiment", NAME))]
    for group, key in (("backbone", "name"), ("data", "name")):
        names += dict.fromkeys(
            Path(str(config[group].get("path") or config[group][key])).stem for config in configs
        )
    if configs[0].eval.protocol != "generated":
        names.append(configs[0].eval.protocol)
    further = []
    for word in overrides:
        key = word.split("=")[0].lstrip("+~")
        own = key in _NAMELESS_KEYS or key in _NAMELESS or key.startswith("hydra")
        if not own:
            further.append(word)
    tail = re.sub(r"[^\w.=-]+", "_", "-".join(sorted(further)))
    if len(tail) > 80:
        tail = hashlib.sha256(tail.encode()).hexdigest()[:8]
    return Path("runs") / "-".join([*names, *([tail] if tail else [])])


def by_hydra(words: list[str]) -> None:
    """Let Hydra's own front end run it: sweeps and launchers, and its ways to show configurations.

    Raises:
        ConfigError: the configuration is wrong. EasyEditMMError: from a run.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    register()
    # A flag's value, such as "job" after --cfg, stays with the flags: it is no override.
    given = [w for w in words if not w.startswith("-") and ("=" in w or w.startswith("~"))]
    flags = [word for word in words if word not in given]
    wanted = expand(given)
    check(wanted, sweep=True)
    lists = [w for w in wanted if w.split("=")[0] in ("backbones", "data_sets")]
    if lists:
        raise ConfigError(
            f"{lists[0]}: a sweep takes one backbone and one data set a job",
            remedy="write backbone=a,b instead of backbone=[a,b]",
        )
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["easyedit-mm compare", *flags, *wanted]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # our errors come through as they are
    try:
        hydra.main(version_base="1.3", config_path=str(HPARAMS), config_name=NAME)(job)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, wanted) from None
    finally:
        sys.argv = before[0]
        if before[1] is None:
            os.environ.pop("HYDRA_FULL_ERROR", None)


def job(config: Any) -> None:
    """One job of a sweep: a single backbone and data set."""
    from hydra.core.hydra_config import HydraConfig

    words = list(HydraConfig.get().overrides.task)
    if config.backbones or config.data_sets:
        raise ConfigError(
            "this experiment has several backbones or data sets of its own",
            remedy="sweep over backbone=... and data=..., with backbones=[] data_sets=[]",
        )
    show(run([config], words))
