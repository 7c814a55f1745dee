"""``easyedit-mm ask``: one edit, and the answers before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import EDITOR, Device, DType, OneBackbone

NOT_TAKEN = 3  # exit code where the edit did not change the answer to its own question


def ask(
    image: Annotated[Path, typer.Argument(help="Picture that the edit is about.")],
    question: Annotated[str, typer.Argument(help="The question of the edit.")],
    answer: Annotated[
        str, typer.Argument(help="The answer that the model should give from now on.")
    ],
    questions: Annotated[
        list[str] | None, typer.Argument(help="Further questions about the picture.")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Further question, asked without the picture; repeatable."),
    ] = None,
    method: Annotated[str, typer.Option(help="Editing method (see 'list methods').")] = "mscke",
    backbone: OneBackbone = "scenes-llava",
    editor: Annotated[
        Path | None, typer.Option(help=f"{EDITOR}; by default the shipped one.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 8,
    device: Device = "cpu",
    dtype: DType = None,
) -> None:
    """Make one edit, ask questions, and show the answers before and after.

    Exit code 3: with the edit in force, the model does not give the new answer to its question.
    """
    from ..backbones import check_backbones, load_backbone
    from ..core.console import CONSOLE
    from ..data import Question, open_image
    from ..data.records import check_questions
    from ..evaluation import same_answer
    from ..methods import METHODS, make_editor
    from ..methods.factory import editor_folder
    from .before_after import answer_table, ask_around, unknown_words

    METHODS.check(method)
    check_backbones(backbone)
    folder = editor_folder(editor) if editor else None
    open_image(image)
    edit = Question(question, image, answer)
    asked = [edit, *(Question(q, image) for q in questions or [])]
    asked += [Question(q) for q in text or []]
    check_questions([edit, *asked])
    loaded = load_backbone(backbone, device=device, dtype=dtype)
    made = make_editor(method, loaded, folder=folder)
    lacking = unknown_words(loaded.tokenizer, [answer, *(q.text for q in asked)])
    if lacking:
        words = ", ".join(map(repr, lacking))
        CONSOLE.print(f"[yellow]warning[/] {loaded.name}'s tokenizer lacks", end=" ")
        CONSOLE.print(f"{words}: the model reads them all as one unknown word", markup=False)
    lines = ask_around(made, edit, asked, max_new_tokens)
    CONSOLE.print(answer_table(edit, lines))
    said = lines[0].after
    if not same_answer(said, answer):
        CONSOLE.print("[red]the edit did not take:[/]", end=" ")
        CONSOLE.print(f"target {answer!r}, answer {said!r}", markup=False)
        raise typer.Exit(NOT_TAKEN)
