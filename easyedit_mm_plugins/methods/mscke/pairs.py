"""Models that read an edit and a query as one row, and answer with the base model's words.

One row reads ``<s> {t_e} {y_e} </s> [image V] Question: {t_test} Short answer:``, where start, end
and template are the base model's. Without an image it is ``<s> {t_e} {y_e} </s> {t_test}``. The
small language model and the LoRA one differ only in what reads the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.splice import Batch, Row, Segment, answer_logits, assemble, generate_ids
from ...core.errors import DataError
from ...data import Question


class PairReader:
    """What such models share; a subclass has ``backbone``, ``lm`` and :meth:`see`.

    Attributes:
        backbone: the frozen base model, whose words, eyes and vocabulary are used.
        lm: a causal language model that takes ``inputs_embeds``.
    """

    backbone: Backbone
    lm: Any

    def see(self, features: Any) -> Any:
        """The base model's image features as ``lm`` takes them; unchanged here."""
        return features

    def rows(
        self,
        edits: Sequence[Question],
        queries: Sequence[Question],
        *,
        with_answers: bool = False,
        stop: bool = False,
        hidden: bool = False,
    ) -> list[Row]:
        """One :class:`Row` a pair; ``stop`` adds the end token to the answer, as training needs.

        ``hidden`` leaves the images out of the sequences; the prompts stay as they are.

        Raises:
            DataError: a question is empty.
        """
        base = self.backbone
        pictured = [i for i, q in enumerate(queries) if q.image is not None and not hidden]
        features: dict[int, Tensor] = {}
        if pictured:
            seen = self.see(base.image_features([queries[i].image for i in pictured]))
            features = dict(zip(pictured, seen, strict=True))
        out = []
        for i, (edit, query) in enumerate(zip(edits, queries, strict=True)):
            if not query.text.strip():
                raise DataError("a question is empty", record=i, field="prompt")
            segments = self.segments(edit, query, features.get(i))
            answer = base.answer_ids(query.answer) if with_answers else []
            out.append(Row(segments, [*answer, base.stop_token_id] if stop else answer))
        return out

    def segments(self, edit: Question, query: Question, image: Tensor | None) -> list[Segment]:
        """One pair without its answer, laid out; ``image`` is [V, D] as ``lm`` takes it."""
        base = self.backbone
        fact = base.token_ids(f"{edit.text} {edit.answer}".strip())
        return [[*fact, base.stop_token_id], *base.asked(image, base.prompt(query))]

    def _batch(self, rows: list[Row], room: int = 0) -> Batch:
        batch = assemble(rows, self.lm.get_input_embeddings())
        limit = getattr(self.lm.config, "max_position_embeddings", None)
        if limit is not None and batch.inputs_embeds.shape[1] + room > limit:
            raise DataError(
                f"an edit with a query takes {batch.inputs_embeds.shape[1] + room} positions, the "
                f"counterfactual model has {limit}",
                remedy="shorten the edit or the question",
            )
        return batch

    def answer_logits(self, edits: Sequence[Question], queries: Sequence[Question]) -> list[Tensor]:
        """Teacher-forced logits [n_i, vocab] of each query's ``answer``; differentiable. Ids past
        the base model's vocabulary are cut."""
        rows = self.rows(edits, queries, with_answers=True)
        logits = answer_logits(self.lm, self._batch(rows))
        return [row[:, : self.backbone.vocab_size] for row in logits]

    def nll(
        self, edits: Sequence[Question], queries: Sequence[Question], hidden: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Mean negative log likelihood of each answer and its end, and whether greedy decoding
        would give just that answer: ``[B]`` and bool ``[B]``."""
        rows = self.rows(edits, queries, with_answers=True, stop=True, hidden=hidden)
        return answer_losses(self.lm, self._batch(rows))

    @torch.no_grad()
    def generate(
        self,
        edits: Sequence[Question],
        queries: Sequence[Question],
        *,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[str]:
        """Answers as text; greedy unless ``kwargs`` say otherwise."""
        if not queries:
            return []
        batch = self._batch(self.rows(edits, queries), max_new_tokens)
        return self._say(batch, max_new_tokens=max_new_tokens, **kwargs)

    def _say(self, batch: Batch, **kwargs: Any) -> list[str]:
        """What the language model says to a batch, as text."""
        base = self.backbone
        pad = base.tokenizer.pad_token_id
        ids = generate_ids(
            self.lm,
            batch,
            eos_token_id=base.stop_token_id,
            pad_token_id=base.stop_token_id if pad is None else pad,
            **kwargs,
        )
        return base.decode(ids)


def answer_losses(lm: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean negative log likelihood of each row's answer, and whether greedy decoding would give
    just that answer: ``[B]`` and bool ``[B]``."""
    every = torch.cat(answer_logits(lm, batch)).float()
    lengths = torch.tensor([len(answer) for answer in batch.answers], device=every.device)
    targets = torch.tensor([t for answer in batch.answers for t in answer], device=every.device)
    row_of = torch.repeat_interleave(lengths)
    losses = nn.functional.cross_entropy(every, targets, reduction="none")
    total = losses.new_zeros(len(lengths)).index_add(0, row_of, losses)
    wrong = (every.argmax(-1) != targets).long()
    misses = wrong.new_zeros(len(lengths)).index_add(0, row_of, wrong)
    return total / lengths, misses == 0
