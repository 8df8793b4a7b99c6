"""Adaptive discriminator augmentation (ADA), against overfitting of the critic on few images.

Real and generated images go through the same random augmentations, each with probability p, before the critic
sees them. As long as p is below 0.8, the generator does not learn the augmentations. p adapts to overfitting:
a critic that has memorised its images gives all real ones a positive score, r = E sign(D(real)) near 1, and
p rises.

Reference: Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (StyleGAN2-ADA).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.objectives import gather
from harmonia.types import HarmoniaError

GEOMETRY = ("flip", "turn", "shift", "scale", "rotate")
COLOUR = ("brightness", "contrast", "saturation")
KINDS = (*GEOMETRY, *COLOUR, "noise", "cutout")
MOST = 0.8
"""The highest p: above it, augmentations leak into generated images (as in the paper)."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Settings of adaptive augmentation.

    ``kinds``   of augmentation, from ``KINDS``
    ``target``  of r
    ``every``   steps between updates of p
    ``images``  real images after which p has gone from 0 to 1 at most
    ``start``   first value of p
    """

    kinds: tuple[str, ...] = ("shift", "scale", "rotate", "brightness", "contrast", "noise", "cutout")
    target: float = 0.6
    every: int = 4
    images: int = 500_000
    start: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings; HarmoniaError if one is out of range."""
        if unknown := set(self.kinds) - set(KINDS):
            raise HarmoniaError(
                f"there is no augmentation {sorted(unknown)[0]!r}: choose from {', '.join(KINDS)}"
            )
        if not (0 <= self.start <= MOST and self.every >= 1 and self.images >= 1 and -1 <= self.target <= 1):
            raise HarmoniaError(
                f"start must be from 0 to {MOST}, target from -1 to 1, every and images at least 1"
            )


class Augment(nn.Module):
    """Augments images, each kind with probability ``p``, which `observe` adapts."""

    p: Tensor
    signs: Tensor
    seen: Tensor
    calls: Tensor

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("p", torch.tensor(config.start))
        for name in ("signs", "seen", "calls"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Augment images (n, c, h, w) in [-1, 1], differentiably; draws from torch's global generator."""
        if not self.p:
            return x
        if any(kind in GEOMETRY for kind in self.config.kinds):
            x = self._geometry(x)
        x = self._colour(x)
        if "noise" in self.config.kinds:
            strength = self._chosen(0.1 * torch.randn(len(x), device=x.device).abs(), 0.0)
            x = x + strength.view(-1, 1, 1, 1) * torch.randn_like(x)
        if "cutout" in self.config.kinds:
            x = x * self._holes(x)
        return x

    @torch.no_grad()
    def observe(self, scores: Tensor) -> None:
        """Record the critic's scores of real images (positive: real); p is updated every few calls."""
        scores = gather(scores.detach().flatten())
        self.signs += scores.sign().sum()
        self.seen += scores.numel()
        self.calls += 1
        if self.calls >= self.config.every:
            overfits = (self.signs / self.seen - self.config.target).sign()
            self.p.add_(overfits * self.seen / self.config.images).clamp_(0.0, MOST)
            for count in (self.signs, self.seen, self.calls):
                count.zero_()

    def _chosen(self, values: Tensor, still: float) -> Tensor:
        """``values`` (n,) with probability p, else ``still``, the value that changes nothing."""
        chosen = torch.rand(len(values), device=values.device) < self.p
        return torch.where(chosen, values, torch.full_like(values, still))

    def _geometry(self, x: Tensor) -> Tensor:
        """All geometric augmentations as one affine map for each image, with reflection padding."""
        n, _, h, w = x.shape
        device, kinds = x.device, self.config.kinds
        angle, grow, mirror = (torch.full((n,), value, device=device) for value in (0.0, 1.0, 1.0))
        move = torch.zeros(n, 2, device=device)
        if "flip" in kinds:
            mirror = self._chosen(1.0 - 2.0 * torch.randint(2, (n,), device=device), 1.0)
        if "turn" in kinds:
            angle = angle + self._chosen(torch.randint(4, (n,), device=device) * (math.pi / 2), 0.0)
        if "rotate" in kinds:
            angle = angle + self._chosen((torch.rand(n, device=device) * 2 - 1) * math.pi, 0.0)
        if "scale" in kinds:
            grow = self._chosen((0.2 * math.log(2) * torch.randn(n, device=device)).exp(), 1.0)
        if "shift" in kinds:
            size = torch.tensor([w, h], device=device)
            pixels = ((torch.rand(n, 2, device=device) * 2 - 1) * size * 0.125).round()
            move = pixels / size * 2 * self._chosen(torch.ones(n, device=device), 0.0)[:, None]
        cos, sin = angle.cos() / grow, angle.sin() / grow
        # The map is of coordinates from -1 to 1 in both directions, whatever the picture's sides.
        rows = [cos * mirror, -sin * (h / w) * mirror, move[:, 0], sin * (w / h), cos, move[:, 1]]
        grid = F.affine_grid(torch.stack(rows, 1).view(n, 2, 3), list(x.shape), align_corners=False)
        return F.grid_sample(x, grid.to(x.dtype), padding_mode="reflection", align_corners=False)

    def _colour(self, x: Tensor) -> Tensor:
        """Brightness adds to all values, contrast scales them, saturation scales colours around their
        grey."""
        n, kinds = len(x), self.config.kinds
        normal = torch.randn(3, n, device=x.device)
        if "brightness" in kinds:
            x = x + self._chosen(0.2 * normal[0], 0.0).view(n, 1, 1, 1)
        if "contrast" in kinds:
            x = x * self._chosen((0.5 * math.log(2) * normal[1]).exp(), 1.0).view(n, 1, 1, 1)
        if "saturation" in kinds and x.shape[1] == 3:
            grey = x.mean(1, keepdim=True)
            x = grey + (x - grey) * self._chosen((math.log(2) * normal[2]).exp(), 1.0).view(n, 1, 1, 1)
        return x

    def _holes(self, x: Tensor) -> Tensor:
        """A cutout mask: 0 in a box of half the sides around a random point, 1 elsewhere."""
        n, _, h, w = x.shape
        cut = self._chosen(torch.ones(n, device=x.device), 0.0).view(n, 1, 1, 1)
        inside = cut
        for side, view in ((h, (1, 1, -1, 1)), (w, (1, 1, 1, -1))):
            centre = torch.rand(n, device=x.device).view(n, 1, 1, 1) * side
            place = torch.arange(side, device=x.device).view(view) + 0.5
            inside = inside * ((place - centre).abs() < side / 4)
        return 1 - inside.to(x.dtype)
