"""A cache on disk for the codes of frozen towers and for prepared inputs.

    FOLDER/NAME.npy    the array, in NumPy's format
           NAME.json   a digest of what it was computed from, and a checksum for every finished block

A block is valid if its checksum matches; all other blocks are computed. So an interrupted run resumes, and a
damaged file is repaired.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from harmonia.encoders.base import Encoder
from harmonia.encoders.towers.base import Tower
from harmonia.types import HarmoniaError, Signal

BLOCK = 128
"""Rows of a block, which is computed at once."""

FORMAT = 1
DTYPES = ("float16", "float32")

Array = NDArray[Any]


def cached_features(
    tower: Tower | Encoder,
    signals: Sequence[Signal],
    folder: str | Path,
    name: str,
    *,
    dtype: str = "float32",
    digests: Iterable[str] | None = None,
) -> np.memmap[Any, Any]:
    """The codes of all signals, ``(n, dim)``, read only; those of a tower are not normalised.

    The first call computes them, with a progress bar, on the tower's device and in evaluation mode. The next
    call with the same weights and signals only reads them. Other weights or signals, and damaged blocks, are
    computed again.

    Args:
        tower: a frozen tower, or an encoder.
        signals: any sequence; elements may be decoded on access.
        folder: of the two files; created if it does not exist.
        name: of the two files.
        dtype: "float32", or "float16" for half the space.
        digests: of the signals' contents, as ``Part.digest``. Without them every signal is read to compute
            them, even if the codes are in the cache.

    Raises:
        HarmoniaError: there is no signal, a value is not finite in ``dtype``, or the disk is full.
    """
    if dtype not in DTYPES:
        raise HarmoniaError(f"dtype is one of {', '.join(DTYPES)}, not {dtype!r}")
    if isinstance(tower, Tower):
        made_by, compute = _weights(tower), lambda some: _codes(tower, some)
    else:
        made_by, compute = tower.name, tower.encode
    return _cached(compute, ["features", made_by], signals, digests, Path(folder), name, dtype)


def cached_inputs(
    tower: Tower,
    signals: Sequence[Signal],
    folder: str | Path,
    name: str,
    *,
    dtype: str | None = None,
    digests: Iterable[str] | None = None,
) -> np.memmap[Any, Any]:
    """The output of ``tower.prepare`` for all signals, ``(n, ...)``, read only, so that none is decoded
    twice.

    As ``cached_features``, but independent of the weights. ``dtype`` None is that of ``prepare``; "float16"
    takes half the space of float32.
    """
    if dtype not in (None, *DTYPES):
        raise HarmoniaError(f"dtype is None or one of {', '.join(DTYPES)}, not {dtype!r}")

    def compute(some: Sequence[Signal]) -> Array:
        prepared: Array = tower.prepare(some).numpy()
        return prepared

    return _cached(compute, ["inputs", _preparation(tower)], signals, digests, Path(folder), name, dtype)


def content_digest(signal: Signal) -> str:
    """SHA-256 of the content of a signal: samples and rate, times and sound of a video."""
    total = hashlib.sha256(f"{signal.modality} {signal.rate}".encode())
    arrays = [signal.times] if signal.times is not None else []
    if isinstance(signal.data, str):
        total.update(signal.data.encode())
    else:
        arrays.insert(0, signal.data)
    for array in arrays:
        total.update(f"{array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).data)
    if signal.sound is not None:
        total.update(content_digest(signal.sound).encode())
    return total.hexdigest()


def _cached(
    compute: Callable[[Sequence[Signal]], Array],
    made_by: Sequence[str],
    signals: Sequence[Signal],
    digests: Iterable[str] | None,
    folder: Path,
    name: str,
    dtype: str | None,
) -> np.memmap[Any, Any]:
    """The array of ``compute`` over all signals, with missing blocks computed."""
    if not len(signals):
        raise HarmoniaError(f"there is nothing to cache as {name}: give at least one signal")
    known = [content_digest(signals[i]) for i in range(len(signals))] if digests is None else list(digests)
    if len(known) != len(signals):
        raise HarmoniaError(f"{len(known)} digests were given for {len(signals)} signals")
    key = hashlib.sha256(json.dumps([FORMAT, *made_by, dtype, known]).encode()).hexdigest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        cache = _Cache(folder, name, key, len(signals))
        todo, blocks = cache.missing(), len(cache.sums)
        with tqdm(
            desc=name, total=blocks, initial=blocks - len(todo), unit="block", disable=_quiet(todo)
        ) as bar:
            for block in todo:
                rows = compute([signals[i] for i in cache.rows(block)])
                cache.put(block, _as(rows, dtype, name))
                bar.update()
        return cache.finished()
    except OSError as error:
        raise HarmoniaError(f"cannot cache {name} in {folder}: {error.strerror or error}") from error


class _Cache:
    """The two files of one array. ``sums[block]`` is the checksum of a finished block, or None."""

    def __init__(self, folder: Path, name: str, key: str, count: int) -> None:
        self.array_path, self.state_path = folder / f"{name}.npy", folder / f"{name}.json"
        self.key, self.count = key, count
        self.sums: list[int | None] = [None] * -(-count // BLOCK)
        self.array: np.memmap[Any, Any] | None = None
        with suppress(OSError, EOFError, ValueError, TypeError, KeyError):  # absent or damaged: begin anew
            state = json.loads(self.state_path.read_text(encoding="utf-8"))
            array = np.load(self.array_path, mmap_mode="r", allow_pickle=False)
            if state["key"] == key and len(state["sums"]) == len(self.sums) and len(array) == count:
                self.sums, self.array = state["sums"], array

    def rows(self, block: int) -> range:
        """The rows of a block."""
        return range(block * BLOCK, min(self.count, (block + 1) * BLOCK))

    def missing(self) -> list[int]:
        """The blocks that are missing or damaged."""
        array = self.array
        if array is None:
            return list(range(len(self.sums)))
        return [i for i, known in enumerate(self.sums) if known is None or known != self._sum(array, i)]

    def put(self, block: int, values: Array) -> None:
        """Write the rows of a block; the first creates the file."""
        shape = (self.count, *values.shape[1:])
        if self.array is None or (self.array.shape, self.array.dtype) != (shape, values.dtype):
            # A new file, since another process may still read the old one.
            self.array_path.unlink(missing_ok=True)
            self.array = np.lib.format.open_memmap(self.array_path, "w+", values.dtype, shape)
        elif not self.array.flags.writeable:
            self.array = np.load(self.array_path, mmap_mode="r+", allow_pickle=False)
        rows = self.rows(block)
        self.array[rows.start : rows.stop] = values
        self.sums[block] = self._sum(self.array, block)
        self._note()

    def finished(self) -> np.memmap[Any, Any]:
        """The whole array, read only."""
        if self.array is not None and self.array.flags.writeable:
            self.array.flush()
        whole: np.memmap[Any, Any] = np.load(self.array_path, mmap_mode="r", allow_pickle=False)
        return whole

    def _sum(self, array: np.memmap[Any, Any], block: int) -> int:
        rows = self.rows(block)
        return zlib.crc32(np.ascontiguousarray(array[rows.start : rows.stop]).data)

    def _note(self) -> None:
        """Write the state file atomically."""
        handle, temporary = tempfile.mkstemp(dir=self.state_path.parent, prefix=".tmp-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"key": self.key, "sums": self.sums}, file)
            Path(temporary).replace(self.state_path)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _quiet(todo: Sequence[int]) -> bool | None:
    """For tqdm: True (no bar) if nothing is computed, else None (a bar on terminals only)."""
    return None if todo else True


def _as(rows: Array, dtype: str | None, name: str) -> Array:
    """Rows converted to ``dtype``; HarmoniaError if a value is not finite in it."""
    with np.errstate(over="ignore"):
        kept: Array = rows if dtype is None else rows.astype(dtype)
    if kept.dtype.kind == "f" and not np.isfinite(kept).all():
        remedy = "use float32" if np.isfinite(rows).all() else "check the weights and the signals"
        raise HarmoniaError(f"{name} has values that are not finite in {kept.dtype}: {remedy}")
    return kept


def _codes(tower: Tower, signals: Sequence[Signal]) -> Array:
    """The codes of a tower in evaluation mode."""
    device = next(tower.parameters()).device
    training = tower.training
    tower.eval()
    try:
        with torch.inference_mode():
            codes: Array = tower(tower.prepare(signals).to(device)).float().cpu().numpy()
    finally:
        tower.train(training)
    return codes


def _weights(tower: Tower) -> str:
    """A digest of all that the codes of a tower depend on besides the signals."""
    total = hashlib.sha256(_preparation(tower).encode())
    for name, value in tower.state_dict().items():
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _preparation(tower: Tower) -> str:
    """A text of all that ``prepare`` depends on: kind, settings, tokenizer or files of a pretrained model."""
    tokenizer: Any = getattr(tower, "tokenizer", None)
    parts = [type(tower).__name__, asdict(tower.config), getattr(tower, "identity", None)]
    parts.append(tokenizer.to_str() if tokenizer is not None else None)
    return json.dumps(parts, sort_keys=True)
