"""What HTTP says: hosts, origins, methods, ranges, request ids; and what no request may hold up."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonia.server.app import create_app
from harmonia.server.bodies import MAX_DEPTH, MAX_ELEMENTS, InFlight, JsonSize
from harmonia.server.errors import ApiError
from harmonia.server.file_response import MediaResponse
from harmonia.server.formats import decode_base64
from harmonia.server.keys import new_key
from harmonia.server.launcher import JsonFormatter
from harmonia.server.origins import authority, origin_of, same_origin
from harmonia.server.rates import Rates
from harmonia.server.settings import Settings
from harmonia.types import HarmoniaError
from tests.serving import memory_of, serve

NAMED = "https://photos.example"
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = memory_of(tmp_path_factory.mktemp("http"))
    settings = Settings(folder, names=("Photos.Local",), cors=(NAMED,), json=20_000_000)
    with serve(settings) as found:
        yield found


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as found:
        yield found


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Photos.Local", ("photos.local", 80)), ("photos.local.", ("photos.local", 80)),
        ("LOCALHOST:8765", ("localhost", 8765)), ("localhost:", ("localhost", 80)),
        ("[::1]:9", ("[::1]", 9)), ("[0:0:0:0:0:0:0:1]", ("[::1]", 80)),
        ("[2001:DB8::A]", ("[2001:db8::a]", 80)),
        ("127.0.0.1:65535", ("127.0.0.1", 65535)), ("localhost:65536", None), ("a b", None), ("", None),
        ("user@localhost", None), ("localhost/x", None), ("localhost:x", None), ("::1", None), ("[::1", None),
        ("localhost:80:80", None), ("a,b", None),
    ],
)  # fmt: skip
def test_hosts_are_compared_as_http_does(text: str, place: tuple[str, int] | None) -> None:
    assert authority(text) == place


@given(st.text(max_size=30))
def test_any_text_is_a_host_or_none(text: str) -> None:
    place = authority(text)
    assert place is None or (place[0] == place[0].lower() and 0 <= place[1] <= 65535)
    origin_of(text)


def test_hosts_over_the_wire(client: httpx.Client, url: str) -> None:
    port = urlsplit(url).port
    for host in (
        "photos.local",
        "PHOTOS.LOCAL.",
        f"LocalHost:{port}",
        f"[::1]:{port}",
        "[0:0::1]",
        "127.0.0.1:1",
    ):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 200, host
    for host in ("photos.local.evil.example", "evil.example", "localhost@evil.example", "[::2]", "127.0.0.2"):
        assert client.get("/v1/models", headers={"Host": host}).status_code == 421, host


def test_origins_have_default_ports_and_no_case() -> None:
    for origin, host in (
        ("http://A.example", "a.example:80"), ("https://a.example", "a.example"),
        ("https://a.example", "A.example:443"),
        ("http://[::1]:8765", "[::1]:8765"), ("HTTP://localhost:1", "LOCALHOST:1"),
    ):  # fmt: skip
        assert same_origin(origin, host), origin
    for origin, host in (
        ("null", "null"), ("http://a.example", "a.example:8080"), ("https://a.example:80", "a.example:443"),
        ("http://a.example.evil", "a.example"), ("a.example", "a.example"),
    ):  # fmt: skip
        assert not same_origin(origin, host), origin


def test_a_link_opens_the_page_and_nothing_else(client: httpx.Client) -> None:
    for site in ("cross-site", "same-site"):
        answer = client.get("/", headers=LINK | {"Sec-Fetch-Site": site})
        assert answer.status_code == 200 and answer.text.startswith("<!doctype html")
    for changed in (
        {"Sec-Fetch-Mode": "no-cors"}, {"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Dest": "image"},
        {"Origin": "https://evil.example"},
    ):  # fmt: skip
        assert client.get("/", headers=LINK | changed).status_code == 403
    assert client.post("/", headers=LINK).status_code == 403
    for path in ("/v1/memory/records", "/v1/models", "/metrics", "/health"):
        assert client.get(path, headers=LINK).status_code == 403


def test_named_origins_may_use_the_api(client: httpx.Client, tmp_path: Path) -> None:
    asked = {"Origin": NAMED, "Sec-Fetch-Site": "cross-site"}
    answer = client.get("/v1/models", headers=asked)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == NAMED
    assert (
        "Origin" in answer.headers["vary"]
        and "x-request-id" in answer.headers["access-control-expose-headers"]
    )
    assert client.get("/v1/nothing", headers=asked).headers["access-control-allow-origin"] == NAMED
    preflight = asked | {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type",
    }  # fmt: skip
    answer = client.options("/v1/memory/records", headers=preflight)
    assert answer.status_code == 204 and "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization, content-type"
    for other in (
        "https://photos.example:444",
        "http://photos.example",
        "https://photos.example.evil",
        "null",
    ):
        answer = client.options("/v1/memory/records", headers=preflight | {"Origin": other})
        assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers
    for wrong in (
        "*",
        "null",
        "photos.example",
        "https://photos.example/path",
        "https://*.example",
        "file://x",
    ):
        with pytest.raises(HarmoniaError, match="--cors"):
            Settings(tmp_path, cors=(wrong,))


def test_a_preflight_needs_no_key_and_the_request_does(tmp_path: Path) -> None:
    secret = new_key(tmp_path / "keys.json", "page", "read")
    settings = Settings(tmp_path / "none", keys=tmp_path / "keys.json", cors=(NAMED,))
    with serve(settings) as url, httpx.Client(base_url=url, headers={"Origin": NAMED}) as client:
        assert (
            client.options("/v1/models", headers={"Access-Control-Request-Method": "GET"}).status_code == 204
        )
        refused = client.get("/v1/models")
        assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == NAMED
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_methods_over_all_routes(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for template, operations in document["paths"].items():
        path = template.replace("{", "").replace("}", "")
        allowed = {method.upper() for method in operations}
        told = client.options(path)
        assert told.status_code == 204, path
        methods = set(told.headers["allow"].split(", "))
        assert allowed <= methods and ("HEAD" in methods) is ("GET" in methods), (path, methods)
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} - methods:
            answer = client.request(method, path)
            assert answer.status_code == 405 and set(answer.headers["allow"].split(", ")) == methods, (
                method,
                path,
            )
        if "get" in operations:
            got, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (got.status_code, b""), path
            assert head.headers.get("content-type") == got.headers.get("content-type"), path
            if template not in ("/metrics", "/v1/memory/status"):  # they change between two requests
                assert head.headers.get("content-length") == got.headers.get("content-length"), path
    for path in ("/", "/page/main.js", "/openapi.json"):
        got, head = client.get(path), client.head(path)
        assert head.status_code == 200 and head.headers["content-length"] == str(len(got.content))
        assert client.put(path).headers["allow"] == "GET, HEAD, OPTIONS", path
    assert client.options("/nothing").status_code == 404


def ranges_by_rfc(text: str, size: int) -> set[int] | None:
    """The wanted bytes; None if the header is ignored. Written byte by byte, unlike the server."""
    wanted: set[int] = set()
    for spec in text.split(","):
        first, _, last = spec.partition("-")
        if not first:
            wanted |= set(range(size)[-int(last) :]) if int(last) else set()
        elif last and int(last) < int(first):
            return None
        else:
            wanted |= {at for at in range(size) if int(first) <= at and (not last or at <= int(last))}
    return wanted


SPEC = st.one_of(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    st.integers(0, 40).map(lambda first: f"{first}-"),
    st.integers(0, 40).map(lambda last: f"-{last}"),
)


@given(st.lists(SPEC, min_size=1, max_size=5).map(",".join), st.integers(0, 30))
def test_ranges_are_those_of_the_rfc(text: str, size: int) -> None:
    wanted = ranges_by_rfc(text, size)
    try:
        found = MediaResponse._parse_range_header(f"bytes={text}", size)
    except ApiError as error:
        assert error.status == 416 and wanted == set()
        return
    assert {at for first, end in found for at in range(first, end)} == (wanted or set())
    assert bool(found) is bool(wanted) and found == sorted(found)


def test_ranges_over_the_wire(client: httpx.Client) -> None:
    records = client.get("/v1/memory/records", params={"where": "tag = 'photo'"}).json()["data"]
    path = next(part["media"] for part in records[0]["parts"] if part["media"])
    whole = client.get(path)
    data, size, etag = whole.content, len(whole.content), whole.headers["etag"]
    for text in ("items=0-1", "bytes=", "bytes=x-y", "bytes=5-2", "bytes", "seconds=1-2", "bytes=0-1;2", ""):
        answer = client.get(path, headers={"Range": text})
        assert answer.status_code == 200 and answer.content == data, text
    for text, part in (("bytes=0-0", data[:1]), ("BYTES=-5", data[-5:]),
                       (f"bytes={size - 2}-{size * 9}", data[-2:]),
                       (f"bytes=1-3, {size + 5}-", data[1:4]), ("bytes=0-3,2-6", data[:7])):  # fmt: skip
        answer = client.get(path, headers={"Range": text})
        assert answer.status_code == 206 and answer.content == part, text
    several = client.get(path, headers={"Range": "bytes=0-1,-2"})
    assert several.headers["content-type"].startswith("multipart/byteranges")
    for text in (f"bytes={size}-", "bytes=-0", f"bytes={size}-{size + 3},{size + 9}-"):
        answer = client.get(path, headers={"Range": text})
        assert answer.status_code == 416 and answer.headers["content-range"] == f"bytes */{size}", text
    for known in ("*", etag, f"W/{etag}", f'"other", W/{etag}'):
        assert client.get(path, headers={"If-None-Match": known}).status_code == 304, known
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    for page in ("/", "/page/main.js"):
        for text in ("items=0-1", "bytes=x", "bytes=5-2"):
            answer = client.get(page, headers={"Range": text})
            assert answer.status_code == 200 and answer.content == client.get(page).content, (page, text)
        assert client.get(page, headers={"Range": "bytes=0-3"}).status_code == 206
        assert client.get(page, headers={"Range": "bytes=99999999-"}).json()["error"]["message"]
    for condition, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200)):
        answer = client.get(path, headers={"Range": "bytes=0-1", "If-Range": condition})
        assert answer.status_code == status, condition
    head = client.head(path, headers={"Range": "bytes=0-9"})
    assert head.status_code == 206 and head.headers["content-length"] == "10" and head.content == b""
    assert client.get(path, headers={"If-None-Match": etag}).status_code == 304


def test_every_answer_has_a_request_id(client: httpx.Client, url: str) -> None:
    for method, path in (("GET", "/health"), ("GET", "/nothing"), ("PUT", "/health"), ("GET", "/"),
                         ("POST", "/v1/memory/recall"), ("HEAD", "/ready"),
                         ("OPTIONS", "/ready")):  # fmt: skip
        answer = client.request(method, path)
        assert answer.headers["x-request-id"].startswith("req_"), path
        assert (
            client.request(method, path, headers={"X-Request-Id": "my-1"}).headers["x-request-id"] == "my-1"
        )
    assert client.get("/health", headers={"Host": "evil.example"}).headers["x-request-id"]
    for malformed in ("a b", "x" * 129, '"', "-a", "a;b"):
        assert client.get("/health", headers={"X-Request-Id": malformed}).headers["x-request-id"] != malformed
    asked = {"messages": [{"role": "user", "content": "milk"}], "stream": True, "model": "harmonia"}
    streamed = client.post("/v1/chat/completions", json=asked, headers={"X-Request-Id": "stream-1"})
    assert streamed.headers["x-request-id"] == "stream-1" and streamed.text.endswith("data: [DONE]\n\n")


JSON = st.recursive(
    st.one_of(st.text(alphabet='ab\\"{[,]}é', max_size=6), st.integers(0, 9), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text('a"\\,', max_size=3), inner, max_size=3)
    ),
    max_leaves=20,
)  # fmt: skip


def size_of(value: object) -> tuple[int, int]:
    """The elements (an empty list counts as one) and levels of a value."""
    inner = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else None
    if inner is None:
        return 0, 0
    sizes = [size_of(one) for one in inner]
    return max(1, len(inner)) + sum(n for n, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)


@given(JSON, st.integers(1, 5), st.booleans())
def test_the_size_of_json_is_counted_piece_by_piece(value: object, step: int, ascii_only: bool) -> None:
    text, counted, deepest = json.dumps(value, ensure_ascii=ascii_only).encode(), JsonSize(), 0
    for begin in range(0, len(text), step):
        counted.add(text[begin : begin + step])
        deepest = max(deepest, counted.depth)
    assert counted.depth == 0 and counted.elements == size_of(value)[0]
    if step == 1:
        assert deepest == size_of(value)[1]


def test_large_json_is_refused_and_others_are_answered_meanwhile(client: httpx.Client, url: str) -> None:
    worst, stop = [0.0], threading.Event()

    def ping() -> None:
        with httpx.Client(base_url=url, timeout=60) as other:
            while not stop.is_set():
                begin = time.perf_counter()
                other.get("/health")
                worst[0] = max(worst[0], time.perf_counter() - begin)
                time.sleep(0.01)

    bodies = {
        "messages": b'{"messages":[' + b'{"role":"user","content":[]},' * 400_000 + b"{}]}",
        "commas": b'{"cues":[' + b"0," * (2 * MAX_ELEMENTS) + b"0]}",
        "empty": b'{"cues":[' + b"[]" * (2 * MAX_ELEMENTS) + b"]}",
        "long": b'{"cues":[{"text":"' + b"x" * 21_000_000 + b'"}]}',
    }  # fmt: skip
    thread = threading.Thread(target=ping)
    thread.start()
    try:
        for name, body in bodies.items():
            for path in ("/v1/chat/completions", "/v1/memory/recall", "/v1/embeddings"):
                answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
                assert answer.status_code == 413 and answer.json()["error"]["code"] == "too_large", (
                    name,
                    path,
                )
        deep = b'{"cues":' + b"[" * 10 * MAX_DEPTH + b"]" * 10 * MAX_DEPTH + b"}"
        answer = client.post("/v1/memory/recall", content=deep, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400 and "nested" in answer.json()["error"]["message"]
        form = {"request": (None, '{"cues":[' + "[]," * 150_000 + "[]]}")}
        assert client.post("/v1/memory/recall", files=form).status_code == 413
        most = {"model": "harmonia", "input": ["a", *[[]] * (MAX_ELEMENTS // 2 - 10)]}
        assert client.post("/v1/embeddings", json=most).status_code == 400
    finally:
        stop.set()
        thread.join()
    assert worst[0] < 0.5


def test_bodies_in_flight_share_a_bound(tmp_path: Path) -> None:
    bound = InFlight(100)
    bound.add(60)
    with pytest.raises(ApiError, match="503"):
        bound.add(41)
    bound.add(40)
    with serve(Settings(tmp_path / "none", in_flight=1_000_000)) as url, httpx.Client(base_url=url) as client:
        where, big = (urlsplit(url).hostname, urlsplit(url).port), {"cues": [{"text": "b" * 600_000}]}
        begun = (
            b"POST /v1/memory/records HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 2000000\r\n\r\n"
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + b"a" * 900_000
        )
        until = time.monotonic() + 60
        while True:
            with socket.create_connection(where) as held:
                held.sendall(begun)
                time.sleep(0.2)  # if the server takes the other body first, it refuses this one
                answer = client.post("/v1/memory/recall", json=big)
                if answer.status_code == 503:
                    assert int(answer.headers["retry-after"]) >= 1
                    assert client.get("/v1/models").status_code == 200
                    break
            assert time.monotonic() < until, answer.text
        until = time.monotonic() + 20
        while client.post("/v1/memory/recall", json=big).status_code == 503:
            assert time.monotonic() < until, "what a client that left had sent still counts"
            time.sleep(0.1)


@given(st.lists(st.floats(0, 3), max_size=60), st.floats(0.1, 50), st.integers(1, 20))
def test_a_rate_lets_through_what_its_name_says(waits: list[float], rate: float, burst: int) -> None:
    now = [0.0]
    rates, passed = Rates(rate, burst, lambda: now[0]), 0
    for wait in waits:
        now[0] += wait
        try:
            headers = rates.take("one")
        except ApiError as error:
            assert error.status == 429 and int((error.headers or {})["Retry-After"]) >= 1
            continue
        passed += 1
        assert 0 <= int(headers["x-ratelimit-remaining-requests"]) < burst
        assert headers["x-ratelimit-limit-requests"] == str(burst)
    assert passed <= burst + rate * now[0] + 1e-6


@given(st.floats(0.5, 20), st.integers(1, 10), st.floats(0.01, 0.2))
def test_who_keeps_asking_is_answered_as_often_as_the_rate_says(rate: float, burst: int, wait: float) -> None:
    now, passed = [0.0], 0
    rates = Rates(rate, burst, lambda: now[0])
    for _ in range(200):
        with contextlib.suppress(ApiError):
            rates.take("one")
            passed += 1
        now[0] += wait
    # an ask every `wait` seconds: a token is taken at the first ask after it is there
    assert passed >= min(200, rate * 199 * wait / (1 + rate * wait))


def test_a_data_url_without_end_keeps_nobody_waiting() -> None:
    for head in ("data:" + "a" * (8 << 20), "data:image/png" + ";a=b" * (2 << 20), "data:" * (2 << 20)):
        begun = time.perf_counter()
        with pytest.raises(ApiError) as told:
            decode_base64(head, "image")
        assert told.value.status == 400 and time.perf_counter() - begun < 0.5
    assert decode_base64("data:image/png;charset=utf-8;base64,aGk=", "image") == b"hi"


def test_wrong_keys_are_limited_and_lock_nobody_out(tmp_path: Path) -> None:
    secret = new_key(tmp_path / "keys.json", "phone", "read")
    settings = Settings(tmp_path / "none", keys=tmp_path / "keys.json")
    with serve(settings) as url, httpx.Client(base_url=url) as client:
        tried = [client.get("/v1/models", headers={"Authorization": f"Bearer hm-{n}"}) for n in range(90)]
        assert tried[0].status_code == 401 and tried[-1].status_code == 429
        assert int(tried[-1].headers["retry-after"]) >= 1
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_the_work_for_a_client_that_leaves_ends_and_is_one_line(tmp_path: Path) -> None:
    app = create_app(Settings(memory_of(tmp_path)))
    began, ended = threading.Event(), threading.Event()

    @app.post("/long")
    async def long(body: dict[str, int]) -> None:
        began.set()
        try:
            await asyncio.sleep(120)
        finally:
            ended.set()

    app.router.routes.insert(0, app.router.routes.pop())
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    names = ("harmonia.server", "uvicorn", "asyncio")
    with serve(app) as url:
        for name in names:
            logging.getLogger(name).addHandler(handler)
        where = (urlsplit(url).hostname, urlsplit(url).port)
        with socket.create_connection(where) as line:
            line.sendall(
                b"POST /long HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
            )
            assert began.wait(30)
        assert ended.wait(30), "nobody waits for this answer, but it is still worked on"
        body = json.dumps({"model": "harmonia", "stream": True, "n": 8,
                           "messages": [{"role": "user", "content": "milk"}]}).encode()  # fmt: skip
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        for number in range(20):
            with socket.create_connection(where) as line:
                line.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                if number % 2:
                    line.recv(20)
        with socket.create_connection(where) as line:  # leaves in the middle of its body
            line.sendall(head + b"Content-Length: 500\r\n\r\n{")
            time.sleep(0.2)
        until = time.monotonic() + 30
        while stream.getvalue().count("\n") < 22 and time.monotonic() < until:
            time.sleep(0.05)
        assert httpx.get(url + "/health").status_code == 200
        for name in names:
            logging.getLogger(name).removeHandler(handler)
    lines = [json.loads(one) for one in stream.getvalue().splitlines()]
    assert {one["event"] for one in lines} == {"request"}
    asked = [one for one in lines if one["route"] != "/health"]
    assert len(asked) == 22
    assert (asked[0]["route"], asked[0]["status"], asked[0]["left"]) == ("/long", 499, True)
    assert asked[-1]["status"] == 499 and len({one["request"] for one in asked}) == 22
