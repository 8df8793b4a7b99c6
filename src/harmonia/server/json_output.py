"""Records and recollections as JSON for clients: media by address, never by a path of this machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harmonia.types import Certificate, Part, Recalled, Recollection, Record

PLACES = ("path", "folder")
"""Metadata that say where on this machine a file lies; only a key of scope admin sees them."""
PARTS = 200
"""Most parts of a record that are shown; a long film has a part for every shot."""


def record_json(record: Record, *, admin: bool, parts: Sequence[Part] | None = None) -> dict[str, Any]:
    """A record, with the given parts or all of them (at most ``PARTS``)."""
    metadata = {k: v for k, v in record.metadata.items() if admin or k not in PLACES}
    several = record.parts if parts is None else parts
    return {
        "id": record.id,
        "object": "memory.record",
        "parts": [part_json(part) for part in several[:PARTS]],
        "metadata": finite(metadata),
    }


def part_json(part: Part) -> dict[str, Any]:
    """A part: what it is, where in its file, and the addresses of the file and of a picture of it."""
    media = f"/v1/memory/media/{part.digest}" if part.path and part.digest else None
    seen = media and part.modality != "text"
    return {
        "modality": part.modality,
        "text": part.text,
        "start": finite(part.start),
        "end": finite(part.end),
        "digest": part.digest,
        "media": media,
        "preview": f"{media}/preview" if seen else None,
    }


def recollection_json(found: Recollection, *, admin: bool, explain: bool) -> dict[str, Any]:
    """What came back: the best moment of each record, its probability, and what each cue said to it."""
    answer: dict[str, Any] = {
        "object": "memory.recollection",
        "records": [_recalled(one, admin, explain) for one in found.records],
        "abstained": found.abstained,
        "certificate": certificate_json(found.certificate),
    }
    if explain:
        answer["explanation"] = explained(found)
    return answer


def _recalled(one: Recalled, admin: bool, explain: bool) -> dict[str, Any]:
    shown = {
        "rank": one.rank,
        "probability": one.probability,
        "score": finite(one.score),
        **record_json(one.record, admin=admin, parts=one.moment or None),
        "shares": finite(dict(one.shares)),
    }
    if explain:
        shown["adds"] = finite(_adds(one))
        shown["matches"] = {
            name: {"similarity": finite(match.similarity), **part_json(match.part)}
            for name, match in one.matches.items()
        }
    return shown


def _adds(one: Recalled) -> dict[str, float]:
    """What each cue adds to the score; together they are the score."""
    whole = sum(one.shares.values()) or 1.0
    return {name: share * one.score / whole for name, share in one.shares.items()}


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


def explained(found: Recollection) -> list[str]:
    """The certificate in words, a sentence each."""
    c = found.certificate
    return [
        f"An unrelated record scores 0 on average and 1 in spread; the sharpness (beta) is {c.beta:.3g}.",
        f"The energy fell from {c.energies[0]:.3f} to {c.energies[-1]:.3f} in {c.steps} steps.",
        "The settling came to rest."
        if c.converged
        else "The settling did not come to rest: give more steps.",
        f"All records not kept for the update have a probability of {c.tail_mass:.1e} together, exactly.",
        f"The mean behind a settled code is off by at most {c.error_bound:.1e} for that.",
        "Cues near this one come to rest where it does."
        if c.contraction < 1
        else "Nothing is promised about cues near this one.",
        f"The probability that no record matches is {c.nothing:.1%}.",
        "Every record was scored."
        if c.candidates is None
        else f"All of this is said of {c.candidates} candidates that the index proposed.",
    ]


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
