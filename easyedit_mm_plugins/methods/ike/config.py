"""IKE's settings in EasyEdit's own form, and the records that it demonstrates with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...backbones.base import Backbone
from ...core.errors import ConfigError
from ...core.registry import did_you_mean
from ...core.shipped import HPARAMS
from ...data import EditRecord, FGVEditDataset, load_records
from ..settings import ModelHParams
from .retrieval import MINILM

FILES = HPARAMS / "IKE"


@dataclass
class IKEHyperParams(ModelHParams):
    """EasyEdit's fields for multimodal IKE, as its YAML files have them.

    Attributes:
        k: demonstrations in front of the new fact (EasyEdit and the release: 32).
        sentence_model_name: of the encoder that retrieves them.
        task_name: in EasyEdit the name of the embeddings file; here the training records that are
            demonstrated with: ``scenes``, or a JSON file in FGVEdit's schema.
    """

    k: int = 32
    sentence_model_name: str = MINILM
    task_name: str = ""
    alg_name: str = "IKE"
    results_dir: str = "./results"

    _alg: ClassVar[str] = "IKE"
    _title: ClassVar[str] = "IKE"

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 0:
            raise ConfigError(f"k is {self.k!r}, not a whole number from 0")


def shipped_hparams(backbone: Backbone) -> IKEHyperParams:
    """The settings shipped for ``backbone``.

    Raises:
        ConfigError: there are none.
    """
    known = sorted(p.stem for p in FILES.glob("*.yaml"))
    if backbone.name not in known:
        raise ConfigError(
            f"no IKE hparams are shipped for {backbone.name}; {did_you_mean(backbone.name, known)}",
            remedy="give IKE hparams of your own: IKE(backbone, train, hparams=...)",
        )
    return IKEHyperParams.from_hparams(FILES / backbone.name)


def training_records(
    source: Sequence[EditRecord] | str | Path, corpus: int, backbone: Backbone
) -> Sequence[EditRecord]:
    """The first ``corpus`` training records; their images are not looked at."""
    if not isinstance(source, (str, Path)):
        return list(source)[:corpus]
    if str(source) == "scenes":
        return load_records("scenes", split="train", limit=corpus).records
    if not Path(source).is_file():
        raise ConfigError(
            f"IKE demonstrates with training records, and there is no file {source!r} "
            f"(task_name of the hparams for {backbone.name})",
            remedy="give records: IKE(backbone, train='train.json'); on the command line, "
            "--editor ike=FOLDER with a folder that IKE.save_pretrained wrote",
        )
    return FGVEditDataset(source, corpus, check="off").records
