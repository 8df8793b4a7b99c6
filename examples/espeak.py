"""Speak one text with espeak-ng: ``python espeak.py VOICE WORDS_PER_MINUTE PITCH < text > sound``.

The output is the rate (int32) followed by the samples (int16), in the byte order of the machine. It is
a separate script, because the library keeps state between sentences that cannot be reset.
"""

from __future__ import annotations

import ctypes
import sys

import espeakng_loader

# names and values of espeak-ng 1.52's speak_lib.h
AUDIO_OUTPUT_SYNCHRONOUS = 2  # samples go to the callback before espeak_Synth returns
INITIALIZE_DONT_EXIT = 0x8000
ESPEAK_RATE, ESPEAK_PITCH = 1, 3
POS_CHARACTER = 1
CHARS_UTF8 = 1
Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


class Espeak:
    """The library with one voice. A process may hold only one."""

    def __init__(self, voice: str, words_per_minute: int, pitch: int) -> None:
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.rate: int = self._library.espeak_Initialize(
            AUDIO_OUTPUT_SYNCHRONOUS, 0, data, INITIALIZE_DONT_EXIT
        )
        if self.rate <= 0:
            raise OSError("espeak-ng does not start")
        # breath is noise; without a seed it follows the clock
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        self._samples: list[bytes] = []
        self._callback = Callback(self._collect)  # kept: the library holds only its address
        self._library.espeak_SetSynthCallback(self._callback)
        self._check(self._library.espeak_SetVoiceByName(voice.encode()), f"voice {voice}")
        for parameter, value in ((ESPEAK_RATE, words_per_minute), (ESPEAK_PITCH, pitch)):
            self._check(self._library.espeak_SetParameter(parameter, value, 0), "parameter")

    def speak(self, text: str) -> bytes:
        """Samples of a spoken text, int16 in native byte order."""
        self._samples.clear()
        content = text.encode() + b"\0"
        size = ctypes.c_size_t(len(content))
        status = self._library.espeak_Synth(content, size, 0, POS_CHARACTER, 0, CHARS_UTF8, None, None)
        self._check(status, "text")
        return b"".join(self._samples)

    def _collect(self, samples: object, count: int, _events: object) -> int:
        if samples and count > 0:
            self._samples.append(ctypes.string_at(samples, 2 * count))  # type: ignore[arg-type]
        return 0  # go on

    @staticmethod
    def _check(status: int, what: str) -> None:
        if status:
            raise OSError(f"espeak-ng refuses the {what} (status {status})")


def main() -> None:
    """Speak standard input to standard output."""
    voice, words_per_minute, pitch = sys.argv[1:]
    espeak = Espeak(voice, int(words_per_minute), int(pitch))
    samples = espeak.speak(sys.stdin.buffer.read().decode())
    sys.stdout.buffer.write(espeak.rate.to_bytes(4, sys.byteorder) + samples)


if __name__ == "__main__":
    main()
