"""Clients that mean harm: keys, paths and the wire. They are refused, soon, and leave no trace."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx

from tests.hostile import PATIENCE, SECRET, Json, bearer, raw, refused, state

# --- who may call -------------------------------------------------------------------------------


def operations(client: httpx.Client, ids: Json) -> Iterator[tuple[str, str]]:
    """Every method and path of the OpenAPI document, with ids in place."""
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"{(\w+)}", lambda found: str(ids[found[1]]), path)


def test_nothing_answers_without_a_key(url: str, client: httpx.Client, ids: Json) -> None:
    every = [*operations(client, ids), ("GET", "/openapi.json"), ("GET", "/nothing"),
             ("OPTIONS", "/v1/files"),
             ("HEAD", f"/v1/memory/media/{ids['digest']}"), ("GET", "/docs"), ("GET", "/redoc")]  # fmt: skip
    assert len(every) > 55
    before = state(client)
    wrong = ({}, bearer("hm-wrong"), bearer("hm-"), {"Authorization": "Bearer"},
             {"Authorization": "Basic aTph"},
             {"Authorization": "Bearer \xff\xfe"})  # fmt: skip
    with httpx.Client(base_url=url, timeout=20) as stranger:
        for number, (method, path) in enumerate(every):
            for headers in ({}, wrong[number % len(wrong)]):
                answer = stranger.request(
                    method, path, headers={k: v.encode("latin-1") for k, v in headers.items()}
                )
                if path in ("/health", "/ready"):
                    assert answer.status_code == 200
                    continue
                assert answer.status_code == 401, (method, path)
                if method != "HEAD":
                    assert refused(answer, 401)["type"] == "authentication_error"
        for more, status in (
            ("", 401),
            ("Sec-WebSocket-Protocol: openai-insecure-api-key.hm-x\r\n", 401),
            ("Origin: http://evil.example\r\n", 403),
        ):
            shake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            shake += f"Sec-WebSocket-Key: {'A' * 22}==\r\n{more}"
            answer, _ = raw(url, f"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\n{shake}\r\n".encode())
            assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer
        assert stranger.get("/").status_code == stranger.get("/page/style.css").status_code == 200
    assert state(client) == before


def test_nothing_changes_with_a_key_that_reads(
    url: str, client: httpx.Client, ids: Json, keys: dict[str, str]
) -> None:
    bodies: dict[str, Json] = {
        "/v1/files": {"files": {"file": ("b.txt", b"b")}, "data": {"purpose": "user_data"}},
        "/v1/memory/records": {"files": {"files": ("b.txt", b"b")}},
        "/v1/memory/jobs": {"json": {"files": [ids["file_id"]]}},
        "/v1/memory/recall": {"json": {"cues": [{"text": "milk"}]}},
        "/v1/chat/completions": {
            "json": {"model": "harmonia", "messages": [{"role": "user", "content": "milk"}]}
        },
    }
    some: Json = {
        "json": {"name": "x", "metadata": {"a": "b"}, "attributes": {"a": "b"}, "file_id": ids["file_id"]}
    }
    before, statuses = state(client), set()
    with httpx.Client(base_url=url, headers=bearer(keys["read"]), timeout=20) as reader:
        for method, path in operations(client, ids):
            if path.endswith("/events"):
                continue
            answer = reader.request(method, path, **({} if method == "GET" else bodies.get(path, some)))
            statuses.add((method, answer.status_code))
        for path in ("/v1/vector_stores/search", f"/v1/vector_stores/{ids['store_id']}/files/search"):
            assert refused(reader.post(path, json={"name": "x"}), 403)["code"] == "insufficient_scope"
        assert refused(reader.delete("/v1/memory/records/search"), 403)
    assert {("PATCH", 403), ("POST", 403), ("DELETE", 403), ("GET", 200), ("POST", 200)} <= statuses
    assert state(client) == before


def test_names_and_origins_that_are_no_names(url: str, keys: dict[str, str]) -> None:
    key = f"Authorization: Bearer {keys['read']}\r\nConnection: close\r\n"
    for line in ("Host: [::1", "Host: localhost@evil.example", "Host: localhost, evil.example", "Host: ",
                 "Host: localhost\r\nOrigin: http://[::1", "Host: localhost\r\nOrigin: ://",
                 "Host: localhost\r\nOrigin: localhost"):  # fmt: skip
        answer, _ = raw(url, f"GET /v1/models HTTP/1.1\r\n{line}\r\n{key}\r\n".encode())
        assert answer.split()[1] in (b"400", b"403", b"421"), line


# --- paths --------------------------------------------------------------------------------------


def test_no_path_leads_outside(url: str, client: httpx.Client, folder: Path, keys: dict[str, str]) -> None:
    ups = (
        "../" * 9,
        "..%2f" * 9,
        "%2e%2e/" * 9,
        "..%5c" * 9,
        "..%252f" * 9,
        "/",
        "%2f",
        "....//" * 9,
        "~root/",
    )
    places = (
        "/page/",
        "/v1/memory/media/",
        "/v1/files/",
        "/v1/models/",
        "/v1/memory/records/",
        "/v1/memory/jobs/",
    )
    targets = ("etc/passwd", f"{quote(str(folder)[1:])}/keys.json", "app.py", "index.html%00.js", "x" * 300)
    line = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    for place in places:
        for up in ups:
            for target in targets:
                line.request("GET", place + up + target, headers=bearer(keys["admin"]))
                answer = line.getresponse()
                found = answer.read()
                assert 300 <= answer.status < 500, (place, up, target, answer.status)
                assert b"root:" not in found and b"sha256" not in found and b"import" not in found
    line.close()
    for ending in ("content", "../jobs"):
        refused(client.get(f"/v1/files/..%2f..%2f..%2fkeys/{ending}"))


def test_files_by_path_stay_within_the_roots(client: httpx.Client, folder: Path) -> None:
    root, outside = folder / "root", str(folder / "secret.txt")
    for path in (outside, "../secret.txt", f"{root}/../secret.txt", f"{root}/link.txt",
                 f"{root}/up/secret.txt",
                 f"{root}/loop", f"{root}/pipe.txt", f"{root}/a\0.txt", "\0", "~/x", "~nobody/x", "/dev/zero",
                 "/proc/self/environ", "file:///etc/passwd", f"{root}/{'x' * 3000}", f"{root}/\udcff",
                 str(root),
                 "C:\\x", f"{root}/\n"):  # fmt: skip
        body = json.dumps({"path": path}).encode()
        headers = {"Content-Type": "application/json"}
        said = refused(client.post("/v1/memory/records", content=body, headers=headers))["message"]
        assert SECRET not in said and str(folder) not in said, said
        if path not in (f"{root}/pipe.txt", str(root), f"{root}/{'x' * 3000}", f"{root}/\n"):
            body = json.dumps({"paths": [path]}).encode()
            refused(client.post("/v1/memory/jobs", content=body, headers=headers))


def test_a_folder_of_traps_is_remembered_without_them(client: httpx.Client, folder: Path) -> None:
    """A pipe does not hold up a job, links lead nowhere, and a manifest names nothing that lies outside."""
    job = client.post("/v1/memory/jobs", json={"paths": [str(folder / "root")]}).json()
    until = time.monotonic() + 60
    while (job := client.get(f"/v1/memory/jobs/{job['id']}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, job
        time.sleep(0.02)
    assert job["state"] == "completed", job
    assert str(folder) not in json.dumps(job)
    for record in client.get("/v1/memory/records?limit=1000").json()["data"]:
        assert SECRET not in json.dumps(record["parts"])
    found = client.post("/v1/memory/recall", json={"cues": [{"text": SECRET}], "k": 3}).text
    assert SECRET not in found


# --- what is on the wire ------------------------------------------------------------------------


def test_many_slow_clients_hold_up_nobody(url: str, client: httpx.Client, keys: dict[str, str]) -> None:
    """Half of a request from each of 40 clients: others are answered meanwhile, and they are let go."""
    head = f"POST /v1/memory/recall HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {keys['read']}\r\n"
    begun = (
        "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: b", head + "Content-Length: 90\r\n\r\n{",
        head + "Content-Type: multipart/form-data; boundary=x\r\n"
        "Transfer-Encoding: chunked\r\n\r\n5\r\n--x\r\n\r\n",
        "", head + "Transfer-Encoding: chunked\r\n\r\nffffffff\r\n{",
    )  # fmt: skip
    ended: list[float] = []

    def dawdle(number: int) -> None:
        start = time.monotonic()
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60) as line:
            line.sendall(begun[number % len(begun)].encode())
            try:
                for _ in range(900):
                    time.sleep(0.1)
                    line.sendall(b"x" if number % 5 != 2 else b"1\r\nx\r\n")
            except OSError:
                ended.append(time.monotonic() - start)

    several = [threading.Thread(target=dawdle, args=(number,)) for number in range(40)]
    for one in several:
        one.start()
    begin = time.monotonic()
    for _ in range(3):
        assert client.post("/v1/memory/recall", json={"cues": [{"text": "milk"}]}).status_code == 200
    assert time.monotonic() - begin < 30, "one after the other they take 40 * PATIENCE"
    for one in several:
        one.join(120)
    assert len(ended) == 40 and max(ended) < PATIENCE + 30


def test_requests_are_not_smuggled(url: str, keys: dict[str, str]) -> None:
    head = f"Host: localhost\r\nAuthorization: Bearer {keys['read']}\r\nContent-Type: application/json\r\n"
    post, inner = f"POST /v1/memory/recall HTTP/1.1\r\n{head}", f"GET /health HTTP/1.1\r\n{head}\r\n"
    for name, request in {
        "both lengths": post + f"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
        "both, the other way": post
        + f"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{inner}",
        "two lengths": post + f"Content-Length: 0\r\nContent-Length: 5\r\n\r\n{inner}",
        "a list of lengths": post + f"Content-Length: 0, 5\r\n\r\n{inner}",
        "a length with a sign": post + f"Content-Length: +0\r\n\r\n{inner}",
        "another coding": post + f"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}",
        "two codings": post
        + f"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{inner}",
        "a space before the colon": post + f"Content-Length : 5\r\n\r\n{inner}",
        "a chunk without a size": post + f"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n0\r\n\r\n{inner}",
        "a line feed in a header": post + f"X: a\rContent-Length: 5\r\n\r\n{inner}",
        "a null in a header": post + f"X: a\0b\r\nContent-Length: 0\r\n\r\n{inner}",
        "two hosts": f"GET /health HTTP/1.1\r\nHost: evil.example\r\n{head}\r\n{inner}",
        "no host": f"GET /health HTTP/1.1\r\n\r\n{inner}",
        "a space in the path": f"GET /health x HTTP/1.1\r\n{head}\r\n{inner}",
    }.items():
        answer, _ = raw(url, request.encode())
        assert answer.startswith(b"HTTP/1.1 400 ") and b'{"error"' in answer, (name, answer[:200])
        assert answer.count(b"HTTP/1.1 ") == 1, name
    # more than was declared is a request of its own, which has to have a key
    answer, _ = raw(url, (post + "Content-Length: 2\r\n\r\n{}GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
                          "Connection: close\r\n\r\n").encode())  # fmt: skip
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"400", b"401"]


def test_bodies_that_are_too_large_or_not_what_they_say(
    url: str, client: httpx.Client, keys: dict[str, str]
) -> None:
    forms, field = (
        {"Content-Type": "multipart/form-data; boundary=x"},
        b"--x\r\nContent-Disposition: form-data",
    )
    for path in (
        "/v1/memory/records",
        "/v1/memory/recall",
        "/v1/files",
        "/v1/images/edits",
        "/v1/audio/translations",
    ):
        for headers in (forms, {"Content-Type": "application/json"}):
            assert (
                refused(client.post(path, content=bytes(2**20 + 1), headers=headers), 413)["code"]
                == "too_large"
            )
        pieces = (b"--x\r\n" if n == 0 else b"A" * 65536 for n in range(20))
        assert refused(client.post(path, content=pieces, headers=forms), 400, 413)
        if path.startswith("/v1/audio/"):
            continue  # it reads no fields: any body within the limit gets 501
        for body in (b"", b"--x--", b"--x\r\n\r\n", b"--y\r\n\r\n\r\n--y--", b"\0" * 99,
                     b"--x\r\n" + b"A: b\r\n" * 999,
                     field + b"\r\n\r\na\r\n--x--\r\n",
                     field + b"; name=\"\xff\"; filename*=utf-9''%ff\r\n\r\na\r\n--x--\r\n",
                     field + b'; name="request"\r\n\r\n\xff\xfe\r\n--x--\r\n'):  # fmt: skip
            refused(client.post(path, content=body, headers=forms))
        refused(client.post(path, content=b"x", headers={"Content-Type": "multipart/form-data"}))
        many = "".join(
            f'--x\r\nContent-Disposition: form-data; name="a{i}"\r\n\r\nb\r\n' for i in range(2000)
        )
        refused(client.post(path, content=many + "--x--\r\n", headers=forms))
    # who promises more than comes, and goes
    head = f"POST /v1/memory/recall HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {keys['read']}\r\n"
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)) as line:
        line.sendall((head + "Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{").encode())
    assert client.get("/ready").status_code == 200
