"""OpenAI's data endpoints, driven by its own client over a real server: models, embeddings, files, stores."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from fastapi import FastAPI

from harmonia.collection.collection import Memory
from harmonia.collection.encoder_set import EncoderSet
from harmonia.server.app import create_app
from harmonia.server.keys import new_key
from harmonia.server.settings import Settings
from harmonia.types import Signal
from tests.media import make_photo, make_tone
from tests.places import ROOT
from tests.serving import media_of, memory_of, serve

BROKEN = b"\x89PNG\r\n\x1a\n" + b"no picture at all" * 4


def client_of(url: str, key: str = "none", **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, **more)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return memory_of(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def app(root: Path) -> FastAPI:
    return create_app(Settings(root, upload=2**20))


@pytest.fixture(scope="module")
def url(app: FastAPI) -> Iterator[str]:
    with serve(app) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> openai.OpenAI:
    return client_of(url)


def data_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def code_of(error: pytest.ExceptionInfo[openai.APIStatusError]) -> Any:
    """What the one error body says, which the client raises."""
    assert isinstance(error.value.body, dict)
    assert set(error.value.body) == {"message", "type", "param", "code"}
    return error.value.body["code"]


def upload(client: openai.OpenAI, name: str, content: bytes) -> str:
    return client.files.create(file=(name, content), purpose="assistants").id


# Models


def test_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[:3] == ["harmonia", "descriptors", "mini"]
    one = client.models.retrieve("mini")
    assert (one.id, one.object, one.owned_by) == ("mini", "model", "harmonia") and one.created > 10**9
    encoder = EncoderSet.load(("descriptors", "mini"), "cpu").encoders[-1].name
    assert "/" in encoder and client.models.retrieve(encoder).id == encoder
    with pytest.raises(openai.NotFoundError, match="available are harmonia, descriptors, mini") as error:
        client.models.retrieve("gpt-4o")
    assert code_of(error) == "model_not_found"


# Embeddings


def vectors(client: openai.OpenAI, given: Any, **more: Any) -> np.ndarray[Any, Any]:
    found = client.embeddings.create(**{"model": "harmonia", "input": given, **more})
    assert [one.index for one in found.data] == list(range(len(found.data)))
    return np.asarray([one.embedding for one in found.data], np.float32)


def test_text_embeddings_are_the_codes_of_the_shared_space(client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="harmonia", input=["a dog on a beach", "rain"], user="me")
    assert (found.usage.prompt_tokens, found.usage.total_tokens, found.model) == (6, 6, "harmonia")
    by_base64 = np.asarray([one.embedding for one in found.data], np.float32)
    by_float = vectors(client, ["a dog on a beach", "rain"], encoding_format="float")
    codes = EncoderSet.load(("mini",), "cpu").encode(
        [Signal("text", "a dog on a beach"), Signal("text", "rain")]
    )
    assert np.allclose(by_base64, [code[0].vector for code in codes], atol=1e-5)
    assert np.allclose(by_float, by_base64, atol=1e-7)
    assert np.allclose(np.linalg.norm(by_base64, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors(client, "rain")[0], by_base64[1], atol=1e-5)
    # all of a long text counts, not only its beginning
    assert not np.allclose(vectors(client, "rain. " * 400), vectors(client, "rain. " * 300 + "snow. " * 300))


def test_one_vector_for_each_object_and_one_for_all_its_parts(client: openai.OpenAI) -> None:
    photo, tone = data_url(media_of() / "photo-0.png"), media_of() / "tone-0.wav"
    sound = base64.b64encode(tone.read_bytes()).decode()
    film = base64.b64encode((media_of() / "film.mp4").read_bytes()).decode()
    each = vectors(client, [{"text": "a red thing"}, {"image": photo}, {"audio": sound}, {"video": film}])
    assert each.shape == (4, 128)
    fused = vectors(client, {"text": "a red thing", "image": photo, "audio": sound})
    total = each[:3].sum(0)
    assert np.allclose(fused[0], total / np.linalg.norm(total), atol=1e-5)
    short = vectors(client, ["a red thing"], dimensions=32)
    assert np.allclose(short[0], each[0, :32] / np.linalg.norm(each[0, :32]), atol=1e-5)
    assert vectors(client, [{"image": photo}], model="descriptors").shape == (1, 505)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"input": [1, 2, 3]}, "send the text itself"),
        ({"input": [[1], [2]]}, "send the text itself"),
        ({"input": []}, "at least 1 item"),
        ({"input": ""}, "at least 1 character"),
        ({"input": "  "}, "is empty"),
        ({"input": {}}, "at least one of"),
        ({"input": {"smell": "x"}}, "not permitted"),
        ({"input": {"image": "no base64!"}}, "is not valid base64"),
        ({"input": {"image": base64.b64encode(b"text").decode()}}, "is text, not image"),
        ({"input": {"image": base64.b64encode(BROKEN).decode()}}, "damaged"),
        ({"input": "x", "dimensions": 129}, "at most 128 dimensions"),
        ({"input": "x", "dimensions": 0}, "dimensions"),
        ({"input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"input": ["x"] * 2049}, "at most 2048"),
        ({"input": "\ud800"}, "Unicode"),
    ],
)
def test_bad_embeddings(url: str, given: dict[str, Any], says: str) -> None:
    # \ud800 is no UTF-8: escaped JSON brings it all the same
    answer = httpx.post(
        f"{url}/v1/embeddings", content=json.dumps({"model": "harmonia", **given}).encode(),
        headers={"content-type": "application/json"},
    )  # fmt: skip
    assert answer.status_code == 400, answer.text
    assert says.lower() in answer.json()["error"]["message"].lower()


def test_embeddings_by_unknown_and_unfit_models(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="unknown model"):
        vectors(client, "x", model="text-embedding-3-small")
    photo = data_url(media_of() / "photo-0.png")
    with pytest.raises(openai.BadRequestError, match="different spaces"):
        vectors(client, {"text": "x", "image": photo}, model="descriptors")


def test_embeddings_of_many_clients_share_batches(url: str, app: FastAPI) -> None:
    async def ask() -> list[Any]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
            several = [client.embeddings.create(model="mini", input=f"thing {i % 4}") for i in range(16)]
            return [found.data[0].embedding for found in await asyncio.gather(*several)]

    codes = app.state.service.codes
    questions, batches = codes.questions, codes.batches
    found = asyncio.run(ask())
    assert all(np.allclose(found[i], found[i % 4], atol=1e-5) for i in range(16))
    assert codes.questions - questions == 16 > codes.batches - batches


# Files


def test_files(client: openai.OpenAI) -> None:
    content = (media_of() / "photo-3.png").read_bytes()
    one = client.files.create(file=("C:\\pictures\\sea.png", content), purpose="vision")
    assert (one.filename, one.bytes, one.purpose, one.status) == (
        "sea.png", len(content), "vision", "processed",
    )  # fmt: skip
    again = client.files.create(file=("sea 2.png", content), purpose="user_data")
    assert again.id == one.id and client.files.retrieve(one.id).filename == "sea 2.png"
    answer = client.files.content(one.id)
    assert answer.content == content and answer.response.headers["content-type"] == "image/png"
    others = [upload(client, f"{i}.txt", f"a note {i} of some length".encode()) for i in range(3)]
    listed = [file.id for file in client.files.list(limit=2)]  # the client turns the pages
    assert set(listed) >= {one.id, *others} and len(listed) == len(set(listed))
    assert [file.id for file in client.files.list(purpose="user_data")] == [one.id]
    assert client.files.list(limit=2, order="asc").data[0].id in {one.id, *others}
    assert client.files.delete(one.id).deleted
    with pytest.raises(openai.NotFoundError, match="unknown file") as error:
        client.files.content(one.id)
    assert code_of(error) == "file_not_found"


def test_bad_files(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.BadRequestError, match="the file is empty"):
        upload(client, "a.txt", b"")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("a.txt", b"x"), purpose="fun")  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="seconds"):
        client.files.create(
            file=("a.txt", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 1}
        )
    assert client.files.list(after="file-0").data == []
    with pytest.raises(openai.APIStatusError, match="over the limit") as error:
        upload(client, "large.txt", b"x" * 2**21)
    assert error.value.status_code == 413
    for path in ("/v1/files/..%2f..%2fmodel.json/content", "/v1/files/%2e%2e/content", "/v1/files/a%00b"):
        assert httpx.get(url + path).status_code == 404


# Vector stores


def test_stores(client: openai.OpenAI) -> None:
    made = [client.vector_stores.create(name=f"store {i}", metadata={"i": str(i)}) for i in range(3)]
    every = [store.id for store in client.vector_stores.list(limit=2)]
    assert {store.id for store in made} <= set(every) and every[-1] == "vs_memory"
    page = client.vector_stores.list(limit=2, order="asc")
    assert page.data[0].id == "vs_memory" and page.has_more
    second = client.vector_stores.list(limit=2, order="asc", after=page.data[1].id)
    before = client.vector_stores.list(limit=2, order="asc", before=second.data[0].id)
    assert [store.id for store in before][:2] == [store.id for store in page.data]
    changed = client.vector_stores.update(made[0].id, name="mine", metadata={"a": "b"})
    assert (changed.name, changed.metadata, changed.status) == ("mine", {"a": "b"}, "completed")
    assert client.vector_stores.retrieve(made[0].id) == changed
    memory = client.vector_stores.retrieve("vs_memory")
    assert memory.name == "memory" and memory.file_counts.completed >= 11 and memory.usage_bytes > 0
    assert client.vector_stores.delete(made[0].id).deleted
    with pytest.raises(openai.NotFoundError, match="unknown vector store") as error:
        client.vector_stores.retrieve(made[0].id)
    assert code_of(error) == "vector_store_not_found"
    with pytest.raises(openai.BadRequestError, match="the memory itself"):
        client.vector_stores.delete("vs_memory")
    with pytest.raises(openai.BadRequestError, match="does not expire"):
        client.vector_stores.update("vs_memory", expires_after={"anchor": "last_active_at", "days": 1})


def test_what_expires(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    file = client.files.create(
        file=("old.txt", b"an old note"), purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )  # fmt: skip
    assert file.expires_at and 3590 <= file.expires_at - time.time() <= 3600
    store = client.vector_stores.create(name="x", expires_after={"anchor": "last_active_at", "days": 2})
    assert store.expires_at == store.created_at + 2 * 86_400 and store.status == "completed"
    client.vector_stores.search(store.id, query="milk")
    active = client.vector_stores.update(store.id, expires_after={"anchor": "last_active_at", "days": 3})
    assert active.last_active_at and active.expires_at == active.last_active_at + 3 * 86_400
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 4 * 86_400)
    assert client.vector_stores.retrieve(store.id).status == "expired"
    with pytest.raises(openai.BadRequestError, match="has expired"):
        client.vector_stores.search(store.id, query="milk")
    assert file.id not in [one.id for one in client.files.list()]
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    monkeypatch.undo()
    client.vector_stores.delete(store.id)


def test_a_store_from_upload_to_search(client: openai.OpenAI, root: Path, tmp_path: Path) -> None:
    store = client.vector_stores.create(name="kitchen").id
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.files.create(store, file_id="file-0")
    assert client.vector_stores.search(store, query="soup").data == []
    text = upload(client, "soup.txt", b"Boil the potatoes, add leek and salt, and stir until it is a soup.")
    photo = upload(client, "pan.png", make_photo(tmp_path / "pan.png", seed=77).read_bytes())
    one = client.vector_stores.files.create_and_poll(
        text, vector_store_id=store, attributes={"dish": "soup", "stars": 4, "vegan": True}
    )
    assert (one.status, one.last_error, one.id) == ("completed", None, text) and one.usage_bytes == 66
    client.vector_stores.files.create_and_poll(photo, vector_store_id=store, attributes={"dish": "pan"})

    best = client.vector_stores.search(store, query="leek and potatoes soup", rewrite_query=True).data[0]
    assert (best.file_id, best.filename) == (text, "soup.txt") and 0.5 < best.score <= 1
    assert best.content[0].text.startswith("Boil the potatoes")
    said = best.attributes or {}
    assert said["dish"] == "soup" and said["stars"] == 4 and said["vegan"] is True
    assert best.record_id == text.removeprefix("file-") and best.media[0].startswith("/v1/memory/media/")  # type: ignore[attr-defined]
    several = client.vector_stores.search(store, query=["leek", "potatoes"], max_num_results=1)
    assert [one.file_id for one in several] == [text]

    def search(**more: Any) -> set[str]:
        return {one.file_id for one in client.vector_stores.search(store, query="soup", **more)}

    assert search() == {text}
    assert search(filters={"type": "gte", "key": "stars", "value": 4}) == {text}
    both = [{"type": "eq", "key": "dish", "value": "pan"}, {"type": "eq", "key": "vegan", "value": True}]
    assert search(filters=both[0]) == {photo}  # words find a picture where no words are
    assert search(filters={"type": "or", "filters": both}) == {text}
    assert search(filters={"type": "and", "filters": both}) == set()
    assert search(ranking_options={"score_threshold": 1.0}) <= {text}
    assert search(max_num_results=1) == {text}
    # the memory has the note too, and its own store does not leave others out
    assert client.vector_stores.search("vs_memory", query="potatoes leek").data[0].file_id == text

    changed = client.vector_stores.files.update(text, vector_store_id=store, attributes={"dish": "stew"})
    assert changed.attributes is not None and changed.attributes["dish"] == "stew"
    assert "stars" not in changed.attributes and changed.attributes["name"] == "soup"
    assert search(filters=both[0] | {"value": "stew"}) == {text}
    content = client.vector_stores.files.content(text, vector_store_id=store).data
    assert content[0].text is not None and "leek" in content[0].text

    files = client.vector_stores.files
    assert [one.id for one in files.list(store, limit=1, order="asc")] == [text, photo]
    assert files.delete(photo, vector_store_id=store).deleted
    assert [one.id for one in files.list(store)] == [text]
    record = photo.removeprefix("file-")
    assert Memory(root).show(record).metadata["dish"] == "pan"  # it is still remembered
    with pytest.raises(openai.NotFoundError):
        files.retrieve(photo, vector_store_id=store)
    assert files.retrieve(photo, vector_store_id="vs_memory").status == "completed"
    client.files.delete(text)  # OpenAI removes it from every store; so does the memory
    assert search() == set() and record in Memory(root).store.ids()
    assert text.removeprefix("file-") not in Memory(root).store.ids()


def test_bad_searches(client: openai.OpenAI) -> None:
    search = client.vector_stores.search
    for given, says in (
        ({"query": "x", "max_num_results": 51}, "max_num_results"),
        ({"query": "x", "max_num_results": 0}, "max_num_results"),
        ({"query": ""}, "query"),
        ({"query": []}, "query"),
        ({"query": "x", "ranking_options": {"score_threshold": 2}}, "score_threshold"),
        ({"query": "x", "filters": {"type": "like", "key": "a", "value": 1}}, "filters"),
        ({"query": "x", "filters": {"type": "in", "key": "tag", "value": "a"}}, "list of values"),
    ):
        with pytest.raises(openai.BadRequestError, match=says):
            search("vs_memory", **given)  # type: ignore[arg-type]
    sql = {"type": "eq", "key": "tag", "value": "x') OR ('a' = 'a"}
    assert search("vs_memory", query="x", filters=sql).data == []
    unknown = {"type": "eq", "key": "no such key", "value": 1}
    assert search("vs_memory", query="x", filters=unknown).data == []
    tagged = {"type": "in", "key": "tag", "value": ["note", "sound"]}
    names = [one.attributes for one in search("vs_memory", query="milk", filters=tagged)]
    assert len(names) == 4 and all(one and one["tag"] in ("note", "sound") for one in names)


def test_broken_files_say_why(client: openai.OpenAI, root: Path) -> None:
    before = set(Memory(root).store.ids())
    store = client.vector_stores.create(name="broken").id
    broken, odd = upload(client, "broken.png", BROKEN), upload(client, "odd.zip", b"PK\x03\x04\0\0\0\0")
    one = client.vector_stores.files.create_and_poll(broken, vector_store_id=store)
    assert one.status == "failed" and one.last_error is not None
    assert one.last_error.code == "invalid_file" and "broken.png is a damaged PNG" in one.last_error.message
    two = client.vector_stores.files.create_and_poll(odd, vector_store_id=store)
    assert two.last_error is not None and two.last_error.code == "unsupported_file"
    counts = client.vector_stores.retrieve(store).file_counts
    assert (counts.failed, counts.completed, counts.total) == (2, 0, 2)
    assert {x.id for x in client.vector_stores.files.list(store, filter="failed")} == {broken, odd}
    with pytest.raises(openai.BadRequestError, match="is failed"):
        client.vector_stores.files.content(odd, vector_store_id=store)
    client.vector_stores.files.delete(odd, vector_store_id=store)
    assert [x.id for x in client.vector_stores.files.list(store)] == [broken]
    assert set(Memory(root).store.ids()) == before
    with pytest.raises(openai.BadRequestError, match="is reserved"):
        client.vector_stores.files.create(store, file_id=broken, attributes={"path": "/etc"})


def test_batches(client: openai.OpenAI, tmp_path: Path) -> None:
    store = client.vector_stores.create(name="batch").id
    batches = client.vector_stores.file_batches
    files = [(f"{i}.txt", f"the note number {i} of the batch".encode()) for i in range(3)]
    batch = batches.upload_and_poll(store, files=[*files, ("broken.png", BROKEN + b"!")])
    assert batch.status == "completed"
    assert (batch.file_counts.completed, batch.file_counts.failed, batch.file_counts.total) == (3, 1, 4)
    listed = list(batches.list_files(batch.id, vector_store_id=store, limit=2))
    assert len(listed) == 4 and sorted(one.status for one in listed) == ["completed"] * 3 + ["failed"]
    assert len(list(batches.list_files(batch.id, vector_store_id=store, filter="failed"))) == 1
    tone = upload(client, "tone.wav", make_tone(tmp_path / "tone.wav", hz=523.0).read_bytes())
    ids = [one.id for one in listed if one.status == "completed"]
    each = [
        {"file_id": tone, "attributes": {"kind": "tone"}},
        {"file_id": ids[0], "attributes": {"kind": "x"}},
    ]
    second = client.vector_stores.create(name="second", file_ids=ids[:2]).id
    done = batches.create_and_poll(second, files=each)  # type: ignore[arg-type]
    assert done.file_counts.completed == 2
    held = {one.id: one.attributes or {} for one in client.vector_stores.files.list(second)}
    assert set(held) == {tone, *ids[:2]} and held[tone]["kind"] == "tone"
    # one record is in both stores, and stays in the one when the other is deleted
    client.vector_stores.delete(store)
    assert set(held) == {one.id for one in client.vector_stores.files.list(second)}
    for given in ({"file_ids": ids, "files": each}, {}, {"file_ids": []}):
        with pytest.raises(openai.BadRequestError):
            batches.create(second, **given)  # type: ignore[arg-type]
    with pytest.raises(openai.NotFoundError, match="file batch"):
        batches.retrieve(batch.id, vector_store_id=second)


def test_a_cancelled_batch(client: openai.OpenAI, app: FastAPI) -> None:
    store = client.vector_stores.create(name="cancelled").id
    ids = [upload(client, f"{i}.txt", f"a note {i} that nobody waits for".encode()) for i in range(12)]
    batches, gate = client.vector_stores.file_batches, threading.Event()
    app.state.service.jobs.thread.submit(gate.wait)  # the jobs wait, so that the cancelling comes before
    waiting = batches.create(store, file_ids=ids[:4])
    assert waiting.status == "in_progress" and waiting.file_counts.in_progress == 4
    assert client.vector_stores.retrieve(store).status == "in_progress"
    assert batches.cancel(waiting.id, vector_store_id=store).file_counts.cancelled == 4
    assert len(list(client.vector_stores.files.list(store, filter="cancelled"))) == 4
    running = batches.create(store, file_ids=ids[4:])
    gate.set()
    batches.cancel(running.id, vector_store_id=store)
    running = batches.poll(running.id, vector_store_id=store)
    counts, held = running.file_counts, client.vector_stores.retrieve(store).file_counts
    assert counts.completed + counts.cancelled == 8 and held.in_progress == 0
    assert (held.completed, held.cancelled) == (counts.completed, counts.cancelled + 4)
    assert batches.create_and_poll(store, file_ids=ids).file_counts.completed == 12
    assert client.vector_stores.retrieve(store).file_counts.total == 12


def test_async_client(url: str) -> None:
    async def use() -> None:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
            store = await client.vector_stores.create(name="async")
            one = await client.vector_stores.files.upload_and_poll(
                vector_store_id=store.id, file=("sea.txt", b"the sea in winter is grey and loud")
            )
            assert one.status == "completed"
            found = await client.vector_stores.search(store.id, query="winter sea")
            assert [x.file_id async for x in found] == [one.id]
            assert [x.id async for x in client.vector_stores.files.list(store.id)] == [one.id]
            assert (await client.files.content(one.id)).text.startswith("the sea")
            assert (await client.models.list()).data[0].id == "harmonia"
            with pytest.raises(openai.NotFoundError):
                await client.files.retrieve("file-none")

    asyncio.run(use())


# Keys, an empty memory, the end of the process


def test_the_client_raises_its_own_errors(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    reader, writer = (new_key(keys, scope, scope) for scope in ("read", "write"))
    with serve(Settings(tmp_path / "new", keys=keys, rate=0.01, burst=6)) as url:
        with pytest.raises(openai.AuthenticationError, match="give an API key") as error:
            client_of(url, "wrong").models.list()
        assert code_of(error) == "invalid_api_key"
        client = client_of(url, reader)
        assert client.vector_stores.search("vs_memory", query="anything").data == []  # nothing is there yet
        with pytest.raises(openai.PermissionDeniedError, match="may not write"):
            upload(client, "a.txt", b"a note")
        with pytest.raises(openai.PermissionDeniedError, match="scope admin"):
            client.vector_stores.search(
                "vs_memory", query="x", filters={"type": "eq", "key": "path", "value": "/"}
            )
        client = client_of(url, writer)
        one = client.vector_stores.files.upload_and_poll(
            vector_store_id="vs_memory", file=("a.txt", b"a note")
        )
        assert one.status == "completed" and set(one.attributes or {}) == {"name", "modified"}
        assert client.vector_stores.files.list("vs_memory").data[0].id == one.id
        with pytest.raises(openai.RateLimitError, match="slow down") as limited:
            for _ in range(7):
                client.models.list()
        assert code_of(limited) == "rate_limit_exceeded"


SERVER = """
import sys
from pathlib import Path
from tests.serving import serve
from harmonia.server.settings import Settings
with serve(Settings(Path(sys.argv[1]))) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


def test_a_batch_goes_on_after_kill_9(tmp_path: Path) -> None:
    root = tmp_path / "memory"
    paths = os.pathsep.join([str(ROOT), *sys.path])
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, env={**os.environ, "PYTHONPATH": paths},
    )  # fmt: skip
    try:
        assert server.stdout is not None
        client = client_of(server.stdout.readline().strip())
        store = client.vector_stores.create(name="kept").id
        ids = [upload(client, f"{i}.txt", f"note {i}: a thing to keep".encode()) for i in range(20)]
        done = client.vector_stores.files.create_and_poll(ids[0], vector_store_id=store)
        batch = client.vector_stores.file_batches.create(store, file_ids=ids, attributes={"kept": True})
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait(60)
    assert done.status == "completed"
    with serve(Settings(root)) as url:
        client = client_of(url)
        assert {one.id for one in client.files.list()} == set(ids)
        until = time.monotonic() + 120
        while batch.status == "in_progress" and time.monotonic() < until:
            time.sleep(0.05)
            batch = client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store)
        assert (batch.status, batch.file_counts.completed) == ("completed", 20)
        held = list(client.vector_stores.files.list(store, limit=100))
        assert {one.id for one in held} == set(ids)
        assert all(one.attributes and one.attributes["kept"] is True for one in held)
