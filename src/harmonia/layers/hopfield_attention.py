"""Hopfield layers that replace `nn.MultiheadAttention`, with its weights and its signature."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harmonia.layers.hopfield import Hopfield


def copy_attention(attention: nn.MultiheadAttention, **options: Any) -> Hopfield:
    """A `Hopfield` with the weights of ``attention``, and its output unless ``options`` change it."""
    if attention.bias_k is not None:
        raise ValueError("attention with add_bias_kv has no Hopfield counterpart: train without it")
    weight, bias = attention.out_proj.weight, attention.in_proj_bias
    settings: dict[str, Any] = {
        "num_heads": attention.num_heads,
        "stored_pattern_size": attention.kdim,
        "pattern_projection_size": attention.vdim,
        "normalize_state_pattern": False,
        "normalize_stored_pattern": False,
        "normalize_pattern_projection": False,
        "batch_first": attention.batch_first,
        "dropout": attention.dropout,
        "input_bias": bias is not None,
        "add_zero_association": attention.add_zero_attn,
    }
    layer = Hopfield(attention.embed_dim, **(settings | options)).to(weight.device, weight.dtype)
    if attention.in_proj_weight is None:
        weights = (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)
    else:
        weights = attention.in_proj_weight.chunk(3)
    state = dict(zip(("state_", "stored_", "pattern_", "out_"), (*weights, weight), strict=True))
    copied = {f"{name}projection.weight": value for name, value in state.items()}
    if bias is not None:
        biases = (*bias.chunk(3), attention.out_proj.bias)
        copied |= {f"{name}projection.bias": value for name, value in zip(state, biases, strict=True)}
    # Not strict: options may add norms and a learned scaling, which the attention does not have.
    layer.load_state_dict(copied, strict=False)
    return layer.train(attention.training)


class _SlowPath:
    """A placeholder for weights, which keeps torch's fused encoder from bypassing the layer.

    `nn.TransformerEncoder` looks for tensors that override torch functions before it takes its fast path.
    """

    @classmethod
    def __torch_function__(cls, *call: object, **named: object) -> object:
        return NotImplemented


class HopfieldAttention(nn.Module):
    """A `Hopfield` that is called like `nn.MultiheadAttention`.

    It stands in for it in a Transformer, in training and evaluation, before or after it is put into an
    `nn.TransformerEncoder`:

        layer.self_attn = HopfieldAttention(copy_attention(layer.self_attn, entropy=Tsallis(1.5)))
    """

    # Read by torch, which would else compute the softmax by itself in evaluation.
    _qkv_same_embed_dim = False
    in_proj_weight = in_proj_bias = _SlowPath()

    def __init__(self, hopfield: Hopfield) -> None:
        super().__init__()
        if hopfield.out_projection is None:
            raise ValueError("attention needs an output projection: use disable_out_projection=False")
        self.hopfield = hopfield

    @property
    def batch_first(self) -> bool:
        """Whether the batch is the first axis."""
        return self.hopfield.batch_first

    @property
    def num_heads(self) -> int:
        """Number of heads."""
        return self.hopfield.num_heads

    @property
    def embed_dim(self) -> int:
        """Width of the queries."""
        return self.hopfield.input_size

    @property
    def out_proj(self) -> nn.Linear | None:
        """The last projection."""
        return self.hopfield.out_projection

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Queries are states, keys stored patterns, values projections; shapes and masks as in torch.

        Returns the output and, if needed, the weights (B, L, S), (B, num_heads, L, S) if not averaged.
        ``is_causal`` without ``attn_mask`` leaves out what comes later.
        """
        if is_causal and attn_mask is None:
            axis = 1 if self.batch_first and query.dim() == 3 else 0
            shape = (query.shape[axis], key.shape[axis])
            attn_mask = torch.ones(shape, dtype=torch.bool, device=query.device).triu(diagonal=1)
        out, p = self.hopfield.association((key, query, value), key_padding_mask, attn_mask, need_weights)
        return out, p.mean(dim=-3) if p is not None and average_attn_weights else p
