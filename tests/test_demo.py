"""The demo on the starter collection and on a user's folder, and recall past RAM."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from examples.demo import main
from harmonia.collection.collection import Memory
from tests.media import make_photo, make_tone


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(main, [])
    assert result.exit_code == 0, result.output
    assert result.output.count(" ok ") >= 6
    assert "MISSED" not in result.output
    return folder / "demo"


def test_every_demo_cue_brings_its_record_first(demo: Path) -> None:
    assert Image.open(demo / "recollections.png").width > 800


def test_the_two_weak_cues_are_both_needed(demo: Path) -> None:
    memory = Memory(demo / "memory")

    def best(**cues: object) -> object:
        return memory.recall(**cues).records[0].record.metadata["name"]  # type: ignore[arg-type]

    patch = demo / "cues" / "patch.png"
    # other things are red as well, and a noisy piece of a picture alone matches nothing
    assert best(text="red") != "motorcycle"
    assert memory.recall(image=patch).abstained
    assert best(text="red", image=patch) == "motorcycle"


def test_a_memory_past_ram_takes_candidates_from_the_store(demo: Path) -> None:
    whole, small = Memory(demo / "memory"), Memory(demo / "memory", ram=0)
    for cue in ({"text": "waves on a beach"}, {"image": demo / "cues" / "half-cat.png"}):
        expected, found = whole.recall(**cue), small.recall(**cue)  # type: ignore[arg-type]
        assert found.records[0].record == expected.records[0].record
        assert found.certificate.candidates is not None
        assert expected.certificate.candidates is None


def test_the_demo_runs_on_the_users_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "my media"
    mine.mkdir()
    for seed in range(6):
        make_photo(mine / f"photo {seed}.jpg", seed=seed)
        make_tone(mine / f"tone {seed}.wav", hz=300.0 * (seed + 1))
        (mine / f"note {seed}.txt").write_text(f"Note number {seed} about {'abcdef'[seed] * 5}.")
    result = CliRunner().invoke(main, ["--media", str(mine)])
    assert "remembered 18 records" in result.output
    assert (tmp_path / "demo" / "own-recollections.png").exists()
    assert result.exit_code == 0, result.output
