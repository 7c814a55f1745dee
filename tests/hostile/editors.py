"""Trained editors' folders, and edits that an editor saved.

Oracle: a folder whose files hold what was saved loads, and saved again it is the same, tensor by
tensor and value by value; any other is refused, for its checksums stand in ``config.json``. Without
checksums (editors of earlier versions) what loads is what the files hold: saved again, every tensor
and every value that both folders have is equal. Of saved edits (one file with its own checksum)
nothing loads that was not saved; what loads answers as before.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from easyedit_mm_plugins.core.errors import BridgeError
from easyedit_mm_plugins.data import Question
from easyedit_mm_plugins.host import easyedit as host
from easyedit_mm_plugins.methods.base import Editor, Unedited
from easyedit_mm_plugins.methods.checkpoint import CHECKSUMS
from easyedit_mm_plugins.methods.dualedit import AdapterConfig, DualEditConfig, GateConfig
from easyedit_mm_plugins.methods.ft import FTLLM, FTConfig
from easyedit_mm_plugins.methods.ike.config import IKEHyperParams
from easyedit_mm_plugins.methods.ike.model import IKE
from easyedit_mm_plugins.methods.mend.mscke import MSCKEMEND, MendCounterfactual
from easyedit_mm_plugins.methods.mscke import CounterfactualConfig
from easyedit_mm_plugins.methods.mscke.lora import LoRA
from easyedit_mm_plugins.methods.mscke.lora_editor import MSCKELoRA
from easyedit_mm_plugins.methods.serac.model import SERAC
from easyedit_mm_plugins.methods.visedit import VisEdit
from easyedit_mm_plugins.recipes.serac import small_bert

from ..conftest import build_tiny, picture
from ..support.dualedit_tiny import tiny_dualedit
from ..support.mend_tiny import tiny_mend
from ..support.mscke_tiny import tiny_mscke, tiny_scope
from .attack import Attack, Different, Draw, Kind
from .mutations import changed, damaged, to_json

EDITS = [
    Question("what color is the circle?", picture(0), "green"),
    Question("where is the star?", picture(1), "top left"),
]
ASKED = [
    Question("what color is the circle?", picture(0), "green"),
    Question("where is the star?", None, "top"),
    Question("is the star red?", picture(1), "yes no"),
]


def made() -> dict[str, Editor]:
    """One tiny editor of each method that keeps something on disk."""
    torch.manual_seed(7)
    backbone = build_tiny("llava")
    mend, inner, mscke = tiny_mend("llava"), tiny_mend("llava"), tiny_mscke("llava")
    lora = LoRA.from_config(backbone, CounterfactualConfig(kind="lora", rank=2))
    for parameter in lora.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    visedit = VisEdit(backbone, DualEditConfig([AdapterConfig(0, "visual", "visedit", 16, 2)],
                                               GateConfig("off")))  # fmt: skip
    editors = {
        "mscke": mscke,
        "mscke-mend": MSCKEMEND(backbone, tiny_scope(), MendCounterfactual(inner)),
        "mscke-lora": MSCKELoRA(backbone, tiny_scope(), lora),
        "mend": mend,
        "dualedit": tiny_dualedit(),
        "dualedit-learned": tiny_dualedit(kind="learned"),
        "visedit": visedit,
        "ike": IKE(backbone, "scenes", hparams=IKEHyperParams("tiny-llava", k=0)),
    }
    try:
        host.locate()
        classifier, tokenizer = small_bert(backbone, hidden_size=16, intermediate_size=16,
                                           num_hidden_layers=1)  # fmt: skip
        editors["serac"] = SERAC(mscke.backbone, classifier, tokenizer, mscke.counterfactual)
    except BridgeError:
        pass  # its scope code is EasyEdit's
    return editors


def start(folder: Path) -> Attack:
    editors = made()
    for name, editor in editors.items():
        editor.save_pretrained(folder / name, half=False)
    files = {n: sorted(p for p in (folder / n).rglob("*") if p.is_file()) for n in editors}
    everything = [path for paths in files.values() for path in paths]
    place, again = folder / "place", folder / "again"

    def attack(draw: Draw) -> None:
        name = draw(st.sampled_from([*editors]))
        for old in (place, again):
            shutil.rmtree(old, ignore_errors=True)
        shutil.copytree(folder / name, place)
        sealed = draw(st.integers(0, 9)) < 7
        if not sealed:
            for config in place.rglob("config.json"):
                values = json.loads(config.read_text())
                values.pop(CHECKSUMS, None)
                config.write_text(json.dumps(values))
        file = place / draw(st.sampled_from(files[name])).relative_to(folder / name)
        how = draw(st.sampled_from(_WAYS))
        _WAYS_OF[how](draw, file, everything)
        options = {}
        if name == "serac":  # its answers are MSCKE's, whatever its own file says of them
            options["counterfactual"] = editors[name].counterfactual
        loaded = type(editors[name]).from_pretrained(place, editors[name].backbone, **options)
        loaded.save_pretrained(again, half=False)
        if sealed and how != "unsealed":
            _compare(folder / name, again)
        else:
            _compare(place, again)

    return attack


def _compare(expected: Path, found: Path) -> None:
    for path in sorted(p for p in found.rglob("*") if p.is_file()):
        name = path.relative_to(found)
        other = expected / name
        if path.suffix == ".safetensors":
            ours, theirs = load_file(path), load_file(other)
            if name.parts[0] == "classifier":  # SERAC's: transformers passes over further tensors
                theirs = {n: theirs[n] for n in theirs if n in ours}
            if ours.keys() != theirs.keys() or not all(_equal(ours[n], theirs[n]) for n in ours):
                raise Different(f"{name}: the tensors that were loaded are others")
        elif path.name == "config.json":
            ours, theirs = json.loads(path.read_text()), json.loads(other.read_text())
            if said := _first(theirs, ours):
                raise Different(f"{name}: {said}")


# Values that nothing depends on: versions, and a name beside the fingerprint that decides.
_IDLE = ("version", "transformers_version", "architectures", "name", CHECKSUMS)


def _first(given: Any, found: Any, at: str = "") -> str:
    """The first value of both that differs."""
    if isinstance(given, dict) and isinstance(found, dict):
        both = (k for k in given if k in found and k not in _IDLE)
        return next(filter(None, (_first(given[k], found[k], f"{at}.{k}") for k in both)), "")
    same = given == found or given is None or (isinstance(given, str) and [given] == found)
    if isinstance(given, list) and isinstance(found, list):  # of names, each once
        same |= [one for i, one in enumerate(given) if one not in given[:i]] == found
    return "" if same else f"{at} is {found!r}, {given!r} was there"


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.double(), other.double())


# Ways to change an editor's file ----------------------------------------------------------------


def _bytes(draw: Draw, file: Path, _: list[Path]) -> None:
    file.write_bytes(damaged(draw, file.read_bytes()))


def _head(draw: Draw, file: Path, _: list[Path]) -> None:
    data = file.read_bytes()
    file.write_bytes(damaged(draw, data[:300]) + data[300:])


def _length(draw: Draw, file: Path, _: list[Path]) -> None:
    length = draw(st.sampled_from((0, 1, 2**31, 2**40, 2**63, 2**64 - 1, 100)))
    file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])


def _values(draw: Draw, file: Path, _: list[Path]) -> None:
    if file.suffix != ".json":
        return _tensors(draw, file, _)
    file.write_text(to_json(changed(draw, json.loads(file.read_text()))))


def _tensors(draw: Draw, file: Path, _: list[Path]) -> None:
    if file.suffix != ".safetensors":
        return _values(draw, file, _)
    tensors = load_file(file)
    name = draw(st.sampled_from(sorted(tensors)))
    tensor, how = tensors[name], draw(st.sampled_from(_OF_TENSORS))
    if how == "swap":
        same = sorted(n for n, t in tensors.items() if t.shape == tensor.shape)
        other = draw(st.sampled_from(same))
        tensors[name], tensors[other] = tensors[other].clone(), tensor.clone()
    elif how == "remove":
        del tensors[name]
    elif how == "rename":
        tensors[draw(st.sampled_from(("", name + "s", name.upper(), "x" * 300)))] = tensors.pop(
            name
        )
    elif how == "add":
        tensors["another"] = tensor.clone()
    else:
        tensors[name] = {
            "nan": tensor * float("nan"),
            "inf": tensor + float("inf"),
            "scale": tensor * 1.5 + 1,
            "shape": tensor[None],
            "flat": tensor.flatten(),
            "empty": tensor.flatten()[:0],
            "half": tensor.half(),
            "int": tensor.to(torch.int8),
            "bool": tensor.bool(),
        }[how].contiguous()
    save_file(tensors, file)


_OF_TENSORS = ("swap", "swap", "remove", "rename", "add", "nan", "inf", "scale", "shape", "flat",
               "empty", "half", "int", "bool")  # fmt: skip


def _other(draw: Draw, file: Path, everything: list[Path]) -> None:
    same = [p for p in everything if p.suffix == file.suffix]
    shutil.copyfile(draw(st.sampled_from(same)), file)


def _place(draw: Draw, file: Path, _: list[Path]) -> None:
    how, data = (
        draw(st.sampled_from(("gone", "folder", "link", "dangling", "loop"))),
        file.read_bytes(),
    )
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how == "link":
        kept = file.with_name("kept elsewhere")
        kept.write_bytes(data)
        file.symlink_to(kept.name)
    elif how in ("dangling", "loop"):
        file.symlink_to(file.name if how == "loop" else "nowhere")


def _stray(draw: Draw, file: Path, everything: list[Path]) -> None:
    name = draw(st.sampled_from(("README.md", ".DS_Store", "notes.json", "edits.safetensors")))
    shutil.copyfile(draw(st.sampled_from(everything)), file.with_name(name))


def _unsealed(draw: Draw, file: Path, _: list[Path]) -> None:
    values = json.loads(file.read_text()) if file.suffix == ".json" else {}
    if isinstance(values, dict) and values.pop(CHECKSUMS, None):
        file.write_text(json.dumps(values))


def _formatted(draw: Draw, file: Path, _: list[Path]) -> None:
    if file.name == "config.json" and CHECKSUMS in (values := json.loads(file.read_text())):
        text = json.dumps(values, indent=draw(st.sampled_from((None, 1, 8))))
        file.write_text(text + draw(st.sampled_from(("", "\n\n", " "))))


_WAYS_OF: dict[str, Callable[[Draw, Path, list[Path]], Any]] = {
    "bytes": _bytes, "head": _head, "length": _length, "values": _values, "tensors": _tensors,
    "other": _other, "place": _place, "stray": _stray, "unsealed": _unsealed,
    "formatted": _formatted,
}  # fmt: skip
_WAYS = ("bytes", "bytes", "bytes", "head", "values", "values", "tensors", "tensors", *_WAYS_OF)
KIND = Kind("editors' folders", (2500, 120), start)


# Saved edits ------------------------------------------------------------------------------------


def start_memories(folder: Path) -> Attack:
    editors = {n: e for n, e in made().items() if n not in ("ike", "serac")}
    base = build_tiny("llava")
    editors["unedited"] = Unedited(base)
    editors["ft-llm"] = FTLLM(base, FTConfig(num_steps=1, edit_lr=1e-2))
    valid: dict[str, tuple[list, list]] = {}
    for name, editor in editors.items():
        editor.add(EDITS)
        editor.save_memory(folder / name)
        valid[name] = _answers(editor), [*editor.edits]
    files = [path for n in editors for path in sorted((folder / n).iterdir())]

    def attack(draw: Draw) -> None:
        name = draw(st.sampled_from([*editors]))
        editor, place = editors[name], folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder / name, place)
        file = draw(st.sampled_from(sorted(place.iterdir())))
        how = draw(st.sampled_from(("bytes", "bytes", "head", "length", "book", "tensors", "other",
                                    "place", "whole")))  # fmt: skip
        if how == "book":
            _book(draw, file)
        elif how != "whole":
            _WAYS_OF[how](draw, file, files)
        try:
            editor.load_memory(place)
        finally:
            if _answers(editor) != valid[name][0] or [*editor.edits] != valid[name][1]:
                editor.load_memory(folder / name)
                raise Different("other edits are in force than were saved")

    return attack


def _book(draw: Draw, file: Path) -> None:
    """Change the texts of the edits, which stand in the file's header."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        notes = dict(opened.metadata())
    key = draw(st.sampled_from(sorted(notes)))
    if key == "book":
        notes[key] = to_json(changed(draw, json.loads(notes[key])))
    else:
        notes[key] = draw(st.sampled_from(("", "0" * 64, notes[key].upper())))
    save_file(load_file(file), file, metadata=notes)


def _answers(editor: Editor) -> list:
    rows = editor.force(ASKED, top_k=3)
    return [(row.top_ids.tolist(), row.route, row.score) for row in rows]


MEMORIES = Kind("saved edits", (1500, 80), start_memories)
