"""What clients send over a realtime WebSocket."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from harmonia.server.openai.schemas.base import OpenAIRequest
from harmonia.server.openai.schemas.chat import Encoded, Text

Id = Annotated[str, Field(min_length=1, max_length=100)]
Most = Annotated[int, Field(ge=1)] | Literal["inf"]
Modalities = list[Literal["text", "audio"]]


class SoundFormat(BaseModel):
    """How sounds without a header are read."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class SoundIn(OpenAIRequest):
    """How sounds come in. Nothing listens for pauses, so that a buffer is committed by the client."""

    format: SoundFormat | None = None


class Sound(OpenAIRequest):
    """How sounds come in and go out."""

    input: SoundIn | None = None


class SessionChange(OpenAIRequest):
    """What of a session is to change."""

    type: Literal["realtime"] = "realtime"
    model: str | None = None
    instructions: Text | None = None
    output_modalities: Modalities | None = None
    max_output_tokens: Most | None = None
    audio: Sound | None = None


class SessionUpdate(BaseModel):
    """A change of the session."""

    type: Literal["session.update"]
    session: SessionChange


class ItemPart(BaseModel):
    """A piece of a message: words, a sound (16-bit PCM of 24 kHz, or a file) or a picture (a data URL)."""

    type: Literal["input_text", "input_audio", "input_image", "output_text"]
    text: Text = ""
    audio: Encoded | None = None
    image_url: Encoded | None = None


class Item(BaseModel):
    """A message of the conversation."""

    id: Id | None = None
    type: Literal["message"]
    role: Literal["user", "assistant", "system"]
    content: list[ItemPart] = Field(max_length=64)


class ItemCreate(BaseModel):
    """A new message, at the end."""

    type: Literal["conversation.item.create"]
    item: Item


class ItemNamed(BaseModel):
    """A message that is there."""

    type: Literal["conversation.item.retrieve", "conversation.item.delete"]
    item_id: Id


class BufferAppend(BaseModel):
    """A piece of sound, 16-bit PCM of 24 kHz."""

    type: Literal["input_audio_buffer.append"]
    audio: Encoded


class BufferEvent(BaseModel):
    """The sound so far becomes a message, or is thrown away."""

    type: Literal["input_audio_buffer.commit", "input_audio_buffer.clear"]


class ResponseOptions(OpenAIRequest):
    """How a response is to be."""

    without_effect = ("conversation", "metadata")

    instructions: Text | None = None
    output_modalities: Modalities | None = None
    max_output_tokens: Most | None = None


class ResponseCreate(BaseModel):
    """An answer is wanted."""

    type: Literal["response.create"]
    response: ResponseOptions | None = None


class ResponseCancel(BaseModel):
    """An answer is wanted no more."""

    type: Literal["response.cancel"]


Event = Annotated[
    SessionUpdate | ItemCreate | ItemNamed | BufferAppend | BufferEvent | ResponseCreate | ResponseCancel,
    Field(discriminator="type"),
]
