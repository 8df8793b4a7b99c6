"""OpenAI's embeddings: text as vectors; and pictures, sounds and videos, alone or as one thing."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from harmonia.collection.cues import CUE_WINDOWS
from harmonia.encoders import Encoder, unit
from harmonia.modalities import MODALITIES, Limits
from harmonia.server.errors import ApiError
from harmonia.server.formats import check_modality, decode_base64
from harmonia.server.openai import models
from harmonia.server.openai.messages import RECALLS
from harmonia.server.openai.schemas.embeddings import EmbeddingInput, EmbeddingsRequest
from harmonia.server.service import Service, ServiceDep
from harmonia.server.sse import count_words
from harmonia.server.uploaded_records import encode_utf8
from harmonia.types import Signal

router = APIRouter(prefix="/v1/embeddings", tags=["openai"])

CHUNK = 64
"""Inputs that are decoded and encoded at once, so that a long list leaves room for others."""


@router.post("")
async def embed(asked: EmbeddingsRequest, service: ServiceDep) -> JSONResponse:
    """A unit vector for each input: the normalised sum over its parts, each the mean over its windows."""
    encoders = models.by_modality(service.collection.encoders, asked.model)
    inputs = asked.input
    for number, one in enumerate(inputs):
        _check(one, encoders, f"input.{number}", asked)
    vectors, used = [], 0
    for begin in range(0, len(inputs), CHUNK):
        chunk = inputs[begin : begin + CHUNK]
        signals = await service.work(lambda c=chunk, b=begin: _signals(c, b, service.settings.limits))  # type: ignore[misc]
        used += sum(
            count_words(s.text) if s.modality == "text" else 1 for one in signals for p in one for s in p
        )
        vectors += await _vectors(service, signals, encoders)
    data = [
        {"object": "embedding", "index": index, "embedding": _shown(vector, asked)}
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": used, "total_tokens": used}
    return JSONResponse({"object": "list", "data": data, "model": asked.model, "usage": usage})


def _check(
    one: EmbeddingInput, encoders: Mapping[str, Encoder], param: str, asked: EmbeddingsRequest
) -> None:
    """ApiError 400 for parts that the model has no vectors for, or none that can be added."""
    for modality in one.parts:
        if modality not in encoders:
            raise ApiError(400, f"the model {asked.model!r} knows no {modality}", param=f"{param}.{modality}")
    used = [encoders[modality] for modality in one.parts]
    if len({encoder.space for encoder in used}) > 1:
        raise ApiError(
            400,
            f"the vectors of {' and '.join(one.parts)} by {asked.model!r} lie in different spaces and cannot "
            f"be fused: use the model {RECALLS!r}, or send each by itself",
            param=param,
        )
    least = min(encoder.dim for encoder in used)
    if asked.dimensions and asked.dimensions > least:
        raise ApiError(
            400, f"vectors of {asked.model!r} have {least} dimensions at most here", param="dimensions"
        )


def _signals(several: Sequence[EmbeddingInput], begin: int, limits: Limits) -> list[list[list[Signal]]]:
    """The windows of each part of each input, decoded."""
    return [
        [
            _windows(modality, value, f"input.{number}.{modality}", limits)
            for modality, value in one.parts.items()
        ]
        for number, one in enumerate(several, begin)
    ]


def _windows(modality: str, value: str, param: str, limits: Limits) -> list[Signal]:
    if modality == "text":
        if not value.strip():
            raise ApiError(400, f"{param} is empty: there is nothing to make a vector of", param=param)
        # all of a text counts: encoders read only the beginning of a long one
        return list(MODALITIES["text"].windows(encode_utf8(value, param), limits=limits))
    data = check_modality(decode_base64(value, param), modality, param)
    return list(islice(MODALITIES[modality].windows(data, limits=limits), CUE_WINDOWS))


async def _vectors(
    service: Service, inputs: Sequence[Sequence[Sequence[Signal]]], encoders: Mapping[str, Encoder]
) -> list[NDArray[np.float32]]:
    flat = [signal for parts in inputs for windows in parts for signal in windows]
    codes: list[NDArray[np.float32]] = []
    for begin in range(0, len(flat), CHUNK):
        signals = flat[begin : begin + CHUNK]
        for signal, found in zip(signals, await service.encode(signals), strict=True):
            space = encoders[signal.modality].space
            codes.append(next(code.vector for code in found if code.space == space))
    each = iter(codes)
    return [
        _unit(sum(_unit(np.mean(list(islice(each, len(windows))), axis=0)) for windows in parts))
        for parts in inputs
    ]


def _unit(vector: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = unit(np.asarray(vector)[None])[0]
    return found


def _shown(vector: NDArray[np.float32], asked: EmbeddingsRequest) -> str | list[float]:
    if asked.dimensions:
        vector = _unit(vector[: asked.dimensions])
    if asked.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    found: list[float] = vector.tolist()
    return found
