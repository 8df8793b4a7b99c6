"""What bodies of OpenAI's generating endpoints share: what is not supported is named, not passed over."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from harmonia.server.errors import ApiError

NOTHING: tuple[Any, ...] = (
    None, False, [], {}, "auto", "none", "default", "disabled",
    {"type": "text"}, {"format": {"type": "text"}},
)  # fmt: skip
"""Values by which a parameter asks for nothing: OpenAI's defaults."""
SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
"""Without effect: an answer is composed from what was recalled, and nothing is sampled."""
LABELS = (
    "user", "safety_identifier", "service_tier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "parallel_tool_calls",
)  # fmt: skip
"""Without effect: they tell OpenAI's own service who asks, and how to run it."""


class OpenAIRequest(BaseModel):
    """A body whose unknown fields are refused by name, unless they ask for nothing."""

    model_config = ConfigDict(extra="allow")

    without_effect: ClassVar[tuple[str, ...]] = SAMPLING + LABELS

    def refuse_unsupported(self) -> None:
        """ApiError 400 that names the first parameter that is not supported."""
        for name, value in (self.model_extra or {}).items():
            if name not in self.without_effect and value not in NOTHING:
                raise unsupported(name)


def unsupported(name: str, why: str = "") -> ApiError:
    """The answer to a parameter, or a value of one, that nothing here can follow."""
    message = f"{name} is not supported here{': ' + why if why else ''}"
    return ApiError(400, message, code="unsupported_parameter", param=name)
