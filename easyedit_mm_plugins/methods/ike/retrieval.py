"""IKE's demonstrations: EasyEdit's own encoding and retrieval, its files kept out of the way.

EasyEdit writes the sentences and their embeddings as a pickle, under a name that only one of its
generations reads again, loads the sentence encoder anew for every edit and insists on CUDA. The
functions themselves are used as they are: they are given a ``pickle``, an ``open`` and an encoder
of ours while they run. Embeddings are kept as safetensors, by a digest of encoder and sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import ModuleType, SimpleNamespace
from typing import Any

from ...core.errors import ConfigError
from ...data import EditRecord
from ...host.easyedit import Host
from ...host.on_cpu import on_cpu
from ..sentences import SentenceEncoder

_MISSING: Any = object()


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
