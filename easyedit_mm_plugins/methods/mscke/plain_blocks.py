"""``open_clip``'s transformer blocks without their modules' overhead, for inference.

At batch 1 a small tower spends more time between its kernels than in them: module calls, and the
bookkeeping of ``nn.MultiheadAttention``. The same sums from the same weights take about half of it,
and less still by the one call with which torch's own encoder layer computes itself in inference.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def are_plain(blocks: Sequence[nn.Module]) -> bool:
    """Whether :func:`run` computes what these blocks do: self-attention and MLP, both pre-norm."""
    return all(_is_plain(block) for block in blocks)


def _is_plain(block: nn.Module) -> bool:
    attn, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
    scales = (getattr(block, name, None) for name in ("ls_1", "ls_2"))
    return (
        type(block).__name__ == "ResidualAttentionBlock"
        and type(attn) is nn.MultiheadAttention
        and attn.in_proj_weight is not None
        and attn.in_proj_bias is not None
        and attn.batch_first
        and attn.bias_k is None
        and not attn.add_zero_attn
        and isinstance(mlp, nn.Sequential)
        and [name for name, _ in mlp.named_children()] == ["c_fc", "gelu", "c_proj"]
        and type(mlp.c_fc) is nn.Linear
        and all(isinstance(scale, nn.Identity) for scale in scales)
        and not hasattr(block, "ln_1_kv")
        and isinstance(block.ln_1, nn.LayerNorm)
    )


def _is_native(block: nn.Module) -> bool:
    gelu = block.mlp.gelu
    return (
        hasattr(torch, "_transformer_encoder_layer_fwd")
        and type(gelu) is nn.GELU
        and gelu.approximate == "none"
        and block.attn.num_heads % 2 == 0
        and block.ln_1.eps == block.ln_2.eps
    )


@torch.no_grad()
def run(blocks: Sequence[nn.Module], x: Tensor, *, causal: bool = False) -> Tensor:
    """``x [B, T, D]`` through ``blocks``, for which :func:`are_plain` holds; no gradients."""
    mask = None
    for block in blocks:
        if _is_native(block):
            if causal and mask is None:
                ones = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
                mask = ones.triu_(1)
            x = _native(block, x, mask)
        else:
            x = _step_by_step(block, x, causal)
    return x


def _native(block: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    attn, one, two, mlp = block.attn, block.ln_1, block.ln_2, block.mlp
    return torch._transformer_encoder_layer_fwd(
        x,
        attn.embed_dim,
        attn.num_heads,
        attn.in_proj_weight,
        attn.in_proj_bias,
        attn.out_proj.weight,
        attn.out_proj.bias,
        True,  # GELU
        True,  # norms first
        one.eps,
        one.weight,
        one.bias,
        two.weight,
        two.bias,
        mlp.c_fc.weight,
        mlp.c_fc.bias,
        mlp.c_proj.weight,
        mlp.c_proj.bias,
        mask,
        None if mask is None else 0,  # the mask says which positions see which
    )


def _step_by_step(block: nn.Module, x: Tensor, causal: bool) -> Tensor:
    attn, norm, mlp, size = block.attn, block.ln_1, block.mlp, x.shape[-1:]
    h = F.layer_norm(x, size, norm.weight, norm.bias, norm.eps)
    h = F.linear(h, attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = h.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    h = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    h = h.transpose(1, 2).flatten(2)
    x = x + F.linear(h, attn.out_proj.weight, attn.out_proj.bias)
    norm = block.ln_2
    h = F.layer_norm(x, size, norm.weight, norm.bias, norm.eps)
    h = mlp.gelu(F.linear(h, mlp.c_fc.weight, mlp.c_fc.bias))
    return x + F.linear(h, mlp.c_proj.weight, mlp.c_proj.bias)
