"""Attackers as editors: routes that are chosen without looking, with MSCKE's answers behind them.

No editing methods. Each routes by a classifier that is shown less than a picture and an edit
(``data/tools/attackers.py``), learned in seconds from training records, and answers in scope with
the counterfactual model of MSCKE on the same base model. A benchmark on which one of them stands
beside MSCKE does not ask for the picture. ``config.py`` settings; ``sight.py`` what is shown of
pictures and of the base model's answers; ``model.py`` the editors.
"""

from typing import TYPE_CHECKING

from ...core.lazy import lazy_exports
from ..entries import METHODS

for _at, (_name, _title, _class) in enumerate(
    (
        ("blind-rule", "Blind, rule of names", "BlindRule"),
        ("blind-query", "Blind, query", "BlindQuery"),
        ("blind-text", "Blind, texts", "BlindText"),
        ("blind-answers", "Blind, texts and answers", "BlindAnswers"),
        ("blind-picture", "Blind, picture", "BlindPicture"),
        ("blind-query-picture", "Blind, query and picture", "BlindQueryPicture"),
    )
):
    METHODS.add(
        name=_name,
        title=_title,
        order=200 + _at,
        kind="attacker",
        ours=True,
        editor=f"{__name__}.model:{_class}",
        settings=f"{__name__}.config:BlindHyperParams",
        hparams="BLIND",
    )

if TYPE_CHECKING:
    from .config import BlindHyperParams
    from .model import (
        Blind,
        BlindAnswers,
        BlindPicture,
        BlindQuery,
        BlindQueryPicture,
        BlindRule,
        BlindText,
    )

__all__ = [
    "Blind",
    "BlindAnswers",
    "BlindHyperParams",
    "BlindPicture",
    "BlindQuery",
    "BlindQueryPicture",
    "BlindRule",
    "BlindText",
]
__getattr__, __dir__ = lazy_exports(
    __name__,
    {
        ".config": "BlindHyperParams",
        ".model": "Blind BlindAnswers BlindPicture BlindQuery BlindQueryPicture BlindRule "
        "BlindText",
    },
)
