"""Mutated media as cues and as uploads: each is taken or refused with the reason, soon, and leaves nothing.

A subset by default; the environment variable ``HARMONIA_HOSTILE=2000`` asks for that many.
"""

from __future__ import annotations

import base64
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import psutil
import pytest

from harmonia.server.settings import Settings
from tests.mutants import KINDS, WAYS, Mutant, mutants, originals
from tests.serving import memory_of, serve

COUNT = int(os.environ.get("HARMONIA_HOSTILE", "100"))
SECONDS = 60.0
"""Any answer that takes longer is a hang."""
GROWTH = 200 * 2**20
"""Bytes by which the process may grow once it is warm: caches, and what was remembered."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return memory_of(tmp_path_factory.mktemp("mutants"))


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with serve(Settings(folder)) as url, httpx.Client(base_url=url, timeout=SECONDS) as found:
        yield found


def sent(client: httpx.Client, one: Mutant, number: int) -> httpx.Response:
    """A mutant, in one of the ways in which media come in."""
    encoded = base64.b64encode(one.data).decode()
    files = {"files": (one.name, one.data)}
    match Random(number).randrange(7):
        case 0 | 1:
            return client.post("/v1/memory/recall", json={"cues": [{one.modality: encoded}], "k": 1})
        case 2:
            return client.post("/v1/memory/records", files=files)
        case 3:
            return client.post("/v1/memory/records", files=files, data={"separate": "true"})
        case 4:
            return client.post("/v1/embeddings", json={"input": [{one.modality: encoded}]})
        case 5:
            part = {"type": "file", "file": {"file_data": encoded}}
            body = {"model": "harmonia", "messages": [{"role": "user", "content": [part]}]}
            return client.post("/v1/chat/completions", json=body)
    return client.post("/v1/files", files={"file": (one.name, one.data)}, data={"purpose": "user_data"})


def test_every_mutant_is_taken_or_refused(client: httpx.Client, folder: Path) -> None:
    process, least, statuses, slowest = psutil.Process(), 0, Counter[int](), 0.0
    for number, one in enumerate(mutants(COUNT)):
        begin = time.monotonic()
        answer = sent(client, one, number)
        slowest = max(slowest, time.monotonic() - begin)
        statuses[answer.status_code] += 1
        assert 200 <= answer.status_code < 500, (number, one.how, one.name, answer.text)
        if answer.status_code >= 400:
            said = answer.json()["error"]["message"]
            assert said and str(folder) not in said and "Traceback" not in said, said
        if number == COUNT // 3:
            least = process.memory_info().rss
    grown = process.memory_info().rss - least
    print(f"{COUNT} files: {dict(statuses)}; slowest {slowest:.2f} s; grown by {grown / 2**20:.0f} MiB")
    assert statuses[200] and statuses[400] > COUNT // 4
    assert grown < GROWTH, f"the process grew by {grown / 2**20:.0f} MiB"
    assert client.post("/v1/memory/recall", json={"cues": [{"text": "photo number 3"}], "k": 1}).is_success


def test_nothing_is_left_behind(client: httpx.Client, folder: Path) -> None:
    """What was refused has left no file; what was taken can be read, and is never a page."""
    assert not list((folder / ".server" / "incoming").glob("*"))
    assert not [path for path in folder.rglob("*") if path.name.endswith((".tmp", ".part", "~"))]
    page = client.get("/v1/memory/records", params={"limit": 1000}).json()
    digests = {part["digest"] for record in page["data"] for part in record["parts"] if part["media"]}
    held = {path.stem.partition(".")[0] for path in (folder / "media").rglob("*") if path.is_file()}
    assert held and held <= digests, held - digests
    for digest in sorted(digests)[:40]:
        answer = client.get(f"/v1/memory/media/{digest}")
        kind = answer.headers["content-type"].partition(";")[0]
        assert answer.status_code == 200 and (
            kind.partition("/")[0] in KINDS.values() or kind == "text/plain"
        )
        assert (
            kind not in ("text/html", "image/svg+xml")
            and answer.headers["x-content-type-options"] == "nosniff"
        )


def test_the_mutants_are_what_they_say() -> None:
    """Every way is tried, and most of them change the file; one seed always gives the same."""
    several = list(mutants(4 * len(WAYS)))
    assert {one.how for one in several} == set(WAYS)
    changed = [one for one in several if one.data not in originals().values()]
    assert len(changed) > len(several) * 0.9
    assert [one.data for one in mutants(30)] == [one.data for one in mutants(30)]
