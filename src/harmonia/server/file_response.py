"""File responses, whole or in ranges."""

from __future__ import annotations

import re
from typing import Any

from fastapi.responses import FileResponse

from harmonia.server.errors import ApiError

_RANGE = re.compile(r"([0-9]{0,18})-([0-9]{0,18})")
_BINARY = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", **_BINARY},
    206: {"description": "A range of it, or several as multipart/byteranges", **_BINARY},
    304: {"description": "The client has it already"},
}
"""The OpenAPI responses of a route that sends a file."""


class MediaResponse(FileResponse):
    """A FileResponse that reads ranges as RFC 9110 does, with the error body of the API."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        """Half-open ranges, in order and merged; none: send the whole file.

        A header with another unit, or that is no list of ranges, is ignored. Of several ranges those
        that can be satisfied are sent (RFC 9110 14.2).
        """
        unit, _, text = http_range.partition("=")
        specs = [spec.strip() for spec in text.split(",") if spec.strip()]
        if unit.strip().lower() != "bytes" or not 0 < len(specs) <= cls.max_ranges:
            return []
        found = []
        for spec in specs:
            numbers = _RANGE.fullmatch(spec)
            if numbers is None or not (numbers[1] or numbers[2]):
                return []
            first, last = (int(number) if number else None for number in numbers.groups())
            if first is None:
                first, last = max(0, file_size - (last or 0)), file_size - 1
            elif last is not None and last < first:
                return []
            end = file_size if last is None else min(last + 1, file_size)
            if first < end:
                found.append((first, end))
        if not found:
            raise ApiError(
                416, f"range not satisfiable: the file has {file_size:,} bytes",
                headers={"Content-Range": f"bytes */{file_size}"},
            )  # fmt: skip
        merged: list[tuple[int, int]] = []
        for first, end in sorted(found):
            if merged and first <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end, merged[-1][1])
            else:
                merged.append((first, end))
        return merged
