"""Encoders by name: the descriptors, the shipped model, and pretrained or trained models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harmonia.encoders.base import Bridge, Encoder
from harmonia.types import HarmoniaError


def load_encoders(models: Sequence[str] = ("descriptors",), device: str = "auto") -> tuple[Encoder, ...]:
    """Encoders for every modality, in the order of ``models``; no two have the same name.

    Args:
        models: "descriptors", "mini" (the shipped model), names on the Hugging Face hub, or folders of
            trained models. A modality that none of them covers gets its descriptor. Two models with a text
            tower both keep it: a text then has a code in each space. Beside other models, mini only
            compares modalities with each other (see :class:`~harmonia.encoders.Bridge`).
        device: where pretrained models run: "auto" (a GPU if there is one), "cpu", "cuda", ...

    Raises:
        HarmoniaError: a model cannot be loaded, or the packages for it are not installed.
    """
    found = {e.name: e for encoders in load_by_model(models, device).values() for e in encoders}
    return tuple(found.values())


def load_by_model(models: Sequence[str], device: str = "auto") -> dict[str, tuple[Encoder, ...]]:
    """The encoders of :func:`load_encoders`, by the model that each belongs to."""
    found = {model: load_model(model, device) for model in models}
    if "mini" in found and len(found) > 1:
        found["mini"] = tuple(Bridge(encoder) for encoder in found["mini"])
    covered = {e.modality for encoders in found.values() for e in encoders if not isinstance(e, Bridge)}
    if "descriptors" not in found:
        rest = tuple(e for e in load_model("descriptors") if e.modality not in covered)
        found |= {"descriptors": rest} if rest else {}
    return found


def load_descriptor(modality: str) -> Encoder:
    """The descriptor of one modality; only what it needs is imported."""
    match modality:
        case "text":
            from harmonia.encoders.descriptors.text import TextDescriptor

            return TextDescriptor()
        case "image":
            from harmonia.encoders.descriptors.image import ImageDescriptor

            return ImageDescriptor()
        case "audio":
            from harmonia.encoders.descriptors.audio import AudioDescriptor

            return AudioDescriptor()
        case "video":
            from harmonia.encoders.descriptors.video import VideoDescriptor

            return VideoDescriptor()
    raise HarmoniaError(f"no descriptor for {modality!r}: there are text, image, audio and video")


def load_model(model: str, device: str = "auto") -> tuple[Encoder, ...]:
    """The encoders of one model; fails as :func:`load_encoders`."""
    if model == "descriptors":
        return tuple(map(load_descriptor, ("text", "image", "audio", "video")))
    if model == "mini":
        from harmonia.encoders import MINI
        from harmonia.encoders.towers.base import place
        from harmonia.encoders.towers.saved import load_trained

        return load_trained(MINI, place(device))
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
