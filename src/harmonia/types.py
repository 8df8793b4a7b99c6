"""The five nouns of Harmonia, and the error every user-facing failure is raised as.

Signal -> Code -> (memory) -> Code -> Signal. Everything else in the package is a function between
these. The module imports NumPy only, so that any other module may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODALITIES = ("text", "image", "audio", "video")
"""Names of the modalities that can be remembered, in the order in which tables show them."""


class HarmoniaError(Exception):
    """A failure the user can act on. The message is one line that says what to do next."""


@dataclass(frozen=True, slots=True, eq=False)
class Signal:
    """One decoded piece of media.

    ``data`` by modality:

    * text: ``str``
    * image: uint8 ``(height, width, 3)`` RGB
    * audio: float32 ``(channels, samples)`` in [-1, 1], ``rate`` in samples per second
    * video: uint8 ``(frames, height, width, 3)`` RGB, ``rate`` in frames per second of the file,
      ``times`` the second at which each frame is shown, ``sound`` the audio of the same span

    ``start`` and ``end`` place a window in its parent (seconds, also of subtitles; characters for other
    text); both are None for a whole piece. ``caption`` is text found inside the file (EXIF, tags).
    """

    modality: str
    data: NDArray[Any] | str
    rate: float | None = None
    start: float | None = None
    end: float | None = None
    times: NDArray[np.float64] | None = None
    sound: Signal | None = None
    caption: str | None = None

    @property
    def array(self) -> NDArray[Any]:
        """The samples of an image, audio or video signal; a TypeError for text."""
        if isinstance(self.data, str):
            raise TypeError("a text signal has no array")
        return self.data

    @property
    def text(self) -> str:
        """The string of a text signal; a TypeError for the others."""
        if not isinstance(self.data, str):
            raise TypeError(f"a signal of modality {self.modality} has no text")
        return self.data


@dataclass(frozen=True, slots=True, eq=False)
class Code:
    """A unit vector, float32 ``(d,)``, in one modality's space.

    Codes may be compared when their ``space`` is equal: a CLIP text code and a CLIP image code
    share a space, a hashed n-gram code and a colour histogram do not.
    """

    modality: str
    vector: NDArray[np.float32]
    space: str


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a record: where the signal is, and its code once it has been encoded.

    ``path`` names the media file (absolute, or relative to the store for copied media); inline text
    has ``text`` and may have no path. ``digest`` is the SHA-256 of the file's bytes or of the text.
    """

    modality: str
    path: str | None = None
    text: str | None = None
    start: float | None = None
    end: float | None = None
    digest: str = ""
    code: Code | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Record:
    """One memory: an id, the parts that belong together, and metadata that can be filtered on.

    The id is derived from the parts' content, so that the same content is the same record.
    """

    id: str
    parts: tuple[Part, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cue:
    """One part of a record, encoded, that is given in order to get the whole.

    ``weight`` says how far it counts in the match (negative: it counts against). ``trust`` is the
    kappa of the energy: infinite clamps the cue, a finite value lets settling clean it.
    """

    name: str
    code: Code
    weight: float = 1.0
    trust: float = float("inf")


@dataclass(frozen=True, slots=True)
class Match:
    """Why a record answers one cue: its best part for it and the cosine between the two."""

    part: Part
    similarity: float


@dataclass(frozen=True, slots=True)
class Recalled:
    """One ranked record: its probability, each cue's share in the match, and why it matches.

    ``score`` is in units of chance: an unrelated record scores about as a standard normal variable.

    ``matches`` holds the best part for each cue; ``moment`` the parts, at most one per modality, that
    go together there: the window of a long video, its sound, a caption. ``p_value`` is the share of unrelated
    cues whose best answer scores as high as this record, and ``matched`` whether that is rare enough.
    """

    rank: int
    record: Record
    probability: float
    score: float
    shares: Mapping[str, float]
    matches: Mapping[str, Match]
    moment: tuple[Part, ...] = ()
    p_value: float = 0.0
    matched: bool = True


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One record found by plain search; ``similarity`` is a cosine, or minus a Euclidean distance."""

    rank: int
    record: Record
    similarity: float


@dataclass(frozen=True, slots=True)
class Certificate:
    """What is known for certain about one settling.

    ``energies``: before the first and after each step; it never rises. ``tail_mass``: exact
    probability outside the records that were kept for the update. ``error_bound``: how far the
    mean that a settled code is made from may be, before it is scaled to unit length, from the full sum.
    ``nothing``: the p-value of the hypothesis that no record matches, which is the share of unrelated cues
    whose best answer scores as high.
    ``beta``: the inverse temperature, in units of chance. ``contraction``: a bound on how far the step
    spreads neighbouring cues here; below 1 they all come to rest at one point (free cues).
    ``candidates``: None where every record was scored; else how many an approximate index proposed,
    and then all of the above is said of these only.
    """

    energies: tuple[float, ...]
    tail_mass: float
    error_bound: float
    nothing: float
    steps: int
    converged: bool
    beta: float
    contraction: float
    candidates: int | None = None


@dataclass(frozen=True, slots=True)
class Recollection:
    """What comes back: ranked records, a settled code for every modality, and the certificate."""

    records: tuple[Recalled, ...]
    codes: Mapping[str, Code]
    certificate: Certificate
    abstained: bool
