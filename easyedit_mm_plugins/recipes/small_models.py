"""The embedded backbones' architectures: real Hugging Face classes, small configs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..core.errors import UnknownNameError
from ..scenes.tokenizer import BOS, EOS, IMAGE, PAD, SPECIALS, WRAP, vocabulary
from ..scenes.world import IMAGE_SIZE

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

NAMES = ("scenes-llava", "scenes-blip2", "scenes-minigpt4")
PATCH = 8
GRID = IMAGE_SIZE // PATCH
WIDTH = 128
QUERIES = 16
_LM_INIT = 0.08  # with the usual 0.02 a small language model sits on the plateau far longer
_VISION = {
    "hidden_size": WIDTH,
    "intermediate_size": 3 * WIDTH,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH,
}
_TEXT = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}


def build_model(name: str) -> PreTrainedModel:
    """An untrained embedded backbone in float32.

    Raises:
        UnknownNameError: another name.
    """
    if name == "scenes-llava":
        return _llava()
    if name == "scenes-blip2":
        return _qformer(_opt())
    if name == "scenes-minigpt4":
        return _qformer(_llama(len(vocabulary()) + len(WRAP)))
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


def _opt() -> PretrainedConfig:
    from transformers import OPTConfig

    return OPTConfig(
        vocab_size=len(vocabulary()),
        ffn_dim=4 * WIDTH,
        word_embed_proj_dim=WIDTH,
        init_std=_LM_INIT,
        dropout=0.0,
        **_TEXT,
    )


def _llava() -> PreTrainedModel:
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    config = LlavaConfig(
        CLIPVisionConfig(**_VISION, projection_dim=WIDTH),
        _llama(len(vocabulary())),
        image_token_id=IMAGE,
        image_seq_length=GRID * GRID,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    return LlavaForConditionalGeneration(config)


def _qformer(text: PretrainedConfig) -> PreTrainedModel:
    """ViT and Q-Former before ``text``: OPT makes it BLIP-2, Llama MiniGPT-4."""
    import torch
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


def build_image_processor(name: str) -> Any:
    """64 x 64, no crop, mean and std 0.5."""
    from transformers import BlipImageProcessor, CLIPImageProcessor

    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    half = [0.5, 0.5, 0.5]
    if name != "scenes-llava":
        return BlipImageProcessor(size=size, image_mean=half, image_std=half)
    return CLIPImageProcessor(size=size, do_center_crop=False, image_mean=half, image_std=half)


def see(model: Any, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The outputs of the vision side for pixels [B, 3, 64, 64].

    Returns:
        ``patches`` [B, 64, D]; ``queries`` [B, 16, D] (of a Q-Former); ``features`` [B, V, D],
        ready to stand among the word embeddings.
    """
    if hasattr(model, "qformer"):
        states = model.vision_model(pixels).last_hidden_state
        tokens = model.query_tokens.expand(len(pixels), -1, -1)
        queries = model.qformer(query_embeds=tokens, encoder_hidden_states=states)
        queries = queries.last_hidden_state
        return {
            "patches": states[:, 1:],
            "queries": queries,
            "features": model.language_projection(queries),
        }
    states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
    return {"patches": states, "features": model.model.multi_modal_projector(states)}


def split_modules(model: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The decoder (returns hidden states) and the head (hidden states to logits)."""
    if hasattr(model, "qformer"):
        return model.language_model.model, model.language_model.lm_head
    return model.model.language_model, model.lm_head


def frame(model: PreTrainedModel) -> tuple[list[int], list[int]]:
    """Token ids before and after the image embeddings of a row, up to the template."""
    if not hasattr(model, "qformer"):
        return [BOS], []
    if model.config.text_config.model_type == "opt":
        return [], [BOS]
    first = len(vocabulary())
    return [BOS, first, first + 1], [first + 2]


def prompt_ids(model: PreTrainedModel, words: list[int], image: bool) -> list[int]:
    """Token ids of a row for the stock forward, image tokens included."""
    if not image:
        return [BOS, *words]
    before, after = frame(model)
    count = QUERIES if hasattr(model, "qformer") else GRID * GRID
    return [*before, *[IMAGE] * count, *after, *words]
