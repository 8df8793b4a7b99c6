"""Speech and its transcription: requests are read in full, then answered that no model is here yet."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
from starlette.datastructures import UploadFile

from harmonia.modalities import audio as sounds
from harmonia.server.errors import ApiError, missing_model
from harmonia.server.formats import checked
from harmonia.server.forms import FILES, validated
from harmonia.server.openai.schemas.audio import SpeechIn, TranscriptionIn, TranslationIn
from harmonia.server.openai.schemas.base import Asked
from harmonia.server.schemas.errors import LACKS
from harmonia.server.service import Service, service

router = APIRouter(prefix="/v1/audio", tags=["openai"], responses=LACKS)

At = Annotated[Service, Depends(service)]
A = TypeVar("A", bound=Asked)
BRINGS = "no recipe of this version trains one"


def _documented(model: type[Asked]) -> dict[str, Any]:
    schema = model.model_json_schema()
    schema["properties"]["file"] = {"type": "string", "format": "binary"}
    schema["required"] = [*schema["required"], "file"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post("/speech")
async def speech(asked: SpeechIn) -> None:
    """Words as a voice speaks them: 501 until there is a model that speaks."""
    asked.refuse_unsupported()
    raise missing_model("speaking", BRINGS)


@router.post("/transcriptions", openapi_extra=_documented(TranscriptionIn))
async def transcriptions(request: Request, at: At) -> None:
    """The words of a sound: 501 until there is a model that understands speech."""
    await _heard(request, at, TranscriptionIn)
    raise missing_model("transcribing speech", BRINGS)


@router.post("/translations", openapi_extra=_documented(TranslationIn))
async def translations(request: Request, at: At) -> None:
    """The words of a sound, in English: 501 until there is a model that understands speech."""
    await _heard(request, at, TranslationIn)
    raise missing_model("translating speech", BRINGS)


async def _heard(request: Request, at: Service, model: type[A]) -> A:
    """The fields of a form whose file is a sound that can be read; ApiError 400 otherwise."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(400, "send a form (multipart/form-data) with the field file", param="file")
    async with request.form(max_files=FILES, max_fields=FILES) as form:
        said = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        file = form.get("file")
        data = await file.read() if isinstance(file, UploadFile) else None
    asked = validated(said, model)
    asked.refuse_unsupported()
    if data is None:
        raise ApiError(400, "the form has no sound in the field file", param="file")
    sound = checked(data, "audio", "file")
    # the header says how long it is, and the beginning whether it can be decoded
    await at.work(lambda: next(iter(sounds.windows(sound, limits=at.settings.limits)), None))
    return asked
