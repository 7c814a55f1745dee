"""The schema of ``easyedit-mm compare``'s configuration: a wrong key or type fails at once.

A method's settings have the schema of the class that reads its hparams file, so that the file of
EasyEdit's form and the Hydra node ``method.NAME`` are one thing.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Union  # noqa: UP035 - OmegaConf reads these

from omegaconf import MISSING

from ...backbones import catalog as _backbones
from ...backbones.entries import BACKBONES
from ...core.errors import EasyEditMMError
from ...core.shipped import HPARAMS
from ...methods.entries import METHODS

assert _backbones  # registers the names


@dataclass
class BackboneConfig:
    """See :class:`plan.BackboneSpec`."""

    name: str = MISSING
    source: Optional[str] = None  # noqa: UP045
    device: str = "cpu"
    dtype: Optional[str] = None  # noqa: UP045
    device_map: Optional[str] = None  # noqa: UP045
    template: Optional[str] = None  # noqa: UP045
    text_template: Optional[str] = None  # noqa: UP045


@dataclass
class DataConfig:
    """A data set: the embedded one by ``name``, others as ``name`` of their class and ``path``."""

    name: str = MISSING
    path: Optional[str] = None  # noqa: UP045
    images: Optional[str] = None  # noqa: UP045
    suite: Optional[str] = None  # noqa: UP045


@dataclass
class EvalConfig:
    """How to measure; see :class:`Protocol` and :class:`plan.Grid`."""

    protocol: str = "generated"
    limit: Optional[int] = None  # noqa: UP045
    batch_size: int = 32
    locality_top_k: Optional[int] = None  # noqa: UP045
    max_new_tokens: int = 8
    seed: int = 0
    bootstrap: int = 1000
    extra: bool = False
    skip_bad: bool = False
    processes: Optional[int] = None  # noqa: UP045


@dataclass
class CompareConfig:
    """The whole of a comparison.

    Attributes:
        backbones, data_sets: several at once; ``backbone`` and ``data`` then are each in turn.
        out: the run folder; by default named after what is compared, below ``runs/``.
        overwrite: start over.
    """

    method: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    data: DataConfig = field(default_factory=DataConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    backbones: List[str] = field(default_factory=list)  # noqa: UP006
    data_sets: List[str] = field(default_factory=list)  # noqa: UP006
    out: Optional[str] = None  # noqa: UP045
    overwrite: bool = False


@dataclass
class PlainConfig:
    """A method without an hparams file: a trained editor's folder is all that can be said."""

    archive: Optional[str] = None  # noqa: UP045


def node_name(method: str) -> str:
    """What a method is called in a configuration: ``mscke_mend``."""
    return METHODS.key(method).replace("-", "_")


_STORED: set[str] = set()


def register() -> None:
    """Make the schema, and what other packages registered, known to Hydra.

    The package's own groups are the files below ``hparams/``.
    """
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(group="schema", name="compare", node=CompareConfig)
    for name in METHODS.names():
        node = node_name(name)
        if f"method/{node}" in _STORED:
            continue
        try:
            settings = METHODS.get(name).settings_class
            schema = PlainConfig if settings is None else structured(settings)
        except (EasyEditMMError, ImportError, AttributeError):
            continue  # it cannot be used here either; its row will say why
        _STORED.add(f"method/{node}")
        store.store(group="schema/method", name=node, node=schema)
        if not (HPARAMS / "method" / f"{node}.yaml").is_file():
            files = {f"optional /{METHODS.get(name).alg}@_here_": "${backbone}"}
            defaults = [f"/schema/method/{node}@_here_", *([files] if settings else [])]
            store.store(
                group="method",
                name=node,
                node={"defaults": [*defaults, "_self_"]},
                package=f"method.{node}",
            )
    for name in BACKBONES.names():
        known = f"backbone/{name}" in _STORED
        if not known and not (HPARAMS / "backbone" / f"{name}.yaml").is_file():
            _STORED.add(f"backbone/{name}")
            store.store(group="backbone", name=name, node={"name": name})


def schema_defaults(node: str) -> dict[str, Any]:
    """The settings of the method ``node`` as they are when nothing sets them."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    try:
        stored = ConfigStore.instance().load(f"schema/method/{node}.yaml").node
    except Exception:  # Hydra's own for what is not stored
        return {}
    return OmegaConf.to_container(OmegaConf.create(stored), throw_on_missing=False)


def structured(settings: type[Any]) -> type[Any]:
    """``settings``, a dataclass of hyperparameters, as OmegaConf can check it.

    Types that it has no notion of, such as a union of text and a mapping, are left open: the class
    itself checks them. The checks of ``__post_init__`` come later, too.
    """
    hints = typing.get_type_hints(settings)
    made = []
    for item in dataclasses.fields(settings):
        if not item.init:
            continue
        hint = _known(hints[item.name])
        if item.default_factory is not dataclasses.MISSING:
            nested = dataclasses.is_dataclass(hint)
            default = hint if nested else item.default_factory
            made.append((item.name, hint, field(default_factory=default)))
        elif item.default is not dataclasses.MISSING:
            made.append((item.name, hint, field(default=item.default)))
        else:
            made.append((item.name, hint, field(default=MISSING)))
    return dataclasses.make_dataclass(settings.__name__, made)


def _known(hint: Any) -> Any:
    """``hint`` if OmegaConf understands it, else ``Any``."""
    if hint in (int, float, bool, str):
        return hint
    if dataclasses.is_dataclass(hint):
        return structured(hint)
    parts = typing.get_args(hint)
    if typing.get_origin(hint) in (Union, types.UnionType):
        plain = [part for part in parts if part in (int, float, bool, str, type(None))]
        return Union[tuple(parts)] if len(plain) == len(parts) else Any  # noqa: UP007
    if typing.get_origin(hint) in (list, tuple) and parts and parts[0] in (int, float, bool, str):
        return List[parts[0]]  # noqa: UP006
    return Any
