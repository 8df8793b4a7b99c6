"""A server for clients that mean harm: with keys, a folder full of traps, and little patience."""

from __future__ import annotations

import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from harmonia.server.keys import new_key
from harmonia.server.settings import Settings
from tests.serving import memory_of, serve

Json = dict[str, Any]

PATIENCE = 1.5
SECRET = "the secret of another folder"


@contextmanager
def hostile(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The URL of a server, and its keys by scope; at the end its log must have no error.

    Its memory lies in ``folder``, and files may be remembered by path from ``folder / "root"``.
    """
    keys = {scope: new_key(folder / "keys.json", scope, scope) for scope in ("read", "write", "admin")}
    set_traps(folder)
    settings = Settings(
        memory_of(folder), keys=folder / "keys.json", roots=(folder / "root",), fetch=True, patience=PATIENCE,
        upload=2**20,
    )  # fmt: skip
    errors = _Errors()
    with serve(settings) as url:
        for name in ("harmonia.server", "uvicorn"):
            logging.getLogger(name).addHandler(errors)
        yield url, keys
    for name in ("harmonia.server", "uvicorn"):
        logging.getLogger(name).removeHandler(errors)
    assert not errors.seen


def set_traps(folder: Path) -> None:
    """Links out of the root, a link to itself, a pipe, a manifest that names a secret."""
    root = folder / "root"
    root.mkdir()
    (folder / "secret.txt").write_text(SECRET)
    (root / "link.txt").symlink_to(folder / "secret.txt")
    (root / "up").symlink_to(folder)
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe.txt")
    rows = [
        {"text": "a fine row"}, {"text": "../secret.txt", "image": "../secret.txt"},
        {"image": "up/secret.txt"},
    ]  # fmt: skip
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


class _Errors(logging.Handler):
    """What a log says of errors."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(f"{record.getMessage()} {getattr(record, 'facts', '')} {record.exc_info}")


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def refused(answer: httpx.Response, *statuses: int) -> Json:
    """The error of an answer that has to be one."""
    assert answer.status_code in (statuses or range(400, 500)), (answer.status_code, answer.text[:300])
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    found: Json = answer.json()["error"]
    return found


def raw(url: str, request: bytes, seconds: float = 10.0) -> tuple[bytes, float]:
    """What comes back for bytes until the server closes, and after how long."""
    begin, found = time.monotonic(), b""
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=seconds) as line:
        try:
            line.sendall(request)
            while block := line.recv(65536):
                found += block
        except (ConnectionResetError, BrokenPipeError):
            pass
    return found, time.monotonic() - begin


def state(client: httpx.Client) -> list[Any]:
    """All that a caller could have changed."""
    paths = ("/v1/memory/records?limit=1000", "/v1/files", "/v1/vector_stores", "/v1/memory/jobs")
    return [client.get(path).json()["data"] for path in paths]


def ids_of(client: httpx.Client) -> Json:
    """The id of something that there is, for every parameter of a path."""
    record = client.get("/v1/memory/records", params={"where": "tag = 'film'"}).json()["data"][0]
    file = client.post(
        "/v1/files", files={"file": ("a.txt", b"a note")}, data={"purpose": "user_data"}
    ).json()
    store = client.post("/v1/vector_stores", json={"name": "s", "file_ids": [file["id"]]}).json()
    batch = client.post(
        f"/v1/vector_stores/{store['id']}/file_batches", json={"file_ids": [file["id"]]}
    ).json()
    job = client.post("/v1/memory/jobs", json={"files": [file["id"]]}).json()
    said = client.post("/v1/responses", json={"model": "harmonia", "input": "milk"}).json()
    stored = client.post(
        "/v1/chat/completions",
        json={"model": "harmonia", "messages": [{"role": "user", "content": "milk"}], "store": True},
    ).json()
    while client.get(f"/v1/memory/jobs/{job['id']}").json()["state"] != "completed":
        time.sleep(0.02)
    media = next(part["digest"] for part in record["parts"] if part["modality"] == "video")
    return {
        "record_id": record["id"], "digest": media, "file_id": file["id"], "store_id": store["id"],
        "batch_id": batch["id"], "job_id": job["id"], "response_id": said["id"], "model": "mini",
        "completion_id": stored["id"],
    }  # fmt: skip
