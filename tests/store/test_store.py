"""The store in one process: content, filters, codes, search, upkeep, media."""

from __future__ import annotations

import hashlib
import json
import os
import time
from datetime import datetime, timedelta
from datetime import time as day_time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from harmonia.store import (
    EncoderInfo,
    FileState,
    digest_file,
    garbage,
    media_path,
    put_media,
)
from harmonia.store.lance.store import LanceStore
from harmonia.store.lance.tables import FRAGMENTS
from harmonia.types import Code, HarmoniaError, Part, Record

SEE = EncoderInfo("see", "image", "shared", 16)
READ = EncoderInfo("read", "text", "shared", 16)
HUE = EncoderInfo("hue", "image", "colour", 6)
ENCODERS = (SEE, READ, HUE)


def vector(seed: object, dim: int = 16) -> np.ndarray:
    rng = np.random.default_rng(int(hashlib.sha256(repr(seed).encode()).hexdigest()[:12], 16))
    row = rng.standard_normal(dim).astype(np.float32)
    return row / np.linalg.norm(row)


def part(name: str, encoder: EncoderInfo = SEE, **place: float) -> Part:
    digest = hashlib.sha256(name.encode()).hexdigest()
    code = Code(encoder.modality, vector((name, encoder.name, place), encoder.dim), encoder.space)
    text = name if encoder.modality == "text" else None
    return Part(encoder.modality, f"/m/{name}", text, digest=digest, code=code, **place)


def record(name: str, **metadata: object) -> Record:
    return Record(name, (part(name),), metadata)


def state(path: str, record_id: str, size: int = 1) -> FileState:
    return FileState(path, size, 10**18 + 1, "d", record_id)


def fragments(store: LanceStore, name: str) -> int:
    return int(store._tables.open(name).stats()["fragment_stats"]["num_fragments"])


@pytest.fixture
def store(tmp_path: Path) -> LanceStore:
    return LanceStore.create(tmp_path / "memory", ENCODERS)


# Opening


def test_open_reads_what_another_handle_wrote(store: LanceStore) -> None:
    store.add([record("a", tag="x")])
    again = LanceStore.open(store.root)
    assert again.encoders == ENCODERS
    assert again.records() == [record("a", tag="x")]


def test_what_is_not_a_store_is_refused_in_one_line(store: LanceStore, tmp_path: Path) -> None:
    description = store.root / "metadata.json"
    with pytest.raises(HarmoniaError, match="no Harmonia store"):
        LanceStore.open(tmp_path / "nowhere")
    with pytest.raises(HarmoniaError, match="already"):
        LanceStore.create(store.root, ENCODERS)
    with pytest.raises(HarmoniaError, match="was made with see"):
        LanceStore.create(store.root, [HUE], exist_ok=True)
    assert LanceStore.create(store.root, ENCODERS, exist_ok=True).encoders == ENCODERS
    content = json.loads(description.read_text())
    description.write_text(json.dumps(content | {"schema": 99}))
    with pytest.raises(HarmoniaError, match="upgrade"):
        LanceStore.open(store.root)
    for damaged in ("{}", "[", '"x"', json.dumps(content | {"encoders": [{"name": 1}]})):
        description.write_text(damaged)
        with pytest.raises(HarmoniaError, match="does not describe"):
            LanceStore.open(store.root)


def test_an_interrupted_creation_can_be_repeated(tmp_path: Path) -> None:
    first = LanceStore.create(tmp_path / "m", [SEE])
    (first.root / "metadata.json").unlink()
    store = LanceStore.create(tmp_path / "m", [HUE])
    store.add([Record("r", (part("r", HUE),))])
    assert store.ids() == ["r"]


def test_any_folder_name_will_do(tmp_path: Path) -> None:
    store = LanceStore.create(tmp_path / "día 100% #1? it's", [SEE])
    store.add([record("a")])
    assert LanceStore.open(store.root).ids() == ["a"]


# Adding and removing


def test_adding_twice_stores_once(store: LanceStore) -> None:
    one = Record("one", (part("p"), part("q", READ, start=0.0, end=5.0)), {"tag": "x"})
    assert store.add([one, one], [state("/p", "one")]) == 1
    version = store.version()
    assert store.add([one], [state("/p", "one")]) == 0
    assert store.version() == version
    assert store.records() == [one]
    assert len(store.codes().encoders["see"].codes) == 1


def test_a_part_with_codes_of_two_spaces_is_one_part(store: LanceStore) -> None:
    both = (part("p", SEE), part("other"), part("p", HUE))
    store.add([Record("r", both)])
    assert store.records()[0].parts == (both[0], both[1])
    hue = store.codes().encoders["hue"]
    assert hue.part.tolist() == [0]
    np.testing.assert_array_equal(hue.codes, both[2].code.vector[None])
    assert store.status()["parts"] == {"image": 2}


def test_a_later_addition_completes_a_record(store: LanceStore) -> None:
    store.add([Record("r", (part("p"),), {"tag": "old", "year": 1999})])
    store.add([Record("r", (part("p", HUE), part("q")), {"tag": "new", "place": "sea"})])
    (found,) = store.records()
    assert [p.path for p in found.parts] == ["/m/p", "/m/q"]
    assert found.metadata == {"tag": "new", "year": 1999, "place": "sea"}
    assert store.select("tag = 'new' AND year = 1999 AND place = 'sea'") == ["r"]
    assert store.codes().encoders["hue"].part.tolist() == [0]


def test_two_texts_of_one_file_are_two_parts(store: LanceStore) -> None:
    captions = [part("x", READ), part("x", READ)]
    captions = [Part("text", "/m/x", t, digest="d", code=captions[0].code) for t in ("a", "b")]
    store.add([Record("r", tuple(captions))])
    assert [p.text for p in store.records()[0].parts] == ["a", "b"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Part("image", "/x"), "encode it first"),
        (Part("audio", "/x", code=Code("audio", vector(1), "shared")), "made with see .*hue"),
        (Part("image", "/x", code=Code("image", vector(1), "other")), "create another store"),
        (Part("image", "/x", code=Code("image", vector(1, 8), "shared")), "does not belong"),
        (Part("image", "/x", code=Code("image", vector(1) * 2, "shared")), "unit"),
        (Part("image", "/x", code=Code("image", vector(1) * np.nan, "shared")), "unit"),
        (Part("image", "/x\udc80", digest="d", code=Code("image", vector(1), "shared")), "Unicode"),
    ],
)
def test_codes_that_would_spoil_the_store_are_refused(store: LanceStore, wrong: Part, message: str) -> None:
    with pytest.raises(HarmoniaError, match=message) as caught:
        store.add([record("fine"), Record("wrong", (part("ok"), wrong))])
    assert "\n" not in str(caught.value)
    assert store.records() == []


def test_a_record_needs_parts_and_plain_metadata(store: LanceStore) -> None:
    with pytest.raises(HarmoniaError, match="no parts"):
        store.add([Record("r", ())])
    with pytest.raises(HarmoniaError, match="cannot be stored as JSON"):
        store.add([record("r", thing=object())])


def test_removal_is_complete_and_counts(store: LanceStore) -> None:
    names = ["a", "b's", 'c"\\']
    store.add([record(n) for n in names], [state(f"/{n}", n) for n in names])
    assert store.remove(["b's", "unknown"]) == 1
    assert store.ids() == sorted(["a", 'c"\\'])
    assert set(store.files()) == {"/a", '/c"\\'}
    assert store._tables.open("parts").count_rows() == 2
    assert store.remove(names) == 2
    assert store.codes().record_ids == []
    store.add([record("a")])
    assert store.records() == [record("a")]


def test_files_are_inserted_updated_and_forgotten(store: LanceStore) -> None:
    store.add([record("a")], [state("/it's one", "a"), state("/two", "a")])
    assert store.touch([state("/two", "a", 7), state("/three", "a"), state("/x", "gone")]) == 2
    files = store.files()
    assert {path: file.size for path, file in files.items()} == {"/it's one": 1, "/two": 7, "/three": 1}
    assert files["/two"].mtime_ns == 10**18 + 1
    assert store.forget_files(["/it's one", "/none"]) == 1
    assert set(store.files()) == {"/two", "/three"}
    assert store.ids() == ["a"]


def test_records_come_in_the_order_asked_for(store: LanceStore) -> None:
    for name in "cab":
        store.add([record(name, n=ord(name))])
    assert [r.id for r in store.records()] == ["c", "a", "b"]
    assert [r.id for r in store.records(["b", "none", "c", "b"])] == ["b", "c"]
    assert [r.id for r in store.records(limit=1, offset=1)] == ["a"]
    assert [r.id for r in store.records(["b", "c"], where="n > 98")] == ["c"]
    assert store.ids() == ["a", "b", "c"]


def test_many_ids_at_once(store: LanceStore) -> None:
    names = [f"{i:05}" for i in range(2500)]
    store.add([record(n) for n in names], [state(n, n) for n in names])
    assert store.add([record(n) for n in names]) == 0
    assert [r.id for r in store.records(names[::-1])] == names[::-1]
    assert store.remove(names[:2400]) == 2400
    assert store.ids() == names[2400:] == sorted(store.files())


# Metadata


def test_metadata_survives_and_filters_by_type(store: LanceStore) -> None:
    rich = {
        "tag": 'it\'s "ü" 日本 \\ %',
        "year": 2020,
        "score": 0.5,
        "seen": True,
        "people": ["Ada", "O'Neil"],
        "nested": {"a": [1, {"b": None}]},
        "empty": [],
        "none": None,
        "size": np.int64(3),
        "taken": datetime(2020, 1, 2, 3, 4),
        "odd": "\udc80",
        "huge": 2**70,
    }
    store.add([record("a", **rich), record("b", year=1999, score=2, seen=False, tag="beach")])
    found = store.records(["a"])[0].metadata
    assert found == {**rich, "size": 3, "taken": "2020-01-02T03:04:00"}
    for where, ids in {
        "tag = 'it''s \"ü\" 日本 \\ %'": ["a"],
        "tag = 'beach'": ["b"],
        "year > 2019": ["a"],
        "YEAR < 2019": ["b"],
        "score >= 0.5": ["a", "b"],
        "score = 2": ["b"],
        "seen": ["a"],
        "NOT seen": ["b"],
        "array_has(people, 'O''Neil')": ["a"],
        "people IS NULL": ["b"],
        "size = 3 AND taken LIKE '2020%'": ["a"],
        "tag = 'none'": [],
    }.items():
        assert store.select(where) == ids, where


def test_late_and_unfitting_values(store: LanceStore) -> None:
    store.add([record("a")])
    store.add([record("b", year=2000)])
    store.add([record("c", year="MMI"), record("d", year=2001.5), record("e", year=True)])
    assert store.select("year >= 2000") == ["b", "d"]
    assert store.select("year > 2000") == ["d"] and store.select("NOT year > 2000") == ["b"]
    assert store.select("year = 'MMI'") == ["c"] and store.select("year") == ["e"]
    assert store.select("year IN (2000, 'MMI')") == ["b", "c"]
    assert store.select("year IS NULL") == ["a"]
    assert store.status()["columns"] == ["year"]
    years = [r.metadata.get("year") for r in store.records()]
    assert years == [None, 2000, "MMI", 2001.5, True]


def test_reserved_and_odd_keys(store: LanceStore) -> None:
    odd = {"id": "x", "metadata": "m", "created": "c", "_rowid": 1, "Camera Model": "Z", "a.b": 2}
    odd |= {"2020": "y", "größe": "klein", "order": "1", "": "e", "`q'": "k"}
    store.add([record("a", **odd)])
    assert store.records()[0].metadata == odd
    for where in (
        "id_ = 'x'",
        "metadata_ = 'm'",
        "created_ = 'c'",
        "_rowid_ = 1",
        "camera_model = 'Z'",
        "a_b = 2",
        "_2020 = 'y'",
        "größe = 'klein'",
        "`order` = '1'",
        "_ = 'e'",
        "_q_ = 'k'",
    ):
        assert store.select(where) == ["a"], where


@pytest.mark.parametrize("where", ["nope = 1", "tag = ", "", "year = 'abc'", "year + 1", 'tag = "x'])
def test_a_bad_filter_names_the_columns(store: LanceStore, where: str) -> None:
    store.add([record("a", tag="x", year=1)])
    for call in (store.select, lambda w: store.records(where=w)):
        with pytest.raises(HarmoniaError, match="columns are tag, year") as caught:
            call(where)
        assert "\n" not in str(caught.value) and ".rs" not in str(caught.value)


# Codes and search


def test_codes_are_sorted_and_complete(store: LanceStore) -> None:
    records = [
        Record(
            name,
            (
                *(part(name, SEE, start=float(i), end=i + 1.0) for i in range(3)),
                part(name, HUE),
                part("note " + name, READ),
            ),
        )
        for name in ("m", "z", "a")
    ]
    for each in records:
        store.add([each])
    store.remove(["m"])
    table = store.codes()
    assert table.record_ids == ["a", "z"]
    assert table.version == store.version()[:2]
    see, hue = table.encoders["see"], table.encoders["hue"]
    assert see.record.tolist() == [0, 0, 0, 1, 1, 1]
    assert see.part.tolist() == [0, 1, 2] * 2
    assert see.t0.tolist() == [0, 1, 2] * 2 and see.t1.tolist() == [1, 2, 3] * 2
    assert np.isnan(hue.t0).all() and hue.codes.shape == (2, 6)
    expected = [p.code.vector for r in (records[2], records[1]) for p in r.parts[:3]]
    np.testing.assert_array_equal(see.codes, expected)
    for codes in table.encoders.values():
        assert codes.codes.flags.c_contiguous and codes.codes.flags.writeable
        assert codes.codes.dtype == np.float32 and codes.record.dtype == np.int64


def test_an_empty_store_has_empty_codes(store: LanceStore) -> None:
    table = store.codes()
    assert table.record_ids == [] and set(table.encoders) == {"see", "read", "hue"}
    assert table.encoders["hue"].codes.shape == (0, 6)
    assert store.nearest("see", vector(0), 3)[0] == []
    with pytest.raises(HarmoniaError, match="nothing to index"):
        store.build_index()


def test_version_moves_with_every_change(store: LanceStore) -> None:
    other, seen = LanceStore.open(store.root), []
    for change in (
        lambda: store.add([record("a")], [state("/a", "a")]),
        lambda: store.add([record("a", tag="x")]),
        lambda: store.touch([state("/a", "a", 2)]),
        lambda: store.forget_files(["/a"]),
        lambda: store.remove(["a"]),
    ):
        seen.append(other.version())
        change()
        assert other.version() != seen[-1]
    assert len(set(seen)) == len(seen)


def clustered(count: int, dim: int) -> np.ndarray:
    rng = np.random.default_rng(3)
    points = rng.standard_normal((40, dim))[rng.integers(0, 40, count)]
    points += 0.5 * rng.standard_normal((count, dim))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_nearest_equals_numpy_with_and_without_an_index(store: LanceStore) -> None:
    rows, hues = clustered(1200, 16), clustered(1200, 6)

    def window(i: int) -> Part:
        return Part("image", "/x", None, i, i + 1, "d", Code("image", rows[i], "shared"))

    records = [
        Record(
            f"r{i:04}",
            (*map(window, range(3 * i, 3 * i + 3)), Part("image", code=Code("image", hues[i], "colour"))),
            {"third": i % 3 == 0},
        )
        for i in range(400)
    ]
    store.add(records[:300])
    names = np.array([r.id for r in records])

    def best(query: np.ndarray, codes: np.ndarray, rest: np.ndarray, k: int) -> tuple:
        scores = (codes @ query).reshape(len(names), -1).max(axis=1)
        order = rest[np.argsort(-scores[rest], kind="stable")[:k]]
        return names[order].tolist(), scores[order]

    def agree(name: str, codes: np.ndarray, rest: np.ndarray, **limits: object) -> float:
        hits = 0
        for seed in range(10):
            query = vector((name, seed), codes.shape[1])
            ids, scores = store.nearest(name, query, 10, **limits)
            want, _ = best(query, codes, rest, 10)
            hits += len(set(ids) & set(want))
            exact = dict(zip(names, (codes @ query).reshape(400, -1).max(axis=1), strict=True))
            np.testing.assert_allclose(scores, [exact[i] for i in ids], atol=1e-5)
            assert len(ids) == len(set(ids)) == min(10, len(rest))
            assert (np.diff(scores) <= 0).all()
        return hits / 100

    rest = np.arange(300)
    assert agree("see", rows, rest) == 1.0
    assert agree("hue", hues[:400], rest) == 1.0
    assert agree("see", rows, rest[::3], where="third") == 1.0
    assert agree("see", rows, np.array([7]), ids=["r0007", "unknown"]) >= 0.1

    store.build_index()
    assert store.status()["index"]
    store.add(records[300:])  # after the index: found by scanning
    store.remove([r.id for r in records[:50]])
    rest = np.arange(50, 400)
    assert agree("see", rows, rest) > 0.95
    store.compact(timedelta(0))
    assert agree("see", rows, rest) > 0.95
    assert agree("hue", hues[:400], rest) > 0.95
    assert agree("see", rows, rest[rest % 3 == 0], where="third") > 0.95
    assert len(store.nearest("see", vector(0), 1000)[0]) == 350
    assert [r.id for r in store.records(["r0399", "r0000"])] == ["r0399"]
    with pytest.raises(HarmoniaError, match="no encoder 'x'"):
        store.nearest("x", vector(0), 1)
    with pytest.raises(HarmoniaError, match="16 finite"):
        store.nearest("see", vector(0, 6), 1)


# Upkeep


def test_many_small_additions_are_compacted_on_the_way(store: LanceStore) -> None:
    for i in range(FRAGMENTS + 6):
        store.add([record(f"{i:03}", n=i)], [state(f"/{i}", f"{i:03}")])
        assert fragments(store, "parts") <= FRAGMENTS + 1
    assert all(fragments(store, name) < 10 for name in ("records", "parts", "files"))
    assert [r.metadata["n"] for r in store.records()] == list(range(FRAGMENTS + 6))
    assert len(store.files()) == FRAGMENTS + 6
    before = store.status()["table_bytes"]
    store.compact(timedelta(0))
    assert store.status()["table_bytes"] < before / 3
    assert all(fragments(store, name) == 1 for name in ("records", "parts", "files"))
    table = store.codes()
    expected = [vector((i, "see", {})) for i in table.record_ids]
    np.testing.assert_array_equal(table.encoders["see"].codes, expected)


def test_orphans_are_invisible_and_cleared(store: LanceStore) -> None:
    store.add([record("a"), record("b"), record("c")])
    store._tables.open("records").delete("id IN ('a', 'b')")  # as if killed while removing
    assert store.codes().record_ids == ["c"] and len(store.codes().encoders["see"].codes) == 1
    assert store.nearest("see", vector(0), 5)[0] == ["c"]
    assert store.status()["parts"] == {"image": 1}
    moved = Record("a", (Part("image", "/moved", None, None, None, *_tail(record("a"))),))
    assert store.add([moved]) == 1
    assert store.records(["a"])[0].parts[0].path == "/moved"
    store.compact()
    assert store._tables.open("parts").count_rows() == 2


def _tail(of: Record) -> tuple:
    return of.parts[0].digest, of.parts[0].code


def test_fifty_thousand_codes_are_read_quickly(tmp_path: Path) -> None:
    store = LanceStore.create(tmp_path / "m", [EncoderInfo("e", "image", "s", 64)])
    rows = clustered(50_000, 64)
    order = np.random.default_rng(0).permutation(50_000)
    for block in np.array_split(order, 5):
        records = [
            Record(f"{i:05}", (Part("image", digest="d", code=Code("image", rows[i], "s")),)) for i in block
        ]
        store.add(records)
    start = time.process_time()
    table = store.codes()
    assert time.process_time() - start < 2.0
    np.testing.assert_array_equal(table.encoders["e"].codes, rows)


# Media


def test_media_are_copied_once_and_completely(tmp_path: Path) -> None:
    source, root = tmp_path / "Photo.JPG", tmp_path / "m"
    source.write_bytes(os.urandom(3 << 20))
    relative, digest = put_media(root, source)
    assert digest == hashlib.sha256(source.read_bytes()).hexdigest() == digest_file(source)
    assert relative == f"media/{digest[:2]}/{digest}.jpg" == media_path(digest, ".JPG")
    copy = root / relative
    assert copy.read_bytes() == source.read_bytes()
    inode = copy.stat().st_ino
    assert put_media(root, source, digest) == (relative, digest)
    assert copy.stat().st_ino == inode
    copy.write_bytes(b"cut off")
    put_media(root, source)
    assert digest_file(copy) == digest
    assert [p.name for p in copy.parent.iterdir()] == [copy.name]


def test_media_and_links(tmp_path: Path) -> None:
    source, root = tmp_path / "a.png", tmp_path / "m"
    source.write_bytes(b"picture")
    link = tmp_path / "link.png"
    link.symlink_to(source)
    relative, _ = put_media(root, link)
    assert not (root / relative).is_symlink() and (root / relative).read_bytes() == b"picture"
    (root / relative).unlink()
    (root / relative).symlink_to(source)  # a link in the place of a copy is replaced, not followed
    put_media(root, link)
    assert not (root / relative).is_symlink() and source.read_bytes() == b"picture"
    assert media_path("ab" * 32, "./../x") == f"media/ab/{'ab' * 32}"
    for wrong in (tmp_path, tmp_path / "none", Path("/dev/null")):
        with pytest.raises(HarmoniaError, match="not a file"):
            put_media(root, wrong)
    with pytest.raises(HarmoniaError, match="changed"):
        put_media(root, source, "0" * 64)
    assert not list(root.rglob(".tmp-*")) and not (root / media_path("0" * 64, ".png")).exists()


def test_garbage_spares_what_is_kept_young_or_foreign(tmp_path: Path) -> None:
    root, names = tmp_path / "m", []
    for i in range(4):
        source = tmp_path / f"{i}.wav"
        source.write_bytes(bytes([i]))
        names.append(put_media(root, source)[0])
    kept, old, young, forgotten = names
    foreign = root / "media" / "ab" / "mine.txt"
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("hands off")
    for path in (root / kept, root / old, foreign):
        os.utime(path, (1, 1))
    assert garbage(root, {kept}, forgotten={forgotten}) == 2
    assert [(root / n).exists() for n in names] == [True, False, True, False]
    assert foreign.exists()
    assert garbage(root, {kept}, older_than=-1) == 1
    assert not (root / young).exists() and (root / kept).exists()


def test_values_outside_a_range_cost_themselves(store: LanceStore) -> None:
    strange = {
        "nan": float("nan"), "inf": float("-inf"), "huge": 10**5000, "wide": 2**64, "least": -(2**63) - 1,
        "list": [1, float("inf"), 10**5000], "deep": {"a": {"b": float("nan")}},
        "moment": np.datetime64("30000-01-01"), "none": np.datetime64("NaT"), "half": np.float16("inf"),
        "decimal": Decimal("1e400"), "lone": "\udc80", "time": day_time(1, 2), "span": timedelta.max,
    }  # fmt: skip
    store.add([record("a", year=1), *(record(key, **{key: value}) for key, value in strange.items())])
    assert len(store.ids()) == len(strange) + 1
    kept = {key: found.metadata for key, found in zip(strange, store.records(ids=list(strange)), strict=True)}
    json.dumps(kept, allow_nan=False)
    assert kept["wide"]["wide"] == 2**64 and kept["moment"]["moment"] == "30000-01-01"
    assert kept["list"]["list"] == [1, None, None] and kept["huge"]["huge"] is None
    assert store.select("wide > 1e19") == ["wide"]


@pytest.mark.parametrize("mtime_ns", [-(2**70), -(2**63), -1, 0, 2**63 - 1, 2**63, 9 * 10**20])
def test_files_of_every_age_are_kept(store: LanceStore, mtime_ns: int) -> None:
    given = FileState("/old", 1, mtime_ns, "d", "a")
    store.add([record("a")], [given])
    assert store.files() == {"/old": given}
