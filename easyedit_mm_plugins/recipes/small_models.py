"""The embedded backbones' architectures: real Hugging Face classes, small configs.

Shapes: B pictures, P patches of all pictures together, V image tokens of one picture, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..core.errors import UnknownNameError
from ..scenes.second.tokenizer import BOS, CONTEXT, EOS, IMAGE, PAD, SPECIALS, vocabulary
from ..scenes.second.world import ATTRIBUTES, PLACES, SIDE, VALUES, Scene

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

NAMES = ("scenes-llava", "scenes-blip2", "scenes-minigpt4", "scenes-qwen")
PATCH = 8
GRID = SIDE // PATCH
MERGE = 2  # Qwen: patches that one image token joins, along each side
WIDTH = 128
QUERIES = 16
_AT_ONCE = 2  # pictures in one call of Qwen's vision tower
_LM_INIT = 0.08  # with the usual 0.02 a small language model sits on the plateau far longer
_VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 3 * WIDTH,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
}
_TEXT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}


def build_model(name: str) -> PreTrainedModel:
    """An untrained embedded backbone in float32.

    Raises:
        UnknownNameError: another name.
    """
    words = len(vocabulary(name))
    if name == "scenes-llava":
        return _llava(words)
    if name == "scenes-blip2":
        return _qformer(_opt(words))
    if name == "scenes-minigpt4":
        return _qformer(_llama(words))
    if name == "scenes-qwen":
        return _qwen(words)
    raise UnknownNameError(
        f"no embedded backbone is called {name!r}; there are: {', '.join(NAMES)}"
    )


def _llama(words: int) -> PretrainedConfig:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=words,
        intermediate_size=352,
        initializer_range=_LM_INIT,
        tie_word_embeddings=False,
        **_TEXT,
    )


def _opt(words: int) -> PretrainedConfig:
    from transformers import OPTConfig

    return OPTConfig(
        vocab_size=words,
        ffn_dim=4 * WIDTH,
        word_embed_proj_dim=WIDTH,
        init_std=_LM_INIT,
        dropout=0.0,
        **_TEXT,
    )


def _llava(words: int) -> PreTrainedModel:
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        CLIPVisionConfig(**_VISION, projection_dim=WIDTH),
        _llama(words),
        image_token_id=IMAGE,
        image_seq_length=GRID * GRID,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)


def _qformer(text: PretrainedConfig) -> PreTrainedModel:
    """ViT and Q-Former before ``text``: OPT makes it BLIP-2, Llama MiniGPT-4."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2QFormerConfig,
        Blip2VisionConfig,
    )

    qformer = Blip2QFormerConfig(
        vocab_size=len(SPECIALS),  # its word embeddings are never built
        hidden_size=WIDTH,
        encoder_hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        cross_attention_frequency=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.05,
    )
    vision = Blip2VisionConfig(**_VISION, initializer_range=0.05)  # the default is 1e-10
    config = Blip2Config(
        vision.to_dict(),
        qformer.to_dict(),
        text.to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=IMAGE,
        initializer_range=0.05,
    )
    model = Blip2ForConditionalGeneration(config)
    torch.nn.init.normal_(model.query_tokens, std=0.5)  # they start at zero, all alike
    return model


def _qwen(words: int) -> PreTrainedModel:
    """Qwen2-VL: pictures of any size, positions of three dimensions."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    start, end, video = range(words - 3, words)
    config = Qwen2VLConfig(
        vocab_size=words,
        intermediate_size=352,
        num_key_value_heads=4,
        initializer_range=_LM_INIT,
        tie_word_embeddings=False,
        # Of the 16 rotary frequencies of a head: 4 turn with time, 6 with the row, 6 the column.
        rope_scaling={"type": "mrope", "mrope_section": [4, 6, 6]},
        rope_theta=10_000.0,
        use_sliding_window=False,
        image_token_id=IMAGE,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
        vision_config={
            "depth": 4,
            "embed_dim": WIDTH,
            "hidden_size": WIDTH,
            "num_heads": 4,
            "mlp_ratio": 3,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "initializer_range": 0.05,
        },
        **_TEXT,
    )
    return Qwen2VLForConditionalGeneration(config)


def build_image_processor(name: str) -> Any:
    """64 x 64, no crop, mean and std 0.5; for Qwen the picture's own size."""
    from transformers import BlipImageProcessor, CLIPImageProcessor, Qwen2VLImageProcessor

    half = [0.5, 0.5, 0.5]
    if name == "scenes-qwen":
        return Qwen2VLImageProcessor(
            image_mean=half,
            image_std=half,
            patch_size=PATCH,
            merge_size=MERGE,
            temporal_patch_size=2,
            min_pixels=32 * 32,
            max_pixels=128 * 128,
        )
    size = {"height": SIDE, "width": SIDE}
    if name != "scenes-llava":
        return BlipImageProcessor(size=size, image_mean=half, image_std=half)
    return CLIPImageProcessor(size=size, do_center_crop=False, image_mean=half, image_std=half)


# Pictures as a model takes them ---------------------------------------------------------------


@dataclass
class Pictures:
    """Training pictures as one model reads them, and what lies at each of its patches.

    Attributes:
        scenes: the graphs.
        pixels: [B, 3, 64, 64], or for Qwen its flattened patches [P, 3 * 2 * 8 * 8].
        grids: Qwen: [B, 3], patches along time, height and width of each picture.
        patches: [P, 4], each patch's attributes as indices, -1 where the ground shows.
        cells: [B, 4, 4], the same for the four places.
    """

    scenes: Sequence[Scene]
    pixels: torch.Tensor
    grids: torch.Tensor | None
    patches: torch.Tensor
    cells: torch.Tensor


def take_in(
    name: str, scenes: Sequence[Scene], drawn: Sequence[tuple[np.ndarray, np.ndarray]]
) -> Pictures:
    """Pixels uint8 [H, W, 3] and owners int8 [H, W] of each scene as the model ``name`` reads them.

    What the image processor does, for many small pictures at once.
    """
    ragged = name == "scenes-qwen"
    pixels, grids, patches = [], [], []
    cells = np.full((len(scenes), len(PLACES), len(ATTRIBUTES)), -1)
    for i, (scene, (picture, owner)) in enumerate(zip(scenes, drawn, strict=True)):
        values = np.array(
            [[VALUES[a].index(e.value(a)) for a in ATTRIBUTES] for e in scene.entities]
        )
        cells[i, [PLACES.index(e.place) for e in scene.entities]] = values
        if not ragged:
            picture, owner = square(picture, owner)
        height, width = (side // PATCH for side in owner.shape)
        joined = MERGE if ragged else 1
        tiles = _tiles(owner[..., None], height, width, joined)
        target = np.full((len(tiles), len(ATTRIBUTES)), -1)
        for k, value in enumerate(values):
            target[(tiles == k).sum(1) >= 6] = value
        patches.append(target)
        scaled = picture.astype(np.float32) / 127.5 - 1
        if ragged:  # a still picture is two equal frames
            tile = _tiles(scaled, height, width, joined).reshape(len(tiles), 3, 1, PATCH * PATCH)
            pixels.append(tile.repeat(2, axis=2).reshape(len(tiles), -1))
            grids.append((1, height, width))
        else:
            pixels.append(scaled.transpose(2, 0, 1)[None])
    return Pictures(
        scenes,
        torch.from_numpy(np.concatenate(pixels)),
        torch.tensor(grids) if ragged else None,
        torch.from_numpy(np.concatenate(patches)),
        torch.from_numpy(cells),
    )


def square(picture: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture of another size as the image processors bring it to 64 x 64."""
    from PIL import Image

    if owner.shape == (SIDE, SIDE):
        return picture, owner
    resized = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    rows, columns = (np.arange(SIDE) * side // SIDE for side in owner.shape)
    return np.array(resized), owner[np.ix_(rows, columns)]


def _tiles(array: np.ndarray, height: int, width: int, joined: int) -> np.ndarray:
    """[H, W, C] as patches [height * width, C * 64]; those that are joined follow each other."""
    channels = array.shape[-1]
    parts = array.reshape(
        height // joined, joined, PATCH, width // joined, joined, PATCH, channels
    ).transpose(0, 3, 1, 4, 6, 2, 5)
    return parts.reshape(height * width, channels * PATCH * PATCH)


def see(model: Any, pictures: Pictures) -> dict[str, Any]:
    """The outputs of the vision side.

    Returns:
        ``patches`` [P, D]; ``queries`` [B, 16, D] (of a Q-Former); ``features``: of each picture
        the [V, D] that stand among the word embeddings.
    """
    if pictures.grids is not None:
        return _see_ragged(model, pictures.pixels, pictures.grids)
    if hasattr(model, "qformer"):
        states = model.vision_model(pictures.pixels).last_hidden_state
        tokens = model.query_tokens.expand(len(states), -1, -1)
        queries = model.qformer(query_embeds=tokens, encoder_hidden_states=states)
        queries = queries.last_hidden_state
        return {
            "patches": states[:, 1:].flatten(0, 1),
            "queries": queries,
            "features": list(model.language_projection(queries)),
        }
    tower = model.model.vision_tower
    states = tower(pictures.pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    return {
        "patches": states.flatten(0, 1),
        "features": list(model.model.multi_modal_projector(states)),
    }


def _see_ragged(model: Any, pixels: torch.Tensor, grids: torch.Tensor) -> dict[str, Any]:
    """A few pictures at a time: the tower attends over all patches of a call and masks those of
    other pictures out, so that its cost grows with the square of their number."""
    tower, seen, merged = model.model.visual, [], []
    hook = tower.merger.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    patches = pixels.split(grids.prod(-1).tolist())
    try:
        for at in range(0, len(grids), _AT_ONCE):
            part = slice(at, at + _AT_ONCE)
            merged.append(tower(torch.cat(patches[part]), grid_thw=grids[part]))
    finally:
        hook.remove()
    counts = (grids.prod(-1) // MERGE**2).tolist()
    return {"patches": torch.cat(seen), "features": list(torch.cat(merged).split(counts))}


# Prompts as a model takes them ----------------------------------------------------------------


def split_modules(model: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The decoder (returns hidden states) and the head (hidden states to logits)."""
    if hasattr(model, "qformer"):
        return model.language_model.model, model.language_model.lm_head
    return model.model.language_model, model.lm_head


@dataclass(frozen=True)
class Frame:
    """Token ids around what a prompt holds.

    Attributes:
        before: before the picture.
        after: between the picture and the question.
        alone: before a question without a picture.
        end: after the question, before the answer.
    """

    before: list[int]
    after: list[int]
    alone: list[int]
    end: list[int]


def frame(name: str, tokenizer: Any) -> Frame:
    """The frame of one embedded backbone's prompts."""

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    if name == "scenes-qwen":
        user = ids("<|im_start|>user")
        return Frame(
            [*user, *ids("<|vision_start|>")],
            ids("<|vision_end|>"),
            user,
            ids("<|im_end|><|im_start|>assistant"),
        )
    if name == "scenes-minigpt4":
        return Frame([BOS, *ids("###Human: <Img>")], ids("</Img>"), [BOS], [])
    if name == "scenes-blip2":
        return Frame([], [BOS], [BOS], [])
    return Frame([BOS], [], [BOS], [])


def prompt_ids(name: str, tokenizer: Any, text: str, image_tokens: int) -> list[int]:
    """Token ids of a row for the stock forward, ``image_tokens`` of a picture included."""
    parts = frame(name, tokenizer)
    words = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not image_tokens:
        return [*parts.alone, *words, *parts.end]
    return [*parts.before, *[IMAGE] * image_tokens, *parts.after, *words, *parts.end]
