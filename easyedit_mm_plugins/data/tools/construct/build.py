"""From questions about images to FGVEdit records (MSCKE section 4.2).

The first question of an image is the criterion and the edit. The judge sees every other question
twice: with the image, and as text alone. With the image, Yes means in scope, No out of scope, and
Maybe neither. A question is *hard* if the text alone gives another verdict. A record needs a hard
question in scope or out of scope; the other side may have one that is not hard, or none (section
4.3).
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ....core.errors import DataError
from ....core.files import file_digest, write_json, write_text
from .agreement import agreement
from .ask import Asker
from .balance import balance
from .cache import AnswerCache
from .case import BuildConfig, Case, make_case
from .estimate import gather
from .judge import Judge
from .nq import PREFIX, deal
from .sources import ImageGroup, Source

Progress = Callable[[int, int], None]


@dataclass
class BuildResult:
    """What a build wrote.

    Attributes:
        train, test: records in the released schema.
        labels: one entry per judged question.
        dropped: images without a record, by reason.
        agreement: of the labels with the source's true ones, if it has them.
        balance: what balancing by texts left out, and what a judge of texts then reaches.
    """

    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    labels: list[dict[str, Any]]
    dropped: dict[str, int]
    agreement: dict[str, Any] | None = None
    balance: dict[str, Any] | None = None
    folder: Path | None = None


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

    The same call completes a build that was killed or stopped at its budget: replies in the cache
    (by default ``out_dir/answers.jsonl``) are not asked for again, and the files are the same, byte
    for byte.

    Args:
        nq: locality questions and answers, see :func:`read_nq`.
        concurrency: number of images at a time.
        progress: called with (finished, total) images.

    Raises:
        BudgetSpent: the judge's budget is used up.
        JudgeError: the judge cannot be reached or refuses to work.
        DataError: a source file is broken, there are no locality questions, or no image gives a
            record.
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
        groups, lambda group: make_case(group, source, asker, pool, config), concurrency, progress
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


def _run(
    groups: list[ImageGroup],
    work: Callable[[ImageGroup], Case],
    concurrency: int,
    progress: Progress | None,
) -> list[Case]:
    """``work`` for every group, several at a time; the first error stops all of them."""
    cases: list[Case | None] = [None] * len(groups)
    stop = threading.Event()

    def one(group: ImageGroup) -> Case | None:
        return None if stop.is_set() else work(group)

    waiting: dict[Future[Case | None], int] = {}
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
            stop.set()  # requests under way are finished, their replies kept
            raise
    return [case for case in cases if case is not None]


def _assemble(cases: list[Case], nq: list[tuple[str, str]], config: BuildConfig) -> BuildResult:
    """Add locality questions and split; both depend on the kept records and the seed alone."""
    kept = [case.record for case in cases if case.record is not None]
    balanced = None
    if config.balance == "texts":
        kept, balanced = balance(
            kept, config.balance_to, both_sides=config.both_sides, seed=config.seed
        )
    for record, (question, answer) in zip(kept, deal(nq, len(kept), config.seed), strict=True):
        record["loc"], record["loc_ans"] = PREFIX + question, answer
    images = sorted({record["image"] for record in kept})
    random.Random(f"split {config.seed}").shuffle(images)
    test = set(images[: round(len(images) * config.test_share)])
    dropped = Counter(case.dropped for case in cases if case.dropped)
    if balanced and balanced["records left out"]:
        dropped["no hard question that texts do not tell"] += balanced["records left out"]
    return BuildResult(
        train=[r for r in kept if r["image"] not in test],
        test=[r for r in kept if r["image"] in test],
        labels=[label for case in cases for label in case.labels],
        dropped=dict(sorted(dropped.items())),
        balance=balanced,
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
            "balance": result.balance,
            "sha256": {name: file_digest(folder / name) for name in names},
        },
    )
    result.folder = folder
