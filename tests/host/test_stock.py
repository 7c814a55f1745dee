"""EasyEdit's own algorithms are the same without the plugin, with it registered, and after it.

EasyEdit's code runs as it is, except where the PyPI release insists on CUDA: there `.to` of the
model is made to stay on the CPU, and language models are loaded in single precision.
"""

import contextlib
import types

import torch

from easyedit_mm_plugins import bridge

from ..support import easyedit_tiny
from ..support.bridge_helpers import evqa

pytest_plugins = ["tests.support.bridge_fixtures"]


@contextlib.contextmanager
def on_a_cpu(host):
    """EasyEdit's BLIP-2, small, in single precision, and staying where it is."""
    module = host.module("trainer.blip2_models.blip2_opt")
    opt, blip2 = module.OPTForCausalLM, module.Blip2OPT
    load = opt.__dict__.get("from_pretrained")

    def from_pretrained(cls, *args, **kwargs):
        kwargs["torch_dtype"] = torch.float32
        return super(opt, cls).from_pretrained(*args, **kwargs)

    opt.from_pretrained = classmethod(from_pretrained)
    blip2.to = lambda self, *args, **kwargs: self
    try:
        with easyedit_tiny.small_vit():
            yield
    finally:
        del blip2.to
        if load is None:
            del opt.from_pretrained
        else:
            opt.from_pretrained = load


def three_times(host, action):
    """What ``action`` gives before registering, while registered, and after unregistering."""
    bridge.unregister()
    results = [action()]
    bridge.register()
    try:
        results.append(action())
    finally:
        bridge.unregister()
    results.append(action())
    return results


def plain(value):
    """Numbers and texts of a result, without times."""
    if isinstance(value, dict):
        skipped = ("time", "metric_meta")
        return {k: plain(v) for k, v in value.items() if not any(s in k for s in skipped)}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return torch.as_tensor(value).double().tolist() if not isinstance(value, str) else value


class Shift(torch.nn.Module):
    """Somebody else's algorithm in EasyEdit's table: it moves the logits."""

    def __init__(self, model, token):
        super().__init__()
        self.model, self.token = model, token

    def forward(self, samples):
        out = self.model(samples)
        out.logits[..., self.token] += 100
        return out


def test_easyedits_own_edit_loop(host, blip2_fields, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # EasyEdit writes logs/ into the working directory
    calls = []

    def shift(model, tok, requests, hparams, **kwargs):
        calls.append(kwargs)
        token = tok(" red", add_special_tokens=False)["input_ids"][-1]
        return Shift(model, token), {}

    host.edit_algs["SHIFT"] = shift
    root = blip2_fields["coco_image"]
    hparams = types.SimpleNamespace(**blip2_fields, alg_name="SHIFT", batch_size=1)
    own = host.generation == "head"  # head takes paths as they are, the release joins them

    def action():
        torch.manual_seed(0)
        with on_a_cpu(host):
            editor = host.editor_class.from_hparams(hparams)
            metrics, model, _ = editor.edit(
                prompts="Question: what color is the circle? Short answer:",
                targets="red",
                image=f"{root}/scene0.png" if own else "scene0.png",
                locality_inputs={"text": {"prompt": ["who wrote"], "ground_truth": ["a human"]}},
            )
        assert isinstance(model, Shift)
        return plain(metrics)

    try:
        before, during, after = three_times(host, action)
    finally:
        del host.edit_algs["SHIFT"]
    assert before == during == after
    assert before[0]["post"] != before[0]["pre"]
    assert len(calls) == 3 and calls[0] == calls[1] == calls[2]


SERAC = {
    "alg": "SERAC_MULTI",
    "model_class": "Blip2OPT",
    "cls_class": "AutoModel",
    "cross_attend": False,
    "cos": False,
    "square": True,
    "bound_embeds": False,
    "dist_heads": 1,
    "freeze": None,
    "freeze_cntr": False,
    "freeze_qformer": True,
    "soft_weighting": False,
    "supervised": False,
    "checkpoint_grad": False,
    "dropout": 0.0,
    "no_grad_layers": None,
    "half": False,
    "inner_params": [],
    "train_base": False,
    "model_parallel": False,
    "batch_size": 1,
    "val_batch_size": 1,
    "eval_only": False,
    "opt": "Adam",
    "lr": 1e-3,
    "archive": None,
    "debug": False,
    "save": False,
    "silent": True,
    "cedit": 0.1,
    "iedit": 0.1,
    "cloc": 1.0,
    "cbase": 1.0,
    "accumulate_bs": 1,
    "grad_clip": 100.0,
    "log_interval": 1,
    "exact_match": False,
}


def test_easyedits_own_training_of_serac(host, tiny, blip2_fields, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "1")
    config = {**blip2_fields, **SERAC, "small_name": tiny.opt, "cls_name": tiny.bert}
    dataset_config = types.SimpleNamespace(**config)
    dataset = host.module("dataset").VQADataset(evqa(tiny, tmp_path), config=dataset_config)

    def action():
        torch.manual_seed(0)
        hparams = types.SimpleNamespace(**config, results_dir=str(tmp_path / "results"))
        with on_a_cpu(host):
            trainer = host.trainer_class(hparams, dataset, dataset)
            assert type(trainer.model).__name__ == "SERAC_MULTI"
            trainer.global_iter = 1
            torch.manual_seed(1)
            step = trainer.train_step(next(iter(trainer.val_loader)))
            torch.manual_seed(1)
            return plain([step, trainer.validate(steps=1)])

    before, during, after = three_times(host, action)
    assert before == during == after
    assert before[0]["loss/edit"] > 0
