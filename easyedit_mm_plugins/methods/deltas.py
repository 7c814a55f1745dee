"""Changes of weights as data, added row by row to a frozen model.

Fine-tuning and MEND change a linear module's weight W for an edit. Nobody here writes into W: the
change stays beside it and is added to the module's output by a forward hook, each row of a batch
with the change of its own edits. So many edited models share one forward pass, taking an edit back
is forgetting its change, and gradients reach the change itself.

Shapes: B rows, r rank, ``in`` and ``out`` the sizes of a linear module.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..backbones.base import Backbone
from ..backbones.splice import answer_logits
from ..core.errors import ConfigError
from ..core.registry import did_you_mean
from ..data.images import image_key
from ..data.records import Question
from .base import Answer, Editor, Forced, Visible, force_with_base
from .row_hooks import Delta, Full, LowRank, Neurons, applied
from .store import Kept

__all__ = [
    "Delta",
    "DeltaEditor",
    "Full",
    "LowRank",
    "Neurons",
    "applied",
    "changed_generate",
    "changed_logits",
    "changed_rows",
    "combine",
    "linear_modules",
]


def linear_modules(backbone: Backbone, patterns: Sequence[str]) -> dict[str, nn.Linear]:
    """The linear modules whose names match one of ``patterns`` (``layers.7.*``), in their order.

    A negative layer number counts from the end: ``layers.-1.fc2``.

    Raises:
        ConfigError: a pattern matches none; the nearest name is offered.
    """
    every = backbone.linear_modules()
    depth, chosen = len(backbone.layers), set()
    for pattern in patterns:
        parts = pattern.split(".")
        from_end = parts[1][1:] if parts[0] == "layers" and parts[1:] else ""
        if from_end.isdigit() and parts[1][0] == "-":
            parts[1] = str(depth - int(from_end))
        found = {name for name in every if fnmatchcase(name, ".".join(parts))}
        if not found:
            raise ConfigError(
                f"no linear module of {backbone.name} is called {pattern!r}; "
                f"{did_you_mean(pattern, list(every))}"
            )
        chosen |= found
    return {name: module for name, module in every.items() if name in chosen}


def combine(deltas: Sequence[Delta]) -> Delta:
    """The change of several edits that are in force together: their sum, all their neurons."""
    if len(deltas) == 1:
        return deltas[0]
    total: Delta = {}
    for name in dict.fromkeys(name for delta in deltas for name in delta):
        parts = [delta[name] for delta in deltas if name in delta]
        neurons = [p for p in parts if isinstance(p, Neurons)]
        if neurons:
            total[name] = neurons[0]._replace(
                keys=torch.cat([p.keys for p in neurons]),
                bias=torch.cat([p.bias for p in neurons]),
                values=torch.cat([p.values for p in neurons]),
            )
            continue
        low = [p for p in parts if isinstance(p, LowRank)]
        full = [p.weight for p in parts if isinstance(p, Full)]
        if low:
            down, up = torch.cat([p.down for p in low]), torch.cat([p.up for p in low])
            size = down.shape[1] * up.shape[1]
            if not full and len(down) * (down.shape[1] + up.shape[1]) < size:
                total[name] = LowRank(down, up)
                continue
            full.append(up.T @ down)  # so many edits that the whole matrix is smaller
        total[name] = Full(torch.stack(full).sum(0))
    return total


def changed_rows(
    backbone: Backbone, questions: Sequence[Question], deltas: Sequence[Delta], **kwargs: Any
) -> Any:
    """A :class:`Batch` of ``questions`` whose image embeddings are those of the changed connector.

    Where no row changes the connector, the cached embeddings serve. A picture goes through it once
    for all questions that are under the same change.
    """
    pictured = [i for i, q in enumerate(questions) if q.image is not None]
    if not any(name.startswith("connector.") for i in pictured for name in deltas[i]):
        return backbone.batch(questions, **kwargs)
    places: dict[Any, int] = {}
    first: list[int] = []  # one question for each picture under a change
    which = []
    for i in pictured:
        key = (image_key(questions[i].image), id(deltas[i]))
        if key not in places:
            places[key] = len(first)
            first.append(i)
        which.append(places[key])
    states = backbone.vision_states([questions[i].image for i in first])
    modules, own = backbone.linear_modules(), [deltas[i] for i in first]
    if backbone.ragged:
        changed: list[Any] = []
        for state, delta in zip(states, own, strict=True):
            with applied(modules, [delta]):
                changed += backbone.connect([state])
        return backbone.batch(questions, embedded=[changed[k] for k in which], **kwargs)
    with applied(modules, own):
        embedded = backbone.connect(states)
    return backbone.batch(questions, embedded=embedded[which], **kwargs)


def changed_logits(
    backbone: Backbone, questions: Sequence[Question], deltas: Sequence[Delta]
) -> list[Tensor]:
    """Teacher-forced logits [n_i, vocab] of each answer, row i under ``deltas[i]``.

    Differentiable in the changes.
    """
    batch = changed_rows(backbone, questions, deltas, with_answers=True)
    with applied(backbone.linear_modules(), deltas):
        return answer_logits(backbone.language_model, batch)


@torch.no_grad()
def changed_generate(
    backbone: Backbone,
    questions: Sequence[Question],
    deltas: Sequence[Delta],
    *,
    max_new_tokens: int = 8,
    **kwargs: Any,
) -> list[str]:
    """Answers, row i under ``deltas[i]``; greedy unless ``kwargs`` say otherwise."""
    batch = changed_rows(backbone, questions, deltas)
    with applied(backbone.linear_modules(), deltas):
        ids = backbone.generate_ids(batch, max_new_tokens=max_new_tokens, **kwargs)
    return backbone.decode(ids)


class DeltaEditor(Editor):
    """A method that turns an edit into a change of weights; see the module's docstring.

    A subclass implements :meth:`learn`. Several edits that a row sees act as the sum of their
    changes, each made from the unedited model, unless it says otherwise in :meth:`together`.
    """

    isolates_rows: ClassVar[bool] = True

    @abstractmethod
    def learn(self, edits: Sequence[Question]) -> list[Delta]:
        """One change per edit, each by itself: a batch gives what a loop gives."""

    def encode(self, edits: Sequence[Question]) -> Kept:
        """See :class:`Editor`: the change of each edit."""
        return Kept(payloads=self.learn(edits))

    def together(self, edits: Sequence[Question], changes: Sequence[Delta]) -> Delta:
        """What ``edits`` change together, given what each of them changes alone."""
        return combine(changes)

    def deltas_for(self, count: int, visible: Visible = None) -> list[Delta | None]:
        """What each of ``count`` rows is under; ``None`` where it sees no edit."""
        now = self.store.now
        out: list[Delta | None] = []
        for own in [None] * count if visible is None else visible:
            ids = now.seen_by(own)
            if ids and ids not in now.derived:
                edits, changes = [now.edits[i] for i in ids], [now.payloads[i] for i in ids]
                now.derived[ids] = self.together(edits, changes)
            out.append(now.derived[ids] if ids else None)
        return out

    def _split(self, count: int, visible: Visible) -> tuple[dict[int, Delta], list[int]]:
        """Of :meth:`deltas_for` the rows that are under a change, with it, and the others."""
        deltas = self.deltas_for(count, visible)
        inside = {i: delta for i, delta in enumerate(deltas) if delta is not None}
        return inside, [i for i, delta in enumerate(deltas) if delta is None]

    def generate(
        self,
        questions: Sequence[Question],
        *,
        visible: Visible = None,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[Answer]:
        """See :class:`Editor`; rows that see no edit are the base model's own."""
        inside, outside = self._split(len(questions), visible)
        kwargs["max_new_tokens"] = max_new_tokens
        texts: dict[int, str] = {}
        if inside:
            asked = [questions[i] for i in inside]
            said = changed_generate(self.backbone, asked, list(inside.values()), **kwargs)
            texts |= dict(zip(inside, said, strict=True))
        if outside:
            said = self.backbone.generate([questions[i] for i in outside], **kwargs)
            texts |= dict(zip(outside, said, strict=True))
        return [Answer(texts[i]) for i in range(len(questions))]

    def answer_logits(
        self, questions: Sequence[Question], *, visible: Visible = None
    ) -> list[Tensor]:
        """Teacher-forced logits [n_i, vocab] under the edits that each row sees."""
        deltas = self.deltas_for(len(questions), visible)
        return changed_logits(self.backbone, questions, [delta or {} for delta in deltas])

    @torch.no_grad()
    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        """See :class:`Editor`."""
        inside, outside = self._split(len(questions), visible)
        forced: dict[int, Forced] = {}
        if outside:
            rows = force_with_base(self.backbone, [questions[i] for i in outside], top_k)
            forced |= dict(zip(outside, rows, strict=True))
        if inside:
            asked = [questions[i] for i in inside]
            logits = changed_logits(self.backbone, asked, list(inside.values()))
            for i, row in zip(inside, logits, strict=True):
                top = row.topk(top_k, dim=-1).indices.cpu()
                forced[i] = Forced(self.backbone.answer_ids(questions[i].answer), top)
        return [forced[i] for i in range(len(questions))]
