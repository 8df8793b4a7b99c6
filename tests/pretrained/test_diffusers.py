"""Pipelines of diffusers as generators: tiny ones, built, saved and loaded here."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harmonia.cli import main
from harmonia.generators import Batch, Condition, ConditionConfig, load_generator, save_generator, spell
from harmonia.modalities import image as pictures
from harmonia.pretrained.diffusers import Pretrained, PretrainedConfig
from harmonia.tasks.image_io import signal_of
from harmonia.tasks.imagine import Imagination, load
from harmonia.types import HarmoniaError

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")


def vae() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4, norm_num_groups=4, sample_size=16,
    )  # fmt: skip


def tokenizer(folder: Path) -> Any:
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return transformers.CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16
    )


@pytest.fixture(scope="module")
def stable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("stable")
    torch.manual_seed(0)
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=4,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=16,
    )  # fmt: skip
    diffusers.StableDiffusionPipeline(
        vae=vae(), text_encoder=text, tokenizer=tokenizer(folder), unet=unet,
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder, safe_serialization=True)  # fmt: skip
    return folder


def seed(value: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(value)


def test_texts_draw_what_the_pipeline_draws(stable: Path) -> None:
    ours = Pretrained.load(str(stable))
    assert ours.config.shape == (3, 16, 16)
    told: list[tuple[int, int, torch.Size]] = []
    condition = Condition(2, text=spell(["a red apple", "été"]))
    x = ours.sample(condition, steps=3, guidance=2.0, generator=seed(),
                    watch=lambda step, steps, x0: told.append((step, steps, x0.shape)))  # fmt: skip
    pipeline = diffusers.DiffusionPipeline.from_pretrained(stable)
    right = pipeline(["a red apple", "été"], num_inference_steps=3, guidance_scale=2.0, generator=seed(),
                     height=16, width=16, output_type="np").images  # fmt: skip
    torch.testing.assert_close(x, torch.from_numpy(right).permute(0, 3, 1, 2) * 2 - 1)
    assert told == [(step, 3, torch.Size((2, 3, 16, 16))) for step in (1, 2, 3)]


def test_the_guidance_is_the_pipelines_own_unless_told(stable: Path) -> None:
    condition = Condition(1, text=spell(["a red apple"]))

    def draw(guidance: float | None = None, **settings: Any) -> torch.Tensor:
        ours = Pretrained.load(str(stable), **settings)
        return ours.sample(condition, steps=2, guidance=guidance, generator=seed())

    own = diffusers.DiffusionPipeline.from_pretrained(stable)(
        "a red apple", num_inference_steps=2, generator=seed(), height=16, width=16, output_type="np"
    ).images
    torch.testing.assert_close(draw(), torch.from_numpy(own).permute(0, 3, 1, 2) * 2 - 1)
    assert torch.equal(draw(), draw(7.5)) and not torch.equal(draw(), draw(1.0))
    torch.testing.assert_close(draw(condition=ConditionConfig(code=5)), draw())
    # the configuration's comes before the pipeline's, what is asked for before both
    set_to_two = Pretrained.load(str(stable), guidance=2.0)
    assert torch.equal(set_to_two.sample(condition, steps=2, generator=seed()), draw(2.0))
    assert torch.equal(set_to_two.sample(condition, steps=2, guidance=1.0, generator=seed()), draw(1.0))


def test_imagine_draws_by_the_folder_or_the_name_of_a_pipeline(
    stable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def imagine(generator: Path | str, *rest: str) -> tuple[int, list[str], str]:
        argv = ["harmonia", "imagine", *rest, "--generator", str(generator), "-n", "1", "--steps", "2"]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out.splitlines(), shown.err

    code, files, err = imagine(stable, "a", "red", "apple")
    assert code == 0, err
    right = Pretrained.load(str(stable)).sample(
        Condition(1, text=spell(["a red apple"])), steps=2, generator=seed()
    )
    assert (pictures.read(tmp_path / files[0]).array == signal_of(right[0]).array).all()
    mark = pictures.mark_of(tmp_path / files[0])
    assert mark is not None and mark.generator == stable.name and len(mark.identity) == 16

    asked: list[str] = []

    def download(name: str, **_: Any) -> str:
        asked.append(name)
        if name != "somebody/stable":
            raise OSError(f"{name} is not a local folder and is not a valid model identifier")
        return str(stable)

    monkeypatch.setattr(diffusers.DiffusionPipeline, "download", download)
    code, named, err = imagine("somebody/stable", "a", "red", "apple", "--out", "named")
    assert code == 0 and asked == ["somebody/stable"], err
    assert (pictures.read(tmp_path / named[0]).array == pictures.read(tmp_path / files[0]).array).all()
    mark = pictures.mark_of(tmp_path / named[0])
    assert mark is not None and mark.generator == "somebody/stable"
    code, _, err = imagine("somebody/else", "apple")
    assert code == 1 and "cannot load the pipeline 'somebody/else'" in err and len(err.splitlines()) == 1
    assert "there is no such folder" in err
    (tmp_path / "runs").mkdir()
    code, _, err = imagine("runs/model", "apple")
    assert code == 1 and "there is no generator in runs/model" in err and len(asked) == 2
    code, _, err = imagine(tmp_path / "runs", "apple")
    assert code == 1 and "config.json" in err and "model_index.json" in err and len(err.splitlines()) == 1


def test_the_state_changes_nothing_until_it_is_trained(stable: Path, tmp_path: Path) -> None:
    ours = Pretrained.load(str(stable), condition=ConditionConfig(code=5, drop=0.0))
    code = torch.randn(2, 5, generator=seed(1))
    texts = spell(["a dog", "a cat"])
    plain, told = Condition(2, text=texts), Condition(2, text=texts, code=code)

    def draw(condition: Condition, generator: Pretrained = ours) -> torch.Tensor:
        return generator.sample(condition, steps=2, guidance=3.0, generator=seed())

    assert torch.equal(draw(plain), draw(told))
    trained = ours.groups()["model"]
    assert [tuple(p.shape) for p in trained] == [(4 * 16, 5)]
    frozen = {name: p.clone() for name, p in ours.pipeline.unet.named_parameters()}

    optimizer = torch.optim.Adam(trained, lr=0.05)
    x = torch.rand(2, 3, 16, 16, generator=seed(2)) * 2 - 1
    losses = []
    for _ in range(12):
        torch.manual_seed(0)  # the same noise and times each time
        loss = ours.losses(Batch(x, told))["model"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    assert all(torch.equal(frozen[name], p) for name, p in ours.pipeline.unet.named_parameters())
    assert not torch.equal(draw(plain), draw(told))
    assert not torch.equal(draw(told), draw(Condition(2, text=texts, code=code.flip(0))))

    save_generator(tmp_path / "saved", ours)
    assert sum(file.stat().st_size for file in (tmp_path / "saved").glob("*.safetensors")) < 4096
    again = load_generator(tmp_path / "saved").generator
    assert isinstance(again, Pretrained)
    torch.testing.assert_close(draw(told, again), draw(told))


def test_a_class_or_nothing_is_what_other_pipelines_draw(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(4, 8), layers_per_block=1,
        norm_num_groups=4, down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2,
    )  # fmt: skip
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    nothing = Pretrained.load(str(tmp_path / "ddpm"))
    x = nothing.sample(Condition(3), steps=2, generator=seed())
    assert x.shape == (3, 1, 8, 8) and x.abs().max() <= 1
    assert torch.equal(x, nothing.sample(Condition(3), steps=2, generator=seed()))
    with pytest.raises(HarmoniaError, match="cannot take a state"):
        Pretrained.load(str(tmp_path / "ddpm"), condition=ConditionConfig(code=4))
    with pytest.raises(HarmoniaError, match=r"use Pretrained\.load"):
        Pretrained(PretrainedConfig(model=str(tmp_path / "ddpm"))).sample(Condition(1), steps=1)
    with pytest.raises(HarmoniaError, match="only the state of a Stable Diffusion pipeline"):
        nothing.losses(Batch(x, Condition(3)))

    transformer = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, num_layers=1, sample_size=8, patch_size=2,
        norm_num_groups=4, num_embeds_ada_norm=1000, out_channels=8,
    )  # fmt: skip
    pipeline = diffusers.DiTPipeline(transformer, vae(), diffusers.DDIMScheduler(), id2label={0: "tench"})
    pipeline.save_pretrained(tmp_path / "dit")
    # as the published ones have it; diffusers reads it and does not write it
    index = json.loads((tmp_path / "dit" / "model_index.json").read_text())
    (tmp_path / "dit" / "model_index.json").write_text(json.dumps(index | {"id2label": {"0": "tench, fish"}}))
    of_class = Pretrained.load(str(tmp_path / "dit"))
    found = of_class.sample(Condition(2, label=torch.tensor([3, 7])), steps=2, guidance=2.0, generator=seed())
    assert found.shape == (2, 3, 16, 16)
    saved = load(tmp_path / "dit", "cpu")
    assert saved.generator.config.condition.classes == 1000 and saved.facts.labels[:2] == (
        ("fish", "tench"),
        ("1",),
    )
    request = Imagination(saved).request({"text": "a tench"})
    assert request.condition.label is not None and request.condition.label.tolist() == [0]
    assert not load(tmp_path / "ddpm", "cpu").facts.labels
    assert Imagination(load(tmp_path / "ddpm", "cpu")).request({}).condition.parts() == {}
    with pytest.raises(HarmoniaError, match="give every row a label"):
        of_class.sample(Condition(2, label=torch.tensor([3, -1])), steps=1)


def test_a_pipeline_that_wants_a_picture_is_refused_in_one_line(stable: Path, tmp_path: Path) -> None:
    diffusers.StableDiffusionInpaintPipeline.from_pretrained(stable).save_pretrained(tmp_path / "inpaint")
    saved = load(tmp_path / "inpaint", "cpu")
    with pytest.raises(HarmoniaError, match="cannot draw this"):
        saved.generator.sample(Condition(1, text=spell(["a dog"])), steps=1)


def test_pickles_and_what_is_no_pipeline_are_refused(stable: Path, tmp_path: Path) -> None:
    with pytest.raises(HarmoniaError, match="cannot load the pipeline"):
        Pretrained.load(str(tmp_path))
    pipeline = diffusers.DiffusionPipeline.from_pretrained(stable)
    pipeline.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    assert list((tmp_path / "pickled").rglob("*.bin"))
    with pytest.raises(HarmoniaError, match="cannot load the pipeline"):
        Pretrained.load(str(tmp_path / "pickled"))
