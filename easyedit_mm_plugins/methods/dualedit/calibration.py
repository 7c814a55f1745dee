"""A threshold for DualEdit's gate, by the rule of :mod:`..calibration`.

A gate that looks at the last token must open for an edit, its rephrasing and its redrawn pictures,
and stay shut for questions without an image and on another image; what else is asked about the
edited picture is beyond it. A gate that is MSCKE-Self's scope is held to all kinds of question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...data import EditRecord, Question
from ..calibration import Calibration, best_threshold, roc_area
from ..calibration import calibrate as by_routes
from ..mscke_self.calibration import of_records

__all__ = ["MAX_LEAK", "Calibration", "best_threshold", "calibrate", "roc_area"]
MAX_LEAK = 0.005  # share of the questions of any kind that may pass and must not
_KINDS = (
    *("edit", "rephrase", "image_rephrase", "image_far"),
    *("image_loc", "image_near", "text_loc"),
)


def calibrate(
    editor: Any,
    records: Sequence[EditRecord],
    *,
    others: int = 0,
    max_leak: float = MAX_LEAK,
    more: Sequence[Question] = (),
) -> Calibration:
    """Choose the threshold of ``editor``, a :class:`DualEdit`; the caller sets it.

    Args:
        others: so many other edits are in the memory too, of ``records`` and then of ``more``.
        max_leak: the share of each kind of question that may pass and must not.

    Raises:
        DataError, ConfigError: see :func:`calibration.calibrate`.
    """
    given: dict[str, Any] = {"edits": others + 1, "at_most": max_leak, "more": more}
    if editor.scope is not None:
        return of_records(editor.scope, records, editor.gate_keys, **given)
    return by_routes(editor, records, kinds=_KINDS, **given)
