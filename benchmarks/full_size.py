"""Published shapes with random weights: every method builds, edits, answers, trains, saves, loads.

    python benchmarks/full_size.py [--backbone NAME ...] [--method NAME ...] [--json FILE]
        [--device cuda] [--layers N] [--narrow] [--shapes-only] [--cases 8]

BLIP-2 OPT-2.7B, MiniGPT-4 7B, LLaVA-1.5 7B, Qwen2.5-VL 3B and 7B in the shapes of their published
configurations. On a GPU the whole model runs in bfloat16. Without one, the whole model is laid out
with tensors that have shapes and no memory, and what really runs is of full width with ``--layers``
layers a tower (3 by default), or, with ``--narrow``, of 64 dimensions as well, so that all methods
are tried in minutes. A method that cannot run is a line with its reason. Seconds and memory depend
on shapes alone; what is answered means nothing.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import chdir
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode  # torch.device("meta") has no autocast

from easyedit_mm_plugins.backbones import Backbone, HFAuto, HFBlip2, HFLlava, HFMiniGPT4
from easyedit_mm_plugins.core.environment import environment
from easyedit_mm_plugins.core.errors import ConfigError
from easyedit_mm_plugins.core.files import write_json
from easyedit_mm_plugins.core.shipped import ASSETS
from easyedit_mm_plugins.core.yaml_files import merged
from easyedit_mm_plugins.data import EditRecord, Question
from easyedit_mm_plugins.data.images import open_image
from easyedit_mm_plugins.evaluation import evaluate
from easyedit_mm_plugins.evaluation.worker import error_text
from easyedit_mm_plugins.methods import METHODS
from easyedit_mm_plugins.methods.factory import editor_from_settings
from easyedit_mm_plugins.methods.settings import build as checked
from easyedit_mm_plugins.methods.settings import shipped_settings
from easyedit_mm_plugins.methods.stock.swap import watched
from easyedit_mm_plugins.papers.full_size import OPT_125M
from easyedit_mm_plugins.papers.mscke_table4 import measure as table4
from easyedit_mm_plugins.scenes.second.tokenizer import IMAGE, build_tokenizer

NARROW = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4}
SMALL_LM = OPT_125M | {"hidden_size": 64, "ffn_dim": 128, "num_hidden_layers": 2}
SMALL_LM |= {"num_attention_heads": 4, "word_embed_proj_dim": 64}
BATCHES = 3  # a training sees so many of them, twice


@dataclass(frozen=True)
class Shape:
    """A published configuration.

    Attributes:
        settings: the base model whose shipped settings are taken.
        layers: of its language model.
        text, vision: sizes of its two sides, where they are not transformers' defaults.
    """

    title: str
    kind: str
    settings: str
    layers: int
    text: dict[str, Any]
    vision: dict[str, Any]


_LLAMA = {"vocab_size": 32000}  # transformers' other defaults are Llama 7B's
_QWEN_EYE = {"hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
_CLIP = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
SHAPES = {
    "blip2": Shape(
        *("BLIP-2 OPT-2.7B", "blip2", "blip2-hf", 32),
        {
            **{"vocab_size": 50272, "hidden_size": 2560, "ffn_dim": 10240},
            **{"num_attention_heads": 32, "word_embed_proj_dim": 2560},
            "num_hidden_layers": 32,
        },
        {"initializer_range": 0.02},  # transformers' other defaults are EVA ViT-g's, of 39 layers
    ),
    "minigpt4": Shape("MiniGPT-4 7B", "blip2", "minigpt4", 32, _LLAMA, {"initializer_range": 0.02}),
    "llava": Shape(
        *("LLaVA-1.5 7B", "llava", "llava", 32, _LLAMA),
        {**_CLIP, "image_size": 336, "patch_size": 14, "projection_dim": 768},
    ),
    "qwen2.5-vl-3b": Shape(
        *("Qwen2.5-VL 3B", "qwen", "qwen2.5-vl", 36),
        {
            **{"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008},
            **{"num_attention_heads": 16, "num_key_value_heads": 2, "tie_word_embeddings": True},
        },
        _QWEN_EYE,
    ),
    "qwen2.5-vl-7b": Shape(
        *("Qwen2.5-VL 7B", "qwen", "qwen2.5-vl", 28),
        {
            **{"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944},
            **{"num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False},
        },
        _QWEN_EYE,
    ),
}


# Models ---------------------------------------------------------------------------------------


def config_of(shape: Shape, layers: int | None, narrow: bool) -> Any:
    """The published configuration, with every tower cut to ``layers`` if given."""
    deep = {} if layers is None else {"num_hidden_layers": layers}
    slim = NARROW if narrow else {}
    if shape.kind == "qwen":
        text = {**shape.text, "num_hidden_layers": layers or shape.layers, **slim}
        sections = [16, 24, 24]
        if narrow:
            text |= {"num_key_value_heads": 2}
            sections = [2, 3, 3]
        tokenizer = build_tokenizer("scenes-qwen")
        tokens = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
        tokens |= {f"vision_{e}_token": f"<|vision_{e}|>" for e in ("start", "end")}
        ids = {f"{k}_id": tokenizer.convert_tokens_to_ids(v) for k, v in tokens.items()}
        vision = {**shape.vision, "depth": layers or 32, "out_hidden_size": text["hidden_size"]}
        if narrow:
            vision |= {"hidden_size": 64, "intermediate_size": 128, "num_heads": 4}
        if layers:
            vision["fullatt_block_indexes"] = [layers - 1]
        rope = {"rope_type": "default", "mrope_section": sections}
        return transformers.Qwen2_5_VLConfig(
            vision_config=vision,
            rope_theta=1e6,
            rope_scaling=rope,
            max_position_embeddings=128000,
            pad_token_id=tokenizer.pad_token_id,
            **text,
            **ids,
        )
    small = {"image_size": 56} if narrow else {}
    vision = {**shape.vision, **deep, **slim, **small}
    if shape.kind == "llava":
        layers_seen = {"num_hidden_layers": layers + 1 if layers else 24}  # the last is not read
        return transformers.LlavaConfig(
            transformers.CLIPVisionConfig(**{**vision, **layers_seen}),
            transformers.LlamaConfig(
                **{**shape.text, **deep, **slim} | ({"num_key_value_heads": 4} if narrow else {})
            ),
            image_token_index=IMAGE,
        )
    text = {**shape.text, **deep, **slim}
    if "ffn_dim" in text:
        text |= {"ffn_dim": 128, "word_embed_proj_dim": 64} if narrow else {}
        decoder: Any = transformers.OPTConfig(**text)
    else:
        decoder = transformers.LlamaConfig(**text | ({"num_key_value_heads": 4} if narrow else {}))
    former = {**deep, **slim, **({"encoder_hidden_size": 64} if narrow else {})}
    return transformers.Blip2Config(vision, former, decoder.to_dict(), image_token_index=IMAGE)


def model_of(config: Any, device: str, dtype: torch.dtype, eager: bool = False) -> Any:
    """A model of random weights, made where it will be."""
    kind = {
        "llava": transformers.LlavaForConditionalGeneration,
        "blip-2": transformers.Blip2ForConditionalGeneration,
    }.get(config.model_type) or transformers.Qwen2_5_VLForConditionalGeneration
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = kind._from_config(config, **({"attn_implementation": "eager"} if eager else {}))
    finally:
        torch.set_default_dtype(before)
    return model.requires_grad_(False).eval()


def backbone_of(name: str, model: Any) -> Backbone:
    """The model with a tokenizer of a few words and the family's pictures."""
    processor: Any
    if model.config.model_type == "qwen2_5_vl":
        # The embedded Qwen's tokenizer and chat template, with pictures in Qwen2.5-VL's patches.
        place = next(f for f in ("scenes-qwen", "second/scenes-qwen") if (ASSETS / f).is_dir())
        processor = transformers.AutoProcessor.from_pretrained(ASSETS / place)
        processor.image_processor = transformers.Qwen2VLImageProcessor(patch_size=14)
        return HFAuto(name, model, processor)
    size = model.config.vision_config.image_size
    processor = transformers.BlipImageProcessor(size={"height": size, "width": size})
    kind = {"llava": HFLlava, "blip2": HFBlip2, "minigpt4": HFMiniGPT4}[name]
    return kind(name, model, build_tokenizer("scenes-minigpt4"), processor)


def shapes(name: str) -> dict[str, Any]:
    """The whole model without memory: sizes, and the shapes of a forward pass."""
    half = torch.bfloat16
    with torch.no_grad(), FakeTensorMode():
        # the fused attention looks at its mask's values, and there are none
        model = model_of(config_of(SHAPES[name], None, False), "cpu", half, eager=True)
        found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters())}
        decoder = model.get_decoder() if SHAPES[name].kind == "qwen" else None
        if decoder is not None:  # how it is driven is seen by running it, which needs memory
            words = torch.empty(1, 12, decoder.config.hidden_size, dtype=half)
            seen = torch.ones(1, 12, dtype=torch.long)
            hidden = decoder(inputs_embeds=words, attention_mask=seen, use_cache=False)[0]
            logits = model.get_output_embeddings()(hidden)
            found["decoder_layers"] = len(decoder.layers)
        else:
            backbone = backbone_of(name, model)
            size = model.config.vision_config.image_size
            features = backbone.connect(backbone.vision(torch.empty(1, 3, size, size, dtype=half)))
            words = torch.empty(1, 12, backbone.hidden_size, dtype=half)
            logits = backbone.language_model(inputs_embeds=torch.cat([features, words], 1)).logits
            found |= {"decoder_layers": len(backbone.layers), "image_tokens": features.shape[1]}
    return found | {"bf16_gb": 2 * found["parameters"] / 1e9, "logits": list(logits.shape)}


# Records --------------------------------------------------------------------------------------


def records_of(count: int, narrow: bool) -> list[EditRecord]:
    """Cases with pictures of COCO's size (noise), each kind of question once."""
    height, width = (64, 96) if narrow else (480, 640)

    def picture(seed: int) -> torch.Tensor:
        return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))

    found = []
    for i in range(count):
        one, again, other = (picture(3 * i + k) for k in range(3))
        edit = Question("what color is the circle?", one, ("red", "green", "blue")[i % 3])
        found.append(
            EditRecord(
                f"case-{i}",
                edit,
                rephrase=(Question("the circle is what color?", one, edit.answer),),
                in_scope=(Question("is the circle red?", one, "yes"),),
                out_scope=(Question("what shape is the blue thing?", one, "square"),),
                text_loc=(Question("what is the capital of denmark", None, "copenhagen"),),
                image_rephrase=(Question(edit.text, again, edit.answer),),
                image_loc=(Question("what shape is the red thing?", other, "circle"),),
            )
        )
    return found


# Methods --------------------------------------------------------------------------------------


def settings_of(name: str, shape: Shape, backbone: Backbone, narrow: bool) -> tuple[Any, bool]:
    """A method's shipped settings for the base model, without trained weights; whether they are
    for training. Layers that a shallower model lacks are moved, at the same share of its depth."""
    entry, depth = METHODS.get(name), len(backbone.layers)
    training = entry.trainer is not None and entry.training_class is not None
    cls = entry.training_class if training else entry.settings_class
    if cls is None:
        raise ConfigError(f"{entry.name} is made of a trained editor alone, and none is here")
    values = shipped_settings(entry.alg, shape.settings, training=training) or {}
    values = {k: v for k, v in values.items() if k not in ("archive", "answers_of", "scope_of")}
    values |= {"model_name": shape.settings, "device": str(backbone.device)}
    if "encoder" in (values.get("scope") or {}):
        values["scope"] = merged(values["scope"], {"pretrained": None})
        if narrow:
            values["scope"] |= {"encoder": "scenes-clip"}
    if name in ("mscke", "mscke-self"):
        answers = dict(values.get("counterfactual") or {})
        answers["lm"] = SMALL_LM if narrow else answers.get("lm", OPT_125M)
        values["counterfactual"] = answers
    values |= {"ike": {"k": 0}, "lte": {"text_encoder": "words"}}.get(name, {})
    if depth < shape.layers:
        for adapter in values.get("adapters") or ():
            adapter["layer"] = adapter["layer"] * depth // shape.layers
        last = ["layers.-1.fc*" if "ffn_dim" in shape.text else "layers.-1.mlp.*_proj"]
        if name in ("wise", "grace"):
            values["inner_params"] = ["layers.-1.mlp.down_proj"]
        elif name == "mend":
            values["inner_params"] = last
        elif name == "mscke-mend":
            values["counterfactual"] = merged(
                values.get("counterfactual") or {}, {"mend": {"inner_params": last}}
            )
    return checked(cls, values, f"{name} for {shape.title}"), training


class Clock:
    """Seconds of a call, and the most memory of a GPU since it was made, in GB."""

    def __init__(self, device: str) -> None:
        self.cuda = device != "cpu"
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()

    def __call__(self, call: Callable[[], Any]) -> float:
        if self.cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began

    @property
    def peak_gb(self) -> float | None:
        """``None`` on a CPU."""
        return torch.cuda.max_memory_allocated() / 1e9 if self.cuda else None


def one_method(
    name: str, shape: Shape, backbone: Backbone, cases: int, narrow: bool
) -> dict[str, Any]:
    """Everything that is measured of a method."""
    entry, clock = METHODS.get(name), Clock(str(backbone.device))
    settings, training = settings_of(name, shape, backbone, narrow)
    editor: Any = editor_from_settings(entry, settings, backbone, untrained="train")
    records = records_of(cases, narrow)
    found: dict[str, Any] = {}
    if training:
        found |= training_steps(entry, editor, settings, narrow, clock)
    base = backbone.answer_logits([records[0].edit])[0].clone()
    seconds = []
    for record in records[:4]:
        seconds.append(clock(partial(editor.add, [record.edit])))
        editor.clear()
    found["edit_s"] = statistics.median(seconds[1:] or seconds)
    asked = partial(evaluate, editor, records, "generated")
    found["case_s"] = clock(asked) / len(records)
    forced = partial(evaluate, editor, records, "teacher-forced", suite="evqa")
    found["forced_case_s"] = clock(forced) / len(records)
    if not torch.equal(base, backbone.answer_logits([records[0].edit])[0]):
        raise SystemExit(f"{name} on {shape.title}: the base model is not what it was")
    if name == "mscke":
        found["scope_share"] = scope_share(editor, records, str(backbone.device))
    if entry.needs_training:
        found |= saved(editor, backbone, records[0])
    return found | {"peak_gb": clock.peak_gb}


def training_steps(
    entry: Any, editor: Any, settings: Any, narrow: bool, clock: Clock
) -> dict[str, Any]:
    """Seconds of a step on records that are new, and on records that were seen."""
    records = records_of(BATCHES * settings.batch_size, narrow)
    with tempfile.TemporaryDirectory() as folder:
        trainer = entry.trainer_class(editor, records, [], settings, folder)
        steps = [clock(trainer.train_step) for _ in range(2 * BATCHES)]
        trainer._mode(training=False)
    first, again = statistics.median(steps[1:BATCHES]), statistics.median(steps[BATCHES:])
    found = {"batch_size": settings.batch_size, "step_s": first, "step_again_s": again}
    steps_in_all = getattr(settings, "max_iters", None)
    if steps_in_all:  # else as many as the records ask for
        found |= {"steps": steps_in_all, "hours": first * steps_in_all / 3600}
        found |= {"hours_again": again * steps_in_all / 3600}
    return found


def scope_share(editor: Any, records: Sequence[EditRecord], device: str) -> float:
    """The scope classifier's time in percent of the base model's pass (MSCKE table 4)."""
    parts = ("classifier", "base")
    rounds = 2 if device == "cpu" else 20
    row = table4(editor, records[:4], 1, "benchmark", rounds, parts)
    return row["parts"]["classifier"]["share_of_base"]


def saved(editor: Any, backbone: Backbone, record: EditRecord) -> dict[str, Any]:
    """Save and load: megabytes, and whether both edit alike."""
    with tempfile.TemporaryDirectory() as folder:
        editor.save_pretrained(folder, half=False)
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        again = type(editor).from_pretrained(folder, backbone)
        asked = [record.edit, *record.in_scope, *record.text_loc]
        with editor.edited([record.edit]), again.edited([record.edit]):
            pairs = zip(editor.force(asked, top_k=5), again.force(asked, top_k=5), strict=True)
            same = all(torch.equal(a.top_ids, b.top_ids) for a, b in pairs)
    if not same:
        raise SystemExit(f"{editor.name}: the loaded editor answers differently")
    return {"editor_mb": size / 1e6}


def easyedit_cases(shape: Shape, backbone: Any, cases: int, narrow: bool) -> dict[str, Any]:
    """Cases a second of EasyEdit HEAD's ``edit_dataset`` with its LoRA, and of the same here."""
    settings, _ = settings_of("lora", shape, backbone, narrow)
    entry, clock = METHODS.get("lora"), Clock(str(backbone.device))
    editor: Any = editor_from_settings(entry, settings, backbone)
    host, records = editor.host, records_of(cases, narrow)
    hparams = SimpleNamespace(**vars(editor.hparams()) | {"alg_name": "LoRA"})
    family, hparams.model_name = "qwen2-vl", (backbone.model, backbone.processor)
    theirs = host.editor_class(hparams)
    theirs.model_name = hparams.model_name = family
    dataset = object.__new__(next(iter(host.datasets.values())))
    dataset._data = [
        {
            "prompt": r.edit.text, "target": r.edit.answer, "image": open_image(r.edit.image),
            "file_type": "image", "rephrase_prompt": r.rephrase[0].text,
            "image_rephrase": open_image(r.image_rephrase[0].image),
            "locality_prompt": r.text_loc[0].text,
            "locality_ground_truth": r.text_loc[0].answer,
            "multimodal_locality_prompt": r.image_loc[0].text,
            "multimodal_locality_ground_truth": r.image_loc[0].answer,
            "multimodal_locality_image": open_image(r.image_loc[0].image),
        }
        for r in records
    ]  # fmt: skip
    with watched(backbone.model, []):  # it never takes its edits back
        own = clock(partial(theirs.edit_dataset, dataset, verbose=False)) / cases
    backbone.clear_cache()
    ours = partial(evaluate, editor, records, "teacher-forced", suite="evqa")
    here = clock(ours) / cases
    return {"theirs_case_s": own, "here_case_s": here, "times_faster": own / here}


# All of it ------------------------------------------------------------------------------------


def tried(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``call`` finds, or the reason why it cannot."""
    try:
        return call()
    except Exception as error:  # the other methods go on
        return {"reason": error_text(error)}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main() -> int:
    """Command line; prints a line for each figure's row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [e.name for e in METHODS if e.kind == "method" and e.name != "unedited"]
    parser.add_argument("--backbone", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--method", nargs="+", default=names, choices=names)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int, help="layers a tower; all of them on a GPU, else 3")
    parser.add_argument("--narrow", action="store_true", help="64 dimensions: a trial of all")
    parser.add_argument("--shapes-only", action="store_true", help="without memory, nothing runs")
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    given = parser.parse_args()
    cpu = given.device == "cpu"
    layers = given.layers or (3 if cpu or given.narrow else None)
    dtype = torch.float32 if cpu else torch.bfloat16
    rows: list[dict[str, Any]] = []
    laid_out = torch.bfloat16 if given.shapes_only else dtype
    env = environment(given.device, str(laid_out).removeprefix("torch."))

    def note(row: dict[str, Any]) -> None:
        rows.append(row)
        told = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        print(" ".join(f"{k}={v}" for k, v in told.items() if v is not None), flush=True)
        if given.json:
            write_json(given.json, {"rows": rows})
            write_json(given.json.with_name("env.json"), env)

    for name in given.backbone:
        shape = SHAPES[name]
        about = {"backbone": shape.title, "what": "shape"}
        note(about | shapes(name))
        if given.shapes_only:
            continue
        torch.manual_seed(0)
        random.seed(0)
        model = model_of(config_of(shape, layers, given.narrow), given.device, dtype)
        backbone = backbone_of(name, model)
        about |= {"what": "run", "layers": len(backbone.layers), "narrow": given.narrow}
        for method in given.method:
            run = partial(one_method, method, shape, backbone, given.cases, given.narrow)
            note(about | {"method": METHODS.get(method).title} | tried(run))
        if shape.kind == "qwen":
            with tempfile.TemporaryDirectory() as folder, chdir(folder):  # EasyEdit's logs/
                run = partial(easyedit_cases, shape, backbone, given.cases, given.narrow)
                note(about | {"what": "easyedit"} | tried(run))
        del model, backbone
        gc.collect()
    return 0


if __name__ == "__main__":
    sys.exit(main())
