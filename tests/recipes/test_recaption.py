"""Recaptioning: what a caption says of a picture, the mixture, and prompts made long."""

from __future__ import annotations

import torch
from torch import Tensor

from harmonia.recipes.generators.recaption import colours, cut, expand, layout, mix, similarity, trigrams


def picture(rows: slice, columns: slice, *colour: int) -> Tensor:
    """White, 32 x 32, with a rectangle."""
    x = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    x[:, rows, columns] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return x


def test_colours_are_named_most_first() -> None:
    x = picture(slice(4, 28), slice(4, 28), 220, 40, 40)
    assert colours(x) == "red"
    x[:, 4:12, 4:28] = torch.tensor([70, 150, 60], dtype=torch.uint8)[:, None, None]
    assert colours(x) == "red and green"
    # less than a seventh is not worth a word
    x[:, 26:28, 4:28] = torch.tensor([40, 105, 190], dtype=torch.uint8)[:, None, None]
    assert colours(x) == "red and green"
    assert colours(torch.full((3, 8, 8), 255, dtype=torch.uint8)) == "white"


def test_layout() -> None:
    assert layout(picture(slice(1, 31), slice(12, 20), 0, 0, 0)) == "tall small"
    assert layout(picture(slice(0, 32), slice(0, 32), 0, 0, 0)) == "round or square large"
    assert layout(picture(slice(20, 30), slice(2, 30), 0, 0, 0)) == "wide of middle size at the bottom"
    assert layout(picture(slice(0, 8), slice(0, 8), 0, 0, 0)) == "round or square small at the top left"
    assert layout(torch.full((3, 8, 8), 255, dtype=torch.uint8)) == "empty"


def test_captions_are_cut_at_words_and_bytes() -> None:
    assert cut("red apple; fruit", 40) == "red apple; fruit"
    assert cut("red apple; fruit", 15) == "red apple"
    assert cut("red apple; fruit", 9) == "red apple"
    assert len(cut("苹果苹果苹果", 8).encode()) <= 8
    assert cut("name; ; ", 40) == "name"


def test_one_in_twenty_is_original() -> None:
    mixed = mix({"apple": "apple; red", "pomme": "pomme; red"})
    assert len(mixed) == 40
    assert mixed.count("apple") == mixed.count("pomme") == 1
    assert mixed.count("apple; red") == 19


def test_a_prompt_is_made_long_by_the_nearest_name() -> None:
    captions = [{"red apple": "red apple; red; fruit"}, {"whale": "whale; blue; sea, animal"}]
    assert expand("red apple", captions, 40) == "red apple; red; fruit"
    assert expand("green apple", captions, 40) == "green apple; red; fruit"
    assert expand("whales", captions, 12) == "whales; blue"
    assert similarity(trigrams("whale"), trigrams("whale")) > 1 - 1e-12
    assert similarity(trigrams("whale"), trigrams("fox")) == 0
