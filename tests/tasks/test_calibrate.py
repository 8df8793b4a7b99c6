"""harmonia learn: what a memory learns from its own records, what recall makes of it, what is kept."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from PIL import Image

import harmonia
from harmonia.cli import cli
from harmonia.collection.calibration import FILE_NAME, Calibration
from harmonia.collection.collection import Memory
from harmonia.tasks import calibrate
from harmonia.tasks.calibrate import learn
from harmonia.tasks.calibration_fitting import Fitting
from harmonia.tasks.calibration_report import CalibrationReport
from harmonia.types import HarmoniaError
from tests.media import scene, tone

IMAGE, AUDIO = "descriptor-image-1", "descriptor-audio-1"
N = 48


def noisy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, dtype=float)
    return Image.fromarray(np.clip(pixels + rng.normal(0, 120, pixels.shape), 0, 255).astype(np.uint8))


def remembered(root: Path, rows: list[dict[str, object]]) -> Memory:
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    collection = harmonia.open(root / ".harmonia", models=("descriptors",))
    assert collection.remember(root, calibrate=False).remembered == len(rows)
    return collection


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of two like photos and two sounds that have nothing to do with each other."""
    root = tmp_path_factory.mktemp("album")
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for n in range(N):
        scene(n, (48, 36)).save(root / f"{n}a.png")
        noisy(scene(n, (48, 36)), rng).save(root / f"{n}b.png")
        for take in "ab":
            soundfile.write(root / f"{n}{take}.wav", tone(0.3, float(rng.uniform(200, 3000)), 8000), 8000)
        rows.append({key: [f"{n}a.{s}", f"{n}b.{s}"] for key, s in (("image", "png"), ("audio", "wav"))})
        rows[-1]["name"] = str(n)
    remembered(root, rows)
    return root


@pytest.fixture(scope="module")
def scales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of a sound and a photo: six notes, each with a colour of its own."""
    root = tmp_path_factory.mktemp("scales")
    rows: list[dict[str, object]] = []
    for n in range(N):
        note(root, n % 6, n, str(n))
        rows.append({"image": f"{n}.png", "audio": f"{n}.wav", "name": str(n)})
    remembered(root, rows)
    return root


def note(root: Path, number: int, seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    colour = np.random.default_rng(100 + number).uniform(20, 235, 3)
    pixels = np.clip(colour + rng.normal(0, 20, (36, 48, 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(root / f"{name}.png")
    hertz = 300 * 1.5**number * rng.uniform(0.97, 1.03)
    soundfile.write(root / f"{name}.wav", tone(0.3, hertz, 8000), 8000)


@pytest.fixture
def copied(album: Path, tmp_path: Path) -> Path:
    """A copy of the album that may be changed."""
    return copytree(album, tmp_path / "album")


@pytest.fixture(scope="module")
def taught(album: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CalibrationReport]:
    root = copytree(album, tmp_path_factory.mktemp("taught") / "album")
    return root, learn(harmonia.open(root / ".harmonia"))


def found(collection: Memory, root: Path) -> float:
    """The share of records that a new noisy photo and a sound of anything bring back."""
    rng = np.random.default_rng(1)
    hits = 0
    for n in range(0, N, 4):
        noisy(scene(n, (48, 36)), rng).save(root / "cue.png")
        soundfile.write(root / "cue.wav", tone(0.3, float(rng.uniform(200, 3000)), 8000), 8000)
        answer = collection.recall(image=root / "cue.png", audio=root / "cue.wav", k=1)
        hits += answer.records[0].record.metadata["name"] == str(n)
    return hits / len(range(0, N, 4))


# --- what is learned ----------------------------------------------------------------------------------


def test_what_is_noise_is_no_longer_trusted(
    album: Path, taught: tuple[Path, CalibrationReport], tmp_path: Path
) -> None:
    root, report = taught
    verdicts = {v.constant: v for v in report.verdicts}
    assert verdicts["trust"].kept and report.calibration.weighed
    assert report.calibration.precision[AUDIO] < 0.3 * report.calibration.precision[IMAGE]
    both = next(f for f in report.figures if f.cue == "image + audio")
    assert both.first[1] > both.first[0] + 0.2
    assert both.cues == N
    # Cues that learning never saw, in the recall of a memory opened anew.
    before, after = (
        found(harmonia.open(album / ".harmonia"), tmp_path),
        found(harmonia.open(root / ".harmonia"), tmp_path),
    )
    assert after > before + 0.2
    assert after > 0.8


def test_constants_that_do_not_help_are_left_out(taught: tuple[Path, CalibrationReport]) -> None:
    _, report = taught
    verdicts = {v.constant: v for v in report.verdicts}
    assert set(verdicts) == {"trust", "couplings", "slot bias", "beta"}
    assert not verdicts["couplings"].kept and not report.calibration.couplings
    assert str(verdicts["couplings"]).startswith("couplings: no better (MRR 0.")
    assert str(verdicts["couplings"]).endswith("left out")
    # Sounds alone find nothing, before and after.
    audio = next(f for f in report.figures if f.cue == "audio")
    assert audio.mrr[1] == pytest.approx(audio.mrr[0], abs=0.05)


def test_beta_makes_probabilities_honest(taught: tuple[Path, CalibrationReport], album: Path) -> None:
    root, report = taught
    assert report.calibration.sharp
    collection = harmonia.open(root / ".harmonia")
    plain = harmonia.open(album / ".harmonia")
    cue = album / "3a.wav"
    # A sound that tells nothing gives no record a high probability any more.
    assert collection.recall(audio=cue).certificate.beta < 0.5 * plain.recall(audio=cue).certificate.beta
    assert collection.recall(audio=cue, beta=2.0).certificate.beta == 2.0


def test_a_sound_finds_photos_that_it_was_never_stored_with(scales: Path, tmp_path: Path) -> None:
    root = copytree(scales, tmp_path / "scales")
    collection = harmonia.open(root / ".harmonia")
    report = learn(collection)
    assert {v.constant for v in report.verdicts if v.kept} == {"couplings"}
    assert {(c.of, c.to) for c in report.calibration.couplings} == {(IMAGE, AUDIO), (AUDIO, IMAGE)}
    # New photos, with no sound; then the sounds that would belong to them.
    (root / "new").mkdir()
    for number in range(6):
        note(root / "new", number, 1000 + number, f"new{number}")
        (root / "new" / f"new{number}.wav").rename(tmp_path / f"new{number}.wav")
    assert collection.remember(root / "new", calibrate=False).remembered == 6
    for number in range(6):
        heard = collection.recall(audio=tmp_path / f"new{number}.wav", where="name LIKE 'new%'", k=3)
        assert heard.records[0].record.metadata["name"] == f"new{number}"
        assert heard.records[0].matches["audio"].part.modality == "image"


def test_the_same_seed_learns_the_same(copied: Path, taught: tuple[Path, CalibrationReport]) -> None:
    told = CliRunner().invoke(cli, ["learn", "-m", str(copied / ".harmonia"), "--seed", "0", "--json"])
    answer = json.loads(told.stdout)
    assert {"records", "read", "cues", "constants", "precision", "couplings", "likelihoods"} == set(answer)
    assert answer["cues"][0]["recall_at_1"].keys() == {"before", "after"}
    assert answer["precision"] == pytest.approx(dict(taught[1].calibration.precision), rel=1e-5)


def test_a_large_memory_is_sampled(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "MAX_RECORDS", 24)
    report = learn(harmonia.open(copied / ".harmonia"))
    assert (report.records, report.read) == (N, 24)
    bias = next(v for v in report.verdicts if v.constant == "slot bias")
    assert not bias.kept and "more than 24 records" in str(bias)


# --- what is kept -------------------------------------------------------------------------------------


def test_what_was_learned_outlives_the_process_and_can_be_forgotten(
    taught: tuple[Path, CalibrationReport],
) -> None:
    root, report = taught
    folder = root / ".harmonia"
    again = Calibration.load(folder)
    assert again.precision == pytest.approx(dict(report.calibration.precision))
    assert (again.records, again.weighed, again.sharp) == (N, True, report.calibration.sharp)
    other = harmonia.open(folder)
    _, memory = other.bound()
    assert memory is not None and memory.trusts[IMAGE] == 1.0 and memory.trusts[AUDIO] < 0.3
    kept = {path.name: path.read_bytes() for path in folder.glob("learned*")}
    assert len(kept) == 2
    assert Calibration.forget(folder) and not Calibration.forget(folder)
    assert not list(folder.glob("learned*"))
    # An open memory notices.
    assert other.calibration is None and not memory.trusts
    for name, data in kept.items():
        (folder / name).write_bytes(data)
    found = other.calibration
    assert found is not None and found.weighed and memory.trusts


def test_bias_and_couplings_are_saved(tmp_path: Path) -> None:
    import torch

    from harmonia.collection.calibration import Coupling

    g = torch.Generator().manual_seed(0)
    block = Coupling("a", "b", torch.randn(3, 4, generator=g), torch.randn(4, generator=g), 1.5)
    Calibration(encoders=("a", "b"), version=(1, 2), bias={"x": -0.5}, couplings=(block,)).save(tmp_path)
    Calibration(encoders=("a", "b"), version=(1, 3), bias={"x": -0.25}, couplings=(block,)).save(tmp_path)
    again = Calibration.load(tmp_path)
    assert (again.version, again.bias) == ((1, 3), {"x": -0.25})
    assert torch.equal(again.couplings[0].weights, block.weights)
    assert torch.equal(again.couplings[0].mean, block.mean) and again.couplings[0].precision == 1.5
    assert len(list(tmp_path.iterdir())) == 2


def test_bias_follows_the_record(copied: Path) -> None:
    """Records forgotten and added after learning: the others keep their bias, the new one has none."""
    collection = harmonia.open(copied / ".harmonia")
    ids = sorted(collection.store.ids())
    encoders = tuple(e.name for e in collection.store.encoders)
    Calibration(encoders=encoders, bias={ids[0]: -3.0, ids[5]: -2.0}).save(collection.root)
    collection.forget([ids[0]])
    (copied / "more").mkdir()
    scene(99, (48, 36)).save(copied / "more" / "new.png")
    assert collection.remember(copied / "more", calibrate=False).remembered == 1
    table, memory = collection.bound()
    assert memory is not None and len(table.record_ids) == N
    bias = dict(zip(table.record_ids, memory.bias.tolist(), strict=True))
    assert {i: b for i, b in bias.items() if b} == {ids[5]: -2.0}


def test_other_encoders_are_warned_of_and_ignored(copied: Path) -> None:
    folder = copied / ".harmonia"
    Calibration(encoders=("another",), precision={IMAGE: 1.0, AUDIO: 0.1}, weighed=True).save(folder)
    collection = harmonia.open(folder)
    with pytest.warns(UserWarning, match="other encoders and is not used: run `harmonia learn` again"):
        _, memory = collection.bound()
    assert memory is not None and not memory.trusts
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        collection.recall(image=copied / "0a.png")


@pytest.mark.parametrize("damage", ["json", "cut", "missing", "field", "type"])
def test_a_damaged_file_is_one_clear_line(copied: Path, damage: str) -> None:
    folder = copied / ".harmonia"
    encoders = tuple(e.name for e in harmonia.open(folder).store.encoders)
    Calibration(encoders=encoders, precision={IMAGE: 1.0}).save(folder)
    (tensors,) = folder.glob("learned-*.safetensors")
    path = folder / FILE_NAME
    if damage == "json":
        path.write_text(path.read_text()[:40])
    elif damage == "cut":
        tensors.write_bytes(tensors.read_bytes()[:-1])
    elif damage == "missing":
        tensors.unlink()
    elif damage == "field":
        path.write_text('{"format": 1}')
    else:
        path.write_text("[1]")
    with pytest.raises(HarmoniaError, match="run `harmonia learn` again") as caught:
        harmonia.open(folder).recall(image=copied / "0a.png")
    assert "\n" not in str(caught.value)
    assert CliRunner().invoke(cli, ["learn", "-m", str(folder), "--forget"]).exit_code == 0
    assert harmonia.open(folder).recall(image=copied / "0a.png").records


def test_a_run_that_is_stopped_leaves_all_as_it_was(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied / ".harmonia"
    encoders = tuple(e.name for e in harmonia.open(folder).store.encoders)
    Calibration(encoders=encoders, precision={IMAGE: 1.0}).save(folder)
    before = {path.name: path.read_bytes() for path in folder.glob("learned*")}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Fitting, "slot_bias", stop)
    with pytest.raises(KeyboardInterrupt):
        learn(harmonia.open(folder))
    assert {path.name: path.read_bytes() for path in folder.glob("*learned*")} == before


# --- the command --------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_goes_back(copied: Path) -> None:
    there = ["learn", "-m", str(copied / ".harmonia")]
    call = CliRunner()
    shown = call.invoke(cli, [*there, "--seed", "3"])
    assert shown.exit_code == 0, shown.output
    for words in ("image + audio", "Recall@1", "MRR", "trust: MRR 0.", "kept", "left out"):
        assert words in shown.stdout
    assert call.invoke(cli, [*there, "--forget"]).stdout == "calibration deleted\n"
    assert "there is no calibration" in call.invoke(cli, [*there, "--forget"]).stdout


def test_too_little_to_learn_from_is_said(tmp_path: Path) -> None:
    with pytest.raises(HarmoniaError, match="no memory in"):
        learn(harmonia.open(tmp_path / "none"))
    collection = harmonia.open(tmp_path / "few", models=("descriptors",))
    scene(0, (48, 36)).save(tmp_path / "one.png")
    collection.remember(tmp_path / "one.png")
    with pytest.raises(HarmoniaError, match=r"20 records with two parts or more are needed \(there are 0\)"):
        learn(collection)
    collection.forget(collection.store.ids())
    with pytest.raises(HarmoniaError, match="is empty: remember something first"):
        learn(collection)
    assert not list((tmp_path / "few").glob("learned*"))
