"""Pretrained models as encoders, from the Hugging Face hub or a local folder.

Only safetensors weights are read. The names of encoders have a digest of the model's files, so that a store
detects when they change.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from transformers.utils import logging

from harmonia.encoders.base import Encoder
from harmonia.encoders.towers.base import place
from harmonia.pretrained.clip_siglip_clap import MODEL_TYPES, load_towers
from harmonia.pretrained.video_from_images import with_video
from harmonia.types import HarmoniaError

# The files of a model. Other formats of the same weights (ONNX, pickles) are not downloaded.
FILES = ("*.safetensors", "*.json", "*.txt", "*.model")


def load_pretrained(model: str, device: str = "auto") -> tuple[Encoder, ...]:
    """The encoders of one model, text first; those with an image tower also encode video.

    Args:
        model: name on the Hugging Face hub, or folder that holds such a model. CLIP, SigLIP and
            CLAP models of transformers, and text models of sentence-transformers.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...

    Raises:
        HarmoniaError: the model cannot be found, read, or is of another kind.
    """
    logging.disable_progress_bar()  # loading takes a second, on every command
    where = place(device)
    folder = locate(model)
    identity = digest(folder)
    try:
        towers = _towers(model, folder, identity, where)
    except ModuleNotFoundError:
        raise  # the caller names the extra to install
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise HarmoniaError(
            f"cannot load the model {model!r} ({reason}): download its files again"
        ) from error
    return with_video(towers)


def digest(folder: Path) -> str:
    """16 hex digits of a hash of a model's weights, configuration and vocabulary."""
    total = hashlib.sha256()
    paths = {path for pattern in FILES for path in folder.rglob(pattern) if path.is_file()}
    for path in sorted(paths, key=lambda path: path.relative_to(folder).as_posix()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode())
    return total.hexdigest()[:16]


def _towers(model: str, folder: Path, identity: str, device: torch.device) -> tuple[Encoder, ...]:
    """The text, image and audio encoders of the model in a folder."""
    if (folder / "modules.json").is_file():
        from harmonia.pretrained.sentence import SentenceText

        return (SentenceText(folder, f"sentence-{identity}", device),)
    config = folder / "config.json"
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else None
    if kind not in MODEL_TYPES:
        raise HarmoniaError(
            f"the model {model!r} is of type {kind}: give a {', '.join(MODEL_TYPES)} model "
            "or one of sentence-transformers"
        )
    return load_towers(folder, kind, f"{kind}-{identity}", device)


def locate(model: str) -> Path:
    """The local folder of a model, downloaded if ``model`` is a hub name."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(model, allow_patterns=list(FILES)))
        except HFValidationError as error:
            raise HarmoniaError(
                f"there is no model {model!r}: give a hub name such as openai/clip-vit-base-patch32, "
                "or an existing folder"
            ) from error
        except (HfHubHTTPError, OSError) as error:
            raise HarmoniaError(
                f"cannot download the model {model!r}: check the name and the network, or download "
                "it elsewhere and give its folder instead of the name"
            ) from error
    if not any(folder.rglob("*.safetensors")):
        raise HarmoniaError(
            f"the model {model!r} has no .safetensors weights: other formats can run code when "
            "opened, so convert it with transformers' save_pretrained first"
        )
    return folder
