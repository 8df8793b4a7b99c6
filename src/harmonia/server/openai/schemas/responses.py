"""Request bodies of the responses endpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from harmonia.server.openai.schemas.base import NOTHING, AnswerRequest, unsupported
from harmonia.server.openai.schemas.chat import (
    MESSAGES,
    PARTS,
    EchoedPart,
    Encoded,
    InputAudio,
    Model,
    RefusalPart,
    Text,
)
from harmonia.server.schemas.base import Body

ResponseId = Annotated[str, Field(max_length=100)]


class WordsPart(Body):
    """Text of either side."""

    type: Literal["input_text", "output_text"]
    text: Text


class InputImage(Body):
    """An image as a cue."""

    type: Literal["input_image"]
    image_url: Encoded | None = None
    file_id: str | None = None


class InputSound(Body):
    """Audio as a cue."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class InputFile(Body):
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
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    return [] if content is None else content


class ResponseMessage(Body):
    """One message of the input."""

    type: Literal["message"] = "message"
    role: Literal["user", "system", "developer"]
    id: Annotated[str, Field(max_length=100)] | None = None
    content: Annotated[
        list[ResponsePart],
        Field(max_length=PARTS),
        BeforeValidator(as_parts, json_schema_input_type=str | list[ResponsePart] | None),
    ]


class AssistantMessage(Body):
    """A message of an earlier output, as clients send it back: only its text is read."""

    type: Literal["message"] = "message"
    role: Literal["assistant"]
    id: Annotated[str, Field(max_length=100)] | None = None
    content: Annotated[
        list[EchoedPart],
        Field(max_length=PARTS),
        BeforeValidator(as_parts, json_schema_input_type=str | list[EchoedPart] | None),
    ]


class SkippedItem(Body):
    """An item of an earlier output, or a tool's answer, as clients send it back; it is skipped."""

    type: Literal[
        "image_generation_call", "function_call", "function_call_output", "custom_tool_call",
        "custom_tool_call_output", "reasoning", "item_reference", "compaction", "file_search_call",
        "web_search_call", "computer_call", "computer_call_output", "code_interpreter_call",
        "local_shell_call", "local_shell_call_output", "shell_call", "shell_call_output", "apply_patch_call",
        "apply_patch_call_output", "mcp_list_tools", "mcp_approval_request", "mcp_approval_response",
        "mcp_call",
    ]  # fmt: skip


def kind_of_item(item: Any) -> str:
    """Which of the three an item is: a message, also without a type, or one that is skipped."""
    kind, role = (
        item.get(name) if isinstance(item, dict) else getattr(item, name, None) for name in ("type", "role")
    )
    if kind not in (None, "message"):
        return "skipped"
    return "assistant" if role == "assistant" else "message"


Item = Annotated[
    Annotated[ResponseMessage, Tag("message")]
    | Annotated[AssistantMessage, Tag("assistant")]
    | Annotated[SkippedItem, Tag("skipped")],
    Discriminator(kind_of_item),
]


class Reasoning(Body):
    """How a model should think; without effect, for none does."""

    effort: str | None = None
    summary: str | None = None


class TextOptions(Body):
    """The form of the text; only plain text is supported."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


def as_messages(given: Any) -> Any:
    """Convert a plain string to one user message."""
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


Items = Annotated[list[Item], Field(max_length=MESSAGES)]


class ResponseRequest(AnswerRequest):
    """The body of a responses request."""

    unsupported = (*AnswerRequest.unsupported, "background", "conversation", "prompt", "max_tool_calls")

    model: Model = "harmonia"
    input: Annotated[Items, BeforeValidator(as_messages, json_schema_input_type=str | Items)] = Field(
        default=[]
    )
    instructions: Text | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    previous_response_id: ResponseId | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = True
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[str] | None = None
    reasoning: Reasoning | None = None
    text: TextOptions | None = None
    background: bool | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    max_tool_calls: int | None = None

    def refuse_unsupported(self) -> None:
        """ApiError 400 for the first unsupported parameter, by name."""
        super().refuse_unsupported()
        if self.text is not None and self.text.format not in NOTHING:
            raise unsupported("text")
