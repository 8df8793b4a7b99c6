"""Pretrained models as towers that train, on tiny random models in transformers' own folders."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")

import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from harmonia.encoders.towers.audio import AudioConfig
from harmonia.encoders.towers.image import ImageConfig
from harmonia.pretrained.backbones import Backbone, BackboneConfig
from harmonia.pretrained.finetuning import freeze
from harmonia.pretrained.imagebind import HUB, build, pairs, six
from harmonia.pretrained.loading import load_encoders
from harmonia.types import HarmoniaError, Signal
from tests.checkpoints import (
    SENTENCES,
    images,
    save_ast,
    save_bert,
    save_clap,
    save_clip,
    save_dinov2,
    save_resnet,
    save_roberta,
    save_siglip,
    save_vit,
    sounds,
    texts,
    tokenizer,
)

SAVERS: dict[str, Callable[[Path], Path]] = {
    "clip": save_clip,
    "siglip": save_siglip,
    "clap": lambda folder: save_clap(folder, fusion=False),
    "clap-fusion": lambda folder: save_clap(folder, fusion=True),
    "bert": save_bert,
    "roberta": save_roberta,
    "resnet": save_resnet,
    "vit": save_vit,
    "dinov2": save_dinov2,
    "ast": save_ast,
}
TOWERS = [
    ("clip", "text"), ("clip", "image"), ("siglip", "text"), ("siglip", "image"), ("clap", "text"),
    ("clap", "audio"), ("clap-fusion", "audio"), ("bert", "text"), ("roberta", "text"),
    ("resnet", "image"), ("vit", "image"), ("dinov2", "image"), ("ast", "audio"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("backbones")
    return {kind: save(root / kind) for kind, save in SAVERS.items()}


def signals(modality: str) -> list[Signal]:
    return {"text": texts, "image": images, "audio": lambda: sounds()[:3]}[modality]()


def tower_of(folder: Path, modality: str, **settings: object) -> Backbone:
    return Backbone(BackboneConfig(model=str(folder), modality=modality, **settings))  # type: ignore[arg-type]


def bare(folder: Path, modality: str) -> Backbone:
    return tower_of(folder, modality, project=False)


@pytest.mark.parametrize(("kind", "modality"), TOWERS)
def test_a_backbone_is_a_tower_that_trains(folders: dict[str, Path], kind: str, modality: str) -> None:
    torch.manual_seed(0)
    tower = tower_of(folders[kind], modality, dim=12)
    batch = signals(modality)
    inputs = tower.prepare(batch)
    assert inputs.device.type == "cpu"
    assert not inputs.requires_grad
    assert tower.prepare(batch[1:2]).shape[1:] == tower.prepare([]).shape[1:] == inputs.shape[1:]
    assert tower.prepare([]).dtype == inputs.dtype
    codes = tower(inputs)
    assert codes.shape == (len(batch), tower.dim) == (len(batch), 12)
    alone = torch.cat([tower(tower.prepare([signal])) for signal in batch])
    torch.testing.assert_close(codes, alone, atol=1e-5, rtol=1e-4)
    assert (codes[0] - codes[1]).abs().max() > 1e-5
    json.dumps(dataclasses.asdict(tower.config))
    tower.train()
    tower(inputs).square().sum().backward()
    lacking = [name for name, p in tower.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []  # DistributedDataParallel needs a gradient for all


@pytest.mark.parametrize("kind", ["clip", "siglip", "clap", "clap-fusion"])
def test_without_a_projection_codes_are_those_of_the_encoders(folders: dict[str, Path], kind: str) -> None:
    for encoder in load_encoders([str(folders[kind])], "cpu")[:2]:
        tower = bare(folders[kind], encoder.modality)
        batch = signals(encoder.modality)
        with torch.no_grad():
            codes = torch.nn.functional.normalize(tower(tower.prepare(batch)))
        np.testing.assert_allclose(codes.numpy(), encoder.encode(batch), atol=2e-5)
        assert tower.dim == tower.config.dim == encoder.dim


@pytest.mark.parametrize("kind", ["resnet", "vit", "dinov2"])
def test_images_equal_transformers(folders: dict[str, Path], kind: str) -> None:
    model = transformers.AutoModel.from_pretrained(folders[kind]).eval()
    prepared = transformers.AutoImageProcessor.from_pretrained(folders[kind], backend="pil")
    wanted = model(**prepared([Image.fromarray(s.array) for s in images()], return_tensors="pt"))
    wanted = wanted.last_hidden_state[:, 0] if kind != "resnet" else wanted.pooler_output.flatten(1)
    tower = bare(folders[kind], "image")
    pixels = tower.prepare(images())
    assert pixels.dtype == torch.uint8
    torch.testing.assert_close(tower(pixels), wanted, atol=1e-4, rtol=1e-4)


def test_text_pools_equal_transformers(folders: dict[str, Path]) -> None:
    model = transformers.AutoModel.from_pretrained(folders["bert"]).eval()
    found = tokenizer(16)(SENTENCES, padding=True, truncation=True, max_length=16, return_tensors="pt")
    tokens = model(**found).last_hidden_state
    mask = found["attention_mask"][..., None]
    mean, first = (tower_of(folders["bert"], "text", project=False, pool=p) for p in ("mean", "first"))
    ids = mean.prepare(texts())
    assert ids.dtype == torch.int32
    torch.testing.assert_close(mean(ids), (tokens * mask).sum(1) / mask.sum(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(first(ids), tokens[:, 0], atol=1e-5, rtol=1e-4)


def test_sounds_equal_transformers(folders: dict[str, Path]) -> None:
    model = transformers.AutoModel.from_pretrained(folders["ast"]).eval()
    extractor = transformers.ASTFeatureExtractor.from_pretrained(folders["ast"])
    wave = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32)
    wanted = model(**extractor([wave], sampling_rate=16000, return_tensors="pt")).pooler_output
    tower = bare(folders["ast"], "audio")
    codes = tower(tower.prepare([Signal("audio", wave[None], rate=16000.0)]))
    torch.testing.assert_close(codes, wanted, atol=1e-4, rtol=1e-4)


def test_a_long_sound_is_cut_into_windows(folders: dict[str, Path]) -> None:
    tower = bare(folders["clap"], "audio")
    long = sounds()[3]  # five seconds; the model hears two
    pieces = tower.windows(long)
    assert len(pieces) == 3
    assert torch.equal(tower.prepare([long]), tower.prepare([long]))
    assert torch.equal(tower.prepare(pieces)[:1], tower.prepare([long]))


def test_a_typed_pad_token_is_not_padding(folders: dict[str, Path]) -> None:
    tower = bare(folders["bert"], "text")
    plain, typed = tower(tower.prepare(texts(["a dog", "a dog <pad>"])))
    assert (plain - typed).abs().max() > 1e-4


def test_only_the_parts_of_one_tower_are_held(folders: dict[str, Path]) -> None:
    whole = sum(p.numel() for p in transformers.CLIPModel.from_pretrained(folders["clip"]).parameters())
    halves = [
        sum(p.numel() for p in bare(folders["clip"], modality).parameters()) for modality in ("text", "image")
    ]
    assert sum(halves) == whole - 1  # the temperature


def test_a_frozen_resnet_does_not_depend_on_its_batch(folders: dict[str, Path]) -> None:
    tower = tower_of(folders["resnet"], "image", dim=12)
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    pixels = tower.prepare(images())
    freeze(tower)
    tower.train()
    torch.testing.assert_close(tower(pixels)[:1], tower(pixels[:1]))
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())


def test_models_that_are_no_towers_say_why(tmp_path: Path, folders: dict[str, Path]) -> None:
    lacking = save_vit(tmp_path / "lacking")
    weights = load_file(lacking / "model.safetensors")
    weights.pop("embeddings.cls_token")
    save_file(weights, lacking / "model.safetensors", {"format": "pt"})
    broken = save_vit(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not a tensor")
    unprepared = save_vit(tmp_path / "unprepared")
    (unprepared / "preprocessor_config.json").unlink()
    cases = [
        (folders["bert"], {"modality": "image"}, "is of type bert: as a tower of image"),
        (folders["clip"], {"modality": "audio"}, "is of type clip"),
        (folders["clip"], {"modality": "smell"}, "modality must be one of"),
        (folders["bert"], {"modality": "text", "pool": "max"}, "pool must be one of"),
        (lacking, {}, "lacks weights"),
        (broken, {}, "cannot load the model"),
        (unprepared, {}, "cannot load the model"),
    ]
    for folder, settings, message in cases:
        with pytest.raises(HarmoniaError, match=message) as caught:
            Backbone(BackboneConfig(model=str(folder), **settings))  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    tower = bare(folders["clip"], "image")
    with pytest.raises(HarmoniaError, match="the output of its prepare"):
        tower(torch.zeros(1, 3, 8, 8))
    with pytest.raises(HarmoniaError, match="modality text"):
        tower.prepare(texts())


def words() -> Tokenizer:
    return Tokenizer(models.WordLevel({"<pad>": 0, "a": 1, "dog": 2}, unk_token="a"))


def one_of_each() -> dict[str, Signal]:
    rng = np.random.default_rng(0)
    return {
        "image": images()[0],
        "text": Signal("text", "a dog"),
        "audio": sounds()[0],
        "depth": Signal("depth", rng.uniform(0.5, 9, (30, 40)).astype(np.float32)),
        "thermal": Signal("thermal", rng.normal(290, 9, (24, 32)).astype(np.float32)),
        "motion": Signal("motion", rng.normal(0, 1, (6, 90)).astype(np.float32), rate=50.0),
    }


def test_six_modalities_share_a_space(folders: dict[str, Path]) -> None:
    hub = BackboneConfig(model=str(folders["vit"]), dim=16)
    given = one_of_each()
    towers = build(six(dim=16) | {HUB: hub}, words())
    assert towers.keys() == given.keys()
    assert isinstance(towers[HUB], Backbone)
    for modality, signal in given.items():
        tower = towers[modality].eval()
        assert tower(tower.prepare([signal])).shape == (1, 16)
    assert pairs(towers) == [("image", name) for name in given if name != "image"]


def test_towers_that_do_not_fit_together_say_why(folders: dict[str, Path]) -> None:
    depth = ImageConfig(dim=16, channels=1, modality="depth")
    cases = [
        ({"depth": depth, "thermal": depth}, "the configuration for thermal is of a tower of depth"),
        ({"depth": depth, "image": ImageConfig(dim=8)}, "need one dim"),
        ({"text": six()["text"]}, "needs a tokenizer"),
    ]
    for configs, message in cases:
        with pytest.raises(HarmoniaError, match=message):
            build(configs)  # type: ignore[arg-type]


def test_pictures_teach_sound_what_a_text_means() -> None:
    """Text and sound never meet, as ImageBind: both are trained towards the same pictures only."""
    rate = 16000.0
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    pictures = [Signal("image", np.full((16, 16, 3), colour, dtype=np.uint8)) for colour in colours]
    names = [Signal("text", text) for text in ("a", "dog", "a dog", "dog a a")]
    seconds = np.arange(int(rate)) / rate
    tones = [Signal("audio", np.sin(2 * np.pi * hz * seconds)[None].astype(np.float32), rate=rate)
             for hz in (200, 600, 1800, 5400)]  # fmt: skip
    torch.manual_seed(0)
    tokenizer = words()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    configs = {
        name: config for name, config in six(dim=16, resolution=16).items() if name in ("image", "text")
    }
    configs["audio"] = AudioConfig(dim=16, seconds=0.5, mels=16)
    towers = build(configs, tokenizer)
    inputs = {
        name: towers[name].prepare(signals)
        for name, signals in (("image", pictures), ("text", names), ("audio", tones))
    }
    weights = [p for tower in towers.values() for p in tower.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=2e-3)
    for _ in range(40):
        codes = {name: torch.nn.functional.normalize(towers[name](inputs[name])) for name in towers}
        loss = sum(
            torch.nn.functional.cross_entropy(10 * codes[a] @ codes[b].T, torch.arange(4))
            for a, b in pairs(towers)
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[union-attr]
        optimizer.step()
    found = (codes["audio"] @ codes["text"].T).argmax(dim=1)
    assert found.tolist() == [0, 1, 2, 3]
