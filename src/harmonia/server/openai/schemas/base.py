"""The base of request bodies of OpenAI's generating endpoints: unsupported parameters are refused by name."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field

from harmonia.server.errors import ApiError
from harmonia.server.schemas.base import Body

NOTHING: tuple[Any, ...] = (
    None, False, [], {}, "auto", "none", "default", "disabled",
    {"type": "text"}, {"format": {"type": "text"}},
)  # fmt: skip
"""OpenAI's defaults: parameters with these values have no effect."""
Penalty = Annotated[float, Field(ge=-2, le=2)]


class OpenAIRequest(Body):
    """A request body whose unknown fields are refused by name, unless they have a default value."""

    model_config = ConfigDict(extra="allow")

    without_effect: ClassVar[tuple[str, ...]] = ()
    unsupported: ClassVar[tuple[str, ...]] = ()
    """Fields whose types are checked, and which are refused unless they have a default value."""

    def refuse_unsupported(self) -> None:
        """ApiError 400 for the first unsupported parameter, by name."""
        typed = {name: getattr(self, name) for name in self.unsupported}
        for name, value in {**typed, **(self.model_extra or {})}.items():
            if name not in self.without_effect and value not in NOTHING:
                raise unsupported(name)


class AnswerRequest(OpenAIRequest):
    """The fields of chat and responses that are checked and have no effect.

    Answers are composed from records, not sampled; the other fields concern OpenAI's own service.
    """

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None

    unsupported: ClassVar[tuple[str, ...]] = ("tools", "tool_choice", "top_logprobs")

    tools: list[Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


def unsupported(name: str, why: str = "") -> ApiError:
    """The error for an unsupported parameter or value."""
    message = f"{name} is not supported here{': ' + why if why else ''}"
    return ApiError(400, message, code="unsupported_parameter", param=name)
