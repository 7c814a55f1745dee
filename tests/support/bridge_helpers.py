"""Hparams, files and small models for the bridge's tests."""

import json
import types

import torch

from easyedit_mm_plugins.core.files import write_json
from easyedit_mm_plugins.methods.checkpoint import save_tensors

from .mscke_tiny import tiny_encoder


def hparams_for(fields, alg="PARROT", **changes):
    """Hparams of a method that has no class of its own for them."""
    return types.SimpleNamespace(
        **{**fields, "alg_name": alg, "alg": alg, "batch_size": 1, **changes}
    )


def tiny_clip(folder):
    """An open_clip folder with random weights, as ``scope.encoder`` takes it."""
    torch.manual_seed(5)
    encoder = tiny_encoder(context=24)
    write_json(folder / "config.json", encoder.description())
    save_tensors(folder / "model.safetensors", encoder.clip.state_dict())
    return str(folder)


def evqa(tiny, folder, count=3):
    """A file in E-VQA's form; one of its records is left out by EasyEdit's own class."""
    records = [
        {
            "src": "what color is the circle?",
            "pred": "blue",
            "alt": "" if i == 1 else "red",
            "rephrase": "please what color is the circle?",
            "image": f"scene{i % 3}.png",
            "image_rephrase": "scene1.png",
            "loc": f"who wrote the question {i}",
            "loc_ans": "human",
            "m_loc": "scene2.png",
            "m_loc_q": "how many stars?",
            "m_loc_a": "three",
        }
        for i in range(count + 1)
    ]
    path = folder / "vqa.json"
    path.write_text(json.dumps(records))
    return str(path)


REQUEST = {
    "prompts": "Question: what color is the circle? Short answer:",
    "targets": "red",
    "image": "scene0.png",
    "locality_inputs": {"text": {"prompt": "who wrote the question", "ground_truth": "human"}},
}


def train_two_steps(registered, settings, fields, records, folder):
    """EasyEdit's trainer after two steps, its last metrics, and the weights it began with."""
    config = settings(
        **fields, batch_size=2, max_iters=2, val_interval=2, model_save_pt=1,
        results_dir=str(folder), silent=True,
    )  # fmt: skip
    trainer = registered.trainer_class(config=config, train_set=records, val_set=records)
    base = {k: v.clone() for k, v in trainer.original_model.state_dict().items()}
    final = trainer.run()
    assert trainer.global_iter == 2
    return trainer, final, base
