"""Media files by digest: the file, with ranges, and its preview."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import Response

from harmonia.collection.forget import PREVIEWS
from harmonia.modalities import MODALITIES, Limits
from harmonia.modalities.limits import replacing
from harmonia.server.errors import ApiError, not_found
from harmonia.server.file_response import FILE_RESPONSES, MediaResponse
from harmonia.server.formats import HEAD, kind_of
from harmonia.server.keys import Key
from harmonia.server.service import Service, ServiceDep, key_of
from harmonia.store import digest_file
from harmonia.types import HarmoniaError, Part

router = APIRouter(prefix="/v1/memory/media", tags=["memory"])

Digest = Annotated[str, InPath(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file, in hexadecimal")]
SIZES = (64, 128, 256, 512, 1024)
"""Sizes of previews in pixels; a requested size is rounded up."""
CACHED = "private, no-cache"
"""Browsers may cache media but revalidate, because a record may be forgotten."""
PICTURE = FILE_RESPONSES | {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.head("/{digest}", include_in_schema=False)
@router.get("/{digest}", response_class=Response, responses=FILE_RESPONSES)
async def media(digest: Digest, request: Request, service: ServiceDep) -> Response:
    """Read the media file of a record; supports Range, If-Range and If-None-Match."""
    part, path = await service.work(lambda: _find_media(service, digest, key_of(request)))
    etag = f'"{digest}"'
    if _knows(request, etag):
        return Response(status_code=304, headers={"ETag": etag, "Cache-Control": CACHED})
    kind = await service.work(lambda: kind_of(_head(path), path.name))
    mime = kind.mime if kind else "application/octet-stream"
    if part.modality == "audio":
        mime = mime.replace("video/", "audio/")
    return MediaResponse(
        path,
        media_type=mime,
        filename=digest[:16] + (kind.suffix if kind else ""),
        content_disposition_type="inline" if kind else "attachment",
        headers={"ETag": etag, "Cache-Control": CACHED},
    )


@router.get("/{digest}/preview", response_class=Response, responses=PICTURE)
async def preview(
    digest: Digest, request: Request, service: ServiceDep, size: Annotated[int, Query(ge=16, le=1024)] = 256
) -> Response:
    """A preview as PNG: the scaled image, the waveform of audio, or frames of a video."""
    pixels = next(value for value in SIZES if value >= size)
    part, path = await service.work(lambda: _find_media(service, digest, key_of(request)))
    etag = f'"{digest}-{pixels}"'
    if _knows(request, etag):
        return Response(status_code=304, headers={"ETag": etag, "Cache-Control": CACHED})
    target = service.settings.memory / PREVIEWS / f"{digest}-{pixels}.png"
    if not target.is_file():
        await service.work(lambda: _draw(part.modality, path, target, pixels, service.settings.limits))
    return MediaResponse(target, media_type="image/png", headers={"ETag": etag, "Cache-Control": CACHED})


def _knows(request: Request, etag: str) -> bool:
    """Whether the client has this version; proxies that compress make a tag weak (RFC 9110 13.1.2)."""
    known = [value.strip() for value in request.headers.get("if-none-match", "").split(",")]
    return known == ["*"] or etag in (value.removeprefix("W/") for value in known)


def _find_media(service: Service, digest: str, key: Key) -> tuple[Part, Path]:
    """A part with this digest that the caller may see, and its file; ApiError 404 if there is none."""
    store = service.collection.store if service.collection.exists else None
    records = [record for record in store.holding(digest) if key.sees(record)] if store else []
    parts = [part for record in records for part in record.parts if part.digest == digest and part.path]
    # an image's caption has the digest of the image: prefer the part that is not text
    for part in sorted(parts, key=lambda part: part.modality == "text"):
        if path := _file(service.settings.memory, part):
            return part, path
    raise not_found("file", digest)


def _file(root: Path, part: Part) -> Path | None:
    """The path of a part's file, or None if it is missing or has changed."""
    path = Path(part.path or "")
    if not path.is_absolute():
        path = (root / path).resolve()
        return path if path.is_relative_to(root.resolve()) and path.is_file() else None
    try:
        stat = path.stat()
        same = path.is_file() and _digest(path, stat.st_size, stat.st_mtime_ns) == part.digest
    except (OSError, HarmoniaError):
        return None
    return path if same else None


@lru_cache(10_000)
def _digest(path: Path, size: int, mtime_ns: int) -> str:
    """The digest of a file outside of the memory, cached by size and modification time."""
    return digest_file(path)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:
        raise ApiError(404, "the file is missing", code="file_not_found") from None


def _draw(modality: str, path: Path, target: Path, pixels: int, limits: Limits) -> None:
    if modality == "text":
        raise ApiError(400, "text has no preview: use the text of the part", code="no_preview")
    module = MODALITIES[modality]
    # the first window is enough
    signal = next(iter(module.windows(path, limits=limits)))
    picture = module.preview(signal, pixels)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as draft:
        picture.save(draft)
