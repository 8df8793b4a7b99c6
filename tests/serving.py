"""A real server on loopback for tests, and a small real memory for it to serve."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import torch
from fastapi import FastAPI

from harmonia.collection.collection import Memory
from harmonia.generators import ConditionConfig, Facts, save_generator
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig
from harmonia.pretrained.loading import load_encoders
from harmonia.server.app import create_app
from harmonia.server.launcher import Server, bind
from harmonia.server.settings import Settings
from tests.media import make_photo, make_tone, make_video

Json = dict[str, Any]
COLOURS = ("red", "green", "blue")


@contextmanager
def serve(what: Settings | FastAPI) -> Iterator[str]:
    """Serve an app, or the one of these settings, on a free port of loopback; yields ``http://host:port``."""
    app = create_app(what) if isinstance(what, Settings) else what
    settings = Settings(
        app.state.service.settings.memory, port=0, patience=app.state.service.settings.patience
    )
    found: list[str] = []
    up = threading.Event()

    def ready(url: str) -> None:
        found.append(url)
        up.set()

    server = Server(app, settings, bind(settings), ready)

    def run() -> None:
        try:
            server.run()
        finally:
            up.set()

    thread = threading.Thread(target=run, name="server", daemon=True)
    thread.start()
    up.wait(120)
    if not found:
        raise RuntimeError("the server did not start: its log says why")
    try:
        yield found[0]
    finally:
        server.should_exit = True
        thread.join(120)
        assert not thread.is_alive(), "the server did not stop"


def memory_of(tmp_path: Path) -> Path:
    """The folder of a new memory with 6 photos, 2 tones and a video, all with captions, and 2 notes.

    Every record has a ``tag`` (photo, sound, film, note) and a ``year`` from 2020 on; photos 0 to 5 are
    ``scene(seed)`` of their number, called "the photo number 0 of a red thing". The media lie inside of the
    memory. It is made once per process and then copied.
    """
    folder = tmp_path / "memory"
    shutil.copytree(_template() / "memory", folder)
    return folder


def media_of() -> Path:
    """The folder with the files that every such memory was made from: ``photo-0.png``, ``tone-0.wav``..."""
    return _template()


def base64_of(name: str) -> str:
    """A file of ``media_of`` as base64."""
    return base64.b64encode((_template() / name).read_bytes()).decode()


def recall(client: httpx.Client, *cues: Json, **options: Any) -> Json:
    """What a recall by these cues answers."""
    answer = client.post("/v1/memory/recall", json={"cues": cues, **options})
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


def words(record: Json) -> str:
    """The text of a record."""
    return next(part["text"] for part in record["parts"] if part["modality"] == "text")


def failed(answer: httpx.Response, status: int = 400) -> Json:
    """The error that an answer is."""
    assert answer.status_code == status, answer.text
    found: Json = answer.json()["error"]
    return found


def generator_of(tmp_path: Path) -> Path:
    """The folder of a generator that draws noise of 16 x 16 pixels from codes of mini, in no time."""
    torch.manual_seed(0)
    encoder = next(e for e in load_encoders(("mini",)) if e.modality == "image")
    told = ConditionConfig(code=encoder.dim)
    config = DiffusionConfig(shape=(3, 16, 16), channels=(1, 1), condition=told, sampler="euler", steps=2)
    save_generator(tmp_path / "generator", Diffusion(config), facts=Facts("little flow", encoder.space))
    return tmp_path / "generator"


@cache
def _template() -> Path:
    folder = Path(_KEPT.name)
    rows = []
    for seed in range(6):
        make_photo(folder / f"photo-{seed}.png", seed=seed)
        caption = f"the photo number {seed} of a {COLOURS[seed % 3]} thing"
        rows.append({"image": f"photo-{seed}.png", "caption": caption, "tag": "photo", "year": 2020 + seed})
    for number, hz in enumerate((220.0, 880.0)):
        make_tone(folder / f"tone-{number}.wav", seconds=1.0, hz=hz)
        caption = f"a {'high' if number else 'low'} tone"
        rows.append(
            {"audio": f"tone-{number}.wav", "caption": caption, "tag": "sound", "year": 2020 + number}
        )
    make_video(folder / "film.mp4", seconds=1.0, seed=9)
    rows.append({"video": "film.mp4", "caption": "shapes that move", "tag": "film", "year": 2022})
    rows += [
        {"text": "buy milk and bread", "tag": "note", "year": 2023},
        {"text": "<b>call</b> the dentist", "tag": "note", "year": 2024},
    ]
    manifest = folder / "things.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    report = Memory(folder / "memory").remember(manifest, copy=True, threads=1)
    assert report.remembered == len(rows), report
    return folder


_KEPT = tempfile.TemporaryDirectory(prefix="harmonia-serving-")
