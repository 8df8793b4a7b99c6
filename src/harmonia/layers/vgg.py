"""VGG-16's convolutions, with the parameter names of the published weights of torchvision and timm.

Reference: Simonyan and Zisserman 2015. Nothing but torch is needed; the weights are the user's own file.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from harmonia.types import HarmoniaError

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class VGG16(nn.Module):
    """Images in [-1, 1] to the features after the last ReLU of each of the five stages, as for LPIPS.

    Calling it is the ``features`` of ``harmonia.objectives.perceptual``. Grey images are repeated.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.ends: list[int] = []
        before = 3
        for stage in STAGES:
            for width in stage:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            self.ends.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])  # nothing comes after the last pooling
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    @classmethod
    def load(cls, file: Path | str) -> VGG16:
        """The network with the weights of a file: torchvision's ``vgg16-*.pth`` or a safetensors file.

        HarmoniaError in one line if there is none, or it is not VGG-16's.
        """
        file = Path(file)
        if not file.is_file():
            raise HarmoniaError(
                f"there are no VGG-16 weights at {file}: get torchvision's vgg16 file, or timm's"
            )
        try:
            named = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
            network = cls()
            network.load_state_dict({k: v for k, v in named.items() if k.startswith("features.")})
        except (SafetensorError, pickle.UnpicklingError, RuntimeError, AttributeError) as error:
            raise HarmoniaError(f"{file} does not hold the weights of VGG-16") from error
        return network.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        """``x`` (n, 1 or 3, h, w) of 16 pixels at least, to five maps of 64 to 512 channels."""
        x = ((x.expand(-1, 3, -1, -1) + 1) / 2 - self.mean) / self.std
        kept = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.ends:
                kept.append(x)
        return kept
