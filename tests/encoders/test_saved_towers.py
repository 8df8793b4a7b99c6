"""Trained towers in a folder: exact round trips, encoders, and files that are damaged or not ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harmonia.encoders.towers import saved as trained
from harmonia.encoders.towers import tokenizer as bpe
from harmonia.encoders.towers.audio import AudioConfig, AudioTower
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.encoders.towers.saved import load_towers, load_trained, save_towers
from harmonia.encoders.towers.text_motion import MotionConfig, MotionTower, TextConfig, TextTower
from harmonia.encoders.towers.video import VideoConfig, VideoTower
from harmonia.modalities import audio, image, video
from harmonia.types import HarmoniaError, Signal
from tests.media import make_photo, make_tone, make_video


def build() -> dict[str, Tower]:
    torch.manual_seed(0)
    tokenizer = bpe.train_tokenizer(["a dog runs on the beach", "ein Hund läuft"], 300)
    return {
        "text": TextTower(TextConfig(vocabulary=300, length=16, dim=16), tokenizer),
        "image": ImageTower(ImageConfig(resolution=32, dim=16)),
        "depth": ImageTower(ImageConfig(resolution=32, dim=16, channels=1, modality="depth")),
        "audio": AudioTower(AudioConfig(seconds=1.0, dim=16)),
        "video": VideoTower(VideoConfig(resolution=32, frames=3, seconds=1.0, dim=16)),
        "motion": MotionTower(MotionConfig(dim=16, samples=64)),
    }


@pytest.fixture(scope="module")
def towers() -> dict[str, Tower]:
    return build()


@pytest.fixture(scope="module")
def saved(towers: dict[str, Tower], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mini"
    coupling = torch.arange(6.0).reshape(2, 3)
    save_towers(folder, towers, extra={"coupling": coupling}, card="# Mini\n")
    return folder


@pytest.fixture(scope="module")
def signals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Signal]]:
    folder = tmp_path_factory.mktemp("media")
    rng = np.random.default_rng(0)
    return {
        "text": [Signal("text", text) for text in ("A dog.", "", "ein Hund läuft " * 30)],
        "image": [image.read(make_photo(folder / f"{i}.png", seed=i)) for i in range(3)],
        "depth": [Signal("depth", rng.random((20, 30)))],
        "audio": [audio.read(make_tone(folder / f"{s}.wav", seconds=s)) for s in (0.3, 1.0, 3.5)],
        "video": [
            video.read(make_video(folder / "a.mp4", seconds=2.5)),
            video.read(make_video(folder / "b.mp4", seconds=0.8, sound=False, seed=1)),
        ],
        "motion": [Signal("motion", rng.normal(size=(6, 90)))],
    }


def test_a_round_trip_gives_the_same_codes_and_extras(
    saved: Path, towers: dict[str, Tower], signals: dict[str, list[Signal]]
) -> None:
    state = torch.get_rng_state()
    loaded = load_towers(saved)
    assert torch.equal(torch.get_rng_state(), state)  # loading draws nothing
    assert list(loaded.towers) == list(towers) and loaded.space == ""
    assert torch.equal(loaded.extra["coupling"], torch.arange(6.0).reshape(2, 3))
    for modality, tower in towers.items():
        again = loaded.towers[modality]
        assert again.config == tower.config and not again.training
        assert all(p.requires_grad and p.dtype == torch.float32 for p in again.parameters())
        inputs = tower.eval().prepare(signals[modality])
        assert torch.equal(inputs, again.prepare(signals[modality]))
        with torch.no_grad():
            assert torch.equal(tower(inputs), again(inputs))
    assert (saved / "README.md").read_text() == "# Mini\n"


def test_loaded_towers_train_on(saved: Path, signals: dict[str, list[Signal]]) -> None:
    tower = load_towers(saved).towers["image"].train()
    optimizer = torch.optim.SGD(tower.parameters(), lr=0.01)
    inputs = tower.prepare(signals["image"])
    before = tower(inputs).square().mean()
    before.backward()
    optimizer.step()
    assert tower(inputs).square().mean() < before


def test_encoders_give_unit_codes_of_one_space(saved: Path, signals: dict[str, list[Signal]]) -> None:
    encoders = load_trained(saved)
    assert len({e.name for e in encoders}) == len(encoders) and len({e.space for e in encoders}) == 1
    for encoder in encoders:
        assert encoder.name.startswith(f"{encoder.space}/") and encoder.space.startswith("harmonia-")
        codes = encoder.encode(signals[encoder.modality])
        assert codes.shape == (len(signals[encoder.modality]), 16) and codes.dtype == np.float32
        assert np.allclose(np.linalg.norm(codes, axis=1), 1, atol=1e-6)
        alone = np.concatenate([encoder.encode([s]) for s in signals[encoder.modality]])
        assert np.allclose(codes, alone, atol=1e-5)
        assert encoder.encode([]).shape == (0, 16)


def test_a_long_sound_is_the_mean_of_its_windows(saved: Path, signals: dict[str, list[Signal]]) -> None:
    encoder = next(e for e in load_trained(saved) if e.modality == "audio")
    rng = np.random.default_rng(0)
    halves = [Signal("audio", rng.normal(0, 0.1, (1, 16000)).astype(np.float32), rate=16000.0)]
    halves.append(signals["audio"][1])
    whole = Signal("audio", np.concatenate([half.array for half in halves], axis=1), rate=16000.0)
    mean = encoder.encode(halves).mean(axis=0)
    assert np.allclose(encoder.encode([whole])[0], mean / np.linalg.norm(mean), atol=1e-5)


def test_the_folder_is_a_model_for_encoders_load(saved: Path, signals: dict[str, list[Signal]]) -> None:
    pytest.importorskip("transformers")
    from harmonia.pretrained.loading import load_encoders

    found = {e.name: e for e in load_encoders((str(saved),))}
    for encoder in load_trained(saved):
        ours = signals[encoder.modality]
        assert (found[encoder.name].encode(ours) == encoder.encode(ours)).all()


def test_float16_halves_the_file(towers: dict[str, Tower], saved: Path, tmp_path: Path) -> None:
    save_towers(tmp_path / "half", {"image": towers["image"]}, dtype=torch.float16)
    save_towers(tmp_path / "full", {"image": towers["image"]})
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.55 * sizes[1]
    half = load_towers(tmp_path / "half").towers["image"]
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.allclose(half(pixels), towers["image"].eval()(pixels), atol=0.02)
    with pytest.raises(HarmoniaError, match=r"not finite as torch\.float16"):
        save_towers(tmp_path / "big", {"image": half}, extra={"w": torch.tensor([1e6])}, dtype=torch.float16)
    assert not (tmp_path / "big").exists()


def test_the_name_follows_the_weights_and_the_space_can_be_named(tmp_path: Path) -> None:
    motion = build()["motion"]
    names = []
    for _ in range(2):
        save_towers(tmp_path / "m", {"motion": motion}, space="clip-1234")  # replaces the first
        encoder = load_trained(tmp_path / "m")[0]
        assert encoder.space == "clip-1234"
        names.append(encoder.name)
        with torch.no_grad():
            next(motion.parameters()).add_(1)
    assert names[0] != names[1]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]  # nothing temporary stays


def test_a_folder_of_other_things_is_never_replaced(towers: dict[str, Tower], tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(HarmoniaError, match="is no Harmonia model"):
        save_towers(tmp_path, {"motion": towers["motion"]})
    save_towers(tmp_path / "m", {"motion": towers["motion"]})
    (tmp_path / "m" / "notes.txt").write_text("mine")
    with pytest.raises(HarmoniaError, match="is no Harmonia model"):
        save_towers(tmp_path / "m", {"motion": towers["motion"]})
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"


def test_a_failed_save_leaves_the_old_model(
    towers: dict[str, Tower], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_towers(tmp_path / "m", {"motion": towers["motion"]})
    before = (tmp_path / "m" / "model.safetensors").read_bytes()
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(HarmoniaError, match="No space left"):
        save_towers(tmp_path / "m", {"image": towers["image"]})
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_what_cannot_be_saved(towers: dict[str, Tower], tmp_path: Path) -> None:
    class Other(ImageTower):
        pass

    with pytest.raises(HarmoniaError, match="named otherwise: picture"):
        save_towers(tmp_path / "m", {"picture": towers["image"]})
    with pytest.raises(HarmoniaError, match="none"):
        save_towers(tmp_path / "m", {})
    with pytest.raises(HarmoniaError, match="a Other cannot be saved"):
        save_towers(tmp_path / "m", {"image": Other(ImageConfig())})
    with pytest.raises(HarmoniaError, match="cannot write"):
        save_towers(tmp_path / "no" / "m", {"image": towers["image"]})


def _edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text())
        change(settings)
        (folder / "config.json").write_text(json.dumps(settings))

    return edit


def _config(**fields: object) -> Callable[[Path], None]:
    return _edit(lambda s: s["towers"]["motion"]["config"].update(fields))


def _weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return edit


def _truncate(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return edit


HEAD = "towers.motion.head.project.bias"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "cannot read .*config.json"),
    "half a config": (_truncate("config.json"), "cannot read .*config.json"),
    "half the weights": (_truncate("model.safetensors"), "cannot read .*model.safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "cannot read .*model.safetensors"),
    "half a tokenizer": (_truncate("tokenizer.json"), "the tokenizer is damaged"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "cannot read .*tokenizer.json"),
    "binary tokenizer": (lambda f: (f / "tokenizer.json").write_bytes(b"\xff\xfe"), "cannot read .*token"),
    "another model": (_edit(lambda s: s.update(model_type="bert")), "is not of a Harmonia model"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "is not of a Harmonia model"),
    "newer": (_edit(lambda s: s.update(version=99)), "has format 99"),
    "no towers": (_edit(lambda s: s.update(towers={})), "lacks its space or its towers"),
    "no space": (_edit(lambda s: s.pop("space")), "lacks its space or its towers"),
    "odd kind": (_edit(lambda s: s["towers"]["motion"].update(kind="smell")), "no known kind"),
    "odd entry": (_edit(lambda s: s["towers"].update(motion=3)), "no known kind"),
    "odd field": (_config(wheels=4), "motion tower .* damaged"),
    "odd value": (_config(dim="x"), "motion tower .* damaged"),
    "odd size": (_config(size="huge"), "there is no size"),
    "other width": (_config(dim=17), "motion tower .* damaged"),
    "missing tensor": (_weights(lambda t: t.pop(HEAD)), "motion tower .* damaged"),
    "more tensors": (_weights(lambda t: t.update({f"{HEAD}2": torch.ones(1)})), "motion tower .* damaged"),
    "not finite": (_weights(lambda t: t[HEAD].fill_(float("nan"))), "motion tower .* damaged"),
    "other shape": (_weights(lambda t: t.update({HEAD: torch.ones(3)})), "motion tower .* damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_models_are_refused_in_one_line(case: str, towers: dict[str, Tower], tmp_path: Path) -> None:
    harm, says = DAMAGE[case]
    save_towers(tmp_path / "m", {name: towers[name] for name in ("text", "motion")})
    harm(tmp_path / "m")
    with pytest.raises(HarmoniaError, match=says) as caught:
        load_trained(tmp_path / "m")
    assert "\n" not in str(caught.value)


def test_every_kind_of_tower_can_be_saved(towers: dict[str, Tower]) -> None:
    assert {trained.FORMAT.describe(tower)["kind"] for tower in towers.values()} == set(
        trained.FORMAT.networks
    )
