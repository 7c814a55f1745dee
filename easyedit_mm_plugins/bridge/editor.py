"""`MultimodalEditor` for the plugin's methods, behind EasyEdit's own class.

The wrapped methods look at the algorithm's name: a name of the plugin's goes here, any other to
the original, untouched. Nothing of EasyEdit's own edit loop is used for the plugin's names,
because it needs CUDA (PyPI release), measures "pre" after editing, and compares targets that were
tokenized without their leading space; see this folder's README.
"""

from __future__ import annotations

import copy as copying
import functools
import inspect
import logging
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..backbones import Backbone, HFAuto
from ..core.errors import ConfigError, DataError, UnknownNameError
from ..core.registry import did_you_mean
from ..data.records import EditRecord, Question
from ..data.several import Several
from ..evaluation.protocol import Protocol, Reply
from ..host.easyedit import Host
from ..host.models import (
    ImageProcessor,
    backbone_of,
    build_backbone,
    check_model_name,
    resolve_device,
    tokenizer_for,
)
from ..methods.base import Unedited
from ..methods.entries import MethodEntry
from .edited import EditedModel
from .methods import build_editor, check_archive
from .requests import RecordView, record_from_item, records_from_arguments

LOG = logging.getLogger(__name__)

# Which of EasyEdit's metric names a kind of question gets, and what it is compared with.
METRICS = {
    "edit": ("rewrite_acc", "target"),
    "rephrase": ("rephrase_acc", "target"),
    "image_rephrase": ("image_rephrase_acc", "target"),
    "in_scope": ("in_scope_acc", "target"),
    "text_loc": ("locality_acc", "before"),
    "image_loc": ("multimodal_locality_acc", "before"),
    "out_scope": ("out_scope_acc", "before"),
}

Lookup = Callable[[str], "MethodEntry | None"]


def wrap_init(host: Host, lookup: Lookup) -> Callable[[Any], Any]:
    """The wrapper of ``MultimodalEditor.__init__``."""

    def make(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(self: Any, hparams: Any, *args: Any, **kwargs: Any) -> None:
            name = getattr(hparams, "alg_name", None)
            entry = lookup(name) if isinstance(name, str) else None
            if entry is None:
                if isinstance(name, str) and name not in host.edit_algs:
                    hint = did_you_mean(name, list(host.edit_algs))
                    raise UnknownNameError(f"unknown alg_name {name!r}; {hint}")
                original(self, hparams, *args, **kwargs)
            else:
                _set_up(self, host, entry, hparams)

        return __init__

    return make


def wrap_edit(lookup: Lookup) -> Callable[[Any], Any]:
    """The wrapper of ``MultimodalEditor.edit``."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(original)  # its positional order differs by generation

        @functools.wraps(original)
        def edit(self: Any, *args: Any, **kwargs: Any) -> Any:
            if lookup(getattr(self, "alg_name", "")) is None:
                return original(self, *args, **kwargs)
            bound = dict(signature.bind_partial(self, *args, **kwargs).arguments)
            bound.pop("self", None)
            bound |= bound.pop("kwargs", {})
            return edit_requests(self, **bound)

        return edit

    return make


def wrap_edit_dataset(lookup: Lookup) -> Callable[[Any], Any]:
    """The wrapper of ``MultimodalEditor.edit_dataset``."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def edit_dataset(self: Any, ds: Any, *args: Any, **kwargs: Any) -> Any:
            if lookup(getattr(self, "alg_name", "")) is None:
                return original(self, ds, *args, **kwargs)
            names = ("keep_original_weight", "verbose")
            return edit_records(
                self, RecordView(ds), **dict(zip(names, args, strict=False)), **kwargs
            )

        return edit_dataset

    return make


def executor(entry: MethodEntry) -> Callable[..., tuple[EditedModel, dict]]:
    """The entry of ``ALG_MULTIMODAL_DICT``: EasyEdit's way of applying an algorithm by itself."""

    def apply(
        model: nn.Module,
        tok: Any,
        requests: Any,
        hparams: Any,
        copy: bool = False,
        return_orig_weights: bool = False,
        keep_original_weight: bool = False,
        **kwargs: Any,
    ) -> tuple[EditedModel, dict]:
        """An edited model that holds all ``requests`` (one dictionary or several).

        The base model is never changed, so the weights to put back are always an empty dictionary;
        with ``copy`` the edited model has a base model of its own.
        """
        backbone = backbone_of(model, tok)
        if copy:
            backbone = copying.deepcopy(backbone)
        items = [requests] if isinstance(requests, dict) else list(requests)
        edits = [record_from_item(item, i).edit for i, item in enumerate(items)]
        if not edits:
            raise DataError("there is no request", remedy="give at least one")
        for i, edit in enumerate(edits):
            _check_images(backbone, [edit], f"request {i}")
        editor = build_editor(entry, hparams, backbone)
        return EditedModel(editor, editor.add(edits)), {}

    apply.__name__ = f"apply_{entry.alg.lower()}_to_model"
    apply.plugin_method = entry  # type: ignore[attr-defined]  # ours, for collision checks
    return apply


def _set_up(self: Any, host: Host, entry: MethodEntry, hparams: Any) -> None:
    for field in ("coco_image", "rephrase_image"):
        root = getattr(hparams, field, None)
        if root and not Path(root).is_dir():
            raise ConfigError(
                f"hparams.{field}={root} is not a folder",
                remedy="set it to the folder that image paths are relative to, or to null",
            )
    check_model_name(hparams.model_name)
    check_archive(hparams)
    self.device = resolve_device(getattr(hparams, "device", None))
    backbone = build_backbone(host, hparams)
    self.model, self.tok = backbone.model, tokenizer_for(backbone, hparams)
    if not isinstance(hparams.model_name, str) and hparams.model_name[1] is not None:
        self.tok = hparams.model_name[1]
    self.vis_tok = ImageProcessor(backbone)
    self.model_name = hparams.model_name if isinstance(hparams.model_name, str) else backbone.name
    self.alg_name, self.hparams = hparams.alg_name, hparams
    self.apply_algo = host.edit_algs[hparams.alg_name]
    self.vis_root = getattr(hparams, "coco_image", None)
    self.rephrase_root = getattr(hparams, "rephrase_image", None)
    self.backbone = backbone
    self.editor = build_editor(entry, hparams, backbone)


def edit_requests(
    self: Any,
    prompts: Any,
    targets: Any,
    image: Any = None,
    rephrase_prompts: Any = None,
    rephrase_image: Any = None,
    locality_inputs: Any = None,
    file_type: Any = None,
    **options: Any,
) -> tuple[list[dict[str, Any]], EditedModel | nn.Module, dict]:
    """``MultimodalEditor.edit`` for a method of the plugin; see :func:`edit_records`."""
    records = records_from_arguments(
        prompts,
        targets,
        image,
        rephrase_prompts,
        rephrase_image,
        locality_inputs,
        image_root=self.vis_root,
        rephrase_root=self.rephrase_root,
        template=self.backbone.template,
        file_type=file_type,
    )
    return edit_records(self, records, **options)


def edit_records(
    self: Any,
    records: Sequence[EditRecord],
    keep_original_weight: bool = False,
    verbose: bool = True,
    sequential_edit: bool = False,
    protocol: str | Protocol = "teacher-forced",
    **ignored: Any,
) -> tuple[list[dict[str, Any]], EditedModel | nn.Module, dict]:
    """Edit each record and measure it before and after.

    Each record is edited alone, unless ``sequential_edit`` says that edits add up. "pre" is always
    the unedited model's. The values are the evaluator's (``evaluation/protocol.py``).

    Args:
        keep_original_weight: take the last edit back too, and return the base model.
        protocol: ``"teacher-forced"`` (EasyEdit's kind), ``"released"`` or ``"generated"``.

    Returns:
        ``(all_metrics, edited_model, {})``. A record's metrics hold EasyEdit's ``case_id``,
        ``time``, ``pre`` and ``post``, and ``protocol``, ``route`` (which case's edit answered,
        ``None``: the base model) and ``scope_score``, each by kind of question.
    """
    if ignored:
        LOG.warning("not used by %s: %s", self.alg_name, ", ".join(sorted(ignored)))
    protocol = Protocol.of(protocol)
    editor, base = self.editor, Unedited(self.backbone)
    _retire(self)
    all_metrics: list[dict[str, Any]] = []
    held: dict[str, Any] = {}  # edit ids in force -> case ids
    try:
        for index, record in enumerate(records):
            kinds, questions = _flat(record)
            _check_images(self.backbone, questions, f"request {index}")
            before = protocol.ask(base, questions)
            start = time.time()
            if held and not sequential_edit:
                editor.remove(list(held))
                held.clear()
            case_id = int(record.case_id) if record.case_id.isdigit() else record.case_id
            held |= dict.fromkeys(editor.add([record.edit]), case_id)
            seconds = time.time() - start
            visible = [frozenset(held)] * len(questions) if editor.isolates_rows else None
            after = protocol.ask(editor, questions, visible)
            metrics = _metrics(protocol, kinds, questions, before, after, held)
            metrics = {"case_id": case_id, "time": seconds, **metrics}
            if sequential_edit:
                metrics["case_nums"] = index  # head's name for it there
            all_metrics.append(metrics)
            if verbose:
                edit = record.edit
                LOG.info("%s editing: %s -> %s\n %s", case_id, edit.text, edit.answer, metrics)
    except BaseException:
        editor.remove(list(held))
        raise
    if keep_original_weight:
        editor.remove(list(held))
        return all_metrics, self.model, {}
    edited = EditedModel(editor, list(held))
    self._last_edited = weakref.ref(edited)
    return all_metrics, edited, {}


def _retire(self: Any) -> None:
    """A method that changes weights can hold one edited model at a time; undo the last one."""
    last = getattr(self, "_last_edited", lambda: None)()
    if last is not None and last.ids and not self.editor.isolates_rows:
        LOG.warning("%s: the edited model of the last edit() is undone", self.alg_name)
        last.undo()


def _check_images(backbone: Backbone, questions: Sequence[Question], record: str) -> None:
    """Raise :class:`DataError` where a question has more images than ``backbone`` takes."""
    several = next((q.image for q in questions if isinstance(q.image, Several)), None)
    if several is not None and not isinstance(backbone, HFAuto):
        raise DataError(
            f"holds {len(several.images)} images, but {backbone.name} takes one",
            record=record,
            field="image",
            remedy="give one image, or edit a model of several, such as qwen2-vl",
        )


def _flat(record: EditRecord) -> tuple[list[str], list[Question]]:
    rows = [(kind, q) for kind, questions in record.questions().items() for q in questions]
    return [kind for kind, _ in rows], [q for _, q in rows]


def _metrics(
    protocol: Protocol,
    kinds: Sequence[str],
    questions: Sequence[Question],
    before: Sequence[Reply],
    after: Sequence[Reply],
    held: dict[str, Any],
) -> dict[str, Any]:
    """EasyEdit's ``pre`` and ``post`` as tensors (its users call ``.item()``), and the routes."""
    pre: dict[str, list[float]] = {}
    post: dict[str, list[float]] = {}
    routes: dict[str, list[Any]] = {}
    scores: dict[str, list[float | None]] = {}
    for kind, question, old, new in zip(kinds, questions, before, after, strict=True):
        name, against = METRICS[kind]
        judged = protocol.judge(kind, question, old, new, after[0])
        post.setdefault(name, []).append(getattr(judged, against))
        if against == "target":
            value = protocol.judge(kind, question, old, old, before[0]).target
            pre.setdefault(name, []).append(value)
        routes.setdefault(kind, []).append(None if new.route is None else held.get(new.route))
        scores.setdefault(kind, []).append(new.score)
    return {
        "pre": {name: _mean(values) for name, values in pre.items()},
        "post": {name: _mean(values) for name, values in post.items()},
        "protocol": protocol.name,
        "route": {kind: _single(values) for kind, values in routes.items()},
        "scope_score": {kind: _single(values) for kind, values in scores.items()},
    }


def _mean(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor(sum(values) / len(values))


def _single(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values
