"""Records that were read before: for readers that ask for the same ones again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from harmonia.types import Record

PARTS = 50_000
"""Most parts that are kept, some 20 MB; the records that were asked for longest ago go first."""


class CachedRecords:
    """``fetch`` with a memory of what it gave. Use it for one state of a store, in one thread."""

    def __init__(self, fetch: Callable[[Sequence[str]], Sequence[Record]], most: int = PARTS) -> None:
        self.fetch, self.most, self.parts = fetch, most, 0
        self.held: OrderedDict[str, Record] = OrderedDict()

    def __call__(self, ids: Sequence[str]) -> list[Record]:
        """The records of these ids, in their order; those that are not there are left out."""
        found = {}
        for one in ids:
            if one in self.held:
                self.held.move_to_end(one)
                found[one] = self.held[one]
        missing = [one for one in ids if one not in found]
        for record in self.fetch(missing) if missing else ():
            found[record.id] = self.held[record.id] = record
            self.parts += len(record.parts)
        while self.parts > self.most and self.held:
            self.parts -= len(self.held.popitem(last=False)[1].parts)
        return [found[one] for one in ids if one in found]
