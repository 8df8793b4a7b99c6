"""How a recall is made: the one set of options of Python, the command line and HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from harmonia.store.protocol import Where
from harmonia.types import HarmoniaError


@dataclass(frozen=True, slots=True)
class RecallOptions:
    """Options of one recall; see :meth:`harmonia.memory.HarmonicMemory.recall`.

    * ``k``: how many records come back
    * ``where``: filter on the metadata, or its text form
    * ``steps``: most retrieval steps
    * ``alpha``: distribution over the records: 1 softmax, above 1 sparse (alpha-entmax)
    * ``beta``: inverse temperature, in units of chance; None: from the number of records
    * ``noise``: expected noise of the cues' codes, variance per number; gives beta where that is None
    """

    k: int = 10
    where: Where | None = None
    steps: int = 8
    alpha: float = 1.0
    beta: float | None = None
    noise: float | None = None

    def __post_init__(self) -> None:
        if self.k < 1:
            raise HarmoniaError(f"the number of records must be at least 1 (got {self.k})")
