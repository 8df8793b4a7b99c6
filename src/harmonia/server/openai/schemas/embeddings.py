"""What is asked of the embeddings endpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from harmonia.server.errors import ApiError
from harmonia.server.schemas.memory import Media, Strict

INPUTS = 2048
"""Most inputs of one request."""
Text = Annotated[str, Field(min_length=1, max_length=200_000)]


class EmbeddingInput(Strict):
    """One thing in several modalities; its vector is the normalised sum of theirs."""

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
        """What was given, by modality."""
        given = {kind: getattr(self, kind) for kind in ("text", "image", "audio", "video")}
        return {kind: value for kind, value in given.items() if value is not None}


def _several(given: Any) -> list[Any]:
    """What was given as a list of things; ApiError 400 for what is none."""
    things = given if isinstance(given, list) else [given]
    if any(isinstance(one, int | float | list) for one in things):
        raise ApiError(
            400, "input has numbers, such as token ids of some tokenizer: send the text itself", param="input"
        )
    if not all(isinstance(one, str | dict) for one in things):
        raise ApiError(400, "input is a text, an object, or a list of these", param="input")
    return [{"text": one} if isinstance(one, str) else one for one in things]


EmbeddingInputs = (
    Text | EmbeddingInput | Annotated[list[Text | EmbeddingInput], Field(min_length=1, max_length=INPUTS)]
)


class EmbeddingsRequest(Strict):
    """Texts, or things in several modalities, to be made vectors. ``user`` is not used."""

    input: Annotated[
        list[EmbeddingInput],
        Field(min_length=1, max_length=INPUTS),
        BeforeValidator(_several, json_schema_input_type=EmbeddingInputs),
    ]
    model: str = Field("harmonia", min_length=1, max_length=300)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1)
    user: str | None = None
