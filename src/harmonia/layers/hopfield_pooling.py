"""Hopfield layers with learned patterns: pooling by learned states, lookup in learned stored patterns.

Ramsauer et al. 2021, "Hopfield Networks is All You Need".
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harmonia.layers.hopfield import Hopfield


class HopfieldPooling(nn.Module):
    """Pool a set of any size by ``quantity`` learned state patterns; the order of the set does not matter.

    ``trainable=False`` keeps the state patterns as drawn. All else is an option of `Hopfield`.
    """

    def __init__(self, input_size: int, *, quantity: int = 1, trainable: bool = True, **options: Any) -> None:
        super().__init__()
        self.hopfield = Hopfield(input_size, **options)
        self.pooling_weights = _learned(quantity, input_size, trainable)

    def forward(
        self,
        input: Tensor | tuple[Tensor, Tensor],
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        """Pool (stored, projection), or one tensor for both, (B, S, .) to (B, quantity * output_size)."""
        out = self.hopfield(self._with_states(input), stored_pattern_padding_mask, association_mask)
        pooled: Tensor = out if self.hopfield.batch_first else out.transpose(0, 1)
        return pooled.flatten(1)

    @property
    def output_size(self) -> int:
        """Width of what each state pattern pools."""
        return self.hopfield.output_size

    def get_association_matrix(
        self,
        input: Tensor | tuple[Tensor, Tensor],
        stored_pattern_padding_mask: Tensor | None = None,
        association_mask: Tensor | None = None,
    ) -> Tensor:
        """The weights of the set for each state pattern, (B, num_heads, quantity, S)."""
        return self.hopfield.get_association_matrix(
            self._with_states(input), stored_pattern_padding_mask, association_mask
        )

    def _with_states(self, input: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        stored, projected = (input, input) if isinstance(input, Tensor) else input
        return stored, _for_batch(self.pooling_weights, stored, self.hopfield.batch_first), projected


class HopfieldLayer(nn.Module):
    """Look the input up in ``quantity`` learned stored patterns.

    It returns projections of these, or of separate learned patterns, the targets, with
    ``lookup_weights_as_separated``. ``trainable=False`` keeps stored patterns as they are, for patterns that
    are copied in, and ``lookup_targets_as_trainable=False`` the targets, which by default do as these.
    All else is an option of `Hopfield`.
    """

    def __init__(
        self,
        input_size: int,
        *,
        quantity: int = 1,
        lookup_weights_as_separated: bool = False,
        lookup_targets_as_trainable: bool | None = None,
        trainable: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        self.hopfield = Hopfield(input_size, **options)
        stored, projected = self.hopfield.stored_pattern_size, self.hopfield.pattern_projection_size
        if stored != projected and not lookup_weights_as_separated:
            raise ValueError(
                f"stored patterns of {stored} numbers cannot serve as projections of {projected}: "
                "use lookup_weights_as_separated=True"
            )
        self.lookup_weights = _learned(quantity, stored, trainable)
        targets = trainable if lookup_targets_as_trainable is None else lookup_targets_as_trainable
        separated = lookup_weights_as_separated
        self.target_weights = _learned(quantity, projected, targets) if separated else None

    def forward(self, input: Tensor) -> Tensor:
        """Look up state patterns (B, L, input_size) to (B, L, output_size)."""
        out: Tensor = self.hopfield(self._with_patterns(input))
        return out

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return self.hopfield.output_size

    def get_association_matrix(self, input: Tensor) -> Tensor:
        """The weights of the stored patterns for the input, (B, num_heads, L, quantity)."""
        return self.hopfield.get_association_matrix(self._with_patterns(input))

    def _with_patterns(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        targets = self.lookup_weights if self.target_weights is None else self.target_weights
        first = self.hopfield.batch_first
        return _for_batch(self.lookup_weights, input, first), input, _for_batch(targets, input, first)


def _learned(quantity: int, size: int, trainable: bool) -> nn.Parameter:
    if quantity < 1:
        raise ValueError(f"quantity must be at least 1 (got {quantity})")
    return nn.Parameter(0.02 * torch.randn(quantity, size), requires_grad=trainable)


def _for_batch(patterns: Tensor, input: Tensor, batch_first: bool) -> Tensor:
    """Learned patterns (quantity, .) for every set in the input."""
    if input.dim() == 2:
        return patterns
    if batch_first:
        return patterns.expand(len(input), -1, -1)
    return patterns[:, None].expand(-1, input.shape[1], -1)
