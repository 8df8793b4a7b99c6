"""From the cues of a request to the query that the memory understands."""

from __future__ import annotations

from collections.abc import Mapping

from harmonia.collection.cues import QueryItem, RecallOptions, weighted
from harmonia.server import filters
from harmonia.server.errors import ApiError, not_found
from harmonia.server.formats import check_modality, decode_base64
from harmonia.server.schemas.memory import CueIn, Cues
from harmonia.server.service import Service
from harmonia.store.filters import In, Not
from harmonia.types import MODALITIES, Code

ATTACHED = "cid:"
"""How a cue names a file of the same form."""
CLAMPED = float("inf")


async def query_of(
    service: Service, asked: Cues, files: Mapping[str, bytes], *, admin: bool, leave_out: bool = True
) -> tuple[list[QueryItem], RecallOptions]:
    """The query and how to recall by it; ApiError for cues that cannot be read.

    ``files`` are those of the same form, by name. With ``leave_out`` a record that is a cue, or of which no
    more is wanted, is not among the answers.
    """
    ids = list(dict.fromkeys([*(cue.record for cue in asked.cues if cue.record), *asked.not_like]))
    codes = await service.ask(lambda: service.collection.codes_of(ids)) if ids else {}
    for one in ids:
        if one not in codes:
            raise not_found("record", one)
    query: list[QueryItem] = []
    for number, cue in enumerate(asked.cues):
        name, trust = cue.name or _name(cue, number, asked), CLAMPED if cue.trust is None else cue.trust
        weight = asked.weights.get(name, asked.weights.get(cue.kind, cue.weight))
        if cue.record:
            query += _like(name, codes[cue.record], weight, trust)
        elif cue.text is not None:
            query.append(QueryItem(name, "text", cue.text, weight, trust))
        else:
            data = await service.work(lambda c=cue, i=number: _media(c, f"cues.{i}.{c.kind}", files))  # type: ignore[misc]
            query.append(QueryItem(name, cue.kind, data, weight, trust))
    for one in asked.not_like:
        query += _like(f"not {one[:8]}", codes[one], -1.0, CLAMPED)
    query += [
        QueryItem(f"not {words}", "text", words, -asked.weights.get("not", 1.0)) for words in asked.against
    ]
    if asked.leave_out_cues:
        ids += sorted(await service.work(lambda: service.writer().records_of(query)))
    left_out = Not(In("id", tuple(ids))) if ids and leave_out else None
    where = filters.condition_of(asked.where, asked.filters, left_out, admin=admin)
    return weighted(query, asked.weights), asked.options(where)


def _name(cue: CueIn, number: int, asked: Cues) -> str:
    """What a cue without a name is called: its kind, numbered where there are several."""
    same = [i for i, other in enumerate(asked.cues) if other.kind == cue.kind]
    return cue.kind if len(same) == 1 else f"{cue.kind} {same.index(number) + 1}"


def _like(name: str, codes: tuple[Code, ...], weight: float, trust: float) -> list[QueryItem]:
    """A record as cues: one for each modality that it has."""
    by_modality = {m: tuple(code for code in codes if code.modality == m) for m in MODALITIES}
    return [QueryItem(name, m, found, weight, trust) for m, found in by_modality.items() if found]


def _media(cue: CueIn, param: str, files: Mapping[str, bytes]) -> bytes:
    given: str = getattr(cue, cue.kind)
    if not given.startswith(ATTACHED):
        return check_modality(decode_base64(given, param), cue.kind, param)
    name = given.removeprefix(ATTACHED)
    if name not in files:
        raise ApiError(400, f"{param} names a file that the form does not have", param=param)
    return check_modality(files[name], cue.kind, param)
