"""The models that a server has, by the names that clients call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harmonia.collection.encoder_set import EncoderSet
from harmonia.encoders import Bridge
from harmonia.encoders.base import Encoder
from harmonia.server.errors import ApiError
from harmonia.server.openai.messages import RECALLS
from harmonia.types import MODALITIES


def encoders(model: EncoderSet) -> dict[str, tuple[Encoder, ...]]:
    """The encoders of a memory by name: the families, their spaces, and each by itself.

    The memory's own name stands for the space that most modalities share.
    """
    found: dict[str, list[Encoder]] = {RECALLS: list(_widest(model.encoders))}
    for encoder in model.encoders:
        for name in dict.fromkeys((_family(encoder, model.names), encoder.space, encoder.name)):
            found.setdefault(name, []).append(encoder)
    return {name: tuple(several) for name, several in found.items()}


def families(model: EncoderSet) -> list[str]:
    """The names worth listing."""
    return list(dict.fromkeys([RECALLS, *(_family(encoder, model.names) for encoder in model.encoders)]))


def by_modality(model: EncoderSet, name: str) -> Mapping[str, Encoder]:
    """The encoder of each modality that a name stands for; ApiError 404 for none that is known."""
    found = encoders(model).get(name)
    if found is None:
        raise unknown_model(name, model)
    return {encoder.modality: encoder for encoder in reversed(found)}


def unknown_model(name: str, model: EncoderSet) -> ApiError:
    """The answer to a name that no model has."""
    return ApiError(
        404, f"there is no model {name!r}: there are {', '.join(families(model))}",
        code="model_not_found", param="model",
    )  # fmt: skip


def _family(encoder: Encoder, names: Sequence[str]) -> str:
    if encoder.name.startswith("descriptor-"):
        return "descriptors"
    if isinstance(encoder, Bridge) or tuple(names) == ("mini",):
        return "mini"
    return encoder.space


def _widest(several: Sequence[Encoder]) -> list[Encoder]:
    """The encoders of the space that most modalities share; of equals the first."""
    by_space: dict[str, list[Encoder]] = {}
    for encoder in several:
        by_space.setdefault(encoder.space, []).append(encoder)
    found = max(by_space.values(), key=lambda one: len({encoder.modality for encoder in one}))
    return sorted(found, key=lambda encoder: MODALITIES.index(encoder.modality))
