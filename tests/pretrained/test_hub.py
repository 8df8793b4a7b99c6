"""Adapters to transformers and sentence-transformers, on tiny models made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
pytest.importorskip("sentence_transformers")

import torch
import transformers
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from harmonia.pretrained.loading import load_encoders
from harmonia.types import HarmoniaError, Signal
from tests.checkpoints import (
    SENTENCES,
    TOWER,
    images,
    save_clap,
    save_clip,
    save_siglip,
    sounds,
    texts,
    tokenizer,
)


def save_sentence(folder: Path) -> Path:
    torch.manual_seed(3)
    bert = folder.with_name("bert")
    config = transformers.BertConfig(vocab_size=20, max_position_embeddings=16, **TOWER)
    transformers.BertModel(config).save_pretrained(bert)
    tokenizer(16).save_pretrained(bert)
    transformer = Transformer(str(bert), max_seq_length=16)
    pooling = Pooling(transformer.get_embedding_dimension())
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder))
    return folder


SAVERS: dict[str, Callable[[Path], Path]] = {
    "clip": save_clip,
    "siglip": save_siglip,
    "clap": lambda folder: save_clap(folder, fusion=False),
    "clap-fusion": lambda folder: save_clap(folder, fusion=True),
    "sentence": save_sentence,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {kind: save(root / kind) for kind, save in SAVERS.items()}


def rows(codes: object) -> np.ndarray:
    array = np.asarray(getattr(codes, "pooler_output", codes), dtype=np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def signals(modality: str) -> list[Signal]:
    if modality == "video":
        frames = np.random.default_rng(1).integers(0, 256, (11, 24, 32, 3), dtype=np.uint8)
        return [Signal("video", frames), Signal("video", frames[:1]), Signal("video", frames[3:9])]
    return {"text": texts, "image": images, "audio": sounds}[modality]()


@pytest.mark.parametrize("kind", SAVERS)
def test_codes_are_unit_and_do_not_depend_on_the_batch(folders: dict[str, Path], kind: str) -> None:
    own = [e for e in load_encoders([str(folders[kind])], "cpu") if not e.name.startswith("descriptor")]
    assert len({e.space for e in own}) == 1
    assert len({e.name for e in own}) == len(own)
    for encoder in own:
        batch = signals(encoder.modality)
        codes = encoder.encode(batch)
        assert codes.shape == (len(batch), encoder.dim)
        assert codes.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, atol=1e-5)
        alone = np.concatenate([encoder.encode([signal]) for signal in batch])
        np.testing.assert_allclose(codes, alone, atol=1e-5)
        assert np.abs(codes[0] - codes[1]).max() > 1e-4
        assert encoder.encode([]).shape == (0, encoder.dim)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_towers_equal_transformers(folders: dict[str, Path], kind: str) -> None:
    folder = folders[kind]
    text, image, video, audio = load_encoders([str(folder)], "cpu")
    assert [e.modality for e in (text, image, video, audio)] == ["text", "image", "video", "audio"]
    model = transformers.AutoModel.from_pretrained(folder).eval()
    padding = "max_length" if kind == "siglip" else True
    tokens = tokenizer(16)(SENTENCES, padding=padding, truncation=True, max_length=16, return_tensors="pt")
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(
        [Image.fromarray(s.array) for s in images()],
        return_tensors="pt",
    )
    with torch.no_grad():
        wanted_text = model.get_text_features(tokens["input_ids"], tokens.get("attention_mask"))
        wanted_image = model.get_image_features(**pixels)
    np.testing.assert_allclose(text.encode(texts()), rows(wanted_text), atol=1e-5)
    np.testing.assert_allclose(image.encode(images()), rows(wanted_image), atol=1e-5)
    clip = signals("video")[2]
    frames = image.encode([Signal("image", frame) for frame in clip.array])
    np.testing.assert_allclose(video.encode([clip]), rows(frames.mean(0)[None]), atol=1e-5)


def test_clap_equals_transformers(folders: dict[str, Path]) -> None:
    folder = folders["clap"]
    text, audio, *rest = load_encoders([str(folder)], "cpu")
    assert [e.name for e in rest] == ["descriptor-image-1", "descriptor-video-1"]
    model = transformers.ClapModel.from_pretrained(folder).eval()
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    tokens = tokenizer(16)(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    wave = sounds()[0].array.mean(axis=0)
    features = extractor([wave], sampling_rate=8000, return_tensors="pt")
    with torch.no_grad():
        wanted_text = model.get_text_features(**tokens)
        wanted_audio = model.get_audio_features(**features)
    np.testing.assert_allclose(text.encode(texts()), rows(wanted_text), atol=1e-5)
    np.testing.assert_allclose(audio.encode(sounds()[:1]), rows(wanted_audio), atol=1e-5)


def test_clap_hears_all_of_a_long_sound(folders: dict[str, Path]) -> None:
    _, audio, *_ = load_encoders([str(folders["clap"])], "cpu")
    long = sounds()[3]
    edited = long.array.copy()
    edited[:, -4000:] = 0
    same, other = audio.encode([long]), audio.encode([Signal("audio", edited, rate=8000)])
    np.testing.assert_array_equal(same, audio.encode([long]))
    assert np.abs(same - other).max() > 1e-6


def test_sentence_model_equals_sentence_transformers(folders: dict[str, Path]) -> None:
    text, *rest = load_encoders([str(folders["sentence"])], "cpu")
    assert [e.modality for e in rest] == ["image", "audio", "video"]
    wanted = SentenceTransformer(str(folders["sentence"]), device="cpu").encode(SENTENCES)
    np.testing.assert_allclose(text.encode(texts()), rows(wanted), atol=1e-5)


@pytest.mark.parametrize("kind", SAVERS)
def test_long_texts_are_cut(folders: dict[str, Path], kind: str) -> None:
    text = load_encoders([str(folders[kind])], "cpu")[0]
    long, longer = text.encode(texts(["dog " * 14, "dog " * 500]))
    np.testing.assert_allclose(long, longer, atol=1e-5)


def test_names_follow_the_weights(tmp_path: Path) -> None:
    first = load_encoders([str(save_clip(tmp_path / "a"))], "cpu")
    moved = load_encoders([str((tmp_path / "a").rename(tmp_path / "b"))], "cpu")
    changed = load_encoders([str(save_clip(tmp_path / "c", seed=9))], "cpu")
    assert [e.name for e in first] == [e.name for e in moved]
    assert first[0].name != changed[0].name
    assert first[0].space != changed[0].space


def test_two_models_keep_both_text_towers(folders: dict[str, Path]) -> None:
    encoders = load_encoders([str(folders["clip"]), str(folders["clap"]), str(folders["clip"])], "cpu")
    assert [e.modality for e in encoders] == ["text", "image", "video", "text", "audio"]
    assert encoders[0].space == encoders[1].space == encoders[2].space
    assert encoders[3].space == encoders[4].space != encoders[0].space


def test_models_that_cannot_be_loaded_say_why(
    tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    other = tmp_path / "other"
    transformers.BertModel(transformers.BertConfig(vocab_size=20, **TOWER)).save_pretrained(other)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text('{"model_type": "clip"}')
    torch.save({}, pickled / "pytorch_model.bin")
    broken = save_clip(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not a tensor")
    lacking = save_clip(tmp_path / "lacking")
    transformers.CLIPTextModel(transformers.CLIPConfig.from_pretrained(lacking).text_config).save_pretrained(
        tmp_path / "part"
    )
    (tmp_path / "part" / "model.safetensors").replace(lacking / "model.safetensors")
    cases = {
        str(other): "is of type bert",
        str(pickled): "no .safetensors",
        str(broken): "cannot load the model",
        str(lacking): "lacks weights",
        "nobody/no-such-model-here": "give its folder",
        "no such name!": "there is no model",
    }
    for model, message in cases.items():
        with pytest.raises(HarmoniaError, match=message) as caught:
            load_encoders([model], "cpu")
        assert "\n" not in str(caught.value)
    with pytest.raises(HarmoniaError, match="not available"):
        load_encoders([str(folders["clip"])], "abacus")
    with pytest.raises(HarmoniaError, match="not available"):
        load_encoders([str(folders["clip"])], "cuda:99")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "harmonia.pretrained.hub", None)
    with pytest.raises(HarmoniaError, match=r"harmonia\[pretrained\]"):
        load_encoders(["openai/clip-vit-base-patch32"])
