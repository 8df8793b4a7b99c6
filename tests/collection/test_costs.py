"""What a search may cost: the bound on RAM, the packages that are loaded, and reads of the store."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

import harmonia
from tests.media import make_photo


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("costs")
    for seed in range(12):
        make_photo(folder / f"photo {seed}.png", seed=seed)
        (folder / f"photo {seed}.txt").write_text(f"photo number {seed}")
    harmonia.open(folder / "memory", models=["descriptors"]).remember(folder)
    return folder / "memory"


def whole_reads(memory: harmonia.Memory, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A list that grows whenever all codes of the memory's store are read."""
    read, reads = memory.store.codes, []

    def codes(only: Collection[str] | None = None) -> Any:
        if only is None:
            reads.append(only)
        return read(only)

    monkeypatch.setattr(memory.store, "codes", codes)
    return reads


def test_a_search_past_the_bound_on_ram_reads_candidates_only(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = root.parent / "photo 3.png"
    whole = harmonia.open(root)
    small = harmonia.Memory(root, ram=1)
    reads = whole_reads(small, monkeypatch)
    expected = whole.retrieve(image=photo, text="photo number 3", k=3)
    found = small.retrieve(image=photo, text="photo number 3", k=3)
    assert [n.record.id for n in found] == [n.record.id for n in expected]
    assert [n.similarity for n in found] == pytest.approx([n.similarity for n in expected], abs=1e-5)
    recalled = small.recall(image=photo, k=3)
    assert recalled.records[0].record.metadata["name"] == "photo 3"
    assert recalled.certificate.candidates is not None
    assert not reads


def test_within_the_bound_all_codes_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = harmonia.open(root)
    reads = whole_reads(memory, monkeypatch)
    for k in (1, 2):
        memory.retrieve("photo number 3", k=k)
        memory.recall("photo number 3", k=k)
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("search", "absent"),
    [("retrieve", {"torch", "av", "PIL", "matplotlib"}), ("recall", {"av", "PIL", "matplotlib"})],
)
def test_a_search_by_words_loads_what_it_needs(root: Path, search: str, absent: set[str]) -> None:
    code = (
        f"import sys, harmonia; found = harmonia.open({str(root)!r}).{search}('photo number 3');"
        f"print(sorted({absent} & set(sys.modules)), bool(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_importing_the_package_is_quick() -> None:
    code = "import sys, harmonia; print(sorted({'numpy', 'torch', 'lancedb', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_fewer_than_one_record_is_refused(root: Path) -> None:
    memory = harmonia.open(root)
    for search in (memory.retrieve, memory.recall):
        with pytest.raises(harmonia.HarmoniaError, match="at least 1"):
            search("photo", k=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.5}, {"alpha": float("nan")}, {"steps": -1}, {"beta": -1.0}, {"beta": float("nan")},
        {"noise": float("inf")}, {"weights": {"text": float("nan")}}, {"trust": float("nan")},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused_in_one_line(root: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(harmonia.HarmoniaError) as error:
        harmonia.open(root).recall("photo", **wrong)
    assert "\n" not in str(error.value)


def test_past_the_bound_on_ram_what_counts_against_is_enough(root: Path) -> None:
    found = harmonia.Memory(root, ram=1).recall(against=["photo number 3"], k=12)
    assert found.records and found.records[-1].record.metadata["name"] == "photo 3"
