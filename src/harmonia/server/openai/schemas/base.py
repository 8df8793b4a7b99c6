"""The base of request bodies of OpenAI's generating endpoints: unsupported parameters are refused by name."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from harmonia.server.errors import ApiError

NOTHING: tuple[Any, ...] = (
    None, False, [], {}, "auto", "none", "default", "disabled",
    {"type": "text"}, {"format": {"type": "text"}},
)  # fmt: skip
"""OpenAI's defaults: parameters with these values have no effect."""
SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
"""Ignored sampling parameters: answers are composed from records, not sampled."""
LABELS = (
    "user", "safety_identifier", "service_tier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "parallel_tool_calls",
)  # fmt: skip
"""Ignored parameters that only concern OpenAI's own service."""


class OpenAIRequest(BaseModel):
    """A request body whose unknown fields are refused by name, unless they have a default value."""

    model_config = ConfigDict(extra="allow")

    without_effect: ClassVar[tuple[str, ...]] = SAMPLING + LABELS

    def refuse_unsupported(self) -> None:
        """ApiError 400 for the first unsupported parameter, by name."""
        for name, value in (self.model_extra or {}).items():
            if name not in self.without_effect and value not in NOTHING:
                raise unsupported(name)


def unsupported(name: str, why: str = "") -> ApiError:
    """The error for an unsupported parameter or value."""
    message = f"{name} is not supported here{': ' + why if why else ''}"
    return ApiError(400, message, code="unsupported_parameter", param=name)
