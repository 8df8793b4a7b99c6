"""GLIDE: text to a small image, or inpainting of one, then upsampling.

Reference: Nichol et al. 2022, "GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided
Diffusion Models". A diffusion model of pixels that attends to the tokens of a text, classifier-free guidance,
an upsampler, and finetuning for inpainting. There is no VAE.
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
    """A cascade whose base is also conditioned on the known pixels of an image and their mask."""

    def model_condition(self) -> ConditionConfig:
        """The conditions of the base, with the known pixels and the mask."""
        return replace(self.condition, channels=self.shape[0] + 1)


class Glide(Cascade):
    """A cascade that draws images from texts and inpaints.

    To inpaint, ``condition.image`` (n, c + 1, h, w) has the image and, as the last channel, a mask: 1 for
    known pixels, which are kept, and 0 for pixels to draw. Without it, the whole image is drawn.
    """

    config: GlideConfig

    def base_condition(self, condition: Condition) -> Condition:
        """The condition with the known pixels at the size of the base: a pixel is known if all it averages
        is."""
        channels, height, width = self.config.base.shape
        if condition.image is None:
            image = torch.zeros(condition.n, channels + 1, height, width, device=self.device)
        else:
            x, mask = condition.image[:, :-1], condition.image[:, -1:]
            known = -F.max_pool2d(-mask, self.config.factor)
            image = torch.cat([self.reduce(x) * known, known], 1)
        level = torch.zeros(condition.n, device=self.device)  # without noise on the known pixels
        return replace(condition, image=image, level=level)

    def guide(self, condition: Condition) -> Guide | None:
        """A guide by which the upsampler keeps the known pixels."""
        if condition.image is None:
            return None
        image = condition.image.to(self.device)
        return lambda predict: keep(predict, self.upsampler.path, image[:, :-1], image[:, -1:] > 0)

    def finished(self, x: Tensor, condition: Condition) -> Tensor:
        """The samples with the known pixels exactly as given."""
        if condition.image is None:
            return x
        image = condition.image.to(x)
        return torch.where(image[:, -1:] > 0, image[:, :-1], x)


class Inpainting(nn.Module):
    """Finetuning of a `Glide` for inpainting, on images with random rectangles removed.

    A quarter of the images are removed as a whole, so that the base keeps its ability to draw from text only.
    """

    def __init__(self, model: Glide) -> None:
        super().__init__()
        self.model = model

    def begin(self) -> None:
        """Unfreeze the base, which the stage before has frozen."""
        self.model.base.requires_grad_(True)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The parameters of the base."""
        return self.model.base.groups()

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of the base, given what is left of each image."""
        n, _, height, width = batch.x.shape
        mask = erased(n, height, width).to(batch.x) * (torch.rand(n, 1, 1, 1) > 0.25).to(batch.x)
        condition = replace(batch.condition, image=torch.cat([batch.x, mask], 1))
        return self.model.base.losses(Batch(self.model.reduce(batch.x), self.model.base_condition(condition)))


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
