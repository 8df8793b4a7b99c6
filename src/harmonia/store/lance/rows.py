"""Between records and table rows: one row per part and encoder.

A part's position in its record (``part``) counts distinct pieces: a piece given twice with codes of
two spaces has one position and two rows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.table import Table
from numpy.typing import NDArray

from harmonia.store.lance import columns
from harmonia.store.lance.sql import rows_in, rows_where, scan
from harmonia.store.metadata import Layout
from harmonia.store.protocol import Codes, EncoderInfo, FileState
from harmonia.types import Code, HarmoniaError, Part, Record

RECORDS_SCHEMA = pa.schema([("id", pa.string()), ("metadata", pa.string()), ("created", pa.float64())])
FILES_SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("size", pa.int64()),
        ("mtime_ns", pa.int64()),
        ("digest", pa.string()),
        ("record_id", pa.string()),
    ]
)
PIECE = ["record_id", "part", "modality", "path", "text", "t0", "t1", "digest"]
"""Columns that say what a part is, its code aside."""


def parts_schema(width: int) -> pa.Schema:
    """Columns of the table of parts, for codes padded to ``width`` numbers."""
    text, number = pa.string(), pa.float64()
    types = [text, pa.int32(), text, text, text, number, number, text]
    code = pa.list_(pa.float32(), width)
    return pa.schema([*zip(PIECE, types, strict=True), ("encoder", text), ("code", code)])


def _identity(part: Part) -> Hashable:
    """What makes two parts of a record the same piece."""
    return part.modality, part.digest or part.path, part.text, part.start, part.end


def stored_parts(rows: pa.Table) -> dict[str, dict[int, Part]]:
    """Parts by record and position, from rows of the table of parts."""
    found: dict[str, dict[int, Part]] = {}
    for row in rows.select(PIECE).to_pylist():
        part = Part(row["modality"], row["path"], row["text"], row["t0"], row["t1"], row["digest"])
        found.setdefault(row["record_id"], {}).setdefault(row["part"], part)
    return found


def part_rows(records: Collection[Record], layout: Layout, stored: pa.Table) -> pa.Table:
    """Rows for the parts and codes of ``records`` that are not yet among the ``stored`` rows."""
    there = set(zip(*(stored[c].to_pylist() for c in ("record_id", "part", "encoder")), strict=True))
    known = stored_parts(stored)
    keys = list(parts_schema(layout.width).names[:-1])
    lists: dict[str, list[object]] = {key: [] for key in keys}
    codes: list[NDArray[np.float32]] = []
    for record in records:
        at = {_identity(part): number for number, part in known.get(record.id, {}).items()}
        for part in record.parts:
            number = at.setdefault(_identity(part), max(at.values(), default=-1) + 1)
            encoder = encoder_of(part, record.id, layout)
            if (record.id, number, encoder) in there:
                continue
            there.add((record.id, number, encoder))
            piece = (part.modality, part.path, part.text, part.start, part.end, part.digest)
            for key, value in zip(keys, (record.id, number, *piece, encoder), strict=True):
                lists[key].append(value)
            assert part.code is not None  # encoder_of has refused it otherwise
            codes.append(part.code.vector)
    padded = np.zeros((len(codes), layout.width), dtype=np.float32)
    for row, code in zip(padded, codes, strict=True):
        row[: len(code)] = code
    vectors = pa.FixedSizeListArray.from_arrays(padded.ravel(), layout.width)
    return arrow_table({**lists, "code": vectors}, parts_schema(layout.width))


def check(record: Record, layout: Layout) -> None:
    """HarmoniaError unless the record has parts and each has a code of the store's encoders."""
    if not record.parts:
        raise HarmoniaError(f"record {record.id} has no parts: there is nothing to find it by")
    for part in record.parts:
        encoder_of(part, record.id, layout)


def encoder_of(part: Part, record_id: str, layout: Layout) -> str:
    """The name of the store's encoder that made a part's code; HarmoniaError if none did."""
    code = part.code
    if code is None:
        raise HarmoniaError(f"a part ({part.modality}) of record {record_id} has no code: encode it first")
    shape = code.vector.shape
    for encoder in layout.encoders:
        if (encoder.modality, encoder.space) == (code.modality, code.space):
            if shape == (encoder.dim,):
                _check_unit(code, record_id)
                return encoder.name
            break
    raise HarmoniaError(
        f"a code of {code.modality} space '{code.space}' and shape {shape} does not belong in this "
        f"store, made with {layout.describe()}: use these encoders, or create another store"
    )


def _check_unit(code: Code, record_id: str) -> None:
    """Refuse codes that would make every later similarity wrong."""
    norm = float(np.linalg.norm(code.vector))
    if not abs(norm - 1.0) < 1e-2:  # also true of NaN
        raise HarmoniaError(
            f"a {code.modality} code of record {record_id} has norm {norm:g}: codes are unit vectors"
        )


def record_rows(rows: Mapping[str, tuple[str, float]], schema: pa.Schema) -> pa.Table:
    """Rows of the table of records from (metadata JSON, time of creation) by id."""
    full = [
        {
            **columns.column_values(json.loads(metadata), schema),
            "id": record_id,
            "metadata": metadata,
            "created": created,
        }
        for record_id, (metadata, created) in rows.items()
    ]
    return pa.Table.from_pylist(full, schema=schema)


def file_rows(files: Sequence[FileState]) -> pa.Table:
    """Rows of the table of files."""
    lists = {name: [getattr(file, name) for file in files] for name in FILES_SCHEMA.names}
    return arrow_table(lists, FILES_SCHEMA)


def file_states(found: pa.Table) -> dict[str, FileState]:
    """File states by path, from rows of the table of files."""
    return {row["path"]: FileState(**row) for row in found.to_pylist()}


def arrow_table(lists: Mapping[str, object], schema: pa.Schema) -> pa.Table:
    """An Arrow table; HarmoniaError for text that is not Unicode, as some file names are."""
    try:
        return pa.table(lists, schema=schema)
    except UnicodeEncodeError as error:
        raise HarmoniaError(
            f"a file name or text is not valid Unicode ({error.object!a}): rename the file"
        ) from error


def all_texts(parts: Table, only: Collection[str] | None) -> tuple[list[str], list[str]]:
    """The text of each part, once, with its record's id."""
    names = ["record_id", "part", "text"]
    found = (
        scan(parts, names, "text IS NOT NULL") if only is None else rows_in(parts, "record_id", only, names)
    )
    found = found.filter(pc.is_valid(found["text"])).group_by(["record_id", "part"], use_threads=False)
    once = found.aggregate([("text", "first")])
    return once["record_id"].to_pylist(), once["text_first"].to_pylist()


CODED = ["record_id", "part", "t0", "t1", "code"]


def all_codes(parts: Table, encoders: Sequence[EncoderInfo], ids: pa.Array) -> dict[str, Codes]:
    """Every code of the records ``ids``, by encoder; one encoder's rows are in memory at a time."""
    return {e.name: gather_codes(rows_where(parts, "encoder", e.name, CODED), ids, e.dim) for e in encoders}


def some_codes(parts: Table, encoders: Sequence[EncoderInfo], ids: pa.Array) -> dict[str, Codes]:
    """The codes of few records, by encoder."""
    found = rows_in(parts, "record_id", ids.to_pylist(), [*CODED, "encoder"])
    return {
        e.name: gather_codes(found.filter(pc.equal(found["encoder"], e.name)), ids, e.dim) for e in encoders
    }


def gather_codes(rows: pa.Table, record_ids: pa.Array, dim: int) -> Codes:
    """Sorted codes of one encoder from its rows; rows of no listed record are left out."""
    found = pc.fill_null(pc.index_in(rows["record_id"], value_set=record_ids), -1)
    record = found.to_numpy().astype(np.int64)
    part = rows["part"].to_numpy().astype(np.int64)
    order = np.lexsort((part, record))
    order = order[np.searchsorted(record, 0, sorter=order) :]
    record, part = record[order], part[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (record[1:] != record[:-1]) | (part[1:] != part[:-1])
    order = order[first]
    vectors = rows["code"].combine_chunks()
    width = vectors.type.list_size
    codes = vectors.flatten().to_numpy().reshape(-1, width)[:, :dim]
    return Codes(
        codes=np.ascontiguousarray(codes[order]),
        record=record[first],
        part=part[first],
        t0=_numbers(rows["t0"])[order],
        t1=_numbers(rows["t1"])[order],
    )


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A float column as NumPy, null as NaN."""
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), dtype=np.float64)
