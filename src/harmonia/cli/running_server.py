"""Commands through the running server of a memory, whose encoders are loaded already.

`harmonia serve` writes its address, and a token for the owner of the memory, to the file ``NOTE``. This
module imports no heavy package, so that a command takes a fraction of a second.
"""

from __future__ import annotations

import hmac
import http.client
import ipaddress
import json
import os
import secrets
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harmonia.cli.common import find_memory
from harmonia.cli.cues import FILES, Question
from harmonia.server.address import FILE as NOTE
from harmonia.server.address import proof

SWITCH = "HARMONIA_SERVER"
"""Environment variable; with ``off`` every command opens the memory itself."""
BUSY = (413, 429, 500, 503)
"""Status codes after which a command does the work itself: too large a request, or a busy server."""
ASK_SECONDS, WORK_SECONDS, LOOK_SECONDS = 5.0, 600.0, 0.1

Json = dict[str, Any]


class ServerBusy(Exception):
    """The server cannot take the request, so the command does the work itself."""


def through_server(memory: Path | None, call: Callable[[RunningServer], Json]) -> Json | None:
    """The result of ``call`` with the server of a memory; None if none runs, or it cannot take the request.

    HarmoniaError if the server refuses the request.
    """
    server = running_server(memory)
    if server is None:
        return None
    try:
        return call(server)
    except (OSError, http.client.HTTPException, ServerBusy):
        return None


def running_server(memory: Path | None) -> RunningServer | None:
    """The running server of a memory; None if there is none."""
    if os.environ.get(SWITCH) == "off":
        return None
    root = find_memory(memory)
    try:
        file = root / NOTE
        if file.stat().st_uid != os.getuid() or file.stat().st_mode & 0o077:
            return None  # written by somebody else, or readable by others: its token is worth nothing
        note = json.loads(file.read_text(encoding="utf-8"))
        address, token = urlsplit(note["url"]), str(note["token"])
        if not ipaddress.ip_address(address.hostname or "").is_loopback:
            return None  # what is asked stays on this machine
        server = RunningServer(address.netloc, token)
        nonce = secrets.token_hex(16)
        shown = server.request("GET", f"/v1/memory/owner?nonce={nonce}", timeout=ASK_SECONDS, secret=False)
        return server if hmac.compare_digest(str(shown["proof"]), proof(root, token, nonce)) else None
    except Exception:  # no file, a damaged one, or that of a server that was killed
        return None


@dataclass(frozen=True)
class RunningServer:
    """A server on this machine: its host and port, and the token of the memory's owner."""

    address: str
    token: str

    def recall(self, question: Question, *, explain: bool) -> Json:
        """Recall; returns the JSON of ``recollection_json``."""
        return self._ask("/v1/memory/recall", question, explain=explain)

    def retrieve(self, question: Question) -> Json:
        """Search by nearest neighbours; returns the JSON of ``neighbours_json``."""
        return self._ask("/v1/memory/retrieve", question)

    def answer(self, question: Question) -> Json:
        """Answer; returns the JSON of ``answer_json``."""
        return self._ask("/v1/memory/answer", question)

    def remember(
        self,
        paths: Sequence[Path],
        *,
        copy: bool,
        watch: Callable[[int, int], None],
        exclude: Sequence[str] = (),
    ) -> Json:
        """Remember paths in a job of the server; ``watch`` gets the number of records read and their total.

        A KeyboardInterrupt stops the job after its current record.
        """
        body = {"paths": [os.path.abspath(path) for path in paths], "copy": copy}  # noqa: PTH100
        if exclude:
            body["exclude"] = list(exclude)
        # the command itself says what is wrong with a pattern
        job = self.request("POST", "/v1/memory/jobs", json.dumps(body).encode(), refusable=bool(exclude))
        try:
            while job["state"] in ("queued", "running"):
                watch(job["done"], job["total"])
                job = self._look(job)
        except KeyboardInterrupt:
            with suppress(OSError, http.client.HTTPException, ServerBusy):
                self.request("DELETE", f"/v1/memory/jobs/{job['id']}")
                while job["state"] in ("queued", "running"):
                    job = self._look(job)
            job["state"] = "stopped"
        if job["state"] == "failed":
            _refuse(str(job["message"]))
        return job

    def _look(self, job: Json) -> Json:
        """The job a moment later; HarmoniaError if the server has gone: the job is its own to finish."""
        time.sleep(LOOK_SECONDS)
        try:
            return self.request("GET", f"/v1/memory/jobs/{job['id']}")
        except ServerBusy:
            return job
        except (OSError, http.client.HTTPException):
            _refuse("the server stopped while it was remembering: run the same command again to go on")
            raise

    def _ask(self, path: str, question: Question, **more: Any) -> Json:
        if not question.words and not any(question.files.values()) and not question.against:
            raise ServerBusy  # the command itself reports what is missing
        trust = None if question.trust == float("inf") else question.trust
        cues: list[Json] = [{"text": question.words, "trust": trust}] if question.words else []
        attached: dict[str, bytes] = {}
        for modality in FILES:
            for file in question.files[modality]:
                name = f"file{len(attached)}"
                attached[name] = file.read_bytes()
                cues.append({modality: f"cid:{name}", "trust": trust})
        body = {
            "cues": cues, "against": question.against, "weights": question.weights,
            "leave_out_cues": question.leave_out_cues,
            **{name: value for name, value in (question.options | more).items() if value is not None},
        }  # fmt: skip
        data = json.dumps(body).encode()
        if not attached:
            return self.request("POST", path, data, refusable=True)
        return self.request("POST", path, *_form(data, attached), refusable=True)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "application/json",
        timeout: float = WORK_SECONDS,
        *,
        secret: bool = True,
        refusable: bool = False,
    ) -> Json:
        """Send a request; HarmoniaError if the server refuses it, ServerBusy if it cannot take it."""
        connection = http.client.HTTPConnection(self.address, timeout=timeout)
        try:
            headers = {"Authorization": f"Bearer {self.token}"} if secret else {}
            if body is not None:
                headers["Content-Type"] = content_type
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = json.loads(response.read() or b"{}")
        except ValueError as error:
            raise ServerBusy from error
        finally:
            connection.close()
        # What the server's own bounds refuse, the command does itself, or says in its own words why not.
        if response.status in BUSY or (refusable and response.status in (400, 422)):
            raise ServerBusy
        if response.status >= 400:
            _refuse(str(content.get("error", {}).get("message", response.reason)))
        return dict(content)


def _refuse(message: str) -> None:
    from harmonia.types import HarmoniaError

    raise HarmoniaError(message)


def _form(request: bytes, files: Mapping[str, bytes]) -> tuple[bytes, str]:
    """A multipart form with the JSON of a request and the files, and its content type."""
    boundary = uuid.uuid4().hex
    parts = [b'name="request"\r\n\r\n' + request]
    parts += [
        f'name="{name}"; filename="{name}"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode() + data
        for name, data in files.items()
    ]
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; ".encode() + part + b"\r\n" for part in parts
    )
    return body + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
