"""The measured figures of README.md and docs/: measured, kept as JSON, written as tables.

    python -m scripts.figures list                 # tables, their runs, how long these take
    python -m scripts.figures make [NAME ...]      # measure what is lacking, then write the tables
    python -m scripts.figures write                # write the tables from docs/figures/*.json
    python -m scripts.figures check                # the same, but only say what would change

``make`` goes on where it was stopped: what was measured with the shipped weights is not measured
again (``--again`` does), and a source that fails does not stop the others. With ``--cases N`` it
tries the commands on N cases, prints the tables and leaves the documents alone.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from easyedit_mm_plugins.core.console import show_error
from easyedit_mm_plugins.core.environment import cpu_name, environment
from easyedit_mm_plugins.core.errors import ConfigError, EasyEditMMError
from easyedit_mm_plugins.core.files import file_digest, read_json, write_text
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.recipes.job import embedded_backbones
from easyedit_mm_plugins.scenes.records import WORLD_VERSION

from .registry import SOURCES, TABLES, Source
from .tables import caption, fill, tables_in

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs/figures"
RUNS = ROOT / "runs/figures"
FORMAT = 1
MINUTE = 60.0
RUNNING: set[subprocess.Popen[bytes]] = set()


def documents() -> list[Path]:
    """The documents that may show figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def figures_of(source: str) -> dict[str, Any]:
    """The committed figures of a source.

    Raises:
        DataError: there are none, or the file is damaged. ConfigError: another format.
    """
    found = read_json(FIGURES / f"{source}.json")
    if found.get("format") != FORMAT:
        raise ConfigError(f"docs/figures/{source}.json has format {found.get('format')}")
    return found


def block(name: str) -> str:
    """Table ``name`` with its caption, as a document holds it; a line where nothing is measured.

    Raises:
        ConfigError: no such table, or its rows do not fit it. DataError: see :func:`figures_of`.
    """
    if name not in TABLES:
        raise ConfigError(f"there is no table {name!r}; known: {', '.join(TABLES)}")
    source = TABLES[name].source
    if not (FIGURES / f"{source}.json").is_file():
        return f"\n*Not measured yet; `make standing ARGS={source}` measures it.*\n"
    figures = figures_of(source)
    return f"\n{TABLES[name].markdown(figures['rows'])}\n\n{caption(figures)}\n"


def changes() -> dict[Path, str]:
    """The documents whose tables are not those of the committed figures, as they should be."""
    found = {}
    for path in documents():
        text = path.read_text(encoding="utf-8")
        made = fill(text, block)
        if made != text:
            found[path] = made
    return found


def write() -> None:
    """Write the tables of every document from the committed figures."""
    for path, text in changes().items():
        write_text(path, text)
        print(f"wrote {path.relative_to(ROOT)}")


def other_copies() -> list[str]:
    """Pictures and pages that are not those of the run that their source's figures are of."""
    return [
        path
        for name in SOURCES
        if (FIGURES / f"{name}.json").is_file()
        for path, digest in figures_of(name).get("copies", {}).items()
        if not (ROOT / path).is_file() or file_digest(ROOT / path) != digest
    ]


@cache  # megabytes are read for it
def weights() -> str:
    """A hash of everything shipped that a figure depends on: the weights, and the scenes."""
    whole = hashlib.sha256(str(WORLD_VERSION).encode())
    for path in sorted(ASSETS.rglob("*.safetensors")):
        whole.update(f"{path.relative_to(ASSETS)} {file_digest(path)}".encode())
    return whole.hexdigest()[:12]


# Measuring ------------------------------------------------------------------------------------


def make(name: str, out: Path, cases: int | None) -> dict[str, Any]:
    """Run the commands of a source that are not done yet, and make its figures.

    Raises:
        ConfigError: a command failed. DataError: a result is missing.
    """
    source = SOURCES[name]
    began = time.monotonic()
    for number, command in enumerate(commands(source, out, cases)):
        done = out / f"{number}.done"
        if not (done.is_file() and done.read_text() == shlex.join(command)):
            run(name, command, out / "log.txt")
            write_text(done, shlex.join(command))
    found = [{**named, **read_json(path)} for named, path in results(source, out)]
    env = next((read_json(path) for path in sorted(out.rglob("env.json"))), environment())
    if not source.commands:  # shipped, and as old as its files
        env |= committed(path for _, path in results(source, out))
    rows = source.rows(found)
    protocols = {row["protocol"] for row in rows if "protocol" in row}
    measured = {
        "date": env["started"][:10],
        "commit": re.sub(r"(\w{7})\w*", r"\1", env["git_commit"] or "unknown", count=1),
        "minutes": round((time.monotonic() - began) / 60, 1),
        "protocol": ", ".join(sorted(protocols)) or None,
        "seed": env["seed"],
        "dtype": env["dtype"],
        "hardware": f"{env.get('gpu') or cpu_name()}, {env['cores']} cores",
        **{key: env.get(key) for key in ("python", "torch", "transformers")},
        "note": source.note or None,
    }
    return {
        "format": FORMAT,
        "name": name,
        "source": "run",
        "commands": list(source.commands),
        "weights": weights(),
        "measured": {key: value for key, value in measured.items() if value is not None},
        "rows": rows,
    }


def committed(paths: Iterable[Path]) -> dict[str, str]:
    """Day and commit of the last change of the files."""
    command = ["git", "log", "-1", "--format=%as %H", "--", *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    day, _, commit = done.stdout.strip().partition(" ")
    return {"started": day, "git_commit": commit}


def expanded(texts: Sequence[str], out: Path, cases: int) -> Iterator[tuple[dict[str, str], str]]:
    """``texts`` with their places filled in; one with ``{backbone}`` becomes several."""
    names = embedded_backbones()
    filled = {
        "out": out,
        "cases": cases,
        "backbones": f"[{','.join(names)}]",
        "listed": " ".join(names),
        "each_backbone": " ".join(f"--backbone {name}" for name in names),
    }
    for text in texts:
        for name in names if "{backbone}" in text else [""]:
            named = {"backbone": name} if name else {}
            yield named, text.format(**filled, **named)


def commands(source: Source, out: Path, cases: int | None) -> Iterator[list[str]]:
    """The source's commands, as they are started."""
    for _, text in expanded(source.commands, out, cases or source.cases):
        first, *rest = shlex.split(text)
        package = ["-m", "easyedit_mm_plugins"] if first == "easyedit-mm" else []
        yield [sys.executable, *package, *rest]


def results(source: Source, out: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """The files that hold what was measured, each with the backbone that its name stands for."""
    folder = out if source.commands else ASSETS
    for named, text in expanded(source.results, out, source.cases):
        yield named, folder / text


def run(name: str, command: Sequence[str], log: Path) -> None:
    """Run one command, its output into ``log``; a line a minute says how far it is.

    Raises:
        ConfigError: it ended with an error; the message holds the end of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    began = told = time.monotonic()
    with log.open("ab") as file:
        file.write(f"\n$ {shlex.join(command)}\n".encode())
        file.flush()
        job = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        RUNNING.add(job)
        while job.poll() is None:
            time.sleep(0.2)
            if time.monotonic() - told >= MINUTE:
                told = time.monotonic()
                say(f"{name}: {(told - began) / 60:.0f} min; {last_line(log)}")
        RUNNING.discard(job)
    if job.returncode:
        tail = "\n    ".join(log.read_text(errors="replace").splitlines()[-12:])
        raise ConfigError(f"{shlex.join(command)} ended with {job.returncode}:\n    {tail}")


def last_line(log: Path) -> str:
    """The last words of a log, without the marks that a terminal hides."""
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", log.read_text(errors="replace"))
    lines = [line.strip() for line in re.split(r"[\r\n]", text)]
    return next((line for line in reversed(lines) if line), "")[:110]


def say(text: str) -> None:
    """A line with the time of day."""
    print(f"{datetime.datetime.now():%H:%M} {text}", flush=True)


def keep(name: str, figures: dict[str, Any], out: Path) -> None:
    """Copy pictures and pages into the documents, and write ``docs/figures/NAME.json``."""
    copies = SOURCES[name].copies
    for inside, path in copies.items():
        shutil.copy(out / inside, ROOT / path)
    digests = {path: file_digest(ROOT / path) for path in copies.values()}
    write_text(FIGURES / f"{name}.json", as_text({**figures, "copies": digests}))


def as_text(figures: Mapping[str, Any]) -> str:
    """JSON with a row a line."""
    head = {key: value for key, value in figures.items() if key != "rows"}
    lines = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in figures["rows"])
    body = json.dumps(head, indent=2, ensure_ascii=False)[:-2]
    return f'{body},\n  "rows": [\n    {lines}\n  ]\n}}\n'


def stands(name: str) -> str:
    """What is known of a source's committed figures, in one word; ``""``: they are of today."""
    path = FIGURES / f"{name}.json"
    if not path.is_file():
        return "missing"
    found = figures_of(name)
    if found["source"] != "run":
        return "transcribed"
    today = (weights(), list(SOURCES[name].commands))
    return "" if (found.get("weights"), found.get("commands")) == today else "older"


def make_all(names: Sequence[str], given: argparse.Namespace) -> int:
    """Measure, keep and write; how many sources failed."""
    trial = given.cases is not None
    folder = RUNS / "trial" if trial else RUNS / weights()
    failed = []

    def one(name: str) -> None:
        out = folder / name
        if given.again or trial:
            shutil.rmtree(out, ignore_errors=True)
        elif not stands(name):
            return say(f"{name}: measured already")
        say(f"{name}: about {SOURCES[name].minutes} minutes")
        try:
            figures = make(name, out, given.cases)
            if not trial:
                return keep(name, figures, out)
            for table, shown in TABLES.items():
                if shown.source == name:
                    print(f"\n{table}\n\n{shown.markdown(figures['rows'])}\n\n{caption(figures)}")
        except Exception as error:  # the others go on
            failed.append(name)
            say(f"{name} failed: {type(error).__name__}: {error}")
        return None

    # What measures time has the machine to itself.
    for timed, jobs in ((False, given.jobs), (True, 1)):
        with ThreadPoolExecutor(jobs) as pool:
            try:
                list(pool.map(one, (name for name in names if SOURCES[name].timed == timed)))
            except BaseException:  # stopped: what runs ends, what waits does not begin
                pool.shutdown(wait=False, cancel_futures=True)
                for job in RUNNING:
                    job.terminate()
                raise
    if not trial:
        write()
    if failed:
        say(f"failed: {', '.join(failed)}; start again to go on with these, --again for anew")
    return len(failed)


def show_list() -> None:
    """The tables, where they stand, and what makes them."""
    places = {t: p.relative_to(ROOT) for p in documents() for t in tables_in(p.read_text())}
    for name, source in SOURCES.items():
        tables = [t for t, table in TABLES.items() if table.source == name]
        state = stands(name)
        print(f"{name}: {source.minutes} min {state and f'({state})'}")
        for table in tables:
            print(f"    {table} in {places.get(table, 'no document')}")
        for text in source.commands:
            print(f"    $ {text}")


def main(words: Sequence[str] | None = None) -> int:
    """Command line."""
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser("python -m scripts.figures", description=about)
    parser.add_argument("do", choices=("list", "make", "write", "check"))
    parser.add_argument("names", nargs="*", metavar="NAME", help="sources; by default all")
    parser.add_argument("--again", action="store_true", help="measure anew what is measured")
    parser.add_argument("--cases", type=int, help="a trial with so many cases")
    parser.add_argument("--jobs", type=int, default=1, help="sources at once")
    given = parser.parse_args(words)
    unknown = [name for name in given.names if name not in SOURCES]
    if unknown:
        parser.error(f"no source {', '.join(unknown)}; known: {', '.join(SOURCES)}")
    try:
        if given.do == "list":
            show_list()
        elif given.do == "make":
            return min(make_all(given.names or list(SOURCES), given), 1)
        elif given.do == "write":
            write()
        else:
            stale = [str(path.relative_to(ROOT)) for path in changes()] + other_copies()
            for path in stale:
                print(f"{path} is not what its figures say")
            return min(len(stale), 1)
    except EasyEditMMError as error:
        show_error(error)
        return 1
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
