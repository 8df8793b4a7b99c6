"""Requests that mean harm by what they say: JSON, metadata, conditions, markup, headers, addresses."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar
from urllib.parse import quote

import httpx
import pytest

from tests.hostile import Json, bearer, refused, state

HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>"
SQL = ("x' OR 1=1 --", "x'); DROP TABLE records; --", "\\' OR 1=1", "$$", "x` OR `", "/* ' */", "%", "\0")


def test_json_that_is_none_or_too_much(client: httpx.Client, ids: Json) -> None:
    deep, digits = "[" * 5000 + "]" * 5000, "9" * 5000
    nested = '{"a":' * 900 + "1" + "}" * 900
    paths = ("/v1/memory/recall", "/v1/embeddings", "/v1/chat/completions", "/v1/responses",
             "/v1/memory/imagine",
             f"/v1/vector_stores/{ids['store_id']}/search", "/v1/vector_stores",
             "/v1/memory/jobs")  # fmt: skip
    for path in paths:
        for body in (
            "", "null", "[]", "{", "NaN", "1e999", deep, nested, digits, '{"cues":' + deep + "}", '"\\ud800"',
            f'{{"cues":[{{"text":"a","weight":{digits}}}]}}', '{"cues":[{"text":"a","weight":NaN}]}',
            '{"cues":[{"text":"a","trust":Infinity}]}', '{"cues":[{"text":"a"}],"k":1e3000}',
            '{"cues":[{"text":"a"}],"beta":1e-999}', f'{{"model":"harmonia","input":{deep}}}',
            '{"model":"harmonia","input":"a","dimensions":' + digits + "}",
            '{"query":"a","max_num_results":1e99}',
            '{"model":"harmonia","messages":' + deep + "}", '{"query":"a","filters":' + nested + "}",
            '{"model":"harmonia","messages":[{"role":"user","content":"a"}],"seed":' + digits + "}",
            '{"name":"a","metadata":' + nested + "}", b"\xff\xfe{}", b'{"cues":[{"text":"\xff"}]}', b"\0",
            b"\xef\xbb\xbf{}",
        ):  # fmt: skip
            if isinstance(body, str):
                body = body.encode()
            answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
            nothing_asked = path == "/v1/responses" and body == b"\xef\xbb\xbf{}"
            refused(answer) if path != "/v1/vector_stores" and not nothing_asked else None
            assert answer.status_code < 500, (path, body[:80])
    twice = '{"cues":[{"text":"milk"}],"k":1,"k":2,"cues":[{"text":"dentist"}]}'
    answer = client.post("/v1/memory/recall", content=twice, headers={"Content-Type": "application/json"})
    assert len(answer.json()["records"]) == 2  # as in every reader of JSON, the last counts


def test_metadata_that_cannot_be_kept(client: httpx.Client, ids: Json) -> None:
    path, headers = f"/v1/memory/records/{ids['record_id']}", {"Content-Type": "application/json"}
    nested = '{"a":' * 200 + "1" + "}" * 200
    for said, taken in (
        ('{"a":NaN}', False), ('{"a":-Infinity}', False), ('{"a":1e999}', False), ('{"\\ud800":1}', False),
        ('{"a":"\\udfff"}', False), ('{"":1}', False), ('{"' + "k" * 201 + '":1}', False),
        ('{"a":"' + "x" * 70_000 + '"}', False), (json.dumps({str(i): i for i in range(65)}), False),
        (nested, True), ('{"a":' + "9" * 400 + "}", True), ('{"a":"\\u0000\\u202e"}', True),
        ('{"a":1,"a":2}', True),
        ('{"__proto__":{"x":1},"constructor":1}', True), ('{"id":"x","metadata":"y","_rowid":3}', True),
    ):  # fmt: skip
        answer = client.patch(path, content='{"metadata":' + said + "}", headers=headers)
        assert answer.is_success is taken, (said[:60], answer.text[:200])
        if not taken:
            refused(answer, 400)
    assert client.get(path).json()["metadata"]["a"] == 2
    assert client.get(path).json()["id"] == ids["record_id"]


def test_no_condition_is_more_than_one(client: httpx.Client, url: str, keys: dict[str, str]) -> None:
    """Conditions see no places, call nothing that makes much of little, and change nothing."""
    before = state(client)
    with httpx.Client(base_url=url, headers=bearer(keys["read"]), timeout=20) as reader:
        for where in (
            "path LIKE '%a%'", "`path` != ''", '"folder" != \'\'', "PATH IS NOT NULL", "metadata LIKE '%/%'",
            "tag = 'x' OR /* ' */ path LIKE '%a%' /* ' */", "tag = 'x' OR -- '\n path LIKE '%a%'\n-- '",
            "tag = \"'\" OR path LIKE \"%a%\" OR tag = \"'\"", "tag = '\\'' OR path LIKE '%a%' OR tag = ''",
            "tag = E'\\'' OR path LIKE '%a%' OR tag = ''", "tag = $$'$$ OR path LIKE '%a%' OR tag = $$'$$",
            "`a'` IS NULL OR path LIKE '%a%' OR `a'` IS NULL", "length(repeat(tag, 50000000)) > 0",
            "array_length(range(0, 1000000000)) > 0", "\"repeat\"(tag, 9) = ''", "repeat /**/ (tag, 9) = ''",
            "1=1; DROP TABLE records", "id IN (SELECT id FROM records)", "true) OR (tru", "(" * 1500,
            "NOT " * 900,
            "1/0 = 1", "CAST('x' AS INT) = 1", "tag = 'a\0b' AND", "tag LIKE", "'", '"', "`", "\\", "\ud7ff",
            "",
        ):  # fmt: skip
            for answer in (
                reader.get("/v1/memory/records", params={"where": where}),
                reader.post("/v1/memory/recall", json={"cues": [{"text": "milk"}], "where": where}),
            ):
                assert not answer.is_success or not where, (where, answer.text[:200])
                assert answer.is_success or refused(answer, 400, 403)
        for good in (
            "tag = 'the path; -- /* $$'",
            "lower(tag) = 'film' AND year IN (2022)",
            "NOT (year BETWEEN 1 AND 2)",
        ):
            assert reader.get("/v1/memory/records", params={"where": good}).status_code == 200, good
        for value in SQL:
            one = {"type": "eq", "key": "tag", "value": value}
            found = reader.get("/v1/memory/records", params={"filters": json.dumps(one)})
            assert found.json()["data"] == [], value
            found = reader.get("/v1/memory/records", params={"filters": json.dumps(one | {"key": value})})
            assert found.json()["data"] == [], value
            assert reader.get("/v1/memory/records", params={"after": value}).json()["data"] == [], value
    assert state(client) == before


def test_markup_stays_text(client: httpx.Client) -> None:
    """Markup in words, names and metadata comes back as it was, in JSON or plain text, never as a page."""
    page = f"<!DOCTYPE html><html><body>{HTML}".encode()
    svg = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'
    name = 'x"><svg onload=alert(1)>.html'
    made = client.post("/v1/memory/records", files={"files": (name, page, "text/html")},
                       data={"text": HTML,
                             "metadata": json.dumps({"title": HTML, HTML[:40]: 1})}).json()  # fmt: skip
    drawn = client.post("/v1/memory/records", files={"files": ("a.svg", svg, "image/svg+xml")}).json()
    file = client.post("/v1/files", files={"file": ("a\"\r\nX-Evil: 1\r\n.html", page, "text/html")},
                       data={"purpose": "user_data"}).json()  # fmt: skip
    assert made["metadata"]["title"] == HTML and "\n" not in file["filename"]
    said = {"model": "harmonia", "messages": [{"role": "user", "content": HTML}]}
    answers = [
        client.get(f"/v1/memory/records/{made['id']}"),
        client.post("/v1/memory/recall", json={"cues": [{"text": HTML, "name": HTML}], "explain": True}),
        client.post("/v1/chat/completions", json=said), client.get("/v1/memory/status"),
        client.get("/metrics"),
        client.get(f"/v1/memory/records/{quote(HTML, safe='')}"), client.get(f"/{quote(HTML)}"),
        client.get("/v1/memory/records", params={"where": HTML}),
        client.get(f"/v1/files/{file['id']}/content"),
        *(client.get(part["media"]) for one in (made, drawn) for part in one["parts"] if part["media"]),
    ]  # fmt: skip
    assert HTML in json.loads(answers[0].text)["metadata"].values() and len(answers) > 9
    for answer in answers:
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in ("application/json", "text/plain"), (answer.url, kind)
        assert answer.headers["x-content-type-options"] == "nosniff" and "x-evil" not in answer.headers
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    stream = client.post("/v1/chat/completions", json=said | {"stream": True})
    assert stream.headers["content-type"].startswith("text/event-stream")


def test_headers_carry_nothing_else(client: httpx.Client, ids: Json) -> None:
    media = f"/v1/memory/media/{ids['digest']}"
    for value in ("bytes=abc", "bytes=99999999-", "bytes=5-1", "bytes=-0", "items=0-1",
                  "bytes=" + "0-1," * 3000,
                  "bytes=" + "9" * 400 + "-", "bytes=--1", "\xff"):  # fmt: skip
        answer = client.get(media, headers={"Range": value.encode("latin-1")})
        assert answer.status_code in (200, 206) or refused(answer, 400, 416), value
    for name in ("If-None-Match", "If-Range", "Last-Event-ID", "Cookie", "X-Forwarded-For",
                 "X-Forwarded-Host",
                 "X-HTTP-Method-Override", "Accept", "Accept-Encoding", "Content-Encoding"):  # fmt: skip
        for value in (b"\xff\xfe", b"*", b'"' * 99, b"DELETE", b"gzip", b"9" * 4000):
            assert client.get(media, headers={name: value}).status_code in (200, 206, 304)
            assert client.get("/v1/models", headers={name: value}).status_code == 200
    for path in ("/v1/files", "/v1/memory/records", "/v1/vector_stores"):
        for query in (
            "limit=-1",
            "limit=9" + "9" * 5000,
            "limit=NaN",
            "order=x%0d%0aX-Evil:1",
        ):
            answer = client.get(f"{path}?{query}")
            assert "x-evil" not in answer.headers
            refused(answer, 400)
        for cursor in ("%00", "%ff", "x%0d%0aX-Evil:1"):  # unknown: nothing comes after it
            answer = client.get(f"{path}?after={cursor}")
            assert answer.json()["data"] == [] and "x-evil" not in answer.headers, (path, cursor)
    assert refused(client.get("/v1/memory/records/x%0d%0aX-Evil:%201"), 404)
    assert refused(client.request("TRACE", "/v1/models"), 405) and refused(
        client.request("X" * 99, "/v1/models"), 405
    )


class Inside(BaseHTTPRequestHandler):
    """A service of this machine that nobody else should reach."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_the_server_reaches_nothing_inside(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = HTTPServer(("127.0.0.1", 0), Inside)
    threading.Thread(target=inside.serve_forever, daemon=True).start()
    port, real = inside.server_port, socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        names = {"evil.test": "127.0.0.1", "inside.test": "10.0.0.1", "mapped.test": "::ffff:127.0.0.1"}
        host = host.decode() if isinstance(host, bytes) else host
        return real(names.get(host, host), port, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    hosts = (
        "127.0.0.1", "localhost", "LOCALHOST", "127.1", "2130706433", "0x7f000001", "0x7f.0.0.1",
        "0177.0.0.1", "0",
        "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]", "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "[fe80::1]",
        "[fd00::1]",
        "100.64.0.1", "evil.test", "inside.test", "mapped.test", "evil.test.", "127.0.0.1.", "①②⑦.0.0.1",
        "user@127.0.0.1", "8.8.8.8@127.0.0.1", "127.0.0.1#8.8.8.8", "127.0.0.1%00.example",
        "localhost\\@8.8.8.8",
    )  # fmt: skip
    for number, host in enumerate(hosts):
        address = f"http://{host}:{port}/admin"
        image: Json = {"type": "image_url", "image_url": {"url": address}}
        said: Json = {"model": "harmonia", "messages": [{"role": "user", "content": [image]}]}
        path = "/v1/chat/completions"
        if number % 3 == 1:
            path, part = "/v1/responses", {"type": "input_image", "image_url": address}
            said = {"model": "harmonia", "input": [{"role": "user", "content": [part]}]}
        begin = time.monotonic()
        error = refused(client.post(path, json=said), 400)
        assert error["code"] in ("private_address", "cannot_fetch", "invalid_value", None), (host, error)
        assert time.monotonic() - begin < 5, host
    for address in (
        "file:///etc/passwd",
        "ftp://8.8.8.8/x",
        "gopher://127.0.0.1",
        "javascript:alert(1)",
        "//127.0.0.1",
    ):
        said = {"model": "harmonia", "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": address}}]}]}  # fmt: skip
        refused(client.post("/v1/chat/completions", json=said), 400)
    inside.shutdown()
    assert Inside.asked == []
