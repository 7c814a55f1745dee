"""How an attack is made and counted."""

from __future__ import annotations

import os
import re
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from easyedit_mm_plugins.core.errors import EasyEditMMError

CLEAN, EQUAL = "clean error", "accepted and equal"
DIFFERENT, TRACEBACK = "accepted and different", "traceback"
OUTCOMES = (CLEAN, EQUAL, DIFFERENT, TRACEBACK)
BAD = (DIFFERENT, TRACEBACK)
SECONDS = 60  # for one input; what takes longer hangs

Draw = Callable[[st.SearchStrategy], Any]
# Makes one hostile input, gives it to the package and compares what it makes of it. An error of
# ours or :class:`Refused` is a clean refusal, :class:`Different` a wrong acceptance, any other
# exception a traceback.
Attack = Callable[[Draw], None]


class Refused(Exception):
    """The input was refused in another way than by an error of ours, by exit code 2."""


class Different(Exception):
    """The input was accepted, with other content than it has."""


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        inputs: how many in the whole attack, and in ``make test``.
        start: makes the valid artefacts in a folder, which is the working folder meanwhile, and the
            attack on them.
        end: undoes what ``start`` did to the process.
    """

    name: str
    inputs: tuple[int, int]
    start: Callable[[Path], Attack]
    end: Callable[[], None] = lambda: None


@dataclass
class Tally:
    """What became of a kind's inputs; ``defects`` has one example of each, with how often."""

    counts: Counter[str] = field(default_factory=Counter)
    defects: dict[str, tuple[int, str]] = field(default_factory=dict)

    def add(self, outcome: str, signature: str = "", example: str = "") -> None:
        self.counts[outcome] += 1
        if outcome in BAD:
            count, first = self.defects.get(signature, (0, example))
            self.defects[signature] = (count + 1, first)

    def merge(self, other: Tally) -> None:
        self.counts += other.counts
        for signature, (count, example) in other.defects.items():
            known, first = self.defects.get(signature, (0, example))
            self.defects[signature] = (known + count, first)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """A :class:`TimeoutError` in the block if it takes longer."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run(kind: Kind, inputs: int, number: int, folder: Path) -> Tally:
    """Make the attack number ``number`` of so many inputs; the same every time."""
    here, tally = os.getcwd(), Tally()

    def answer(data: st.DataObject) -> None:
        said: list[str] = []

        def draw(strategy: st.SearchStrategy) -> Any:
            value = data.draw(strategy)
            said.append(f"{value!r}"[:200])
            return value

        tally.add(*_outcome(attack, draw, said))

    @seed(number)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def one(data: st.DataObject) -> None:
        answer(data)

    os.chdir(folder)
    try:
        attack = kind.start(folder)
        one()
    finally:
        os.chdir(here)
        kind.end()
    return tally


def _outcome(attack: Attack, draw: Draw, said: list[str]) -> tuple[str, str, str]:
    try:
        with within(SECONDS):
            attack(draw)
    except (EasyEditMMError, Refused):
        return CLEAN, "", ""
    except Different as error:
        return DIFFERENT, re.sub(r"\d+|'[^']*'", "*", str(error))[:120], _example(error, said)
    except Exception as error:
        if type(error).__module__.startswith("hypothesis"):
            raise
        frames = traceback.extract_tb(error.__traceback__)
        where = [f for f in frames if "/easyedit_mm_plugins/" in f.filename][-1:] or frames[-1:]
        place = f"{where[0].filename.split('/easyedit_mm_plugins/')[-1]}:{where[0].lineno}"
        return TRACEBACK, f"{type(error).__name__} at {place}", _example(error, said)
    return EQUAL, "", ""


def _example(error: Exception, said: list[str]) -> str:
    text = f"{str(error)[:400]} <- {', '.join(said)[:900]}"
    return text.encode("ascii", "backslashreplace").decode()
