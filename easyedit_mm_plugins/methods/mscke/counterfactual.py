"""The counterfactual model f_cfr(t_e, y_e, i_test, t_test) of MSCKE eq. 3.

:class:`Counterfactual` is all that the editor knows of it, so that other editing methods can take
its place ("employ alternative editing methods", section 3.2): register a class in
``COUNTERFACTUALS`` and name it as ``counterfactual.kind``. :class:`SmallLM` is the trainable model.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...core.errors import BackboneError, CheckpointError, ConfigError
from ...core.files import write_json
from ...data import Question
from ..checkpoint import AGAIN, load_tensors, read_config, save_tensors, tied_names
from ..entries import COUNTERFACTUALS
from ..settings import build
from .config import CounterfactualConfig
from .pairs import PairReader

LOG = logging.getLogger(__name__)


class Counterfactual(ABC):
    """Answers queries that are in the scope of an edit.

    Each call takes as many edits as queries: row i of the queries is in the scope of edit i. A
    row's answer depends on its own edit and query alone.
    """

    kind: ClassVar[str]

    @abstractmethod
    def generate(
        self,
        edits: Sequence[Question],
        queries: Sequence[Question],
        *,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[str]:
        """Answers as text; greedy unless ``kwargs`` say otherwise."""

    @abstractmethod
    def answer_logits(self, edits: Sequence[Question], queries: Sequence[Question]) -> list[Tensor]:
        """Teacher-forced logits ``[n_i, vocab]`` over each query's ``answer``, in the base's
        vocabulary."""

    def top_ids(
        self, edits: Sequence[Question], queries: Sequence[Question], k: int
    ) -> list[Tensor]:
        """The ``k`` most likely ids ``[n_i, k]`` at each position of :meth:`answer_logits`."""
        return [row.topk(k, dim=-1).indices for row in self.answer_logits(edits, queries)]

    def prepare(self, edits: Sequence[Question]) -> None:  # noqa: B027 - a hook, most need none
        """``edits`` come into force. For methods that work per edit; nothing by default.

        Later calls name an edit by the very object that was given here.
        """

    def release(self, edits: Sequence[Question]) -> None:  # noqa: B027
        """``edits`` are taken back: forget what :meth:`prepare` made of them."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What belongs beside a result."""

    @abstractmethod
    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write the model into ``folder``."""

    @classmethod
    @abstractmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """A model saved by :meth:`save_pretrained`."""


class SmallLM(PairReader, nn.Module, Counterfactual):
    """A small trainable causal language model with the base model's vocabulary and eyes.

    Edit and query are one row, see ``pairs.py``; the image is the base model's own embedding
    through a linear map.

    Args:
        backbone: the frozen base model; not a submodule, never changed.
        lm: a Hugging Face causal language model.
        config: see :class:`CounterfactualConfig`.

    Raises:
        BackboneError: the vocabularies differ.
    """

    kind = "small-lm"

    def __init__(self, backbone: Backbone, lm: Any, config: CounterfactualConfig) -> None:
        super().__init__()
        self.backbone, self.config = backbone, config
        self.lm = lm
        size = lm.get_output_embeddings().weight.shape[0]
        if size < len(backbone.tokenizer):
            raise BackboneError(
                f"the counterfactual model has {size} tokens, {backbone.name}'s tokenizer "
                f"{len(backbone.tokenizer)}",
                remedy="choose counterfactual.lm from the base model's family (BLIP-2 OPT: "
                "facebook/opt-125m), or give a configuration with that vocab_size",
            )
        self.vision = nn.Linear(backbone.hidden_size, lm.get_input_embeddings().weight.shape[1])

    @classmethod
    def from_config(cls, backbone: Backbone, config: CounterfactualConfig) -> Self:
        """By Hugging Face name, or with random weights from a configuration mapping.

        A mapping gets the base model's vocabulary size unless it names one.

        Raises:
            ConfigError: the mapping is no configuration of a causal language model.
            BackboneError: the named model cannot be loaded.
        """
        import transformers

        if isinstance(config.lm, dict):
            tokens = backbone.tokenizer
            given = {
                "vocab_size": max(backbone.vocab_size, len(tokens)),
                "bos_token_id": tokens.bos_token_id,
                "eos_token_id": backbone.stop_token_id,
                "pad_token_id": tokens.pad_token_id,
                **config.lm,
            }
            return cls(backbone, _new_lm(given), config)
        try:
            lm = transformers.AutoModelForCausalLM.from_pretrained(config.lm)
        except (OSError, ValueError, KeyError) as error:
            raise BackboneError(
                f"the counterfactual model {config.lm!r} cannot be loaded: {error}",
                remedy="give counterfactual.lm a model folder, a name the hub can serve, or a "
                "configuration to train from random weights",
            ) from error
        return cls(backbone, lm.float(), config)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.vision.weight.device

    def see(self, features: Any) -> Any:
        """The base model's image embeddings [N, V, D], or pictures, through the linear map."""
        if isinstance(features, list):
            return [picture.seen_by(self.see(picture.features)) for picture in features]
        return self.vision(features.to(self.vision.weight))

    def describe(self) -> dict[str, Any]:
        """Kind, architecture and size."""
        size = sum(p.numel() for p in self.parameters())
        return {"kind": self.kind, "lm": self.lm.config.model_type, "parameters": size}

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        folder = Path(folder)
        tied = tied_names(self)
        tensors = {n: t for n, t in self.state_dict().items() if n not in tied}
        save_tensors(folder / "model.safetensors", tensors, half=half)
        described = {"counterfactual": asdict(self.config), "lm": self.lm.config.to_diff_dict()}
        write_json(folder / "config.json", described)

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """A model saved by :meth:`save_pretrained`, for the same backbone; downloads nothing.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the other.
        """
        folder = Path(folder)
        described = read_config(folder / "config.json", ("counterfactual", "lm"))
        where = str(folder / "config.json")
        try:
            config = build(CounterfactualConfig, described["counterfactual"], where)
            model = cls(backbone, _new_lm(described["lm"]), config)
        except ConfigError as error:
            raise CheckpointError(f"{where} is of no use: {error}", remedy=AGAIN) from error
        load_tensors(model, folder / "model.safetensors", tied_names(model))
        return model.eval()


def _new_lm(values: dict[str, Any]) -> nn.Module:
    import transformers

    if not isinstance(values, dict):
        raise ConfigError(f"counterfactual.lm is {values!r}, not a mapping of settings")
    values = dict(values)
    kind = values.pop("model_type", None)
    if kind not in transformers.CONFIG_MAPPING:
        raise ConfigError(
            f"counterfactual.lm has model_type {kind!r}", remedy="give a known one, such as opt"
        )
    try:
        return transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.for_model(kind, **values)
        ).float()
    except Exception as error:  # of wrong values transformers raises nearly anything
        raise ConfigError(f"counterfactual.lm is no causal language model: {error}") from error


def new_counterfactual(backbone: Backbone, config: CounterfactualConfig) -> Counterfactual:
    """An untrained counterfactual model of the kind that ``config`` names.

    Raises:
        UnknownNameError: no such kind.
    """
    return COUNTERFACTUALS.get(config.kind).from_config(backbone, config)
