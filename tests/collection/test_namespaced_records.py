"""Records of a namespace: apart from equal content elsewhere, whatever files say of themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonia.collection.collection import Memory
from harmonia.collection.namespaces import condition_of, owned
from harmonia.collection.record_reader import identity_of
from harmonia.types import Part, Record
from tests.media import make_photo

NAMES = st.text("abAB019._-", min_size=1, max_size=8)
KEYS = st.one_of(st.sampled_from(("namespace", "Namespace", "NAMESPACE", "tag")), st.text(max_size=12))


@given(st.dictionaries(KEYS, st.one_of(NAMES, st.none(), st.lists(NAMES))), NAMES, NAMES)
def test_metadata_do_not_say_whose_a_record_is(metadata: dict[str, object], mine: str, other: str) -> None:
    found = owned(metadata, mine)
    own, theirs = condition_of(mine), condition_of(other)
    assert own is not None and theirs is not None
    assert own.matches(found) and theirs.matches(found) == (mine == other)
    assert owned(metadata, None) == metadata and condition_of(None) is None


@given(st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1, max_size=3), NAMES, NAMES)
def test_an_id_is_of_its_namespace(digests: list[str], one: str, other: str) -> None:
    parts = [Part("text", text="x", digest=digest) for digest in digests]
    assert identity_of(parts, one) == identity_of(parts[::-1], one) != identity_of(parts)
    assert (identity_of(parts, one) == identity_of(parts, other)) == (one == other)


def test_one_folder_in_several_namespaces(tmp_path: Path) -> None:
    """Remembered once for all and once for a namespace, no run takes the records of another for replaced."""
    photos, memory = tmp_path / "photos", Memory(tmp_path / "memory", models=("mini",))
    photos.mkdir()
    make_photo(photos / "one.png", seed=1)
    (photos / "note.md").write_text("---\nNamespace: b\nnamespace: c\ntag: x\n---\na note of some words")
    for namespace in (None, "a", None, "b", "a"):
        report = memory.remember(photos, namespace=namespace)
        assert not report.problems
    records = memory.store.records()
    assert len(records) == 6
    for namespace in ("a", "b"):
        own = memory.store.records(where=condition_of(namespace))
        assert len(own) == 2 and {record.metadata["namespace"] for record in own} == {namespace}
        assert {record.metadata.get("tag") for record in own} == {None, "x"}
    assert memory.store.records(where=condition_of("c")) == []
    # a file that changed replaces the records of the run's own namespace
    (photos / "note.md").write_text("a note of other words")
    memory.remember(photos, namespace="a")
    texts = {
        namespace: {p.text for r in memory.store.records(where=where) for p in r.parts if p.text}
        for namespace, where in (("a", condition_of("a")), ("b", condition_of("b")))
    }
    assert texts == {"a": {"a note of other words"}, "b": {"a note of some words"}}


def test_a_column_of_this_name_in_a_manifest_is_the_owners_word(tmp_path: Path) -> None:
    rows = [{"text": "for a", "namespace": "a"}, {"text": "for none"}]
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    memory = Memory(tmp_path / "memory", models=("mini",))
    memory.remember(manifest)
    memory.remember([Record("", (Part("text", text="for a"),), {})], namespace="a")
    assert len(memory.store.records()) == 3
    assert len(memory.store.records(where=condition_of("a"))) == 2


@pytest.mark.parametrize("first", [None, "a"])
def test_forgetting_keeps_the_media_of_others(tmp_path: Path, first: str | None) -> None:
    photo = make_photo(tmp_path / "one.png", seed=1)
    memory = Memory(tmp_path / "memory", models=("mini",))
    for namespace in (first, "b"):
        memory.remember(photo, copy=True, namespace=namespace)
    mine, other = (memory.store.records(where=condition_of(name)) for name in ("b", first))
    memory.forget([mine[0].id])
    assert memory.store.records(where=condition_of("b")) == []
    kept = [record for record in other if record.id != mine[0].id]
    assert len(kept) == 1 and all((tmp_path / "memory" / str(p.path)).is_file() for p in kept[0].parts)
