"""The judge: a classifier that evaluates generated images; no generator is trained with it.

Its penultimate layer gives the features of the Frechet distance "FD-clf", its classes the conditional
accuracy. It has its own seed, architecture (plain convolutions with batch norm) and augmentation (small
shifts, rotations and scalings), independent of all generators.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia import weights
from harmonia.datasets.registry import reader
from harmonia.metrics.image_features import bytes_of, in_batches
from harmonia.recipes.generators.pictures import load_pictures, part_of
from harmonia.recipes.generators.run import LICENCES
from harmonia.recipes.run import Outcome, RunSettings
from harmonia.training import Indexed, TrainConfig, fit
from harmonia.types import HarmoniaError, Record

FORMAT = weights.ModelFormat("harmonia-judge", 1, "judge")


@dataclass(frozen=True)
class JudgeConfig:
    """``shape`` of the images, names of the ``classes``, channels by stage, width of the features."""

    dataset: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    widths: tuple[int, ...] = (24, 48, 96)
    features: int = 64


@dataclass(frozen=True, kw_only=True)
class JudgeSettings(RunSettings):
    """Settings of `judge`: ``dataset`` is mnist (ten digits) or emoji (Unicode groups)."""

    dataset: str = "mnist"
    resolution: int = 0
    steps: int = 900
    batch: int = 128
    seed: int = 20_000


class Judge(nn.Module):
    """Convolutions with batch norm, with stride 2 from the second on, a feature layer, and a linear head."""

    def __init__(self, config: JudgeConfig, name: str = "judge") -> None:
        super().__init__()
        self.config, self.name = config, name
        channels, height, width = config.shape
        layers: list[nn.Module] = []
        before = channels
        for i, after in enumerate(config.widths):
            layers += [nn.Conv2d(before, after, 3, 1 if i == 0 else 2, 1, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.ReLU()]
            before = after
            height, width = (height, width) if i == 0 else (-(-height // 2), -(-width // 2))
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(before * height * width, config.features)
        )
        self.head = nn.Linear(config.features, len(config.classes))

    def forward(self, x: Tensor) -> Tensor:
        """Non-negative features (n, d) of uint8 images (n, c, h, w)."""
        return F.relu(self.layers(x.float() / 64 - 2))

    def losses(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """The cross-entropy of images and labels, with dropout of half of the features in training."""
        x, labels = batch
        return {"judge": F.cross_entropy(self.head(F.dropout(self(x), 0.5, self.training)), labels)}

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters."""
        return {"judge": list(self.parameters())}

    def features(self, x: Tensor) -> Tensor:
        """The features (n, d) of images (n, c, h, w), uint8 or float in [-1, 1]."""
        return in_batches(lambda part: self(part.to(self.device)).cpu(), self._checked(x))

    def probabilities(self, x: Tensor) -> Tensor:
        """Class probabilities (n, classes) of images (n, c, h, w), uint8 or float in [-1, 1]."""
        return in_batches(
            lambda part: self.head(self(part.to(self.device))).softmax(1).cpu(), self._checked(x)
        )

    @property
    def device(self) -> torch.device:
        """The device of the weights; results are on the CPU."""
        return self.head.weight.device

    def _checked(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.config.shape:
            raise HarmoniaError(
                f"this judge takes images {self.config.shape}, not {tuple(x.shape[1:])}: "
                "train one for that resolution with `harmonia train judge`"
            )
        return bytes_of(x)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPictures:
    """Labelled images, uint8 (n, c, h, w); batches have small random shifts, rotations and scalings."""

    x: Tensor
    label: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Augmented images uint8 and their labels."""
        x = self.x[indices].float()
        n, height = len(x), x.shape[2]
        draw = torch.rand(4, n, generator=generator) * 2 - 1
        angle, grow = draw[0] * math.radians(12), 1 + 0.12 * draw[1]
        shift = draw[2:] * (5 / height)
        cos, sin = grow * angle.cos(), grow * angle.sin()
        maps = torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], 1).view(n, 2, 3)
        grid = F.affine_grid(maps, list(x.shape), align_corners=False)
        moved = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        return moved.round().to(torch.uint8), self.label[indices]


@dataclass(frozen=True, slots=True, eq=False)
class JudgeRun:
    """The training run of a judge."""

    judge: Judge
    dataset: Indexed
    held: LabelledPictures
    config: TrainConfig
    card: str

    def train(self, folder: Path) -> Outcome:
        """Train, or resume training, in ``folder``; the trained judge is ``folder/model``."""
        result = fit(self.judge, self.dataset, self.config, folder)
        right = self.judge.probabilities(self.held.x).argmax(1) == self.held.label
        figures = {"accuracy": float(right.double().mean())}
        save_judge(
            folder / "model", self.judge, f"{self.card}\nAccuracy on held-out: {figures['accuracy']:.4f}\n"
        )
        return Outcome(result, figures, folder / "model")


SETTINGS = JudgeSettings()


def judge(data: Path | None = None, settings: JudgeSettings = SETTINGS) -> JudgeRun:
    """The judge: a classifier that evaluates generated images."""
    s = settings
    train, classes = labelled(s.dataset, "train", s.resolution, data)
    held, _ = labelled(s.dataset, "val", s.resolution, data)
    config = JudgeConfig(s.dataset, (train.x.shape[1], train.x.shape[2], train.x.shape[3]), classes)
    torch.manual_seed(s.seed)
    batch, save_every = min(s.batch, len(train)), max(100, s.steps // 3)
    run = s.training(batch, weight_decay=0.05, warmup=50, save_every=save_every, log_every=50)
    card = (
        f"# judge of {s.dataset}\n\nA classifier that evaluates generated images: {', '.join(classes)}.\n\n"
        f"Recipe: `harmonia train judge`, {s.steps} steps of {s.batch}, seed {s.seed}; "
        f"{LICENCES[s.dataset]}.\n"
    )
    return JudgeRun(Judge(config), train, held, run, card)


def labelled(
    dataset: str, split: str, resolution: int, data: Path | None
) -> tuple[LabelledPictures, tuple[str, ...]]:
    """The images of a split with their labels, and the names of the classes."""
    pictures = load_pictures(dataset, split, resolution=resolution or None, data=data)
    if pictures.label is not None:
        return LabelledPictures(pictures.x, pictures.label), tuple(words[0] for words in pictures.labels)
    if dataset != "emoji":
        raise HarmoniaError(f"{dataset} has no classes: choose mnist or emoji")
    groups = [str(record.metadata.get("group") or "other") for record in emoji_records(None, data)]
    classes = tuple(sorted(set(groups)))
    own = [str(record.metadata.get("group") or "other") for record in emoji_records(split, data)]
    return LabelledPictures(pictures.x, torch.tensor([classes.index(group) for group in own])), classes


def emoji_records(split: str | None, data: Path | None) -> list[Record]:
    """The emoji of a split, in the order of ``load_pictures``; None for all."""
    records = [r for r in reader("emoji")(data, split="all") if isinstance(r, Record)]
    return records if split is None else part_of(records, split)


def save_judge(folder: Path, judge: Judge, card: str) -> None:
    """Write a judge whole or not at all. A judge that stands in ``folder`` is replaced."""
    FORMAT.write(folder, {"config": asdict(judge.config)}, judge.state_dict(), card=card)


def load_judge(folder: str | Path, device: str | torch.device = "cpu") -> Judge:
    """The judge of a folder; HarmoniaError if there is none, or it is damaged or of another version.

    Its name has the dataset and the first digits of the hash of its content, since figures by different
    judges cannot be compared.
    """
    folder = Path(folder)
    settings, tensors = FORMAT.read(folder)

    def build() -> Judge:
        config = weights.built(JudgeConfig, settings["config"])
        return Judge(config, f"judge of {config.dataset} {weights.identity(folder)[:6]}")

    return weights.restored(build, tensors, f"the judge {folder}").to(device).eval()
