"""File responses, whole or in ranges."""

from __future__ import annotations

from typing import Any

from fastapi.responses import FileResponse
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable

from harmonia.server.errors import ApiError

_BINARY = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", **_BINARY},
    206: {"description": "A range of it, or several as multipart/byteranges", **_BINARY},
    304: {"description": "The client has it already"},
}
"""The OpenAPI responses of a route that sends a file."""


class MediaResponse(FileResponse):
    """A FileResponse whose range errors have the error body of the API."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            raise ApiError(400, "invalid Range header: send bytes=FIRST-LAST") from None
        except RangeNotSatisfiable:
            raise ApiError(
                416, f"range not satisfiable: the file has {file_size:,} bytes",
                headers={"Content-Range": f"bytes */{file_size}"},
            ) from None  # fmt: skip
