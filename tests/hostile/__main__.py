"""``python -m tests.hostile``: the whole attack, by two processes, as a table."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from .attack import BAD, OUTCOMES, Tally, run

SHARE = 500  # inputs of one piece of work


def piece(name: str, inputs: int, number: int) -> Tally:
    """One piece of the attack, in a process and a folder of its own."""
    import logging
    import warnings

    import torch

    from .kinds import KINDS

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with (
        tempfile.TemporaryDirectory(prefix="hostile-") as folder,
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        os.dup2(nowhere.fileno(), 1)  # tokenizers, written in Rust, prints past Python
        return run(KINDS[name], inputs, number, Path(folder).resolve())


def table(tallies: dict[str, Tally]) -> tuple[str, int]:
    """The table, with what was wrong below it, and how much was wrong."""
    rows = [("input", "tried", *OUTCOMES)]
    rows += [
        (name, str(tally.counts.total()), *(str(tally.counts[o]) for o in OUTCOMES))
        for name, tally in tallies.items()
    ]
    tried = sum(tally.counts.total() for tally in tallies.values())
    wrong = [sum(tally.counts[outcome] for tally in tallies.values()) for outcome in BAD]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned]))
    for name, tally in tallies.items():
        for signature, (count, example) in sorted(tally.defects.items()):
            lines.append(f"\n{name}, {count} times: {signature}\n    {example}")
    lines.append(f"\n{wrong[0]} accepted and different, {wrong[1]} tracebacks in {tried} inputs")
    return "\n".join(lines), sum(wrong)


def main() -> None:
    """Exit code 1 if anything was wrong."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    from .kinds import KINDS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "kinds", nargs="*", metavar="KIND", help=f"by default all: {', '.join(KINDS)}"
    )
    parser.add_argument("--share", type=float, default=1.0, help="of all inputs")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    started = time.monotonic()
    pieces = []
    for name in args.kinds or KINDS:
        left = max(1, round(KINDS[name].inputs[0] * args.share))
        for number in range(-(-left // SHARE)):
            pieces.append((name, min(SHARE, left - number * SHARE), 1000 * args.seed + number))
    tallies = {name: Tally() for name, _, _ in pieces}
    with ProcessPoolExecutor(args.processes) as pool:
        # The slow kinds, which stand last, first: both processes end at the same time.
        jobs = [(name, pool.submit(piece, name, *rest)) for name, *rest in reversed(pieces)]
        for name, job in jobs:
            tallies[name].merge(job.result())
    text, wrong = table(tallies)
    minutes = (time.monotonic() - started) / 60
    print(f"{text}, {minutes:.1f} minutes")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
