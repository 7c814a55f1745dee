"""Command lines.

Oracle: a command that does not end in an error (exit code 2, or 1 where a check says what is wrong)
did what its words say: the run, file or name that it took is the one that they name, it measured so
many cases as they ask for, and it wrote into the folders of its options and nowhere else.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from easyedit_mm_plugins.backbones.entries import BACKBONES
from easyedit_mm_plugins.cli import app
from easyedit_mm_plugins.cli.names import KINDS as LISTS
from easyedit_mm_plugins.evaluation import Protocol, RunFolder

from ..conftest import build_tiny
from ..support.grid_tools import write_cases
from ..support.report_runs import make_cases, make_run
from .attack import Attack, Different, Draw, Kind, Refused
from .mutations import TEXTS, texts

_CASES = 3
_WORDS = (
    *TEXTS, "0", "-1", "2", "99999999999999999999", "1.5", "１", "work/../..", "../../x", "--",
    "--x", "--limit", "-h", "x" * 5000, "tiny", "cases.json", "broken.json", "runs", "runs/valid",
    "0.png", "TINY", "unedited,mscke", "[unedited]", "mscke", "e-vqa:cases.json", "cases.json:x",
    "scenes:x",
)  # fmt: skip


def _option(words: list[str], name: str, default: str) -> str:
    """The word behind the last ``name``; the name may itself be what an option before it took."""
    places = [i for i, word in enumerate(words[:-1]) if word == name]
    return words[places[-1] + 1] if places else default


def _real(path: str) -> str:
    return os.path.realpath(path)


def _listed(words: list[str], out: str) -> bool:
    return words[1] in LISTS or "--help" in words


def _shown(words: list[str], out: str) -> bool:
    named = [words[1], os.path.join(_option(words, "--runs", "runs"), words[1])]
    return _real("runs/valid") in map(_real, named)


def _measured(words: list[str], out: str) -> bool:
    limit = int(_option(words, "--limit", str(_CASES)))
    kept = Path(_option(words, "--runs", "runs"))
    runs = [p.parent for p in kept.rglob("config.yaml") if p.parent.name != "valid"]
    rows = RunFolder.read(runs[0]).rows() if len(runs) == 1 else []
    protocol = _option(words, "--protocol", "generated")
    name = _option(words, "--name", "")
    if len(runs) != 1 or (name and _real(str(kept / name)) != _real(str(runs[0]))):
        return False
    if _real(_option(words, "--data", "cases.json").removeprefix("e-vqa:")) != _real("cases.json"):
        return False
    return [(r["n"], r["protocol"]) for r in rows] == [(min(limit, _CASES), protocol)]


def _asked(words: list[str], out: str) -> bool:
    return Path(words[1]).is_file() and all(w.strip() for w in words[2:4])


def _read(words: list[str], out: str) -> bool:
    return _real(words[2].removeprefix("e-vqa:")) == _real("cases.json")


def _anything(words: list[str], out: str) -> bool:
    return True


def _compared(words: list[str], out: str) -> bool:
    return _never(words, out) or ("backbone=nothing" not in words and "written to" in out)


def _never(words: list[str], out: str) -> bool:
    return any("help" in word or "--cfg" in word for word in words)


_TINY = ["--backbone", "tiny", "--method", "unedited"]
_COMMANDS: tuple[tuple[list[str], Callable[[list[str], str], bool]], ...] = (
    (["list", "methods"], _listed),
    (["show", "runs/valid"], _shown),
    (["show", "valid", "--runs", "runs"], _shown),
    (["report", "valid", "--runs", "runs", "--out", "out", "--cases", "2", "--title", "T"], _shown),
    (["evaluate", *_TINY, "--data", "cases.json", "--images", ".", "--limit", "2", "--name", "new",
      "--runs", "out"], _measured),
    (["evaluate", *_TINY, "--data", "cases.json", "--protocol", "teacher-forced", "--suite",
      "fgvedit", "--batch-size", "2", "--name", "a/b", "--runs", "out"], _measured),
    (["ask", "0.png", "what color is the circle?", "green", "where?", "--text", "one two", *_TINY,
      "--max-new-tokens", "2"], _asked),
    (["data", "verify", "cases.json", "--images", "."], _read),
    (["data", "stats", "cases.json"], _read),
    (["data", "preview", "cases.json", "--images", ".", "--out", "out/page.html"], _read),
    (["hparams", "show", "MSCKE/blip2"], _anything),
    (["hparams", "list"], _anything),
    (["reproduce", "mscke-table1", "--backbone", "nothing", "--limit", "2"], _never),
    (["train", "--out", "out", *_TINY], _never),
    (["train", "--out", "out", "--backbone", "tiny", "--data", "gone.json", "--set", "lr=1"],
     _never),
    (["calibrate", "--editor", "gone", "--backbone", "tiny"], _never),
    (["compare", "method=[unedited]", "backbone=nothing", "data=cases.json"], _compared),
)  # fmt: skip


def start(folder: Path) -> Attack:
    backbone = build_tiny("llava")
    backbone.name = "tiny"
    BACKBONES.add(replace=True, name="tiny", loader=lambda *a, **k: backbone)
    valid, work = folder / "valid", folder / "a" / "b" / "work"
    valid.mkdir()
    write_cases(valid, _CASES)
    (valid / "broken.json").write_text((valid / "cases.json").read_text()[:200])
    run = make_run(valid / "runs/valid", make_cases(2, valid / "pictures"), ("unedited", "mscke"),
                   protocol=Protocol(bootstrap=10))  # fmt: skip
    run.close()
    (valid / "out").mkdir()
    work.parent.mkdir(parents=True)
    hostile = st.sampled_from(_WORDS) | texts

    def attack(draw: Draw) -> None:
        os.chdir(folder)
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(valid, work)
        outside = _outside(folder)
        words, right = draw(st.sampled_from(_COMMANDS))
        words = [*words]
        for _ in range(draw(st.sampled_from((1, 1, 1, 2)))):
            given = [i for i, w in enumerate(words) if i and not w.startswith("--")]
            place = draw(st.sampled_from(given or [0]) | st.integers(0, len(words) - 1))
            how = draw(st.sampled_from(("set", "set", "set", "value", "drop", "add", "double")))
            word = draw(hostile)
            if how == "value":
                word = words[place].partition("=")[0] + "=" + word
            words[place : place + 1] = {
                "drop": [], "add": [words[place], word], "double": [words[place]] * 2,
            }.get(how, [word])  # fmt: skip
        code, said = _call(words, work)
        if _outside(folder) != outside:
            raise Different(f"{words} wrote outside its folder")
        if code in (1, 2):
            raise Refused
        if code not in (0, 3):
            raise RuntimeError(f"{words} ends with {code}: {said[-300:]}")
        os.chdir(work)
        if "--help" not in words and not right(words, said):
            raise Different(f"{words} ends well: {said[-200:]}")

    return attack


def _call(words: list[str], work: Path) -> tuple[Any, str]:
    """Exit code and output of a command; an error of ours, or another, as it is."""
    before, here = sys.argv, os.getcwd()
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace")
    sys.argv = ["easyedit-mm", *words]
    os.environ["EASYEDIT_MM_DEBUG"] = "1"
    os.chdir(work)
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            app.main()
        code: Any = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.argv = before
        os.environ.pop("EASYEDIT_MM_DEBUG")
        os.chdir(here)
    output.flush()
    return code, output.buffer.getvalue().decode("utf-8", "replace")


def _outside(folder: Path) -> list[str]:
    """All that lies above the working folder."""
    seen = [str(p) for top in (folder, folder / "a", folder / "a" / "b") for p in top.iterdir()]
    return sorted(seen)


KIND = Kind("command lines", (800, 40), start, lambda: BACKBONES.unregister("tiny"))
