"""A cache of records, for readers that fetch the same ones repeatedly."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from harmonia.types import Record

PARTS = 50_000
"""Maximum number of cached parts, about 20 MB; the least recently used records are evicted first."""


class CachedRecords:
    """``fetch`` with a cache (LRU), for one version of a store and one thread."""

    def __init__(self, fetch: Callable[[Sequence[str]], Sequence[Record]], most: int = PARTS) -> None:
        self.fetch, self.most, self.parts = fetch, most, 0
        self.held: OrderedDict[str, Record] = OrderedDict()

    def __call__(self, ids: Sequence[str]) -> list[Record]:
        """The records of these ids, in order, without those that do not exist."""
        found = {}
        for record_id in ids:
            if record_id in self.held:
                self.held.move_to_end(record_id)
                found[record_id] = self.held[record_id]
        missing = [record_id for record_id in ids if record_id not in found]
        for record in self.fetch(missing) if missing else ():
            found[record.id] = self.held[record.id] = record
            self.parts += len(record.parts)
        while self.parts > self.most and self.held:
            self.parts -= len(self.held.popitem(last=False)[1].parts)
        return [found[record_id] for record_id in ids if record_id in found]
