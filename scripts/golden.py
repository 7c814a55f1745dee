"""Answers that must stay as they are while the code around them changes.

``golden.py write RUN [RUN ...]`` keeps the answers and routes of finished runs in
``tests/golden/answers.json.gz``; ``golden.py compare RUN [RUN ...]`` says which of them differ, and
ends with 1 if any does. ``make golden`` measures again and compares.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

FILE = Path(__file__).parents[1] / "tests/golden/answers.json.gz"


def answers(run: Path) -> dict[str, dict[str, list]]:
    """By method, backbone and data set: for each case its answers and who gave them."""
    found: dict[str, dict[str, list]] = {}
    for line in (run / "cases.jsonl").read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        row = found.setdefault(f"{case['method']}/{case['backbone']}/{case['dataset']}", {})
        row[case["case"]] = [
            [q["kind"], q["text"], q["before"], q["after"], q["route"]] for q in case["questions"]
        ]
    return found


def main() -> int:
    """See the module's docstring."""
    what, *runs = sys.argv[1:]
    new: dict[str, dict[str, list]] = {}
    for run in runs:
        new |= answers(Path(run))
    if what == "write":
        FILE.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(new, sort_keys=True, separators=(",", ":")).encode()
        FILE.write_bytes(gzip.compress(text, mtime=0))
        return 0
    old = json.loads(gzip.decompress(FILE.read_bytes()))
    different = 0
    for row in sorted(old):
        cases = old[row]
        wrong = [case for case in sorted(cases) if new.get(row, {}).get(case) != cases[case]]
        different += len(wrong)
        tail = f", first {wrong[0]}" if wrong else ""
        print(f"{row}: {len(cases) - len(wrong)} of {len(cases)} cases as before{tail}")
    print(f"{different} cases differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
