"""Request bodies of the native endpoints: cues, records, jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from harmonia.collection.cues import RecallOptions
from harmonia.server.schemas.base import Seed, Strict
from harmonia.server.schemas.filters import Filter
from harmonia.store.protocol import Where

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$", description="the id of a record")]
Words = Annotated[str, Field(min_length=1, max_length=20_000)]
Media = Annotated[
    str, Field(min_length=1, description="base64, a data URL, or cid:NAME for a file of the same form")
]


class CueIn(Strict):
    """One cue: text, media, or a record to find similar ones; of it one ``part`` (counted from 0), or all.

    ``weight`` is its weight (negative: counts against); ``trust`` is its strength kappa, null for clamped;
    ``name`` identifies it in the answer.
    """

    text: Words | None = None
    image: Media | None = None
    audio: Media | None = None
    video: Media | None = None
    record: Id | None = None
    part: int | None = Field(None, ge=0, lt=2**31)
    name: str | None = Field(None, min_length=1, max_length=100)
    weight: float = Field(1.0, ge=-100, le=100)
    trust: float | None = Field(None, ge=0, le=1e6)

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [
            kind for kind in ("text", "image", "audio", "video", "record") if getattr(self, kind) is not None
        ]
        if len(given) != 1:
            raise ValueError("a cue must have exactly one of text, image, audio, video and record")
        if self.part is not None and self.record is None:
            raise ValueError("only a cue with a record has a part")
        return self

    @property
    def kind(self) -> str:
        """The name of the one field that is set."""
        return next(k for k in ("text", "image", "audio", "video", "record") if getattr(self, k) is not None)


class Cues(Strict):
    """Cues and recall options; ``weights`` maps the name or kind of a cue to its weight."""

    cues: list[CueIn] = Field(min_length=1, max_length=16)
    against: list[Words] = Field(default=[], max_length=16, description="texts that count against a record")
    not_like: list[Id] = Field(
        default=[], max_length=16, description="records that count against similar ones"
    )
    weights: dict[str, float] = Field(default={}, max_length=64)
    leave_out_cues: bool = Field(False, description="leave out the records of the cue files")
    where: str | None = Field(None, max_length=4000, description="Filter on the metadata")
    filters: Filter | None = None
    alpha: float = Field(1.0, ge=1, le=4)
    beta: float | None = Field(None, gt=0, le=1e6)
    noise: float | None = Field(None, ge=0, le=1e3)

    def options(self, where: Where | None) -> RecallOptions:
        """The recall options, with the combined filter."""
        return RecallOptions(where=where, alpha=self.alpha, beta=self.beta, noise=self.noise)


class SettleRequest(Cues):
    """Cues, with at most ``steps`` retrieval steps."""

    steps: int = Field(8, ge=0, le=64)

    def options(self, where: Where | None) -> RecallOptions:
        """The recall options, with the number of steps."""
        return replace(super().options(where), steps=self.steps)


class RecallRequest(SettleRequest):
    """The body of a recall."""

    k: int = Field(10, ge=1, le=1000)
    explain: bool = False

    def options(self, where: Where | None) -> RecallOptions:
        """The recall options, with the number of records."""
        return replace(super().options(where), k=self.k)


class RetrieveRequest(Cues):
    """The body of a plain nearest-neighbour search."""

    k: int = Field(10, ge=1, le=1000)
    metric: Literal["cosine", "euclidean"] = "cosine"


class ImagineRequest(Cues):
    """The body of an imagine request."""

    to: Literal["image"] = "image"
    n: int = Field(1, ge=1, le=10)
    seed: Seed = 0
    guidance: float | None = Field(
        None, ge=0, le=50, description="guidance scale; null for the generator's default"
    )
    steps: int | None = Field(
        None, ge=1, le=250, description="sampling steps; null for the sampler's default"
    )
    from_memory: bool | None = Field(
        True,
        description="condition on the recalled record (true), on the cues (false), or on either (null)",
    )


class RecordByPath(Strict):
    """A file on the server's machine, within the allowed folders."""

    path: str = Field(min_length=1, max_length=4096)
    text: Words | None = None
    metadata: dict[str, Any] = Field(default={})


class UpdateRecordRequest(Strict):
    """Changed metadata of a record, key by key; null clears a key."""

    metadata: dict[str, Any]


class JobRequest(Strict):
    """The body of a job: paths on the server's machine, or ids of uploaded files."""

    paths: list[Annotated[str, Field(min_length=1, max_length=4096)]] = Field(default=[], max_length=1000)
    files: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(default=[], max_length=1000)
    copy_: bool = Field(False, alias="copy", description="keep copies of the media inside the memory")
    exclude: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(
        default=[],
        max_length=100,
        description="patterns, as in gitignore, of files and folders to leave out of the folders in paths",
    )

    @model_validator(mode="after")
    def _any(self) -> Self:
        if bool(self.paths) == bool(self.files):
            raise ValueError("give either paths or files")
        if self.files and self.exclude:
            raise ValueError("exclude goes with paths: files are taken as they are")
        return self
