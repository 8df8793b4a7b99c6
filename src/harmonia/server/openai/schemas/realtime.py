"""Client events of a realtime session."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from harmonia.server.openai.schemas.base import OpenAIRequest
from harmonia.server.openai.schemas.chat import Encoded, Text
from harmonia.server.schemas.base import Body

Id = Annotated[str, Field(min_length=1, max_length=100)]
Most = Annotated[int, Field(ge=1)] | Literal["inf"]
Modalities = list[Literal["text", "audio"]]


class SoundFormat(Body):
    """The format of audio without a header."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class SoundIn(OpenAIRequest):
    """Audio input settings. There is no voice activity detection: the client commits the buffer."""

    format: SoundFormat | None = None


class Sound(OpenAIRequest):
    """Audio settings."""

    input: SoundIn | None = None


class SessionChange(OpenAIRequest):
    """The changed settings of a session."""

    type: Literal["realtime"] = "realtime"
    model: str | None = None
    instructions: Text | None = None
    output_modalities: Modalities | None = None
    max_output_tokens: Most | None = None
    audio: Sound | None = None


class SessionUpdate(Body):
    """Change the settings of the session."""

    type: Literal["session.update"]
    session: SessionChange


class ItemPart(Body):
    """A part of a message: text, audio (16-bit PCM at 24 kHz, or a file) or an image (a data URL)."""

    type: Literal["input_text", "input_audio", "input_image", "output_text"]
    text: Text = ""
    audio: Encoded | None = None
    image_url: Encoded | None = None


class Item(Body):
    """A message."""

    id: Id | None = None
    type: Literal["message"]
    role: Literal["user", "assistant", "system"]
    content: list[ItemPart] = Field(max_length=64)


class ItemCreate(Body):
    """Append a message."""

    type: Literal["conversation.item.create"]
    item: Item


class ItemNamed(Body):
    """Read or delete a message."""

    type: Literal["conversation.item.retrieve", "conversation.item.delete"]
    item_id: Id


class BufferAppend(Body):
    """Append audio to the buffer: 16-bit PCM at 24 kHz."""

    type: Literal["input_audio_buffer.append"]
    audio: Encoded


class BufferEvent(Body):
    """Commit the buffer as a message, or clear it."""

    type: Literal["input_audio_buffer.commit", "input_audio_buffer.clear"]


class ResponseOptions(OpenAIRequest):
    """The settings of one response."""

    without_effect = ("conversation", "metadata")

    instructions: Text | None = None
    output_modalities: Modalities | None = None
    max_output_tokens: Most | None = None


class ResponseCreate(Body):
    """Request a response."""

    type: Literal["response.create"]
    response: ResponseOptions | None = None


class ResponseCancel(Body):
    """Cancel a response."""

    type: Literal["response.cancel"]


Event = Annotated[
    SessionUpdate | ItemCreate | ItemNamed | BufferAppend | BufferEvent | ResponseCreate | ResponseCancel,
    Field(discriminator="type"),
]
