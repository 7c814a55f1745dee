"""The configuration of ``easyedit-mm compare`` as Hydra sees it, from the tables of entries.

The groups ``method``, ``backbone`` and ``data`` have an option for each entry, ours and other
packages'. A method's node holds the complete settings of its class for the chosen backbone, as
``easyedit-mm hparams show`` prints them. The groups ``eval`` and ``experiment`` are files below
``hparams/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ...backbones.entries import BACKBONES
from ...core.errors import EasyEditMMError
from ...core.shipped import HPARAMS
from ...core.yaml_files import merged
from ...data.entries import DATASETS
from ...methods.entries import METHODS, MethodEntry
from ...methods.settings import settings_for
from ...methods.settings_files import ShortName
from ...methods.settings_text import defaults

FOLDER = "folder"  # the backbone that is any local model folder


@dataclass
class BackboneConfig:
    """See :class:`evaluation.grid.BackboneSpec`."""

    name: str = MISSING
    source: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    device_map: str | None = None
    template: str | None = None
    text_template: str | None = None


@dataclass
class DataConfig:
    """A data set: the embedded one by ``name``, others as ``name`` of their class and ``path``."""

    name: str = MISSING
    path: str | None = None
    images: str | None = None
    suite: str | None = None


@dataclass
class EvalConfig:
    """How to measure; see :class:`Protocol` and :class:`evaluation.grid.Grid`."""

    protocol: str = "generated"
    limit: int | None = None
    batch_size: int = 32
    locality_top_k: int | None = None
    max_new_tokens: int = 8
    seed: int = 0
    bootstrap: int = 1000
    extra: bool = False
    skip_bad: bool = False
    processes: int | None = None


@dataclass
class CompareConfig:
    """The whole of a comparison.

    Attributes:
        backbones, data_sets: several at once; ``backbone`` and ``data`` then are each in turn.
        out: the run folder; by default named after what is compared, below ``runs/``.
        overwrite: start over.
    """

    method: dict[str, Any] = field(default_factory=dict)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    backbones: list[str] = field(default_factory=list)
    data_sets: list[str] = field(default_factory=list)
    out: str | None = None
    overwrite: bool = False


def node_name(method: str) -> str:
    """What a method is called in a configuration: ``mscke_mend``."""
    return METHODS.key(method).replace("-", "_")


def method_node(entry: MethodEntry, backbone: str) -> dict[str, Any]:
    """All settings of a method for a backbone; a method without settings takes ``archive`` alone.

    Raises:
        EasyEditMMError, ImportError, AttributeError: the method's class cannot be imported.
    """
    cls = entry.settings_class
    if cls is None:
        return {"archive": None}
    given = settings_for(cls, ShortName(entry.alg, backbone))
    node = merged(defaults(cls), {} if backbone == FOLDER else given)
    return {**node, "alg_name": entry.alg} if "alg_name" in node else node


def options_of(group: str) -> list[str]:
    """The options of a config group: entries, or files below ``hparams/``."""
    if group == "method":
        return sorted({node_name(name) for name in METHODS.names()})
    if group == "backbone":
        return [*BACKBONES.names(), FOLDER]
    if group == "data":
        return DATASETS.names()
    return sorted(path.stem for path in (HPARAMS / group).glob("*.yaml"))


def register() -> None:
    """Make the schema and an option for each entry known to Hydra."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(group="schema", name="compare", node=CompareConfig)
    backbones = {name: BACKBONES.get(name) for name in BACKBONES.names()}
    for name, entry in backbones.items():
        device = "cuda" if entry.group == "full-size" else "cpu"
        store.store(group="backbone", name=name, node={"name": entry.name, "device": device})
    store.store(group="backbone", name=FOLDER, node={"name": MISSING})
    for name in DATASETS.names():
        dataset = DATASETS.get(name)
        path = {"path": MISSING} if dataset.takes_path else {}
        store.store(group="data", name=name, node={"name": dataset.name, **path})
    for name in METHODS.names():
        method, node = METHODS.get(name), node_name(name)
        try:
            for backbone in (*backbones, FOLDER):
                made = method_node(method, backbone)
                store.store(group=f"settings/{node}", name=backbone, node=made)
        except (EasyEditMMError, ImportError, AttributeError):
            continue  # it cannot be used here either; its row will say why
        chosen = {"defaults": [{f"/settings/{node}@_here_": "${backbone}"}, "_self_"]}
        store.store(group="method", name=node, node=chosen, package=f"method.{node}")
