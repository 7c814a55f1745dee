"""A vision-language model on this machine as the judge."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ....core.errors import BackboneError
from ...images import open_image
from .judge import Judge
from .prompts import VERDICTS

_SCOPE = "a simple judgment (Yes, No, Maybe)"


class LocalJudge(Judge):
    """An image-text-to-text model of transformers (LLaVA, Qwen-VL, Idefics, ...).

    The reply to a scope prompt is the one of Yes, No and Maybe with the highest probability: a
    small model seldom keeps to the three words by itself. Other replies are generated greedily.

    Args:
        path: a folder or a hub name.
        device: "cpu", "cuda", ...
        dtype: as torch names it; None: as the weights are.

    Raises:
        BackboneError: the model or its processor cannot be loaded.
    """

    def __init__(self, path: str | Path, *, device: str = "cpu", dtype: str | None = None) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.path = str(path)
        try:
            self.processor = AutoProcessor.from_pretrained(path)
            self.model = AutoModelForImageTextToText.from_pretrained(
                path, torch_dtype=getattr(torch, dtype) if dtype else "auto"
            )
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise BackboneError(
                f"cannot load a vision-language judge from {path}: {error}",
                remedy="give a folder or hub name of an image-text-to-text model with a processor",
            ) from error
        self.model.to(device).eval()
        self._lock = threading.Lock()  # one forward pass at a time

    def identity(self) -> dict[str, Any]:
        return {"judge": "local", "model": self.path}

    def reply(
        self, prompt: str, image: Path | None, history: Sequence[str], max_tokens: int
    ) -> str:
        picture = open_image(image) if image is not None else None
        with self._lock, torch.inference_mode():
            inputs = self._inputs(prompt, picture, history)
            if _SCOPE in prompt:
                return max(VERDICTS, key=lambda word: self.score(inputs, word))
            made = self.model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
            new = made[0, inputs["input_ids"].shape[1] :]
            return self.processor.tokenizer.decode(new, skip_special_tokens=True).strip()

    def score(self, inputs: dict[str, torch.Tensor], word: str) -> float:
        """Log-probability of ``word`` as the reply to ``inputs`` (ids [1, T])."""
        tokenizer = self.processor.tokenizer
        ids = tokenizer(word, add_special_tokens=False, return_tensors="pt")["input_ids"]
        ids = ids.to(inputs["input_ids"].device)
        n = ids.shape[1]
        more = {
            "input_ids": torch.cat([inputs["input_ids"], ids], 1),
            "attention_mask": torch.cat([inputs["attention_mask"], torch.ones_like(ids)], 1),
        }
        logits = self.model(**{**inputs, **more}).logits[0, -n - 1 : -1].float()
        return float(logits.log_softmax(-1).gather(1, ids[0, :, None]).sum())

    def _inputs(self, prompt: str, picture: Any, history: Sequence[str]) -> dict[str, Any]:
        turns = [("user", prompt)]
        turns += [(("assistant", "user")[i % 2], text) for i, text in enumerate(history)]
        if getattr(self.processor, "chat_template", None):
            messages: list[dict[str, Any]] = [
                {"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns
            ]
            if picture is not None:
                messages[0]["content"].insert(0, {"type": "image"})
            text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        else:
            mark = getattr(self.processor, "image_token", "<image>") if picture else ""
            lines = [f"{role.upper()}: {text}" for role, text in turns]
            text = "\n".join([*([mark] if mark else []), *lines, "ASSISTANT:"])
        given = {"images": picture} if picture is not None else {}
        inputs = self.processor(text=text, return_tensors="pt", **given)
        inputs.pop("token_type_ids", None)  # made by some tokenizers, refused by language models
        return {k: v.to(self.model.device) for k, v in inputs.items()}
