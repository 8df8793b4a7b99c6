"""Perceptual distance of two images: that of a trained network's features, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.objectives.checks import check_same, full_precision
from harmonia.types import HarmoniaError

Features = Callable[[Tensor], Sequence[Tensor]]
"""Images (n, c, h, w) to the features of some layers, each (n, C_l, H_l, W_l)."""

Normalise = Literal["size", "channels"]
"""Divide by C_l H_l W_l; unit length over the channels, then the mean over H_l W_l."""


@full_precision
def perceptual(
    features: Features,
    x: Tensor,
    y: Tensor,
    *,
    weights: Sequence[float] | None = None,
    normalise: Normalise = "size",
) -> Tensor:
    """The squared distance of the features of x and y, every layer divided by its size:

    "size"      L = mean_n sum_l w_l |phi_l(x) - phi_l(y)|^2 / (C_l H_l W_l)
    "channels"  L = mean_n sum_l w_l / (H_l W_l) sum_hw |u_l(x)_hw - u_l(y)_hw|^2, u = phi / |phi|

    Often printed as sum_l |phi_l(x) - phi_l(y)|^2, without the division: then a layer counts by how many
    numbers it has, and the first, with 32 times the numbers of the last in VGG-16, is most of the loss.
    With it, a layer whose channels or pixels are all repeated counts as before.

    Inputs: x, y (n, c, h, w) as ``features`` takes them; ``features`` any callable that gives maps of layers:
    `taps` of a network of ours, ``harmonia.layers.VGG16`` with published weights. ``weights`` one for each
    layer, all 1 by default. Requirements: the network is trained (features of a random one know edges at
    best), frozen and in evaluation mode. Both x and y get gradients; detach the one that is not to move.

    Relations: with the pixels as only layer, "size" is the mean squared error `l2`. "channels" is LPIPS
    without its learned weights of channels, at most 4 a layer. Neither is a likelihood; StyleGAN2-ADA has no
    such term.

    References: Gatys et al. 2015; Johnson, Alahi and Fei-Fei 2016 (size); Zhang et al. 2018, "The
    Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (LPIPS; channels).

        loss = perceptual(taps(judge, "stages.0", "stages.1"), decoder(z), images)
    """
    check_same(x=x, y=y)
    if normalise not in ("size", "channels"):
        raise HarmoniaError(f"normalise is size or channels, not {normalise!r}")
    ours, theirs = features(x), features(y)
    given = [1.0] * len(ours) if weights is None else weights
    if not ours or len(given) != len(ours):
        raise HarmoniaError(
            f"there are {len(ours)} layers of features and {len(given)} weights: give one each"
        )
    total = x.new_zeros(())
    for a, b, weight in zip(ours, theirs, given, strict=True):
        if normalise == "size":
            total = total + weight * (a - b).square().mean()
        else:
            unit = F.normalize(a, dim=1) - F.normalize(b, dim=1)
            total = total + weight * unit.square().sum(1).mean()
    return total


def taps(network: nn.Module, *names: str) -> Features:
    """The outputs of the named modules of ``network`` for an image, as `perceptual` takes them.

    ``names`` as ``network.named_modules()`` has them; HarmoniaError for another. The network is left as it
    is.
    """
    modules = dict(network.named_modules())
    if unknown := [name for name in names if name not in modules]:
        raise HarmoniaError(f"the network has no module {unknown[0]!r}: name one of its named_modules()")

    def features(x: Tensor) -> Sequence[Tensor]:
        seen: dict[str, Tensor] = {}

        def keeps(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
            return lambda module, given, out: seen.__setitem__(name, out)

        handles = [modules[name].register_forward_hook(keeps(name)) for name in names]
        try:
            network(x)
        finally:
            for handle in handles:
                handle.remove()
        return [seen[name] for name in names]

    return features
