"""Request bodies of the responses endpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from harmonia.server.openai.schemas.base import LABELS, SAMPLING, OpenAIRequest
from harmonia.server.openai.schemas.chat import Encoded, InputAudio, Model, RefusalPart, Text

ResponseId = Annotated[str, Field(max_length=100)]


class WordsPart(BaseModel):
    """Text of either side."""

    type: Literal["input_text", "output_text"]
    text: Text


class InputImage(BaseModel):
    """An image as a cue."""

    type: Literal["input_image"]
    image_url: Encoded | None = None
    file_id: str | None = None


class InputSound(BaseModel):
    """Audio as a cue."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class InputFile(BaseModel):
    """A file as a cue."""

    type: Literal["input_file"]
    file_data: Encoded | None = None
    file_url: Encoded | None = None
    file_id: str | None = None
    filename: str | None = None


ResponsePart = Annotated[
    WordsPart | InputImage | InputSound | InputFile | RefusalPart, Field(discriminator="type")
]


def as_parts(content: Any) -> Any:
    """Convert a plain string to one text part."""
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


class ResponseMessage(BaseModel):
    """One message of the input; of assistant messages only the text is read."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[
        list[ResponsePart],
        Field(max_length=64),
        BeforeValidator(as_parts, json_schema_input_type=str | list[ResponsePart]),
    ]


class DrawnItem(BaseModel):
    """A generated image of an earlier output; it is ignored."""

    type: Literal["image_generation_call"]
    id: str


def as_messages(given: Any) -> Any:
    """Convert a plain string to one user message."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


Items = Annotated[list[ResponseMessage | DrawnItem], Field(min_length=1, max_length=256)]


class ResponseRequest(OpenAIRequest):
    """The body of a responses request."""

    without_effect = (*SAMPLING, *LABELS, "truncation", "stream_options")

    model: Model
    input: Annotated[Items, BeforeValidator(as_messages, json_schema_input_type=str | Items)]
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    previous_response_id: ResponseId | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = True
    stream: bool | None = False
