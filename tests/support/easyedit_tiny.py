"""EasyEdit's real `Blip2OPT` and `MiniGPT4` at tiny size, for tests on a CPU.

The classes are EasyEdit's own; only what cannot be shipped is made small: a BERT folder for the
Q-Former, an OPT and a Llama folder, a Q-Former checkpoint, and the ViT-g factory, which
`small_vit()` replaces with the same class at 364 px, patch 91.
"""

import contextlib
import importlib
import json
import types
from functools import partial
from pathlib import Path

import torch
from PIL import Image, ImageDraw

WORDS = (
    "what color is the circle square triangle star in top left right bottom red green blue"
    " yellow which shape small large question short answer human img who wrote how many are"
    " there a of on to does thing sky one two three new fact prompt photo"
).split()
LINES = [
    *WORDS,
    "Question: what color is the circle? Short answer: red",
    "Question: which shape is in the top left? Short answer: square",
    "###Human: <Img> </Img> who wrote the answer? a small blue star",
    "how many triangles are there in the photo? two, three or one.",
]


def build(root: Path) -> types.SimpleNamespace:
    """Write the folders both models need; returns their paths."""
    torch.manual_seed(0)
    root.mkdir(parents=True, exist_ok=True)
    paths = types.SimpleNamespace(
        root=root,
        bert=str(_bert(root / "bert")),
        opt=str(_opt(root / "opt")),
        llama=str(_llama(root / "llama")),
        qformer=str(root / "qformer.pth"),
        vit=str(root / "vit.pth"),
        images=str(root / "images"),
    )
    torch.save({"model": {}}, paths.qformer)
    torch.save({}, paths.vit)
    _images(Path(paths.images))
    return paths


def _bert(folder: Path) -> Path:
    from transformers import BertConfig, BertModel

    folder.mkdir()
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"?!,.:"]
    (folder / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    config = BertConfig(
        vocab_size=len(vocab) + 1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def _opt(folder: Path) -> Path:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import OPTConfig, OPTForCausalLM

    folder.mkdir()
    bpe = ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    bpe.train_from_iterator(
        [f" {line}" for line in LINES] + LINES,
        vocab_size=420,
        min_frequency=1,
        special_tokens=specials,
        show_progress=False,
    )
    bpe.save_model(str(folder))
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,
        "bos_token": "</s>",
        "eos_token": "</s>",
        "unk_token": "</s>",
        "pad_token": "<pad>",
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=bpe.get_vocab_size(),
            hidden_size=32,
            word_embed_proj_dim=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=64,
            max_position_embeddings=512,
            init_std=0.2,
            bos_token_id=2,
            eos_token_id=2,
            pad_token_id=1,
        )
    )
    model.save_pretrained(folder)
    return folder


def _llama(folder: Path) -> Path:
    import sentencepiece
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaTokenizer

    folder.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES * 4),
        model_prefix=str(folder / "sp"),
        vocab_size=440,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    LlamaTokenizer(vocab_file=str(folder / "sp.model"), legacy=True).save_pretrained(folder)
    size = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sp.model")).vocab_size()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=512,
            initializer_range=0.2,
        )
    )
    model.save_pretrained(folder)
    return folder


def _images(folder: Path) -> None:
    folder.mkdir()
    for name, ground, ink in (
        ("scene0.png", (30, 60, 90), (200, 30, 30)),
        ("scene1.png", (90, 30, 120), (30, 200, 30)),
        ("scene2.png", (10, 90, 40), (220, 220, 30)),
    ):
        image = Image.new("RGB", (80, 64), ground)
        ImageDraw.Draw(image).ellipse((10, 10, 40, 40), fill=ink)
        image.save(folder / name)


@contextlib.contextmanager
def small_vit():
    """Within, EasyEdit's own VisionTransformer is built with 16 patches of 91 px and width 32."""
    blip2 = importlib.import_module("easyeditor.trainer.blip2_models.blip2")
    eva = importlib.import_module("easyeditor.trainer.blip2_models.eva_vit")

    def create(img_size=364, drop_path_rate=0.0, use_checkpoint=False, *_args, **_kwargs):
        torch.manual_seed(7)  # the first thing that a model builds: the rest follows from it too
        return eva.VisionTransformer(
            img_size=img_size,
            patch_size=91,
            use_mean_pooling=False,
            embed_dim=32,
            depth=1,
            num_heads=2,
            mlp_ratio=2,
            qkv_bias=True,
            drop_path_rate=0.0,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_checkpoint=use_checkpoint,
        )

    original = blip2.create_eva_vit_g
    blip2.create_eva_vit_g = create
    try:
        yield
    finally:
        blip2.create_eva_vit_g = original


def fields(paths: types.SimpleNamespace, model_name: str) -> dict:
    """EasyEdit's own hparams fields for the tiny model `blip2` or `minigpt4`."""
    lm = paths.opt if model_name == "blip2" else paths.llama
    return {
        "model_name": model_name,
        "name": lm,
        "tokenizer_class": "GPT2Tokenizer" if model_name == "blip2" else "LlamaTokenizer",
        "tokenizer_name": lm,
        "qformer_checkpoint": paths.qformer,
        "qformer_name_or_path": paths.bert,
        "state_dict_file": paths.vit,
        "pretrained_ckpt": None,
        "coco_image": paths.images,
        "rephrase_image": paths.images,
        "device": "cpu",
    }
