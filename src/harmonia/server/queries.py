"""Converts the cues of a request to a query and recall options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harmonia.collection.cues import QueryItem, RecallOptions, weighted
from harmonia.server import filters
from harmonia.server.errors import ApiError, not_found
from harmonia.server.formats import check_modality, decode_base64
from harmonia.server.keys import Key
from harmonia.server.schemas.memory import CueIn, Cues
from harmonia.server.service import Service
from harmonia.store.filters import And, In, Not
from harmonia.types import MODALITIES, Code

ATTACHED = "cid:"
"""Prefix by which a cue names a file of the same form."""
CLAMPED = float("inf")


async def query_of(
    service: Service, body: Cues, files: Mapping[str, bytes], *, key: Key, leave_out: bool = True
) -> tuple[list[QueryItem], RecallOptions]:
    """The query and recall options of a request; ApiError for cues that cannot be read.

    ``key`` is that of the caller: records that it may not see are unknown, and not among the results.
    ``files`` are the files of the form, by name. ``leave_out`` excludes the records of ``record`` cues and of
    ``not_like`` from the results.
    """
    ids = list(dict.fromkeys([*(cue.record for cue in body.cues if cue.record), *body.not_like]))
    codes = await service.ask(lambda: _codes_of(service, ids, key)) if ids else {}
    for record_id in ids:
        if record_id not in codes:
            raise not_found("record", record_id)
    query: list[QueryItem] = []
    for number, cue in enumerate(body.cues):
        name, trust = cue.name or _name(cue, number, body), CLAMPED if cue.trust is None else cue.trust
        weight = body.weights.get(name, body.weights.get(cue.kind, cue.weight))
        if cue.record:
            query += _like(name, await _codes(service, cue, codes[cue.record]), weight, trust)
        elif cue.text is not None:
            query.append(QueryItem(name, "text", cue.text, weight, trust))
        else:
            data = await service.work(lambda c=cue, i=number: _media(c, f"cues.{i}.{c.kind}", files))  # type: ignore[misc]
            query.append(QueryItem(name, cue.kind, data, weight, trust))
    for record_id in body.not_like:
        query += _like(f"not {record_id[:8]}", codes[record_id], -1.0, CLAMPED)
    query += [
        QueryItem(f"not {words}", "text", words, -body.weights.get("not", 1.0)) for words in body.against
    ]
    if body.leave_out_cues:
        ids += sorted(await service.work(lambda: service.writer().records_of(query)))
    left_out = Not(In("id", tuple(ids))) if ids and leave_out else None
    where = filters.condition_of(body.where, body.filters, left_out, key=key)
    return weighted(query, body.weights), body.options(where)


def _codes_of(service: Service, ids: Sequence[str], key: Key) -> dict[str, tuple[Code, ...]]:
    """The codes of those records that the caller may see."""
    collection = service.collection
    if key.records is not None:
        ids = collection.store.select(And((In("id", tuple(ids)), key.records)))
    return collection.codes_of(ids)


def _name(cue: CueIn, number: int, body: Cues) -> str:
    """The default name of a cue: its kind, numbered if there are several."""
    same_kind = [i for i, other in enumerate(body.cues) if other.kind == cue.kind]
    return cue.kind if len(same_kind) == 1 else f"{cue.kind} {same_kind.index(number) + 1}"


async def _codes(service: Service, cue: CueIn, whole: tuple[Code, ...]) -> tuple[Code, ...]:
    """The codes of the part that a record cue names, or of the ``whole`` record."""
    if cue.part is None:
        return whole
    record_id = str(cue.record)
    found = await service.ask(lambda: service.collection.codes_of([record_id], cue.part))
    if not found.get(record_id):
        raise ApiError(404, f"record {record_id} has no part {cue.part}", param="part", code="part_not_found")
    return found[record_id]


def _like(name: str, codes: tuple[Code, ...], weight: float, trust: float) -> list[QueryItem]:
    """A record as query items, one per modality."""
    by_modality = {m: tuple(code for code in codes if code.modality == m) for m in MODALITIES}
    return [
        QueryItem(name, m, codes_of_modality, weight, trust)
        for m, codes_of_modality in by_modality.items()
        if codes_of_modality
    ]


def _media(cue: CueIn, param: str, files: Mapping[str, bytes]) -> bytes:
    given: str = getattr(cue, cue.kind)
    if not given.startswith(ATTACHED):
        return check_modality(decode_base64(given, param), cue.kind, param)
    name = given.removeprefix(ATTACHED)
    if name not in files:
        raise ApiError(400, f"{param} names a file that is not in the form", param=param)
    return check_modality(files[name], cue.kind, param)
