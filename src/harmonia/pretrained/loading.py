"""Encoders by name: the descriptors, the shipped model, and pretrained or trained models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harmonia.encoders import (
    MINI,
    AudioDescriptor,
    Bridge,
    Encoder,
    ImageDescriptor,
    TextDescriptor,
    VideoDescriptor,
)
from harmonia.types import HarmoniaError


def load_encoders(models: Sequence[str] = ("descriptors",), device: str = "auto") -> tuple[Encoder, ...]:
    """Encoders for every modality, in the order of ``models``; no two have the same name.

    Args:
        models: "descriptors", "mini" (the shipped model), names on the Hugging Face hub, or folders of
            trained models. A modality that none of them covers gets its descriptor. Two models with a text
            tower both keep it: a text then has a code in each space. Beside other models, mini only
            compares modalities with each other (see :class:`Bridge`).
        device: where pretrained models run: "auto" (a GPU if there is one), "cpu", "cuda", ...

    Raises:
        HarmoniaError: a model cannot be loaded, or the packages for it are not installed.
    """
    descriptors: tuple[Encoder, ...] = (
        TextDescriptor(),
        ImageDescriptor(),
        AudioDescriptor(),
        VideoDescriptor(),
    )
    chosen: dict[str, Encoder] = {}
    for model in models:
        if model == "descriptors":
            found = descriptors
        elif model == "mini":
            found = _mini(device, alone=len(models) == 1)
        else:
            found = _pretrained(model, device)
        chosen |= {encoder.name: encoder for encoder in found}
    covered = {encoder.modality for encoder in chosen.values() if not isinstance(encoder, Bridge)}
    chosen |= {encoder.name: encoder for encoder in descriptors if encoder.modality not in covered}
    return tuple(chosen.values())


def _mini(device: str, alone: bool) -> tuple[Encoder, ...]:
    from harmonia.encoders.towers.base import place
    from harmonia.encoders.towers.saved import load_trained

    found = load_trained(MINI, place(device))
    return found if alone else tuple(Bridge(encoder) for encoder in found)


def _pretrained(model: str, device: str) -> tuple[Encoder, ...]:
    from harmonia.encoders.towers import saved  # torch takes a second, and descriptors do without
    from harmonia.encoders.towers.base import place
    from harmonia.pretrained.video_from_images import with_video

    folder = Path(model).expanduser()
    if saved.is_model(folder):
        return with_video(saved.load_trained(folder, place(device)))
    try:
        from harmonia.pretrained.hub import load_pretrained

        return load_pretrained(model, device)
    except ModuleNotFoundError as error:
        raise HarmoniaError(
            f"the model {model!r} needs the package {error.name}: pip install 'harmonia[pretrained]'"
        ) from error
