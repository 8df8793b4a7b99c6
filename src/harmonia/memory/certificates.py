"""What can be said for certain about a truncated sum over slots."""

from __future__ import annotations

from torch import Tensor

SPHERE_DIAMETER = 2.0


def error_bound(tail_mass: Tensor, diameter: float = SPHERE_DIAMETER) -> Tensor:
    """How far a readout that leaves out ``tail_mass`` of the slot distribution can be off.

    Leaving out mass t and renormalising moves a convex combination of points by at most t times the
    diameter of the set they come from. Unit codes have diameter at most 2.
    """
    return tail_mass * diameter
