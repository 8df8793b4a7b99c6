"""Fetching an address that a client names: never from a private network, never too much, never for ever."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import pytest

from harmonia.server.errors import ApiError
from harmonia.server.settings import Settings
from harmonia.server.url_fetch import Address, fetch, is_public
from tests.serving import memory_of, serve

PICTURE = b"\x89PNG\r\n\x1a\n" + b"x" * 100


class Site(BaseHTTPRequestHandler):
    """A site with pictures, and with what a site that means harm would have."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, f"_{self.path.strip('/')}")()

    def _give(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _picture(self) -> None:
        self._give(PICTURE, Content_Type="image/png")

    def _page(self) -> None:
        self._give(b"<html>", Content_Type="text/html")

    def _zipped(self) -> None:
        self._give(gzip.compress(b"x" * 10**6), Content_Type="image/png", Content_Encoding="gzip")

    def _large(self) -> None:
        self._give(b"x" * 10_000, Content_Type="image/png")

    def _moved(self) -> None:
        self._give(b"", 302, Location="/picture")

    def _loop(self) -> None:
        self._give(b"", 302, Location="/loop")

    def _inside(self) -> None:
        self._give(b"", 307, Location=f"http://127.0.0.2:{self.server.server_port}/picture")  # type: ignore[attr-defined]

    def _file(self) -> None:
        self._give(b"", 301, Location="file:///etc/passwd")

    def _gone(self) -> None:
        self._give(b"", 404)

    def _slow(self) -> None:
        self._give(b"", Content_Type="image/png", Content_Length="1000")
        for _ in range(600):
            self.wfile.write(b"x")
            time.sleep(0.1)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def here(address: Address) -> bool:
    """Only the site of this test counts as public."""
    return str(address) == "127.0.0.1"


def get(url: str, most: int = 1000, seconds: float = 5.0, **more: Any) -> bytes:
    return asyncio.run(fetch(url, "image_url", max_bytes=most, seconds=seconds, **more))


def test_a_picture_is_fetched_and_redirects_are_followed(site: str) -> None:
    assert get(f"{site}/picture", allowed=here) == PICTURE
    assert get(f"{site}/moved", allowed=here) == PICTURE


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
     "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fc00::1",
     "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
)  # fmt: skip
def test_no_private_address_is_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:127.0.0.1]", "0"],
)
def test_loopback_by_any_name_is_refused(site: str, host: str) -> None:
    before = len(Site.asked)
    with pytest.raises(ApiError) as refused:
        get(f"http://{host}:{site.rpartition(':')[2]}/picture")
    assert refused.value.code in ("private_address", "cannot_fetch") and refused.value.param == "image_url"
    assert len(Site.asked) == before


def test_a_redirect_to_a_private_address_is_refused(site: str) -> None:
    before = len(Site.asked)
    with pytest.raises(ApiError, match="private network"):
        get(f"{site}/inside", allowed=here)
    assert Site.asked[before:] == ["/inside"]


def test_a_name_is_resolved_once(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that answers first with an allowed address, and then with another, leads to the first."""
    asked: list[Any] = []
    real = socket.getaddrinfo

    def rebinding(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if host != "rebinding.test":
            return real(host, port, *args, **more)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "127.0.0.2", port, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert get(f"http://rebinding.test:{site.rpartition(':')[2]}/picture", allowed=here) == PICTURE
    assert asked == ["rebinding.test"]


def test_one_private_address_among_several_is_too_many(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 80)) for host in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: one)
    with pytest.raises(ApiError, match="private network"):
        get("http://both.test/picture", allowed=here)


@pytest.mark.parametrize(
    ("path", "why"),
    [("page", "not an image, audio or video"), ("zipped", "compressed"), ("large", "over the limit"),
     ("loop", "too many redirects"), ("file", "http://"), ("gone", "404"), ("slow", "timed out")],
)  # fmt: skip
def test_what_a_site_may_not_send(site: str, path: str, why: str) -> None:
    start = time.monotonic()
    with pytest.raises(ApiError, match=why) as refused:
        get(f"{site}/{path}", seconds=1.0, allowed=here)
    assert refused.value.status == 400 and time.monotonic() - start < 30


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a.test/x", "gopher://a.test", "http://", "//a.test", "http://a@b.test/",
            "http://a.test/\r\nHost: b", "http://ü.test/", "http://a.test:99999/", "http://a.test:x/", "http://[::1"]
)  # fmt: skip
def test_other_schemes_and_broken_addresses_are_refused(url: str) -> None:
    with pytest.raises(ApiError) as refused:
        get(url)
    assert refused.value.status == 400


def test_the_server_fetches_only_where_told_and_never_from_itself(
    site: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    memory = memory_of(tmp_path_factory.mktemp("fetching"))
    part = {"type": "image_url", "image_url": {"url": f"{site}/picture"}}
    body = {"model": "harmonia", "messages": [{"role": "user", "content": [part]}]}
    for allowed, code in ((False, "fetch_disabled"), (True, "private_address")):
        before = len(Site.asked)
        with serve(Settings(memory, fetch=allowed)) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
        assert len(Site.asked) == before
