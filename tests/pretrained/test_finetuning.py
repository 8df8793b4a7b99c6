"""Freezing, partial fine-tuning and LoRA, on our own towers and on tiny pretrained ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
from torch import Tensor, nn

from harmonia.encoders.towers.audio import AudioConfig, AudioTower
from harmonia.encoders.towers.base import Tower
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.pretrained import finetuning
from harmonia.pretrained.backbones import Backbone, BackboneConfig
from harmonia.pretrained.finetuning import (
    blocks,
    freeze,
    load_adapter,
    lora,
    merge,
    parameter_groups,
    save_adapter,
    unfreeze,
)
from harmonia.types import HarmoniaError, Signal
from tests.checkpoints import save_clip, save_resnet

KINDS = ("clip", "resnet", "convnet", "resnet50", "vit")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapt")
    return {"clip": save_clip(root / "clip"), "resnet": save_resnet(root / "resnet")}


def tower_of(kind: str, folders: dict[str, Path], dim: int = 12) -> Tower:
    torch.manual_seed(0)
    if kind in folders:
        return Backbone(BackboneConfig(model=str(folders[kind]), dim=dim)).eval()
    return ImageTower(ImageConfig(kind=kind, dim=dim, resolution=32)).eval()


def inputs_of(tower: Tower) -> Tensor:
    rng = np.random.default_rng(0)
    return tower.prepare(
        [Signal("image", rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(4)]
    )


def trained(tower: nn.Module) -> set[str]:
    return {name for name, p in tower.named_parameters() if p.requires_grad}


def step(tower: Tower, inputs: Tensor, steps: int = 3) -> None:
    optimizer = torch.optim.AdamW([p for p in tower.parameters() if p.requires_grad], lr=0.02)
    tower.train()
    for _ in range(steps):
        optimizer.zero_grad()
        (1 - tower(inputs)).square().mean().backward()
        optimizer.step()
    tower.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_tower_never_changes(kind: str, folders: dict[str, Path]) -> None:
    tower = tower_of(kind, folders)
    inputs = inputs_of(tower)
    codes, before = tower(inputs), {name: value.clone() for name, value in tower.state_dict().items()}
    freeze(tower)
    unfreeze(tower.head)
    step(tower, inputs)
    changed = {name for name, value in tower.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == trained(tower) == {f"head.{name}" for name, _ in tower.head.named_parameters()}
    assert not torch.allclose(tower(inputs), codes)
    freeze(tower)
    assert not tower.train()(inputs).requires_grad


def test_the_last_blocks_the_head_and_the_norms_train(folders: dict[str, Path]) -> None:
    tower = tower_of("clip", folders)
    freeze(tower)
    unfreeze(tower, last=1)
    first, last = (f"network.vision_model.encoder.layers.{i}." for i in (0, 1))
    names = trained(tower)
    every = {name for name, _ in tower.named_parameters()}
    assert {name for name in every if name.startswith((last, "head.", "network.visual"))} <= names
    assert {n for n in names if n.startswith(first)} == {
        n for n in every if n.startswith(f"{first}layer_norm")
    }
    assert "network.vision_model.embeddings.position_embedding.weight" not in names
    inputs = inputs_of(tower)
    tower(inputs).sum().backward()
    assert {name for name, p in tower.named_parameters() if p.grad is not None} == names
    unfreeze(tower)
    assert trained(tower) == every


def test_a_partly_frozen_resnet_keeps_its_early_statistics(folders: dict[str, Path]) -> None:
    tower = tower_of("resnet", folders)
    freeze(tower)
    unfreeze(tower, last=1)
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    step(tower, inputs_of(tower).repeat(2, 1, 1, 1))
    changed = {name for name, value in tower.state_dict().items() if not torch.equal(value, before[name])}
    assert any("running_mean" in name for name in changed)
    assert all(name.startswith(("network.encoder.stages.3.layers.1.", "head.")) for name in changed)


def test_between_the_last_blocks_all_trains(folders: dict[str, Path]) -> None:
    tower = tower_of("convnet", folders)
    freeze(tower)
    unfreeze(tower, last=2)  # a block of each of the last two stages, and the convolution between them
    layers = tower.get_submodule("backbone.layers")
    between = [m for m in list(layers)[-3:] if isinstance(m, nn.Conv2d)]  # type: ignore[arg-type]
    assert len(between) == 1
    assert all(p.requires_grad for p in between[0].parameters())


@pytest.mark.parametrize(
    ("kind", "name", "count"),
    [
        ("clip", "CLIPEncoderLayer", 2),
        ("resnet", "ResNetBasicLayer", 5),
        ("convnet", "ConvBlock", 4),
        ("resnet50", "Bottleneck", 16),
        ("vit", "Block", 2),
    ],
)
def test_blocks_are_found(kind: str, name: str, count: int, folders: dict[str, Path]) -> None:
    found = blocks(tower_of(kind, folders))
    assert len(found) == count
    if kind != "resnet":
        assert {type(block).__name__ for block in found} == {name}


@pytest.mark.parametrize("kind", KINDS)
def test_lora_begins_as_nothing_and_merges_exactly(kind: str, folders: dict[str, Path]) -> None:
    tower = tower_of(kind, folders)
    inputs = inputs_of(tower)
    codes, names = tower(inputs), list(tower.state_dict())
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    lora(tower, rank=2, alpha=4)
    torch.testing.assert_close(tower(inputs), codes, atol=0, rtol=0)
    assert all(
        ".lora_A." in name or ".lora_B." in name or name.startswith("head.") for name in trained(tower)
    )
    assert finetuning.adapted(tower)
    step(tower, inputs)
    got = {name for name, p in tower.named_parameters() if p.grad is not None}
    assert got == trained(tower)
    after = {name.replace(".base_layer.", "."): value for name, value in tower.state_dict().items()}
    frozen = [name for name in before if not name.startswith("head.")]
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    tuned = tower(inputs)
    assert (tuned - codes).abs().max() > 1e-3
    merge(tower)
    assert list(tower.state_dict()) == names
    assert not finetuning.adapted(tower)
    torch.testing.assert_close(tower(inputs), tuned, atol=2e-5, rtol=1e-4)
    lora(tower, rank=2)  # and again


def test_without_a_head_only_adapters_train(folders: dict[str, Path]) -> None:
    tower = Backbone(BackboneConfig(model=str(folders["clip"]), modality="text", project=False))
    lora(tower, rank=2, targets=["q_proj", "v_proj"])
    assert all("_proj.lora_" in name for name in trained(tower))
    assert len(trained(tower)) == 2 * 2 * 2  # layers, maps, A and B
    assert parameter_groups(tower).keys() == {"backbone"}


def test_the_adapter_alone_brings_the_codes_back(folders: dict[str, Path], tmp_path: Path) -> None:
    tower, fresh = tower_of("clip", folders), tower_of("clip", folders)
    inputs = inputs_of(tower)
    step(lora(tower, rank=2, alpha=4), inputs)  # type: ignore[arg-type]
    path = tmp_path / "adapter.safetensors"
    save_adapter(tower, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    whole = sum(p.numel() for p in fresh.parameters()) * 4
    assert path.stat().st_size < whole / 2
    nn.init.normal_(fresh.head.project.weight)  # type: ignore[union-attr,arg-type]
    load_adapter(fresh, path)
    torch.testing.assert_close(fresh(inputs), tower(inputs), atol=0, rtol=0)
    assert trained(fresh) == trained(tower)
    step(fresh, inputs)
    save_adapter(fresh, path)  # replaces
    assert not torch.equal(load_adapter(tower_of("clip", folders), path)(inputs), tower(inputs))


def test_groups_have_their_own_learning_rate(folders: dict[str, Path]) -> None:
    tower = tower_of("clip", folders)
    groups = parameter_groups(tower)
    assert sum(len(group) for group in groups.values()) == len(list(tower.parameters()))
    assert {id(p) for p in groups["head"]} == {id(p) for p in tower.head.parameters()}
    freeze(tower)
    assert parameter_groups(tower) == {}
    lora(tower)
    assert {id(p) for p in parameter_groups(tower)["head"]} == {id(p) for p in tower.head.parameters()}
    assert len(parameter_groups(tower)["backbone"]) == 2 * 2 * 6


def test_what_cannot_be_done_says_why(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = tower_of("clip", folders)
    file = tmp_path / "a"
    with pytest.raises(HarmoniaError, match="has 2 blocks"):
        unfreeze(tower, last=3)
    with pytest.raises(HarmoniaError, match="has no repeated blocks"):
        blocks(AudioTower(AudioConfig(kind="vggish")))
    with pytest.raises(HarmoniaError, match="no adapters: add them"):
        save_adapter(tower, file)
    with pytest.raises(HarmoniaError, match="cannot add LoRA to the layers nose"):
        lora(tower, targets=["nose"])
    assert trained(tower) == {name for name, _ in tower.named_parameters()}
    with pytest.raises(HarmoniaError, match="rank >= 1"):
        lora(tower, rank=0)
    lora(tower, rank=2)
    with pytest.raises(HarmoniaError, match="adapters already"):
        lora(tower)
    save_adapter(tower, file)
    other = tower_of("clip", folders)
    nn.init.normal_(other.network.visual_projection.weight)  # type: ignore[union-attr,arg-type]
    with pytest.raises(HarmoniaError, match="trained for other weights"):
        load_adapter(other, file)
    with pytest.raises(HarmoniaError, match="another shape"):
        load_adapter(tower_of("clip", folders, dim=7), file)
    with pytest.raises(HarmoniaError, match="cannot write"):
        save_adapter(tower, tmp_path / "nowhere" / "a")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(HarmoniaError, match="damaged"):
        load_adapter(tower_of("clip", folders), file)
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(HarmoniaError, match=r"harmonia\[train\]"):
        lora(tower_of("clip", folders))
