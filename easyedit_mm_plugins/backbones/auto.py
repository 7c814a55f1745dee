"""Whatever ``AutoModelForImageTextToText`` loads and whose processor marks image tokens.

No family has code here. The model's own processor writes prompts (its chat template, or a plain
one) and pixels; the model's own pass, up to its decoder, says what an image becomes, where tokens
stand and what they see (``observe.py``); then the decoder runs as the model drives it
(``decoder.py``). The first look, when a model is loaded, also compares our logits with the model's:
a model that cannot be driven faithfully is refused, not edited wrongly.

Shapes: V image tokens, D hidden size, n answer tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import BackboneError, DataError
from ..core.files import digest
from ..data.images import open_image
from ..data.records import ImageLike, Question
from ..data.several import apart
from .base import CACHED_IMAGES, Backbone
from .families import family_named
from .hf import load_parts
from .image_cache import ImageCache
from .observe import Picture, find_decoder, habits_of, pictures_of, reach, unknown
from .splice import Batch, Row, Segment, assemble, hidden_states, takes

_PROCESSING = threading.Lock()  # a processor listens to one call at a time
_AT_ONCE = 8  # images a vision pass
_ASKED = "What is asked"  # stands for a question while a prompt is looked at
_CONNECTORS = {
    "projector": (
        *("multi_modal_projector", "connector", "visual.merger", "embed_vision", "projector"),
    ),
    "deepstack": ("visual.deepstack_merger_list",),
}


class HFAuto(Backbone):
    """A model of any family behind its processor; see the module's docstring.

    Args:
        name: how results call it.
        model: the whole model.
        processor: its Hugging Face processor.
        template: prompt of a question about an image, with one ``{}``, and ``<image>`` where the
            image goes (otherwise it goes first); by default the processor's chat template, or,
            where it has none, the family's own.
        text_template: prompt of a question without one; by default likewise.

    Raises:
        BackboneError: the processor marks no image tokens, or the model cannot be driven as it
            drives itself.
    """

    ragged = True

    def __init__(
        self,
        name: str,
        model: nn.Module,
        processor: Any,
        *,
        template: str | None = None,
        text_template: str | None = None,
    ) -> None:
        self.processor = processor
        config: Any = model.config
        self.family = config.model_type  # type: ignore[misc]
        self.chat = template is None and _has_chat(processor)
        self._plain = template or family_named(self.family).template, text_template or "{}"
        # What stands around a question comes with its image, so prompts are questions here.
        super().__init__(name, model, processor.tokenizer, template="{}", text_template="{}")
        self._features = ImageCache(CACHED_IMAGES, _megabytes)
        self._states = ImageCache(CACHED_IMAGES, _megabytes)
        self._body = find_decoder(model)
        self.image_token = _image_token(model, processor)
        self.language_model = self._drive()

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, name: str | None = None, **kwargs: Any) -> Any:
        """Load a model folder or hub id; keywords as :meth:`HFBackbone.from_pretrained`.

        Raises:
            BackboneError: files are missing or unreadable, or the installed transformers does not
                know the family.
        """
        load = ("device", "dtype", "device_map", "bits")
        options = {key: kwargs.pop(key) for key in load if key in kwargs}
        parts = {"model": "AutoModelForImageTextToText", "processor": "AutoProcessor"}
        found = load_parts(folder, "a vision-language model", parts, **options)
        return cls(name or str(folder), found["model"], found["processor"], **kwargs)

    # Prompts --------------------------------------------------------------------------------------

    @cached_property
    def marker(self) -> str:
        """What the processor replaces by an image's tokens."""
        named = (
            getattr(holder, attribute, None)
            for attribute in ("boi_token", "image_token")  # Gemma 3 writes the image's beginning
            for holder in (self.processor, self.tokenizer)
        )
        marker = next((str(token) for token in named if token), None)
        marker = marker or self.tokenizer.convert_ids_to_tokens(self.image_token)
        config = self.model.config
        ends = [getattr(config, f"vision_{e}_token_id", None) for e in ("start", "end")]
        if None not in ends:
            first, last = self.tokenizer.convert_ids_to_tokens(ends)
            marker = f"{first}{marker}{last}"
        return marker

    def frame(self, images: int) -> str:
        """A prompt about so many images, with :data:`_ASKED` for the question."""
        if self.chat:
            content = [{"type": "image"}] * images + [{"type": "text", "text": _ASKED}]
            text = _chat(self.processor, [{"role": "user", "content": content}])
        else:
            template = self._plain[0 if images else 1]
            marks = self.marker * images
            if "<image>" in template:
                template = template.replace("<image>", marks)
            else:
                template = marks + template
            text = template.replace("{}", _ASKED)
        if text.count(_ASKED) != 1:
            raise BackboneError(f"{self.name}: its prompt does not hold the question once: {text}")
        return text

    @cached_property
    def _text_frame(self) -> tuple[str, str]:
        """What stands around a question without an image. What the processor adds of its own to a
        plain prompt, a start token or an end, it would add here, too."""
        before, after = self.frame(0).split(_ASKED)
        if not self.chat:
            own, seen = self.frame(1).split(_ASKED), self._seen_frame
            start = self.tokenizer.bos_token
            if start and start in seen[0] and start not in own[0]:
                before = start + before
            if seen[1].startswith(own[1]):
                after += seen[1][len(own[1]) :]
        return before, after

    def prompt(self, question: Question) -> str:
        """The question; the words around it come with the image."""
        return question.text.strip()

    def splice(self, image: Any, prompt: str, *, special: bool = True) -> list[Segment]:
        """The prompt as the processor writes it, with an image (:class:`Picture`) or without."""
        before, after = self._text_frame if image is None else (image.before, image.after)
        # A chat template may have written the start token.
        start = self.tokenizer.bos_token
        ids = self.token_ids(before + prompt + after, special=not (start and start in before))
        if not special and ids and ids[0] == self.tokenizer.bos_token_id:
            ids = ids[1:]
        return [ids] if image is None else [image.among(ids, self.image_token)]

    def asked(self, image: Any, prompt: str) -> list[Segment]:
        """See :meth:`Backbone.asked`."""
        return self.splice(image, prompt, special=False)

    @cached_property
    def _answer_start(self) -> tuple[str, list[int]]:
        """The end of a prompt, with a space where an answer needs one, and its own tokens."""
        tail = (_ASKED + self._seen_frame[1])[-64:]
        special = self.tokenizer.all_special_tokens
        closed = tail[-1:].isspace() or any(tail.endswith(token) for token in special)
        start = tail if closed else tail + " "
        return start, self.token_ids(start.rstrip(" "), special=False)

    def answer_ids(self, answer: str) -> list[int]:
        """Target tokens of ``answer`` as they follow a prompt.

        Raises:
            DataError: the answer is empty.
        """
        answer = answer.strip()
        if not answer:
            raise DataError("an answer is empty", field="answer", remedy="give the target a text")
        start, before = self._answer_start
        ids = self.token_ids(start + answer, special=False)
        if ids[: len(before)] == before and len(ids) > len(before):
            return ids[len(before) :]
        return self.token_ids(answer, special=False)

    @cached_property
    def stop_token_ids(self) -> list[int]:
        """All tokens that end an answer: the model's own, and the tokenizer's."""
        own = getattr(self.model, "generation_config", None)
        found = getattr(own, "eos_token_id", None)
        found = [found] if isinstance(found, int) else list(found or [])
        eos = self.tokenizer.eos_token_id
        return found + ([] if eos in found or eos is None else [eos])

    @cached_property
    def stop_token_id(self) -> int:  # type: ignore[override]
        """The one that ends an answer in training: what the chat template writes after it."""
        stops = self.stop_token_ids
        if not stops:
            raise BackboneError(f"{self.name}: neither model nor tokenizer has an end token")
        if self.chat and len(stops) > 1:
            turns = [("user", _ASKED), ("assistant", "yes")]
            chat = [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in turns]
            text = _chat(self.processor, chat, add_generation_prompt=False)
            ids = self.token_ids(text[text.rindex("yes") :], special=False)
            return next((i for i in ids if i in stops), stops[0])
        eos = self.tokenizer.eos_token_id
        return stops[0] if eos is None else eos

    def fingerprint(self) -> str:
        """See :meth:`Backbone.fingerprint`; of shapes alone, since configurations call a decoder by
        other names in other versions of transformers."""
        return digest([self.family, self.hidden_size, len(self.layers), self.vocab_size])

    def generate_ids(self, batch: Batch, **kwargs: Any) -> list[list[int]]:
        """See :meth:`Backbone.generate_ids`."""
        return super().generate_ids(batch, **{"eos_token_id": self.stop_token_ids, **kwargs})

    # Images ---------------------------------------------------------------------------------------

    def pixels(self, images: Sequence[ImageLike]) -> Any:
        """What the processor makes of each image, by itself."""
        return [_Prepared(*self._process([[image]])) for image in images]

    def vision(self, pixels: Any) -> Any:
        """The same: what a family's vision tower gives out is not told apart."""
        return pixels

    def connect(self, states: Any) -> Any:
        """Vision tower and connector, image by image; one :class:`Picture` each."""
        return [picture for state in states for picture in self._look(*state.parts)]

    @torch.no_grad()
    def image_features(self, images: Sequence[ImageLike]) -> Any:
        """One :class:`Picture` for each of ``images``; each distinct one is encoded once."""
        return self._features.through(images, self._see)

    def _see(self, images: Sequence[ImageLike]) -> list[Picture]:
        out: list[Picture] = []
        for i in range(0, len(images), _AT_ONCE):
            out += self.together([[image] for image in images[i : i + _AT_ONCE]])
        return out

    @torch.no_grad()
    def together(self, groups: Sequence[Sequence[ImageLike]]) -> list[Picture]:
        """For each group of images, asked about in one prompt, what they become together.

        For ``embedded`` of :meth:`batch`: a question has one image of its own.
        """
        return self._look(*self._process(groups))

    @property
    def connector(self) -> dict[str, nn.Module]:
        """``projector``, and ``deepstack`` where the model has one; empty where none is known."""
        found: dict[str, nn.Module] = {}
        for short, paths in _CONNECTORS.items():
            for holder in (self.model, getattr(self.model, "model", None)):
                for path in paths:
                    module = _submodule(holder, path)
                    if module is not None:
                        found.setdefault(short, module)
        return found

    def _process(
        self, groups: Sequence[Sequence[ImageLike]], asked: str = _ASKED
    ) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        """The model's inputs for each group of images, and what its prompt says around a question.

        Raises:
            DataError: the processor refuses an image.
        """
        pictures = [
            [open_image(one) for image in group for one in apart(image)] for group in groups
        ]
        texts = [self.frame(len(group)).replace(_ASKED, asked) for group in pictures]
        with _PROCESSING, self._heard() as heard:
            try:
                inputs = self.processor(
                    text=texts,
                    images=pictures,
                    return_tensors="pt",
                    padding=True,
                    **self._no_second_start(texts[0]),
                )
            except (ValueError, TypeError, IndexError, ZeroDivisionError) as error:
                sizes = ", ".join(f"{p.width} x {p.height}" for g in pictures for p in g)
                raise DataError(
                    f"{type(self.processor).__name__} cannot take these images ({sizes}): {error}",
                    field="image",
                ) from error
        written = next((texts for texts in heard if all(asked in t for t in texts)), texts)
        frames = [(t[: t.index(asked)], t[t.index(asked) + len(asked) :]) for t in written]
        return self._placed(inputs), frames

    def _no_second_start(self, text: str) -> dict[str, Any]:
        """A chat template may have written the start token, as in :meth:`splice`."""
        start = self.tokenizer.bos_token
        return {"add_special_tokens": False} if start and start in text else {}

    @contextmanager
    def _heard(self) -> Iterator[list[list[str]]]:
        """The texts that the processor hands its tokenizer inside the block."""
        heard: list[list[str]] = []
        self.processor.tokenizer = _Listening(self.tokenizer, heard)
        try:
            yield heard
        finally:
            self.processor.tokenizer = self.tokenizer

    def _placed(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        dtype = next(p.dtype for p in self.model.parameters() if p.is_floating_point())
        placed = {}
        for name, value in inputs.items():
            if isinstance(value, Tensor):
                value = value.to(self._words.weight.device)
                value = value.to(dtype) if value.is_floating_point() else value
            if name != "labels":
                placed[name] = value
        return placed

    @property
    def _words(self) -> Any:
        return self.model.get_input_embeddings()

    def _look(self, inputs: dict[str, Any], frames: Sequence[tuple[str, str]]) -> list[Picture]:
        found, _ = reach(self.model, self._body, inputs)
        ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
        return pictures_of(found, ids, real, self.image_token, frames)

    # The language model -----------------------------------------------------------------------

    @torch.no_grad()
    def _drive(self) -> Any:
        """The decoder as the model drives it, checked on one picture."""
        from .decoder import Capped, CausalDecoder

        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        image = torch.from_numpy(noise).permute(2, 0, 1) / 255
        inputs, frames = self._process([[image]])
        ids, self._seen_frame = inputs["input_ids"], frames[0]
        if not (ids == self.image_token).any():
            raise BackboneError(
                f"{self.name}: its processor marks no image tokens in {frames[0][0]!r}",
                remedy="give template the model's own mark for an image",
            )
        few = {"logits_to_keep": 1} if takes(self.model, "logits_to_keep") else {}
        found, output = reach(self.model, self._body, inputs | few, stop=False)
        habits = habits_of(found, self.model, ids, self.image_token, self._words)
        head = self.model.get_output_embeddings()
        lm = CausalDecoder(self._body, head, habits).eval()
        seen = pictures_of(found, ids, torch.ones_like(ids).bool(), self.image_token, frames)[0]
        (other,) = self._look(*self._process([[image]], "Where is it?"))
        if not torch.allclose(other.features, seen.features, rtol=1e-2, atol=1e-3):
            raise BackboneError(
                f"what a {type(self.model).__name__} sees in an image depends on the question, so "
                "its images cannot be looked at once and kept"
            )
        (segment,) = self.splice(seen, _ASKED)
        if segment.ids != ids[0].tolist():  # type: ignore[union-attr]
            raise BackboneError(f"{self.name}: its processor's tokens are not its tokenizer's")
        last = hidden_states(lm, assemble([Row([segment])], self._words))[0, -1]
        cap = getattr(lm.config.get_text_config(), "final_logit_softcapping", None)
        theirs = output.logits[0, -1].float()
        limit = 1e-3 if output.logits.dtype == torch.float32 else 0.05
        heads = [head, *([Capped(head, cap)] if cap else [])]
        gaps = [float((h(last).float() - theirs).abs().max() / theirs.abs().max()) for h in heads]
        if min(gaps) > limit:
            given = ", ".join(unknown(found))
            raise BackboneError(
                f"{self.name}: a {type(self.model).__name__} cannot be driven from here; on one "
                f"picture our logits differ from its own by {min(gaps):.1%}"
                + (f" (its decoder also gets {given})" if given else ""),
            )
        lm.lm_head = heads[gaps.index(min(gaps))]
        return lm


class _Prepared:
    """A model's inputs for one image, with its frame."""

    def __init__(self, inputs: dict[str, Any], frames: list[tuple[str, str]]) -> None:
        self.parts = inputs, frames

    @property
    def nbytes(self) -> int:
        return sum(v.nbytes for v in self.parts[0].values() if isinstance(v, Tensor))

    def clone(self) -> _Prepared:
        inputs, frames = self.parts
        copies = {k: v.clone() if isinstance(v, Tensor) else v for k, v in inputs.items()}
        return _Prepared(copies, frames)


class _Listening:
    """A tokenizer that keeps the texts it is called with."""

    def __init__(self, tokenizer: Any, heard: list[list[str]]) -> None:
        self._tokenizer, self._heard_texts = tokenizer, heard

    def __call__(self, text: Any, *args: Any, **kwargs: Any) -> Any:
        self._heard_texts.append([text] if isinstance(text, str) else list(text))
        return self._tokenizer(text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_tokenizer"], name)


def _megabytes(kept: Picture | _Prepared) -> int:
    """What a picture counts in a cache: at least 1."""
    return max(1, kept.nbytes >> 20)


def _has_chat(processor: Any) -> bool:
    holders = (processor, getattr(processor, "tokenizer", None))
    return any(getattr(holder, "chat_template", None) for holder in holders)


def _chat(processor: Any, turns: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
    own = processor if getattr(processor, "chat_template", None) else processor.tokenizer
    return own.apply_chat_template(
        turns, add_generation_prompt=add_generation_prompt, tokenize=False
    )


def _image_token(model: Any, processor: Any) -> int:
    """The id of image tokens.

    Raises:
        BackboneError: neither model nor processor names one.
    """
    for holder in (model.config, processor, processor.tokenizer):
        for name in ("image_token_id", "image_token_index"):
            if isinstance(getattr(holder, name, None), int):
                return getattr(holder, name)
    raise BackboneError(f"a {type(model).__name__} and its processor name no image token")


def _submodule(holder: Any, path: str) -> Any:
    for part in path.split("."):
        holder = getattr(holder, part, None)
    return holder if isinstance(holder, nn.Module) else None
