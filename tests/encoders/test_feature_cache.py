"""Cached codes and inputs: read the second time, gone on with after a kill, rebuilt when they do not fit."""

from __future__ import annotations

import json
import os
import signal as signals_of_the_system
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harmonia.encoders import ImageDescriptor
from harmonia.encoders.towers import feature_cache
from harmonia.encoders.towers.feature_cache import cached_features, cached_inputs, content_digest
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.modalities import image
from harmonia.types import HarmoniaError, Signal
from tests.media import make_photo

COUNT = 20


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_cache, "BLOCK", 6)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Signal]:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(COUNT):
        make_photo(folder / f"{i}.png", seed=i, size=(40, 30))
    return [image.read(folder / f"{i}.png") for i in range(COUNT)]


class Photos(Sequence[Signal]):
    """Signals that are decoded when asked for, and count how often; ``die`` at one of them."""

    def __init__(self, signals: list[Signal], die: int | None = None) -> None:
        self.signals, self.die = signals, die
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.signals)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if index == self.die:
            raise KeyboardInterrupt
        self.asked.append(index)
        return self.signals[index]


def tower_of(seed: int = 0, resolution: int = 16) -> ImageTower:
    torch.manual_seed(seed)
    return ImageTower(ImageConfig(dim=8, resolution=resolution, dropout=0.5))


def names(photos: list[Signal]) -> list[str]:
    return [content_digest(photo) for photo in photos]


def wanted(tower: ImageTower, photos: list[Signal]) -> np.ndarray:
    tower.eval()
    with torch.no_grad():
        return tower(tower.prepare(photos)).numpy()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_codes_are_those_of_the_tower(photos: list[Signal], tmp_path: Path, dtype: str) -> None:
    tower = tower_of().train()
    codes = cached_features(tower, photos, tmp_path / "new" / "folder", "codes", dtype=dtype)
    assert isinstance(codes, np.memmap)
    assert codes.shape == (COUNT, 8)
    assert codes.dtype == dtype
    assert tower.training  # as it was
    atol = 1e-5 if dtype == "float32" else 5e-3
    np.testing.assert_allclose(codes, wanted(tower, photos), atol=atol)
    assert not codes.flags.writeable
    found = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert found == {"codes.npy", "codes.json"}
    np.testing.assert_array_equal(np.load(tmp_path / "new" / "folder" / "codes.npy"), codes)


def test_the_second_call_only_reads(photos: list[Signal], tmp_path: Path) -> None:
    tower, digests = tower_of(), names(photos)
    first = Photos(photos)
    codes = np.array(cached_features(tower, first, tmp_path, "codes", digests=digests))
    assert first.asked == list(range(COUNT))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = Photos(photos)
    again = cached_features(tower, second, tmp_path, "codes", digests=digests)
    assert second.asked == []
    np.testing.assert_array_equal(again, codes)
    assert before == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_an_encoder_has_codes_too(photos: list[Signal], tmp_path: Path) -> None:
    encoder = ImageDescriptor()
    codes = cached_features(encoder, photos, tmp_path, "described")
    np.testing.assert_array_equal(codes, encoder.encode(photos))


@pytest.mark.parametrize("change", ["weights", "dtype", "signal", "order", "count", "settings"])
def test_what_is_stale_is_rebuilt(photos: list[Signal], tmp_path: Path, change: str) -> None:
    old = cached_features(tower_of(), photos, tmp_path, "codes")
    kept = np.array(old)
    tower, given, dtype = tower_of(), photos, "float32"
    if change == "weights":
        tower = tower_of(seed=1)
    elif change == "settings":
        tower = tower_of(resolution=12)
    elif change == "dtype":
        dtype = "float16"
    elif change == "signal":
        given = [*photos[:3], Signal("image", photos[3].array[::-1]), *photos[4:]]
    elif change == "order":
        given = photos[::-1]
    else:
        given = photos[:-1]
    codes = cached_features(tower, given, tmp_path, "codes", dtype=dtype)
    np.testing.assert_allclose(codes, wanted(tower, given), atol=5e-3 if dtype == "float16" else 1e-5)
    assert codes.shape != kept.shape or not np.array_equal(codes, kept)
    np.testing.assert_array_equal(old, kept)  # a process that reads the old one goes on


def test_a_run_that_was_stopped_goes_on(photos: list[Signal], tmp_path: Path) -> None:
    tower, digests = tower_of(), names(photos)
    with pytest.raises(KeyboardInterrupt):
        cached_features(tower, Photos(photos, die=14), tmp_path, "codes", digests=digests)
    rest = Photos(photos)
    codes = cached_features(tower, rest, tmp_path, "codes", digests=digests)
    assert rest.asked == list(range(12, COUNT))
    np.testing.assert_allclose(codes, wanted(tower, photos), atol=1e-5)


def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys, time
        import numpy as np
        from harmonia.encoders import ImageDescriptor
        from harmonia.encoders.towers import feature_cache
        from harmonia.types import Signal

        feature_cache.BLOCK = 4

        class Slow(ImageDescriptor):
            blocks = 0

            def encode(self, signals):
                print("block", flush=True)
                self.blocks += 1
                if self.blocks == int(sys.argv[2]):
                    time.sleep(600)
                return super().encode(signals)

        rng = np.random.default_rng(0)
        pictures = [Signal("image", rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(32)]
        codes = feature_cache.cached_features(Slow(), pictures, sys.argv[1], "codes")
        assert np.allclose(codes, ImageDescriptor().encode(pictures), atol=1e-5)
        print("done", flush=True)
    """)
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen([*command, "4"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(4):
            assert process.stdout.readline() == "block\n"
        os.kill(process.pid, signals_of_the_system.SIGKILL)
    state = json.loads((tmp_path / "codes.json").read_text())
    done = sum(known is not None for known in state["sums"])
    assert done == 3
    finished = subprocess.run([*command, "0"], capture_output=True, text=True, check=True)
    assert finished.stdout.split() == ["block"] * (8 - done) + ["done"]


def truncate(folder: Path) -> None:
    path = folder / "codes.npy"
    path.write_bytes(path.read_bytes()[:-40])


def flip(folder: Path) -> None:
    with (folder / "codes.npy").open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        file.write(b"\x00\x55")


def rewrite(folder: Path) -> None:
    np.save(folder / "codes.npy", np.zeros((COUNT, 3), dtype=np.float64))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": truncate,
    "flipped": flip,
    "another array": rewrite,
    "no array": lambda folder: (folder / "codes.npy").unlink(),
    "no header": lambda folder: (folder / "codes.npy").write_bytes(b"\x93NUMPY"),
    "empty": lambda folder: (folder / "codes.npy").write_bytes(b""),
    "no state": lambda folder: (folder / "codes.json").unlink(),
    "half a state": lambda folder: (folder / "codes.json").write_text('{"key": "'),
    "another state": lambda folder: (folder / "codes.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_mended(photos: list[Signal], tmp_path: Path, damage: str) -> None:
    tower, digests = tower_of(), names(photos)
    cached_features(tower, photos, tmp_path, "codes", digests=digests)
    DAMAGE[damage](tmp_path)
    given = Photos(photos)
    codes = cached_features(tower, given, tmp_path, "codes", digests=digests)
    np.testing.assert_allclose(codes, wanted(tower, photos), atol=1e-5)
    if damage == "flipped":
        assert given.asked == [18, 19]  # only the block that is wrong


def test_inputs_are_what_prepare_gives(photos: list[Signal], tmp_path: Path) -> None:
    tower, digests = tower_of(), names(photos)
    pixels = cached_inputs(tower, photos, tmp_path, "pixels", digests=digests)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, tower.prepare(photos).numpy())
    again = Photos(photos)
    cached_inputs(tower_of(seed=1), again, tmp_path, "pixels", digests=digests)
    assert again.asked == []  # the weights do not matter
    cached_inputs(tower_of(resolution=12), again, tmp_path, "pixels", digests=digests)
    assert again.asked == list(range(COUNT))


def test_digests_see_all_that_encoders_see() -> None:
    wave = np.ones((1, 8), dtype=np.float32)
    sound = Signal("audio", wave, rate=8.0)
    clip = Signal("video", np.zeros((2, 1, 1, 3), dtype=np.uint8), rate=2.0, times=np.array([0.0, 0.5]))
    different = [
        sound,
        replace(sound, rate=9.0),
        replace(sound, data=wave.reshape(2, 4)),
        replace(sound, data=wave.astype(np.float64)),
        replace(sound, modality="motion"),
        clip,
        replace(clip, times=np.array([0.0, 0.6])),
        replace(clip, sound=sound),
        Signal("text", "a"),
        Signal("text", "b"),
    ]
    assert len({content_digest(signal) for signal in different}) == len(different)
    assert content_digest(sound) == content_digest(replace(sound, start=0.0, end=1.0, data=wave.copy()))


def test_a_bar_is_shown_to_people_only(
    photos: list[Signal], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cached_features(tower_of(), photos, tmp_path, "codes")
    assert capfd.readouterr().err == ""


class Large(ImageDescriptor):
    name = "large"

    def encode(self, signals: Sequence[Signal]) -> np.ndarray:
        return super().encode(signals) * 1e6


class Broken(ImageDescriptor):
    name = "broken"

    def encode(self, signals: Sequence[Signal]) -> np.ndarray:
        return super().encode(signals) * np.nan


def test_what_cannot_be_kept_says_why(photos: list[Signal], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    def lines() -> Iterator[tuple[Callable[[], object], str]]:
        tower = tower_of()
        yield lambda: cached_features(tower, [], tmp_path, "x"), "at least one signal"
        yield lambda: cached_features(tower, photos, tmp_path, "x", digests=["a"]), "1 digests were given"
        yield lambda: cached_features(tower, photos, tmp_path, "x", dtype="int8"), "dtype is one of"
        yield lambda: cached_inputs(tower, photos, tmp_path, "x", dtype="int8"), "dtype is None or"
        yield lambda: cached_features(tower, photos, file, "x"), "cannot cache x in"
        yield lambda: cached_features(Large(), photos, tmp_path, "x", dtype="float16"), "use float32"
        yield lambda: cached_features(Broken(), photos, tmp_path, "x"), "check the weights"
        yield lambda: cached_features(tower, [Signal("text", "a")], tmp_path, "x"), "modality text"

    for call, message in lines():
        with pytest.raises(HarmoniaError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
