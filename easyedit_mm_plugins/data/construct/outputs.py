"""Small helpers for the files of a build."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def label_lines(labels: Iterable[dict[str, Any]]) -> str:
    """JSON Lines, the same bytes for the same labels."""
    return "".join(json.dumps(label, ensure_ascii=False) + "\n" for label in labels)


def sha256_of(path: str | Path) -> str:
    """SHA-256 of a file, read in pieces."""
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return total.hexdigest()
