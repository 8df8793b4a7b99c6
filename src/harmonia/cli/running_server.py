"""The server that serves a memory on this machine, if one runs: commands go through it, since it is warm.

`harmonia serve` leaves its address and a token for the owner of the memory in the file ``NOTE``. None of the
heavy packages is imported here, so that a command takes a fraction of a second.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harmonia.cli.common import find_memory
from harmonia.cli.cues import FILES, Question

NOTE = Path(".server") / "address.json"
SWITCH = "HARMONIA_SERVER"
"""Environment variable; ``off`` lets every command open the memory itself."""
BUSY = (413, 429, 500, 503)
"""Answers after which a command does the work itself: too large for the server, or too much of it."""
ASK_SECONDS, WORK_SECONDS, LOOK_SECONDS = 1.0, 600.0, 0.1

Json = dict[str, Any]


class ServerBusy(Exception):
    """The server cannot take this; the command does it itself."""


def through_server(memory: Path | None, call: Callable[[RunningServer], Json]) -> Json | None:
    """What ``call`` gets from the server of a memory; None where none runs or it cannot take this.

    HarmoniaError for what the server refuses.
    """
    server = running_server(memory)
    if server is None:
        return None
    try:
        return call(server)
    except (OSError, http.client.HTTPException, ServerBusy):
        return None


def running_server(memory: Path | None) -> RunningServer | None:
    """The server of a memory; None if none runs."""
    if os.environ.get(SWITCH) == "off":
        return None
    try:
        note = json.loads((find_memory(memory) / NOTE).read_text(encoding="utf-8"))
        server = RunningServer(urlsplit(note["url"]).netloc, str(note["token"]))
        said = server.request("GET", "/v1/memory/owner", timeout=ASK_SECONDS)
    except Exception:  # no file, a damaged one, or one that a server left behind when it was killed
        return None
    # a server of another memory, on the same port by now, does not know the token
    return server if said.get("owner") is True else None


@dataclass(frozen=True)
class RunningServer:
    """A server on this machine: host and port, and the token of the memory's owner."""

    address: str
    token: str

    def recall(self, asked: Question, *, explain: bool) -> Json:
        """A recollection, as ``recollection_json`` writes it."""
        return self._ask("/v1/memory/recall", asked, explain=explain)

    def retrieve(self, asked: Question) -> Json:
        """The records of a plain search."""
        return self._ask("/v1/memory/retrieve", asked)

    def answer(self, asked: Question) -> Json:
        """An answer in sentences, and its recollection."""
        return self._ask("/v1/memory/answer", asked)

    def remember(self, paths: Sequence[Path], *, copy: bool, watch: Callable[[int, int], None]) -> Json:
        """Remember paths in a job of the server; ``watch`` is told how many records of how many are read.

        A KeyboardInterrupt stops the job after the record that it is at.
        """
        body = {"paths": [os.path.abspath(path) for path in paths], "copy": copy}  # noqa: PTH100
        job = self.request("POST", "/v1/memory/jobs", json.dumps(body).encode())
        try:
            while job["state"] in ("queued", "running"):
                watch(job["done"], job["total"])
                time.sleep(LOOK_SECONDS)
                job = self.request("GET", f"/v1/memory/jobs/{job['id']}")
        except KeyboardInterrupt:
            self.request("DELETE", f"/v1/memory/jobs/{job['id']}")
            while job["state"] in ("queued", "running"):
                time.sleep(LOOK_SECONDS)
                job = self.request("GET", f"/v1/memory/jobs/{job['id']}")
        if job["state"] == "failed":
            _refuse(str(job["message"]))
        return job

    def _ask(self, path: str, asked: Question, **more: Any) -> Json:
        if not asked.words and not any(asked.files.values()) and not asked.against:
            raise ServerBusy  # the command itself says what is missing
        trust = None if asked.trust == float("inf") else asked.trust
        cues: list[Json] = [{"text": asked.words, "trust": trust}] if asked.words else []
        attached: dict[str, bytes] = {}
        for modality in FILES:
            for file in asked.files[modality]:
                name = f"file{len(attached)}"
                attached[name] = file.read_bytes()
                cues.append({modality: f"cid:{name}", "trust": trust})
        body = {
            "cues": cues, "against": asked.against, "weights": asked.weights,
            "leave_out_cues": asked.leave_out_cues,
            **{name: value for name, value in (asked.options | more).items() if value is not None},
        }  # fmt: skip
        said = json.dumps(body).encode()
        if not attached:
            return self.request("POST", path, said)
        return self.request("POST", path, *_form(said, attached))

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout: float = WORK_SECONDS,
    ) -> Json:
        """One request; HarmoniaError for what the server refuses, ServerBusy for what it cannot take."""
        connection = http.client.HTTPConnection(self.address, timeout=timeout)
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            if body is not None:
                headers["Content-Type"] = content_type
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            said = json.loads(answer.read() or b"{}")
        except ValueError as error:
            raise ServerBusy from error
        finally:
            connection.close()
        if answer.status in BUSY:
            raise ServerBusy
        if answer.status >= 400:
            _refuse(str(said.get("error", {}).get("message", answer.reason)))
        return dict(said)


def _refuse(message: str) -> None:
    from harmonia.types import HarmoniaError

    raise HarmoniaError(message)


def _form(request: bytes, files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A multipart form of the JSON of a request and of files, and its content type."""
    edge = uuid.uuid4().hex
    parts = [b'name="request"\r\n\r\n' + request]
    parts += [
        f'name="{name}"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode() + data
        for name, data in files.items()
    ]
    body = b"".join(
        f"--{edge}\r\nContent-Disposition: form-data; ".encode() + part + b"\r\n" for part in parts
    )
    return body + f"--{edge}--\r\n".encode(), f"multipart/form-data; boundary={edge}"
