"""Attackers: classifiers that tell in-scope from out-of-scope questions without looking properly.

MSCKE's Specificity measures telling the two apart by the picture. An attacker is shown less: texts
alone, the query alone, the picture alone, query and picture without the edit, or the texts with the
base model's own answers. If it is right all the same, the questions can be passed so.

Shapes: n questions, K numbers that describe a picture.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.optional import need
from ...core.registry import did_you_mean
from ..images import image_key
from ..records import EditRecord, Question

_WORD = re.compile(r"\w+")
_HASHED = 2**18  # columns of the text attackers' features
_SURROUNDINGS = 1000  # of a word, the most frequent ones
_COMPONENTS = 48  # of a picture
_MOST = 20_000  # questions that an attacker with pictures learns from


@dataclass(frozen=True, eq=False)
class Scoped:
    """One question in or out of an edit's scope, and all that any attacker may be shown of it.

    Attributes:
        edit: the edit, with its new answer.
        query: the question.
        inside: the label.
        group: questions of one group (a pair of records, else a picture) are never divided between
            training and test.
        before: the base model's answers to the edit's question and to the query.
        seen: what describes the picture [K].
    """

    edit: Question
    query: Question
    inside: bool
    group: str = ""
    before: tuple[str, str] = ("", "")
    seen: np.ndarray | None = field(default=None, repr=False)


def scoped(records: Iterable[EditRecord]) -> list[Scoped]:
    """Every question in and out of scope."""
    return [
        Scoped(record.edit, query, inside, record.pair or str(record.edit.image))
        for record in records
        for inside, queries in ((True, record.in_scope), (False, record.out_scope))
        for query in queries
    ]


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


# What an attacker sees of the texts ---------------------------------------------------------------


def _query_words(one: Scoped) -> Iterator[str]:
    query = words(one.query.text)
    yield from (f"q {w}" for w in query)
    yield from (f"qq {a} {b}" for a, b in pairwise(query))
    yield f"length {len(query)}"


def _text_words(one: Scoped) -> Iterator[str]:
    """Single words, pairs of a query's word with the edit's and with its answer's, and overlap."""
    edit, answer, query = (
        dict.fromkeys(words(text)) for text in (one.edit.text, one.edit.answer, one.query.text)
    )
    yield from _query_words(one)
    yield from (f"e {w}" for w in edit)
    yield from (f"a {w}" for w in answer)
    yield from (f"eq {a} {b}" for a in edit for b in query)
    yield from (f"aq {a} {b}" for a in answer for b in query)
    both = [w for w in query if w in edit]
    yield from (f"both {w}" for w in both)
    yield from (f"offered {w}" for w in query if w in answer)
    yield f"shared {len(both)}"
    yield f"new {len(query) - len(both)}"
    yield f"left out {len(edit) - len(both)}"


def _answer_words(one: Scoped) -> Iterator[str]:
    """The texts, the base model's answers, and how these go together."""
    yield from _text_words(one)
    old, own = (" ".join(words(text)) for text in one.before)
    new = " ".join(words(one.edit.answer))
    yield from (f"old {old}", f"own {own}", f"old own {old} {own}", f"new own {new} {own}")
    yield f"own is {'old' if own == old else 'new' if own == new else 'neither'}"
    query, edit = words(one.query.text), words(one.edit.text)
    yield from (f"own q {own} {w}" for w in query)
    yield from (f"old q {old} {w}" for w in query)
    yield from (f"own e {own} {w}" for w in edit)


class _Linear:
    """Logistic regression on hashed words; both labels weigh the same."""

    def __init__(self, sees: Any, seed: int) -> None:
        self._sees = sees
        from sklearn.feature_extraction import FeatureHasher
        from sklearn.linear_model import LogisticRegression

        self._hash = FeatureHasher(
            _HASHED, input_type="string", alternate_sign=False, dtype=np.float32
        )
        self._model = LogisticRegression(max_iter=300, class_weight="balanced", random_state=seed)

    def fit(self, asked: Sequence[Scoped]) -> _Linear:
        _quietly(self._model, self._features(asked), _labels(asked))
        return self

    def score(self, asked: Sequence[Scoped]) -> np.ndarray:
        return self._model.predict_proba(self._features(asked))[:, 1]

    def _features(self, asked: Sequence[Scoped]) -> Any:
        return self._hash.transform(self._sees(one) for one in asked)


class _Rule:
    """ "An in-scope question names the entity otherwise than the edit does, an out-of-scope one
    names another entity in the edit's manner."

    Words that stand in the same surroundings (the word before, the word after) in the training
    texts, as "red" and "blue" do, name in the same manner. The rule finds the nearest pair of a
    word that only the query has and one that only the edit has; one threshold, chosen in training,
    says from which nearness (a cosine) on the query is out of scope.
    """

    def __init__(self, sees: Any, seed: int) -> None:
        from sklearn.tree import DecisionTreeClassifier

        self._stump = DecisionTreeClassifier(
            max_depth=1, class_weight="balanced", random_state=seed
        )

    def fit(self, asked: Sequence[Scoped]) -> _Rule:
        around: dict[str, Counter[str]] = {}
        for text in dict.fromkeys(t for one in asked for t in (one.edit.text, one.query.text)):
            known = ["", *words(text), ""]
            for before, word, after in zip(known, known[1:], known[2:], strict=False):
                around.setdefault(word, Counter()).update((f"{before} _", f"_ {after}"))
        total: Counter[str] = Counter()
        for counts in around.values():
            total.update(counts)
        columns = {name: i for i, (name, _) in enumerate(total.most_common(_SURROUNDINGS))}
        self._near = {}
        for word, counts in around.items():
            vector = np.zeros(len(columns), np.float32)
            for name, n in counts.items():
                if name in columns:
                    vector[columns[name]] = np.log1p(n)
            self._near[word] = vector / max(float(np.linalg.norm(vector)), 1e-6)
        self._stump.fit(self._features(asked), _labels(asked))
        return self

    def score(self, asked: Sequence[Scoped]) -> np.ndarray:
        return self._stump.predict_proba(self._features(asked))[:, 1]

    def _features(self, asked: Sequence[Scoped]) -> np.ndarray:
        return np.array([[self._nearest(one)] for one in asked])

    def _nearest(self, one: Scoped) -> float:
        edit, query = set(words(one.edit.text)), set(words(one.query.text))
        own = [self._near[w] for w in query - edit if w in self._near]
        lost = [self._near[w] for w in edit - query if w in self._near]
        # Rounded: the last digits depend on the order of words, and the threshold may lie there.
        return round(float((np.array(own) @ np.array(lost).T).max()), 4) if own and lost else 0.0


class _Pictures:
    """A small network on the principal components of the pictures' descriptions."""

    def __init__(self, sees: Any, seed: int) -> None:
        from sklearn.neural_network import MLPClassifier

        self._seed = seed
        self._model = MLPClassifier((64,), early_stopping=True, random_state=seed)

    def fit(self, asked: Sequence[Scoped]) -> _Pictures:
        asked = _balanced(asked, self._seed)
        self._reduce = _reduction(asked, self._seed)
        _quietly(self._model, self._reduce(asked), _labels(asked))
        return self

    def score(self, asked: Sequence[Scoped]) -> np.ndarray:
        return self._model.predict_proba(self._reduce(asked))[:, 1]


class _QueryAndPicture:
    """Logistic regression on the query's words, the picture's components, and their products."""

    def __init__(self, sees: Any, seed: int) -> None:
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.linear_model import LogisticRegression

        self._seed = seed
        self._words = CountVectorizer(analyzer=lambda text: words(text), binary=True)
        self._model = LogisticRegression(max_iter=100, class_weight="balanced", random_state=seed)

    def fit(self, asked: Sequence[Scoped]) -> _QueryAndPicture:
        asked = _balanced(asked, self._seed)
        self._reduce = _reduction(asked, self._seed)
        self._words.fit([one.query.text for one in asked])
        _quietly(self._model, self._features(asked), _labels(asked))
        return self

    def score(self, asked: Sequence[Scoped]) -> np.ndarray:
        return self._model.predict_proba(self._features(asked))[:, 1]

    def _features(self, asked: Sequence[Scoped]) -> Any:
        from scipy import sparse

        texts = self._words.transform([one.query.text for one in asked]).tocoo()
        shown = self._reduce(asked)
        width = shown.shape[1]
        columns = texts.col[:, None] * width + np.arange(width)
        rows = np.repeat(texts.row, width)
        shape = (len(asked), texts.shape[1] * width)
        products = sparse.csr_matrix((shown[texts.row].ravel(), (rows, columns.ravel())), shape)
        return sparse.hstack([texts, sparse.csr_matrix(shown), products]).tocsr()


class _Constant:
    """Says the same of every question."""

    def __init__(self, sees: Any, seed: int) -> None:
        pass

    def fit(self, asked: Sequence[Scoped]) -> _Constant:
        return self

    def score(self, asked: Sequence[Scoped]) -> np.ndarray:
        return np.ones(len(asked))


@dataclass(frozen=True)
class Kind:
    """A kind of attacker.

    Attributes:
        shown: what it is shown, for people.
        model: makes it, of ``sees`` and a seed.
        sees: the words that it makes of a question.
        pictures, answers: it must be shown pictures; the base model's answers.
        edit: it is shown the edit.
    """

    shown: str
    model: Any
    sees: Any = None
    pictures: bool = False
    answers: bool = False
    edit: bool = True

    @property
    def needs_model(self) -> bool:
        """Whether it needs a base model."""
        return self.pictures or self.answers


ATTACKERS = {
    "constant": Kind("nothing", _Constant, edit=False),
    "rule": Kind("texts, by the rule of names", _Rule),
    "query": Kind("the query alone", _Linear, _query_words, edit=False),
    "text": Kind("edit, answer and query", _Linear, _text_words),
    "picture": Kind("the picture alone", _Pictures, pictures=True, edit=False),
    "query-picture": Kind("query and picture", _QueryAndPicture, pictures=True, edit=False),
    "answers": Kind("the texts and the base model's answers", _Linear, _answer_words, answers=True),
}
BY_TEXTS = ("constant", "rule", "query", "text")  # need no model


class Attacker:
    """One kind of attacker, untrained.

    Args:
        name: one of :data:`ATTACKERS`.
        seed: of what is random in its training.

    Raises:
        ConfigError: no such attacker, or scikit-learn is not installed.
    """

    def __init__(self, name: str, seed: int = 0) -> None:
        if name not in ATTACKERS:
            raise ConfigError(f"unknown attacker {name!r}; {did_you_mean(name, [*ATTACKERS])}")
        need("sklearn", "a learned attacker", package="scikit-learn")
        self.name, self.kind, self.seed = name, ATTACKERS[name], seed
        self._model: Any = None

    def fit(self, asked: Sequence[Scoped]) -> Attacker:
        """Learn from questions with labels.

        Raises:
            ConfigError: they are all on one side, so that there is nothing to learn.
        """
        if len({one.inside for one in asked}) < 2:
            raise ConfigError(
                f"the attacker {self.name} learns from questions in and out of scope, and of "
                f"{len(asked)} all are on one side",
                remedy="give training records with fg_gen_q and fg_loc_q",
            )
        self._model = self.kind.model(self.kind.sees, self.seed).fit(asked)
        return self

    def score(self, asked: Sequence[Scoped]) -> np.ndarray:
        """The probability [n] that each question is in scope; 0.5 and more says that it is."""
        if not len(asked):
            return np.empty(0)
        return np.asarray(self._model.score(asked), dtype=float)


def _labels(asked: Sequence[Scoped]) -> np.ndarray:
    return np.array([one.inside for one in asked])


def _balanced(asked: Sequence[Scoped], seed: int) -> list[Scoped]:
    """As many questions of each side, at most :data:`_MOST` in all."""
    rng = np.random.default_rng(seed)
    sides = [[one for one in asked if one.inside is side] for side in (True, False)]
    n = min(_MOST // 2, *map(len, sides))
    return [side[i] for side in sides for i in sorted(rng.permutation(len(side))[:n])]


def _reduction(asked: Sequence[Scoped], seed: int) -> Any:
    """What brings descriptions [K] down to principal components of unit variance."""
    from sklearn.decomposition import PCA

    distinct = list({id(one.seen): one.seen for one in asked}.values())
    table = np.stack([np.asarray(seen) for seen in distinct])
    size = min(_COMPONENTS, *table.shape)
    pca = PCA(size, svd_solver="randomized", random_state=seed).fit(table)
    spread = np.sqrt(pca.explained_variance_)
    spread = np.maximum(spread, 1e-3 * spread.max() + 1e-12)  # some may not vary at all

    def reduce(asked: Sequence[Scoped]) -> np.ndarray:
        places: dict[int, int] = {}
        rows = [places.setdefault(id(one.seen), len(places)) for one in asked]
        shown = {id(one.seen): one.seen for one in asked}
        found = pca.transform(np.stack([np.asarray(shown[i]) for i in places])) / spread
        return found[rows]

    return reduce


def _quietly(model: Any, *data: Any) -> None:
    """Train; that a model has not converged to the last digit is nobody's concern."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(*data)


def shown_to(
    kind: Kind, asked: Sequence[Scoped], pictures: Any = None, answers: Any = None
) -> list[Scoped]:
    """``asked`` with what the attacker needs besides texts.

    Args:
        pictures: called with images, gives what describes each [K].
        answers: called with questions, gives the base model's answers.
    """
    found = list(asked)
    if kind.pictures:
        keys = [image_key(one.query.image) for one in found]
        distinct = {key: one.query.image for key, one in zip(keys, found, strict=True)}
        seen = dict(zip(distinct, pictures(list(distinct.values())), strict=True))
        found = [replace(one, seen=seen[key]) for key, one in zip(keys, found, strict=True)]
    if kind.answers:
        bare = {_asked(q): q for one in found for q in (one.edit, one.query)}
        said = dict(zip(bare, answers(list(bare.values())), strict=True))
        found = [
            replace(one, before=(said[_asked(one.edit)], said[_asked(one.query)])) for one in found
        ]
    return found


def _asked(question: Question) -> tuple[str, object]:
    return question.text, image_key(question.image)
