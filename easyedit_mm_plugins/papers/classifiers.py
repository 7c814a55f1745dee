"""Scope classifiers for MSCKE's tables 2 and 3, and their comparison case by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import CheckpointError, ConfigError
from ..core.files import read_json, write_json
from ..methods.mscke import MSCKE, ScopeClassifier
from ..recipes.classifiers import SHIPPED, Variant, load_classifier, train_classifier
from ..recipes.job import HELD_BACK, Data, finished, is_embedded
from . import ExperimentSettings
from .scope_study import difference

if TYPE_CHECKING:
    from ..backbones import Backbone
    from ..evaluation import RunFolder


def training_records(settings: ExperimentSettings) -> Data:
    """Records to train on, and those held back to choose the best checkpoint.

    For a JSON file of test records these are in the file beside it whose name says "train".

    Raises:
        ConfigError: there is no such file.
    """
    data, split = settings.data, "train"
    if data != "scenes":
        path = Path(data)
        data = str(path.with_name(path.name.replace("test", split).replace("eval", split)))
        if data == str(path) or not Path(data).is_file():
            raise ConfigError(
                f"no training records beside {path}",
                remedy="call the files test_data.json and train_data.json, as released",
            )
    found = settings.records(None, data=data, split=split, extra=True).records
    if len(found) < 2:
        raise ConfigError(f"{data} holds {len(found)} records, too few to train on")
    held_back = min(HELD_BACK, len(found) // 2)
    return found[:-held_back], found[-held_back:]


def find_classifier(
    variant: Variant,
    backbone: Backbone,
    settings: ExperimentSettings,
    name: str = "",
    **changes: Any,
) -> ScopeClassifier:
    """A classifier: trained here with ``settings.train`` (or before), else shipped.

    Args:
        name: what it is called, if not as the variant.
        changes: of its training settings.

    Raises:
        CheckpointError: none is shipped, and ``train`` is not set.
    """
    name = name or variant.name
    folder = settings.out / "trained" / name
    if settings.train:
        records = lambda: training_records(settings)  # noqa: E731
        return train_classifier(variant, backbone, folder, records, **changes)
    for place in (folder / "scope", *([SHIPPED / name] if is_embedded(backbone.name) else [])):
        if finished(place):
            return load_classifier(place, backbone)
    raise CheckpointError(
        f"no classifier {name} for {backbone.name} is shipped or in {folder}",
        remedy="add --train",
    )


def shipped_editor(backbone: Backbone, method: str = "mscke") -> MSCKE:
    """The editor whose counterfactual model answers: shipped, or the archive of its settings.

    Raises:
        CheckpointError: neither is there. BridgeError, UnknownNameError: it cannot be made.
    """
    from ..methods import factory

    return factory.make_editor(method, backbone)


@dataclass(frozen=True)
class Gap:
    """Mean difference between two rows over the cases of both, with its 95 % interval."""

    about: Mapping[str, Any]
    difference: float
    interval: Sequence[float]

    @classmethod
    def between(
        cls, left: Sequence[float | None], right: Sequence[float | None], /, **about: Any
    ) -> Gap:
        """The gap ``left - right`` of two values for each case, in the same order."""
        return cls(about, *difference(left, right))

    def text(self, about: str) -> str:
        """In a note below the table."""
        low, high = self.interval
        return f"{about} {self.difference:+.1f} ({low:+.1f} to {high:+.1f})"

    def summary(self) -> dict[str, Any]:
        """In ``summary.json``."""
        return {**self.about, "difference": self.difference, "interval": self.interval}


def specificity(run: RunFolder, backbone: str, row: str) -> dict[str, float | None]:
    """Specificity by case of a row of the run."""
    return {
        case.case: case.metrics["specificity"]
        for case in run.cases
        if (case.method, case.backbone) == (row, backbone)
    }


def common(
    first: Mapping[str, float | None], second: Mapping[str, float | None]
) -> tuple[list[float | None], list[float | None]]:
    """The values of the cases that are in both."""
    cases = [case for case in first if case in second]
    return [first[case] for case in cases], [second[case] for case in cases]


def add_to_summary(run: RunFolder, **values: Any) -> None:
    """Add ``values`` to the run's ``summary.json``."""
    path = Path(run.path) / "summary.json"
    write_json(path, {**read_json(path), **values})
