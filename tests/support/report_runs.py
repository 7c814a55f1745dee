"""Small run folders for tests of reports, written by the real evaluator."""

from __future__ import annotations

import json

import yaml

from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.evaluation import Protocol, RunFolder, evaluate, records_digest
from easyedit_mm_plugins.methods.base import Unedited

from ..conftest import picture
from .evaluation_fakes import FakeBackbone, Remembering

NASTY = (
    '</script><script>document.title = "broken in"</script>'
    '<img src=x onerror=document.title="in"> & | _ ${1} \\'
)
COLORS = ("red", "green", "yellow")


class Oracle(Remembering):
    """Knows everything that follows from an edit, and has scores."""

    name = "mscke"

    def describe(self):
        return {"threshold": 0.5, "counterfactual": {"kind": "oracle"}}


class Forgetful(Remembering):
    """Knows the edit and its rephrasing; nothing that follows."""

    name = "serac"

    def __init__(self, backbone, records):
        super().__init__(backbone, records, ("edit", "rephrase"))


class Leaky(Remembering):
    """Gives the new answer to every question about the picture; forgets every fifth edit."""

    name = "ft-llm"

    def __init__(self, backbone, records):
        super().__init__(backbone, records, ("edit", "rephrase", "in_scope"))
        self.number = {self._key(r.edit): i for i, r in enumerate(records)}

    def _route(self, question, visible):
        for i, edit in self.edits.items():
            seen = visible is None or i in visible
            lost = self.number[self._key(edit)] % 5 == 4
            if seen and question.image is not None and not lost:
                return i, edit.answer
        return None, None


METHODS = {"unedited": None, "mscke": Oracle, "serac": Forgetful, "ft-llm": Leaky}


def make_cases(n, folder, nasty=False):
    """``n`` records about pictures in ``folder``; with ``nasty``, case 1 is full of markup."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for i in range(n):
        image = folder / f"{i}.png"
        picture(i).save(image)
        color = COLORS[i % 3]
        text = NASTY if nasty and i == 1 else f"what color is thing {i}?"
        answer = NASTY if nasty and i == 1 else color
        records.append(
            EditRecord(
                case_id=f"c{i}",
                edit=Question(text, image, answer),
                rephrase=(Question(f"which color has thing {i}?", image, answer),),
                in_scope=(Question(f"is thing {i} {color}?", image, "yes"),),
                out_scope=(Question(f"how many things beside thing {i}?", image, "two"),),
                text_loc=(Question("what is the capital of france?", None, "paris"),),
                image_rephrase=(Question(text, folder / f"{(i + 1) % n}.png", answer),),
                image_loc=(Question("where is it?", folder / f"{(i + 2) % n}.png", "top"),),
            )
        )
    return records


def make_run(
    path,
    records,
    methods=tuple(METHODS),
    *,
    backbones=("scenes-blip2",),
    dataset="scenes",
    protocol=None,
    suite="fgvedit",
    wanted=None,
):
    """Measure fake methods into the run folder ``path``."""
    protocol = protocol or Protocol(bootstrap=200)
    settings = {"name": dataset, "n": wanted or len(records), "digest": records_digest(records)}
    config = {"dataset": settings, "protocol": protocol.settings(), "suite": suite}
    run = RunFolder.open(path, config)
    for name in backbones:
        backbone = FakeBackbone()
        backbone.name = name
        for method in methods:
            made = METHODS[method]
            editor = made(backbone, records) if made else Unedited(backbone)
            evaluate(editor, records, protocol, run=run, dataset=dataset, suite=suite, batch_size=4)
    run.summarise()
    return run


def change_config(path, change):
    """Apply ``change`` to what ``config.yaml`` holds."""
    file = path / "config.yaml"
    value = yaml.safe_load(file.read_text())
    change(value)
    file.write_text(yaml.safe_dump(value))


def page_json(page):
    """The data inside a written page."""
    text = page.read_text(encoding="utf-8")
    start = text.index('id="data">') + len('id="data">')
    return json.loads(text[start : text.index("</script>", start)])
