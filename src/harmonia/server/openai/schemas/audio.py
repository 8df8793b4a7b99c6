"""Speech and its transcription, as OpenAI's clients ask for them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from harmonia.server.openai.schemas.base import Asked


class Voice(BaseModel):
    """A voice by its id."""

    id: str = Field(max_length=200)


class SpeechIn(Asked):
    """Words to be spoken."""

    model: str = Field(max_length=200)
    input: str = Field(min_length=1, max_length=4096)
    voice: Annotated[str, Field(max_length=200)] | Voice
    instructions: Annotated[str, Field(max_length=4096)] | None = None
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: float = Field(1.0, ge=0.25, le=4.0)
    stream_format: Literal["sse", "audio"] = "audio"


class TranslationIn(Asked):
    """A sound whose words are wanted in English."""

    model: str = Field(max_length=200)
    prompt: Annotated[str, Field(max_length=20_000)] | None = None
    response_format: Literal["json", "text", "srt", "verbose_json", "vtt"] = "json"
    temperature: float = Field(0.0, ge=0, le=1)


class TranscriptionIn(TranslationIn):
    """A sound whose words are wanted."""

    without_effect = ("timestamp_granularities[]", "include[]", "chunking_strategy")

    language: Annotated[str, Field(max_length=20)] | None = None
    stream: bool | None = False
