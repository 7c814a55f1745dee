"""What ``easyedit-mm reproduce`` is asked for, and what follows from it for every experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..data import Records
    from ..evaluation import Protocol, RunFolder
    from ..evaluation.grid import BackboneSpec, DataSpec, MethodSpec


@dataclass
class ExperimentSettings:
    """The options of ``easyedit-mm reproduce``.

    Attributes:
        name: of the experiment, as registered.
        backbones: names or model folders; empty: the experiment's own choice.
        data: as ``easyedit-mm evaluate --data`` takes it.
        images: folder that image paths are relative to.
        allow_outside: accept image paths that lead out of ``images``.
        limit: number of test cases, from the first on; ``None``: the experiment's own number.
        train: train the editors from scratch first, instead of using the shipped ones.
        out: run folder, ``runs/NAME`` by default.
        device, dtype: of the backbones.
        overwrite: start over instead of resuming.
        protocol: how to measure; ``None``: the experiment's own choice.
        editors: folder of trained editors, METHOD-BACKBONE each, used instead of the shipped ones.
        methods: which of the experiment's rows; empty: all (lifelong alone).
        edits: numbers of edits in force; empty: the experiment's own (lifelong alone).
    """

    name: str
    backbones: list[str] = field(default_factory=list)
    data: str = "scenes"
    limit: int | None = None
    train: bool = False
    out: Path = None  # type: ignore[assignment]  # set below
    device: str = "cpu"
    dtype: str | None = None
    overwrite: bool = False
    images: Path | None = None
    allow_outside: bool = False
    protocol: str | None = None
    editors: Path | None = None
    methods: list[str] = field(default_factory=list)
    edits: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.out = Path("runs") / self.name if self.out is None else Path(self.out)

    def names(self, default: Sequence[str]) -> list[str]:
        """The backbones, or ``default`` if none was given.

        Raises:
            UnknownNameError: no such backbone.
        """
        from ..backbones import check_backbones

        names = self.backbones or list(default)
        check_backbones(*names)
        return names

    def load_backbone(self, name: str) -> Backbone:
        """A backbone where and as it was asked for."""
        from ..backbones import load_backbone

        return load_backbone(name, device=self.device, dtype=self.dtype)

    def backbone_specs(self, default: Sequence[str]) -> list[BackboneSpec]:
        """The backbones of a grid; here a name may carry ``=SOURCE``."""
        from ..evaluation.grid import BackboneSpec

        names = self.backbones or default
        return [BackboneSpec.parse(n, device=self.device, dtype=self.dtype) for n in names]

    def cases(self, on_scenes: int) -> int | None:
        """Number of test cases: ``limit``, else ``on_scenes`` of the scenes, all of other data."""
        return self.limit or (on_scenes if self.data.startswith("scenes") else None)

    def data_spec(self, data: str, **options: Any) -> DataSpec:
        """A data set of a grid."""
        from ..evaluation.grid import DataSpec

        images = str(self.images) if self.images else None
        return DataSpec(data, images, allow_outside=self.allow_outside, **options)

    def records(self, limit: int | None, *, data: str | None = None, **options: Any) -> Records:
        """The first ``limit`` test records; see :func:`load_records` for the other arguments."""
        from ..data import load_records

        options |= {"images": self.images, "allow_outside": self.allow_outside}
        return load_records(data or self.data, limit=limit, **options)

    def protocol_for(self, backbones: Sequence[str]) -> Protocol:
        """The protocol asked for; else the papers' own on their own base models, "generated" on
        others, whose users see generated answers."""
        from ..evaluation import Protocol
        from .tables import is_papers_own

        own = all(map(is_papers_own, backbones))
        return Protocol(self.protocol or ("released" if own else "generated"))

    @property
    def execution(self) -> dict[str, str]:
        """What a run folder notes about the machine's part."""
        return {"device": self.device, "dtype": self.dtype or "float32"}

    def open_run(self, records: Records, protocol: Protocol, **options: Any) -> RunFolder:
        """The run folder of an evaluation of ``records``; see :func:`open_run`."""
        from ..evaluation.grid import open_run

        options |= {"execution": self.execution, "overwrite": self.overwrite}
        return open_run(self.out, records, protocol, **options)

    def open_folder(self, config: Mapping[str, Any], results: Sequence[str]) -> Path:
        """The run folder of an experiment that measures something else than edits' metrics.

        Args:
            config: everything that can change a number.
            results: files that ``overwrite`` drops.

        Raises:
            RunError: the folder is of another configuration.
        """
        from ..evaluation import run_files

        out = self.out
        out.mkdir(parents=True, exist_ok=True)
        if self.overwrite:
            for name in ("config.yaml", "env.json", "summary.json", "table.md", *results):
                (out / name).unlink(missing_ok=True)
        path, wanted = out / "config.yaml", run_files.plain(config)
        known = run_files.read_config(path)
        if known is None:
            run_files.write_config(path, wanted, self.execution, {}, {})
        else:
            run_files.refuse_mixing(out, "configuration", known["config"], wanted)
        run_files.note_environment(out / "env.json", self.execution, 0)
        return out

    def trained(
        self, methods: Sequence[str], backbones: Sequence[str]
    ) -> dict[str, dict[str, MethodSpec]]:
        """Editors trained from scratch below the run folder, by backbone and method."""
        from ..evaluation.grid import MethodSpec
        from ..recipes.editors import train_editors

        folders = train_editors(self.out / "trained", methods, backbones)
        return {
            backbone: {m: MethodSpec(m, folder=folder) for m, folder in found.items()}
            for backbone, found in folders.items()
        }
