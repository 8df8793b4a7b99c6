"""Fetches URLs, guarded against server-side request forgery (SSRF).

A host name is resolved once: all of its addresses must be public, and the connection goes to a checked
address, so that DNS rebinding has no effect. The same holds for each redirect.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urljoin

import httpcore

from harmonia.server.errors import ApiError

MAX_REDIRECTS = 4
SECONDS = 20.0
"""Most redirects, and the time limit of the whole fetch in seconds."""
TYPES = ("image/", "audio/", "video/", "text/plain", "application/octet-stream", "binary/octet-stream")
"""Accepted content types; the bytes are type-checked later."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Whether an address is public: not private, loopback, link-local, reserved or multicast.

    An IPv6 address that embeds an IPv4 address is judged by the latter.
    """
    inner: Address | None = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


async def fetch(
    url: str,
    param: str,
    *,
    max_bytes: int,
    seconds: float = SECONDS,
    allowed: Callable[[Address], bool] = is_public,
) -> bytes:
    """Fetch at most ``max_bytes`` bytes from ``url``; ApiError 400 if it is refused or fails.

    ``param`` names the field of the request; ``allowed`` decides to which addresses to connect.
    """
    try:
        async with (
            asyncio.timeout(seconds),
            httpcore.AsyncConnectionPool(
                network_backend=_GuardedBackend(allowed, param), keepalive_expiry=0
            ) as pool,
        ):
            for _ in range(MAX_REDIRECTS + 1):
                answer = await _get(pool, url, param, max_bytes)
                if isinstance(answer, bytes):
                    return answer
                url = urljoin(url, answer)
    except TimeoutError:
        raise _refused(param, "timed out") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
        raise _refused(param, "connection failed") from None
    raise _refused(param, "too many redirects")


async def _get(pool: httpcore.AsyncConnectionPool, url: str, param: str, max_bytes: int) -> bytes | str:
    """The body of the response, or the target of its redirect."""
    headers = [("Accept", "image/*, */*;q=0.5"), ("Accept-Encoding", "identity"), ("User-Agent", "harmonia")]
    async with pool.stream("GET", _url(url, param), headers=headers) as response:
        headers_received = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in response.headers}
        if response.status in (301, 302, 303, 307, 308) and "location" in headers_received:
            return headers_received["location"]
        if response.status != 200:
            raise _refused(param, f"status {response.status}")
        if not headers_received.get("content-type", TYPES[-1]).lower().startswith(TYPES):
            raise _refused(param, "not an image, audio or video")
        if headers_received.get("content-encoding", "identity") != "identity":
            raise _refused(param, "compressed responses are not accepted")
        return await _body(response, param, max_bytes)


async def _body(response: httpcore.Response, param: str, max_bytes: int) -> bytes:
    content = bytearray()
    async for block in response.aiter_stream():
        content += block
        if len(content) > max_bytes:
            raise ApiError(
                400, f"{param} is over the limit of {max_bytes:,} bytes", code="too_large", param=param
            )
    return bytes(content)


def _url(url: str, param: str) -> httpcore.URL:
    try:
        parsed = httpcore.URL(url.encode("ascii"))
        known = parsed.scheme in (b"http", b"https") and bool(parsed.host) and b"@" not in url.encode("ascii")
    except (ValueError, UnicodeError, KeyError):
        known = False
    if not known or any(ord(c) <= 32 for c in url):
        raise _refused(param, "not a valid http:// or https:// URL")
    return parsed


def _refused(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param} cannot be fetched: {why}", code="cannot_fetch", param=param)


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects to allowed addresses only; the only place where names are resolved."""

    def __init__(self, allowed: Callable[[Address], bool], param: str) -> None:
        self.allowed, self.param, self.inner = allowed, param, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        address = await self._address(host, port)
        return await self.inner.connect_tcp(address, port, timeout, local_address, socket_options)

    async def _address(self, host: str, port: int) -> str:
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(
                host.strip("[]"), port, type=socket.SOCK_STREAM
            )
            addresses = [ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos]
        except (OSError, ValueError, UnicodeError) as error:
            raise httpcore.ConnectError(str(error)) from error
        if not addresses or not all(self.allowed(info) for info in addresses):
            raise ApiError(
                400, f"{self.param} is on a private network, which is not allowed: send the file itself",
                code="private_address", param=self.param,
            )  # fmt: skip
        return str(addresses[0])
