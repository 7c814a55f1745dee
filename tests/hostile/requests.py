"""Requests: questions and edits through the editors' contract, and EasyEdit's forms of a request.

Oracle: whether a request is refused or not, the edits in force and all answers are afterwards what
they were, once what it added is taken back; and a row's answer in a batch with a hostile row is the
one that it has alone. A record made of EasyEdit's arguments holds just their texts, and images that
are those files.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from easyedit_mm_plugins.bridge.requests import record_from_item, records_from_arguments
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.methods.base import Editor, Unedited
from easyedit_mm_plugins.methods.ft import FTLLM, FTConfig

from ..conftest import build_tiny, picture
from . import editors as tiny
from .attack import Attack, Different, Draw, Kind, Refused
from .mutations import OTHERS, texts, values

_SIDE = 12


def _images(folder: Path) -> list[Any]:
    picture(3).save(folder / "a.png")
    Image.fromarray(np.full((5, 4), 40_000, np.uint16)).save(folder / "sixteen.png")
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:90])
    (folder / "empty.png").touch()
    nan = torch.rand(3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    nan[0, 0, 0] = float("nan")
    return [
        None, picture(3), picture(3, 1), picture(3).convert("L"), picture(3).convert("1"),
        picture(3).convert("CMYK"), Image.new("RGB", (1, 300)), Image.new("I", (4, 4)),
        Image.new("F", (4, 4)),
        Image.new("RGB", (0, 0)), Image.new("RGB", (3, 0)), folder / "a.png", str(folder / "a.png"),
        folder / "sixteen.png", folder / "broken.png", folder / "empty.png", folder / "gone.png",
        folder, "", "\0", "a.png\0", "x" * 300, "\ud83d.png", torch.rand(3, _SIDE, _SIDE),
        torch.rand(1, 4, 4),
        torch.rand(4, 4), torch.rand(4, 4, 3), torch.zeros(3, 0, 0), torch.full((3, 4, 4), 7.0),
        nan,
        torch.zeros(3, 4, 4, dtype=torch.uint8), np.zeros((4, 4, 3), np.uint8), b"x", 5, [], {},
        True,
    ]  # fmt: skip


def start(folder: Path) -> Attack:
    torch.manual_seed(3)
    shown = _images(folder)
    made = {n: e for n, e in tiny.made().items() if n not in ("serac", "dualedit-learned")}
    base = build_tiny("blip2")
    made |= {"unedited": Unedited(base), "ft-llm": FTLLM(base, FTConfig(num_steps=1, edit_lr=1e-2))}
    for editor in made.values():
        editor.add(tiny.EDITS)
    before = {name: _state(editor) for name, editor in made.items()}
    alone = {name: _asked(editor, tiny.ASKED[:1]) for name, editor in made.items()}
    images = st.sampled_from(shown)
    any_text = st.sampled_from(("what color is the circle?", "red", "a " * 60)) | texts | values
    question = st.builds(Question, any_text, images, any_text)
    asked, answers = ("where is the star?", "red"), ("top", "yes no", "")
    plain = st.builds(Question, st.sampled_from(asked), images, st.sampled_from(answers))
    plain |= st.sampled_from(tiny.ASKED)
    given = question | plain | st.sampled_from(OTHERS)
    seen = st.none() | st.lists(st.lists(st.sampled_from(("e1", "e2", "e9", "", "\0"))), max_size=3)

    def contract(draw: Draw) -> None:
        name = draw(st.sampled_from([*made]))
        editor = made[name]
        how = draw(
            st.sampled_from(("add", "add", "generate", "force", "force", "remove", "memory"))
        )
        ids: list[str] = []
        try:
            if how == "add":
                edits = draw(st.lists(given, max_size=2))
                ids = editor.add(edits)
                held = editor.edits
                if [held[i] for i in ids] != edits:
                    raise Different("other edits are in force than were added")
                _asked(editor, tiny.ASKED[:1])
                if draw(st.booleans()):
                    editor.save_memory(folder / "memory")
            elif how == "remove":
                editor.remove(draw(st.lists(texts, min_size=1, max_size=2)))
            elif how == "memory":
                editor.load_memory(folder / draw(st.sampled_from(("memory", "gone", "a.png"))))
                editor.clear()
                editor.add(tiny.EDITS)
            else:
                rows = [tiny.ASKED[0], draw(given)]
                visible = draw(seen)
                if how == "generate":
                    count = draw(st.sampled_from((1, 2, 8, 0, -1, 10**6)))
                    editor.generate(rows, visible=visible, max_new_tokens=count)
                else:
                    editor.force(
                        rows, visible=visible, top_k=draw(st.sampled_from((1, 3, 0, 10**6)))
                    )
                if visible is None and _asked(editor, rows)[:1] != alone[name]:
                    raise Different("a row's answer depends on a hostile row")
        except KeyError as error:
            if how != "remove":
                raise
            raise Refused from error  # as the contract says
        finally:
            editor.remove(ids)
            if how == "memory":
                editor.clear()
                editor.add(tiny.EDITS)
            if [q for _, q in _state(editor)[0]] != [q for _, q in before[name][0]]:
                raise Different("other edits are in force than before")
            if _state(editor)[1] != before[name][1] and how != "memory":
                raise Different("other answers are given than before")

    def easyedit(draw: Draw) -> None:
        word = texts | values | st.lists(any_text, max_size=2)
        path = st.sampled_from(("a.png", "sixteen.png", "broken.png", "../x", *shown))
        prompts, targets = draw(word), draw(word)
        image = draw(path | st.lists(path, max_size=2))
        further: dict[str, Any] = {}
        if draw(st.booleans()):
            further["rephrase_prompts"] = draw(word)
        if draw(st.booleans()):
            further["rephrase_image"] = draw(path)
        if draw(st.booleans()):
            whole = {"prompt": ["a"], "ground_truth": ["b"], "image": "a.png"}
            half = {"prompt": "a", "ground_truth": "b"}
            inner = st.sampled_from((None, {}, {"prompt": "a"}, half, whole))
            keys = st.sampled_from(("text", "vision", "other"))
            further["locality_inputs"] = draw(values | st.dictionaries(keys, inner | values))
        roots = {"image_root": str(folder), "rephrase_root": str(folder)}
        records = records_from_arguments(prompts, targets, image, **further, **roots)
        listed = [x if isinstance(x, (list, tuple)) else [x] for x in (prompts, targets, image)]
        for record, prompt, target, picture_ in zip(records, *listed, strict=True):
            _same(record.edit, prompt, target, picture_, folder)

    def item(draw: Draw) -> None:
        keys = ("prompt", "target", "image", "rephrase_prompt", "image_rephrase", "locality_prompt",
                "locality_ground_truth", "multimodal_locality_prompt", "multimodal_locality_image",
                "multimodal_locality_ground_truth", "case_id")  # fmt: skip
        valid = dict.fromkeys(keys, "red") | dict.fromkeys(
            [k for k in keys if "image" in k], shown[-26]
        )
        changes = draw(st.dictionaries(st.sampled_from(keys), any_text | images, max_size=2))
        made_of = {k: v for k, v in (valid | changes).items() if draw(st.integers(0, 9))}
        record = record_from_item(draw(st.sampled_from([made_of, made_of, made_of, *OTHERS])), 0)
        _same(record.edit, made_of["prompt"], made_of["target"], made_of.get("image"), folder)

    ways = (contract, contract, contract, easyedit, item)

    def attack(draw: Draw) -> None:
        ways[draw(st.integers(0, len(ways) - 1))](draw)

    return attack


def _same(edit: Question, prompt: Any, target: Any, image: Any, folder: Path) -> None:
    bare = not prompt.strip().startswith("Question:")
    if bare and (edit.text, edit.answer) != (prompt.strip(), target.strip()):
        raise Different(f"the texts {prompt!r}, {target!r} are read as {edit}")
    if isinstance(image, (str, Path)):
        if not os.path.samefile(edit.image, folder / image):
            raise Different(f"the image {image} is read as {edit.image}")
    elif isinstance(image, torch.Tensor):
        if not isinstance(edit.image, torch.Tensor):
            raise Different("a tensor is read as something else")
    elif edit.image is not image:
        raise Different(f"the image {image} is read as {edit.image}")


def _asked(editor: Editor, questions: list[Question]) -> list[Any]:
    """For each question the likeliest tokens, and the place of the edit that answers."""
    rows, ids = editor.force(questions, top_k=2), [*editor.edits]
    return [(row.top_ids.tolist(), row.route and ids.index(row.route)) for row in rows]


def _state(editor: Editor) -> tuple[list[tuple[str, Question]], list[Any]]:
    return [*editor.edits.items()], _asked(editor, tiny.ASKED)


KIND = Kind("requests", (1500, 80), start)
