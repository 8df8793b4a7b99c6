"""Request bodies of the image endpoints."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from harmonia.server.openai.schemas.base import OpenAIRequest
from harmonia.server.schemas.base import Seed

SIDE = 4096
"""Most pixels of a side; the generator's smaller images are scaled up."""


def auto_is_none(value: Any) -> Any:
    """Convert "auto" and "" to None."""
    return None if value in ("auto", "") else value


Auto = BeforeValidator(auto_is_none)


class ImageRequest(OpenAIRequest):
    """The fields of all three image endpoints."""

    without_effect: ClassVar[tuple[str, ...]] = ("user", "safety_identifier")

    model: Annotated[str | None, Field(max_length=200)] = None
    n: Annotated[int, Field(ge=1, le=10)] | None = None
    size: Annotated[str | None, Field(pattern=r"^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$"), Auto] = None
    response_format: Literal["b64_json", "url"] | None = None
    seed: Seed | None = None

    @property
    def pixels(self) -> tuple[int, int] | None:
        """Width and height in pixels; None for the generator's own size."""
        if self.size is None:
            return None
        width, _, height = self.size.partition("x")
        return int(width), int(height)


class PromptedImageRequest(ImageRequest):
    """The fields of the endpoints with a prompt."""

    without_effect = (*ImageRequest.without_effect, "moderation")

    prompt: str = Field(min_length=1, max_length=20_000)
    output_format: Literal["png", "jpeg", "webp"] | None = None
    background: Annotated[Literal["opaque"] | None, Auto] = None
    quality: Annotated[Literal["standard"] | None, Auto] = None
    stream: bool | None = False
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
