"""Pictures, sounds and realtime sessions as the real openai client asks for them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from fastapi import FastAPI
from openai import AsyncOpenAI, OpenAI
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from harmonia.generators import ConditionConfig, Facts, save_generator
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig
from harmonia.modalities import image as pictures
from harmonia.pretrained.loading import load_encoders
from harmonia.server.app import create_app
from harmonia.server.keys import new_key
from harmonia.server.settings import Settings
from tests.media import make_photo, make_tone, tone
from tests.serving import media_of, memory_of, serve

SIDE, FOREVER = 16, 100_000
"""Pixels of the little generator's pictures; steps that nobody waits for."""


def generator(folder: Path, steps: int) -> Path:
    """A generator that has learned nothing: what it draws is noise, and it draws as others do."""
    torch.manual_seed(0)
    encoder = next(e for e in load_encoders(("mini",)) if e.modality == "image")
    config = DiffusionConfig(
        shape=(3, SIDE, SIDE), channels=(1, 1), condition=ConditionConfig(code=encoder.dim), sampler="euler",
        steps=steps,
    )  # fmt: skip
    model = Diffusion(config)
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.05)
    save_generator(folder, model, facts=Facts("little flow", encoder.space))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openai")


@pytest.fixture(scope="module")
def bare(folder: Path) -> Iterator[str]:
    """A server without a generator."""
    (folder / "bare").mkdir()
    with serve(Settings(memory_of(folder / "bare"), generator=str(folder / "none"))) as url:
        yield url


@pytest.fixture(scope="module")
def drawing(folder: Path) -> Iterator[str]:
    (folder / "drawing").mkdir()
    where = generator(folder / "flow", 8)
    with serve(Settings(memory_of(folder / "drawing"), generator=str(where))) as url:
        yield url


@pytest.fixture(scope="module")
def client(drawing: str) -> OpenAI:
    return OpenAI(base_url=f"{drawing}/v1", api_key="none")


def opened(b64_json: str | None) -> tuple[Image.Image, Any]:
    """A picture, and the mark in it."""
    data = base64.b64decode(b64_json or "")
    return Image.open(io.BytesIO(data)), pictures.mark_of(data)


def holed(path: Path, size: tuple[int, int] = (64, 64)) -> Path:
    """A grey picture whose right half is transparent."""
    image = Image.new("RGBA", size, (128, 128, 128, 255))
    image.paste((0, 0, 0, 0), (size[0] // 2, 0, *size))
    image.save(path)
    return path


def test_pictures_are_drawn_and_marked(client: OpenAI) -> None:
    answer = client.images.generate(
        prompt="buy milk and bread", n=2, size="96x64", output_format="webp", extra_body={"seed": 3}
    )
    assert answer.data and len(answer.data) == 2
    for one in answer.data:
        image, mark = opened(one.b64_json)
        assert image.size == (96, 64) and image.format == "WEBP"
        assert mark.generator == "little flow" and mark.seed == 3 and not mark.composite
    assert answer.data[0].b64_json != answer.data[1].b64_json
    assert answer.size == "96x64" and answer.output_format == "webp" and answer.usage
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (4, 2)
    told = answer.harmonia  # type: ignore[attr-defined]
    assert told["generated"] and told["seed"] == 3 and "little flow" in told["generator"]
    again = client.images.generate(prompt="buy milk and bread", n=2, size="96x64", output_format="webp",
                                   extra_body={"seed": 3})  # fmt: skip
    assert again.data == answer.data
    assert opened((client.images.generate(prompt="sea").data or [])[0].b64_json)[0].size == (SIDE, SIDE)


def test_a_picture_is_streamed_as_it_comes_to_be(client: OpenAI) -> None:
    events = list(client.images.generate(prompt="a red thing", stream=True, partial_images=3))
    *partial, last = events
    assert [one.type for one in partial] == ["image_generation.partial_image"] * 3
    assert [one.partial_image_index for one in partial] == [0, 1, 2]  # type: ignore[union-attr]
    assert last.type == "image_generation.completed" and last.usage.output_tokens == 1
    assert len({one.b64_json for one in events}) == 4
    whole = client.images.generate(prompt="a red thing").data
    assert whole and whole[0].b64_json == last.b64_json


def test_edits_keep_what_is_known(client: OpenAI, tmp_path: Path) -> None:
    hole = holed(tmp_path / "hole.png")
    Image.new("RGB", (64, 64), (128, 128, 128)).save(tmp_path / "grey.png")
    drawn = []
    for given in ({"image": hole}, {"image": tmp_path / "grey.png", "mask": hole}):
        answer = client.images.edit(**given, prompt="a red thing")  # type: ignore[call-overload]
        image, mark = opened(answer.data[0].b64_json)
        array = np.asarray(image).astype(int)
        # scaling blurs the edge between the two
        kept, made = array[:, : SIDE // 2 - 3], array[:, SIDE // 2 :]
        assert abs(kept - 128).max() <= 1 < abs(made - 128).max()
        assert mark.composite
        drawn.append(array)
    assert (drawn[0] == drawn[1]).all()
    *_, last = client.images.edit(image=hole, prompt="a red thing", stream=True, partial_images=1)
    assert last.type == "image_edit.completed"
    small = holed(tmp_path / "small.png", (32, 32))
    for image, mask in (("grey.png", None), ("grey.png", small), ("hole.png", tmp_path / "grey.png")):
        with pytest.raises(openai.BadRequestError):
            client.images.edit(image=tmp_path / image, prompt="x", **({"mask": mask} if mask else {}))


def test_variations_are_drawn_from_a_code(client: OpenAI) -> None:
    first, second = (
        client.images.create_variation(image=media_of() / f"photo-{i}.png", n=1, size="256x256")
        for i in (0, 1)
    )
    assert first.data and second.data and first.data != second.data
    assert opened(first.data[0].b64_json)[0].size == (256, 256)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"response_format": "url"}, "response_format"),
        ({"size": "9999x9999"}, "size"),
        ({"size": "big"}, "size"),
        ({"n": 11}, "n"),
        ({"n": 2, "stream": True}, "n"),
        ({"style": "vivid"}, "style"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "svg"}, "output_format"),
    ],
)
def test_pictures_that_cannot_be_are_named(client: OpenAI, more: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(**{"prompt": "x", **more})
    assert refused.value.param == param


def test_broken_forms_are_refused(drawing: str) -> None:
    for path, field in (
        ("images/edits", "image"),
        ("images/variations", "image"),
    ):
        url = f"{drawing}/v1/{path}"
        fields = {"prompt": "x", "model": "harmonia"}
        for files in ({field: b"no media"}, {field: b""}, {field: b"\x89PNG\r\n\x1a\nbroken"}, {"x": b"x"}):
            answer = httpx.post(url, data=fields, files=files)
            assert answer.status_code == 400 and answer.json()["error"]["message"], (path, answer.text)
        assert httpx.post(url, json=fields).status_code == 400


def test_a_conversation_can_imagine(client: OpenAI) -> None:
    ask: Any = {
        "model": "harmonia-imagine",
        "messages": [{"role": "user", "content": "milk"}],
        "n": 2,
        "seed": 1,
    }
    first, second = client.chat.completions.create(**ask).choices
    assert "generated, not remembered" in (first.message.content or "")
    images = [one.message.harmonia["image"]["b64_json"] for one in (first, second)]  # type: ignore[attr-defined]
    assert images[0] != images[1] and opened(images[0])[1].seed == 1
    *_, last = client.chat.completions.create(**ask, stream=True)
    assert last.choices[0].delta.harmonia["image"]["b64_json"] == images[1]  # type: ignore[attr-defined]
    answer = client.responses.create(model="harmonia-imagine", input="milk")
    drawn, message = answer.output
    assert drawn.type == "image_generation_call" and opened(drawn.result)[1].generator == "little flow"
    assert message.type == "message"
    with client.responses.stream(model="harmonia-imagine", input="milk") as stream:
        assert stream.get_final_response().output[0].type == "image_generation_call"


def wave_file(path: Path) -> Path:
    return make_tone(path, seconds=0.5)


CALLS: dict[str, Callable[[Any, Path], Any]] = {
    "generate": lambda c, f: c.images.generate(prompt="x"),
    "generate, streamed": lambda c, f: c.images.generate(prompt="x", stream=True),
    "edit": lambda c, f: c.images.edit(image=holed(f / "hole.png"), prompt="x"),
    "variation": lambda c, f: c.images.create_variation(image=make_photo(f / "photo.png")),
    "speech": lambda c, f: c.audio.speech.create(model="harmonia", input="hello", voice="alloy"),
    "transcription": lambda c, f: c.audio.transcriptions.create(
        model="harmonia", file=wave_file(f / "a.wav")
    ),
    "transcription, streamed": lambda c, f: c.audio.transcriptions.create(
        model="harmonia", file=wave_file(f / "a.wav"), stream=True, response_format="json", language="de"
    ),
    "translation": lambda c, f: c.audio.translations.create(model="harmonia", file=wave_file(f / "a.wav")),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_missing_model_is_the_clients_own_error(bare: str, name: str, tmp_path: Path) -> None:
    def check(missing: Any) -> None:
        assert missing.value.status_code == 501 and missing.value.code == "model_not_available"
        assert "needs a model that is not available" in missing.value.message
        assert missing.value.response.request.headers["x-stainless-retry-count"] == "0"

    with pytest.raises(openai.InternalServerError) as missing:
        CALLS[name](OpenAI(base_url=f"{bare}/v1", api_key="none"), tmp_path)
    check(missing)

    async def ask() -> None:
        async with AsyncOpenAI(base_url=f"{bare}/v1", api_key="none") as client:
            await CALLS[name](client, tmp_path)

    with pytest.raises(openai.InternalServerError) as missing:
        asyncio.run(ask())
    check(missing)


@pytest.mark.parametrize("task", ["speech", "transcriptions", "translations"])
def test_speech_is_refused_whatever_is_sent(bare: str, task: str) -> None:
    url = f"{bare}/v1/audio/{task}"
    bodies: list[dict[str, Any]] = [
        {"data": {"model": "harmonia"}, "files": {"file": ("a.wav", bytes(3 * 2**20))}}, {"json": {}}, {},
    ]  # fmt: skip
    for body in bodies:
        answer = httpx.post(url, **body)
        assert answer.status_code == 501 and answer.headers["x-should-retry"] == "false"
        error = answer.json()["error"]
        assert error["code"] == "model_not_available"
        assert re.match("speech .+ needs a model that is not available: .+", error["message"])


@pytest.fixture(scope="module")
def endless(folder: Path) -> FastAPI:
    """An app whose pictures take longer than anyone waits."""
    (folder / "endless").mkdir()
    where = generator(folder / "slow", FOREVER)
    return create_app(Settings(memory_of(folder / "endless"), generator=str(where)))


def test_who_goes_away_leaves_nothing_running(endless: FastAPI) -> None:
    working = endless.state.service.working

    def free() -> bool:
        """Whether both threads can meet, so that neither draws."""
        meeting = threading.Barrier(2)

        def meet() -> bool:
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait(0.5)
                return True
            return False

        first, second = working.submit(meet), working.submit(meet)
        return bool(first.result(30) and second.result(30))

    def until(wanted: bool) -> None:
        limit = time.monotonic() + 60
        while free() != wanted:
            assert time.monotonic() < limit, "the drawing went on" if wanted else "nothing was drawn"

    with serve(endless) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
        stream = client.images.generate(prompt="a red thing", stream=True, partial_images=1)
        until(False)
        stream.close()
        until(True)
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=1.5).images.generate(prompt="a red thing")
        until(True)


def events_of(connection: Any) -> list[Any]:
    """Events up to the end of a response, or an error."""
    found = []
    while not found or found[-1].type not in ("response.done", "error"):
        found.append(connection.recv())
    return found


def message(*content: dict[str, Any]) -> Any:
    return {"type": "message", "role": "user", "content": list(content)}


def pcm(hz: float) -> str:
    return base64.b64encode((tone(1.0, hz, 24_000) * 32767).astype("<i2").tobytes()).decode()


def test_a_realtime_session(client: OpenAI) -> None:
    with client.realtime.connect(model="harmonia") as connection:
        created = connection.recv()
        assert created.type == "session.created" and created.session.output_modalities == ["text"]
        connection.session.update(session={"type": "realtime", "instructions": "be brief"})
        updated = connection.recv()
        assert updated.type == "session.updated" and updated.session.instructions == "be brief"
        connection.conversation.item.create(item=message({"type": "input_text", "text": "milk"}))
        added, done = connection.recv(), connection.recv()
        assert (added.type, done.type) == ("conversation.item.added", "conversation.item.done")
        connection.response.create()
        events = events_of(connection)
        assert list(dict.fromkeys(one.type for one in events)) == [
            "response.created", "response.output_item.added", "conversation.item.added",
            "response.content_part.added", "response.output_text.delta", "response.output_text.done",
            "response.content_part.done", "conversation.item.done", "response.output_item.done",
            "response.done",
        ]  # fmt: skip
        text = "".join(one.delta for one in events if one.type == "response.output_text.delta")
        ended = events[-1].response
        assert "buy milk and bread" in text and ended.status == "completed"
        assert ended.output[0].content[0].text == text and ended.output[0].harmonia["evidence"]
        assert ended.usage.input_tokens == 1 and ended.usage.output_tokens == len(text.split())
        connection.response.create(response={"max_output_tokens": 2})
        assert events_of(connection)[-1].response.status == "incomplete"
        connection.conversation.item.delete(item_id=added.item.id)
        assert connection.recv().type == "conversation.item.deleted"


def test_sounds_and_pictures_are_cues_in_realtime(client: OpenAI) -> None:
    photo = base64.b64encode((media_of() / "photo-2.png").read_bytes()).decode()
    with client.realtime.connect(model="harmonia") as connection:
        connection.recv()
        for part, wanted in (
            ({"type": "input_audio", "audio": pcm(880.0)}, "a high tone"),
            ({"type": "input_image", "image_url": f"data:image/png;base64,{photo}"}, "the photo number 2"),
        ):
            connection.conversation.item.create(item=message(part))
            assert [connection.recv().type for _ in range(2)][-1] == "conversation.item.done"
            connection.response.create()
            assert wanted in events_of(connection)[-1].response.output[0].content[0].text.split(";")[0]
        connection.input_audio_buffer.append(audio=pcm(880.0))
        connection.input_audio_buffer.commit()
        assert connection.recv().type == "input_audio_buffer.committed"
        connection.recv(), connection.recv()
        connection.response.create()
        assert "a high tone" in events_of(connection)[-1].response.output[0].content[0].text


def test_what_is_wrong_in_realtime_is_an_event(client: OpenAI) -> None:
    with client.realtime.connect(model="harmonia") as connection:
        connection.recv()
        aloud = {"output_modalities": ["audio"]}
        for wrong, code in (
            ({"type": "response.create", "response": aloud}, "model_not_available"),
            ({"type": "session.update", "session": aloud}, "model_not_available"),
            ({"type": "session.update", "session": {"tools": [{}]}}, "unsupported_parameter"),
            ({"type": "nothing.known"}, "invalid_value"),
            ({"type": "response.cancel"}, "response_cancel_not_active"),
            ({"type": "response.create"}, None),
            ({"type": "input_audio_buffer.commit"}, "input_audio_buffer_commit_empty"),
            ({"type": "conversation.item.delete", "item_id": "x"}, "item_not_found"),
            ({"type": "conversation.item.create", "item": message({"type": "input_audio", "audio": "AAAA"}),
              "event_id": "mine"}, None),
        ):  # fmt: skip
            connection.send(wrong)  # type: ignore[arg-type]
            told = connection.recv()
            assert told.type == "error" and told.error.code == code, told
            assert told.error.event_id == wrong.get("event_id")
        connection.conversation.item.create(item=message({"type": "input_text", "text": "milk"}))
        assert connection.recv().type == "conversation.item.added"

    async def ask() -> None:
        client_ = AsyncOpenAI(base_url=client.base_url, api_key="none")
        async with client_.realtime.connect(model="gpt-9") as connection:
            told = await connection.recv()
            assert told.type == "error" and told.error.code == "model_not_found"

    asyncio.run(ask())


def test_the_limits_of_realtime(folder: Path) -> None:
    (folder / "limits").mkdir()
    secret = new_key(folder / "keys.json", "reader", "read")
    settings = Settings(memory_of(folder / "limits"), keys=folder / "keys.json", rate=20, burst=8)
    app = create_app(settings)
    with serve(app) as url:
        address = url.replace("http", "ws") + "/v1/realtime"
        for offered in (None, ["realtime"], ["realtime", "openai-insecure-api-key.hm-wrong"]):
            with pytest.raises(InvalidStatus) as told:
                connect(address, subprotocols=offered)  # type: ignore[arg-type]
            assert told.value.response.status_code == 401
            assert json.loads(told.value.response.body or b"")["error"]["type"] == "authentication_error"
            assert told.value.response.headers["x-request-id"]
        offered = ["realtime", f"openai-insecure-api-key.{secret}"]
        with connect(address, subprotocols=offered) as socket:  # type: ignore[arg-type]
            assert socket.subprotocol == "realtime"
            assert json.loads(socket.recv())["type"] == "session.created"
            for wrong in ("{", b"{}", "[" * 10_000, "[]", '"\\ud800"'):
                socket.send(wrong)
                assert json.loads(socket.recv())["type"] == "error"
            start = time.monotonic()
            for _ in range(20):
                socket.send("{}")
            for _ in range(20):
                socket.recv()
            assert time.monotonic() - start > 0.4
            # the head of a frame of 17 MB says all: who still sends when the server closes may miss why
            socket.socket.sendall(struct.pack("!BBQ4x", 0x81, 0xFF, 17 * 2**20))
            with pytest.raises(Exception, match="1009"):
                socket.recv()
        until = time.monotonic() + 60
        while app.state.sessions:
            assert time.monotonic() < until
            time.sleep(0.02)
