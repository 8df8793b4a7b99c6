"""Request bodies of the vector store endpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from harmonia.server.schemas.base import Strict
from harmonia.server.schemas.filters import Filter
from harmonia.server.schemas.memory import Words

Name = Annotated[str, Field(max_length=256)]
FileId = Annotated[str, Field(min_length=1, max_length=100)]
Metadata = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]
Attributes = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=64)],
        bool | int | Annotated[float, Field(allow_inf_nan=False)] | Annotated[str, Field(max_length=512)],
    ],
    Field(max_length=16),
]
Chunking = Annotated[
    dict[str, Any] | None, Field(description="ignored: the memory splits media into its own windows")
]
BATCH = 2000
"""Most files of one batch."""


class ExpiresAfter(Strict):
    """When a vector store expires: days after it was last searched or given a file."""

    anchor: Literal["last_active_at"]
    days: int = Field(ge=1, le=365)


class CreateStoreRequest(Strict):
    """The body that creates a vector store."""

    name: Name | None = None
    description: Name | None = None
    metadata: Metadata | None = None
    file_ids: list[FileId] = Field(default=[], max_length=BATCH)
    chunking_strategy: Chunking = None
    expires_after: ExpiresAfter | None = None


class UpdateStoreRequest(Strict):
    """The changed fields of a vector store; null keeps them."""

    name: Name | None = None
    metadata: Metadata | None = None
    expires_after: ExpiresAfter | None = None


class AttachFileRequest(Strict):
    """The body that attaches a file."""

    file_id: FileId
    attributes: Attributes | None = None
    chunking_strategy: Chunking = None


class UpdateFileRequest(Strict):
    """The new attributes of a file, which replace the old ones."""

    attributes: Attributes | None


class FileBatchRequest(Strict):
    """The body that attaches several files: by id with shared attributes, or each with its own."""

    file_ids: list[FileId] | None = Field(None, min_length=1, max_length=BATCH)
    files: list[AttachFileRequest] | None = Field(None, min_length=1, max_length=BATCH)
    attributes: Attributes | None = None
    chunking_strategy: Chunking = None

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.file_ids is None) == (self.files is None):
            raise ValueError("give either file_ids or files")
        return self

    @property
    def attached(self) -> dict[str, dict[str, Any]]:
        """The attributes of each file, by its id."""
        if self.files is not None:
            return {one.file_id: dict(one.attributes or {}) for one in self.files}
        return {one: dict(self.attributes or {}) for one in self.file_ids or ()}


class Ranking(Strict):
    """The ranking options of a search. ``ranker`` is ignored."""

    ranker: Annotated[str, Field(max_length=64)] | None = None
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0


class SearchRequest(Strict):
    """The body of a search: one query, or several that are combined. ``rewrite_query`` is ignored."""

    query: Annotated[
        list[Words],
        Field(min_length=1, max_length=16),
        BeforeValidator(
            lambda given: [given] if isinstance(given, str) else given,
            json_schema_input_type=Words | list[Words],
        ),
    ]
    filters: Filter | None = None
    max_num_results: int = Field(10, ge=1, le=50)
    ranking_options: Ranking | None = None
    rewrite_query: bool | None = None


StoreFileStatus = Literal["in_progress", "completed", "failed", "cancelled"]
