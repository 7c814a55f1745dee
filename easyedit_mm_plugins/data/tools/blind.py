"""How far a data set can be passed without looking: attackers on files in FGVEdit's schema.

For each kind of attacker (``attackers.py``) and each sort of question: the *routing accuracy*, the
mean of the shares of in-scope and of out-of-scope questions that it tells right. Saying the same of
every question gets 50 %. Hard and easy questions are learned apart, each from its own like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataError
from ...core.optional import need
from ..fgvedit import FGVEditDataset
from ..record_files import read_list
from ..records import EditRecord, ImageLike, Question
from ..schema import guess_kind
from .attackers import ATTACKERS, BY_TEXTS, Attacker, Kind, Scoped, scoped, shown_to

FOLDS = 5
FEWEST = 10  # groups, in a file that is divided for cross-validation
PASSED = 55.0  # percent from which on a file counts as one that can be passed
HARD, EASY = "hard", "easy"
_SAMPLES = 1000
_PICTURES, _ANSWERED = 2000, 2000  # what a base model is shown, and asked, of a file at most


@dataclass(frozen=True)
class Base:
    """The base model, as far as attackers need it.

    Attributes:
        name: how results call it.
        pictures: images to descriptions, one [K] each.
        answers: questions to the base model's answers.
    """

    name: str
    pictures: Callable[[Sequence[ImageLike]], Iterable[np.ndarray]]
    answers: Callable[[Sequence[Question]], list[str]]


@dataclass(frozen=True)
class Finding:
    """What one attacker reaches on one sort of question.

    Attributes:
        sort: "hard", "easy", or the data set's own kind of question.
        attacker: see :data:`ATTACKERS`.
        shown: what it is shown.
        accuracy: percent, the mean of ``inside`` and ``outside``.
        interval: the 95 % bootstrap interval over groups (pairs of records, else pictures).
        inside, outside: percent of the questions in and out of scope that it tells right.
        n: questions in and out of scope.
    """

    sort: str
    attacker: str
    shown: str
    accuracy: float
    interval: tuple[float, float]
    inside: float
    outside: float
    n: tuple[int, int]


@dataclass(frozen=True)
class Blind:
    """What all attackers reach on a file.

    Attributes:
        tested: "cross-validated", or the name of the file that was asked.
        findings: by sort of question and attacker.
    """

    tested: str
    findings: list[Finding]

    def of(self, attacker: str, sort: str = HARD) -> Finding | None:
        """One attacker's finding on one sort of question, if there is one."""
        same = (f for f in self.findings if (f.attacker, f.sort) == (attacker, sort))
        return next(same, None)

    @property
    def headline(self) -> str:
        """The sort of question that the verdict is about: the hard ones, if there are any."""
        return HARD if any(f.sort == HARD for f in self.findings) else EASY

    def verdict(self) -> str:
        """In one line: whether the file can be passed without looking at the picture."""
        asked = self.headline
        found = [f for f in self.findings if f.sort == asked and f.attacker != "constant"]
        best = max(found, key=lambda f: f.accuracy)
        passes = [f for f in found if f.accuracy >= PASSED and f.interval[0] > 50]
        by_texts = [f for f in passes if not ATTACKERS[f.attacker].needs_model]
        for some, who, without in (
            (by_texts, "texts alone", "looking at the picture"),
            (passes, best.shown, "finding the edit's entity in the picture"),
        ):
            if some:
                most = max(some, key=lambda f: f.accuracy)
                return (
                    f"{who} reach {most.accuracy:.1f} % on {asked} questions: "
                    f"this file can be passed without {without}"
                )
        return (
            f"no attacker reaches {PASSED:.0f} % on {asked} questions ({best.shown}: "
            f"{best.accuracy:.1f} %): this file cannot be passed so"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "tested": self.tested,
            "verdict": self.verdict(),
            "attackers": [asdict(finding) for finding in self.findings],
        }


def blind(
    train: str | Path,
    test: str | Path | None = None,
    *,
    base: Base | None = None,
    images: str | Path | None = None,
    allow_outside: bool = False,
    seed: int = 0,
) -> Blind:
    """Attack a file.

    Args:
        train: the records to learn from, in FGVEdit's schema.
        test: the records to ask; by default ``train`` itself, cross-validated.
        base: the base model, for attackers that see pictures or its answers; pictures are only
            opened then.

    Raises:
        DataError: naming file, record, field and remedy; also where there is too little to learn
            from.
    """
    check: Any = "decode" if base is not None else "off"
    options: dict[str, Any] = {"image_root": images, "allow_outside": allow_outside or not base}
    files = [Path(train)] if test is None else [Path(train), Path(test)]
    sets = [FGVEditDataset(file, check=check, extra=True, **options).records for file in files]
    tested = "cross-validated" if test is None else Path(test).name
    findings = attack(*sets, base=base, seed=seed)
    if not findings:
        fewest = f"fewer than {FEWEST} pictures with questions" if test is None else "no questions"
        raise DataError(
            f"{fewest} in and out of scope of one sort, so nothing can be learned",
            file=train,
            field="fg_gen_q and fg_loc_q",
            remedy="give more records" + (", or a second file to test on" if test is None else ""),
        )
    return Blind(tested, findings)


def by_texts(file: str | Path, *, most: int = 3000, seed: int = 0) -> Blind | None:
    """What attackers by texts alone reach on a file, cross-validated, as statistics show it.

    Args:
        most: records, from the first; of more, the statistics would take minutes.

    Returns:
        ``None`` where nothing can be learned: too few records, or none with questions of both
        sides. Bad records are left out.
    """
    if guess_kind(read_list(file)) != "fgvedit":
        return None
    options: dict[str, Any] = {"check": "off", "extra": True, "allow_outside": True}
    try:
        records = FGVEditDataset(file, most, skip_bad=True, **options).records
    except DataError:
        return None
    findings = attack(records, seed=seed)
    return Blind("cross-validated", findings) if findings else None


def attack(
    train: Sequence[EditRecord],
    test: Sequence[EditRecord] | None = None,
    *,
    base: Base | None = None,
    attackers: Sequence[str] | None = None,
    seed: int = 0,
) -> list[Finding]:
    """The findings of ``attackers`` (by default all that ``base`` allows); none without data."""
    names = attackers or (tuple(ATTACKERS) if base else BY_TEXTS)
    learned, asked = scoped(train), None if test is None else scoped(test)
    findings = []
    shown: dict[tuple[bool, bool], list[list[Scoped]]] = {}  # a base model takes long: asked once
    for name in names:
        kind, sets = ATTACKERS[name], [some for some in (learned, asked) if some is not None]
        if base is not None and kind.needs_model:
            needs = kind.pictures, kind.answers
            if needs not in shown:
                shown[needs] = [
                    shown_to(kind, _some(some, kind, seed), base.pictures, base.answers)
                    for some in sets
                ]
            sets = shown[needs]
        for hard in (True, False):
            mine, *theirs = ([q for q in some if bool(q.query.hard) is hard] for some in sets)
            examined = theirs[0] if theirs else mine
            if not enough(mine, 1 if theirs else FEWEST) or not enough(examined, 1):
                continue
            told = (
                Attacker(name, seed).fit(mine).score(examined)
                if theirs
                else judge(mine, name, seed)
            )
            sorts = {HARD if hard else EASY: np.ones(len(examined), bool)}
            for sort in sorted({one.query.sort for one in examined} - {""}):
                sorts.setdefault(sort, np.array([one.query.sort == sort for one in examined]))
            found = (_finding(sort, name, examined, told, m, seed) for sort, m in sorts.items())
            findings += [one for one in found if one is not None]
    order = {HARD: 0, EASY: 1}
    return sorted(findings, key=lambda f: (order.get(f.sort, 2), f.sort))


def judge(asked: Sequence[Scoped], name: str = "text", seed: int = 0) -> np.ndarray:
    """The cross-validated probability [n] that each question is in scope.

    Questions of one group are told by a model that has seen none of the group.
    """
    need("sklearn", "cross-validation", package="scikit-learn")
    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.array([one.inside for one in asked])
    groups = np.unique([one.group for one in asked], return_inverse=True)[1]
    folds = StratifiedGroupKFold(
        min(FOLDS, len(set(groups.tolist()))), shuffle=True, random_state=seed
    )
    scores = np.full(len(asked), 0.5)
    for rest, held in folds.split(labels, labels, groups):
        known = [asked[i] for i in rest]
        if len({one.inside for one in known}) == 2:
            scores[held] = Attacker(name, seed).fit(known).score([asked[i] for i in held])
    return scores


def balanced_accuracy(asked: Sequence[Scoped], told: np.ndarray) -> float:
    """Percent: the mean of the shares told right in and out of scope."""
    labels = np.array([one.inside for one in asked])
    right = (told >= 0.5) == labels
    return float(50 * (right[labels].mean() + right[~labels].mean()))


def _some(asked: Sequence[Scoped], kind: Kind, seed: int) -> list[Scoped]:
    """Whole groups at random, as many as a base model can be shown in a minute or two."""
    groups: dict[str, list[Scoped]] = {}
    for one in asked:
        groups.setdefault(one.group, []).append(one)
    order = np.random.default_rng(seed).permutation(sorted(groups))
    found: list[Scoped] = []
    for taken, name in enumerate(order):
        if (taken >= _PICTURES) or (kind.answers and len(found) >= _ANSWERED):
            break
        found += groups[str(name)]
    return found


def enough(asked: Sequence[Scoped], groups: int = FEWEST) -> bool:
    """Whether there are questions of both sides, and of so many groups."""
    both = len({one.inside for one in asked}) == 2
    return both and len({one.group for one in asked}) >= groups


def _finding(
    sort: str,
    name: str,
    asked: Sequence[Scoped],
    told: np.ndarray,
    chosen: np.ndarray,
    seed: int,
) -> Finding | None:
    inside = np.array([one.inside for one in asked])[chosen]
    groups = np.unique([one.group for one in asked], return_inverse=True)[1][chosen]
    right = (told[chosen] >= 0.5) == inside
    if inside.all() or not inside.any():
        return None  # questions of one side alone tell nothing
    # Per group: right and all, inside and outside; groups are drawn with replacement.
    parts = [
        np.bincount(groups, weights)
        for weights in (right & inside, inside, right & ~inside, ~inside)
    ]
    table = np.stack(parts, 1)[np.unique(groups)].astype(float)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), size=_SAMPLES) @ table
    draws = draws[(draws[:, 1] > 0) & (draws[:, 3] > 0)]
    spread = 50 * (draws[:, 0] / draws[:, 1] + draws[:, 2] / draws[:, 3])
    in_, out = (100 * float(right[side].mean()) for side in (inside, ~inside))
    low, high = np.percentile(spread, [2.5, 97.5]) if len(spread) else (0.0, 100.0)
    return Finding(
        sort,
        name,
        ATTACKERS[name].shown,
        (in_ + out) / 2,
        (float(low), float(high)),
        in_,
        out,
        (int(inside.sum()), int((~inside).sum())),
    )
