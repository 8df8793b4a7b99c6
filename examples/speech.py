"""Spoken sentences from espeak-ng, which the package ``espeakng-loader`` carries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from harmonia.types import HarmoniaError, Signal


class SpeechMissing(HarmoniaError):
    """Raised if espeak-ng is not installed or does not run on this machine."""


def speak(text: str, voice: str = "en-us", words_per_minute: int = 150, pitch: int = 50) -> Signal:
    """Audio of a spoken text, mono; the same text in the same voice gives the same samples.

    ``voice`` is a language of espeak-ng with or without a variant (``en-us+f3``); ``pitch`` is from
    0 to 99. Raises SpeechMissing without espeak-ng.
    """
    script = Path(__file__).with_name("espeak.py")
    command = [sys.executable, str(script), voice, str(words_per_minute), str(pitch)]
    run = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    if run.returncode:
        reason = run.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise SpeechMissing(
            f"espeak-ng does not speak ({reason or run.returncode}); pip install espeakng-loader"
        )
    words = np.frombuffer(run.stdout, np.int16)
    rate, samples = int(words[:2].view(np.int32)[0]), words[2:]
    return Signal("audio", samples.astype(np.float32)[None] / 32768, rate=float(rate))
