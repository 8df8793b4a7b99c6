"""Pretrained models of the transformers library as trainable towers, with or without a new projection.

References: CLIP, Radford et al. 2021; SigLIP, Zhai et al. 2023; CLAP, Wu et al. 2023; BERT, Devlin et al.
2019; ResNet, He et al. 2016; ViT, Dosovitskiy et al. 2021; DINOv2, Oquab et al. 2023; AST, Gong et al. 2021.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModel
from transformers.utils import logging

from harmonia.encoders.towers.base import ProjectionHead, Tower, TowerConfig, check_inputs, choose
from harmonia.pretrained.hub import digest, locate
from harmonia.pretrained.processors import Pixels, Spectra, TokenIds
from harmonia.types import HarmoniaError, Signal

JOINT = {"clip": ("text", "image"), "siglip": ("text", "image"), "clap": ("text", "audio")}
"""Models with two towers and a projection."""

ALONE = {
    "text": ("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "mpnet", "electra", "modernbert"),
    "image": ("resnet", "convnext", "vit", "dinov2"),
    "audio": ("audio-spectrogram-transformer",),
}
"""Models of one modality."""

PARTS = {
    "text": ("text_model", "text_projection"),
    "image": ("vision_model", "visual_projection"),
    "audio": ("audio_model", "audio_projection"),
}
POOLS = ("mean", "first")


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(TowerConfig):
    """Settings of one tower of a pretrained model, which determines the size; ``size`` is ignored.

    ``model``    hub name, or folder with safetensors weights
    ``modality`` text, image or audio
    ``project``  add a new projection to ``dim`` (to be trained); without it ``dim`` is that of the model, and
                 codes stay in its space
    ``length``   largest number of tokens of a text; SigLIP always uses its own
    ``pool``     text models without a projection: "mean" of the tokens, or the "first" ([CLS])
    """

    model: str
    modality: str = "image"
    project: bool = True
    length: int = 77
    pool: str = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("modality", self.modality, tuple(PARTS))
        choose("pool", self.pool, POOLS)
        if self.length < 2:
            raise HarmoniaError("a text tower needs length >= 2")


class Backbone(Tower):
    """A pretrained network, with a projection if ``project``.

    Raises:
        HarmoniaError: the model cannot be found or read, or is of another kind.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config: BackboneConfig = config
        self.modality = config.modality
        folder = locate(config.model)
        self.identity = digest(folder)
        self.kind = kind_of(config, folder)
        try:
            self.network = network(folder, self.kind, config.modality)
            self.processor = processor(folder, self.kind, config, self.network)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
            ImportError,
            SafetensorError,
        ) as error:
            reason = " ".join(str(error).split())[:200]
            raise HarmoniaError(
                f"cannot load the model {config.model!r} ({reason}): download its files again"
            ) from error
        if isinstance(self.processor, Pixels):
            factor, offset = self.processor.scale()
            self.register_buffer("factor", factor, persistent=False)
            self.register_buffer("offset", offset, persistent=False)
        width = self._width()
        if not config.project:
            self.config = replace(config, dim=width)
        self.head = ProjectionHead(width, config) if config.project else nn.Identity()

    def prepare(self, signals: Sequence[Signal]) -> Tensor:
        """Token ids int32 ``(n, length)``, pixels uint8 ``(n, 3, height, width)``, or log-mels float32.

        Log-mels are ``(n, 1, t, mels)`` for CLAP and ``(n, t, mels)`` for AST.
        """
        return self.processor(signals)

    def windows(self, signal: Signal) -> list[Signal]:
        """Windows that cover a long sound."""
        return self.processor.windows(signal) if isinstance(self.processor, Spectra) else [signal]

    def forward(self, inputs: Tensor) -> Tensor:
        """Codes of the output of ``prepare``."""
        code: Tensor = self.head(self.features(inputs))
        return code

    def features(self, inputs: Tensor) -> Tensor:
        """The output of the pretrained model, ``(n, width)``."""
        if isinstance(self.processor, TokenIds):
            check_inputs(inputs, (-1,), "text")
            return self._texts(inputs, self.processor)
        check_inputs(inputs, self.processor.shape, self.modality)
        if isinstance(self.processor, Pixels):
            factor, offset = cast("Tensor", self.factor), cast("Tensor", self.offset)
            return self._pictures(inputs.to(factor.dtype) * factor + offset)
        return self._sounds(inputs.to(next(self.network.parameters()).dtype))

    def _texts(self, inputs: Tensor, processor: TokenIds) -> Tensor:
        # SigLIP was trained on padding to its full length and reads the last position.
        ids, mask = processor.split(inputs, shorten=self.kind != "siglip")
        if self.kind in JOINT:
            return _pooled(self.network.get_text_features(input_ids=ids, attention_mask=mask))
        tokens = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        if self.config.pool == "first":
            return cast("Tensor", tokens[:, 0])
        weight = (mask / mask.sum(dim=1, keepdim=True)).to(tokens.dtype)
        return torch.einsum("nt,ntw->nw", weight, tokens)

    def _pictures(self, pixels: Tensor) -> Tensor:
        if self.kind in JOINT:
            return _pooled(self.network.get_image_features(pixel_values=pixels))
        output = self.network(pixel_values=pixels)
        if self.kind == "vit":  # its pooler is often left untrained
            return cast("Tensor", output.last_hidden_state[:, 0])
        return _pooled(output).flatten(1)

    def _sounds(self, mels: Tensor) -> Tensor:
        if self.kind != "clap":
            return _pooled(self.network(input_values=mels))
        return _pooled(self.network.get_audio_features(input_features=mels))

    def _width(self) -> int:
        """The width of ``features``, from an example."""
        example = {
            "text": Signal("text", "a"),
            "image": Signal("image", np.zeros((8, 8, 3), dtype=np.uint8)),
            "audio": Signal("audio", np.zeros((1, 8000), dtype=np.float32), rate=8000.0),
        }[self.modality]
        with torch.no_grad():
            return self.features(self.prepare([example])).shape[1]


def _pooled(output: Any) -> Tensor:
    # transformers 5 returns an object; its pooler_output is the (projected) code.
    return cast("Tensor", getattr(output, "pooler_output", output))


def kind_of(config: BackboneConfig, folder: Path) -> str:
    """The model type in config.json; HarmoniaError unless it has a tower of the modality."""
    file = folder / "config.json"
    kind = json.loads(file.read_text(encoding="utf-8")).get("model_type") if file.is_file() else None
    known = [name for name, modalities in JOINT.items() if config.modality in modalities]
    known += ALONE[config.modality]
    if kind not in known:
        raise HarmoniaError(
            f"the model {config.model!r} is of type {kind}: as a tower of {config.modality} give one of "
            f"{', '.join(known)}"
        )
    return str(kind)


def network(folder: Path, kind: str, modality: str) -> Any:
    """The pretrained network in evaluation mode, without the parts that this tower does not use."""
    logging.disable_progress_bar()
    model, info = AutoModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    if kind in JOINT:
        for name in (*model._parameters, *model._modules):
            if name not in PARTS[modality]:
                delattr(model, name)
        if modality == "audio":
            _unfuse(model.audio_model.audio_encoder)
    elif kind == "vit" or modality == "text":
        model.pooler = None
    if hasattr(model, "embeddings") and hasattr(model.embeddings, "mask_token"):
        model.embeddings.mask_token = None
    missing = {key for key in info["missing_keys"] if key in model.state_dict()}
    if missing:
        raise HarmoniaError(
            f"the model in {folder} lacks weights ({min(missing)}, ...): download its files again"
        )
    return model.eval()


def _unfuse(encoder: Any) -> None:
    """Disable the fusion of windows in a CLAP model for long sounds, which is encoded by window here."""
    encoder.enable_fusion = encoder.patch_embed.enable_fusion = False
    for name in ("fusion_model", "mel_conv2d"):
        if hasattr(encoder.patch_embed, name):
            delattr(encoder.patch_embed, name)


def processor(folder: Path, kind: str, config: BackboneConfig, model: Any) -> TokenIds | Pixels | Spectra:
    """The processor of a tower's signals."""
    if config.modality == "image":
        return Pixels(folder)
    if config.modality == "audio":
        return Spectra(folder)
    context = text_context(model)
    return TokenIds(folder, context if kind == "siglip" else min(config.length, context))


def text_context(model: Any) -> int:
    """The context length of a text model. RoBERTa-like models count positions from ``padding_idx`` + 1."""
    config = getattr(model.config, "text_config", model.config)
    context = int(config.max_position_embeddings)
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            context -= module.padding_idx + 1
    return context
