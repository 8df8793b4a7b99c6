"""Six modalities in a shared space with images as the hub, as in ImageBind.

Training pairs every modality with images only; modalities that were never paired are then aligned through the
images. A video needs no tower: its code is the mean of its frames' codes (``video_from_images.FrameMean``).

Reference: ImageBind, Girdhar et al. 2023. It trains with InfoNCE on each pair and keeps the image and text
towers of CLIP frozen: here ``BackboneConfig`` and ``finetuning.freeze``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tokenizers import Tokenizer

from harmonia.encoders.towers.audio import AudioConfig, AudioTower
from harmonia.encoders.towers.base import Tower, TowerConfig
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.encoders.towers.text_motion import MotionConfig, MotionTower, TextConfig, TextTower
from harmonia.encoders.towers.video import VideoConfig, VideoTower
from harmonia.types import HarmoniaError

HUB = "image"


def six(size: str = "tiny", dim: int = 256, resolution: int = 64) -> dict[str, TowerConfig]:
    """Configurations of towers for image, text, audio, depth, thermal and motion (IMU).

    Replace one to start from a pretrained model:

        configs = six(dim=512) | {"image": BackboneConfig(model="facebook/dinov2-small", dim=512)}
        towers = build(configs, tokenizer)
    """
    return {
        "image": ImageConfig(size=size, dim=dim, resolution=resolution),
        "text": TextConfig(size=size, dim=dim),
        "audio": AudioConfig(size=size, dim=dim),
        "depth": ImageConfig(size=size, dim=dim, resolution=resolution, channels=1, modality="depth"),
        "thermal": ImageConfig(size=size, dim=dim, resolution=resolution, channels=1, modality="thermal"),
        "motion": MotionConfig(size=size, dim=dim),
    }


def build(configs: Mapping[str, TowerConfig], tokenizer: Tokenizer | None = None) -> dict[str, Tower]:
    """The towers of these configurations, by modality; a new text tower needs the tokenizer.

    Raises:
        HarmoniaError: a tower is of another modality than its key, or the widths of codes differ.
    """
    towers = {modality: tower(config, tokenizer) for modality, config in configs.items()}
    for modality, made in towers.items():
        if made.modality != modality:
            raise HarmoniaError(f"the configuration for {modality} is of a tower of {made.modality}")
    widths = {modality: made.dim for modality, made in towers.items()}
    if len(set(widths.values())) > 1:
        raise HarmoniaError(f"towers with a shared space need one dim, not {widths}")
    return towers


def tower(config: TowerConfig, tokenizer: Tokenizer | None = None) -> Tower:
    """The tower that a configuration describes, with random weights unless they are pretrained."""
    match config:
        case TextConfig():
            if tokenizer is None:
                raise HarmoniaError(
                    "a text tower needs a tokenizer: train one with harmonia.encoders.towers.tokenizer"
                )
            return TextTower(config, tokenizer)
        case ImageConfig():
            return ImageTower(config)
        case AudioConfig():
            return AudioTower(config)
        case MotionConfig():
            return MotionTower(config)
        case VideoConfig():
            return VideoTower(config)
    try:  # imported here, since transformers takes seconds and is not always installed
        from harmonia.pretrained.backbones import Backbone, BackboneConfig
    except ModuleNotFoundError as error:
        raise HarmoniaError(
            f"a pretrained tower needs the package {error.name}: pip install 'harmonia[pretrained]'"
        ) from error
    if isinstance(config, BackboneConfig):
        return Backbone(config)
    raise HarmoniaError(f"{type(config).__name__} is not a configuration of a tower")


def pairs(modalities: Iterable[str], hub: str = HUB) -> list[tuple[str, str]]:
    """The training pairs: the hub with each other modality."""
    others = [modality for modality in modalities if modality != hub]
    return [(hub, modality) for modality in others]
