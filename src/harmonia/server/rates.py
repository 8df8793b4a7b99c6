"""Token buckets: the rate of each caller, and of wrong keys of each address."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from harmonia.server.errors import ApiError

MAX_CALLERS = 10_000
"""Most callers with a bucket; the least recent one is evicted."""


class Rates:
    """One token bucket per caller: ``burst`` requests at once, refilled by ``rate`` per second."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self.clock = rate, burst, clock
        self.buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> dict[str, str]:
        """Take one token; returns the rate headers, or raises ApiError 429 if there is none."""
        now = self.clock()
        left, since = self.buckets.pop(caller, (float(self.burst), now))
        free = min(float(self.burst), left + (now - since) * self.rate)
        # a refused request takes nothing: who keeps asking is answered as often as the rate says
        left = free - 1.0 if free >= 1.0 else free
        self.buckets[caller] = left, now
        if len(self.buckets) > MAX_CALLERS:
            self.buckets.popitem(last=False)
        headers = {
            "x-ratelimit-limit-requests": str(self.burst),
            "x-ratelimit-remaining-requests": str(max(0, math.floor(left))),
            "x-ratelimit-reset-requests": f"{(self.burst - left) / self.rate:.3f}s",
        }
        if free < 1.0:
            wait = str(math.ceil((1.0 - free) / self.rate))
            raise ApiError(
                429, "too many requests: slow down", code="rate_limit_exceeded",
                headers=headers | {"Retry-After": wait},
            )  # fmt: skip
        return headers
