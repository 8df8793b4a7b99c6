"""Filters: their text form, what they mean, and that the engine finds what the reference says."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import harmonia
from harmonia import store as stores
from harmonia.store import EncoderInfo, parse
from harmonia.store.filters import (
    CONDITIONS,
    DEPTH,
    And,
    Comparison,
    Filter,
    Has,
    In,
    IsNull,
    Like,
    Not,
    Or,
)
from harmonia.store.lance.columns import KINDS, MAX_COLUMNS, column_values
from harmonia.store.lance.metadata_rows import complete_columns
from harmonia.store.lance.store import LanceStore
from harmonia.store.metadata import SCHEMA_VERSION, read_layout, write_layout
from harmonia.store.terms import FUNCTIONS, Call, FilterError
from harmonia.store.values import column_name
from harmonia.types import Code, HarmoniaError, Part, Record
from tests.places import ROOT

ENCODER = EncoderInfo("see", "image", "s", 2)
KEYS = ("year", "tag", "Odd key", "created", "in", "größe")
DAY = {"taken": "2019-06-01T10:00:00", "rating": 4.5, "tags": ["sea", "sun"], "name": "50% off_x\\y"}

texts = st.text(st.characters(codec="utf-8", exclude_characters="İıſKſΣς"), max_size=4) | st.sampled_from(
    ["", "a", "B", "ab", "%", "_", "\\", "it's", " a ", "2020-01-02"]
)
numbers = (
    st.integers(-3, 3)
    | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**63, 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.5, 1.0, -0.0, 2.5])
)
literals = st.booleans() | numbers | texts
values = literals | st.none() | st.lists(texts, max_size=3) | st.just({"a": 1}) | st.just([1])
rows = st.dictionaries(st.sampled_from(KEYS), values, max_size=4)
columns = st.sampled_from([*map(column_name, KEYS), "nowhere"])
terms = columns | st.builds(Call, st.sampled_from(sorted(FUNCTIONS)), columns)
signs = st.sampled_from(["%", "_", r"\%", r"\_", r"\\", "a", "b", "B", "é", "\n", ".", "*"])
leaves = st.one_of(
    st.builds(Comparison, terms, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), literals),
    st.builds(In, terms, st.lists(literals, min_size=1, max_size=4).map(tuple)),
    st.builds(IsNull, terms),
    st.builds(Like, terms, st.lists(signs, max_size=5).map("".join)),
    st.builds(Has, terms, texts),
)


def grown(inner: st.SearchStrategy[Filter]) -> st.SearchStrategy[Filter]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(Not, inner) | st.builds(And, several) | st.builds(Or, several)


trees = st.recursive(leaves, grown, max_leaves=8)


def record(name: str, metadata: dict[str, Any]) -> Record:
    code = Code("image", np.array([1.0, 0.0], np.float32), "s")
    return Record(name, (Part("image", f"/{name}", digest=name, code=code),), metadata)


@pytest.fixture
def store(tmp_path: Path) -> LanceStore:
    return LanceStore.create(tmp_path / "memory", [ENCODER])


# The text form


@given(trees)
@settings(deadline=None, max_examples=300)
def test_the_text_form_says_all_of_a_filter(tree: Filter) -> None:
    again = parse(str(tree))
    assert again == tree and hash(again) == hash(tree) and str(again) == str(tree)
    assert again.names() == tree.names()


@pytest.mark.parametrize(
    ("text", "filter"),
    [
        ("year > 2019", Comparison("year", ">", 2019)),
        ("YEAR<>-1.5e3", Comparison("year", "!=", -1500.0)),
        ("2019 < year", Comparison("year", ">", 2019)),
        ("tag = 'it''s'", Comparison("tag", "=", "it's")),
        ('"Camera Model" == \'Z\'', Comparison("camera_model", "=", "Z")),
        ("`in` in (1, true, 'x')", In("in", (1, True, "x"))),
        ("year NOT BETWEEN 1 AND 2 or seen",
         Or((Not(And((Comparison("year", ">=", 1), Comparison("year", "<=", 2)))),
             Comparison("seen", "=", True)))),
        ("not seen and tag is not null", And((Not(Comparison("seen", "=", True)), Not(IsNull("tag"))))),
        ("name LIKE 'a%'", Like("name", "a%")),
        ("name not ilike 'A%'", Not(Like(Call("lower", "name"), "a%"))),
        ("contains(name, '50%')", Like("name", r"%50\%%")),
        ("starts_with(name, 'a_')", Like("name", r"a\_%")),
        ("ends_with(name, '.jpg')", Like("name", "%.jpg")),
        ("lower(trim(name)) = 'x'", Comparison(Call("lower", Call("trim", "name")), "=", "x")),
        ("array_has(people, 'Ada')", Has("people", "Ada")),
        ("array_has_any(people, ['A', 'B'])", Or((Has("people", "A"), Has("people", "B")))),
        ("array_has_all(people, ['A', 'B'])", And((Has("people", "A"), Has("people", "B")))),
        ("array_length(people) >= 2", Comparison(Call("array_length", "people"), ">=", 2)),
        ("taken >= 2019-06-01", Comparison("taken", ">=", "2019-06-01")),
        ("taken >= 2019-06", Comparison("taken", ">=", "2019-06")),
        ("taken < 2019-06-01T10:00:00Z", Comparison("taken", "<", "2019-06-01T10:00:00Z")),
        ("coalesce(rating, 5) > 4", Or((IsNull("rating"), Comparison("rating", ">", 4)))),
        ("4 < coalesce(rating, 0)", And((Not(IsNull("rating")), Comparison("rating", ">", 4)))),
        ("a = 1 AND b = 2 OR c = 3",
         Or((And((Comparison("a", "=", 1), Comparison("b", "=", 2))), Comparison("c", "=", 3)))),
    ],
)  # fmt: skip
def test_what_the_text_form_says(text: str, filter: Filter) -> None:
    assert parse(text) == filter


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("year > 2019; drop table x", "unexpected ';' at character 12"),
        ("", "expected a column, found the end at character 1"),
        ("year >", "expected a value, text in single quotes, found the end at character 7"),
        ("tag = 'x", "' is never closed at character 7"),
        ("tag = beach", "expected a value, text in single quotes, found 'beach' at character 7"),
        ("tag = NULL", "IS NULL"),
        ("year > 1 tag = 'x'", "expected AND, OR or the end, found 'tag' at character 10"),
        ("year + 1 > 2", "expected AND, OR or the end, found '+' at character 6"),
        ("repeat(tag, 9) = ''", "no function repeat"),
        ("regexp_like(tag, 'a')", "no function regexp_like"),
        ("taken > 2019-13-45", "2019-13-45 is no date at character 9"),
        ("taken > 2019-13", "2019-13 is no date at character 9"),
        ("year IN ()", "expected a value"),
        ("(year = 1", "expected ), found the end at character 10"),
        ("year = 1)", "expected AND, OR or the end"),
        ("year IS 3", "expected NULL"),
        ("array_has(tags, 3)", "expected text in single quotes"),
        ("name LIKE 'a\\b'", "LIKE pattern"),
        ("1 = 1", "expected a column"),
        ("true", "expected a comparison"),
        ("year > 1e999", "finite"),
        ("(" * 1500, f"nested deeper than {DEPTH}"),
        ("NOT " * 1500 + "a", f"nested deeper than {DEPTH}"),
        ("lower(" * 1500, f"nested deeper than {DEPTH}"),
        (" OR ".join(["a"] * (CONDITIONS + 1)), f"more than {CONDITIONS} conditions"),
        ("a = '" + "x" * 100_000 + "'", "shorter"),
    ],
)
def test_a_text_that_is_no_filter_says_where(text: str, says: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    said = str(caught.value)
    assert says in said
    assert said.startswith("cannot filter by") and "\n" not in said and len(said) < 500


@given(st.text(st.sampled_from("ab1'`\"()<=>!,-. ;NOTINANDORLIKE%\\\n"), max_size=30))
@settings(deadline=None, max_examples=500)
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        assert parse(str(parse(text))) == parse(text)
    except FilterError as error:
        assert "\n" not in str(error)


def test_filters_that_find_other_records_are_not_equal() -> None:
    assert len({Comparison("a", "=", 1), Comparison("a", "=", True), Comparison("a", "=", 1.0)}) == 3
    for wrong in (
        lambda: Comparison("a", "~", 1),
        lambda: Comparison("", "=", 1),
        lambda: Comparison("a", "=", float("nan")),
        lambda: Comparison("a", "=", "\ud800"),
        lambda: In("a", ()),
        lambda: And(()),
        lambda: Call("repeat", "a"),
        lambda: Has("a", 3),
        lambda: Like("a", "x\\"),
    ):
        with pytest.raises(FilterError):
            wrong()


# Meaning


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("rating > 4", True), ("rating = 4", False), ("rating IN (4.5, 'x')", True),
        ("taken > 2019-06-01 AND taken < 2019-06-02", True), ("taken = 2019-06-01", False),
        ("array_has(tags, 'sea')", True), ("NOT array_has(tags, 'moon')", True),
        ("contains(name, '% off_')", True), ("name LIKE '%off_x\\\\y'", True),
        ("missing = 1", False), ("NOT missing = 1", False), ("missing IS NULL", True),
        ("rating = 'x'", False), ("NOT rating = 'x'", False), ("rating = 'x' OR rating > 1", True),
        ("id = 'r' AND created > 5", True), ("metadata LIKE '%sun%'", True),
    ],
)  # fmt: skip
def test_what_filters_mean(text: str, fits: bool, store: LanceStore) -> None:
    assert parse(text).matches(DAY, id="r", created=9.0) is fits
    store.add([record("r", DAY)])
    assert store.select(parse(text)) == ["r"] * fits


@given(found=st.lists(rows, min_size=1, max_size=6), asked=st.lists(trees, min_size=1, max_size=6))
@example(found=[{"tag": []}, {"tag": ["a"]}, {"tag": "a"}], asked=[Not(Has("tag", "a")), IsNull("tag")])
@example(found=[{"year": 5}, {"year": 4.5}, {"year": 2**53 + 1}], asked=[Comparison("year", "=", 2.0**53)])
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_the_engine_finds_what_the_reference_says(found: list[dict[str, Any]], asked: list[Filter]) -> None:
    folder = Path(tempfile.mkdtemp())
    try:
        store = LanceStore.create(folder, [ENCODER])
        for number, metadata in enumerate(found):
            store.add([record(str(number), metadata)])
        kept, created = store.metadata(), store.created()
        for tree in asked:
            right = [i for i in kept if tree.matches(kept[i], id=i, created=created[i])]
            assert sorted(store.select(tree)) == sorted(right), str(tree)
    finally:
        shutil.rmtree(folder)


def test_what_a_person_names_has_to_be_there(store: LanceStore) -> None:
    store.add([record("r", DAY)])
    for text, says in {
        "nope = 1": "there is no column nope",
        "rating = 'high'": "rating holds number, this condition is for text",
        "tags = 'x'": "tags holds list, this condition is for text (write array_has(tags, 'text'))",
        "lower(tags) = 'x'": "tags holds list, lower takes text",
        "rating >": "at character 9",
    }.items():
        for call in (store.select, store.created, lambda w: store.records(where=w)):
            with pytest.raises(
                HarmoniaError, match="metadata columns are taken, rating, tags, name"
            ) as caught:
                call(text)
            assert says in str(caught.value) and "@" not in str(caught.value)
    for tree in (Comparison("nope", "=", 1), Comparison("rating", "=", "high"), Call("lower", "tags")):
        asked = tree if isinstance(tree, Filter) else Comparison(tree, "=", "x")
        assert store.select(asked) == store.select(Not(asked)) == []
    assert store.select(IsNull("nope")) == ["r"]


def test_the_examples_of_the_docs() -> None:
    page = (ROOT / "docs" / "filters.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    examples = [text for line in rows for text in re.findall(r"`([^`]+)`", line.split(" | ")[0])]
    assert len(examples) == 11
    for text in [
        *examples,
        "NOT generated",
        "coalesce(rating, 0) > 3",
        "array_has_any(people, ['Ada', 'Bob'])",
    ]:
        assert text in page and parse(str(parse(text))) == parse(text)
    code = page.split("## In Python")[1].split("\n\n    import")[1].split("\n\nThe tree")[0]
    exec(dedent("    import" + code))
    ada = {"year": 2020, "people": ["Ada"], "tag": "Beach", "taken": "2019-06-01T10:00:00", "rating": 4.5}
    found = [text for text in examples if parse(text).matches(ada)]
    assert found == [examples[i] for i in (0, 2, 6, 7, 10)]


# Types


@pytest.mark.parametrize("ratings", [[5, 4.5, 3, 4.8], [4.5, 5, 3, 4.8], ["5", 5, True, 4.5, ["5"], 3, 4.8]])
def test_what_is_found_does_not_depend_on_what_came_first(store: LanceStore, ratings: list[Any]) -> None:
    for number, rating in enumerate(ratings):
        store.add([record(str(number), {"rating": rating})])
    found = [r.metadata["rating"] for r in store.records(where="rating > 4")]
    assert sorted(found) == [4.5, 4.8, 5]
    store.describe({"0": {"rating": 9.5}})  # of another type than before
    assert [r.id for r in store.records(where="rating > 9")] == ["0"]
    assert "0" not in store.select("rating <= 9")


def as_schema_1(store: LanceStore) -> LanceStore:
    """The store as it was made when each key had one column."""
    with store._tables.writing():
        table = store._tables.open("records")
        table.drop_columns([name for name in table.schema.names if "@" in name])
        write_layout(store.root, replace(store.layout, schema=1))
    return LanceStore.open(store.root)


def test_a_store_of_schema_1_answers_right_and_is_completed_by_a_write(store: LanceStore) -> None:
    values = [5, 4.5, 3, "high", 2**53 + 1, None, True]
    store.add([record(str(i), {"rating": v, "n": i}) for i, v in enumerate(values)])
    old = as_schema_1(store)
    second = LanceStore.open(store.root)
    asked = [
        "rating > 4",
        "rating = 'high'",
        "rating IS NULL",
        "rating",
        "NOT rating > 4",
        "n < 3",
        "id = '3'",
    ]
    right = [["0", "1", "4"], ["3"], ["5"], ["6"], ["2"], ["0", "1", "2"], ["3"]]
    assert [old.select(text) for text in asked] == right
    with pytest.raises(HarmoniaError, match="no column nope; metadata columns are rating, n"):
        old.select("nope = 1")
    assert not any("@" in name for name in old._tables.open("records").schema.names)
    # a process that dies before the description is written leaves it to the next
    complete_columns(old._tables.open("records"))
    assert [old.select(text) for text in asked] == right and read_layout(store.root).schema == 1
    before = old.created()
    old.describe({"6": {"seen": True}})
    assert read_layout(store.root).schema == SCHEMA_VERSION
    assert old.created() == before and old.metadata()["4"] == {"rating": 2**53 + 1, "n": 4}
    for one in (old, second, LanceStore.open(store.root)):
        assert [one.select(text) for text in asked] == right
    names = old._tables.open("records").schema.names
    assert {"rating@float", "rating@text", "rating@bool"} <= set(names)
    version = old._tables.open("records").version
    old.compact()
    assert old._tables.open("records").version >= version


def test_keys_beyond_the_last_column_are_found_by_their_json(store: LanceStore) -> None:
    many = {f"k{i}": i for i in range(MAX_COLUMNS + 5)}
    store.add([record("a", many), record("b", {"k0": 0.5, f"k{MAX_COLUMNS + 4}": "late"})])
    assert store.select(f"k{MAX_COLUMNS + 4} = 'late'") == ["b"]
    assert store.select(f"k{MAX_COLUMNS + 4} > 3") == ["a"]
    assert store.select("k0 < 1") == ["a", "b"]
    with pytest.raises(HarmoniaError, match="no column nope"):
        store.select("nope = 1")


def test_a_record_fills_one_column_of_a_key() -> None:
    types = [("year", KINDS["int"]), *((f"year@{kind}", KINDS[kind]) for kind in ("float", "text", "list"))]
    schema = pa.schema(types)
    for value, filled in {
        5: "year",
        4.5: "year@float",
        "x": "year@text",
        True: None,
        2**70: "year@float",
    }.items():
        expected = {} if filled is None else {filled: value}
        assert column_values({"year": value}, schema) == expected
    assert column_values({"Year": None, "year": [], "YEAR": 3}, schema) == {"year@list": []}


# Stores by their address


def test_an_address_that_no_engine_serves_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("s3://bucket/memory", Path("s3://bucket/memory"), "gs://x", "file:///tmp/x"):
        scheme = str(url).partition(":")[0]
        for call in (stores.open, stores.exists, lambda u: stores.create(u, [ENCODER])):
            with pytest.raises(HarmoniaError, match=f"^no store engine for {scheme}://: give a folder$"):
                call(url)
    with pytest.raises(HarmoniaError, match="no store engine for s3://"):
        harmonia.open("s3://bucket/memory").remember(tmp_path)
    assert list(tmp_path.iterdir()) == []
    made = stores.create("a:b", [ENCODER])
    assert stores.exists("a:b") and stores.open(tmp_path / "a:b").encoders == made.encoders
    with pytest.raises(HarmoniaError, match="already"):
        stores.create("a:b", [ENCODER])
    assert stores.create("a:b", [ENCODER], exist_ok=True).version() == made.version()
