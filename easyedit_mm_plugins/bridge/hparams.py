"""EasyEdit's own hyperparameters from one file, whichever of its generations reads it.

The PyPI release's classes refuse keys that its own trainer then asks for (``model_parallel``) and
keys that the checkout added (``exact_match``, ``pretrained_ckpt``, ``freeze_qformer``). Here the
class reads the keys that it knows, and the others become attributes of what it made.
"""

from __future__ import annotations

import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import ConfigError
from ..core.registry import did_you_mean
from ..core.yaml_files import read_yaml, yaml_path
from ..host.easyedit import Host
from ..methods.settings_files import ShortName
from ..methods.settings_text import complete

# alg -> module and class for editing, module and class for training.
_TRAINING = "trainer.training_hparams"
_CLASSES = {
    "IKE": (("models.ike.ike_hparams", "IKEMultimodalHyperParams"),),
    "SERAC_MULTI": (
        ("models.serac.serac_multimodal_hparams", "SERACMultimodalHparams"),
        (f"{_TRAINING}.serac_multimodal_training_hparams", "SERACMultimodalTrainingHparams"),
    ),
    "MEND": (
        ("models.mend.mend_multimodal_hparams", "MENDMultimodalHparams"),
        (f"{_TRAINING}.mend_multimodal_training_hparams", "MENDMultimodalTrainingHparams"),
    ),
}


def read_hparams(path: str | Path, host: Host) -> Any:
    """The hyperparameters in ``path`` as ``host``'s own class for its algorithm.

    ``path`` may be a short name, ``SERAC_MULTI/blip2`` or ``TRAINING/SERAC_MULTI/blip2``. A file
    without ``alg_name`` is for training.

    Raises:
        ConfigError: the file is missing or malformed, its algorithm is none of EasyEdit's
            multimodal ones, or a key that the class needs is missing.
    """
    short = None if yaml_path(path).is_file() else ShortName.meant(path)
    where, values = (short, complete(short)) if short else read_yaml(path)
    alg = values.get("alg_name", values.get("alg"))
    if alg not in _CLASSES:
        raise ConfigError(f"{where}: {alg!r} is unknown; {did_you_mean(str(alg), [*_CLASSES])}")
    places = _CLASSES[alg]
    module, name = places[-1 if "alg_name" not in values else 0]
    cls = getattr(host.module(module), name)
    known = {field.name for field in fields(cls)}
    if host.generation == "head":
        known.add("alg")  # its classes take both names of the algorithm and keep one
    elif "alg" in known:
        values.setdefault("alg", alg)  # the release wants both
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "hparams.yaml"
        copy.write_text(yaml.safe_dump({k: v for k, v in values.items() if k in known}))
        try:
            hparams = cls.from_hparams(str(copy))
        except (TypeError, KeyError) as error:
            raise ConfigError(f"{where}: EasyEdit's {name} refuses it: {error}") from error
    for key, value in values.items():
        if key not in known:
            setattr(hparams, key, value)
    return hparams
