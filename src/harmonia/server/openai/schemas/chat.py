"""Request bodies of chat completions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from harmonia.server.openai.schemas.base import AnswerRequest
from harmonia.server.schemas.base import Body, Seed, Strict

Text = Annotated[str, Field(max_length=1_000_000)]
Model = Annotated[str, Field(max_length=200, json_schema_extra={"enum": ["harmonia", "harmonia-imagine"]})]
Encoded = Annotated[str, Field(min_length=1, description="base64, a data URL, or an address")]
MESSAGES = 2048
"""Most messages of a conversation, as in OpenAI's API."""
PARTS = 2048
"""Most parts of one message."""
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


class EchoedPart(Body):
    """A part of a message that is not asked by: only text is read, of other types nothing."""

    type: str
    text: Text | None = None


class ChatMessage(Body):
    """One message. Only its text and media are read; other keys, such as clients echo, are skipped."""

    role: Literal["developer", "system", "user"]
    content: Annotated[
        list[ChatPart],
        Field(max_length=PARTS),
        BeforeValidator(as_parts, json_schema_input_type=str | list[ChatPart] | None),
    ] = Field(default=[])


class EchoedMessage(Body):
    """A message of the assistant or of a tool, as clients send it back."""

    role: Literal["assistant", "tool", "function"]
    content: Annotated[
        list[EchoedPart],
        Field(max_length=PARTS),
        BeforeValidator(as_parts, json_schema_input_type=str | list[EchoedPart] | None),
    ] = Field(default=[])


def kind_of_message(message: Any) -> str:
    """Which of the two a message is, by its role."""
    role = message.get("role") if isinstance(message, dict) else getattr(message, "role", None)
    return "echoed" if role in ("assistant", "tool", "function") else "asking"


Message = Annotated[
    Annotated[ChatMessage, Tag("asking")] | Annotated[EchoedMessage, Tag("echoed")],
    Discriminator(kind_of_message),
]


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

    unsupported = (
        *AnswerRequest.unsupported, "response_format", "logprobs", "logit_bias", "functions", "function_call",
        "prediction", "audio", "web_search_options",
    )  # fmt: skip

    model: Model
    messages: list[Message] = Field(min_length=1, max_length=MESSAGES)
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
    reasoning_effort: str | None = None
    verbosity: str | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    logit_bias: dict[str, Any] | None = None
    functions: list[Any] | None = None
    function_call: str | dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None

    @property
    def most(self) -> int | None:
        """The most words of an answer, or None."""
        given = [one for one in (self.max_tokens, self.max_completion_tokens) if one is not None]
        return min(given) if given else None
