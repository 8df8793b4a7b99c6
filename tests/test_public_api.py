"""The page docs/reference/package.md: every public name is on it, with an example that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import harmonia
from tests.media import make_photo
from tests.reference import Entry, check_page, entries


def test_the_page_has_every_public_name() -> None:
    check_page("package")
    assert set(harmonia.NAMES) | {"open"} == set(harmonia.__all__)


@pytest.mark.parametrize("entry", entries("package"), ids=str)
def test_the_example_runs(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    for seed, words in enumerate(("a red barn in snow", "waves at dusk", "a busy market")):
        make_photo(tmp_path / "photos" / f"photo-{seed}.png", seed=seed)
        (tmp_path / "photos" / f"photo-{seed}.txt").write_text(words)
    monkeypatch.chdir(tmp_path)
    entry.run()
