"""Request bodies of chat completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from harmonia.server.openai.schemas.base import AnswerRequest
from harmonia.server.schemas.base import Body, Seed, Strict

Text = Annotated[str, Field(max_length=1_000_000)]
Model = Annotated[str, Field(max_length=200, json_schema_extra={"enum": ["harmonia", "harmonia-imagine"]})]
Encoded = Annotated[str, Field(min_length=1, description="base64, a data URL, or an address")]
MESSAGES = 2048
"""Most messages of a conversation, as in OpenAI's API."""
Stop = Annotated[list[Annotated[str, Field(min_length=1, max_length=1000)]], Field(max_length=4)]


class TextPart(Body):
    """Text."""

    type: Literal["text"]
    text: Text


class RefusalPart(Body):
    """A refusal of the assistant."""

    type: Literal["refusal"]
    refusal: Text


class ImageUrl(Body):
    """The source of an image: a data URL, or a URL if the server may fetch."""

    url: Encoded
    detail: str | None = None


class ImagePart(Body):
    """An image as a cue."""

    type: Literal["image_url"]
    image_url: ImageUrl


class InputAudio(Body):
    """Audio in base64; its type is detected from the bytes, not from ``format``."""

    data: Encoded
    format: str | None = None


class AudioPart(Body):
    """Audio as a cue."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class FileData(Body):
    """A file in base64, of any supported modality."""

    file_data: Encoded | None = None
    file_id: str | None = None
    filename: str | None = None


class FilePart(Body):
    """A file as a cue."""

    type: Literal["file"]
    file: FileData


ChatPart = Annotated[TextPart | ImagePart | AudioPart | FilePart | RefusalPart, Field(discriminator="type")]


def as_parts(content: Any) -> Any:
    """Convert a plain string to one text part."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [] if content is None else content


class ChatMessage(Body):
    """One message. Only its text and media are read; other keys, such as clients echo, are skipped."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: Annotated[
        list[ChatPart],
        Field(max_length=64),
        BeforeValidator(as_parts, json_schema_input_type=str | list[ChatPart] | None),
    ] = Field(default=[])


class UpdateCompletionRequest(Strict):
    """The new metadata of a stored completion, which replace the old ones; null clears them."""

    metadata: dict[str, str] | None


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = False


def as_list(stop: Any) -> Any:
    """Convert a single stop string to a list."""
    return [stop] if isinstance(stop, str) else [] if stop is None else stop


class ChatRequest(AnswerRequest):
    """The body of a chat completion request."""

    model: Model
    messages: list[ChatMessage] = Field(min_length=1, max_length=MESSAGES)
    modalities: list[Literal["text", "audio"]] | None = None
    n: Annotated[int, Field(ge=1, le=8)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[Stop, BeforeValidator(as_list, json_schema_input_type=str | Stop | None)] = Field(
        default=[]
    )
    seed: Seed | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @property
    def most(self) -> int | None:
        """The most words of an answer, or None."""
        given = [one for one in (self.max_tokens, self.max_completion_tokens) if one is not None]
        return min(given) if given else None
