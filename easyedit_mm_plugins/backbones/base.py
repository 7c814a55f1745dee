"""The interface that every base model has here.

What differs between BLIP-2, MiniGPT-4 and LLaVA is small: how an image becomes embeddings in the
language model's space, and where these lie in the prompt. A subclass says these two things; rows,
padding, teacher forcing and generation are the same for all (``splice.py``). Of models of any other
family ``auto.py`` finds them out.

The way from pixels to embeddings has two parts: a vision tower that nobody edits, and a connector
(Q-Former and projection, or a projector) that some methods do.

Shapes: B questions, N images, S patches, E vision size, V image tokens, D hidden size, n_i answer
tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..core.errors import BackboneError, DataError
from ..core.files import digest
from ..data.records import ImageLike, Question, check_questions
from .families import PLAIN
from .image_cache import ImageCache
from .splice import Batch, Row, Segment, answer_logits, assemble, generate_ids

CACHED_IMAGES = 2048


def unmarked(prompt: str) -> str:
    """``prompt`` without the mark for the place of an image."""
    return prompt.replace("<image>\n", "").replace("<image>", "")


class Backbone(ABC):
    """A frozen vision-language model, as methods and evaluation see it.

    Args:
        name: how results call it, e.g. ``"scenes-llava"``.
        model: the whole model.
        tokenizer: its Hugging Face tokenizer.
        template: prompt of a question about an image, with one ``{}``.
        text_template: prompt of a question without one.

    Attributes:
        language_model: the causal language model inside (takes ``inputs_embeds``).
    """

    family: ClassVar[str]
    model: Any  # modules whose attributes are their family's
    language_model: Any
    takes_images: ClassVar[bool] = True  # a backbone of text alone says False
    # Images become different numbers of tokens: what stands for [N, V, D] below is then a list, and
    # images go through the connector one by one.
    ragged: ClassVar[bool] = False

    def __init__(
        self,
        name: str,
        model: nn.Module,
        tokenizer: Any,
        *,
        template: str = PLAIN,
        text_template: str = "{}",
    ) -> None:
        for label, value in (("template", template), ("text_template", text_template)):
            if value.count("{}") != 1:
                raise BackboneError(f"{label} {value!r} needs exactly one {{}}")
        self.name, self.model, self.tokenizer = name, model.eval(), tokenizer
        self.template, self.text_template = template, text_template
        self._features, self._states = ImageCache(CACHED_IMAGES), ImageCache(CACHED_IMAGES)

    # What a subclass says ---------------------------------------------------------------------

    @abstractmethod
    def pixels(self, images: Sequence[ImageLike]) -> Any:
        """Preprocess images into the vision tower's input [N, 3, H, W]."""

    @abstractmethod
    def vision(self, pixels: Any) -> Any:
        """The vision tower: pixels [N, 3, H, W] -> what the connector reads [N, S, E]."""

    @abstractmethod
    def connect(self, states: Any) -> Any:
        """The connector: [N, S, E] -> embeddings [N, V, D] for the language model."""

    @property
    @abstractmethod
    def connector(self) -> dict[str, nn.Module]:
        """The modules that :meth:`connect` runs, by short names."""

    @abstractmethod
    def splice(self, image: Any, prompt: str) -> list[Segment]:
        """Lay out one prompt: ``image`` is [V, D], or ``None`` for text only."""

    def asked(self, image: Any, prompt: str) -> list[Segment]:
        """As :meth:`splice`, for a prompt that does not begin the sequence: no start token, and
        the image in front."""
        ids = self.token_ids(unmarked(prompt), special=False)
        return [ids] if image is None else [image, ids]

    # What follows from it ---------------------------------------------------------------------

    @property
    def decoder(self) -> Any:
        """The part of the language model whose ``layers`` are its layers, found at run time.

        Raises:
            BackboneError: no list of layers was found.
        """
        for module in self.language_model.modules():
            if isinstance(getattr(module, "layers", None), nn.ModuleList):
                return module
        raise BackboneError(f"{self.name}: no decoder layers found")

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder's layers."""
        return self.decoder.layers

    @property
    def embed(self) -> Callable[[Tensor], Tensor]:
        """Token embedding of the language model, ids [n] -> [n, D]."""
        return self.language_model.get_input_embeddings()

    @property
    def hidden_size(self) -> int:
        """D."""
        return self.language_model.get_input_embeddings().weight.shape[1]

    @property
    def vocab_size(self) -> int:
        """Size of the output space, shared with counterfactual models."""
        return self.language_model.get_output_embeddings().weight.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the token embedding lies."""
        return self.language_model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The language model's dtype."""
        return self.language_model.get_input_embeddings().weight.dtype

    @property
    def max_positions(self) -> int | None:
        """The language model's context length, if its config says one."""
        return getattr(self.language_model.config, "max_position_embeddings", None)

    def fingerprint(self) -> str:
        """A hash of what a trained editor depends on: family, shapes and vocabulary."""
        config = self.language_model.config.to_dict()
        keys = ("model_type", "hidden_size", "num_hidden_layers", "vocab_size")
        return digest([self.family, *(config.get(k) for k in keys)])

    def linear_modules(self) -> dict[str, nn.Linear]:
        """Every linear module that an edit may change, by a name that no version moves.

        ``layers.3.mlp.down_proj`` lies in the fourth decoder layer, ``connector.projection`` in the
        connector.
        """
        roots = {"layers": self.layers} | {f"connector.{n}": m for n, m in self.connector.items()}
        return {
            f"{root}.{name}" if name else root: module
            for root, top in roots.items()
            for name, module in top.named_modules()
            if isinstance(module, nn.Linear)
        }

    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Vision side: pixels [N, 3, H, W] -> embeddings [N, V, D] for the language model."""
        return self.connect(self.vision(pixels))

    @torch.no_grad()
    def image_features(self, images: Sequence[ImageLike]) -> Any:
        """Embeddings [N, V, D] of ``images``; each distinct picture is encoded once.

        Pictures given by path stay in a bounded cache, since the vision side is frozen.
        """
        return self._features.through(images, lambda new: self.encode_pixels(self.pixels(new)))

    @torch.no_grad()
    def vision_states(self, images: Sequence[ImageLike]) -> Any:
        """What the connector reads [N, S, E], cached as :meth:`image_features` is."""
        return self._states.through(images, lambda new: self.vision(self.pixels(new)))

    @property
    def cached_images(self) -> int:
        """The number of pictures whose embeddings are cached, and of those whose states are."""
        return self._features.limit

    @cached_images.setter
    def cached_images(self, value: int) -> None:
        self._features.limit = self._states.limit = value

    def clear_cache(self) -> None:
        """Forget all cached image embeddings (after the model's weights were changed)."""
        self._features.clear()
        self._states.clear()

    @contextmanager
    def changed_connector(self) -> Iterator[None]:
        """Inside the block the connector has other weights: pictures are embedded anew and none of
        these embeddings is kept."""
        kept, self._features = self._features, ImageCache(0)
        try:
            yield
        finally:
            self._features = kept

    def prompt(self, question: Question) -> str:
        """The question in its template."""
        template = self.text_template if question.image is None else self.template
        return template.replace("{}", question.text)

    def token_ids(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of ``text``, with the tokenizer's leading special tokens or without."""
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def answer_ids(self, answer: str) -> list[int]:
        """Target tokens of ``answer`` as they follow a prompt (with a leading space).

        Raises:
            DataError: the answer is empty.
        """
        ids = self.token_ids(" " + answer.strip(), special=False)
        if not answer.strip() or not ids:
            raise DataError("an answer is empty", field="answer", remedy="give the target a text")
        return ids

    def rows(
        self,
        questions: Sequence[Question],
        *,
        with_answers: bool = False,
        with_stop: bool = False,
        embedded: Any = None,
    ) -> list[Row]:
        """One :class:`Row` a question; all images of a call go through the vision side at once.

        ``with_stop`` ends each answer with the token that ends generation, as training may want it.
        ``embedded`` stands in for what :meth:`image_features` gives for the questions with an
        image, where a method changed the connector.
        """
        questions = check_questions(questions)
        pictured = [i for i, q in enumerate(questions) if q.image is not None]
        if pictured and not self.takes_images:
            raise DataError(
                f"has an image, but {self.name} takes text alone",
                record=pictured[0],
                field="image",
                remedy="leave the image out, or use a backbone with a vision side",
            )
        features: dict[int, Any] = {}
        if pictured:
            if embedded is None:
                embedded = self.image_features([questions[i].image for i in pictured])
            features = dict(zip(pictured, embedded, strict=True))
        rows = []
        for i, question in enumerate(questions):
            if not question.text.strip():
                raise DataError("a question is empty", record=i, field="prompt")
            answer = self.answer_ids(question.answer) if with_answers else []
            if with_stop:
                answer = [*answer, self.stop_token_id]
            rows.append(Row(self.splice(features.get(i), self.prompt(question)), answer))
        return rows

    def batch(
        self,
        questions: Sequence[Question],
        *,
        with_answers: bool = False,
        with_stop: bool = False,
        padding_side: Literal["left", "right"] = "left",
        embedded: Any = None,
    ) -> Batch:
        """Questions, with and without images mixed as they come, as one padded batch."""
        rows = self.rows(
            questions, with_answers=with_answers, with_stop=with_stop, embedded=embedded
        )
        batch = assemble(rows, self.embed, padding_side=padding_side)
        limit = self.max_positions
        if limit is not None and batch.inputs_embeds.shape[1] > limit:
            raise DataError(
                f"a prompt takes {batch.inputs_embeds.shape[1]} positions, {self.name} has {limit}",
                remedy="shorten the question",
            )
        return batch

    def answer_logits(self, questions: Sequence[Question]) -> list[Tensor]:
        """Teacher-forced logits [n_i, vocab] for each question's ``answer``."""
        return answer_logits(self.language_model, self.batch(questions, with_answers=True))

    @torch.no_grad()
    def generate(
        self, questions: Sequence[Question], *, max_new_tokens: int = 8, **kwargs: Any
    ) -> list[str]:
        """Answers as text; greedy by default, ``kwargs`` go to the language model's generate."""
        ids = self.generate_ids(self.batch(questions), max_new_tokens=max_new_tokens, **kwargs)
        return self.decode(ids)

    def generate_ids(self, batch: Batch, **kwargs: Any) -> list[list[int]]:
        """New token ids of each row of a left-padded batch, without the end token.

        No more than the context has room for: a learned position does not exist beyond it.
        """
        limit = self.max_positions
        if limit is not None and "max_new_tokens" in kwargs:
            room = limit - batch.inputs_embeds.shape[1] + 1  # the last one is not read again
            kwargs["max_new_tokens"] = max(1, min(kwargs["max_new_tokens"], room))
        eos = self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id
        return generate_ids(
            self.language_model,
            batch,
            eos_token_id=kwargs.pop("eos_token_id", self.stop_token_id),
            pad_token_id=eos if pad is None else pad,
            **kwargs,
        )

    @property
    def stop_token_id(self) -> int:
        """The token that ends an answer."""
        return self.tokenizer.eos_token_id

    def decode(self, rows: Sequence[list[int]]) -> list[str]:
        """Token ids -> stripped text."""
        return [t.strip() for t in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]
