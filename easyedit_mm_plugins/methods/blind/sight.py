"""What attackers are shown of pictures, and of the base model's answers.

Shapes: N images, V image tokens, D hidden size, K numbers that describe a picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from ...backbones.base import Backbone
from ...data.records import ImageLike, Question
from ...data.tools.blind import Base

_LONGEST = 8192  # K, at most
_AT_A_TIME = 64


@torch.no_grad()
def describe(backbone: Backbone, images: Sequence[ImageLike]) -> Iterator[np.ndarray]:
    """What the base model's frozen vision side gives the language model: K numbers an image.

    The V image tokens are averaged over up to 64 runs of neighbours, so many that K stays
    affordable, and laid side by side after their mean.
    """
    parts = max(1, min(64, _LONGEST // backbone.hidden_size - 1))
    for start in range(0, len(images), _AT_A_TIME):
        for tokens in backbone.image_features(images[start : start + _AT_A_TIME]):  # [V, D]
            lines = tokens.detach().float().cpu().T[None]  # [1, D, V]
            runs = torch.nn.functional.adaptive_avg_pool1d(lines, parts)
            yield torch.cat([lines.mean(-1).flatten(), runs.flatten()]).numpy()


def answers(backbone: Backbone, questions: Sequence[Question]) -> list[str]:
    """The base model's own greedy answers."""
    found: list[str] = []
    for start in range(0, len(questions), _AT_A_TIME):
        found += backbone.generate(questions[start : start + _AT_A_TIME], max_new_tokens=8)
    return found


def base_of(backbone: Backbone) -> Base:
    """``backbone`` as ``data/tools/blind.py`` needs it."""
    return Base(backbone.name, partial(describe, backbone), partial(answers, backbone))
