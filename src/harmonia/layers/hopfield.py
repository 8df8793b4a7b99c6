"""The Hopfield layer for neural networks: association of sets of patterns.

Ramsauer et al. 2021, "Hopfield Networks is All You Need"; argument names are those of the package that came
with it. State patterns, stored patterns and pattern projections correspond to the queries, keys and values of
attention. The layer differs from attention in the entropy and in updating the state several times before the
values are read.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.memory.entropies import Entropy
from harmonia.memory.hopfield import NAMED, SOFTMAX, associate, retrieve

# Updates for update_steps_max=None.
UNTIL_REST = 1000

Input = Tensor | tuple[Tensor, Tensor, Tensor]


class Hopfield(nn.Module):
    """Associate state patterns with stored patterns and return the mean of their projections.

    ``input_size``, ``stored_pattern_size``, ``pattern_projection_size``: widths of state patterns, stored
    patterns and projections as they come; the latter are by default as the first. ``hidden_size``: width of a
    head, in which states meet stored patterns (``input_size / num_heads``). ``pattern_size``: width of what a
    head returns (``hidden_size``). ``output_size``: width of the output (``input_size``).

    ``scaling``: beta (1 / sqrt(hidden_size)); ``learn_scaling`` learns one for each head, from there on.
    ``update_steps_max``: updates of the state before it is read out; 0 is attention, None until all rest.
    ``update_steps_eps``: how little a state moves when it rests. ``entropy``: what weighs the patterns.

    ``normalize_...``: layer norm of the patterns as they come, with a learned gain unless not
    ``normalize_..._affine``, and ``normalize_..._eps`` beside the variance;
    ``normalize_hopfield_space``: layer norm, without one, of states and stored patterns in each head, and of
    the state after each update.
    ``..._as_static``: no learned projection; the pattern itself serves every head. ``dropout`` acts on the
    association. ``input_bias``: biases in all projections. ``add_zero_association``: one more stored pattern
    and projection of zeros, so that nothing may be the answer. ``disable_out_projection``: the output is what
    the heads return, side by side.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | None = None,
        output_size: int | None = None,
        pattern_size: int | None = None,
        num_heads: int = 1,
        scaling: float | None = None,
        update_steps_max: int | None = 0,
        update_steps_eps: float = 1e-4,
        *,
        entropy: Entropy = SOFTMAX,
        learn_scaling: bool = False,
        normalize_stored_pattern: bool = True,
        normalize_state_pattern: bool = True,
        normalize_pattern_projection: bool = True,
        normalize_stored_pattern_affine: bool = True,
        normalize_state_pattern_affine: bool = True,
        normalize_pattern_projection_affine: bool = True,
        normalize_stored_pattern_eps: float = 1e-5,
        normalize_state_pattern_eps: float = 1e-5,
        normalize_pattern_projection_eps: float = 1e-5,
        normalize_hopfield_space: bool = False,
        stored_pattern_as_static: bool = False,
        state_pattern_as_static: bool = False,
        pattern_projection_as_static: bool = False,
        stored_pattern_size: int | None = None,
        pattern_projection_size: int | None = None,
        batch_first: bool = True,
        dropout: float = 0.0,
        input_bias: bool = True,
        add_zero_association: bool = False,
        disable_out_projection: bool = False,
    ) -> None:
        super().__init__()
        stored_size = stored_pattern_size or input_size
        projection_size = pattern_projection_size or input_size
        if hidden_size is None and stored_pattern_as_static:
            hidden_size = stored_size
        elif hidden_size is None and state_pattern_as_static:
            hidden_size = input_size
        elif hidden_size is None:
            if input_size % num_heads:
                raise ValueError(
                    f"input_size {input_size} is no multiple of {num_heads} heads: give hidden_size"
                )
            hidden_size = input_size // num_heads
        pattern_size = pattern_size or (projection_size if pattern_projection_as_static else hidden_size)
        if scaling is not None and not scaling > 0:
            raise ValueError(f"scaling must be positive (got {scaling})")
        if update_steps_max is not None and update_steps_max < 0:
            raise ValueError(f"update_steps_max is 0 or more, or None (got {update_steps_max})")

        self.input_size, self.num_heads, self.batch_first = input_size, num_heads, batch_first
        self.stored_pattern_size, self.pattern_projection_size = stored_size, projection_size
        self.entropy, self.dropout = entropy, dropout
        self.update_steps_max, self.update_steps_eps = update_steps_max, update_steps_eps
        self.normalize_hopfield_space = normalize_hopfield_space
        self.add_zero_association = add_zero_association
        self.scaling = 1.0 / math.sqrt(hidden_size) if scaling is None else scaling
        log_scaling = torch.full((num_heads, 1), math.log(self.scaling))
        self.log_scaling = nn.Parameter(log_scaling) if learn_scaling else None

        self.norm_state_pattern = (
            nn.LayerNorm(input_size, normalize_state_pattern_eps, normalize_state_pattern_affine)
            if normalize_state_pattern
            else None
        )
        self.norm_stored_pattern = (
            nn.LayerNorm(stored_size, normalize_stored_pattern_eps, normalize_stored_pattern_affine)
            if normalize_stored_pattern
            else None
        )
        self.norm_pattern_projection = (
            nn.LayerNorm(
                projection_size, normalize_pattern_projection_eps, normalize_pattern_projection_affine
            )
            if normalize_pattern_projection
            else None
        )
        heads = (num_heads, input_bias)
        self.state_projection = _head(state_pattern_as_static, "state", input_size, hidden_size, *heads)
        self.stored_projection = _head(stored_pattern_as_static, "stored", stored_size, hidden_size, *heads)
        self.pattern_projection = _head(
            pattern_projection_as_static, "projected", projection_size, pattern_size, *heads
        )
        width = num_heads * pattern_size
        self.output_size = output_size or (width if disable_out_projection else input_size)
        if disable_out_projection and self.output_size != width:
            raise ValueError(f"without an output projection output_size is {width} (got {output_size})")
        self.out_projection = (
            None if disable_out_projection else nn.Linear(width, self.output_size, bias=input_bias)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projections anew (Glorot and Bengio 2010), without bias."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(
        self,
        input: Input,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        """Associate (stored (B, S, .), state (B, L, .), projection (B, S, .)) to (B, L, output_size).

        One tensor stands for all three. Without ``batch_first`` the first two axes are exchanged; without a
        batch there is one axis less. Masks as in `nn.MultiheadAttention`: ``stored_pattern_padding_mask``
        (B, S), ``association_mask`` (L, S) or (B * num_heads, L, S), bool with True = left out, or numbers
        added to the scores. Where all is left out the heads return zero (`nn.MultiheadAttention` NaN, if
        asked for weights), and the output is the bias of the last projection.
        """
        return self.association(input, stored_pattern_padding_mask, association_mask)[0]

    @torch.no_grad()
    def get_association_matrix(
        self,
        input: Input,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        """The association weights of states and stored patterns, (B, num_heads, L, S); S + 1 with
        ``add_zero_association``."""
        p = self.association(input, stored_pattern_padding_mask, association_mask, need_weights=True)[1]
        assert p is not None
        return p

    def association(
        self,
        input: Input,
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """The output of `forward`, and the association before dropout if asked for."""
        stored, state, projected = (input,) * 3 if isinstance(input, Tensor) else input
        batched = state.dim() == 3
        if batched and not self.batch_first:
            stored, state, projected = (x.transpose(0, 1) for x in (stored, state, projected))
        elif not batched:
            stored, state, projected = stored[None], state[None], projected[None]
            padding = stored_pattern_padding_mask
            stored_pattern_padding_mask = None if padding is None else padding[None]
        if stored.shape[:2] != projected.shape[:2] or len(stored) != len(state):
            shapes = ", ".join(str(tuple(x.shape[:2])) for x in (stored, state, projected))
            raise ValueError(f"stored, state and projected patterns differ in (batch, number): {shapes}")
        q = self._heads(state, self.norm_state_pattern, self.state_projection)
        k = self._heads(stored, self.norm_stored_pattern, self.stored_projection)
        v = self._heads(projected, self.norm_pattern_projection, self.pattern_projection)
        shape = (len(q), self.num_heads, q.shape[2], k.shape[2])
        mask = _merged(stored_pattern_padding_mask, association_mask, shape, q.dtype)
        out, p = self._associate(q, k, v, mask, need_weights)
        out = out.transpose(1, 2).flatten(2)
        out = out if self.out_projection is None else self.out_projection(out)
        if not batched:
            return out[0], None if p is None else p[0]
        return out if self.batch_first else out.transpose(0, 1), p

    def _heads(self, x: Tensor, norm: nn.LayerNorm | None, projection: nn.Linear | None) -> Tensor:
        """(B, S, .) to (B, num_heads, S, .)."""
        x = x if norm is None else norm(x)
        if projection is None:
            return x[:, None].expand(-1, self.num_heads, -1, -1)
        projected: Tensor = projection(x)
        return projected.reshape(*x.shape[:2], self.num_heads, -1).transpose(1, 2)

    def _associate(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        if self.normalize_hopfield_space:
            q, k = (NAMED["layer_norm"].activation(x) for x in (q, k))
        if self.add_zero_association:
            k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
            mask = None if mask is None else F.pad(mask, (0, 1), value=float(mask.dtype == torch.bool))
        beta = self.scaling if self.log_scaling is None else self.log_scaling.exp()
        most = UNTIL_REST if self.update_steps_max is None else self.update_steps_max
        dropout = self.dropout if self.training else 0.0
        settings: dict[str, Any] = {
            "beta": beta,
            "entropy": self.entropy,
            "steps": most + 1,
            "tolerance": self.update_steps_eps,
            "mask": mask,
            "post": "layer_norm" if self.normalize_hopfield_space else "identity",
        }
        if not need_weights:
            return retrieve(q, k, v, dropout=dropout, **settings), None
        p = associate(q, k, **settings).p
        return F.dropout(p, dropout) @ v, p


def _head(static: bool, name: str, size: int, width: int, num_heads: int, bias: bool) -> nn.Linear | None:
    """The projection of a pattern of ``size`` to ``num_heads`` of ``width``; none for a static one."""
    if not static:
        return nn.Linear(size, num_heads * width, bias=bias)
    if size != width:
        raise ValueError(f"a static {name} pattern has the width of a head, {width} (got {size})")
    return None


def _merged(
    padding: Tensor | None, association: Tensor | None, shape: tuple[int, int, int, int], dtype: torch.dtype
) -> Tensor | None:
    """One mask for scores of ``shape`` (B, heads, L, S): bool with True = present, or numbers to add."""
    batch, heads, rows, columns = shape
    parts = []
    if padding is not None:
        if padding.shape != (batch, columns):
            raise ValueError(f"the padding mask must be {(batch, columns)} (got {tuple(padding.shape)})")
        parts.append(padding[:, None, None])
    if association is not None:
        if association.shape not in ((rows, columns), (batch * heads, rows, columns)):
            raise ValueError(
                f"the association mask must be {(rows, columns)} or {(batch * heads, rows, columns)} "
                f"(got {tuple(association.shape)})"
            )
        parts.append(association if association.dim() == 2 else association.reshape(shape))
    if not parts:
        return None
    if all(part.dtype == torch.bool for part in parts):
        return ~(parts[0] if len(parts) == 1 else parts[0] | parts[1])
    return sum((_added(part, dtype) for part in parts[1:]), _added(parts[0], dtype))


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers to add."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)
