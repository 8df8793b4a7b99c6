"""OpenAI's embeddings endpoint, extended to images, audio and video, alone or fused into one vector."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from fastapi import APIRouter
from fastapi.responses import Response
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
"""Inputs decoded and encoded at once, so that a long list does not block other clients."""


@router.post("")
async def embed(body: EmbeddingsRequest, service: ServiceDep) -> Response:
    """A unit vector per input: the normalised sum over its parts, each the mean over its windows."""
    encoders = models.by_modality(service.collection.encoders, body.model)
    inputs = body.input
    for number, item in enumerate(inputs):
        _check(item, encoders, f"input.{number}", body)
    vectors, used = [], 0
    for begin in range(0, len(inputs), CHUNK):
        chunk = inputs[begin : begin + CHUNK]
        signals = await service.work(lambda c=chunk, b=begin: _signals(c, b, service.settings.limits))  # type: ignore[misc]
        used += sum(
            count_words(s.text) if s.modality == "text" else 1 for item in signals for p in item for s in p
        )
        vectors += await _vectors(service, signals, encoders)
    usage = {"prompt_tokens": used, "total_tokens": used}
    head = json.dumps({"object": "list", "model": body.model, "usage": usage})
    data = await service.work(lambda: _render(vectors, body))
    return Response(f'{head[:-1]}, "data": [{data}]}}', media_type="application/json")


def _check(
    item: EmbeddingInput, encoders: Mapping[str, Encoder], param: str, body: EmbeddingsRequest
) -> None:
    """ApiError 400 for parts that the model cannot encode, or whose vectors have different spaces."""
    for modality in item.parts:
        if modality not in encoders:
            raise ApiError(
                400, f"the model {body.model!r} does not encode {modality}", param=f"{param}.{modality}"
            )
    used = [encoders[modality] for modality in item.parts]
    if len({encoder.space for encoder in used}) > 1:
        raise ApiError(
            400,
            f"the vectors of {' and '.join(item.parts)} by {body.model!r} lie in different spaces and cannot "
            f"be fused: use the model {RECALLS!r}, or send each by itself",
            param=param,
        )
    least = min(encoder.dim for encoder in used)
    if body.dimensions and body.dimensions > least:
        raise ApiError(
            400, f"vectors of {body.model!r} have at most {least} dimensions here", param="dimensions"
        )


def _signals(inputs: Sequence[EmbeddingInput], begin: int, limits: Limits) -> list[list[list[Signal]]]:
    """The decoded windows of each part of each input."""
    return [
        [
            _windows(modality, value, f"input.{number}.{modality}", limits)
            for modality, value in item.parts.items()
        ]
        for number, item in enumerate(inputs, begin)
    ]


def _windows(modality: str, value: str, param: str, limits: Limits) -> list[Signal]:
    if modality == "text":
        if not value.strip():
            raise ApiError(400, f"{param} is empty", param=param)
        # a NUL would make it binary data; split a long text, since encoders truncate what exceeds a window
        return list(MODALITIES["text"].windows(encode_utf8(value.replace("\0", " "), param), limits=limits))
    data = check_modality(decode_base64(value, param), modality, param)
    return list(islice(MODALITIES[modality].windows(data, limits=limits), CUE_WINDOWS))


async def _vectors(
    service: Service, inputs: Sequence[Sequence[Sequence[Signal]]], encoders: Mapping[str, Encoder]
) -> list[NDArray[np.float32]]:
    flat = [signal for parts in inputs for windows in parts for signal in windows]
    codes: list[NDArray[np.float32]] = []
    for begin in range(0, len(flat), CHUNK):
        signals = flat[begin : begin + CHUNK]
        for signal, codes_found in zip(signals, await service.encode(signals), strict=True):
            space = encoders[signal.modality].space
            codes.append(next(code.vector for code in codes_found if code.space == space))
    each = iter(codes)
    return [
        _unit(sum(_unit(np.mean(list(islice(each, len(windows))), axis=0)) for windows in parts))
        for parts in inputs
    ]


def _render(vectors: Sequence[NDArray[np.float32]], body: EmbeddingsRequest) -> str:
    """The vectors as JSON, one by one: other threads run between them, which one call would keep waiting."""
    return ", ".join(
        json.dumps({"object": "embedding", "index": index, "embedding": _encode_vector(vector, body)})
        for index, vector in enumerate(vectors)
    )


def _unit(vector: Any) -> NDArray[np.float32]:
    result: NDArray[np.float32] = unit(np.asarray(vector)[None])[0]
    return result


def _encode_vector(vector: NDArray[np.float32], body: EmbeddingsRequest) -> str | list[float]:
    if body.dimensions:
        vector = _unit(vector[: body.dimensions])
    if body.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    result: list[float] = vector.tolist()
    return result
