"""Recipes of diffusion and flow models: DDPM, Guided Diffusion, rectified flow, DiT, distillation,
latents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from harmonia.generators import Batch
from harmonia.generators.autoencoders.autoencoder import VAEConfig
from harmonia.generators.diffusion.classifier_guidance import GuidedConfig, GuidedDiffusion
from harmonia.generators.diffusion.distillation import Distillation, student_config
from harmonia.generators.diffusion.latent import Latent, LatentConfig
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig
from harmonia.generators.perceptual_classifier import Perception
from harmonia.recipes.generators.pictures import Pictures
from harmonia.recipes.generators.run import GeneratorRun, GeneratorSettings, Stage, generator_run
from harmonia.training import Indexed, TrainConfig

INTERVAL = (0.35, 0.75)
"""Interval of times with guidance (Kynkäänniemi et al. 2024): at all times, a scale of 2 costs too much
variety."""


@dataclass(frozen=True, kw_only=True)
class DiffusionSettings(GeneratorSettings):
    """Settings of diffusion models.

    ``ema``       decay of the moving average of the weights
    ``drop``      share of samples whose condition is dropped
    ``guidance``  default scale of guidance of the model
    ``sampling``  default number of sampling steps of the model
    """

    steps: int = 5000
    batch: int = 64
    lr: float = 3e-3
    ema: float = 0.998
    drop: float = 0.1
    guidance: float = 2.0
    sampling: int = 10

    def train(self, *, steps: int | None = None, batch: int | None = None, seed: int = 0) -> TrainConfig:
        """AdamW with a short warm-up, a cosine schedule, and averaged weights."""
        steps = steps or self.steps
        return self.training(
            batch or self.batch, steps=steps, warmup=min(100, steps // 10), weight_decay=0.01, ema=self.ema,
            seed=self.seed + seed,
        )  # fmt: skip

    def part(self, share: float) -> int:
        """The steps of a stage with this share of them."""
        return max(1, round(self.steps * share))

    def config(self, pictures: Pictures) -> DiffusionConfig:
        """A rectified flow with a U-Net, for these images."""
        return DiffusionConfig(
            shape=pictures.shape,
            size=self.size,
            condition=self.conditions(pictures, self.drop),
            times="logit-normal",
            guidance=self.guidance,
            interval=INTERVAL,
            steps=self.sampling,
        )


@dataclass(frozen=True, kw_only=True)
class GuidedSettings(DiffusionSettings):
    """Settings of `guided`: ``share`` is the number of steps of the classifier relative to the diffusion
    model."""

    steps: int = 4500
    share: float = 0.25


@dataclass(frozen=True, kw_only=True)
class StudentSettings(DiffusionSettings):
    """Settings of `flow_student`.

    ``few``    steps of the student
    ``parts``  steps of the teacher for each of them
    ``share``  training steps of the student relative to the teacher
    """

    steps: int = 4000
    few: int = 4
    parts: int = 3
    share: float = 0.08


@dataclass(frozen=True, kw_only=True)
class LatentSettings(DiffusionSettings):
    """Settings of `latent_flow`.

    ``dim``         numbers of a latent
    ``beta``        of the VAE
    ``perceptual``  weight of the perceptual loss, by a classifier
    ``share``       training steps of the VAE relative to the flow; the classifier has a fifth of them
    """

    steps: int = 17000
    batch: int = 128
    lr: float = 1e-3
    ema: float = 0.999
    guidance: float = 1.05
    sampling: int = 20
    dim: int = 32
    beta: float = 0.03
    perceptual: float = 1.0
    share: float = 0.07


@dataclass(frozen=True, kw_only=True)
class LatentStudentSettings(LatentSettings):
    """Settings of `latent_student`.

    ``few``      steps of the student
    ``parts``    steps of the teacher for each of them
    ``lessons``  training steps of the student relative to the teacher
    """

    steps: int = 12000
    few: int = 4
    parts: int = 5
    lessons: float = 0.08


def flow(data: Path | None = None, settings: DiffusionSettings = DiffusionSettings()) -> GeneratorRun:
    """Rectified flow on pixels with a U-Net."""
    pictures = settings.pictures(data)
    return _single("flow", settings, pictures, settings.config(pictures), "rectified flow (Liu et al. 2023)")


def ddpm(data: Path | None = None, settings: DiffusionSettings = DiffusionSettings()) -> GeneratorRun:
    """DDPM: cosine schedule and v prediction with a U-Net."""
    pictures = settings.pictures(data)
    config = _vp(settings.config(pictures))
    return _single("ddpm", settings, pictures, config, "DDPM (Ho et al. 2020; Nichol and Dhariwal 2021)")


def dit(data: Path | None = None, settings: DiffusionSettings = DiffusionSettings(lr=1e-3)) -> GeneratorRun:
    """Diffusion transformer (DiT): rectified flow with a transformer."""
    pictures = settings.pictures(data)
    config = replace(settings.config(pictures), network="dit", patch=4)
    return _single("dit", settings, pictures, config, "DiT (Peebles and Xie 2023)")


def guided(data: Path | None = None, settings: GuidedSettings = GuidedSettings()) -> GeneratorRun:
    """Guided Diffusion: DDPM with a classifier of noisy samples."""
    s, pictures = settings, settings.pictures(data)
    # classifier guidance costs less variety than classifier-free guidance: it applies at all times
    own = replace(_vp(s.config(pictures)), interval=(0.0, 1.0))
    torch.manual_seed(s.seed)
    model = GuidedDiffusion(
        GuidedConfig(
            shape=own.shape, size=own.size, condition=own.condition, diffusion=own, guidance=s.guidance
        )
    )
    stages = (
        Stage("classifier", model.classifier, pictures, s.train(steps=s.part(s.share), seed=1)),
        Stage("diffusion", model.diffusion, pictures, s.train()),
    )
    return generator_run("guided", s, pictures, model, stages, "Guided Diffusion (Dhariwal and Nichol 2021)")


def flow_student(data: Path | None = None, settings: StudentSettings = StudentSettings()) -> GeneratorRun:
    """Rectified flow, distilled into a student that samples in four steps."""
    s, pictures = settings, settings.pictures(data)
    config = s.config(pictures)
    torch.manual_seed(s.seed)
    teacher, student = Diffusion(config), Diffusion(student_config(config, s.few))
    distillation = Distillation(teacher, student, parts=s.parts)

    def begun() -> Indexed:
        distillation.begin()
        return pictures

    lessons = s.train(steps=s.part(s.share), batch=max(1, s.batch // s.few), seed=1)
    stages = (
        Stage("teacher", teacher, pictures, s.train()),
        Stage("student", distillation, begun, replace(lessons, lr=s.lr / 3)),
    )
    paper = "progressive distillation (Salimans and Ho 2022) of a rectified flow (Liu et al. 2023)"
    return generator_run("flow-student", s, pictures, student, stages, paper)


def latent_flow(data: Path | None = None, settings: LatentSettings = LatentSettings()) -> GeneratorRun:
    """VAE (with a perceptual loss if there are classes) and a flow of its latents."""
    pictures = settings.pictures(data)
    model, stages = _latent_flow(settings, pictures)
    paper = "latent diffusion (Rombach et al. 2022)"
    return generator_run("latent-flow", settings, pictures, model, stages, paper)


def latent_student(
    data: Path | None = None, settings: LatentStudentSettings = LatentStudentSettings()
) -> GeneratorRun:
    """Latent flow, distilled into a student that samples in four steps."""
    s, pictures = settings, settings.pictures(data)
    teacher, stages = _latent_flow(s, pictures)
    config = teacher.config
    taught = student_config(config.flow, s.few)
    student = Latent(replace(config, condition=taught.condition, flow=taught))
    distillation = Distillation(teacher.flow, student.flow, parts=s.parts)

    def begun() -> Indexed:
        distillation.begin()
        student.load_state_dict(teacher.state_dict())
        return pictures

    lessons = s.train(steps=s.part(s.lessons), batch=max(1, s.batch // s.few), seed=3)
    stages = (*stages, Stage("student", distillation, begun, replace(lessons, lr=s.lr / 2)))
    paper = "progressive distillation (Salimans and Ho 2022) of latent diffusion (Rombach et al. 2022)"
    return generator_run("latent-student", s, pictures, student, stages, paper)


def _latent_flow(settings: LatentSettings, pictures: Pictures) -> tuple[Latent, tuple[Stage, ...]]:
    """The model and its training stages."""
    s = settings if pictures.label is not None else replace(settings, perceptual=0.0)
    model = _latent(s, s.config(pictures))
    vae = replace(s.train(steps=s.part(s.share), seed=1), lr=2e-3)
    stages: tuple[Stage, ...] = ()
    if s.perceptual:
        perception = Perception(pictures.shape, len(pictures.labels))
        labelled = replace(pictures, keep=("label",))
        first = replace(s.train(steps=s.part(s.share / 5), seed=2), lr=2e-3, ema=None)
        stages = (Stage("perception", perception, labelled, first),)
        model.autoencoder.look = perception.features

    def latents() -> Indexed:
        model.to(model.device)  # the stage before has moved the autoencoder only
        x = pictures.x.float() / 127.5 - 1
        model.measure(x)
        return Latents(pictures, model.encode(x).cpu())

    autoencoder = Stage("autoencoder", model.autoencoder, pictures, vae)
    return model, (*stages, autoencoder, Stage("flow", model.flow, latents, s.train()))


@dataclass(frozen=True, slots=True, eq=False)
class Latents:
    """A dataset for ``fit``: latents ``z`` (n, c, h, w) of images, with the conditions of the images."""

    pictures: Pictures
    z: Tensor

    def __len__(self) -> int:
        return len(self.z)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Latents and their conditions."""
        return Batch(self.z[indices], self.pictures.condition(indices, generator))


def _latent(settings: LatentSettings, config: DiffusionConfig) -> Latent:
    torch.manual_seed(settings.seed)
    return Latent(
        LatentConfig(
            shape=config.shape,
            size=config.size,
            condition=config.condition,
            autoencoder=VAEConfig(dim=settings.dim, beta=settings.beta, perceptual=settings.perceptual),
            flow=replace(config, network="mlp", sampler="heun"),
        )
    )


def _vp(config: DiffusionConfig) -> DiffusionConfig:
    return replace(config, path="vp-cosine", predict="v", times="path", sampler="dpm++2m")


def _single(
    name: str, settings: DiffusionSettings, pictures: Pictures, config: DiffusionConfig, paper: str
) -> GeneratorRun:
    torch.manual_seed(settings.seed)
    model = Diffusion(config)
    return generator_run(
        name, settings, pictures, model, (Stage("train", model, pictures, settings.train()),), paper
    )
