"""EasyEdit HEAD's own WISE, GRACE and LoRA on a Hugging Face model, as editors.

An edit is its executor's, called as its ``MultimodalEditor`` calls it, request by request and, of
several edits, one on top of the other (its ``sequential_edit``). What it leaves in the model is
taken out when the edit is made and lies there only while questions are asked (``swap.py``), which
go the way of every other method's. What is put right from outside:

* edits are undone to the bit; EasyEdit leaves copies of modules behind, a model that keeps no
  cache, and gradient checkpoints;
* dropout ends with the edit; GRACE reads a question at the end of its own prompt, where EasyEdit
  reads it, when teacher-forced, at the place where the edit's prompt ended;
* WISE's lists of past inputs, which all its editors share, begin empty for each sequence of edits.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from types import SimpleNamespace
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch

from ...backbones.auto import HFAuto
from ...backbones.base import Backbone
from ...backbones.splice import answer_logits
from ...core.errors import BackboneError, BridgeError, ConfigError, DataError
from ...data.images import open_image
from ...data.records import Question
from ...data.several import apart
from ...host import easyedit
from ..base import Answer, Editor, Forced, Visible, force_with_base
from ..deltas import linear_modules
from .config import GRACEHyperParams, LORAHyperParams, StockHyperParams, WISEHyperParams
from .swap import Swap, copied, swapped, watched

Made: TypeAlias = tuple[tuple[str, ...], list[Swap]]


class StockEditor(Editor):
    """One of EasyEdit HEAD's methods on a backbone; see the module's docstring.

    Args:
        backbone: a Hugging Face model with its processor.
        settings: by default EasyEdit's.

    Raises:
        BridgeError: EasyEdit is not installed, or has no multimodal method of that name.
        BackboneError: the base model is none that EasyEdit's code can call.
        ConfigError: no module has one of the names.
    """

    alg: ClassVar[str]
    settings_class: ClassVar[type[StockHyperParams]]
    backbone: HFAuto

    def __init__(self, backbone: Backbone, settings: StockHyperParams | None = None) -> None:
        super().__init__(backbone)
        self.settings: Any = settings or self.settings_class(model_name=backbone.name)
        self.host = easyedit.load()
        if self.alg not in self.host.edit_algs:
            raise BridgeError(
                f"this EasyEdit ({self.host.generation}) has no multimodal {self.alg}",
                remedy=f"clone EasyEdit's repository and set {easyedit.ENV} to the checkout",
            )
        if not isinstance(backbone, HFAuto) or not backbone.chat:
            raise BackboneError(
                f"EasyEdit's {self.alg} edits Hugging Face models through their processor's chat "
                f"template, and {backbone.name} has none",
                remedy="take a model such as scenes-qwen, qwen2-vl or llava-onevision",
            )
        self.modules = self._modules()
        self._made: Made = ((), [])  # the edits that the edited modules hold
        self._before: Made = ((), [])  # a copy, from before the last call of add
        self._lock = threading.RLock()  # one edited model at a time

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Any:
        """The editor that ``settings`` describe."""
        return cls(backbone, settings)

    def _modules(self) -> list[str]:
        """Names of the edited modules in the whole model, as EasyEdit writes them."""
        places = {module: name for name, module in self.backbone.model.named_modules()}
        found = linear_modules(self.backbone, self.settings.modules).values()
        return [places[module] for module in found]

    def hparams(self) -> SimpleNamespace:
        """What EasyEdit's code reads."""
        return SimpleNamespace(
            **{
                **self.settings.to_dict(),
                "model_name": self.backbone.family.replace("_", "-"),
                "device": str(self.backbone.device),
                "dtype": next(self.backbone.model.parameters()).dtype,
                "inner_params": [re.sub(r"\.(\d+)", r"[\1]", name) for name in self.modules],
                "batch_size": 1,
                "use_chat_template": True,
            }
        )

    def request(self, edit: Question) -> dict[str, Any]:
        """An edit as EasyEdit's executors take it."""
        pictures = [open_image(one) for one in apart(edit.image)]
        stop = self.backbone.tokenizer.convert_ids_to_tokens(self.backbone.stop_token_id)
        return {
            "prompt": edit.text.strip(),
            "target": edit.answer.strip() + (stop if self.settings.with_stop else ""),
            "image": pictures[0] if len(pictures) == 1 else pictures,
            "file_type": "image" if len(pictures) == 1 else "multi-image",
        }

    @staticmethod
    def check_edits(edits: Sequence[Question]) -> None:
        """As for every method, and each edit must have an image."""
        Editor.check_edits(edits)
        for i, edit in enumerate(edits):
            if edit.image is None:
                raise DataError(
                    "has no image, and EasyEdit's multimodal executors take none without",
                    record=f"edit {i}",
                    field="image",
                    remedy="edit text with ft-llm",
                )

    # Edits ------------------------------------------------------------------------------------

    def add(self, edits: Sequence[Question]) -> list[str]:
        """See :class:`Editor`; each edit is made on top of those before it.

        Raises:
            BridgeError: EasyEdit's code fails; says with what.
        """
        with self._lock:
            made, swaps = self._made
            before: Made = (made, copied(swaps))
            ids = super().add(edits)
            self._before = before
            try:
                with self._edited(tuple(self.store.now.ids)):
                    return ids
            except BaseException:
                self.remove(ids)
                raise

    def forget(self, edits: Sequence[Question]) -> None:
        """See :class:`Editor`; but for what the last call added, the edits that are left are made
        anew when they are asked for."""
        with self._lock:
            last = self._before[0] == tuple(self.store.now.ids)
            self._made = self._before if last else ((), [])
            self._before = (), []

    @contextmanager
    def _edited(self, ids: tuple[str, ...]) -> Iterator[list[Swap]]:
        """The model is under these edits inside the block."""
        with self._lock:
            made, swaps = self._made
            if ids[: len(made)] != made:
                made, swaps = (), []
            self._made = (), []  # of a sequence that is broken off nothing is kept
            if not made:
                self.begin()
            now = self.store.now.edits
            for place in range(len(made), len(ids)):
                swaps = self._edit(now[ids[place]], swaps, place)
            self._made = ids, swaps
            with swapped(swaps):
                yield swaps

    def _edit(self, edit: Question, swaps: list[Swap], place: int) -> list[Swap]:
        model, apply = self.backbone.model, self.host.edit_algs[self.alg]
        for swap in swaps:
            swap.new.train()
        with watched(model, swaps) as found, _seeded(self.settings.seed + place):
            try:
                with torch.enable_grad(), redirect_stdout(io.StringIO()):  # it prints every step
                    self.prepare(swaps)
                    apply(model, self.backbone.processor, [self.request(edit)], self.hparams())
            except (DataError, ConfigError):
                raise
            except Exception as error:  # somebody else's code
                text = " ".join(str(error).split())[:300]
                raise BridgeError(
                    f"EasyEdit's {self.alg} cannot edit {self.backbone.name}: "
                    f"{type(error).__name__}: {text}"
                ) from error
        for swap in found:
            swap.new.eval().zero_grad()
            for name, value in list(vars(swap.new).items()):
                if isinstance(value, torch.Tensor) and not value.is_leaf:
                    setattr(swap.new, name, value.detach())  # else it holds the whole pass
        return found

    def begin(self) -> None:
        """Called before the first edit of a sequence."""

    def prepare(self, swaps: list[Swap]) -> None:
        """Called before each edit, with the edited modules in the model."""

    def ask(self, swaps: list[Swap], end: int) -> None:
        """Called before each question; its prompt ends at ``end``, or where what is given ends."""

    # Answers ----------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        questions: Sequence[Question],
        *,
        visible: Visible = None,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[Answer]:
        """See :class:`Editor`; one row at a time, since EasyEdit's modules decide for a batch."""
        base, texts = self.backbone, [""] * len(questions)
        kwargs["max_new_tokens"] = max_new_tokens
        for ids, rows in self._groups(len(questions), visible).items():
            if not ids:
                said = base.generate([questions[i] for i in rows], **kwargs)
                for i, text in zip(rows, said, strict=True):
                    texts[i] = text
                continue
            with self._edited(ids) as swaps:
                for i in rows:
                    self.ask(swaps, -1)
                    (texts[i],) = base.generate([questions[i]], **kwargs)
        return [Answer(text) for text in texts]

    @torch.no_grad()
    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        """See :class:`Editor`; likewise."""
        base, found = self.backbone, dict[int, Forced]()
        for ids, rows in self._groups(len(questions), visible).items():
            if not ids:
                own = force_with_base(base, [questions[i] for i in rows], top_k)
                found |= dict(zip(rows, own, strict=True))
                continue
            with self._edited(ids) as swaps:
                for i in rows:
                    batch = base.batch([questions[i]], with_answers=True)
                    self.ask(swaps, int(batch.prompt_end[0]))
                    (logits,) = answer_logits(base.language_model, batch)
                    top = logits.topk(top_k, dim=-1).indices.cpu()
                    found[i] = Forced(base.answer_ids(questions[i].answer), top)
        return [found[i] for i in range(len(questions))]

    def _groups(self, count: int, visible: Visible) -> dict[tuple[str, ...], list[int]]:
        """The rows by the edits that they see."""
        now, groups = self.store.now, dict[tuple[str, ...], list[int]]()
        for row in range(count):
            ids = now.seen_by(None if visible is None else visible[row])
            groups.setdefault(ids, []).append(row)
        return groups

    def describe(self) -> dict[str, Any]:
        """Whose code edits what, and how."""
        common = {f for f in StockHyperParams.__dataclass_fields__ if f != "with_stop"}
        own = {k: v for k, v in self.settings.to_dict().items() if k not in common}
        return {"code": f"{self.alg} of EasyEdit ({self.host.generation})", **own}


class WISE(StockEditor):
    """A copy of one module's weights is tuned; distance of the two outputs says which answers."""

    name = "wise"
    alg = "WISE"
    settings_class = WISEHyperParams

    def hparams(self) -> SimpleNamespace:
        """See :class:`StockEditor`."""
        found = super().hparams()
        found.alpha, found.beta, found.gamma = map(float, self.settings.act_margin)
        found.hidden_act = self.backbone.language_model.config.get_text_config().hidden_act
        found.objective_optimization, found.sequential_edit = "only_label", True
        return found

    def request(self, edit: Question) -> dict[str, Any]:
        """See :class:`StockEditor`; with a question that the edit is kept away from."""
        return {
            **super().request(edit),
            "locality_prompt": self.settings.locality_prompt,
            "locality_ground_truth": self.settings.locality_ground_truth,
        }

    def begin(self) -> None:
        """See :class:`StockEditor`."""
        module: Any = self.host.module("models.wise.WISE")
        module.edit_history, module.merge_group_edit_history = [], []


class GRACE(StockEditor):
    """Near the key of an edit, one module's output is the edit's value."""

    name = "grace"
    alg = "GRACE"
    settings_class = GRACEHyperParams

    def ask(self, swaps: list[Swap], end: int) -> None:
        """See :class:`StockEditor`."""
        for swap in swaps:
            setattr(swap.new, "key_id", end)  # noqa: B010


class LORA(StockEditor):
    """Low-rank matrices beside some modules are tuned on each edit."""

    name = "lora"
    alg = "LoRA"
    settings_class = LORAHyperParams

    def hparams(self) -> SimpleNamespace:
        """See :class:`StockEditor`."""
        found = super().hparams()
        found.target_modules, found.layers = self.modules, []
        return found

    def prepare(self, swaps: list[Swap]) -> None:
        """See :class:`StockEditor`: EasyEdit goes on with matrices that the model knows of."""
        if swaps:
            self.backbone.model.peft_config = {}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Torch's and numpy's random numbers begin at ``seed`` inside the block, and go on after it as
    if it had not been."""
    before = np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed)
            yield
    finally:
        np.random.set_state(before)
