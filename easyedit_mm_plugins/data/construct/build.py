"""From questions about images to FGVEdit records (MSCKE section 4.2).

Per image: the first question is the criterion and the edit; every other question is judged with
the image and by its text alone. Yes with the image puts it in scope, No out of scope, Maybe
nowhere. It is *hard* where the text alone does not give the same verdict. A record needs a hard
question on one side at least; the other side then makes do with one that is not hard, or stays
empty (section 4.3).
"""

from __future__ import annotations

import json
import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ...errors import ConfigError, DataError
from ...files import write_json, write_text
from ..hashing import sha256_of
from .agreement import agreement
from .answers import AnswerPool
from .ask import Asker
from .cache import AnswerCache
from .judge import Judge, file_digest
from .nq import PREFIX, deal
from .prompts import normalise, rephrase_prompt, scope_prompt
from .sources import QA, ImageGroup, Source

LOG = logging.getLogger(__name__)
Progress = Callable[[int, int], None]
_SCOPES = {"Yes": "in", "No": "out", "Maybe": "none"}


@dataclass(frozen=True)
class BuildConfig:
    """What decides the records, besides the data and the judge.

    Attributes:
        seed: of counterfactual answers, locality questions and the split.
        limit: look at the first so many images only.
        max_questions: look at so many questions of an image only.
        alt: where counterfactual answers come from.
        test_share: the paper splits 3:1.
        both_sides: leave out records that have questions on one side only.
        tries: how often a question is put until its reply can be used.
    """

    seed: int = 0
    limit: int | None = None
    max_questions: int | None = None
    alt: Literal["distribution", "judge"] = "distribution"
    test_share: float = 0.25
    both_sides: bool = False
    tries: int = 3

    def __post_init__(self) -> None:
        if self.alt not in ("distribution", "judge"):
            raise ConfigError(f"alt is {self.alt!r}; known: distribution, judge")
        if not 0 <= self.test_share < 1:
            raise ConfigError(f"test_share is {self.test_share}, must be in [0, 1)")
        for name in ("limit", "max_questions", "tries"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}, must be at least 1")


@dataclass
class BuildResult:
    """What a build wrote.

    Attributes:
        train, test: records in the released schema.
        labels: one entry per judged question.
        dropped: images without a record, by reason.
        agreement: labels against the source's own truth, if it has one.
    """

    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    labels: list[dict[str, Any]]
    dropped: dict[str, int]
    agreement: dict[str, Any] | None = None
    folder: Path | None = None


@dataclass
class _Case:
    record: dict[str, Any] | None = None
    labels: list[dict[str, Any]] = field(default_factory=list)
    dropped: str | None = None


def build(
    source: Source,
    judge: Judge,
    nq: list[tuple[str, str]],
    out_dir: str | Path | None = None,
    config: BuildConfig | None = None,
    *,
    cache: AnswerCache | None = None,
    concurrency: int = 8,
    progress: Progress | None = None,
) -> BuildResult:
    """Build a benchmark; with ``out_dir`` write it there.

    A build that was killed, or stopped at its budget, is completed by the same call: answers that
    are in the cache (by default ``out_dir/answers.jsonl``) are not asked for again, and the
    outcome is the same to the byte.

    Args:
        nq: locality questions and answers, see :func:`read_nq`.
        concurrency: images that are worked on at a time.
        progress: called with (finished, total) images.

    Raises:
        BudgetSpent: the judge's budget is used up.
        JudgeError: the judge cannot be reached or refuses to work.
        DataError: a source file is broken, there are no locality questions, or nothing is left.
    """
    config = config or BuildConfig()
    if not nq:
        raise DataError("no locality questions", remedy="give an NQ file")
    folder = Path(out_dir) if out_dir is not None else None
    if cache is None:
        cache = AnswerCache(folder / "answers.jsonl" if folder else None)
    groups, pool = gather(source, config)
    asker = Asker(judge, cache, config.tries)
    cases = _run(
        groups, lambda group: _case(group, source, asker, pool, config), concurrency, progress
    )
    result = _assemble(cases, nq, config)
    known = [(x["scope"], x["truth"]) for x in result.labels if "truth" in x]
    result.agreement = agreement(known) if known else None
    if not result.train and not result.test:
        why = ", ".join(f"{n} {reason}" for reason, n in result.dropped.items())
        raise DataError(f"no image gave a record ({why})", remedy="check the data and the judge")
    if folder is not None:
        _write(folder, result, source, judge, config)
    return result


def gather(source: Source, config: BuildConfig) -> tuple[list[ImageGroup], AnswerPool]:
    """The groups to work on, and the answers of all of the source's groups."""
    groups = list(source.groups())
    pool = AnswerPool(groups)
    groups = groups[: config.limit]
    if config.max_questions is not None:
        groups = [ImageGroup(g.image_id, g.image, g.pairs[: config.max_questions]) for g in groups]
    return groups, pool


def estimate(
    source: Source, judge: Judge, config: BuildConfig, cache: AnswerCache | None = None
) -> dict[str, Any]:
    """What a build would ask, without asking: counts, and tokens by the judge's own estimate.

    Scope questions that the cache holds already are subtracted. In-scope answers depend on the
    verdicts; a third of the questions is reckoned with.
    """
    groups, _ = gather(source, config)
    asker = Asker(judge, cache or AnswerCache(), config.tries)
    usable = [g for g in groups if len(g.pairs) > 1]
    counts: Counter[str] = Counter()
    tokens = [0.0, 0.0]

    def add(kind: str, prompt: str, with_image: bool, times: float = 1) -> None:
        counts[kind] += times
        for i, n in enumerate(judge.estimate(prompt, with_image)):
            tokens[i] += n * times

    for group in usable:
        first = group.pairs[0]
        digest = None
        if len(asker.cache):
            try:
                digest = file_digest(source.image_root / group.image)
            except DataError:
                continue  # such an image is left out by the build, too
        for pair in group.pairs[1:]:
            texts = (first.question, first.answer, pair.question, pair.answer)
            for image in (True, False):
                prompt = scope_prompt(*texts, with_image=image)
                if asker.key(prompt, digest if image else None, (), 8) in asker.cache:
                    counts["cached"] += 1
                else:
                    add("scope with image" if image else "scope by text", prompt, image)
            add("in-scope answers", prompt, True, 1 / 3)
        if not first.rephrase:
            add("rephrase", rephrase_prompt(first.question), False)
        if config.alt == "judge":
            add("alternatives", first.question, True)
    return {
        "images": len(groups),
        "usable images": len(usable),
        "question pairs": sum(len(g.pairs) - 1 for g in usable),
        "requests": {k: round(n) for k, n in counts.items() if k != "cached"},
        "requests in all": round(sum(n for k, n in counts.items() if k != "cached")),
        "scope questions in the cache": counts["cached"],
        "tokens in": round(tokens[0]),
        "tokens out": round(tokens[1]),
    }


def _case(
    group: ImageGroup, source: Source, asker: Asker, pool: AnswerPool, config: BuildConfig
) -> _Case:
    """All that is asked about one image."""
    if len(group.pairs) < 2:
        return _Case(dropped="only one question")
    first, others = group.pairs[0], group.pairs[1:]
    image = source.image_root / group.image
    case = _Case()
    sides: dict[str, list[tuple[bool, QA]]] = {"in": [], "out": [], "none": []}
    seen = {normalise(first.question)}
    try:
        for pair in others:
            if normalise(pair.question) in seen:
                continue  # asked twice about the same image
            seen.add(normalise(pair.question))
            texts = (first.question, first.answer, pair.question, pair.answer)
            with_image = asker.verdict(*texts, image)
            by_text = asker.verdict(*texts, None)
            scope = _SCOPES[with_image]
            hard = scope != "none" and by_text != with_image
            sides[scope].append((hard, pair))
            label = {
                "image": group.image,
                "criterion": first.question,
                "question": pair.question,
                "qid": pair.qid,
                "with_image": with_image,
                "by_text": by_text,
                "scope": scope,
                "hard": hard,
            }
            truth = source.truth(group, pair)
            case.labels.append(label | ({"truth": truth} if truth is not None else {}))
        return _finish(case, group, first, sides, image, asker, pool, config)
    except DataError as error:
        LOG.warning("%s left out: %s", group.image, error.message)
        return _Case(dropped="image not usable")


def _finish(
    case: _Case,
    group: ImageGroup,
    first: QA,
    sides: dict[str, list[tuple[bool, QA]]],
    image: Path,
    asker: Asker,
    pool: AnswerPool,
    config: BuildConfig,
) -> _Case:
    """Answers, rephrase and the record of a judged image; case.dropped says why there is none."""
    if not any(hard for side in ("in", "out") for hard, _ in sides[side]):
        case.dropped = "no hard question"
        return case
    if config.both_sides and not (sides["in"] and sides["out"]):
        case.dropped = "questions on one side only"
        return case
    alt = (
        asker.alternative(first.question, first.answer, image)
        if config.alt == "judge"
        else pool.draw(first, config.seed)
    )
    if alt is None:
        case.dropped = "no other answer"
        return case
    rephrase = first.rephrase or asker.rephrase(first.question)
    if rephrase is None:
        case.dropped = "no rephrase"
        return case
    inside = []
    for hard, pair in sides["in"]:
        answer = asker.after(first.question, first.answer, alt, pair.question, pair.answer, image)
        if answer is not None:
            changed = normalise(answer) != normalise(pair.answer)
            inside.append((hard, changed, pair.question, answer))
    outside = [(hard, False, pair.question, pair.answer) for hard, pair in sides["out"]]
    if not any(x[0] for x in inside + outside):
        case.dropped = "no answer to a hard question"
        return case
    case.record = {
        "case_id": group.image_id,
        "src": first.question,
        "pred": first.answer,
        "alt": alt,
        "rephrase": rephrase,
        "image": group.image,
        **_scope_fields(inside, outside),
    }
    return case


def _scope_fields(
    inside: list[tuple[bool, bool, str, str]], outside: list[tuple[bool, bool, str, str]]
) -> dict[str, Any]:
    """fg_gen and fg_loc with the best question of each side, the rest in fg_extra."""
    fields: dict[str, Any] = {}
    extra = {}
    for name, side, found in (("fg_gen", "in", inside), ("fg_loc", "out", outside)):
        # Hard ones first; among them those whose answer the edit changes; else as in the data.
        ranked = sorted(found, key=lambda x: (not x[0], not x[1]))
        if ranked:
            fields[f"{name}_q"], fields[f"{name}_a"] = ranked[0][2:]
            fields[f"{name}_hard"] = ranked[0][0]
        extra[side] = [{"q": q, "a": a, "hard": hard} for hard, _, q, a in ranked[1:]]
    return fields | {"fg_extra": extra}


def _run(
    groups: list[ImageGroup],
    work: Callable[[ImageGroup], _Case],
    concurrency: int,
    progress: Progress | None,
) -> list[_Case]:
    """``work`` for every group, several at a time; the first error stops all of them."""
    cases: list[_Case | None] = [None] * len(groups)
    stop = threading.Event()

    def one(group: ImageGroup) -> _Case | None:
        return None if stop.is_set() else work(group)

    waiting: dict[Future[_Case | None], int] = {}
    todo: Iterator[int] = iter(range(len(groups)))
    done = 0
    with ThreadPoolExecutor(max_workers=max(1, concurrency)) as threads:
        try:
            while True:
                for index in todo:
                    waiting[threads.submit(one, groups[index])] = index
                    if len(waiting) >= 2 * concurrency:
                        break
                if not waiting:
                    break
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    cases[waiting.pop(future)] = future.result()
                    done += 1
                    if progress is not None:
                        progress(done, len(groups))
        except BaseException:
            stop.set()  # requests under way are finished and kept
            raise
    return [case for case in cases if case is not None]


def _assemble(cases: list[_Case], nq: list[tuple[str, str]], config: BuildConfig) -> BuildResult:
    """Locality questions and the split, both functions of the kept records and the seed."""
    kept = [case.record for case in cases if case.record is not None]
    for record, (question, answer) in zip(kept, deal(nq, len(kept), config.seed), strict=True):
        record["loc"], record["loc_ans"] = PREFIX + question, answer
    images = sorted({record["image"] for record in kept})
    random.Random(f"split {config.seed}").shuffle(images)
    test = set(images[: round(len(images) * config.test_share)])
    dropped = Counter(case.dropped for case in cases if case.dropped)
    return BuildResult(
        train=[r for r in kept if r["image"] not in test],
        test=[r for r in kept if r["image"] in test],
        labels=[label for case in cases for label in case.labels],
        dropped=dict(sorted(dropped.items())),
    )


def _write(
    folder: Path, result: BuildResult, source: Source, judge: Judge, config: BuildConfig
) -> None:
    write_json(folder / "train.json", result.train)
    write_json(folder / "test.json", result.test)
    lines = [json.dumps(label, ensure_ascii=False) + "\n" for label in result.labels]
    write_text(folder / "labels.jsonl", "".join(lines))
    names = ("train.json", "test.json", "labels.jsonl")
    write_json(
        folder / "build.json",
        {
            "config": asdict(config),
            "data": source.describe(),
            "judge": judge.identity(),
            "records": {"train": len(result.train), "test": len(result.test)},
            "questions judged": len(result.labels),
            "images left out": result.dropped,
            "agreement": result.agreement,
            "sha256": {name: sha256_of(folder / name) for name in names},
        },
    )
    result.folder = folder
