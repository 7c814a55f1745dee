"""Measuring edits: metrics by equation, protocols by name, one evaluator, run folders that resume.

``metrics.py`` holds the equations, ``protocol.py`` how answers are obtained and compared,
``evaluator.py`` edits and asks, ``runs.py`` stores the results.
"""

from typing import TYPE_CHECKING

from ..core.lazy import lazy_exports

__all__ = [
    "BaseAnswers",
    "CaseResult",
    "Evaluation",
    "Protocol",
    "RunFolder",
    "evaluate",
    "normalise",
    "records_digest",
    "same_answer",
]

if TYPE_CHECKING:
    from .answers import BaseAnswers
    from .evaluator import Evaluation, evaluate
    from .matching import normalise, same_answer
    from .protocol import Protocol
    from .results import CaseResult, records_digest
    from .runs import RunFolder

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".answers": "BaseAnswers",
        ".evaluator": "Evaluation evaluate",
        ".matching": "normalise same_answer",
        ".protocol": "Protocol",
        ".results": "CaseResult records_digest",
        ".runs": "RunFolder",
    },
)
