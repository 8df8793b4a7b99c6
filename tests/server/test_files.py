"""Media, allowed folders and jobs, over a real uvicorn on loopback."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from harmonia.collection.collection import Memory
from harmonia.server.formats import kind_of
from harmonia.server.settings import Settings
from tests.media import make_photo, make_tone, scene
from tests.serving import failed, media_of, memory_of, recall, serve, words

Json = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memory-routes")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    (folder / "root").mkdir()
    settings = Settings(memory_of(folder), roots=(folder / "root",))
    with serve(settings) as url, httpx.Client(base_url=url, timeout=60) as found:
        yield found


def test_paths_stay_within_the_roots(client: httpx.Client, folder: Path) -> None:
    root, outside = folder / "root", folder / "outside"
    outside.mkdir()
    make_photo(outside / "secret.png", seed=70)
    make_photo(root / "mine.png", seed=71)
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "far").symlink_to(outside)
    for path in (
        outside / "secret.png", root / ".." / "outside" / "secret.png", root / "link.png",
        root / "far" / "secret.png",
        "/etc/passwd", "/", "", "\0", "~/x", "x" * 5000, str(root) + "-other/x.png", root, root / "none.png",
    ):  # fmt: skip
        error = failed(client.post("/v1/memory/records", json={"path": str(path)}))
        assert str(folder) not in error["message"]
    answer = client.post("/v1/memory/records", json={"path": str(root / "mine.png"), "text": "my photo"})
    assert answer.status_code == 201 and answer.json()["metadata"]["name"] == "mine"
    client.delete(f"/v1/memory/records/{answer.json()['id']}")

    rows = [{"image": "../outside/secret.png"}, {"image": str(outside / "secret.png")}, {"text": "a row"}]
    (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = client.post("/v1/memory/jobs", json={"paths": [str(root)]}).json()
    assert str(folder) not in json.dumps(job)
    job = events(client.get(f"/v1/memory/jobs/{job['id']}/events").text)[-1][2]
    assert job["state"] == "completed" and job["remembered"] == 2
    assert {one["name"] for one in job["problems"]} >= {"secret.png", "link.png"}
    assert all(str(folder) not in one["reason"] for one in job["problems"])
    held = Memory(folder / "memory").store.files()
    assert not any("secret" in path or "link" in path for path in held)
    failed(client.post("/v1/memory/jobs", json={"paths": ["/etc"]}))
    failed(client.post("/v1/memory/jobs", json={}))


def test_media_come_in_ranges(client: httpx.Client) -> None:
    whole = (media_of() / "film.mp4").read_bytes()
    record = recall(client, {"text": "shapes that move"}, k=1)["records"][0]
    media = next(part["media"] for part in record["parts"] if part["media"])
    answer = client.get(media)
    assert answer.content == whole and answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-disposition"].startswith("inline")
    etag = answer.headers["etag"]
    head = client.head(media)
    assert head.status_code == 200 and int(head.headers["content-length"]) == len(whole) and not head.content
    for span, want in (("0-9", whole[:10]), ("-5", whole[-5:]), (f"{len(whole) - 3}-", whole[-3:])):
        part = client.get(media, headers={"Range": f"bytes={span}"})
        assert part.status_code == 206 and part.content == want
        assert part.headers["content-range"].endswith(f"/{len(whole)}")
    assert client.get(media, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    assert client.get(media, headers={"Range": "bytes=0-1", "If-Range": etag}).status_code == 206
    assert client.get(media, headers={"Range": "bytes=0-1", "If-Range": '"x"'}).status_code == 200
    assert client.get(media, headers={"If-None-Match": etag}).status_code == 304
    preview = client.get(media + "/preview", params={"size": 100})
    assert preview.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(preview.content)).height <= 128 + 32
    failed(client.get("/v1/memory/media/" + "0" * 64), 404)
    for wrong in ("x", "..%2f..%2fmodel.json", "A" * 64, "0" * 63):
        assert client.get("/v1/memory/media/" + wrong).status_code in (400, 404)
    failed(client.get(media + "/preview?size=5000"))


def test_html_is_never_served_as_html(client: httpx.Client) -> None:
    for text in (
        b"<html><script>alert(1)</script>",
        b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    ):
        record = client.post("/v1/memory/records", files={"files": ("x.html", text, "text/html")}).json()
        media = next(part["media"] for part in record["parts"] if part["media"])
        answer = client.get(media)
        assert answer.content == text and answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        client.delete(f"/v1/memory/records/{record['id']}")


def test_files_elsewhere_are_served_while_they_are_the_same(tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "photo.png", seed=5)
    Memory(tmp_path / "memory").remember(photo)
    with serve(Settings(tmp_path / "memory")) as url, httpx.Client(base_url=url, timeout=60) as client:
        part = client.get("/v1/memory/records").json()["data"][0]["parts"][0]
        assert client.get(part["media"]).content == photo.read_bytes()
        make_photo(photo, seed=6)
        failed(client.get(part["media"]), 404)
        photo.unlink()
        failed(client.get(part["media"]), 404)


def test_kinds_are_told_by_bytes(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.gif", "a.webp", "a.bmp", "a.tiff"):
        scene(1).save(tmp_path / name)
    for name in ("b.wav", "b.flac", "b.ogg", "b.mp3", "b.aac"):
        make_tone(tmp_path / name)
    for file in tmp_path.iterdir():
        kind = kind_of(file.read_bytes()[:512])
        assert kind and kind.suffix == file.suffix, file.name
    film = (media_of() / "film.mp4").read_bytes()[:512]
    assert (kind_of(film), kind_of(film, "x.m4a")) != (None, None)
    assert [k.modality for k in (kind_of(film), kind_of(film, "x.m4a")) if k] == ["video", "audio"]
    assert (
        kind_of(b"") is None
        and kind_of(b"\x7fELF\x02\x01\x01\0") is None
        and kind_of(b"PK\x03\x04\0\0") is None
    )


def events(text: str) -> list[tuple[str, int, Json]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
    return found


def test_a_job_is_watched_to_its_end(client: httpx.Client, folder: Path) -> None:
    many = folder / "root" / "many"
    many.mkdir()
    for number in range(30):
        (many / f"note {number}.txt").write_text(f"the note of day {number}")
    (many / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    job = client.post("/v1/memory/jobs", json={"paths": [str(many)]})
    assert job.status_code == 202
    address = f"/v1/memory/jobs/{job.json()['id']}"
    answer = client.get(address + "/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    seen = events(answer.text)
    assert [name for name, _, _ in seen][-1] == "completed" and {name for name, _, _ in seen[:-1]} <= {
        "progress"
    }
    assert [number for _, number, _ in seen] == sorted({number for _, number, _ in seen})
    last = seen[-1][2]
    assert last["remembered"] == 30 and last["done"] == last["total"] == 31
    assert last["problems"][0]["name"] == "broken.png" and "damaged" in last["problems"][0]["reason"]
    again = events(client.get(address + "/events", headers={"Last-Event-ID": str(seen[0][1])}).text)
    assert [name for name, _, _ in again] == ["completed"]
    assert client.get(address + "/events", headers={"Last-Event-ID": str(seen[-1][1])}).text == ""
    assert client.get("/v1/memory/jobs", params={"limit": 1}).json()["data"][0] == last
    failed(client.get("/v1/memory/jobs/job-none"), 404)


def test_a_job_leaves_out_what_is_excluded(client: httpx.Client, folder: Path) -> None:
    some = folder / "root" / "some"
    (some / "drafts").mkdir(parents=True)
    for name in ("kept.txt", "left.md", "drafts/a.txt", "drafts/b.txt"):
        (some / name).write_text(f"the text of {name}")
    asked = {"paths": [str(some)], "exclude": ["*.md", "drafts/"]}
    job = client.post("/v1/memory/jobs", json=asked).json()
    assert job["object"] == "memory.job" and "exclude" not in job
    job = events(client.get(f"/v1/memory/jobs/{job['id']}/events").text)[-1][2]
    assert job["state"] == "completed" and job["remembered"] == 1 and job["left_out"] == {"exclude": 2}
    assert "gitignore" in failed(client.post("/v1/memory/jobs", json=asked | {"exclude": ["!"]}))["message"]
    for wrong in ([""], "*.md", ["x"] * 101, ["x" * 1001]):
        failed(client.post("/v1/memory/jobs", json=asked | {"exclude": wrong}))
    failed(client.post("/v1/memory/jobs", json={"files": ["file-none"], "exclude": ["*.md"]}))


def test_a_job_remembers_uploaded_files(client: httpx.Client) -> None:
    files = {"file": ("Lake view.txt", b"the lake lies still")}
    kept = client.post("/v1/files", files=files, data={"purpose": "user_data"}).json()["id"]
    job = client.post("/v1/memory/jobs", json={"files": [kept]}).json()
    assert events(client.get(f"/v1/memory/jobs/{job['id']}/events").text)[-1][0] == "completed"
    found = recall(client, {"text": "the lake lies still"}, k=1)["records"][0]
    assert words(found) == "the lake lies still" and found["metadata"]["name"] == "Lake view"
    client.delete(f"/v1/memory/records/{found['id']}")
    failed(client.post("/v1/memory/jobs", json={"files": ["file-none"]}), 404)


def test_a_job_stops_when_told(client: httpx.Client, folder: Path) -> None:
    much = folder / "root" / "much"
    much.mkdir()
    for number in range(400):
        scene(number, (400, 300)).save(much / f"{number}.bmp")
    jobs = [client.post("/v1/memory/jobs", json={"paths": [str(much)]}).json() for _ in range(2)]
    second = client.delete(f"/v1/memory/jobs/{jobs[1]['id']}").json()
    assert second["state"] in ("stopped", "running")
    client.delete(f"/v1/memory/jobs/{jobs[0]['id']}")
    last = events(client.get(f"/v1/memory/jobs/{jobs[0]['id']}/events").text)[-1]
    assert last[0] == "stopped" and last[2]["done"] < 400
    assert client.get(f"/v1/memory/jobs/{jobs[1]['id']}").json()["remembered"] == 0


def test_a_killed_server_goes_on_where_it_was(tmp_path: Path) -> None:
    root, memory = tmp_path / "root", tmp_path / "memory"
    root.mkdir()
    for number in range(150):
        (root / f"{number}.txt").write_text(f"the note of day {number}")
    command = [sys.executable, "-m", "harmonia", "serve", "-m", memory, "--port", "0", "--root", root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        with httpx.Client(base_url=url, timeout=60) as client:
            forms = [{"text": f"thing {number}"} for number in range(3)]
            answers = [client.post("/v1/memory/records", files={"x": b""}, data=form) for form in forms]
            kept = [answer.json()["id"] for answer in answers]
            job = client.post("/v1/memory/jobs", json={"paths": [str(root)]}).json()["id"]
            while client.get(f"/v1/memory/jobs/{job}").json()["done"] < 5:
                time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    assert json.loads((memory / ".server" / "jobs" / f"{job}.json").read_text())["state"] == "running"
    with serve(Settings(memory, roots=(root,))) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert all(client.get(f"/v1/memory/records/{one}").status_code == 200 for one in kept)
        last = events(client.get(f"/v1/memory/jobs/{job}/events").text)[-1]
        assert last[0] == "completed"
        assert client.get("/v1/memory/status").json()["records"] == 153
