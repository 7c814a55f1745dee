"""Building FGVEdit-like benchmarks from questions and answers about images (MSCKE section 4.2).

``sources.py`` is the interface to question-answer pairs grouped by image; ``vqav2.py`` and
``tables.py`` implement it. ``prompts.py`` holds the judge's prompts, ``judge.py`` and
``local_judge.py`` send them, ``ask.py`` asks again where a reply cannot be used, ``cache.py`` keeps
the replies, ``budget.py`` limits the cost. ``answers.py`` draws counterfactual answers, ``nq.py``
reads locality questions, ``case.py`` makes the record of one image, ``balance.py`` leaves out what
texts tell, ``build.py`` makes the benchmark,
``estimate.py`` counts requests beforehand, ``agreement.py`` compares labels.
"""

from .agreement import agreement
from .budget import Budget, BudgetSpent
from .build import BuildResult, build
from .cache import AnswerCache
from .case import BuildConfig
from .estimate import estimate
from .judge import ChatJudge, Judge
from .sources import QA, SOURCES, ImageGroup, Source, open_source

for _name, _where in (
    ("vqav2", "easyedit_mm_plugins.data.tools.construct.vqav2:VQAv2Source"),
    ("e-vqa", "easyedit_mm_plugins.data.tools.construct.tables:EVQASource"),
    ("easy-vqa", "easyedit_mm_plugins.data.tools.construct.tables:EasyVQASource"),
    ("table", "easyedit_mm_plugins.data.tools.construct.tables:TableSource"),
):
    SOURCES.register(_name, _where)

__all__ = [
    "QA",
    "SOURCES",
    "AnswerCache",
    "Budget",
    "BudgetSpent",
    "BuildConfig",
    "BuildResult",
    "ChatJudge",
    "ImageGroup",
    "Judge",
    "Source",
    "agreement",
    "build",
    "estimate",
    "open_source",
]
