"""The page docs/reference/layers.md: every public name is on it, with an example that runs."""

from __future__ import annotations

import pytest

from tests.reference import Entry, check_page, entries


@pytest.mark.parametrize("entry", entries("layers"), ids=str)
def test_the_example_runs(entry: Entry) -> None:
    entry.run()


def test_every_public_name_has_an_example() -> None:
    check_page("layers")
