"""Real weights: a pipeline of the diffusers library as a generator that also takes the state of the memory.

Any pipeline that draws images from texts, from classes or from nothing. Only safetensors weights are read,
and no code that comes with them is run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harmonia.generators.base import Batch, Generator, GeneratorConfig, Watch
from harmonia.generators.conditioning import Condition, ConditionConfig
from harmonia.types import HarmoniaError

NAMES = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
"""What ``encode_prompt`` of Stable Diffusion (the first two), XL and 3 gives, as their calls take it."""

INDEX = "model_index.json"
"""The file that makes a folder one of a pipeline."""
LONGEST = 1024
"""Bytes of a text that a pipeline is given; it cuts it itself, after tokens."""


@dataclass(frozen=True, kw_only=True)
class PretrainedConfig(GeneratorConfig):
    """A pipeline and what is added to it.

    ``model``     name on the Hugging Face hub, or folder
    ``revision``  of the hub's model: a branch, tag or commit; "" for the newest
    ``tokens``    places of the prompt that the state goes to, its last ones: padding, in all but long prompts
    ``guidance``  with which images are drawn unless told otherwise; None for the pipeline's own
    ``shape``     of the images; leave it to ``Pretrained.load``
    ``condition`` ``code``: width of the state, 0 for none; ``drop``: how often it is left out in training
    """

    model: str
    revision: str = ""
    tokens: int = 4
    guidance: float | None = None


class Pretrained(Generator):
    """A pipeline whose own weights stay as they are; all that is trained is a projection of the state.

    The projection (no bias, zero at first) is *added* to the embeddings of the prompt's last tokens, so until
    it is trained the images are those of the plain pipeline, bit for bit. Tokens appended as zeros would not
    do that: a zero key still takes its share of the softmax.

    Raises HarmoniaError if the pipeline cannot be had, or ``code`` is asked of one that cannot take it.
    """

    config: PretrainedConfig

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.pipeline = _load(config.model, config.revision)
        settings = inspect.signature(self.pipeline.__call__).parameters
        self._takes = set(settings)
        own = settings["guidance_scale"].default if "guidance_scale" in settings else None
        self._guidance: float | None = own if isinstance(own, int | float) else None
        for network in self._networks():
            network.requires_grad_(False).eval()
        self.state: nn.Linear | None = None
        if config.condition.code:
            if "prompt_embeds" not in self._takes:
                raise HarmoniaError(
                    f"{config.model} is not told a text, so it cannot take a state: set code=0"
                )
            width = self._encoded([""], None, guided=False)["prompt_embeds"].shape[2]
            self.state = nn.Linear(config.condition.code, config.tokens * width, bias=False)
            nn.init.zeros_(self.state.weight)

    @classmethod
    def load(cls, model: str, **settings: Any) -> Self:
        """The same with the size of image that the pipeline was trained on; ``settings`` of the config.

        It is told texts or classes if the pipeline is, unless ``condition`` says otherwise.
        """
        generator = cls(PretrainedConfig(model=model, **settings))
        try:
            found = {"condition": generator._told_of(), **settings, "shape": generator._native()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise HarmoniaError(f"{model} does not say what it draws: give a pipeline of images") from error
        generator.config = PretrainedConfig(model=model, **found)
        return generator

    @property
    def labels(self) -> tuple[tuple[str, ...], ...]:
        """The words for each class, or its number; none if the pipeline is not told classes."""
        names: dict[int, list[str]] = {}
        for name, i in getattr(self.pipeline, "labels", {}).items():
            names.setdefault(i, []).append(name)
        return tuple(tuple(names.get(i, [str(i)])) for i in range(self._told_of().classes))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Squared error of the pipeline's own network on the latents, of the kind it was trained with."""
        pipeline, n = self.pipeline, len(batch.x)
        abar = getattr(pipeline.scheduler, "alphas_cumprod", None)
        if self.state is None or abar is None or not hasattr(pipeline, "unet") or NAMES[2] in self._takes:
            raise HarmoniaError(
                "only a Stable Diffusion pipeline can be trained, and only its state: give condition.code"
            )
        latents = pipeline.vae.encode(batch.x.to(self.device)).latent_dist.sample()
        latents = latents * pipeline.vae.config.scaling_factor
        noise, t = torch.randn_like(latents), torch.randint(len(abar), (n,))
        alpha, sigma = (part[t].sqrt().to(latents).view(-1, 1, 1, 1) for part in (abar, 1 - abar))
        dropped = batch.condition.without(torch.rand(n) < self.config.condition.drop)
        embeds = self._encoded(_texts(dropped), dropped.code, guided=False)["prompt_embeds"]
        noisy = alpha * latents + sigma * noise
        output = pipeline.unet(noisy, t.to(self.device), encoder_hidden_states=embeds).sample
        kind = pipeline.scheduler.config.prediction_type
        goals = {"epsilon": noise, "sample": latents, "v_prediction": alpha * noise - sigma * latents}
        return {"model": F.mse_loss(output, goals[kind])}

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Draw one image for each row: of its text, its label, or nothing, whichever the pipeline takes.

        ``guidance`` None is that of the configuration, or else the pipeline's own.

        A watch is told of every step if the pipeline tells of its own, each time at the cost of decoding.
        """
        condition = condition.to(self.device)
        settings: dict[str, Any] = {"generator": generator, "output_type": "np"}
        if steps is not None:
            settings["num_inference_steps"] = steps
        guidance = self.config.guidance if guidance is None else guidance
        guidance = self._guidance if guidance is None else guidance
        if guidance is not None and "guidance_scale" in self._takes:
            settings["guidance_scale"] = guidance
        if {"height", "width"} <= self._takes:
            settings["height"], settings["width"] = self.config.shape[1:]
        if watch is not None and "callback_on_step_end" in self._takes and hasattr(self.pipeline, "vae"):
            settings["callback_on_step_end"] = self._teller(watch)
        settings |= self._told(condition, guided=guidance is not None and guidance > 1)
        try:
            drawn = self.pipeline(**settings).images
        except (AttributeError, TypeError, ValueError) as error:
            # such as one that is to be given a picture
            reason = " ".join(str(error).split())[:200]
            raise HarmoniaError(f"{self.config.model} cannot draw this ({reason}): give another") from error
        images = torch.from_numpy(drawn).permute(0, 3, 1, 2).float() * 2 - 1
        if images.shape[1:] != self.config.shape:
            shape = tuple(images.shape[1:])
            raise HarmoniaError(f"{self.config.model} draws images of shape {shape}: use Pretrained.load")
        return images.to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the pipeline is."""
        return next(self._networks()[0].parameters()).device

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """The pipeline moves with the module, though its weights are not the module's: they are not saved."""
        for network in self._networks():
            network._apply(fn, recurse)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def _networks(self) -> list[nn.Module]:
        return [part for part in self.pipeline.components.values() if isinstance(part, nn.Module)]

    def _told(self, condition: Condition, *, guided: bool) -> dict[str, Any]:
        """What the pipeline is called with for a condition."""
        if "class_labels" in self._takes:
            if condition.label is None or (condition.label < 0).any():
                raise HarmoniaError(f"{self.config.model} draws images of a class: give every row a label")
            return {"class_labels": condition.label.tolist()}
        if "prompt" not in self._takes:
            return {"batch_size": len(condition)}
        if self.state is None:
            return {"prompt": _texts(condition)}
        return self._encoded(_texts(condition), condition.code, guided=guided)

    def _encoded(self, texts: list[str], code: Tensor | None, *, guided: bool) -> dict[str, Tensor]:
        """The prompts as embeddings by their name in ``NAMES``, the state in those of the positive ones."""
        try:
            found = self.pipeline.encode_prompt(
                prompt=texts, device=self.device, num_images_per_prompt=1, do_classifier_free_guidance=guided
            )
        except (AttributeError, TypeError) as error:
            raise HarmoniaError(f"{self.config.model} takes no state beside the text: set code=0") from error
        told = {name: value for name, value in zip(NAMES, found, strict=False) if value is not None}
        if self.state is not None and code is not None:
            embeds, tokens = told["prompt_embeds"], self.config.tokens
            added = self.state(code * code.shape[1] ** 0.5).view(len(code), tokens, -1).to(embeds)
            told["prompt_embeds"] = embeds + F.pad(added, (0, 0, embeds.shape[1] - tokens, 0))
        return told

    def _told_of(self) -> ConditionConfig:
        """What the pipeline is told."""
        if "class_labels" in self._takes:
            own = self._network().config
            return ConditionConfig(classes=own.get("num_class_embeds") or own.get("num_embeds_ada_norm") or 0)
        return ConditionConfig(text=LONGEST if "prompt" in self._takes else 0)

    def _network(self) -> Any:
        """The one that denoises."""
        return self.pipeline.components.get("unet") or self.pipeline.components.get("transformer")

    def _native(self) -> tuple[int, int, int]:
        """Channels, height and width of the images that the pipeline was trained on."""
        network, vae = self._network(), self.pipeline.components.get("vae")
        factor = 1 if vae is None else 2 ** (len(vae.config.block_out_channels) - 1)
        size = network.config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        channels = (network if vae is None else vae).config.out_channels
        return channels, height * factor, width * factor

    def _teller(self, watch: Watch) -> Callable[..., dict[str, Tensor]]:
        def told(pipeline: Any, step: int, _: int, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            seen = pipeline.vae.decode(tensors["latents"] / pipeline.vae.config.scaling_factor).sample
            watch(step + 1, pipeline.num_timesteps, seen.clamp(-1, 1))
            return {}

        return told


def _texts(condition: Condition) -> list[str]:
    """The texts that ``spell`` made bytes of."""
    if condition.text is None:
        return [""] * len(condition)
    rows = [bytes(byte - 1 for byte in row if byte) for row in condition.text.tolist()]
    return [row.decode("utf-8", errors="ignore") for row in rows]


def fetched(model: str) -> Path:
    """The folder of a pipeline: ``model`` itself, or one that is downloaded by that name from the hub.

    HarmoniaError if it cannot be had.
    """
    return Path(model) if Path(model).is_dir() else Path(_asked("download", model))


def _load(model: str, revision: str) -> Any:
    pipeline = _asked("from_pretrained", model, revision=revision or None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _asked(what: str, model: str, **settings: Any) -> Any:
    """What a function of ``DiffusionPipeline`` gives for a model."""
    try:
        import diffusers
    except ModuleNotFoundError as error:
        raise HarmoniaError(
            "pretrained generators need the package diffusers: pip install 'harmonia[imagine]'"
        ) from error
    diffusers.utils.logging.disable_progress_bar()
    diffusers.utils.logging.set_verbosity_error()  # what is wrong is said once, below
    try:
        return getattr(diffusers.DiffusionPipeline, what)(model, use_safetensors=True, **settings)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        absent = "" if Path(model).is_dir() else "; and there is no such folder"
        raise HarmoniaError(
            f"cannot load the pipeline {model!r} ({reason}){absent}: give the name or folder of one with "
            "safetensors"
        ) from error
