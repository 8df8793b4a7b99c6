"""OpenAI's speech endpoints: each answers 501, because no speech model is available."""

from __future__ import annotations

from fastapi import APIRouter, Request

from harmonia.server.errors import missing_model
from harmonia.server.schemas.errors import NO_MODEL

router = APIRouter(prefix="/v1/audio", tags=["openai"], responses=NO_MODEL)

HINT = "this version has no recipe that trains a speech model"


@router.post("/speech")
async def speech(request: Request) -> None:
    """Synthesize speech: 501, no model is available."""
    await _refuse(request, "speech synthesis")


@router.post("/transcriptions")
async def transcriptions(request: Request) -> None:
    """Transcribe speech: 501, no model is available."""
    await _refuse(request, "speech transcription")


@router.post("/translations")
async def translations(request: Request) -> None:
    """Translate speech into English text: 501, no model is available."""
    await _refuse(request, "speech translation")


async def _refuse(request: Request, task: str) -> None:
    # a client that is still sending its file would see a broken connection instead of the answer
    async for _ in request.stream():
        pass
    raise missing_model(task, HINT)
