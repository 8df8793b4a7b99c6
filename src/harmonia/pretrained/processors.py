"""Processors from signals to the inputs of a pretrained model, by the processor files beside its weights.

Their output is one CPU tensor of fixed shape. They decode and resize, which is slow; normalisation is done on
the model's device.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoTokenizer

from harmonia.encoders.towers.audio import cut
from harmonia.encoders.towers.base import check_modality
from harmonia.modalities.audio import mono
from harmonia.types import HarmoniaError, Signal

PADDING = -1
"""The id of padding, different from that of a pad token in the text."""


class TokenIds:
    """Texts to token ids, int32 ``(n, length)``, padded with ``PADDING``. Long texts are truncated."""

    def __init__(self, folder: Path, length: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.length = min(length, self.tokenizer.model_max_length)
        self.pad = self.tokenizer.pad_token_id or 0

    def __call__(self, signals: Sequence[Signal]) -> Tensor:
        """One row for each text."""
        check_modality(signals, "text")
        if not signals:
            return torch.zeros(0, self.length, dtype=torch.int32)
        found = self.tokenizer(
            [signal.text for signal in signals],
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=self.length,
            return_tensors="pt",
        )
        ids: Tensor = found["input_ids"].int()
        # Without a mask (SigLIP) padding is read like any other token.
        return (
            ids if "attention_mask" not in found else ids.masked_fill(found["attention_mask"] == 0, PADDING)
        )

    def split(self, inputs: Tensor, *, shorten: bool) -> tuple[Tensor, Tensor]:
        """The model's token ids and their mask, both int64; cut to the longest text if ``shorten``."""
        mask = inputs != PADDING
        if shorten:
            longest = max(1, int(mask.any(dim=0).sum()))
            inputs, mask = inputs[:, :longest], mask[:, :longest]
        return inputs.long().masked_fill(~mask, self.pad), mask.long()


class Pixels:
    """Images, resized and cropped for the model, to uint8 ``(n, 3, height, width)``."""

    def __init__(self, folder: Path) -> None:
        # The Pillow processor, also where torchvision is installed: the two differ in the last digits.
        self.processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        self.shape = tuple(self._prepared([np.zeros((8, 8, 3), dtype=np.uint8)]).shape[1:])

    def __call__(self, signals: Sequence[Signal]) -> Tensor:
        """One row for each image."""
        check_modality(signals, "image")
        if not signals:
            return torch.zeros(0, *self.shape, dtype=torch.uint8)
        return self._prepared([signal.array for signal in signals])

    def scale(self) -> tuple[Tensor, Tensor]:
        """Factor and offset, ``(3, 1, 1)``, that normalise pixels for the model."""
        known: Any = self.processor
        factor = known.rescale_factor if known.do_rescale else 1.0
        mean = torch.tensor(known.image_mean if known.do_normalize else [0.0] * 3)
        spread = torch.tensor(known.image_std if known.do_normalize else [1.0] * 3)
        return (factor / spread)[:, None, None], (-mean / spread)[:, None, None]

    def _prepared(self, pictures: Sequence[Any]) -> Tensor:
        images = [Image.fromarray(picture).convert("RGB") for picture in pictures]
        found = self.processor(images, do_rescale=False, do_normalize=False, return_tensors="np")
        pixels = found["pixel_values"]
        if not isinstance(pixels, np.ndarray) or pixels.ndim != 4:
            raise HarmoniaError(
                "the model's preprocessor_config.json gives images of different sizes: "
                "set do_center_crop, or a height and a width"
            )
        return torch.from_numpy(np.ascontiguousarray(pixels.astype(np.uint8)))


class Spectra:
    """Sounds to the log-mel spectrograms of the model's own feature extractor, float32.

    A sound longer than ``seconds`` is cropped to its beginning; ``windows`` splits it. (CLAP's extractor
    itself takes a random crop.)
    """

    def __init__(self, folder: Path) -> None:
        self.extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        self.key = self.extractor.model_input_names[0]
        self.rate = int(self.extractor.sampling_rate)
        if hasattr(self.extractor, "nb_max_samples"):  # CLAP repeats a short sound
            self.samples, self.least = int(self.extractor.nb_max_samples), 1
        else:  # AST counts frames of 10 ms, and needs the samples of one, 25 ms
            self.samples, self.least = self.extractor.max_length * self.rate // 100, self.rate // 40
        self.seconds = self.samples / self.rate
        self.shape = tuple(self._prepared([np.zeros(self.rate, dtype=np.float32)]).shape[1:])

    def __call__(self, signals: Sequence[Signal]) -> Tensor:
        """One spectrogram for each sound."""
        check_modality(signals, "audio")
        if not signals:
            return torch.zeros(0, *self.shape)
        return self._prepared([mono(signal, self.rate) for signal in signals])

    def windows(self, signal: Signal) -> list[Signal]:
        """Windows of ``seconds`` that cover a long sound."""
        return cut(signal, self.seconds)

    def _prepared(self, waves: Sequence[Any]) -> Tensor:
        fitted = [np.pad(wave[: self.samples], (0, max(0, self.least - len(wave)))) for wave in waves]
        found: Tensor = self.extractor(fitted, sampling_rate=self.rate, return_tensors="pt")[self.key]
        # CLAP's fusion models get four copies of a short sound.
        return (found[:, :1] if found.ndim == 4 else found).float()
