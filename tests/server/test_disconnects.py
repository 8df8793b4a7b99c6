"""How a server ends: killed in the middle of remembering, or told to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.media import make_photo


@contextmanager
def served(memory: Path, root: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``harmonia serve`` as a process of its own, and its URL; at the end it is gone."""
    command = [sys.executable, "-m", "harmonia", "serve", "-m", memory, "--port", "0", "--root", root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def notes(root: Path, count: int) -> None:
    root.mkdir()
    for number in range(count):
        (root / f"{number}.txt").write_text(f"the note of day {number}")


def begun(url: str, root: Path) -> str:
    """The id of a job over ``root`` that runs."""
    job: str = httpx.post(f"{url}/v1/memory/jobs", json={"paths": [str(root)]}, timeout=60).json()["id"]
    until = time.monotonic() + 60
    while httpx.get(f"{url}/v1/memory/jobs/{job}").json()["done"] < 3:
        assert time.monotonic() < until
        time.sleep(0.01)
    return job


def test_a_killed_server_has_what_it_acknowledged_and_one_that_is_told_to_end_ends(tmp_path: Path) -> None:
    root, memory = tmp_path / "root", tmp_path / "memory"
    notes(root, 30)
    photos = [make_photo(tmp_path / f"{n}.png", seed=n, size=(64, 48)).read_bytes() for n in range(60)]
    with served(memory, root) as (process, url):
        job = begun(url, root)
        kept, files = given_until_killed(process, url, photos)
    assert 8 <= len(kept) < len(photos), "it was killed too late to tell anything"
    with served(memory, root) as (process, url):
        with httpx.Client(base_url=url, timeout=60) as client:
            assert not list((memory / ".server" / "incoming").glob("*"))
            check_acknowledged(client, kept, files)
            client.get(f"/v1/memory/jobs/{job}/events")
            assert client.get(f"/v1/memory/jobs/{job}").json()["state"] == "completed"
            check_whole(client, 30 + len(kept), 30 + len(photos))
        for file in (memory / ".server").rglob("*.json"):
            json.loads(file.read_text())
        notes(tmp_path / "root" / "more", 3000)
        end_while_busy(process, url, tmp_path / "root" / "more", memory)


def given_until_killed(
    process: subprocess.Popen[str], url: str, photos: list[bytes]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """What four clients sent before the server was killed, if it said that it has it: records, and files."""
    kept: dict[str, bytes] = {}
    files: dict[str, bytes] = {}

    def give(number: int) -> None:
        with contextlib.suppress(httpx.TransportError):
            form = {"files": (f"{number}.png", photos[number])}
            answer = httpx.post(f"{url}/v1/memory/records", files=form, timeout=60)
            assert answer.status_code == 201
            kept[answer.json()["id"]] = photos[number]
            text = b"file %d" % number
            form = {"file": (f"{number}.txt", text)}
            answer = httpx.post(f"{url}/v1/files", files=form, data={"purpose": "user_data"}, timeout=60)
            files[answer.json()["id"]] = text

    with ThreadPoolExecutor(4) as pool:
        given = [pool.submit(give, number) for number in range(len(photos))]
        while (len(kept) < 8 or len(files) < 4) and not all(one.done() for one in given):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        pool.shutdown(cancel_futures=True)
        for one in given:
            if not one.cancelled():
                one.result()
    return kept, files


def check_acknowledged(client: httpx.Client, kept: dict[str, bytes], files: dict[str, bytes]) -> None:
    for one, photo in kept.items():
        parts = client.get(f"/v1/memory/records/{one}").json()["parts"]
        media = next(part["media"] for part in parts if part["media"])
        assert client.get(media).content == photo
    for one, content in files.items():
        assert client.get(f"/v1/files/{one}/content").content == content


def check_whole(client: httpx.Client, least: int, most: int) -> None:
    """Nothing that is remembered has only half of its file."""
    records = client.get("/v1/memory/records", params={"limit": 1000}).json()["data"]
    assert least <= len(records) <= most
    for address in {part["media"] for record in records for part in record["parts"]} - {None}:
        assert hashlib.sha256(client.get(address).content).hexdigest() == address.rpartition("/")[2]


def waiting(url: str) -> bool:
    """Whether bytes that were sent to a server wait to be read by it, as Linux tells."""
    port, queues = f":{urlsplit(url).port:04X}", Path("/proc/net/tcp").read_text().splitlines()[1:]
    columns = [line.split() for line in queues]
    return any(one[1].endswith(port) and one[3] == "01" and int(one[4][9:], 16) for one in columns)


def end_while_busy(process: subprocess.Popen[str], url: str, root: Path, memory: Path) -> None:
    """SIGTERM while recalls are asked and a job is watched: they are answered, and the job goes on later."""
    job, seen, answered, sent = begun(url, root), list[str](), list[int](), list[str]()

    def trace(event: str, info: object) -> None:
        if event == "http11.send_request_body.complete":
            sent.append(event)

    def watch() -> None:
        with httpx.stream("GET", f"{url}/v1/memory/jobs/{job}/events", timeout=60) as answer:
            seen.extend(answer.iter_lines())
        seen.append("end")

    def ask() -> None:
        cues = [{"text": f"the note of day {number}"} for number in range(16)]
        body = {"cues": cues, "steps": 64, "k": 100, "explain": True}
        with httpx.Client(timeout=60) as client:
            request = client.build_request("POST", f"{url}/v1/memory/recall", json=body)
            request.extensions["trace"] = trace
            answered.append(client.send(request).status_code)

    several = [threading.Thread(target=one) for one in (watch, ask, ask, ask)]
    for one in several:
        one.start()
    while len(seen) < 4 or len(sent) < 3:
        time.sleep(0.002)
    until = time.monotonic() + 60
    while waiting(url):
        assert time.monotonic() < until, "what was sent has not been taken"
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    for one in several:
        one.join(60)
    assert seen[-1] == "end" and answered == [200, 200, 200]
    assert json.loads((memory / ".server" / "jobs" / f"{job}.json").read_text())["state"] in (
        "running",
        "queued",
    )
