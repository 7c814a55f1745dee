"""What is shipped below ``hparams/``: where a method's settings differ from their defaults.

A value stands in one place. Lowest first:

1. the defaults of the method's settings class;
2. ``models.yaml``: what the base model needs, for every method;
3. ``editing`` in the method's file (``MSCKE.yaml``);
4. for training, also ``training`` in that file; ``archive``, a trained editor, is for editing.

In each of them a section is for a group of base models ("scenes", "full-size") or for one, which
wins. Mappings are merged key by key; ``{model_name}`` in a text stands for the base model's name.

People name such settings ``MSCKE/blip2``, and ``TRAINING/MSCKE/blip2`` for training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.registry import did_you_mean
from ..core.shipped import HPARAMS
from ..core.yaml_files import merged, settings_file, yaml_path

TRAINING = "TRAINING"


@dataclass(frozen=True)
class ShortName:
    """``MSCKE/blip2``: settings of a method for a base model.

    Attributes:
        alg: what EasyEdit calls the method (:attr:`MethodEntry.alg`).
        training: they are for training.
    """

    alg: str
    backbone: str
    training: bool = False

    def __str__(self) -> str:
        return f"{TRAINING}/{self.alg}/{self.backbone}" if self.training else self.plain

    @property
    def plain(self) -> str:
        """Without ``TRAINING/``."""
        return f"{self.alg}/{self.backbone}"

    def nearest(self, path: Path) -> str:
        """The tail of a message about a file that does not exist: files and names like it."""
        from ..backbones.entries import BACKBONES

        near = sorted(p.stem for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        names = [f"{self.alg}/{backbone}" for backbone in BACKBONES.names()]
        return did_you_mean("/".join(path.with_suffix("").parts[-2:]), [*near, *names])

    @classmethod
    def parse(cls, text: str | Path) -> ShortName | None:
        """The name that ``text`` is, or the tail of a path such as ``hparams/MSCKE/blip2.yaml``."""
        from ..backbones.entries import BACKBONES  # late: it imports torch

        *before, alg, backbone = ("", "", *yaml_path(text).with_suffix("").parts)
        if not alg or backbone not in BACKBONES:
            return None
        return cls(alg, BACKBONES.get(backbone).name, before[-1] == TRAINING)

    @classmethod
    def meant(cls, text: str | Path) -> ShortName | None:
        """The name that ``text`` is as a whole, or as a path below the shipped ``hparams/``."""
        path = yaml_path(text).resolve()
        if path.is_relative_to(HPARAMS):
            return cls.parse(path.relative_to(HPARAMS))
        name = cls.parse(text)
        written = yaml_path(text).with_suffix("").parts
        return name if name and len(written) == 2 + name.training else None


def shipped_settings(alg: str, backbone: str, *, training: bool = False) -> dict[str, Any] | None:
    """What differs from the defaults of a method's settings on a base model.

    Returns:
        ``None`` where the method's file says nothing for the base model or its group.

    Raises:
        ConfigError: a file cannot be read.
    """
    from ..backbones.settings import model_settings, sections  # late: it imports torch

    file, names = settings_file(alg), sections(backbone)
    layers = [
        [section[name] or {} for name in names if name in section]
        for section in (file.get("editing") or {}, file.get("training") or {})
    ]
    if not layers[training]:
        return None
    found = model_settings(backbone)
    for layer in layers[0]:
        found = merged(found, layer)
    if training:
        found.pop("archive", None)
        for layer in layers[1]:
            found = merged(found, layer)
    return _filled(found, found["model_name"])


def _filled(value: Any, model_name: str) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, model_name) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, model_name) for item in value]
    return value.replace("{model_name}", model_name) if isinstance(value, str) else value
