"""EasyEdit's own evaluation of SERAC beside the plugin's: same model, same cases, one run.

    python benchmarks/easyedit_speed.py [--cases 100] [--rounds 3] [--json FILE]

Both ask five questions a case (edit, rephrased question, rephrased image, text locality, image
locality), each before and after the edit, under teacher forcing, and both start at the records and
images on disk. The base model is the embedded ``scenes-blip2``, SERAC's BERT is the shipped one,
and the counterfactual language model is that of the shipped MSCKE. They take turns; one thread.

EasyEdit runs its own loop, algorithm and metrics: ``MultimodalEditor.edit_dataset`` of a checkout
(``EASYEDIT_ROOT``); of the PyPI release ``edit`` with lists, because its ``edit_dataset`` reads
fields that its multimodal data sets do not have. What stands around it here, and costs nothing:
``Blip2Face`` shows the backbone as EasyEdit's ``Blip2OPT``; SERAC is built from parts in memory
instead of an archive; moves to CUDA that are written out are left out; the checkout's executor,
which takes one request, is handed the one in the list that its ``edit_dataset`` hands it.

``generated`` is the plugin's default protocol, which EasyEdit has not: timed beside it for scale.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import tempfile
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from common import finish, parser, records, start
from torch import Tensor, nn

from easyedit_mm_plugins import load_backbone
from easyedit_mm_plugins.backbones import Backbone
from easyedit_mm_plugins.data import EditRecord
from easyedit_mm_plugins.evaluation import evaluate
from easyedit_mm_plugins.host import easyedit as hosts
from easyedit_mm_plugins.methods import load_editor
from easyedit_mm_plugins.methods.serac.model import SERAC
from easyedit_mm_plugins.papers.cost import in_turns

QUESTIONS = 10  # five kinds, before and after
SETTINGS = {
    "alg_name": "SERAC_MULTI", "alg": "SERAC_MULTI", "model_name": "blip2", "name": "opt",
    "model_class": "Blip2OPT", "cls_name": "bert", "cls_class": "BertModel", "small_name": "opt",
    "cross_attend": False, "dist_heads": 1, "bound_embeds": False, "cos": False, "square": True,
    "supervised": False, "soft_weighting": False, "freeze_cntr": False, "freeze": None,
    "dropout": 0.0, "checkpoint_grad": False, "batch_size": 1, "device": "cpu",
    "archive": "in memory", "exact_match": False, "model_parallel": False, "inner_params": [],
}  # fmt: skip


class Blip2Face(nn.Module):
    """A BLIP-2 backbone of the plugin's with the surface of EasyEdit's ``Blip2OPT``."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        model = backbone.model
        self.backbone = backbone
        self.opt_model, self.opt_tokenizer = backbone.language_model, backbone.tokenizer
        self.config = None
        self.query_tokens = model.query_tokens
        self.visual_encoder, self.ln_vision = backbone.vision, lambda states: states
        size = SimpleNamespace(hidden_size=model.config.qformer_config.hidden_size)
        self.Qformer = SimpleNamespace(bert=model.qformer, config=size)

    def to(self, *args: Any, **kwargs: Any) -> Blip2Face:
        """Stays on the CPU: the PyPI release writes ``cuda`` out."""
        return self

    def maybe_autocast(self) -> contextlib.AbstractContextManager[None]:
        """Single precision throughout."""
        return contextlib.nullcontext()

    def forward(self, samples: dict[str, Any]) -> SimpleNamespace:
        """One row as ``Blip2OPT`` lays it out and labels it: the image, prompt and target."""
        tokens = self.opt_tokenizer(samples["text_input"], return_tensors="pt")
        targets = tokens.input_ids.clone()
        targets[:, : samples["prompts_len"][0]] = -100
        embeds = self.opt_model.get_input_embeddings()(tokens.input_ids)
        mask = tokens.attention_mask
        if samples["image"] is not None:
            image = self.backbone.connect(self.backbone.vision(samples["image"]))
            embeds = torch.cat([image, embeds], 1)
            mask = torch.cat([mask.new_ones(image.shape[:2]), mask], 1)
            targets = torch.cat([targets.new_full(image.shape[:2], -100), targets], 1)
        out = self.opt_model(
            inputs_embeds=embeds, attention_mask=mask, labels=targets, return_dict=True
        )
        return SimpleNamespace(logits=out.logits, labels=targets, attention_mask=mask)


class EasyEdit:
    """``MultimodalEditor`` with SERAC, as a function of records to its list of metrics."""

    def __init__(self, serac: SERAC) -> None:
        self.host, self.backbone = hosts.load(), serac.backbone
        self.hparams = SimpleNamespace(**SETTINGS, coco_image="", rephrase_image="")
        face = Blip2Face(serac.backbone).eval()
        named = self.hparams.model_name
        self.hparams.model_name = (face, serac.backbone.tokenizer)
        self.editor = self.host.editor_class(self.hparams)
        self.hparams.model_name = self.editor.model_name = named
        self.editor.vis_tok = lambda image: self.backbone.pixels([image])[0]
        executor = self.editor.apply_algo.__self__
        executor.model, executor.tokenizer = face, serac.backbone.tokenizer
        module = self.host.module("trainer.algs.SERAC")
        executor.alg = module.SERAC_MULTI(
            face, self.hparams, None, serac.classifier, serac.classifier_tok,
            serac.counterfactual.lm, serac.backbone.tokenizer,
        ).eval()  # fmt: skip
        executor.is_init = True
        if self.host.generation == "head":
            self.editor.apply_algo = lambda model, tok, requests, hparams, **kwargs: (
                executor.apply_to_model(model, tok, requests[0], hparams, **kwargs)
            )

    def __call__(self, records: Sequence[EditRecord]) -> list[dict[str, Any]]:
        if self.host.generation == "head":
            return self.editor.edit_dataset(self._dataset(records), verbose=False)[0]
        texts, images = [r.text_loc[0] for r in records], [r.image_loc[0] for r in records]
        return self.editor.edit(
            prompts=[self._prompt(r.edit) for r in records],
            targets=[r.edit.answer for r in records],
            image=[str(r.edit.image) for r in records],
            rephrase_prompts=[self._prompt(r.rephrase[0]) for r in records],
            rephrase_image=[str(r.image_rephrase[0].image) for r in records],
            locality_inputs={
                "text": {
                    "prompt": [self._prompt(q) for q in texts],
                    "ground_truth": [q.answer for q in texts],
                },
                "vision": {
                    "prompt": [self._prompt(q) for q in images],
                    "ground_truth": [q.answer for q in images],
                    "image": [str(q.image) for q in images],
                },
            },
            keep_original_weight=True,
            verbose=False,
        )[0]

    def _prompt(self, question: Any) -> str:
        return self.backbone.prompt(question)

    def _dataset(self, records: Sequence[EditRecord]) -> Any:
        """EasyEdit's data set class with images of this model's size."""
        kind = next(iter(self.host.datasets.values()))
        dataset = object.__new__(kind)
        dataset._data = [
            {
                "prompt": self._prompt(r.edit), "target": r.edit.answer, "image": image[0],
                "rephrase_prompt": self._prompt(r.rephrase[0]), "image_rephrase": image[1],
                "locality_prompt": self._prompt(r.text_loc[0]),
                "locality_ground_truth": r.text_loc[0].answer,
                "multimodal_locality_prompt": self._prompt(r.image_loc[0]),
                "multimodal_locality_ground_truth": r.image_loc[0].answer,
                "multimodal_locality_image": image[2],
            }
            for r in records
            for image in [self._pixels(r)]
        ]  # fmt: skip
        return dataset

    def _pixels(self, record: EditRecord) -> Tensor:
        asked = (record.edit, record.image_rephrase[0], record.image_loc[0])
        return self.backbone.pixels([q.image for q in asked])


def main() -> None:
    """See the module's docstring."""
    made = parser(__doc__, rounds=3)
    made.add_argument("--cases", type=int, default=100)
    args = start(made)
    logging.disable(logging.INFO)
    some = records(args, args.cases)
    serac = load_editor("serac", load_backbone("scenes-blip2"))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # EasyEdit's logs/
        theirs = EasyEdit(serac)

    def ours(protocol: str) -> Any:
        serac.backbone.clear_cache()
        return evaluate(serac, some, protocol, suite="evqa")

    parts = {
        "easyedit": lambda: theirs(some),
        "teacher-forced": lambda: ours("teacher-forced"),
        "generated": lambda: ours("generated"),
    }
    for call in (lambda: theirs(some[:3]), lambda: evaluate(serac, some[:3], "generated")):
        call()  # warm-up
    times = in_turns(parts, {}, rounds=args.rounds, warm_up=0)
    work = {name: found.work_ms / len(some) for name, found in times.items()}
    wall = {name: found.wall_ms / len(some) for name, found in times.items()}
    told = f"EasyEdit {theirs.host.generation}, {len(some)} cases, {QUESTIONS} answers a case"
    print(f"{told}, medians of {args.rounds} rounds on one thread of {platform.machine()}")
    print(f"{'':16}{'ms a case':>12}{'processor ms':>14}{'times faster':>14}")
    for name in parts:
        faster = work["easyedit"] / work[name]
        print(f"{name:16}{wall[name]:12.1f}{work[name]:14.1f}{faster:14.1f}")
    figures = {"easyedit": theirs.host.generation, "cases": len(some), "torch": torch.__version__}
    finish(args, {**figures, "work_ms": work, "wall_ms": wall})


if __name__ == "__main__":
    main()
