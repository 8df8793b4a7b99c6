"""Request bodies of the embeddings endpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from harmonia.server.errors import ApiError
from harmonia.server.schemas.base import Strict
from harmonia.server.schemas.memory import Media

INPUTS = 2048
"""Most inputs of one request."""
Text = Annotated[str, Field(min_length=1, max_length=200_000)]


class EmbeddingInput(Strict):
    """One input in one or more modalities; its vector is the normalised sum over them."""

    text: Text | None = None
    image: Media | None = None
    audio: Media | None = None
    video: Media | None = None

    @model_validator(mode="after")
    def _any(self) -> Self:
        if not self.parts:
            raise ValueError("give at least one of text, image, audio and video")
        return self

    @property
    def parts(self) -> dict[str, str]:
        """The given values by modality."""
        given = {kind: getattr(self, kind) for kind in ("text", "image", "audio", "video")}
        return {kind: value for kind, value in given.items() if value is not None}


def _as_inputs(given: Any) -> list[Any]:
    """Convert the input to a list of objects; ApiError 400 for token ids and other types."""
    items = given if isinstance(given, list) else [given]
    if any(isinstance(item, int | float | list) for item in items):
        raise ApiError(400, "input contains token ids: send the text itself", param="input")
    if not all(isinstance(item, str | dict) for item in items):
        raise ApiError(400, "input must be a string, an object, or a list of these", param="input")
    return [{"text": item} if isinstance(item, str) else item for item in items]


EmbeddingInputs = (
    Text | EmbeddingInput | Annotated[list[Text | EmbeddingInput], Field(min_length=1, max_length=INPUTS)]
)


class EmbeddingsRequest(Strict):
    """The body of an embeddings request. ``user`` is ignored."""

    input: Annotated[
        list[EmbeddingInput],
        Field(min_length=1, max_length=INPUTS),
        BeforeValidator(_as_inputs, json_schema_input_type=EmbeddingInputs),
    ]
    model: str = Field("harmonia", min_length=1, max_length=300)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None
