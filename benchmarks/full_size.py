"""Real sizes with random weights: does everything build, edit, evaluate, save and load?

    python benchmarks/full_size.py [--backbone blip2 minigpt4 llava] [--device cuda] [--layers N]

BLIP-2 OPT-2.7B, MiniGPT-4 7B and LLaVA-1.5 7B in the shapes of their published configurations. On
a GPU the whole model runs in half precision. Without one, the whole model is laid out with tensors
that have shapes and no memory, and one of full width and ``--layers`` layers a tower really runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode  # torch.device("meta") has no autocast
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    OPTConfig,
)

from easyedit_mm_plugins.backbones import Backbone, HFBlip2, HFLlava, HFMiniGPT4
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.evaluation import evaluate
from easyedit_mm_plugins.methods.mscke import MSCKE, CounterfactualConfig, ScopeConfig
from easyedit_mm_plugins.papers.full_size import OPT_125M
from easyedit_mm_plugins.scenes.tokenizer import IMAGE, build_tokenizer

CLASSES = {"blip2": HFBlip2, "minigpt4": HFMiniGPT4, "llava": HFLlava}


def config_of(name: str, layers: int | None):
    """The published configuration, with every tower cut to ``layers`` if given."""
    deep = {} if layers is None else {"num_hidden_layers": layers}
    llama = LlamaConfig(vocab_size=32000, **deep)  # transformers' defaults are Llama 7B's
    if name == "llava":
        vision = CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
            projection_dim=768,
            **({"num_hidden_layers": 24} | ({"num_hidden_layers": layers + 1} if layers else {})),
        )
        return LlavaConfig(vision, llama, image_token_index=IMAGE)
    opt = OPTConfig(
        vocab_size=50272,
        hidden_size=2560,
        ffn_dim=10240,
        num_attention_heads=32,
        word_embed_proj_dim=2560,
        **({"num_hidden_layers": 32} | deep),
    )
    text = opt if name == "blip2" else llama
    # transformers' defaults for the towers are EVA ViT-g (39 layers) and the Q-Former (12).
    return Blip2Config(
        {"initializer_range": 0.02, **deep}, deep, text.to_dict(), image_token_index=IMAGE
    )


def build(
    name: str, layers: int | None, device: str, dtype: torch.dtype, eager: bool = False
) -> Backbone:
    """A backbone of random weights, made where it will be."""
    config = config_of(name, layers)
    kind = LlavaForConditionalGeneration if name == "llava" else Blip2ForConditionalGeneration
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = kind._from_config(config, **({"attn_implementation": "eager"} if eager else {}))
    finally:
        torch.set_default_dtype(before)
    model.requires_grad_(False)
    size = config.vision_config.image_size
    processor = BlipImageProcessor(size={"height": size, "width": size})
    return CLASSES[name](name, model, build_tokenizer("scenes-minigpt4"), processor)


def shapes(name: str) -> dict:
    """The whole model without memory: sizes, and the shapes of a forward pass."""
    with torch.no_grad(), FakeTensorMode():
        # the fused attention looks at its mask's values, and there are none
        backbone = build(name, None, "cpu", torch.bfloat16, eager=True)
        size = backbone.model.config.vision_config.image_size
        states = backbone.vision(torch.empty(1, 3, size, size, dtype=torch.bfloat16))
        features = backbone.connect(states)
        words = torch.empty(1, 12, backbone.hidden_size, dtype=torch.bfloat16)
        logits = backbone.language_model(inputs_embeds=torch.cat([features, words], 1)).logits
    parameters = sum(p.numel() for p in backbone.model.parameters())
    return {
        "parameters": parameters,
        "bf16_GB": round(2 * parameters / 1e9, 2),
        "decoder_layers": len(backbone.layers),
        "vision": list(states.shape),
        "image_embeddings": list(features.shape),
        "logits": list(logits.shape),
    }


def run(name: str, layers: int | None, device: str, dtype: torch.dtype) -> dict:
    """Build, edit, evaluate one case, save, load, and compare."""
    marks = [time.perf_counter()]
    backbone = build(name, layers, device, dtype)
    marks.append(time.perf_counter())
    scope = ScopeConfig(encoder="ViT-B-32", pretrained=None)
    small = CounterfactualConfig(lm=OPT_125M)
    torch.manual_seed(0)
    editor = MSCKE.from_config(backbone, scope, small)
    picture = torch.rand(3, 240, 320, generator=torch.Generator().manual_seed(0))
    record = EditRecord(
        "case",
        Question("what color is the circle?", picture, "red"),
        (Question("the circle is what color?", picture, "red"),),
        (Question("is the circle red?", picture, "yes"),),
        (Question("what shape is the blue thing?", picture, "square"),),
        (Question("what is the capital of france", None, "paris"),),
        (),
        (),
    )
    metrics = evaluate(editor, [record], "teacher-forced").metrics
    evaluate(editor, [record], "generated")
    marks.append(time.perf_counter())
    questions = [record.edit, *record.in_scope, *record.out_scope, *record.text_loc]
    with tempfile.TemporaryDirectory() as folder:
        editor.save_pretrained(folder, half=False)
        megabytes = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 1e6
        again = MSCKE.from_pretrained(folder, backbone)
        with editor.edited([record.edit]), again.edited([record.edit]):
            pairs = zip(editor.route(questions), again.route(questions), strict=True)
            same = all(a.score == b.score for a, b in pairs)
    if not same:
        raise SystemExit(f"{name}: the loaded editor scores differently")
    marks.append(time.perf_counter())
    seconds = [round(b - a, 1) for a, b in pairwise(marks)]
    memory = torch.cuda.max_memory_allocated() / 1e9 if device != "cpu" else None
    return {
        "layers": layers or len(backbone.layers),
        "parameters": sum(p.numel() for p in backbone.model.parameters()),
        "seconds": dict(zip(("build", "edit_and_evaluate", "save_and_load"), seconds, strict=True)),
        "editor_MB": round(megabytes),
        "peak_GB": memory and round(memory, 2),
        "metrics": metrics,
    }


def main() -> int:
    """Command line; prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=list(CLASSES), choices=list(CLASSES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, help="layers a tower; all of them on a GPU, else 2")
    parser.add_argument("--shapes-only", action="store_true", help="without memory, nothing runs")
    given = parser.parse_args()
    cpu = given.device == "cpu"
    layers = given.layers or (2 if cpu else None)
    dtype = torch.float32 if cpu else torch.bfloat16
    for name in given.backbone:
        result = {"backbone": name, "shapes": shapes(name)}
        if not given.shapes_only:
            result["run"] = run(name, layers, given.device, dtype) | {
                "device": given.device,
                "dtype": str(dtype).removeprefix("torch."),
            }
        print(json.dumps(result, indent=2), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
