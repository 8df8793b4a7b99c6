"""GLIDE: words to a small picture, or to what is missing of one, then a larger picture.

Reference: Nichol et al. 2022, "GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided
Diffusion Models". A diffusion model of pixels that attends to the tokens of a text, guidance without a
classifier, an upsampler, and a finetuning after which it completes pictures. There is no VAE in it, nor a
VAE's loss.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.generators.base import Batch
from harmonia.generators.conditioning import Condition, ConditionConfig
from harmonia.generators.diffusion.cascade import Cascade, CascadeConfig
from harmonia.generators.diffusion.guidance import keep
from harmonia.generators.diffusion.model import Guide


@dataclass(frozen=True, kw_only=True)
class GlideConfig(CascadeConfig):
    """A cascade whose base is also told what is known of a picture: its channels, and where it is known."""

    def told(self) -> ConditionConfig:
        """With the known pixels and the mask."""
        return replace(self.condition, channels=self.shape[0] + 1)


class Glide(Cascade):
    """A cascade that draws from a text and completes pictures.

    To complete one, ``condition.image`` (n, c + 1, h, w) has the picture and in its last channel 1 where
    that is known, 0 where it is to be drawn: known pixels come back as they were. Without it all is drawn.
    """

    config: GlideConfig

    def base_told(self, condition: Condition) -> Condition:
        """What is known, at the size of the base: a small pixel is known where all of its square is."""
        channels, height, width = self.config.base.shape
        if condition.image is None:
            image = torch.zeros(condition.n, channels + 1, height, width, device=self.device)
        else:
            x, mask = condition.image[:, :-1], condition.image[:, -1:]
            known = -F.max_pool2d(-mask, self.config.factor)
            image = torch.cat([self.reduce(x) * known, known], 1)
        level = torch.zeros(condition.n, device=self.device)  # the known is told as it is
        return replace(condition, image=image, level=level)

    def guide(self, condition: Condition) -> Guide | None:
        """The upsampler keeps what is known, too."""
        if condition.image is None:
            return None
        image = condition.image.to(self.device)
        return lambda predict: keep(predict, self.upsampler.path, image[:, :-1], image[:, -1:] > 0)

    def finished(self, x: Tensor, condition: Condition) -> Tensor:
        """Known pixels as they were given, to the bit."""
        if condition.image is None:
            return x
        image = condition.image.to(x)
        return torch.where(image[:, -1:] > 0, image[:, :-1], x)


class Inpainting(nn.Module):
    """The finetuning of a `Glide`: its base learns to complete pictures of which random parts are missing.

    A quarter of the pictures are missing as a whole, so that it does not forget how to draw.
    """

    def __init__(self, model: Glide) -> None:
        super().__init__()
        self.model = model

    def begin(self) -> None:
        """Let the base learn again, after a stage that has frozen it."""
        self.model.base.requires_grad_(True)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The base's."""
        return self.model.base.groups()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The base's loss, given what is left of each picture."""
        n, _, height, width = batch.x.shape
        mask = erased(n, height, width).to(batch.x) * (torch.rand(n, 1, 1, 1) > 0.25).to(batch.x)
        told = replace(batch.condition, image=torch.cat([batch.x, mask], 1))
        return self.model.base.losses(Batch(self.model.reduce(batch.x), self.model.base_told(told)))


def erased(n: int, height: int, width: int) -> Tensor:
    """Masks (n, 1, h, w): 0 in a rectangle of a quarter to all of each side, 1 elsewhere."""
    inside = []
    for side in (height, width):
        size = (0.25 + 0.75 * torch.rand(n, 1)) * side
        start = torch.rand(n, 1) * (side - size)
        place = torch.arange(side) + 0.5
        inside.append((place > start) & (place < start + size))
    rows, columns = inside
    return (~(rows[:, :, None] & columns[:, None, :])).float()[:, None]
