"""What a verification of benchmark files found, for people and programs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ..schema import Finding


@dataclass
class Verification:
    """What a verification of benchmark files found.

    Attributes:
        files: path -> {"kind", "records", "published"}.
        images: number of image files by problem or oddity; also "files" (all) and "good".
        dropped: with ``fix``: file -> the records left out, as (index, reason).
    """

    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        return [f for f in self.findings if f.level == "error"]

    @property
    def warnings(self) -> list[Finding]:
        return [f for f in self.findings if f.level == "warning"]

    def exit_code(self, *, strict: bool = False) -> int:
        """0: fit for use; 1: errors (with ``strict``, warnings too)."""
        return int(bool(self.errors or (strict and self.warnings)))

    def to_json(self) -> dict[str, Any]:
        """The findings as plain values, with counts by level and check."""
        counts: dict[str, Counter[str]] = {"error": Counter(), "warning": Counter()}
        for finding in self.findings:
            counts[finding.level][finding.check] += 1
        return {
            "ok": not self.errors,
            "files": self.files,
            "images": self.images,
            "counts": {level: dict(sorted(c.items())) for level, c in counts.items()},
            "findings": [f.to_json() for f in self.findings],
            "dropped": {
                name: [{"record": i, "reason": why} for i, why in items]
                for name, items in self.dropped.items()
            },
        }
