"""A value outside the range of a type costs that value, never its row or the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import harmonia
from harmonia.data import Problem, gather
from harmonia.data.arrow_values import values
from harmonia.data.manifest import plain_value
from harmonia.types import Record

WHOLE64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), -1, 0, 2**62, 2**63 - 1])
UNITS = ["s", "ms", "us", "ns"]
ZONES = [None, "UTC", "Europe/Berlin", "+05:30", "-0330", "Not/AZone", "", "../etc"]


def rows_of(path: Path) -> tuple[list[dict[str, Any]], list[Problem]]:
    everything = list(gather([path]))
    records = [dict(one.metadata) for one in everything if isinstance(one, Record)]
    return records, [one for one in everything if isinstance(one, Problem)]


@given(WHOLE64, st.sampled_from(UNITS), st.sampled_from(ZONES))
@settings(max_examples=300, deadline=None)
def test_every_timestamp_is_a_moment_or_nothing(count: int, unit: str, zone: str | None) -> None:
    (value,) = values(pa.array([count], pa.timestamp(unit, tz=zone or None)))
    exact = count / {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}[unit]
    if value is None:
        assert not -62_135_596_800 < exact < 253_402_300_799
    else:
        stamp = value if value.tzinfo else value.replace(tzinfo=UTC)
        assert stamp.timestamp() == pytest.approx(exact, abs=1e-3, rel=1e-9)


@given(WHOLE64, st.integers(-(2**31), 2**31 - 1))
@settings(max_examples=200, deadline=None)
def test_dates_times_and_durations_of_every_number(wide: int, narrow: int) -> None:
    columns = [pa.array([narrow], kind) for kind in (pa.date32(), pa.time32("s"), pa.time32("ms"))]
    columns += [
        pa.array([wide], pa.int64()).view(kind) for kind in (pa.date64(), pa.time64("us"), pa.time64("ns"))
    ]
    columns += [pa.array([wide], pa.duration(unit)) for unit in UNITS]
    for column in columns:
        (value,) = values(column)
        json.dumps(plain_value(value), allow_nan=False)


def test_the_ends_of_the_calendar() -> None:
    last = pa.array([253_402_300_799, 253_402_300_800, -62_135_596_800, -62_135_596_801], pa.timestamp("s"))
    assert [value and value.isoformat() for value in values(last)] == [
        "9999-12-31T23:59:59", None, "0001-01-01T00:00:00", None,
    ]  # fmt: skip
    days = pa.array([2_932_896, 2_932_897, -719_162, -719_163], pa.date32())
    assert [value and value.isoformat() for value in values(days)] == ["9999-12-31", None, "0001-01-01", None]


NESTED = [
    (pa.array([[1], None, []], pa.list_(pa.timestamp("ns"))), ["1970-01-01T00:00:00"]),
    (pa.array([[1], None, []], pa.large_list(pa.duration("ns"))), [1e-9]),
    (pa.array([[1], None, []], pa.list_view(pa.int8())), [1]),
    (pa.array([[1], None, [2]], pa.list_(pa.date32(), 1)), ["1970-01-02"]),
    (pa.array([{"a": 1}, None, {"a": 2**62}], pa.struct([("a", pa.timestamp("ns"))])),
     '{"a": "1970-01-01T00:00:00"}'),
    (pa.array([[("k", 10**15)], None, []], pa.map_(pa.string(), pa.timestamp("s"))), '{"k": null}'),
    (pa.array(["x", None, "x"]).dictionary_encode(), "x"),
    (pa.compute.run_end_encode(pa.array([7, 7, 8])), 7),
    (pa.array([0.5, None, float("nan")], pa.float16()), 0.5),
    (pa.array([2**64 - 1, None, 1], pa.uint64()), 2**64 - 1),
    (pa.array([Decimal("1e30"), None, Decimal(1)], pa.decimal256(76, 10)), 1e30),
    (pa.nulls(3), None),
    (pa.array([b"\x00\xff", None, b""], pa.binary()), None),
    (pa.array(["x", None, ""], pa.string_view()), "x"),
    (pa.array([(1, 2, 3), None, None], pa.month_day_nano_interval()), [1, 2, 3]),
    (pa.array([b"\xff caf\xc3\xa9", b"", b""], pa.binary()).view(pa.string()), "\ufffd café"),
    (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None, None], pa.binary(16))),
     "30303030-3030-3030-3030-303030303030"),
]  # fmt: skip


@pytest.mark.parametrize(("column", "first"), NESTED, ids=lambda value: str(getattr(value, "type", ""))[:30])
def test_every_type_of_column(column: pa.Array, first: object) -> None:
    assert plain_value(values(column)[0]) == first
    assert len(values(column)) == 3
    assert values(column.slice(1)) == values(column)[1:] or any("nan" in str(v) for v in values(column))


def test_objects_within_objects_are_json_once() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = {"a": deep}
    assert json.loads(plain_value(deep)) == deep
    assert plain_value([{"a": {"b": 1}}]) == ['{"a": {"b": 1}}']
    for _ in range(100_000):
        deep = [deep]
    assert plain_value(deep) is None


def test_a_damaged_row_group_leaves_the_others(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    table = pa.table({"text": [f"note {number} of many" for number in range(30)]})
    pq.write_table(table, path, row_group_size=10, compression="zstd", use_dictionary=False)
    place = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[place + 30 : place + 60] = b"\xff" * 30
    path.write_bytes(content)
    records, problems = rows_of(path)
    assert len(records) == 20
    assert [problem.reason.split(":")[0] for problem in problems] == ["row 11"]


def test_numbers_of_json_beyond_every_type(tmp_path: Path) -> None:
    lines = [
        '{"text": "a", "x": 1e999, "y": -1e999, "z": NaN}',
        '{"text": "b", "x": 1' + "0" * 400 + "}",
        '{"text": "c", "x": ' + "9" * 5000 + "}",
        '{"text": "d", "x": ' + "[" * 5000 + "]" * 5000 + "}",
        '{"text": "e", "x": ' + '{"a":' * 400 + "1" + "}" * 400 + "}",
        '{"text": "f", "x": 1e-999, "size": 18446744073709551616}',
    ]
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(lines))
    memory = harmonia.open(str(tmp_path / "m"), models=["descriptors"])
    report = memory.remember(path)
    assert report.remembered + len(report.problems) == len(lines) and report.remembered >= 4
    (last,) = memory.store.records(where="size > 1e19")
    assert last.metadata["x"] == 0


def test_cells_that_are_longer_than_numbers(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"text,x,y\na,{'9' * 5000},1e999\nb,1,1\n")
    records, problems = rows_of(path)
    assert not problems
    assert records[0]["x"] == "9" * 5000 and records[0]["y"] == "1e999"


@pytest.mark.parametrize("seconds", [-1, -(2**31), -62_135_596_801, 2**31, 2**34, 884_541_340_800])
def test_files_of_every_age(tmp_path: Path, seconds: int) -> None:
    note = tmp_path / "note.txt"
    note.write_text("a harmless note")
    try:
        os.utime(note, (0, seconds))
    except OSError:
        pytest.skip("this file system has no such time")
    memory = harmonia.open(str(tmp_path / "m"), models=["descriptors"])
    assert memory.remember(note).remembered == 1
    again = memory.remember(note)
    assert (again.remembered, again.already, again.problems) == (0, 1, ())


def test_parquet_needs_no_pandas(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b"], "t": pa.array([1, 2], pa.timestamp("ns", tz="Nowhere/Town"))})
    pq.write_table(table, tmp_path / "m.parquet")
    program = (
        "import sys; sys.modules['pandas'] = None\n"
        "from harmonia.data import gather\n"
        "print([one.metadata['t'] for one in gather([sys.argv[1]])])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "m.parquet")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("1970-01-01T00:00:00+00:00") == 2
