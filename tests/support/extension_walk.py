"""What the extension's user does, in a process that finds ``sticky_notes`` on its path.

``python tests/support/extension_walk.py FOLDER`` prints one JSON object of what came out.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from typer.testing import CliRunner

from easyedit_mm_plugins.cli.app import app
from easyedit_mm_plugins.data import FGVEditDataset
from easyedit_mm_plugins.scenes.records import write_scenes

COLUMNS = (
    "picture question answer reworded in_question in_answer out_question out_answer "
    "text_question text_answer"
).split()


def write_csv(path: Path, source: Path, images: Path) -> Path:
    """Records of scenes as the extension's data set reads them."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for record in FGVEditDataset(source, image_root=images):
            row = [Path(record.edit.image).resolve(), record.edit.text, record.edit.answer]
            row.append(record.rephrase[0].text)
            for questions in (record.in_scope, record.out_scope, record.text_loc):
                row += [questions[0].text, questions[0].answer]
            writer.writerow(row)
    return path


def main(folder: Path) -> dict[str, object]:
    """Every command, then EasyEdit's own class."""
    files = write_scenes(folder / "scenes", 16, 6)
    train = write_csv(folder / "train.csv", files.train, files.images)
    test = write_csv(folder / "test.csv", files.test, files.images)

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, list(words))
        if result.exit_code:
            raise RuntimeError(f"{' '.join(words)}: {result.output} {result.exception!r}")
        return result.output

    runs, trained = folder / "runs", folder / "trained"
    own = ["--backbone", "quiet-llava", "--data"]
    method = ["--method", "sticky-notes"]
    found: dict[str, object] = {
        "methods": call("list", "methods").split(),
        "settings": call("hparams", "show", "STICKY-NOTES/quiet-llava"),
        "training": call(
            "train", *method, *own, f"csv-edits:{train}", "--val", "4", "--out", str(trained)
        ),
    }
    evaluated = ["--editor", f"sticky-notes={trained}", "--runs", str(runs), "--name", "evaluated"]
    call("evaluate", "--method", "unedited", *method, *own, f"csv-edits:{test}", *evaluated)
    compared = ["method=[unedited,sticky-notes]", "backbone=quiet-llava", "data=csv-edits"]
    settings = [f"data.path={test}", f"method.sticky_notes.archive={trained}"]
    call("compare", *compared, *settings, f"out={runs / 'compared'}")
    call("report", str(runs / "evaluated"), "--out", str(folder / "report"))
    found["report"] = (folder / "report/report.md").read_text()
    found["doctor"] = call("doctor")
    for name in ("evaluated", "compared"):
        rows = json.loads((runs / name / "summary.json").read_text())["rows"]
        found[name] = {row["method"]: row["metrics"] for row in rows}
    found["asked"] = call("ask", str(next(files.images.rglob("*.png"))), "what?", "red", *method)
    found["easyedit"] = in_easyedit(files, trained)
    return found


def in_easyedit(files: object, trained: Path) -> object:
    """One edit through ``MultimodalEditor``; the reason where EasyEdit is not installed."""
    import easyedit_mm_plugins as mm
    from easyedit_mm_plugins.core.errors import BridgeError

    try:
        mm.register()
    except BridgeError as error:
        return str(error)
    from easyeditor import MultimodalEditor
    from sticky_notes.method import StickyNotesHyperParams

    hparams = StickyNotesHyperParams.from_hparams("STICKY-NOTES/quiet-llava")
    editor = MultimodalEditor.from_hparams(hparams.replace(archive=str(trained)))
    record = FGVEditDataset(files.test, 1, image_root=files.images)[0]
    edit = dict(prompts=record.edit.text, targets=record.edit.answer, image=str(record.edit.image))
    metrics, edited, _ = editor.edit(**edit, locality_inputs={})
    share = edited.editor.share
    return {"rewrite": float(metrics[0]["post"]["rewrite_acc"]), "share": share}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
