"""Change of sample rate by a rational factor."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

ZERO_CROSSINGS, KAISER_BETA = 10, 5.0


def resample(wave: NDArray[np.float32], up: int, down: int) -> NDArray[np.float32]:
    """Mono samples at ``up / down`` times their rate, float32 ``(ceil(len(wave) * up / down),)``.

    A windowed-sinc lowpass at the lower of the two Nyquist frequencies: ten zero crossings to either side
    under a Kaiser window of beta 5, as in scipy.signal.resample_poly. Beyond its ends the sound is silent.
    ``up`` and ``down`` are positive and have no common factor.
    """
    slow = max(up, down)
    reach = ZERO_CROSSINGS * slow
    taps = np.sinc(np.arange(-reach, reach + 1) / slow) * np.kaiser(2 * reach + 1, KAISER_BETA)
    taps *= up / taps.sum()
    # Output m lies m * down / up samples in. Its phase, the remainder, picks every up-th tap: those that fall
    # on samples, while the others fall on the zeros between them, which need not be computed.
    half = -(-(reach + 1) // up)
    margin = half * up - reach
    phases = np.pad(taps, (margin, margin + up - 1)).reshape(2 * half + 1, up)[::-1].astype(np.float32)
    spans = sliding_window_view(np.pad(wave, half), 2 * half + 1)
    out = np.empty(-(-len(wave) * up // down), np.float32)
    for first in range(min(up, len(out))):
        sample, phase = divmod(first * down, up)
        out[first::up] = spans[sample::down] @ phases[:, phase]
    return out
