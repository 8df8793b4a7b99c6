"""Records by date, the timeline of months, and single parts of records as cues, over a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from harmonia.collection.collection import Memory
from harmonia.collection.dates import date_of
from harmonia.server.settings import Settings
from tests.media import make_photo
from tests.serving import failed, recall, serve, words

Json = dict[str, Any]

TAKEN = {
    "spring": "2019-05-02T08:00:00+02:00",
    "may": "2019-05-30",
    "june": "2019-06-01T00:00:00",
    "old": "1998-12",
    "new": "2023-01-15T12:00:00",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("timeline")
    rows: list[Json] = [
        {"text": name, "taken": taken, "tag": "odd" if name == "old" else "dated"}
        for name, taken in TAKEN.items()
    ]
    rows.append({"text": "vague", "taken": "one summer", "modified": "2020-02-29T00:00:00+00:00"})
    manifest = folder / "notes.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Memory(folder / "memory").remember(manifest, threads=1)
    with serve(Settings(folder / "memory")) as url, httpx.Client(base_url=url, timeout=60) as found:
        yield found


def texts(page: Json) -> list[str]:
    return [record["parts"][0]["text"] for record in page["data"]]


def listed(client: httpx.Client, **asked: Any) -> Json:
    answer = client.get("/v1/memory/records", params={"sort": "date", **asked})
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


@pytest.mark.parametrize(
    ("metadata", "date"),
    [
        ({"taken": "2019-06-01T10:00:00"}, "2019-06-01T10:00:00"),
        ({"taken": "2019-06", "modified": "2020-01-01"}, "2019-06"),
        ({"taken": None, "modified": "2020-01-01T00:00:00+00:00"}, "2020-01-01T00:00:00+00:00"),
        ({"taken": "2019-13-01"}, "1970-01-01T00:00:05+00:00"),
        ({"taken": "2019-06-32"}, "1970-01-01T00:00:05+00:00"),
        ({"taken": 2019, "modified": ["2020-01-01"]}, "1970-01-01T00:00:05+00:00"),
        ({"taken": "2019"}, "1970-01-01T00:00:05+00:00"),
        ({}, "1970-01-01T00:00:05+00:00"),
    ],
)
def test_the_date_of_a_record(metadata: Json, date: str) -> None:
    assert date_of(metadata, 5.0) == date


@pytest.mark.parametrize("created", [float("nan"), float("inf"), 1e300, -1e300])
def test_a_time_that_no_calendar_has_is_passed_over(created: float) -> None:
    assert date_of({}, created) == "1970-01-01T00:00:00+00:00"


def test_records_by_date_and_page_by_page(client: httpx.Client) -> None:
    order = ["new", "vague", "june", "may", "spring", "old"]
    assert texts(listed(client)) == order
    dates = [record["date"] for record in listed(client)["data"]]
    assert dates == [TAKEN.get(name, "2020-02-29T00:00:00+00:00") for name in order]
    assert texts(listed(client, order="asc")) == order[::-1]
    assert texts(listed(client, where="tag = 'dated'")) == ["new", "june", "may", "spring"]
    seen, after = [], None
    while True:
        page = listed(client, limit=2, **({"after": after} if after else {}))
        seen += texts(page)
        if not page["has_more"]:
            break
        after = page["last_id"]
    assert seen == order
    by_addition = client.get("/v1/memory/records", params={"order": "asc"}).json()
    assert set(texts(by_addition)) == set(order)
    assert failed(client.get("/v1/memory/records", params={"sort": "colour"}))


def test_the_timeline_counts_and_leads(client: httpx.Client) -> None:
    months = client.get("/v1/memory/timeline").json()
    assert months["object"] == "memory.timeline"
    assert [(one["month"], one["count"]) for one in months["data"]] == [
        ("2023-01", 1), ("2020-02", 1), ("2019-06", 1), ("2019-05", 2), ("1998-12", 1),
    ]  # fmt: skip
    assert months["data"][0]["after"] is None
    for one in months["data"][1:]:
        assert listed(client, after=one["after"], limit=1)["data"][0]["parts"][0]["text"] in (
            "vague", "june", "may", "old",
        )  # fmt: skip
    may = months["data"][3]
    assert texts(listed(client, after=may["after"], limit=2)) == ["may", "spring"]
    ascending = client.get("/v1/memory/timeline", params={"order": "asc", "where": "tag = 'dated'"}).json()
    assert [(one["month"], one["count"]) for one in ascending["data"]] == [
        ("2019-05", 2), ("2019-06", 1), ("2023-01", 1),
    ]  # fmt: skip
    june = ascending["data"][1]
    found = listed(client, after=june["after"], order="asc", where="tag = 'dated'", limit=1)
    assert texts(found) == ["june"]
    assert client.get("/v1/memory/timeline", params={"where": "tag = 'none'"}).json()["data"] == []
    assert "metadata columns" in failed(client.get("/v1/memory/timeline?where=colour=1"))["message"]


def test_an_empty_memory_has_no_month(tmp_path: Path) -> None:
    with serve(Settings(tmp_path / "memory")) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/v1/memory/timeline").json()["data"] == []
        assert listed(client)["data"] == []


def test_one_picture_of_a_record_is_a_cue(tmp_path: Path) -> None:
    rows = []
    for seed in range(4):
        make_photo(tmp_path / f"{seed}.png", seed=seed)
        rows.append({"image": f"{seed}.png", "caption": f"thing {seed}"})
    # its words are like those of thing 1, its picture is like that of thing 0
    make_photo(tmp_path / "like-0.jpg", seed=0, quality=60)
    rows.append({"image": "like-0.jpg", "caption": "thing 1 and thing 1"})
    (tmp_path / "things.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Memory(tmp_path / "memory").remember(tmp_path / "things.jsonl", copy=True, threads=1)
    with serve(Settings(tmp_path / "memory")) as url, httpx.Client(base_url=url, timeout=60) as client:
        data = client.get("/v1/memory/records", params={"order": "asc"}).json()["data"]
        last = next(one for one in data if any(p["text"] == "thing 1 and thing 1" for p in one["parts"]))
        kinds = [part["modality"] for part in last["parts"]]

        def nearest(part: int | None) -> str:
            found = recall(client, {"record": last["id"], "part": part}, k=1)["records"][0]
            return words(found)

        assert nearest(kinds.index("image")) == "thing 0"
        assert nearest(kinds.index("text")) == "thing 1"
        cue = {"record": last["id"], "part": 9}
        error = failed(client.post("/v1/memory/recall", json={"cues": [cue]}), 404)
        assert error["code"] == "part_not_found"
        error = failed(client.post("/v1/memory/recall", json={"cues": [{"text": "a", "part": 0}]}))
        assert "only a cue with a record has a part" in error["message"]
