"""The model that follows facts: the base model under a LoRA adapter, by ``peft``.

Where nothing stands before a question it is not asked. The base model's modules never see the
adapter (``mscke/lora.py``), so that what it answers unedited stays what it is, bit for bit.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from ...backbones.base import Backbone
from ...backbones.splice import Row, assemble
from ...core.errors import CheckpointError, ConfigError
from ...core.files import write_json
from ...data import Question
from ..checkpoint import AGAIN, read_config, read_tensors, save_tensors
from ..in_context import facts, rows_in_context
from ..mscke.config import CounterfactualConfig
from ..mscke.lora import LoRA
from .config import LTESettings

_PEFT = "base_model.model."  # what peft writes before a name
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"

Facts = Sequence[Sequence[Question]]


class FactReader(LoRA):
    """Reads questions behind facts (``in_context.py``); where there are none, the question alone.

    Args:
        backbone: the frozen base model; never changed, its weights are shared.
        config: ``rank``, ``alpha``, ``dropout`` and ``targets`` count.

    Raises:
        ConfigError: ``peft`` is not installed, or no linear module matches ``targets``.
    """

    kind = "lte"

    @classmethod
    def from_settings(cls, backbone: Backbone, settings: LTESettings) -> Self:
        """An untrained one: it answers as the base model does on the same row."""
        names = ("rank", "alpha", "dropout", "targets")
        values = {name: getattr(settings, name) for name in names}
        try:
            config = CounterfactualConfig(kind="lora", **values)
            return cls(backbone, config).to(backbone.device)
        except ConfigError as error:  # it speaks of MSCKE's setting of that name
            message = error.message.replace("counterfactual.targets", "targets")
            raise ConfigError(message, remedy=error.remedy) from error

    def rows(  # type: ignore[override]
        self,
        facts_of: Facts,
        queries: Sequence[Question],
        *,
        with_answers: bool = False,
        stop: bool = False,
        room: int = 0,
    ) -> list[Row]:
        """One :class:`Row` a query, behind the facts of the same place.

        Raises:
            DataError: a question is empty; or a row and ``room`` more tokens do not fit into the
                context window, which says how many facts would.
        """
        plain = self.backbone.rows(queries, with_answers=with_answers or stop, with_stop=stop)
        contexts = [facts(own) if own else None for own in facts_of]
        return rows_in_context(
            self.backbone, queries, plain, contexts, room, parts="LTE's edits", least=1
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        facts_of: Facts,
        queries: Sequence[Question],
        *,
        max_new_tokens: int = 8,
        **kwargs: Any,
    ) -> list[str]:
        """Answers as text; greedy unless ``kwargs`` say otherwise."""
        if not queries:
            return []
        rows = self.rows(facts_of, queries, room=max_new_tokens)
        batch = assemble(rows, self.lm.get_input_embeddings())
        return self._say(batch, max_new_tokens=max_new_tokens, **kwargs)

    # On disk: the two files that peft writes, which ``peft.PeftModel.from_pretrained`` reads.

    def save_pretrained(self, folder: str | Path, *, half: bool = True) -> None:
        """Write ``adapter_config.json`` and ``adapter_model.safetensors``."""
        import peft

        state = peft.get_peft_model_state_dict(self.lm)
        folder = Path(folder)
        save_tensors(folder / _WEIGHTS, {_PEFT + n: t for n, t in state.items()}, half=half)
        config = dataclasses.replace(self.lm.peft_config["default"], inference_mode=True)
        plain = json.loads(json.dumps(config.to_dict(), default=sorted))  # peft has sets in it
        write_json(folder / _CONFIG, plain)

    @classmethod
    def from_pretrained(cls, folder: str | Path, backbone: Backbone) -> Self:
        """A model saved by :meth:`save_pretrained`, for the same backbone; downloads nothing.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the base model.
        """
        folder = Path(folder)
        described = read_config(folder / _CONFIG, ("r", "lora_alpha", "target_modules"))
        targets = described["target_modules"]  # of long lists peft keeps the names' ends alone
        try:
            config = CounterfactualConfig(
                kind="lora",
                rank=described["r"],
                alpha=described["lora_alpha"],
                dropout=described.get("lora_dropout", 0.0),
                targets=[f"*{t}" for t in targets] if isinstance(targets, list) else targets,
            )
            reader = cls(backbone, config).to(backbone.device)
        except ConfigError as error:
            raise CheckpointError(
                f"{folder / _CONFIG} is of no use: {error.message}", remedy=AGAIN
            ) from error
        reader.load(folder)
        return reader.eval()

    def load(self, folder: str | Path) -> None:
        """Take the weights in ``folder``.

        Raises:
            CheckpointError: the file is missing or damaged, or holds other names or shapes.
        """
        import peft

        path = Path(folder) / _WEIGHTS
        found = {name.removeprefix(_PEFT): tensor for name, tensor in read_tensors(path).items()}
        own: dict[str, Tensor] = peft.get_peft_model_state_dict(self.lm)
        wrong = sorted(set(found) ^ set(own))
        wrong += [n for n in found if n in own and found[n].shape != own[n].shape]
        wrong += [n for n in found if not torch.isfinite(found[n]).all()]
        if wrong:
            raise CheckpointError(
                f"{path} does not fit {self.backbone.name}: {len(wrong)} tensors differ or are not "
                f"finite, first {wrong[0]!r}",
                remedy=AGAIN,
            )
        peft.set_peft_model_state_dict(self.lm, found)
