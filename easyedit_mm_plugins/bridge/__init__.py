"""The hooks into EasyEdit: its editor, trainer, datasets and settings with the plugin's methods.

:func:`register` adds the plugin's methods and datasets to EasyEdit's own tables and wraps the
methods of ``MultimodalEditor`` and ``MultimodalTrainer`` that cannot serve them as they are.
:func:`unregister` puts the identical objects back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..core.errors import BridgeError
from ..core.registry import resolve
from ..data.entries import DATASETS
from ..host.easyedit import Host, load, locate
from ..host.requirements import HostInfo, Missing, inspect_host, missing_for
from ..methods.entries import MethodEntry
from .hooks import DictHook, Hook, MethodHook, SetHook, apply_all, undo_all

__all__ = [
    "HostInfo",
    "Missing",
    "Status",
    "inspect_host",
    "missing_for",
    "register",
    "status",
    "unregister",
]


@dataclass(frozen=True)
class Status:
    """What :func:`register` has done.

    Attributes:
        registered: whether hooks are in place.
        generation, path: of the EasyEdit that they are in, or that would be used.
        methods: names that EasyEdit knows from the plugin.
        datasets: likewise.
        hooks: every touched place, in words.
        problems: methods that could not be imported, or why no EasyEdit is found.
    """

    registered: bool
    generation: str | None = None
    path: str | None = None
    methods: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass
class _State:
    host: Host
    methods: dict[str, MethodEntry] = field(default_factory=dict)
    datasets: list[str] = field(default_factory=list)
    hooks: list[Hook] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


_state: _State | None = None


def register() -> Status:
    """Hook the plugin into EasyEdit; again: add what was registered with the plugin since.

    EasyEdit is the checkout that ``EASYEDIT_ROOT`` names, else whatever ``import easyeditor``
    finds.

    Raises:
        BridgeError: no usable EasyEdit, or a name of the plugin's is taken there; nothing has
            been changed then.
    """
    global _state
    from .datasets import dataset_classes
    from .datasets import wrap_init as wrap_dataset
    from .editor import executor, wrap_edit, wrap_edit_dataset, wrap_init
    from .methods import easyedit_methods
    from .trainer import TRAINER_HOOKS, trainable

    state = _state or _State(load())
    host = state.host
    methods, problems = easyedit_methods()
    hooks: list[Hook] = []
    for name, entry in methods.items():
        if name in state.methods:
            if state.methods[name] != entry:
                raise BridgeError(
                    f"{name!r} now means another class than when it was registered",
                    remedy="call unregister() first",
                )
            continue
        hooks.append(DictHook("ALG_MULTIMODAL_DICT", host.edit_algs, name, executor(entry)))
        hooks.append(DictHook("ALG_TRAIN_DICT", host.train_algs, name.upper(), trainable(entry)))
        hooks += [SetHook(where, names, name) for where, names in host.name_sets()]
    datasets = {
        name: resolve(DATASETS.get(name).reader)
        for name in DATASETS.names()
        if DATASETS.get(name).takes_path
    }
    for name, dataset in datasets.items():
        # EasyEdit's own edit_dataset asks isinstance() of every entry.
        if name not in state.datasets and isinstance(dataset, type):
            hooks.append(DictHook("the table of datasets", host.datasets, name, dataset))
    if _state is None:
        editor, trainer = host.editor_class, host.trainer_class
        hooks.append(MethodHook(editor, "__init__", wrap_init(host, _lookup)))
        hooks.append(MethodHook(editor, "edit", wrap_edit(_lookup)))
        hooks.append(MethodHook(editor, "edit_dataset", wrap_edit_dataset(_lookup)))
        hooks += [
            MethodHook(trainer, name, make(host, _lookup_train))
            for name, make in TRAINER_HOOKS.items()
        ]
        hooks += [MethodHook(c, "__init__", wrap_dataset(_lookup)) for c in dataset_classes(host)]
    apply_all(hooks)
    state.methods |= methods
    state.datasets = list(datasets)
    state.hooks += hooks
    state.problems = problems
    _state = state
    return status()


def unregister() -> None:
    """Take every hook out again; afterwards EasyEdit holds the identical objects as before.

    Raises:
        BridgeError: somebody changed a hooked place after :func:`register`; nothing is undone.
    """
    global _state
    if _state is not None:
        undo_all(_state.hooks)
        _state = None


def status() -> Status:
    """What is registered where; imports nothing, changes nothing."""
    if _state is None:
        try:
            host = locate()
        except BridgeError as error:
            return Status(False, problems=(str(error),))
        return Status(False, host.generation, str(host.folder))
    return Status(
        True,
        _state.host.generation,
        str(_state.host.folder),
        tuple(sorted(_state.methods)),
        tuple(sorted(_state.datasets)),
        tuple(str(hook) for hook in _state.hooks),
        tuple(_state.problems),
    )


def _lookup(name: Any) -> MethodEntry | None:
    return _state.methods.get(name) if _state is not None else None


def _lookup_train(name: str) -> MethodEntry | None:
    """EasyEdit looks algorithms for training up in capitals."""
    if _state is None:
        return None
    return next((entry for alg, entry in _state.methods.items() if alg.upper() == name), None)
