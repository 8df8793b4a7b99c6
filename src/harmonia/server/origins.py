"""Host names and origins as HTTP compares them: without case, with default ports (RFC 9110 4.2, RFC 6454)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from harmonia.types import HarmoniaError

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\\\s,]+)(?::([0-9]{0,5}))?")
_HEADER_NAMES = re.compile(r"[A-Za-z0-9-]+(\s*,\s*[A-Za-z0-9-]+)*")
PORTS = {"http": 80, "https": 443}
"""The default ports of the schemes."""
EXPOSED = (
    "x-request-id, retry-after, openai-processing-ms, x-ratelimit-limit-requests, "
    "x-ratelimit-remaining-requests, x-ratelimit-reset-requests, content-range, accept-ranges, etag"
)
"""Response headers that pages of named origins may read."""


def authority(text: str, port: int = 80) -> tuple[str, int] | None:
    """The normalized host and the port of ``host[:port]``; None if it is invalid. ``port`` is the default."""
    found = _AUTHORITY.fullmatch(text.strip())
    if found is None or int(found[2] or port) > 65535:
        return None
    name = host_name(found[1])
    return (name, int(found[2] or port)) if name else None


def host_name(name: str) -> str:
    """A host name in lower case, without final dot; an IPv6 address in short form, in brackets."""
    name = name.strip().lower()
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name[:-1] if name.endswith(".") else name
    return f"[{address}]" if address.version == 6 else str(address)


def origin_of(text: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an Origin; None for ``null`` and everything else without a host."""
    scheme, mark, rest = text.strip().partition("://")
    scheme = scheme.lower()
    place = authority(rest, PORTS.get(scheme, 0)) if mark else None
    return (scheme, *place) if place and place[1] else None


def named_origins(texts: Iterable[str]) -> frozenset[tuple[str, str, int]]:
    """The origins of ``--cors``; HarmoniaError for a wildcard, ``null`` or a URL with a path."""
    found = set()
    for text in texts:
        origin = origin_of(text)
        if origin is None or "*" in text or origin[0] not in PORTS:
            raise HarmoniaError(f"--cors {text} is not an origin: give one such as https://photos.example")
        found.add(origin)
    return frozenset(found)


def same_origin(origin: str, host: str) -> bool:
    """Whether an Origin is that of the requested host; the scheme may be that of a proxy."""
    found = origin_of(origin)
    return found is not None and found[1:] == authority(host, PORTS.get(found[0], 80))


def opens_page(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser opens a top-level page, as after a click on a link (Fetch Metadata)."""
    return (
        method in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
        and "origin" not in headers
    )


def cors_headers(origin: str) -> list[tuple[bytes, bytes]]:
    """Response headers for a page of a named origin, which may send its key and read the answer."""
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-allow-credentials", b"true"),
        (b"access-control-expose-headers", EXPOSED.encode()),
        (b"cross-origin-resource-policy", b"cross-origin"),
    ]


def preflight_headers(headers: Mapping[str, str], methods: Iterable[str]) -> dict[str, str]:
    """What a preflight of a named origin is answered."""
    answer = {
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Max-Age": "600",
        "Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
    }
    wanted = headers.get("access-control-request-headers", "")
    if _HEADER_NAMES.fullmatch(wanted.strip()):
        answer["Access-Control-Allow-Headers"] = wanted.strip()
    if headers.get("access-control-request-private-network") == "true":
        answer["Access-Control-Allow-Private-Network"] = "true"
    return answer
