"""The example of fine-tuning runs, learns, and its adapter restores the tower."""

from __future__ import annotations

from pathlib import Path

from examples.finetune import main


def test_finetuning_by_lora_improves_the_codes(tmp_path: Path) -> None:
    before, after, restored = main(tmp_path, steps=40)
    assert after > before + 0.02
    assert restored == after
    assert (tmp_path / "digits.safetensors").stat().st_size < 1_000_000
