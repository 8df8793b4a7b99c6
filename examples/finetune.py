"""Fine-tune the shipped image tower with LoRA on labelled images, with cached features.

The images are the 8 x 8 digits of scikit-learn. The script prints the accuracy of the nearest class mean on
held-out images before and after fine-tuning, writes the adapter (a few hundred kilobytes), and loads it again
into a new tower::

    python -m examples.finetune FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from harmonia.encoders import MINI
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.feature_cache import cached_features, cached_inputs
from harmonia.encoders.towers.saved import load_towers
from harmonia.pretrained.finetuning import load_adapter, lora, merge, parameter_groups, save_adapter
from harmonia.training import TrainConfig, fit
from harmonia.types import Signal

TRAIN, TEST = 1000, 400


class Classifier(nn.Module):
    """A tower and a linear classifier of its codes, trained by cross-entropy."""

    def __init__(self, tower: Tower, classes: int) -> None:
        super().__init__()
        self.tower, self.classes = tower, nn.Linear(tower.dim, classes)

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch of prepared images and labels."""
        inputs, labels = batch
        logits = self.classes(F.normalize(self.tower(inputs), dim=1))
        return {"model": F.cross_entropy(10 * logits, labels)}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The adapters, the head of the tower and the classifier."""
        trained = [p for group in parameter_groups(self.tower).values() for p in group]
        return {"model": [*trained, *self.classes.parameters()]}


class Labelled:
    """Prepared images with labels; an array on disk may serve as ``inputs``."""

    def __init__(self, inputs: NDArray[Any], labels: NDArray[Any]) -> None:
        self.inputs, self.labels = inputs, torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The images and labels of ``indices``."""
        return torch.from_numpy(self.inputs[indices.numpy()].copy()), self.labels[indices]


def digits() -> tuple[list[Signal], NDArray[Any]]:
    """The digits of scikit-learn as RGB images, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.images[: TRAIN + TEST] * 15.9).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    return [Signal("image", np.stack([one] * 3, -1)) for one in pixels], data.target[: TRAIN + TEST]


def accuracy(codes: NDArray[Any], labels: NDArray[Any]) -> float:
    """The share of test codes whose nearest mean of training codes is that of their class."""
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    means = np.stack([unit[:TRAIN][labels[:TRAIN] == i].mean(0) for i in range(10)])
    return float(((unit[TRAIN:] @ means.T).argmax(1) == labels[TRAIN:]).mean())


def main(folder: Path, steps: int = 100) -> tuple[float, float, float]:
    """Fine-tune; returns the accuracy before and after, and that of a new tower with the saved adapter."""
    signals, labels = digits()
    tower = load_towers(MINI).towers["image"]
    before = accuracy(cached_features(tower, signals, folder, "before"), labels)
    inputs = cached_inputs(tower, signals, folder, "inputs")
    torch.manual_seed(0)
    model = Classifier(lora(tower, rank=4), 10)
    config = TrainConfig(steps=steps, batch=64, lr=2e-3, warmup=steps // 10, device="cpu")
    fit(model, Labelled(inputs[:TRAIN], labels[:TRAIN]), config, folder / "run")
    save_adapter(tower, folder / "digits.safetensors")
    after = accuracy(cached_features(merge(tower), signals, folder, "after"), labels)
    restored = load_adapter(load_towers(MINI).towers["image"], folder / "digits.safetensors")
    again = accuracy(cached_features(merge(restored), signals, folder, "restored"), labels)
    print(f"accuracy of the nearest class mean: {before:.3f} before, {after:.3f} after {steps} steps")
    return before, after, again


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "finetune"))
