"""IKE's settings in EasyEdit's own form, and the records that it demonstrates with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from ...backbones.base import Backbone
from ...core.errors import ConfigError
from ...data import EditRecord, FGVEditDataset, load_records
from ..sentences import MINILM
from ..settings import ModelHParams, Text, Whole, build, settings_class, shipped_settings


@settings_class
class IKEHyperParams(ModelHParams):
    """EasyEdit's fields for multimodal IKE, as its YAML files have them."""

    k: Whole = 32
    """Demonstrations in front of the new fact (EasyEdit and the release: 32)."""
    sentence_model_name: Text = MINILM
    """Of the encoder that retrieves them."""
    task_name: Text = ""
    """In EasyEdit the name of the embeddings file; here the training records that are demonstrated
    with: ``scenes``, or a JSON file in FGVEdit's schema."""
    results_dir: Text = "./results"
    """Folder of what is written."""

    _alg: ClassVar[str] = "IKE"
    _title: ClassVar[str] = "IKE"


def shipped_hparams(backbone: Backbone) -> IKEHyperParams:
    """The settings shipped for ``backbone``.

    Raises:
        ConfigError: there are none.
    """
    values = shipped_settings("IKE", backbone.name)
    if values is None:
        raise ConfigError(
            f"no IKE hparams are shipped for {backbone.name}",
            remedy="give IKE hparams of your own: IKE(backbone, train, hparams=...)",
        )
    return build(IKEHyperParams, values, f"IKE for {backbone.name}")


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
