"""From the cues of a request to the query that the memory understands."""

from __future__ import annotations

from collections.abc import Mapping

from harmonia.collection.cues import Query, Thing
from harmonia.server import filters
from harmonia.server.errors import ApiError, not_found
from harmonia.server.formats import checked, decoded
from harmonia.server.schemas.memory import Cued, CueIn
from harmonia.server.service import Service
from harmonia.store.lance.sql import is_in
from harmonia.types import MODALITIES, Code

ATTACHED = "cid:"
"""How a cue names a file of the same form."""
CLAMPED = float("inf")


async def query_of(
    service: Service, asked: Cued, files: Mapping[str, bytes], *, admin: bool, leave_out: bool = True
) -> tuple[Query, str | None]:
    """The query, and the SQL condition on the records; ApiError for cues that cannot be read.

    ``files`` are those of the same form, by name. With ``leave_out`` a record that is a cue, or of which no
    more is wanted, is not among the answers.
    """
    ids = list(dict.fromkeys([*(cue.record for cue in asked.cues if cue.record), *asked.not_like]))
    codes = await service.ask(lambda: service.collection.codes_of(ids)) if ids else {}
    for one in ids:
        if one not in codes:
            raise not_found("record", one)
    things: list[Thing] = []
    for number, cue in enumerate(asked.cues):
        name, trust = cue.name or _name(cue, number, asked), CLAMPED if cue.trust is None else cue.trust
        if cue.record:
            things += _like(name, codes[cue.record], cue.weight, trust)
        elif cue.text is not None:
            things.append(Thing(name, "text", cue.text, cue.weight, trust))
        else:
            data = await service.work(lambda c=cue, i=number: _media(c, f"cues.{i}.{c.kind}", files))  # type: ignore[misc]
            things.append(Thing(name, cue.kind, data, cue.weight, trust))
    for one in asked.not_like:
        things += _like(f"not {one[:8]}", codes[one], -1.0, CLAMPED)
    left_out = f"NOT ({is_in('id', ids)})" if ids and leave_out else None
    where = filters.condition_of(asked.where, asked.filters, left_out, admin=admin)
    return Query({}, against=asked.against, things=things), where


def _name(cue: CueIn, number: int, asked: Cued) -> str:
    """What a cue without a name is called: its kind, numbered where there are several."""
    same = [i for i, other in enumerate(asked.cues) if other.kind == cue.kind]
    return cue.kind if len(same) == 1 else f"{cue.kind} {same.index(number) + 1}"


def _like(name: str, codes: tuple[Code, ...], weight: float, trust: float) -> list[Thing]:
    """A record as cues: one for each modality that it has."""
    by_modality = {m: tuple(code for code in codes if code.modality == m) for m in MODALITIES}
    return [Thing(name, m, found, weight, trust) for m, found in by_modality.items() if found]


def _media(cue: CueIn, param: str, files: Mapping[str, bytes]) -> bytes:
    given: str = getattr(cue, cue.kind)
    if not given.startswith(ATTACHED):
        return checked(decoded(given, param), cue.kind, param)
    name = given.removeprefix(ATTACHED)
    if name not in files:
        raise ApiError(400, f"{param} names a file that the form does not have", param=param)
    return checked(files[name], cue.kind, param)
