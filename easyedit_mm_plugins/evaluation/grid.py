"""What a grid measures: backbones, data sets, methods, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backbones import check_backbones
from ..backbones.entries import BACKBONES
from ..core.errors import ConfigError
from ..data import Records, load_records
from ..methods.entries import METHODS
from . import Protocol, RunFolder
from .results import records_identity

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..methods import Editor


def open_run(
    path: str | Path,
    records: Records,
    protocol: Protocol,
    *,
    suite: str = "fgvedit",
    execution: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    joined: bool = False,
) -> RunFolder:
    """The run folder of an evaluation of ``records``; see :meth:`RunFolder.open`."""
    config = {
        "dataset": records_identity(records),
        "protocol": protocol.settings(),
        "suite": suite,
    }
    return RunFolder.open(path, config, execution=execution, overwrite=overwrite, joined=joined)


@dataclass(frozen=True)
class BackboneSpec:
    """A base model by name, and how to load it.

    Attributes:
        name: registered, or a model folder.
        source: folder, hub id or (EasyEdit's own models) hparams file, instead of the usual one.
        device, dtype, device_map: where and how; ``device_map="auto"`` spreads a Hugging Face model
            over all GPUs.
        template, text_template: other prompts than the backbone's own.
    """

    name: str
    source: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    device_map: str | None = None
    template: str | None = None
    text_template: str | None = None

    @classmethod
    def parse(cls, text: str, **options: Any) -> BackboneSpec:
        """``NAME``, ``FOLDER`` or ``NAME=SOURCE``, as the command line takes it."""
        name, separator, source = (text, "", "") if Path(text).is_dir() else text.partition("=")
        return cls(name, source if separator else None, **options)

    @property
    def label(self) -> str:
        """How results call it."""
        if self.name in BACKBONES:
            return BACKBONES.key(self.name)
        return Path(self.name).name

    def load(self) -> Backbone:
        """The backbone.

        Raises:
            UnknownNameError, BackboneError, ConfigError: as :func:`load_backbone`.
        """
        from ..backbones import load_backbone

        options = {
            key: getattr(self, key)
            for key in ("device_map", "template", "text_template")
            if getattr(self, key) is not None
        }
        loaded = load_backbone(
            self.name, self.source, device=self.device, dtype=self.dtype, **options
        )
        loaded.name = self.label
        return loaded


@dataclass(frozen=True)
class DataSpec:
    """Records by name; see :func:`load_records`.

    Attributes:
        suite: the metrics; by default those that the records are for.
        allow_outside: accept image paths that lead out of ``images``.
    """

    data: str = "scenes-fgvedit"
    images: str | None = None
    suite: str | None = None
    limit: int | None = None
    extra: bool = False
    skip_bad: bool = False
    allow_outside: bool = False

    def load(self) -> Records:
        """The records.

        Raises:
            DataError, UnknownNameError: as :func:`load_records`.
        """
        return load_records(
            self.data,
            images=self.images,
            limit=self.limit,
            skip_bad=self.skip_bad,
            extra=self.extra,
            suite=self.suite,
            allow_outside=self.allow_outside,
        )


@dataclass(frozen=True)
class MethodSpec:
    """An editing method on a backbone.

    Attributes:
        hparams: its settings, as its hparams file has them; by default those of the shipped file
            for the backbone.
        folder: a trained editor, instead of the one that the settings name or that is shipped.
    """

    name: str
    hparams: Mapping[str, Any] | None = None
    folder: str | None = None

    def make(self, backbone: Backbone, task: str | None = None) -> Editor:
        """The editor; see :func:`make_editor` for ``task`` and the errors."""
        from ..methods import make_editor

        return make_editor(
            self.name, backbone, settings=self.hparams, folder=self.folder, task=task
        )


@dataclass
class Grid:
    """Every method on every backbone and data set.

    Attributes:
        specs: what differs from the methods' defaults, by backbone label and method.
        processes: so many backbones at a time, each in a process of its own; 0: in this process.
            By default all of them on a CPU, one on a GPU, and this process if there is only one.
        strict: a method that cannot be made or measured ends the run with its error; otherwise its
            row is noted as failed and the others go on.
        resolved: the configuration that all this came from, kept with the run as it is.

    Raises:
        ConfigError: nothing to measure, or something twice. UnknownNameError: an unknown name.
    """

    methods: list[str]
    backbones: list[BackboneSpec]
    data: list[DataSpec]
    protocol: Protocol = field(default_factory=Protocol)
    batch_size: int = 32
    specs: dict[str, dict[str, MethodSpec]] = field(default_factory=dict)
    processes: int | None = None
    resolved: str | None = None
    strict: bool = False
    _sets: list[Records] = field(default_factory=list, repr=False, compare=False)

    def __post_init__(self) -> None:
        METHODS.check(*self.methods)
        check_backbones(*(b.name for b in self.backbones))
        self.methods = [METHODS.key(name) for name in self.methods]
        for what, names in (
            ("method", self.methods),
            ("backbone", [b.label for b in self.backbones]),
            ("data set", [d.data for d in self.data]),
        ):
            if not names:
                raise ConfigError(f"there is no {what} to measure")
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ConfigError(f"the {what} {twice[0]} is there twice")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}, but must be 1 or more")

    def spec(self, method: str, backbone: str) -> MethodSpec:
        """How ``method`` is made on the backbone called ``backbone``."""
        return self.specs.get(backbone, {}).get(method) or MethodSpec(method)

    def load(self) -> list[Records]:
        """All records, checked; read once in a process.

        Raises:
            DataError: something is wrong with them. ConfigError: two sets of the same name.
        """
        if self._sets:
            return self._sets
        sets = [spec.load() for spec in self.data]
        names = [records.name for records in sets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"two data sets are called {twice[0]}", remedy="measure them in runs of their own"
            )
        self._sets = sets
        return sets

    def __getstate__(self) -> dict[str, Any]:
        """Another process reads the records itself."""
        return {**vars(self), "_sets": []}

    def open(
        self,
        path: str | Path,
        sets: list[Records],
        *,
        overwrite: bool = False,
        joined: bool = False,
    ) -> RunFolder:
        """The run folder of this grid; see :meth:`RunFolder.open`.

        Raises:
            RunError: it holds a run of another configuration, or another process owns it.
        """
        execution = {
            "batch_size": self.batch_size,
            "device": self.backbones[0].device,
            "dtype": self.backbones[0].dtype
            or ("float32" if self.backbones[0].device == "cpu" else "as stored"),
            "processes": self.processes,
        }
        if len(sets) == 1:
            return open_run(
                path,
                sets[0],
                self.protocol,
                suite=sets[0].suite,
                execution=execution,
                overwrite=overwrite,
                joined=joined,
            )
        datasets = {s.name: {**records_identity(s), "suite": s.suite} for s in sets}
        config = {"datasets": datasets, "protocol": self.protocol.settings()}
        return RunFolder.open(path, config, execution=execution, overwrite=overwrite, joined=joined)
