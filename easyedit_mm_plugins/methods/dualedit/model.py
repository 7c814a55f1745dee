"""DualEdit as an editor: two adapters, a gate and a memory beside a frozen base model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.partial import capture, only_below
from ...backbones.splice import Batch, answer_logits, hidden_states
from ...core.errors import CheckpointError, ConfigError
from ...data import EditRecord, Question
from ..base import Answer, Editor, Forced, Visible
from ..checkpoint import AGAIN, load_tensors, read_header, save_tensors, write_header
from ..edit_file import SavedEdits
from ..mscke_self.calibration import SelfCalibration
from ..mscke_self.parts import load_scope, trained_scope
from ..mscke_self.reading import decided, keys_of, read_keys, until
from ..mscke_self.scope import SelfScope
from ..routed import Hit, latest
from ..settings import Number, build, checked
from ..store import EditStore, InForce, Kept
from .adapters import Adapters, new_adapter
from .calibration import MAX_LEAK, Calibration, calibrate
from .config import DualEditConfig, DualEditHyperParams, check_threshold
from .edited_pass import Chosen, EditedPass
from .gate import KEY, LearnedGate, gate_input, new_gate, paper_threshold
from .memory import Memory, Sample, Values, gather, nearest, unit

_AT_ONCE = 32  # edit samples per forward pass
_HEADS = "scope"  # their folder
_NOTHING = Chosen(torch.empty(0, dtype=torch.long), [])  # every gate is shut
Result = TypeVar("Result")


class _NotKeptError(Exception):
    """A pass has hit edits whose values were pushed out of the memory."""

    def __init__(self, lacking: dict[Sample, Question]) -> None:
        super().__init__(len(lacking))
        self.lacking = lacking


class DualEdit(Editor):
    """Edits what a frozen model's middle layers give out, where a gate finds an edit in scope.

    Args:
        backbone: the base model; its weights are never changed.
        config: adapters and gate; by default the paper's.
        scope: the heads of gate ``self``; by default those of ``gate.scope_of``.

    Raises:
        CheckpointError: the heads of gate ``self`` cannot be had.
        ConfigError: a layer that the backbone lacks, or another setting that cannot be used.
    """

    name = "dualedit"
    isolates_rows: ClassVar[bool] = True

    def __init__(
        self,
        backbone: Backbone,
        config: DualEditConfig | None = None,
        scope: SelfScope | None = None,
    ) -> None:
        self.config = config or DualEditConfig()
        gate, calibrated = self.config.gate, 0.5
        learned = gate.kind == "learned"
        if gate.kind == "self" and scope is None:
            scope, calibrated = trained_scope(gate.scope_of, backbone)
        self.scope = scope if gate.kind == "self" else None
        if self.scope is not None:
            store = EditStore(self.scope.stored, backbone.device, self.scope.same)
        else:
            store = EditStore(KEY if learned else backbone.hidden_size, backbone.device)
        super().__init__(backbone, store)
        self.config.check_layers(len(backbone.layers), backbone.name)
        made = [new_adapter(a, backbone.hidden_size) for a in self.config.adapters]
        self.adapters = Adapters(made).to(backbone.device).eval()
        usual = paper_threshold(backbone) if self.scope is None else calibrated
        self.threshold = usual if gate.threshold is None else gate.threshold
        self.thresholds: dict[str, float] = {}  # calibrated ones of other gates, by kind
        self.gate: LearnedGate | None = new_gate(backbone) if learned else None
        self.memory = Memory(backbone.model)
        self.decoder = backbone.decoder  # looking for it takes a while

    @property
    def threshold(self) -> float:
        """tau: a cosine at or above it opens the gate."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._threshold = check_threshold(value)

    @property
    def gate_layer(self) -> int:
        """Where the gate is read."""
        return self.config.gate_layer if self.scope is None else self.scope.layer

    def with_gate(
        self, kind: str, threshold: float | None = None, scope_of: str | None = None
    ) -> Self:
        """The same trained editor behind another gate, with no edits in force; weights are shared.

        Args:
            kind: see :class:`GateConfig`.
            threshold: by default the calibrated one of that gate, or the paper's.
            scope_of: of gate ``self``, see there.

        Raises:
            ConfigError: a learned gate is asked for and there is none.
            CheckpointError: the heads of gate ``self`` cannot be had.
        """
        if threshold is None:
            threshold = {**self.thresholds, self.config.gate.kind: self.threshold}.get(kind)
        changes: dict[str, Any] = {"kind": kind, "threshold": threshold, "scope_of": scope_of}
        if kind == "self":
            changes["layer"] = None
        gate = replace(self.config.gate, **changes)  # GateConfig checks the kind
        if kind == "learned" and self.gate is None:
            raise ConfigError(
                "this editor has no learned gate", remedy="train one, or use gate prompt-end"
            )
        scope = self.scope if scope_of is None else None
        other = type(self)(self.backbone, replace(self.config, gate=gate), scope)
        other.adapters, other.gate = self.adapters, self.gate
        other.thresholds = {**self.thresholds, self.config.gate.kind: self.threshold}
        return other

    # Edits ------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, edits: Sequence[Question]) -> Kept:
        """Run each edit sample (image, prompt, answer) through the base model once.

        Raises:
            DataError: an image cannot be read, or a sample is longer than the context.
        """
        keys, samples = [], []
        for start in range(0, len(edits), _AT_ONCE):
            found, values = self._run(edits[start : start + _AT_ONCE])
            keys.append(found)
            for own in values:
                samples.append(Sample())
                self.memory.kept.put(samples[-1], own)
        return Kept(torch.cat(keys), samples)

    def _run(self, edits: Sequence[Question]) -> tuple[Tensor, list[Values]]:
        """Each edit sample's key for the gate, and its keys and values for the adapters."""
        batch, values = self.backbone.batch(edits, with_answers=True), list[Values]()
        found, dtype = self._states(batch), self.backbone.dtype
        for row, real in enumerate(batch.attention_mask.bool()):
            states = [found[a.layer][row, real] for a in self.config.adapters]
            end = int(real[: batch.prompt_end[row] + 1].sum()) - 1
            pairs = [a.memory(state, end) for a, state in zip(self.adapters, states, strict=True)]
            values.append([(keys.to(dtype), own.to(dtype)) for keys, own in pairs])
        read = found[self.gate_layer]
        if self.scope is not None:
            return keys_of(self.scope, read, batch), values
        return unit(self.key_of(gate_input(self.config.gate.kind, read, batch))), values

    def remove(self, ids: Collection[str]) -> None:
        """See :class:`Editor`."""
        samples = self.store.now.payloads
        gone = [samples[i] for i in ids if i in samples]
        super().remove(ids)
        for sample in gone:
            self.memory.kept.drop(sample)

    # Queries ----------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        questions: Sequence[Question],
        *,
        visible: Visible = None,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[Answer]:
        """Answers under the edits in force; greedy by default, each row by its own gate.

        ``kwargs`` go to the language model's ``generate``: sampling and beams work.

        Raises:
            ConfigError: several sequences a question are asked for.
        """
        if kwargs.get("num_return_sequences", 1) != 1:
            raise ConfigError(
                "num_return_sequences must be 1", remedy="repeat the question instead"
            )
        if not questions:
            return []
        batch = self.backbone.batch(questions)
        hits, ids = self._through(
            batch,
            visible,
            lambda: self.backbone.generate_ids(batch, max_new_tokens=max_new_tokens, **kwargs),
        )
        texts = self.backbone.decode(ids)
        return [Answer(t, *self._route(h)) for t, h in zip(texts, hits, strict=True)]

    @torch.no_grad()
    def force(
        self, questions: Sequence[Question], *, visible: Visible = None, top_k: int = 1
    ) -> list[Forced]:
        """Teacher-forced predictions for each question's ``answer``.

        The prompt-end gate decides as in :meth:`generate`; the released one sees the answer.
        """
        if not questions:
            return []
        batch = self.backbone.batch(questions, with_answers=True)
        lm = self.backbone.language_model
        hits, logits = self._through(batch, visible, lambda: answer_logits(lm, batch))
        return [
            Forced(ids, row.topk(top_k, dim=-1).indices.cpu(), *self._route(hit))
            for ids, row, hit in zip(batch.answers, logits, hits, strict=True)
        ]

    @torch.no_grad()
    def route(self, questions: Sequence[Question], *, visible: Visible = None) -> list[Hit]:
        """The nearest edit and its cosine (eq. 4) as asked, threshold not applied."""
        now = self.store.now
        if not questions or not now.edits:
            return [Hit(None, 0.0)] * len(questions)
        keys = self.gate_keys(questions)
        if self.scope is not None:
            return self.scope.lookup(now, keys, self.threshold, visible)
        return nearest(now, keys, visible)

    @torch.no_grad()
    def gate_keys(self, questions: Sequence[Question], *, with_answers: bool = False) -> Tensor:
        """The gate's key ``[B, K]`` of each question, from the base model."""
        if self.scope is not None:
            return read_keys(self.backbone, self.scope, questions)
        return self.key_of(self.gate_inputs(questions, with_answers=with_answers))

    @torch.no_grad()
    def gate_inputs(self, questions: Sequence[Question], *, with_answers: bool = False) -> Tensor:
        """What the gate reads of each question, see :func:`gate_input`; lower layers run only."""
        batch = self.backbone.batch(questions, with_answers=with_answers)
        layer = self.config.gate_layer
        with only_below(self.decoder, layer + 1):
            found = self._states(batch, (layer,))[layer]
        return gate_input(self.config.gate.kind, found, batch)

    def key_of(self, inputs: Tensor) -> Tensor:
        """The gate's key of what it reads: a learned gate's projection, else the token itself."""
        if self.config.gate.kind != "learned":
            return inputs
        assert self.gate is not None
        return self.gate(inputs)

    @contextmanager
    def _edited(
        self, batch: Batch, visible: Visible, held: dict[Sample, Values] | None = None
    ) -> Iterator[list[Hit]]:
        """Passes of ``batch`` inside are edited; the list is filled by the first one.

        ``held`` has values that are at hand, whatever is pushed out of the memory.
        """
        if visible is not None and len(visible) != len(batch.answers):
            raise ConfigError(
                f"visible has {len(visible)} rows, there are {len(batch.answers)} questions"
            )
        now, hits = self.store.now, [Hit(None, 0.0)] * len(batch.answers)
        if not now.edits:
            yield hits
            return
        values = {} if held is None else held

        def decide(hidden: Tensor) -> Chosen:
            read = gate_input(self.config.gate.kind, hidden, batch)
            hits[:] = nearest(now, self.key_of(read), visible)
            return self._chosen(now, hits, hidden.device, values)

        with EditedPass(self.decoder, self.config, self.adapters, batch, decide).running():
            yield hits

    def _through(
        self, batch: Batch, visible: Visible, run: Callable[[], Result]
    ) -> tuple[list[Hit], Result]:
        """The hits, and what ``run`` returns, whose passes of ``batch`` are edited.

        Where a hit edit's values are not kept, it begins again with them.
        """
        held: dict[Sample, Values] = {}
        with self.store.held() as now:
            while True:
                try:
                    if self.scope is not None and now.edits:
                        return self._decided(self.scope, now, batch, visible, held, run)
                    with self._edited(batch, visible, held) as hits:
                        return hits, run()
                except _NotKeptError as error:
                    self._make_again(error.lacking, held)

    def _decided(
        self,
        scope: SelfScope,
        now: InForce,
        batch: Batch,
        visible: Visible,
        held: dict[Sample, Values],
        run: Callable[[], Result],
    ) -> tuple[list[Hit], Result]:
        """As :meth:`_through`, by heads that may read a layer above the adapters': where they find
        an edit, the base model's pass ends there, and an edited one begins."""
        hits: list[Hit] = []
        chosen = _NOTHING

        def decide(hidden: Tensor) -> bool:
            nonlocal chosen
            found = decided(scope, hidden, batch, now, self.threshold, visible)
            hits[:] = latest(now, found, visible)
            chosen = self._chosen(now, hits, hidden.device, held)
            return not len(chosen.rows)

        said = until(self.decoder, scope.layer, decide, run)
        if said is not None:
            return hits, said
        edited = EditedPass(self.decoder, self.config, self.adapters, batch, lambda _: chosen)
        edited.chosen = chosen
        with edited.running():
            return hits, run()

    def _make_again(self, lacking: dict[Sample, Question], held: dict[Sample, Values]) -> None:
        samples = list(lacking)
        for start in range(0, len(samples), _AT_ONCE):
            some = samples[start : start + _AT_ONCE]
            _, values = self._run([lacking[sample] for sample in some])
            for sample, own in zip(some, values, strict=True):
                held[sample] = own
                self.memory.kept.put(sample, own)

    def _chosen(
        self,
        now: InForce,
        hits: Sequence[Hit],
        device: torch.device,
        held: dict[Sample, Values],
    ) -> Chosen:
        ids = {i: hit.id for i, hit in enumerate(hits) if hit.id is not None and self.is_open(hit)}
        if not ids:
            return _NOTHING
        edit_of = {now.payloads[i]: now.edits[i] for i in ids.values()}
        if lacking := self.memory.lacking(list(edit_of), held):
            raise _NotKeptError({sample: edit_of[sample] for sample in lacking})
        memory = gather([held[now.payloads[i]] for i in ids.values()])
        return Chosen(torch.tensor(list(ids), dtype=torch.long, device=device), memory)

    def calibrate(
        self,
        records: Sequence[EditRecord],
        *,
        edits: int = 1,
        at_most: float | None = None,
        more: Sequence[Question] = (),
    ) -> Calibration:
        """Set the gate's threshold from held-back records; see :func:`calibration.calibrate`.

        Args:
            edits: so many are in the memory at once, of ``records`` and then of ``more``.
            at_most: the share of each kind of question that may pass and must not; by default
                0.005.

        Raises:
            ConfigError: the gate has no threshold. DataError: see there.
        """
        if self.config.gate.kind == "off":
            raise ConfigError("gate off has no threshold", remedy="calibrate another gate")
        leak = MAX_LEAK if at_most is None else at_most
        found = calibrate(self, records, others=edits - 1, max_leak=leak, more=more)
        self.threshold = found.threshold
        if self.scope is not None and isinstance(found, SelfCalibration):
            found.apply(self.scope)
        return found

    def is_open(self, hit: Hit) -> bool:
        """Whether the gate lets this edit through."""
        always = self.config.gate.kind == "off"
        return hit.id is not None and (always or hit.score >= self.threshold)

    def _route(self, hit: Hit) -> tuple[str | None, float | None]:
        return (hit.id if self.is_open(hit) else None), (None if hit.id is None else hit.score)

    def _states(self, batch: Batch, layers: Sequence[int] | None = None) -> dict[int, Tensor]:
        """Outputs ``[B, T, D]`` of ``layers`` (all that the config names) in the base model."""
        if layers is None:
            layers = [self.gate_layer, *(a.layer for a in self.config.adapters)]
        with capture(self.decoder, layers) as found:
            hidden_states(self.backbone.language_model, batch)
        return found

    def describe(self) -> dict[str, Any]:
        """Gate, threshold and adapters: what belongs beside a result."""
        return {
            "gate": self.config.gate.kind,
            "gate_layer": self.gate_layer,
            "threshold": self.threshold,
            "adapters": [f"{a.tokens}@{a.layer} ({a.form})" for a in self.config.adapters],
            "text_tokens": self.config.text_tokens,
        }

    # On disk ----------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """A hash of the adapters and of what the gate reads: what a saved memory depends on."""
        sha = hashlib.sha256(repr((self.config.gate.kind, self.config.gate_layer)).encode())
        parts: list[nn.Module] = [self.adapters]
        if self.gate is not None and self.config.gate.kind == "learned":
            parts.append(self.gate)
        for tensor in [t for part in parts for t in part.state_dict().values()]:
            sha.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        if self.scope is not None:
            sha.update(self.scope.fingerprint().encode())
        return sha.hexdigest()[:16]

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write ``adapters/``, ``gate/`` if one was learned, ``scope/`` with the heads of gate
        ``self``, and ``config.json``, last.

        Args:
            folder: made if absent.
            half: store weights as fp16 (they are used as fp32); ``False`` keeps every bit.
        """
        folder = Path(folder)
        for part in ("adapters", "gate"):
            module = getattr(self, part)
            if module is not None:
                save_tensors(folder / part / "model.safetensors", module.state_dict(), half=half)
        if self.scope is not None:
            self.scope.save_pretrained(folder / _HEADS, half=half)
        config = asdict(self.config)
        config["gate"] |= {"threshold": self.threshold, "scope_of": None}
        write_header(folder, self.name, self.backbone, config=config, thresholds=self.thresholds)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, backbone: Backbone, *, fresh_gate: bool = False
    ) -> Self:
        """An editor saved by :meth:`save_pretrained`, for the backbone it was trained on.

        Args:
            fresh_gate: its gate is a learned one that has yet to be fitted, whatever it had.

        Raises:
            CheckpointError: something is missing or damaged, or the editor is for another
                backbone; the message names both.
        """
        folder = Path(folder)
        saved = read_header(folder, cls.name, backbone, ["config"])
        try:
            config = build(DualEditConfig, saved["config"], "config")
            if fresh_gate:
                config = replace(config, gate=replace(config.gate, kind="learned"))
            own = config.gate.kind == "self"
            editor = cls(backbone, config, load_scope(folder / _HEADS, backbone) if own else None)
            editor.thresholds = checked(
                dict[str, Number], saved.get("thresholds", {}), "thresholds"
            )
        except ConfigError as error:
            raise CheckpointError(f"{folder / 'config.json'}: {error}", remedy=AGAIN) from error
        load_tensors(editor.adapters, folder / "adapters" / "model.safetensors")
        path = folder / "gate" / "model.safetensors"
        if not fresh_gate and (path.is_file() or editor.gate is not None):
            editor.gate = editor.gate or new_gate(backbone)
            load_tensors(editor.gate, path)
        return editor

    @classmethod
    def from_hparams(cls, settings: Any, backbone: Backbone) -> Self:
        """The editor that ``settings`` describe.

        A trained editor's adapters are taken as they are. For editing its gate is of the kind that
        ``settings`` name, and a threshold there replaces the editor's own.

        Raises:
            CheckpointError, ConfigError: see :meth:`Editor.from_hparams`.
        """
        if settings.archive is None:
            return cls(backbone, settings.config)
        editor = cls.from_pretrained(settings.archive, backbone)
        kind, threshold, heads = (
            settings.gate.kind,
            settings.gate.threshold,
            settings.gate.scope_of,
        )
        other = kind != editor.config.gate.kind or heads is not None
        if isinstance(settings, DualEditHyperParams) and other:
            return editor.with_gate(kind, threshold, heads)
        if threshold is not None:
            editor.threshold = threshold
        return editor

    def made_by(self) -> str:
        """Adapters and gate."""
        return f"DualEdit editor {self.fingerprint()}"

    def unpack(self, saved: SavedEdits) -> Kept:
        """The gate's saved keys; values are made when an edit is hit."""
        return Kept(saved.keys(self.store.now.keys.shape[1]), [Sample() for _ in saved.edits])
