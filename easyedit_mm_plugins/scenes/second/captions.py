"""Caption edits of scenes, in the manner of E-IC: the new caption is of the edited scene."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from ...data import EditRecord, Question
from . import language
from .records import scenes_of
from .world import Scene, counterfactual, counterfactual_values

# A caption says nothing of places.
ATTRIBUTES = ("color", "shape", "size")
# Wordings of the prompt; the second list is held out from training.
PROMPTS = (
    [
        "a picture of",
        "the photo of",
        "photo of",
        "picture of",
        "what is in the photo?",
        "what is there in the picture?",
        "tell me what is in the picture.",
        "the photo is of",
        "a picture is of",
        "tell me what the photo is of.",
    ],
    ["the picture of"],
)


def caption_records(records: Sequence[EditRecord], split: str, seed: int = 0) -> list[EditRecord]:
    """Records whose edit is a caption: one attribute of one entity is another in it.

    Args:
        records: the first ones of a split of scenes; images and locality questions are theirs.
        split: "train" or "test".
        seed: of the scenes.
    """
    made = []
    for record, scene in zip(records, scenes_of(split, len(records), seed), strict=True):
        rng = random.Random(f"caption {seed} {record.case_id}")
        caption = language.caption(_edited(scene, rng))
        edit = Question(language.CAPTION_PROMPT, record.edit.image, caption)
        other = rng.choice(PROMPTS[split == "test"])
        again = tuple(replace(edit, image=q.image) for q in record.image_rephrase)
        made.append(
            replace(
                record,
                edit=edit,
                rephrase=(replace(edit, text=other),),
                image_rephrase=again,
                in_scope=(),
                out_scope=(),
            )
        )
    return made


def _edited(scene: Scene, rng: random.Random) -> Scene:
    attribute, entity = rng.choice(ATTRIBUTES), rng.choice(scene.entities)
    value = rng.choice(counterfactual_values(scene, entity, attribute))
    return counterfactual(scene, entity, attribute, value)
