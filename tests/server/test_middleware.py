"""What stands before the routes: keys, hosts, origins, sizes, slow clients, rates, and the log."""

from __future__ import annotations

import hmac
import io
import json
import logging
import socket
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from fastapi.responses import StreamingResponse

from harmonia.cli import main
from harmonia.server import keys as keyring
from harmonia.server.app import create_app
from harmonia.server.keys import find_key, new_key, read_keys
from harmonia.server.launcher import JsonFormatter
from harmonia.server.settings import Settings
from harmonia.types import HarmoniaError
from tests.serving import memory_of, serve

ASK = {"cues": [{"text": "photo number 3"}], "k": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guard")


@pytest.fixture(scope="module")
def secrets(folder: Path) -> dict[str, str]:
    return {scope: new_key(folder / "keys.json", scope, scope) for scope in ("read", "write", "admin")}


@pytest.fixture(scope="module")
def url(folder: Path, secrets: dict[str, str]) -> Iterator[str]:
    """A server with keys that takes bodies of 30 MB, and two seconds to send them."""
    settings = Settings(memory_of(folder), keys=folder / "keys.json", upload=30_000_000, patience=2.0)
    with serve(settings) as found:
        yield found


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def error_of(answer: httpx.Response) -> dict[str, object]:
    assert set(answer.json()) == {"error"}
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    found: dict[str, object] = answer.json()["error"]
    return found


def test_a_file_of_keys_has_no_keys_in_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = new_key(file, "phone", "write")
    assert secret.startswith("hm-") and len(secret) > 40
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret not in file.read_text() and secret[3:] not in file.read_text()
    with pytest.raises(HarmoniaError, match="already"):
        new_key(file, "phone", "read")
    with pytest.raises(HarmoniaError, match="scope"):
        new_key(file, "other", "root")
    assert new_key(file, "tablet", "read") != secret
    held = read_keys(file)
    assert [key.name for key in held] == ["phone", "tablet"]
    found = find_key(held, secret)
    assert found and found.name == "phone" and found.may("read") and not found.may("admin")
    assert find_key(held, secret + "x") is None
    for text in ("", "{}", '{"keys": []}', '{"keys": [{"name": "a", "sha256": "b", "scope": "read"}]}'):
        file.write_text(text)
        with pytest.raises(HarmoniaError, match="--new-key"):
            read_keys(file)


def test_every_key_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.json"
    first, _ = new_key(file, "first", "read"), new_key(file, "second", "read")
    compared, real = [], hmac.compare_digest

    def compare(a: str, b: str) -> bool:
        compared.append((a, b))
        return real(a, b)

    monkeypatch.setattr(keyring.hmac, "compare_digest", compare)
    assert find_key(read_keys(file), first) is not None
    assert len(compared) == 2


def test_others_than_this_machine_need_keys(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(HarmoniaError, match="--keys"):
            Settings(tmp_path, host=host)
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        Settings(tmp_path, host=host)


def test_keys_and_scopes(url: str, secrets: dict[str, str]) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/health").json() == {"status": "ok"}
        for headers in ({}, bearer("hm-wrong"), {"Authorization": f"Basic {secrets['admin']}"}):
            answer = client.get("/v1/memory/records", headers=headers)
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert error_of(answer)["type"] == "authentication_error"
        assert client.get("/metrics").status_code == 401
        read, write, admin = (bearer(secrets[scope]) for scope in ("read", "write", "admin"))
        assert client.post("/v1/memory/recall", json=ASK, headers=read).status_code == 200
        for method, path in (
            ("POST", "/v1/memory/records"), ("DELETE", "/v1/memory/records/x"), ("POST", "/v1/memory/jobs"),
            ("PATCH", "/v1/memory/records/x"), ("DELETE", "/v1/memory/jobs/x"),
        ):  # fmt: skip
            answer = client.request(method, path, headers=read)
            assert answer.status_code == 403 and error_of(answer)["code"] == "insufficient_scope"
        assert client.delete("/v1/memory/records/x", headers=write).status_code == 404
        for headers, shown in ((read, False), (write, False), (admin, True)):
            record = client.post("/v1/memory/recall", json=ASK, headers=headers).json()["records"][0]
            assert ("path" in record["metadata"]) is shown
            where = {"where": "`path` LIKE '/%'"}
            assert client.post("/v1/memory/recall", json=ASK | where, headers=headers).is_success is shown
            listed = client.get("/v1/memory/records", params={"where": "metadata != ''"}, headers=headers)
            assert listed.is_success is shown
            by = {"filters": {"type": "ne", "key": "Folder", "value": "x"}}
            assert client.post("/v1/memory/recall", json=ASK | by, headers=headers).is_success is shown
        about = ASK | {"where": "tag = 'photo' OR tag = 'the path'"}
        assert client.post("/v1/memory/recall", json=about, headers=read).is_success


def test_other_names_and_other_sites(url: str, secrets: dict[str, str]) -> None:
    port = urlsplit(url).port
    with httpx.Client(base_url=url, headers=bearer(secrets["read"])) as client:
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", ""):
            answer = client.get("/health", headers={"Host": host})
            assert answer.status_code == 421 and error_of(answer)["code"] == "wrong_host"
        assert client.get("/health", headers={"Host": f"localhost:{port}"}).status_code == 200
        for headers in (
            {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
            {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
        ):  # fmt: skip
            answer = client.post("/v1/memory/recall", json=ASK, headers=headers)
            assert answer.status_code == 403 and error_of(answer)["code"] == "wrong_origin"
        own = {"Origin": url, "Sec-Fetch-Site": "same-origin"}
        answer = client.post("/v1/memory/recall", json=ASK, headers=own)
        assert answer.status_code == 200
        assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"


def test_large_bodies_are_refused_by_header_and_as_they_come(folder: Path) -> None:
    with serve(Settings(folder / "none", upload=100_000)) as url, httpx.Client(base_url=url) as client:
        answer = client.post("/v1/memory/recall", content=b" " * 100_001)
        assert answer.status_code == 413 and error_of(answer)["code"] == "too_large"
        for kind in ("application/json", "multipart/form-data; boundary=x"):
            # the beginning of a form, which is no reason to refuse it before it is too large
            form = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a.txt"\r\n\r\n'
            pieces = (part for part in (form, *[b" " * 4096] * 100))
            answer = client.post("/v1/memory/recall", content=pieces, headers={"Content-Type": kind})
            assert answer.status_code == 413, kind
            assert error_of(answer)["code"] == "too_large"
        for length in ("-1", "x", "1e9", "9" * 30):
            head = f"POST /v1/memory/recall HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n"
            assert raw(url, head.encode() + b"Connection: close\r\n\r\n")[0].startswith(b"HTTP/1.1 4")
        assert client.get("/v1/memory/status").json()["records"] == 0


def raw(url: str, *pieces: bytes, pause: float = 0.0, patience: float = 60.0) -> tuple[bytes, float]:
    """What comes back until the server closes, and after how long."""
    begin = time.monotonic()
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=patience) as line:
        try:
            for piece in pieces:
                line.sendall(piece)
                time.sleep(pause)
            found = b""
            while block := line.recv(65536):
                found += block
        except (ConnectionResetError, BrokenPipeError):
            found = b""
    return found, time.monotonic() - begin


def test_slow_clients_are_let_go(url: str, secrets: dict[str, str]) -> None:
    head = (
        f"POST /v1/memory/recall HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secrets['read']}\r\n"
    )
    for pieces in ((b"",), (b"GET / HT",), tuple(b"GET /health HTTP/1.1\r\nX"[i : i + 1] for i in range(20))):
        answer, took = raw(url, *pieces, pause=0.2)
        assert answer == b"" and took < 30
    slow = (head + "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{").encode()
    answer, took = raw(url, slow)
    assert answer.startswith(b"HTTP/1.1 408 ") and b'"code":"timeout"' in answer and took < 30
    answer, _ = raw(url, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 100_000)
    assert answer.startswith(b"HTTP/1.1 400 ") or answer == b""
    answer, _ = raw(url, b"nonsense\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ") and b'{"error"' in answer
    assert httpx.get(url + "/health").status_code == 200


def test_a_client_that_does_not_read_is_let_go(folder: Path) -> None:
    """An answer without end is more than the buffers of any machine take."""
    app, sent = create_app(Settings(folder / "none", patience=2.0)), [0]

    async def endless() -> AsyncIterator[bytes]:
        while True:
            sent[0] += 1
            yield b"x" * 2**20

    @app.get("/endless")
    async def answer() -> StreamingResponse:
        return StreamingResponse(endless())

    app.router.routes.insert(0, app.router.routes.pop())
    with serve(app) as url:
        with httpx.Client(base_url=url).stream("GET", "/endless") as reading:
            began = time.monotonic()
            for _ in reading.iter_raw():
                if time.monotonic() - began > 3:
                    break
            else:
                raise AssertionError("a client that reads was let go")
        with socket.socket() as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.settimeout(60)
            line.connect((urlsplit(url).hostname, urlsplit(url).port))
            line.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
            here, until = line.getsockname(), time.monotonic() + 60
            served = psutil.Process()  # the server is a thread of this process

            def held() -> bool:
                return any(one.raddr == here for one in served.net_connections("tcp"))

            while not held():
                assert time.monotonic() < until, "the server did not take the connection"
                time.sleep(0.02)
            while held():
                assert time.monotonic() < until, "the server still holds the connection"
                time.sleep(0.05)
            time.sleep(1)
            written = sent[0]
            time.sleep(0.5)
            assert 0 < written == sent[0], "the server still makes an answer for nobody"


def test_rates(folder: Path) -> None:
    settings = Settings(folder / "none", rate=1.0, burst=3)
    with serve(settings) as url, httpx.Client(base_url=url) as client:
        begin, taken = time.monotonic(), 0
        while (answer := client.get("/v1/memory/jobs")).status_code == 200:
            taken += 1
            assert taken <= 3 + (time.monotonic() - begin), "more than the burst and one a second"
        assert taken >= 3 and answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        assert error_of(answer)["type"] == "rate_limit_error"
        time.sleep(int(answer.headers["retry-after"]))
        assert client.get("/v1/memory/jobs").status_code == 200


def test_the_log_has_lines_of_json_and_no_content(folder: Path) -> None:
    app = create_app(Settings(memory_of(folder / "log")))

    @app.get("/crash/{what}")
    async def crash(what: str) -> None:
        raise ValueError(f"secret {what}")

    @app.get("/warn/{what}")
    async def warn(what: str) -> None:
        warnings.warn(f"secret {what}", UserWarning, stacklevel=1)
        logging.getLogger("some.package").warning("secret %s", what)

    # the page, where there is one, is mounted at / before the routes that were just added
    app.router.routes.insert(0, app.router.routes.pop())
    app.router.routes.insert(0, app.router.routes.pop())
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    with serve(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        for name in ("harmonia.server", "uvicorn", "py.warnings", "some.package"):
            logging.getLogger(name).addHandler(handler)
        client.post("/v1/memory/recall", json={"cues": [{"text": "secret words"}]})
        client.get("/v1/memory/records/secret", params={"q": "secret"})
        client.post("/v1/memory/recall", content=b"secret")
        answer = client.get("/crash/secret")
        assert answer.status_code == 500 and error_of(answer)["code"] == "internal_error"
        client.get("/warn/secret")
        for name in ("harmonia.server", "uvicorn", "py.warnings", "some.package"):
            logging.getLogger(name).removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert "secret" not in stream.getvalue() and str(folder) not in stream.getvalue()
    seen = [(one["route"], one["status"]) for one in lines if one["event"] == "request"]
    assert seen[:3] == [
        ("/v1/memory/recall", 200), ("/v1/memory/records/{record_id}", 404), ("/v1/memory/recall", 400),
    ]  # fmt: skip
    failed = next(one for one in lines if one["event"] == "failed")
    assert failed["error"][0]["kind"] == "ValueError" and "crash" in failed["error"][0]["at"][-1]
    here = Path(__file__).name
    others = [one["event"] for one in lines if one["level"] == "warning"]
    assert any(one.startswith("UserWarning at ") and here in one for one in others), others
    assert any(one.startswith("some.package at ") and here in one for one in others), others


def test_what_other_packages_say_is_no_bare_line(tmp_path: Path) -> None:
    """A command that serves: what it writes on standard error is JSON, whoever writes it."""
    code = """
import logging, sys, threading, time, warnings
from pathlib import Path
from harmonia.server.app import create_app
from harmonia.server.launcher import Server, bind
from harmonia.server.settings import Settings

settings = Settings(Path(sys.argv[1]), port=0)
def ready(url):
    warnings.warn("secret")
    logging.getLogger("PIL").warning("secret")
    server.should_exit = True
server = Server(create_app(settings), settings, bind(settings), ready)
server.run()
"""
    found = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "none")], capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0 and "secret" not in found.stderr, found.stderr
    lines = [json.loads(line)["event"] for line in found.stderr.splitlines()]
    assert any("UserWarning" in line for line in lines) and any("PIL" in line for line in lines), lines


def test_metrics_count_routes_not_content(folder: Path) -> None:
    with serve(Settings(folder / "none")) as url, httpx.Client(base_url=url) as client:
        client.get("/v1/memory/records/secret")
        shown = client.get("/metrics").text
    assert 'harmonia_requests_total{route="/v1/memory/records/{record_id}",status="404"} 1.0' in shown
    assert "secret" not in shown


def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(
            sys, "argv", ["harmonia", "serve", "-m", str(tmp_path / "m"), *map(str, arguments)]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    code, out, _ = run("--keys", tmp_path / "keys.json", "--new-key", "phone", "--scope", "write")
    assert code == 0 and find_key(read_keys(tmp_path / "keys.json"), out.strip())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wrong = {
            "address already in use": ("--port", port), "--keys FILE": ("--host", "0.0.0.0", "--port", 0),
            "--new-key": ("--keys", tmp_path / "none.json"),
        }  # fmt: skip
        for message, arguments in wrong.items():
            code, out, err = run(*arguments)
            assert code == 1 and out == "" and message in err and err.count("\n") == 1
    monkeypatch.delitem(sys.modules, "harmonia.server.app")
    monkeypatch.setitem(sys.modules, "fastapi", None)
    code, _, err = run("--port", 0)
    assert code == 1 and err == "harmonia: the server needs more packages: pip install 'harmonia[server]'\n"


def test_a_root_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(HarmoniaError, match="is not a directory"):
        Settings(tmp_path / "m", roots=(tmp_path, tmp_path / "gone"))
