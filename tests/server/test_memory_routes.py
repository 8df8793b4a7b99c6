"""The memory's own endpoints, over a real uvicorn on loopback: recall, records, pictures."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from harmonia.modalities.image import mark_of
from harmonia.server.filters import where_of
from harmonia.server.schemas.filters import Comparison, Compound
from harmonia.server.settings import Settings
from tests.media import make_photo, make_tone
from tests.serving import base64_of, failed, generator_of, media_of, memory_of, recall, serve, words

Json = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("memory-routes")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    (folder / "root").mkdir()
    settings = Settings(memory_of(folder), roots=(folder / "root",), generator=str(generator_of(folder)))
    with serve(settings) as url, httpx.Client(base_url=url, timeout=60) as found:
        yield found


def count(client: httpx.Client) -> int:
    return int(client.get("/v1/memory/status").json()["records"])


def test_any_part_brings_back_the_whole(client: httpx.Client) -> None:
    for cue in (
        {"image": base64_of("photo-4.png")},
        {"image": "data:image/png;base64," + base64_of("photo-4.png")},
    ):
        found = recall(client, cue, k=3)
        assert words(found["records"][0]) == "the photo number 4 of a green thing"
        assert found["records"][0]["probability"] > 0.5 and len(found["records"]) == 3
    found = recall(client, {"audio": base64_of("tone-1.wav")}, k=1)
    part = next(p for p in found["records"][0]["parts"] if p["modality"] == "audio")
    assert set(part) == {"modality", "text", "start", "end", "unit", "digest", "media", "preview"}
    assert part["media"] == f"/v1/memory/media/{part['digest']}" and part["preview"].startswith(part["media"])
    found = recall(client, {"video": base64_of("film.mp4")}, k=1)
    assert words(found["records"][0]) == "shapes that move"
    assert set(found) == {"object", "records", "abstained", "certificate"}
    assert found["certificate"]["steps"] >= 0 and found["certificate"]["energies"]


def test_cues_have_names_weights_and_trust(client: httpx.Client) -> None:
    cues = [
        {"image": base64_of("photo-1.png"), "name": "sketch", "trust": 2.0},
        {"text": "photo number 1", "weight": 0.5},
        {"text": "milk", "weight": -1.0},
    ]
    found = recall(client, *cues, explain=True, against=["dentist"])
    first = found["records"][0]
    assert words(first).startswith("the photo number 1")
    assert set(first["shares"]) == {"sketch", "text 1", "text 2", "not dentist"}
    assert sum(first["adds"].values()) == pytest.approx(first["score"], abs=1e-4)
    assert first["matches"]["sketch"]["modality"] == "image"
    assert any("Every record was scored" in line for line in found["explanation"])
    alone = recall(client, cues[0], explain=True)["records"][0]
    clamped = recall(client, cues[0] | {"trust": None}, explain=True)["records"][0]
    assert alone["score"] != clamped["score"]


def test_a_form_is_answered_as_its_json(client: httpx.Client) -> None:
    with (media_of() / "photo-2.png").open("rb") as file:
        asked = {"cues": [{"image": "cid:mine"}, {"text": "blue"}], "k": 2}
        answer = client.post("/v1/memory/recall", data={"request": json.dumps(asked)}, files={"mine": file})
    same = recall(client, {"image": base64_of("photo-2.png")}, {"text": "blue"}, k=2)
    assert [r["id"] for r in answer.json()["records"]] == [r["id"] for r in same["records"]]
    for said in (
        '{"cues": [{"image": "cid:other"}]}',
        "{",
        '{"cues": []}',
        '{"cues": [{"text": "a", "x": 1}]}',
    ):
        answer = client.post("/v1/memory/recall", data={"request": said}, files={"mine": b"x"})
        assert failed(answer)["param"]
    assert failed(client.post("/v1/memory/recall", files={"mine": b"x"}))["param"] == "request"


def test_retrieve_and_answer_take_the_same_cues(client: httpx.Client) -> None:
    body = {"cues": [{"image": base64_of("photo-4.png")}], "k": 2}
    found = client.post("/v1/memory/retrieve", json={**body, "metric": "euclidean"}).json()
    assert found["object"] == "memory.neighbours"
    assert [one["rank"] for one in found["records"]] == [1, 2]
    assert words(found["records"][0]) == "the photo number 4 of a green thing"
    assert found["records"][0]["similarity"] > found["records"][1]["similarity"]
    answer = client.post("/v1/memory/answer", json=body).json()
    assert not answer["abstained"] and "the photo number 4" in answer["text"]
    assert len(answer["recollection"]["records"]) == 2
    form = {"cues": [{"image": "cid:mine"}], "k": 2}
    file = (media_of() / "photo-4.png").read_bytes()
    for name, same in (("retrieve", found["records"]), ("answer", answer["recollection"]["records"])):
        sent = client.post(
            f"/v1/memory/{name}", data={"request": json.dumps(form)}, files={"mine": file}
        ).json()
        assert [one["id"] for one in sent.get("recollection", sent)["records"]] == [one["id"] for one in same]
    assert (
        failed(client.post("/v1/memory/retrieve", json={**body, "metric": "manhattan"}))["param"] == "metric"
    )


def test_weights_by_name_and_records_of_the_cues_left_out(client: httpx.Client) -> None:
    cues = [{"image": base64_of("photo-1.png"), "name": "sketch"}, {"text": "milk"}]
    weighted = [cues[0] | {"weight": 0.5}, cues[1] | {"weight": 2.0}]
    by_cue = recall(client, *weighted, explain=True)["records"]
    by_name = recall(client, *cues, weights={"sketch": 0.5, "text": 2.0}, explain=True)["records"]
    assert [one["adds"] for one in by_name] == [one["adds"] for one in by_cue]
    assert by_name[0]["adds"] != recall(client, *cues, explain=True)["records"][0]["adds"]
    whole = recall(client, cues[0], k=20)["records"]
    others = recall(client, cues[0], k=20, leave_out_cues=True)["records"]
    assert words(whole[0]).startswith("the photo number 1")
    assert whole[0]["id"] not in [one["id"] for one in others] and others


def test_more_like_this_and_not_this(client: httpx.Client) -> None:
    first, second = recall(client, {"text": "photo"}, k=2)["records"]
    more = recall(client, {"record": first["id"]}, k=20)["records"]
    assert first["id"] not in [one["id"] for one in more]
    less = recall(client, {"text": "photo"}, not_like=[second["id"]], k=20)["records"]
    assert second["id"] not in [one["id"] for one in less]
    assert failed(client.post("/v1/memory/recall", json={"cues": [{"record": "0" * 32}]}), 404)


def test_cues_that_cannot_be_meant(client: httpx.Client) -> None:
    for cues in (
        [], [{}], [{"text": ""}], [{"text": "a", "image": "b"}], [{"image": "no base64!"}],
        [{"image": base64_of("tone-0.wav")}], [{"audio": base64.b64encode(b"\0" * 99).decode()}],
        [{"text": "a", "weight": 1e9}], [{"text": "a", "trust": -1}], [{"record": "../../etc"}],
        [{"text": "a"}] * 17,
        [{"image": base64.b64encode((media_of() / "photo-1.png").read_bytes()[:200]).decode()}],
    ):  # fmt: skip
        failed(client.post("/v1/memory/recall", json={"cues": cues}))
    for options in (
        {"k": 0},
        {"k": 1001},
        {"alpha": 0.5},
        {"steps": -1},
        {"beta": 0},
        {"where": "nope ="},
        {"x": 1},
    ):
        failed(client.post("/v1/memory/recall", json={"cues": [{"text": "a"}], **options}))
    for body in (b"", b"[]", b'{"cues": [{"text": "\\ud800"}]}', b'{"cues": NaN}', b"[" * 100_000, b"\xff"):
        failed(client.post("/v1/memory/recall", content=body, headers={"Content-Type": "application/json"}))


def test_filters_take_nothing_as_sql(client: httpx.Client) -> None:
    def ids(given: Json) -> int:
        answer = client.get("/v1/memory/records", params={"filters": json.dumps(given), "limit": 1000})
        assert answer.status_code == 200, answer.text
        return len(answer.json()["data"])

    def eq(value: Any, kind: str = "eq", key: str = "tag") -> Json:
        return {"type": kind, "key": key, "value": value}

    assert ids(eq("photo")) == 6 and ids(eq("photo", "ne")) == count(client) - 6
    assert ids(eq(["photo", "film"], "in")) == 7 and ids(eq(2022, "gt", "year")) == 5
    assert ids({"type": "and", "filters": [eq("photo"), {"type": "or", "filters": [
        eq(2020, key="year"), eq(2021, "lte", "year")]}]}) == 2  # fmt: skip
    for hostile in ("x' OR 1=1 --", "' OR '1'='1", "\\' OR 1=1", "photo'; DROP TABLE records", "x` OR `"):
        assert ids(eq(hostile)) == 0
        assert ids(eq([hostile], "in")) == 0
        answer = client.get("/v1/memory/records", params={"filters": json.dumps(eq(1, key=hostile))})
        assert answer.json()["data"] == []  # no record has it
    deep: Json = eq("photo")
    for _ in range(9):
        deep = {"type": "and", "filters": [deep]}
    for wrong in (
        deep,
        eq([1]),
        eq("x", "in"),
        eq(10**30),
        eq([], "in"),
        eq("x", "like"),
        {"type": "and"},
        3,
    ):
        failed(client.get("/v1/memory/records", params={"filters": json.dumps(wrong)}))
    found = recall(client, {"text": "photo"}, filters=eq("sound"), where="year = 2020", k=5)["records"]
    assert [words(one) for one in found] == ["a low tone"]
    assert str(where_of(Compound(type="or", filters=[Comparison(type="eq", key="A b'`", value="it's")]))) == (
        "a_b__ = 'it''s'"
    )


def test_the_list_has_every_record_once(client: httpx.Client) -> None:
    for order in ("asc", "desc"):
        seen: list[str] = []
        page: Json = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"after": page["last_id"]} if page["last_id"] else {}
            page = client.get("/v1/memory/records", params={"limit": 4, "order": order, **after}).json()
            seen += [one["id"] for one in page["data"]]
        assert len(seen) == len(set(seen)) == count(client)
    for unknown in ("0" * 32, "x" * 500, "'; --", "\0", "🚀"):
        for path in ("/v1/memory/records", "/v1/memory/jobs", "/v1/files", "/v1/vector_stores"):
            page = client.get(path, params={"after": unknown}).json()
            assert page["data"] == [] and not page["has_more"] and page["last_id"] is None, (path, page)


def test_a_record_is_made_read_described_and_forgotten(client: httpx.Client, folder: Path) -> None:
    photo = make_photo(folder / "beach.jpg", seed=50).read_bytes()
    form = {"text": "the beach at noon", "metadata": '{"tag": "mine", "place": {"x": 1}}'}
    # the name says text, the bytes say JPEG
    files = {"files": ("../../be\\ach day.txt", photo, "text/html")}
    before = count(client)
    answer = client.post("/v1/memory/records", data=form, files=files)
    assert answer.status_code == 201 and answer.json()["created"] is True
    record = answer.json()
    size = {"width": 320, "height": 240}  # what the file says of itself
    assert record["metadata"] == {"name": "ach day", "tag": "mine", "place": {"x": 1}, **size}
    assert {part["modality"] for part in record["parts"]} == {"image", "text"}
    media = next(part["media"] for part in record["parts"] if part["modality"] == "image")
    kept = list((folder / "memory" / "media").rglob(media.rpartition("/")[2] + "*"))
    assert [file.suffix for file in kept] == [".jpg"] and kept[0].read_bytes() == photo
    again = client.post("/v1/memory/records", data=form, files=files)
    assert (
        again.status_code == 200 and again.json()["created"] is False and again.json()["id"] == record["id"]
    )
    assert count(client) == before + 1
    found = recall(client, {"image": base64.b64encode(photo).decode()}, k=1)["records"][0]
    assert found["id"] == record["id"]

    address = f"/v1/memory/records/{record['id']}"
    changed = client.patch(address, json={"metadata": {"tag": "sea", "stars": 5}}).json()
    assert changed["metadata"] == record["metadata"] | {"tag": "sea", "stars": 5}
    assert client.get(address).json() == changed
    for wrong in ({"x": "\ud800"}, {str(i): i for i in range(100)}, {"": 1}, {"x": "y" * 100_000}):
        failed(client.patch(address, content=json.dumps({"metadata": wrong}),
                            headers={"Content-Type": "application/json"}))  # fmt: skip
    nan = b'{"metadata": {"x": NaN}}'
    failed(client.patch(address, content=nan, headers={"Content-Type": "application/json"}))

    assert client.get(media + "/preview").status_code == 200
    assert client.delete(address).json()["deleted"] is True
    for method, path in (("GET", address), ("DELETE", address), ("GET", media), ("GET", media + "/preview")):
        failed(client.request(method, path), 404)
    failed(client.patch(address, json={"metadata": {}}), 404)
    assert not kept[0].exists() and not list((folder / "memory" / ".cache").rglob("*.png"))
    # a beginning of an id is no id
    failed(client.delete(f"/v1/memory/records/{found['id'][:8]}"), 404)


def test_what_cannot_be_read_leaves_nothing(client: httpx.Client, folder: Path) -> None:
    good = make_photo(folder / "good.png", seed=60).read_bytes()
    sound = make_tone(folder / "good.wav", hz=333).read_bytes()
    before = count(client)
    for files in (
        [("files", ("cut.png", good[:500]))],
        [("files", ("what.png", b"\0\1\2\3" * 50))],
        [("files", ("good.wav", sound)), ("files", ("cut.png", good[:500]))],
        [("files", ("empty.jpg", b""))],
    ):
        error = failed(client.post("/v1/memory/records", files=files))
        assert error["code"] == "unsupported_media" and error["message"]
        assert str(folder) not in error["message"]
    failed(client.post("/v1/memory/records", data={"text": "  "}))
    failed(client.post("/v1/memory/records", data={"metadata": "{}"}))
    failed(client.post("/v1/memory/records", data={"text": "a", "metadata": "[1]"}))
    assert count(client) == before
    assert not list((folder / "memory" / ".server" / "incoming").iterdir())
    three = [("files", ("a.png", good)), ("files", ("b.png", good[:500])), ("files", ("c.wav", sound))]
    answer = client.post("/v1/memory/records", files=three, data={"separate": "true"})
    assert answer.status_code == 201 and len(answer.json()["data"]) == 2
    assert [one["name"] for one in answer.json()["problems"]] == ["b"]
    assert count(client) == before + 2
    for one in answer.json()["data"]:
        client.delete(f"/v1/memory/records/{one['id']}")


def test_pictures_of_settling_and_the_report(client: httpx.Client) -> None:
    answer = client.post("/v1/memory/landscape", json={"cues": [{"text": "photo number 3"}]})
    assert answer.headers["content-type"] == "image/png"
    assert min(Image.open(io.BytesIO(answer.content)).size) > 400
    begin = time.process_time()  # the server is a thread of this process
    report = client.get("/v1/memory/report").json()
    took, begin = time.process_time() - begin, time.process_time()
    assert client.get("/v1/memory/report").json() == report
    assert time.process_time() - begin < took / 2
    assert {one["modality"] for one in report["encoders"]} == {"text", "image", "audio", "video"}


def test_imagined_pictures_say_so(client: httpx.Client, tmp_path: Path) -> None:
    asked = {"cues": [{"image": base64_of("photo-3.png")}], "n": 2, "seed": 7, "steps": 2}
    found = client.post("/v1/memory/imagine", json=asked).json()
    assert found["generated"] is True and found["model"] == "little flow" and len(found["data"]) == 2
    assert found["evidence"][0]["record"] == recall(client, asked["cues"][0], k=1)["records"][0]["id"]
    mark = mark_of(base64.b64decode(found["data"][0]["b64_json"]))
    assert mark and mark.seed == 7 and mark.generator == "little flow"
    assert client.post("/v1/memory/imagine", json=asked).json()["data"] == found["data"]
    raw = client.post("/v1/memory/imagine", json=asked | {"from_memory": False}).json()
    assert raw["evidence"] == [] and raw["how"] == "from the cue itself" and len(raw["data"]) == 2
    like = {"cues": [{"record": found["evidence"][0]["record"]}], "steps": 2}
    assert client.post("/v1/memory/imagine", json=like).json()["evidence"]
    failed(client.post("/v1/memory/imagine", json=like | {"from_memory": False}))
    failed(client.post("/v1/memory/imagine", json=asked | {"to": "audio"}))
    none = client.post("/v1/memory/imagine", json=asked | {"where": "year = 1"}).json()
    assert none["abstained"] and none["data"] == none["evidence"] == [] and not found["abstained"]
    with serve(Settings(tmp_path / "none", generator=str(tmp_path / "no"))) as url:
        error = failed(httpx.post(url + "/v1/memory/imagine", json=asked), 501)
    assert error["code"] == "model_not_available" and "harmonia train imagine-mini" in error["message"]


def test_many_clients_have_each_their_own_answer(client: httpx.Client) -> None:
    alone = [recall(client, {"text": f"photo number {i}"}, k=2)["records"] for i in range(6)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: recall(client, {"text": f"photo number {i % 6}"}, k=2), range(48)))
    for i, answer in enumerate(found):
        assert [r["id"] for r in answer["records"]] == [r["id"] for r in alone[i % 6]]
        for one, other in zip(answer["records"], alone[i % 6], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def nothing_matches(client: httpx.Client) -> bool:
    """Whether every way to ask answers that nothing matches."""
    cues, model = {"cues": [{"text": "a"}]}, {"model": "harmonia"}
    asked = {"messages": [{"role": "user", "content": "a"}]}
    recalled, told, chat, searched, listed = (
        client.post(f"/v1/{path}", json=body).json()
        for path, body in (
            ("memory/recall", cues), ("memory/answer", cues), ("chat/completions", model | asked),
            ("vector_stores/vs_memory/search", {"query": "a"}), ("memory/retrieve", cues),
        )
    )  # fmt: skip
    assert (
        recalled["records"] == told["recollection"]["records"] == searched["data"] == listed["records"] == []
    )
    assert chat["choices"][0]["message"]["harmonia"] == {"evidence": [], "abstained": True}
    return bool(recalled["abstained"] and told["abstained"] and searched["abstained"])


def test_an_empty_memory_matches_nothing(tmp_path: Path) -> None:
    with serve(Settings(tmp_path / "none")) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert nothing_matches(client)
        error = failed(client.post("/v1/memory/landscape", json={"cues": [{"text": "a"}]}))
        assert "remember something first" in error["message"] and str(tmp_path) not in error["message"]
        assert client.get("/v1/memory/records").json()["data"] == []
        failed(client.get("/v1/memory/report"))
        failed(client.get("/v1/memory/media/" + "0" * 64), 404)
        kept = client.post("/v1/memory/records", files={"files": ("a.txt", b"the first thing")})
        assert kept.status_code == 201
        assert recall(client, {"text": "the first thing"})["records"][0]["id"] == kept.json()["id"]
        assert client.delete(f"/v1/memory/records/{kept.json()['id']}").is_success
        assert nothing_matches(client)


def test_the_api_describes_itself(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths["/v1/memory/recall"]["post"]["requestBody"]["content"]) == {
        "application/json", "multipart/form-data",
    }  # fmt: skip
    operations = [one["operationId"] for path in paths.values() for one in path.values()]
    assert len(operations) == len(set(operations))
