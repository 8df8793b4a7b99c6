"""Records and recollections as JSON: the one form of the command line and of the server (docs/cli.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harmonia.collection.sentences import Answer, explanation
from harmonia.modalities.subtitles import in_seconds
from harmonia.types import Certificate, Neighbour, Part, Recalled, Recollection, Record

PRIVATE = ("path", "folder", "namespace")
"""Metadata that a server tells only to a key of scope admin: where on this machine a file lies, and whose a
record is."""
PARTS = 200
"""Most parts of a record that are shown; a long video has a part for every shot."""


@dataclass(frozen=True, slots=True)
class View:
    """Who reads: whether metadata tell what is ``private``, and whether the answer is ``served``.

    What is served has the type of each object, and the addresses of media in place of their paths.
    """

    private: bool = True
    served: bool = False


HERE = View()
"""The view of the memory's owner on this machine."""
SERVED = View(private=False, served=True)
"""The view of a client of a server who may not see where files lie."""


def record_json(record: Record, view: View = HERE, *, parts: Sequence[Part] | None = None) -> dict[str, Any]:
    """A record, with the given parts or all of them (at most ``PARTS``)."""
    metadata = {k: v for k, v in record.metadata.items() if view.private or k not in PRIVATE}
    several = record.parts if parts is None else parts
    return {
        "id": record.id,
        **({"object": "memory.record"} if view.served else {}),
        "parts": [part_json(part, view=view) for part in several[:PARTS]],
        "metadata": finite(metadata),
    }


def part_json(part: Part, view: View = HERE) -> dict[str, Any]:
    """A part: what it is, where in its file, and its path or its addresses."""
    shown = {
        "modality": part.modality,
        "text": part.text,
        "start": finite(part.start),
        "end": finite(part.end),
        "unit": None if part.start is None else "seconds" if in_seconds(part) else "characters",
        "digest": part.digest,
    }
    if view.served:
        address = f"/v1/memory/media/{part.digest}" if part.path and part.digest else None
        shown["media"] = address
        shown["preview"] = f"{address}/preview" if address and part.modality != "text" else None
    else:
        shown["path"] = part.path
    return shown


def recollection_json(found: Recollection, view: View = HERE, *, explain: bool = False) -> dict[str, Any]:
    """What came back: the best moment of each record, its probability, what each cue adds, the certificate.

    ``explain`` adds the certificate in words.
    """
    answer: dict[str, Any] = {
        **({"object": "memory.recollection"} if view.served else {}),
        "records": [_recalled(one, view) for one in found.records],
        "abstained": found.abstained,
        "certificate": certificate_json(found.certificate),
    }
    if explain:
        answer["explanation"] = explanation(found)
    return answer


def _recalled(one: Recalled, view: View) -> dict[str, Any]:
    whole = sum(one.shares.values()) or 1.0
    return {
        "rank": one.rank,
        "probability": one.probability,
        "matched": one.matched,
        "p_value": finite(one.p_value),
        "score": finite(one.score),
        **record_json(one.record, view=view, parts=one.moment or None),
        "shares": finite(dict(one.shares)),
        # what each cue adds to the score; together they are the score
        "adds": finite({name: share * one.score / whole for name, share in one.shares.items()}),
        "matches": {
            name: {"similarity": finite(match.similarity), **part_json(match.part, view)}
            for name, match in one.matches.items()
        },
    }


def answer_json(found: Answer, view: View = HERE) -> dict[str, Any]:
    """An answer, and the recollection that it is made from."""
    return {
        "text": found.text,
        "abstained": found.abstained,
        "recollection": recollection_json(found.recollection, view=view),
    }


def neighbours_json(found: Sequence[Neighbour], view: View = HERE) -> dict[str, Any]:
    """The records of a plain search and their similarities."""
    return {
        **({"object": "memory.neighbours"} if view.served else {}),
        "records": [
            {
                "rank": one.rank,
                "similarity": finite(one.similarity),
                **record_json(one.record, view=view),
            }
            for one in found
        ],
    }


def certificate_json(c: Certificate) -> dict[str, Any]:
    """The certificate, field by field; null for what is not finite."""
    return {
        "energies": finite(list(c.energies)),
        "tail_mass": finite(c.tail_mass),
        "steps": c.steps,
        "error_bound": finite(c.error_bound),
        "nothing": finite(c.nothing),
        "converged": c.converged,
        "beta": finite(c.beta),
        "contraction": finite(c.contraction),
        "candidates": c.candidates,
    }


def finite(value: Any) -> Any:
    """A value of plain JSON: null where a number is not finite."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value
