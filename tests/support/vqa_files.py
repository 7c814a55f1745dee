"""VQAv2-format files made from any source of questions."""

from __future__ import annotations

import json
import shutil


def write_vqav2(source, folder, subtype="train2014"):
    """Questions and annotations as VQAv2 has them, and images under COCO names.

    Returns (questions path, annotations path, image root).
    """
    questions, annotations = [], []
    (folder / subtype).mkdir(parents=True)
    for number, group in enumerate(source.groups()):
        image_id = 100 + number
        name = f"{subtype}/COCO_{subtype}_{image_id:012d}.jpg"  # PNG inside: nobody minds
        shutil.copyfile(source.image_root / group.image, folder / name)
        for i, pair in enumerate(group.pairs):
            qid = 1000 * image_id + i
            questions.append({"image_id": image_id, "question": pair.question, "question_id": qid})
            annotations.append(
                {
                    "question_type": pair.question_type,
                    "multiple_choice_answer": pair.answer,
                    "answers": [
                        {"answer": pair.answer, "answer_confidence": "yes", "answer_id": k}
                        for k in range(1, 11)
                    ],
                    "image_id": image_id,
                    "answer_type": pair.answer_type,
                    "question_id": qid,
                }
            )
    paths = (
        folder / f"v2_OpenEnded_mscoco_{subtype}_questions.json",
        folder / f"v2_mscoco_{subtype}_annotations.json",
    )
    head = {"info": {}, "license": {}, "data_type": "mscoco", "data_subtype": subtype}
    paths[0].write_text(json.dumps(head | {"task_type": "Open-Ended", "questions": questions}))
    paths[1].write_text(json.dumps(head | {"annotations": annotations}))
    return (*paths, folder)
