"""What every test has: a process that computes in one thread, and no clock that judges an example.

Sums of one thread are the same on every machine; threads that share a busy core wait for each other.
"""

from __future__ import annotations

import os

# before torch is imported, which reads it once
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

settings.register_profile("harmonia", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("harmonia")
