"""Tiny random checkpoints in transformers' own folders, and what a test hands to their encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from harmonia.types import Signal

WORDS = ["a", "dog", "cat", "runs", "sleeps", "on", "the", "beach", "grass", "red", "blue"]
SENTENCES = ["a dog runs on the beach", "a cat sleeps", "the red dog " * 30]
TOWER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def texts(strings: list[str] = SENTENCES) -> list[Signal]:
    return [Signal("text", s) for s in strings]


def images() -> list[Signal]:
    rng = np.random.default_rng(0)
    sizes = [(40, 60, 3), (1, 1, 3), (3, 5, 3), (90, 30, 3)]
    return [Signal("image", rng.integers(0, 256, size, dtype=np.uint8)) for size in sizes]


def sounds(rate: int = 8000) -> list[Signal]:
    rng = np.random.default_rng(0)
    lengths = [rate, 1, 0, 5 * rate]
    waves = [rng.normal(0, 0.1, (2, n)).astype(np.float32) for n in lengths]
    return [Signal("audio", wave, rate=rate) for wave in waves]


def tokenizer(context: int) -> transformers.PreTrainedTokenizerFast:
    vocabulary = {w: i for i, w in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=context,
    )


def save_clip(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    text = TOWER | {
        "vocab_size": 20,
        "max_position_embeddings": 16,
        "eos_token_id": 2,
        "bos_token_id": 1,
        "pad_token_id": 0,
    }
    vision = TOWER | {"image_size": 32, "patch_size": 16}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer(16).save_pretrained(folder)
    side = {"height": 32, "width": 32}
    transformers.models.clip.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size=side
    ).save_pretrained(folder)
    return folder


def save_siglip(folder: Path) -> Path:
    torch.manual_seed(1)
    text = TOWER | {"vocab_size": 20, "max_position_embeddings": 16, "projection_size": 32}
    vision = TOWER | {"image_size": 32, "patch_size": 16}
    config = transformers.SiglipConfig(text_config=text, vision_config=vision)
    transformers.SiglipModel(config).save_pretrained(folder)
    tokenizer(16).save_pretrained(folder)
    transformers.models.siglip.SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    return folder


def save_clap(folder: Path, fusion: bool) -> Path:
    torch.manual_seed(2)
    text = TOWER | {"vocab_size": 20, "max_position_embeddings": 18, "pad_token_id": 0}
    audio = {
        "spec_size": 64,
        "num_mel_bins": 16,
        "patch_embeds_hidden_size": 16,
        "hidden_size": 32,
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "window_size": 4,
        "enable_fusion": fusion,
        "aff_block_r": 2,
    }
    config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=24)
    transformers.ClapModel(config).save_pretrained(folder)
    tokenizer(16).save_pretrained(folder)
    transformers.ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=8000,
        hop_length=80,
        max_length_s=2,
        fft_window_size=256,
        frequency_max=4000,
        truncation="fusion" if fusion else "rand_trunc",
    ).save_pretrained(folder)
    return folder


def save_bert(folder: Path) -> Path:
    torch.manual_seed(3)
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=16, **TOWER)
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer(16).save_pretrained(folder)
    return folder


def save_roberta(folder: Path) -> Path:
    torch.manual_seed(4)
    config = transformers.RobertaConfig(vocab_size=20, max_position_embeddings=18, pad_token_id=1, **TOWER)
    transformers.RobertaModel(config).save_pretrained(folder)
    tokenizer(10**6).save_pretrained(folder)
    return folder


def save_resnet(folder: Path) -> Path:
    torch.manual_seed(5)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 2])
    transformers.ResNetModel(config).save_pretrained(folder)
    transformers.models.convnext.ConvNextImageProcessorPil(
        size={"shortest_edge": 32}, crop_pct=0.875
    ).save_pretrained(folder)
    return folder


def save_vit(folder: Path) -> Path:
    torch.manual_seed(6)
    transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=16, **TOWER)).save_pretrained(
        folder
    )
    size = {"height": 32, "width": 32}
    transformers.models.vit.ViTImageProcessorPil(size=size).save_pretrained(folder)
    return folder


def save_dinov2(folder: Path) -> Path:
    torch.manual_seed(7)
    known = {name: value for name, value in TOWER.items() if name != "intermediate_size"}
    config = transformers.Dinov2Config(image_size=32, patch_size=16, mlp_ratio=2, **known)
    transformers.Dinov2Model(config).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    transformers.models.vit.ViTImageProcessorPil(size=size).save_pretrained(folder)
    return folder


def save_ast(folder: Path) -> Path:
    torch.manual_seed(8)
    config = transformers.ASTConfig(max_length=64, num_mel_bins=32, patch_size=16, **TOWER)
    transformers.ASTModel(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32).save_pretrained(folder)
    return folder
