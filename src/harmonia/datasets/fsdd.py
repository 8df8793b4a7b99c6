"""The Free Spoken Digit Dataset (Jackson et al., 2018): English digits at 8 kHz, every speaker 50 times."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import soundfile

from harmonia.data.tables import Row, Rows
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    embedded_part,
    media_part,
    reason_of,
    require,
    require_split,
    rows_to_records,
    split_filter,
    text_parts,
)
from harmonia.types import HarmoniaError, Record

HOW_TO_GET = "load it from github.com/Jakobovski/free-spoken-digit-dataset (30 MB) and unpack it there"
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RATE = 8000


def fsdd(folder: str | Path | None = None, split: str = "train") -> Records:
    """Records of a spoken digit and its word ("seven").

    Read: ``recordings/{digit}_{speaker}_{index}.wav`` as published, or ``digits.npz`` (audio, offset, label,
    speaker, index). ``split``: the official one, test is the takes with index 0 to 4, train the others, or
    all: 300 and 2,700 of the six speakers that version 1.0.10 has.

    Metadata: dataset, split, name, path, digit, speaker, index.
    """
    home = dataset_folder(folder, "fsdd", "FSDD", HOW_TO_GET)
    require_split(split, ("train", "test"), "FSDD")
    wanted = split_filter(split)
    table = home / "digits.npz"
    if table.exists():
        source, rows = table, _packed_rows(_arrays(table))
    else:
        require(home, ["recordings"], "FSDD", HOW_TO_GET)
        source, rows = home / "recordings", _files(home / "recordings")

    def make(row: Row) -> Record | None:
        digit, speaker, index = row["digit"], row["speaker"], row["index"]
        own = "test" if index < 5 else "train"
        if not wanted(own):
            return None
        if "wave" in row:
            sound = embedded_part("audio", _wav(row["wave"]))
        else:
            sound = media_part("audio", row["path"])
        parts = (sound, *text_parts([DIGITS[digit]]))
        name = f"{digit}_{speaker}_{index}"
        return dataset_record("fsdd", own, name, parts, digit=digit, speaker=speaker, index=index)

    return rows_to_records(source, rows, make)


def _files(recordings: Path) -> Rows:
    for number, path in enumerate(sorted(recordings.glob("*.wav")), start=1):
        if named := re.fullmatch(r"([0-9])_(.+)_([0-9]+)", path.stem):
            digit, speaker, index = int(named[1]), named[2], int(named[3])
            yield number, {"digit": digit, "speaker": speaker, "index": index, "path": path}
        else:
            yield number, f"{path.name} is not named digit_speaker_index.wav"


def _arrays(table: Path) -> dict[str, Any]:
    try:
        with np.load(table, allow_pickle=False) as file:
            return {name: file[name] for name in ("audio", "offset", "label", "speaker", "index")}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise HarmoniaError(f"{table} cannot be read: {reason_of(error)}; load it again") from error


def _packed_rows(arrays: dict[str, Any]) -> Rows:
    offset = arrays["offset"]
    names = zip(arrays["label"].tolist(), arrays["speaker"].tolist(), arrays["index"].tolist(), strict=True)
    for row, (digit, speaker, index) in enumerate(names):
        wave = arrays["audio"][offset[row] : offset[row + 1]]
        yield row + 1, {"digit": digit, "speaker": speaker, "index": index, "wave": wave}


def _wav(wave: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()
