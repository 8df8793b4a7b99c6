"""The models that the server offers, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harmonia.collection.encoder_set import EncoderSet
from harmonia.encoders import Bridge
from harmonia.encoders.base import Encoder
from harmonia.server.errors import ApiError
from harmonia.server.openai.messages import RECALLS
from harmonia.types import MODALITIES


def encoders(model: EncoderSet) -> dict[str, tuple[Encoder, ...]]:
    """The encoders of a memory by model name: family, space, or the encoder's own name.

    The name ``harmonia`` means the space with the most modalities.
    """
    by_name: dict[str, list[Encoder]] = {RECALLS: list(_widest(model.encoders))}
    for encoder in model.encoders:
        for name in dict.fromkeys((_family(encoder, model.names), encoder.space, encoder.name)):
            by_name.setdefault(name, []).append(encoder)
    return {name: tuple(members) for name, members in by_name.items()}


def families(model: EncoderSet) -> list[str]:
    """The model names that are listed."""
    return list(dict.fromkeys([RECALLS, *(_family(encoder, model.names) for encoder in model.encoders)]))


def by_modality(model: EncoderSet, name: str) -> Mapping[str, Encoder]:
    """The encoders of a model name, by modality; ApiError 404 for an unknown name."""
    members = encoders(model).get(name)
    if members is None:
        raise unknown_model(name, model)
    return {encoder.modality: encoder for encoder in reversed(members)}


def unknown_model(name: str, model: EncoderSet) -> ApiError:
    """The error for an unknown model name."""
    return ApiError(
        404, f"unknown model {name!r}: available are {', '.join(families(model))}",
        code="model_not_found", param="model",
    )  # fmt: skip


def _family(encoder: Encoder, names: Sequence[str]) -> str:
    if encoder.name.startswith("descriptor-"):
        return "descriptors"
    if isinstance(encoder, Bridge) or tuple(names) == ("mini",):
        return "mini"
    return encoder.space


def _widest(candidates: Sequence[Encoder]) -> list[Encoder]:
    """The encoders of the space with the most modalities; the first of equals."""
    by_space: dict[str, list[Encoder]] = {}
    for encoder in candidates:
        by_space.setdefault(encoder.space, []).append(encoder)
    widest = max(by_space.values(), key=lambda members: len({encoder.modality for encoder in members}))
    return sorted(widest, key=lambda encoder: MODALITIES.index(encoder.modality))
