"""A tiny ``CLIPModel`` folder, and the release's scope score computed from its description.

The reference follows FACTS section 2 word by word: pooled CLIP features, the dot product of texts
and images over all rows of the batch, exp(-squared distance), the edit's text with its answer, an
all-zero picture for a text-only query, and edits fused over the whole memory.
"""

from __future__ import annotations

from pathlib import Path

import torch

from easyedit_mm_plugins.data import Question

from ..conftest import WORDS

START, END = "<|startoftext|>", "<|endoftext|>"
SIZE = 32


def clip_folder(folder: Path, *, scale: float = 1.0, seed: int = 0) -> str:
    """A folder with a random ``CLIPModel``, its tokenizer (start and end have the highest ids, as
    CLIP's) and its image processor; ``scale`` stretches the features."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

    words = list(dict.fromkeys(["<unk>", *WORDS, START, END]))
    ids = {w: i for i, w in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=END, unk_token="<unk>"
    )
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = CLIPConfig(
        text_config={
            **size, "num_attention_heads": 2, "vocab_size": len(ids),
            "max_position_embeddings": 24, "bos_token_id": ids[START], "eos_token_id": ids[END],
            "pad_token_id": ids[END],
        },
        vision_config={**size, "num_attention_heads": 2, "image_size": SIZE, "patch_size": 8},
        projection_dim=12,
    )  # fmt: skip
    torch.manual_seed(seed)
    clip = CLIPModel(config).eval()
    for linear in (clip.text_projection, clip.visual_projection):
        torch.nn.init.normal_(linear.weight, std=0.12 * scale)
    clip.save_pretrained(folder)
    fast.save_pretrained(folder)
    processor = CLIPImageProcessor(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    processor.save_pretrained(folder)
    return str(folder)


class Reference:
    """The released scope classifier, from its description, on a folder of :func:`clip_folder`."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        self.clip = CLIPModel.from_pretrained(folder).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.processor = CLIPImageProcessor.from_pretrained(folder)

    @torch.no_grad()
    def features(self, texts: list[str], images: list) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.tokenizer(texts, return_tensors="pt", padding=True)
        text = self.clip.get_text_features(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        )
        pixels = torch.stack(
            [
                torch.zeros(3, SIZE, SIZE)
                if image is None
                else self.processor(images=image, return_tensors="pt")["pixel_values"][0]
                for image in images
            ]
        )
        image = self.clip.get_image_features(pixel_values=pixels)
        return tuple(getattr(f, "pooler_output", f) for f in (text, image))

    def fused(self, texts: list[str], images: list) -> torch.Tensor:
        text, image = self.features(texts, images)
        weights = torch.softmax(text @ image.T, dim=1)
        return torch.cat([text, weights @ image], dim=1)

    def scores(self, edits: list[Question], queries: list[Question]) -> torch.Tensor:
        """rho [queries, edits]; the queries are one batch, the edits one memory."""

        def prompt(q: Question) -> str:
            return q.text if q.image is None else f"Question: {q.text} Short answer:"

        z_e = self.fused([f"{prompt(e)} {e.answer}" for e in edits], [e.image for e in edits])
        z_t = self.fused([prompt(q) for q in queries], [q.image for q in queries])
        return torch.exp(-((z_t[:, None] - z_e[None]) ** 2).sum(-1))
