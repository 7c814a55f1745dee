"""The table of editing methods. A method is one folder and one entry in its ``__init__.py``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from ..core.registry import Entry, EntryTable, Registry, resolve

if TYPE_CHECKING:
    from .base import Editor
    from .settings import HParams


@dataclass(frozen=True, kw_only=True)
class MethodEntry(Entry):
    """Everything that the project asks about a method; classes may be ``"module:class"``.

    Attributes:
        editor: the class that keeps the contract of ``methods/base.py``.
        paper: where the method comes from.
        ours: the method is this project's own and in no paper; tables say so.
        easyedit: what EasyEdit calls it (``alg_name``); ``None``: EasyEdit is not told of it.
        settings, training: the classes of its settings for editing and for training.
        trainer: called as ``trainer(editor, train_records, val_records, settings, folder)``; has
            ``run()`` and ``validate()``, and writes its best editor to ``best``, a folder.
        trains: the class of the editor that the trainer trains; by default ``editor``.
        needs_easyedit: it runs EasyEdit's own code, which must be installed for it.
        trained: it answers nothing of use before it was trained; by default, it has a trainer.
        kind: "attacker" for what is no editing method but shows how far a benchmark can be passed
            without one's means; reports set them apart.
        hparams: the name of the folder of hparams files, where several methods share one.
    """

    editor: Any
    paper: str = ""
    ours: bool = False
    easyedit: str | None = None
    settings: Any = None
    training: Any = None
    trainer: Any = None
    trains: Any = None
    needs_easyedit: bool = False
    trained: bool | None = None
    kind: Literal["method", "attacker"] = "method"
    hparams: str = ""

    @classmethod
    def of(cls, name: str, value: Any) -> Self:
        """An entry for another package's editor class."""
        return cls(name=name, editor=value) if isinstance(value, type) else super().of(name, value)

    @property
    def editor_class(self) -> type[Editor]:
        """The editor's class, imported."""
        return resolve(self.editor)

    @property
    def trained_class(self) -> type[Editor]:
        """The class of the editor that the trainer trains, imported."""
        return resolve(self.trains or self.editor)

    @property
    def settings_class(self) -> type[HParams] | None:
        """The class of its settings for editing, imported."""
        return resolve(self.settings)

    @property
    def training_class(self) -> type[HParams] | None:
        """The class of its settings for training, imported."""
        return resolve(self.training)

    @property
    def trainer_class(self) -> Any:
        """The trainer, imported."""
        return resolve(self.trainer)

    @property
    def needs_training(self) -> bool:
        """Whether an untrained editor's answers mean nothing."""
        return self.trainer is not None if self.trained is None else self.trained

    @property
    def alg(self) -> str:
        """The name of its folder of hparams files, and ``alg_name`` in them."""
        return self.easyedit or self.hparams or METHODS.key(self.name).upper()


# What answers in scope, by the name that MSCKE's settings give it (``counterfactual.kind``).
COUNTERFACTUALS: Registry[Any] = Registry(
    "counterfactual model", "easyedit_mm_plugins.counterfactuals"
)
METHODS: EntryTable[MethodEntry] = EntryTable("method", "easyedit_mm_plugins.methods", MethodEntry)
