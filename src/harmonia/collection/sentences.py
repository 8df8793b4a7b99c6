"""Recollections in sentences: an answer, and an explanation. No language model writes them.

They are composed from the records and the certificate, and say nothing that is not in them.
"""

from __future__ import annotations

from dataclasses import dataclass

from harmonia.modalities.subtitles import in_seconds
from harmonia.types import Recalled, Recollection

QUOTED = 200
"""Characters of a record's words that an answer quotes."""
LEAST = 0.01
"""Records that are less probable than this are evidence, but not worth a sentence."""
KINDS = {"video": "a video", "image": "an image", "audio": "audio", "text": "text"}


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the memory says to a question, and the recollection behind it."""

    text: str
    recollection: Recollection

    @property
    def abstained(self) -> bool:
        """Whether it says that nothing here matches."""
        return self.recollection.abstained


def answer_text(found: Recollection) -> str:
    """A recollection in sentences: what is recalled, what else is possible, and how sure that is."""
    nothing = f"{_percent(found.certificate.nothing)} of unrelated cues match as well"
    if found.abstained or not found.records:
        nearest = f" The nearest is {described(found.records[0])}." if found.records else ""
        return f"Nothing that is remembered matches: {nothing}.{nearest}"
    first, *others = found.records
    also = "; ".join(described(one) for one in others if one.probability >= LEAST)
    text = f"The memory recalls {described(first)}."
    return f"{text}{f' Also possible: {also}.' if also else ''} {nothing}."


def described(one: Recalled) -> str:
    """A record by its own words, or its name; what it holds, where in it, and how probable it is."""
    parts = one.moment or one.record.parts
    said = next((p.text for p in (*parts, *one.record.parts) if p.text), None)
    name = one.record.metadata.get("name")
    words = " ".join(said.split()) if said else str(name or one.record.id[:8])
    words = words if len(words) <= QUOTED else words[: QUOTED - 1] + "…"
    held = {part.modality for part in one.record.parts}
    facts = [" with ".join(kind for modality, kind in KINDS.items() if modality in held)]
    # a moment holds one part of every kind: the subtitles in it tell the time if they are what a cue matched
    heard = [match.part for match in one.matches.values() if match.part.modality == "text"]
    timed = [p for p in (*heard, *parts) if p.modality != "text" or p in heard]
    span = next((p for p in timed if p.start is not None and p.end is not None and in_seconds(p)), None)
    if span is not None:
        facts.append(f"from {span.start:.1f} s to {span.end:.1f} s")
    return f"“{words}” ({', '.join([*facts, _percent(one.probability)])})"


def explanation(found: Recollection) -> list[str]:
    """The certificate in words, a sentence each."""
    c = found.certificate
    if not found.codes and not c.beta:
        return ["No record was left to recall: none fulfils the condition."]
    return [
        "Scores are in units of chance: an unrelated record scores 0 on average, with a spread of 1.",
        f"The inverse temperature (beta) is {c.beta:.3g}.",
        f"The energy fell from {c.energies[0]:.3f} to {c.energies[-1]:.3f} in {c.steps} steps.",
        "The retrieval converged." if c.converged else "The retrieval did not converge: give more steps.",
        f"All records not kept for the update have a probability of {c.tail_mass:.1e} together, exactly.",
        f"The mean behind a settled code is off by at most {c.error_bound:.1e} for that.",
        "Cues near this one converge to the same point."
        if c.contraction < 1
        else "Nothing is known about where cues near this one converge.",
        f"Of unrelated cues {c.nothing:.1%} match as well as this one.",
        "Every record was scored."
        if c.candidates is None
        else f"All of this is said of {c.candidates} candidates that the index proposed.",
    ]


def _percent(p: float) -> str:
    return "over 99%" if p > 0.99 else "under 1%" if p < 0.01 else f"{p:.0%}"
