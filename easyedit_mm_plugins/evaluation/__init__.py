"""Measuring edits: metrics by equation, protocols by name, one evaluator, run folders that resume.

``metrics.py`` holds the equations, ``protocol.py`` how answers are obtained and compared,
``evaluator.py`` edits and asks, ``runs.py`` keeps what came out.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

_LAZY = {
    "BaseAnswers": ".answers",
    "CaseResult": ".results",
    "Evaluation": ".evaluator",
    "Protocol": ".protocol",
    "RunFolder": ".runs",
    "evaluate": ".evaluator",
    "normalise": ".matching",
    "records_digest": ".results",
    "same_answer": ".matching",
}

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


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
