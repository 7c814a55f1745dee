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
    from ..data.matching import normalise, same_answer
    from .answers import BaseAnswers
    from .evaluator import Evaluation, evaluate
    from .protocol import Protocol
    from .results import CaseResult, records_digest
    from .runs import RunFolder

__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        "..data.matching": "normalise same_answer",
        ".answers": "BaseAnswers",
        ".evaluator": "Evaluation evaluate",
        ".protocol": "Protocol",
        ".results": "CaseResult records_digest",
        ".runs": "RunFolder",
    },
)
