"""imagine and what belongs to it: a real memory, generators trained for seconds, the command line."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from harmonia.cli import main
from harmonia.collection.collection import Memory
from harmonia.generators import Batch, Condition, ConditionConfig, Facts, load_generator, save_generator
from harmonia.generators.autoencoders.autoencoder import VAE, VAEConfig
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig
from harmonia.generators.diffusion.unclip import Unclip, UnclipConfig
from harmonia.generators.text_image_matching import MatchingConfig
from harmonia.metrics import bytes_of
from harmonia.modalities import image as pictures
from harmonia.pretrained.loading import load_encoders
from harmonia.recipes.generators.pictures import DIGIT_WORDS
from harmonia.tasks.image_io import read_known, signal_of, tensor_of
from harmonia.tasks.imagine import GenerationRequest, Imagination, label_of, load, slerp
from harmonia.tasks.sampling import Sampling, Start, draw
from harmonia.types import HarmoniaError, Signal

THINGS = {"apple": "#d02020", "leaf": "#20a030", "sea": "#2040d0", "sun": "#f0c010"}
SIDE = 16
Cli = Callable[..., tuple[int, str, str]]


def emoji(name: str, side: int = 64) -> Image.Image:
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    shape = draw.ellipse if name in ("apple", "sun") else draw.rectangle
    shape((side // 5, side // 5, side - side // 5, side - side // 5), fill=THINGS[name])
    return image


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    folder = tmp_path_factory.mktemp("media")
    for name in THINGS:
        emoji(name).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"the {name}")
    found = Memory(folder / "memory.harmonia")
    assert found.remember(folder).remembered == len(THINGS)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow that was told the code of each picture for some steps."""
    torch.manual_seed(0)
    encoder = next(e for e in load_encoders(("mini",)) if e.modality == "image")
    signals = [Signal("image", np.asarray(emoji(name))) for name in THINGS]
    codes = torch.from_numpy(encoder.encode(signals))
    x = torch.stack([tensor_of(signal, (3, SIDE, SIDE)) for signal in signals])
    told = ConditionConfig(code=encoder.dim)
    model = Diffusion(
        DiffusionConfig(shape=(3, SIDE, SIDE), channels=(1, 1), condition=told, sampler="euler", steps=6)
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    rows = torch.arange(16) % len(THINGS)
    for _ in range(60):
        loss = model.losses(Batch(x[rows], Condition(16, code=codes[rows])))["model"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("generators") / "flow"
    save_generator(folder, model, facts=Facts("little flow", encoder.space))
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A linear VAE of the pictures."""
    torch.manual_seed(0)
    x = torch.stack(
        [tensor_of(Signal("image", np.asarray(emoji(name))), (3, SIDE, SIDE)) for name in THINGS]
    ).repeat(4, 1, 1, 1)
    model = VAE(VAEConfig(shape=(3, SIDE, SIDE), dim=4, network="linear", sigma=0.3))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(300):
        loss = model.losses(Batch(x, Condition(len(x))))["model"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("generators") / "vae"
    save_generator(folder, model, facts=Facts("little VAE"))
    return folder


@pytest.fixture
def harmonia(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """The command line in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harmonia", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    return run


def pixels(file: Path) -> Tensor:
    return torch.from_numpy(pictures.read(file).array.astype(np.float32))


def distance(file: Path, name: str) -> float:
    real = np.asarray(emoji(name).resize((SIDE, SIDE)), dtype=np.float32)
    return float((pixels(file) - torch.from_numpy(real)).abs().mean())


def test_a_half_picture_is_imagined_whole_from_the_memory(
    harmonia: Cli, collection: Memory, trained: Path, tmp_path: Path
) -> None:
    half = emoji("apple")
    half.paste("black", (0, 32, 64, 64))
    half.save(tmp_path / "half.png")
    base = (
        "imagine",
        "apple",
        "--image",
        "half.png",
        "-m",
        collection.root,
        "--generator",
        trained,
        "-n",
        "2",
    )
    code, out, err = harmonia(*base)
    assert code == 0 and "from the memory: apple" in err
    files = [tmp_path / line for line in out.splitlines()]
    assert [file.name for file in files] == ["apple-half-png-0-1.png", "apple-half-png-0-2.png"]
    assert (tmp_path / "imagined" / "apple-half-png-0-sheet.png").is_file()
    right = [distance(file, "apple") for file in files]
    other = [distance(file, "sea") for file in files]
    assert max(right) < min(other)


def test_words_find_a_memory_or_speak_for_themselves(collection: Memory, trained: Path) -> None:
    imagination = Imagination(load(trained), collection)
    settled = imagination.request({"text": "the sea"})
    assert settled.found is not None and settled.found.records[0].record.metadata["name"] == "sea"
    stored = torch.from_numpy(imagination._code_of(settled.found.records[0].record.id))
    assert settled.condition.code is not None
    assert float(settled.condition.code[0] @ stored) > 0.99
    raw = imagination.request({"text": "the sea"}, from_memory=False)
    assert raw.found is None and raw.condition.code is not None
    assert float(raw.condition.code[0] @ stored) < 0.9
    unknown = imagination.request({"text": "xylophone quartz"})
    assert unknown.found is None and "nothing that is remembered matches" in unknown.how
    with pytest.raises(HarmoniaError, match="nothing that is remembered matches"):
        imagination.request({"text": "xylophone quartz"}, from_memory=True)
    with pytest.raises(HarmoniaError, match="no memory here"):
        Imagination(load(trained)).request({"text": "the sea"}, from_memory=True)


def test_the_same_seed_gives_the_same_picture(harmonia: Cli, trained: Path, tmp_path: Path) -> None:
    base = ("imagine", "a", "sea", "--generator", trained, "-n", "5", "--steps", "3")
    assert [harmonia(*base, "--seed", seed, "--out", f"at{i}")[0] for i, seed in enumerate("772")] == [0] * 3
    same, again, other = (
        [pixels(f) for f in sorted((tmp_path / f"at{i}").glob("*[1-5].png"))] for i in range(3)
    )
    assert len(same) == 5
    assert all(torch.equal(a, b) for a, b in zip(same, again, strict=True))
    assert not torch.equal(same[0], other[0]) and not torch.equal(same[0], same[1])


def test_what_is_known_stays(harmonia: Cli, collection: Memory, trained: Path, tmp_path: Path) -> None:
    whole = emoji("leaf").convert("RGBA")
    whole.paste((0, 0, 0, 0), (32, 0, 64, 64))
    whole.save(tmp_path / "cut.png")
    code, out, _ = harmonia(
        "imagine", "--complete", "cut.png", "-m", collection.root, "--generator", trained, "-n", "2",
        "--preview", "live.png",
    )  # fmt: skip
    assert code == 0 and (tmp_path / "live.png").is_file()
    known = read_known(tmp_path / "cut.png", (3, SIDE, SIDE))
    assert known.mask[:, : SIDE // 2].all() and not known.mask[:, SIDE // 2 :].any()
    for line in out.splitlines():
        drawn = tensor_of(pictures.read(tmp_path / line), (3, SIDE, SIDE))
        assert torch.equal(drawn[:, known.mask], known.x[:, known.mask])
        mark = pictures.mark_of(tmp_path / line)
        assert mark is not None and mark.composite
    # by a mask the other half is drawn: white says where
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    mask.save(tmp_path / "mask.png")
    given = read_known(tmp_path / "cut.png", (3, SIDE, SIDE), tmp_path / "mask.png")
    assert torch.equal(given.mask, ~known.mask)


def test_variations_are_drawn_from_the_code_of_a_picture(
    harmonia: Cli, collection: Memory, trained: Path, tmp_path: Path
) -> None:
    emoji("leaf").save(tmp_path / "it.png")
    code, out, err = harmonia(
        "imagine", "--vary", "it.png", "-m", collection.root, "--generator", trained, "-n", "3"
    )
    files = [tmp_path / line for line in out.splitlines()]
    assert code == 0 and "from the cue itself" in err and len(files) == 3
    assert max(distance(file, "leaf") for file in files) < min(distance(file, "sea") for file in files)
    assert not torch.equal(pixels(files[0]), pixels(files[1]))


def test_what_the_encoder_sees_guides_what_is_drawn(harmonia: Cli, collection: Memory, trained: Path) -> None:
    imagination = Imagination(load(trained, "cpu"), collection, "cpu")
    leaf, eye = Signal("image", np.asarray(emoji("leaf"))), imagination.eye()
    request = imagination.request({"image": [leaf]}, False)
    assert request.condition.code is not None
    seen = []
    for sight in (0.0, 30.0):
        sampling = Sampling(4, 5, 1.0, 0, sight, eye)
        x = torch.cat(list(draw(imagination.saved, request.condition, sampling)))
        codes = codes_of(imagination, x)
        with torch.no_grad():  # of pixels that are no whole numbers, made larger in another way
            assert float(torch.cosine_similarity(eye(x), codes).min()) > 0.98
        seen.append(float((codes @ request.condition.code.T).mean()))
    assert seen[1] > seen[0] + 0.02
    options = ("leaf", "--from-cue", "-n", "1", "--steps", "2", "--generator", trained)
    plain, guided = (harmonia("imagine", *options, *more) for more in ((), ("--sight", "30", "--out", "b")))
    assert plain[0] == guided[0] == 0
    assert not torch.equal(*(pixels(Path(run[1].splitlines()[0])) for run in (plain, guided)))


def codes_of(imagination: Imagination, x: Tensor) -> Tensor:
    """Codes of pictures as the encoder of the generator's space gives them for files."""
    encoder = next(e for e in imagination._model.encoders if e.modality == "image")
    arrays = bytes_of(x).permute(0, 2, 3, 1).contiguous().numpy()
    return torch.from_numpy(encoder.encode([Signal("image", one) for one in arrays]))


def test_a_generator_that_reads_pictures_itself_varies_them(
    harmonia: Cli, collection: Memory, tmp_path: Path
) -> None:
    shape, told = (3, 8, 8), ConditionConfig(text=16)
    small = DiffusionConfig(channels=(1,), steps=2)
    pair = MatchingConfig(shape=shape, text=16, width=8)
    torch.manual_seed(0)
    model = Unclip(UnclipConfig(shape=shape, condition=told, pair=pair, prior=small, decoder=small)).eval()
    for parameter in model.parameters():  # what begins at zero would draw the same of all
        torch.nn.init.normal_(parameter, std=0.2)
    save_generator(tmp_path / "m", model)
    emoji("leaf").save(tmp_path / "it.png")
    base = ("imagine", "--generator", tmp_path / "m", "-n", "2", "--seed", "3")
    code, out, err = harmonia(*base, "--vary", "it.png", "-m", collection.root)
    assert code == 0, err
    x = tensor_of(pictures.read(tmp_path / "it.png"), shape).expand(2, -1, -1, -1)
    right = model.variations(x, generator=torch.Generator().manual_seed(3))
    for line, own in zip(out.splitlines(), right, strict=True):
        assert torch.equal(pixels(tmp_path / line), torch.from_numpy(signal_of(own).array).float())
    # a picture as the only cue, and no memory: the same pictures
    code, again, err = harmonia(*base, "--image", "it.png", "--out", "again")
    assert code == 0 and "from the cue itself" in err
    for line, other in zip(out.splitlines(), again.splitlines(), strict=True):
        assert torch.equal(pixels(tmp_path / line), pixels(tmp_path / other))
    # words are what it is told where there are some
    request = Imagination(load(tmp_path / "m")).request({"text": "leaf", "image": (tmp_path / "it.png",)})
    assert request.condition.parts().keys() == {"text"}
    with pytest.raises(HarmoniaError, match="needs text: give words"):
        Imagination(load(tmp_path / "m")).request({"image": (tmp_path / "it.png", tmp_path / "it.png")})


def test_a_sketch_is_followed_as_far_as_asked(trained: Path) -> None:
    saved = load(trained)
    sketch = tensor_of(Signal("image", np.asarray(emoji("sun"))), (3, SIDE, SIDE))
    condition = Condition(1, code=torch.zeros(1, saved.generator.config.condition.code))
    far = [
        float(
            (next(draw(saved, condition, Sampling(2, 4, 1.0, 3), Start(sketch=sketch, strength=s))) - sketch)
            .abs()
            .mean()
        )
        for s in (0.05, 0.5, 1.0)
    ]
    assert far[0] < 0.1 and far[0] < far[1] < far[2]


def test_from_one_memory_to_another(harmonia: Cli, collection: Memory, trained: Path, tmp_path: Path) -> None:
    ids = {r.metadata["name"]: r.id for r in collection.store.records()}
    code, out, _ = harmonia(
        "imagine", "--between", ids["apple"][:8], ids["sea"], "-n", "5", "-m", collection.root,
        "--generator", trained,
    )  # fmt: skip
    files = [tmp_path / line for line in out.splitlines()]
    assert code == 0 and len(files) == 5
    assert distance(files[0], "apple") < distance(files[0], "sea")
    assert distance(files[-1], "sea") < distance(files[-1], "apple")
    a, b = torch.nn.functional.normalize(torch.randn(2, 8, dtype=torch.float64), dim=1)
    steps = torch.stack([slerp(a, b, t / 4) for t in range(5)])
    angles = (steps[:-1] * steps[1:]).sum(1).arccos()
    assert torch.allclose(steps.norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert torch.allclose(angles, angles[:1].expand(4)) and torch.allclose(steps[-1], b)


def test_words_name_a_class_in_any_language(tmp_path: Path) -> None:
    labels = (("zero", "null", "零"), ("one", "eins", "一"), ("two", "zwei", "二"))
    assert [label_of(words, labels) for words in ("a Two", "EINS", "零", "twofold")] == [2, 1, 0, None]
    with pytest.raises(HarmoniaError, match="zero and two"):
        label_of("null oder zwei", labels)
    model = Diffusion(DiffusionConfig(shape=(1, 8, 8), channels=(1,), condition=ConditionConfig(classes=3)))
    save_generator(tmp_path / "digits", model, facts=Facts("digits", labels=labels))
    imagination = Imagination(load(tmp_path / "digits"))
    assert imagination.request({"text": "eine eins"}).condition.parts().keys() == {"label"}
    with pytest.raises(HarmoniaError, match="no class 'nine': its classes are zero, one, two"):
        imagination.request({"text": "nine"})


DIGITS = tuple(zip(*(words.split() for words in DIGIT_WORDS.values()), strict=True))


@pytest.mark.parametrize(
    ("words", "digit"),
    [
        ("dessine un sept", 7), ("un ocho", 8), ("un huit, une fois", 8), ("dessine un un", 1), ("un", 1),
        ("uno", 1), ("eine eins", 1), ("画一个三", 3), ("数字三", 3), ("画一个一", 1), ("写〇", None),
        ("画零", 0), ("MNIST三", 3), ("画seven", 7), ("sevenfold", None), ("ungefähr", None),
    ],
)  # fmt: skip
def test_articles_give_way_and_chinese_needs_no_spaces(words: str, digit: int | None) -> None:
    assert label_of(words, DIGITS) == digit


@pytest.mark.parametrize("words", ["two or seven", "三和四", "un deux ou trois", "uno o dos"])
def test_one_picture_is_of_one_class(words: str) -> None:
    with pytest.raises(HarmoniaError, match="name one class"):
        label_of(words, DIGITS)


def test_names_of_several_signs_are_found_in_a_row_of_them() -> None:
    labels = (("apple", "苹果"), ("ice cream", "アイス"))
    words = ("画苹果", "アイスを描いて", "ICE  cream", "果苹")
    assert [label_of(one, labels) for one in words] == [0, 1, 1, None]


def test_a_memory_that_names_several_classes_says_as_much_as_none(tmp_path: Path) -> None:
    for name, said in {"apple": "one or two things", "sea": "two seas"}.items():
        emoji(name).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(said)
    collection = Memory(tmp_path / "memory.harmonia")
    assert collection.remember(tmp_path).remembered == 2
    found = collection.recall(image=tmp_path / "apple.png")
    model = Diffusion(DiffusionConfig(shape=(3, 8, 8), channels=(1,), condition=ConditionConfig(classes=2)))
    save_generator(tmp_path / "m", model, facts=Facts("two", labels=(("one",), ("two",))))
    imagination = Imagination(load(tmp_path / "m"), collection)
    request = imagination.request({"text": "two"}, found=found)
    assert request.condition.label is not None and request.condition.label.tolist() == [1]
    assert "from the cue itself" in request.how
    picture = {"image": (tmp_path / "apple.png",)}
    for cues, from_memory in ((picture, None), ({"text": "two"}, True)):
        with pytest.raises(HarmoniaError, match="no class 'one or two things'"):
            imagination.request(cues, from_memory, found)
    with pytest.raises(HarmoniaError, match="name one and two"):
        imagination.request({"text": "one or two"}, found=found)
    # where the memory's words do name one, they are what is drawn
    settled = imagination.request({"text": "one"}, found=collection.recall(image=tmp_path / "sea.png"))
    assert settled.condition.label is not None and settled.condition.label.tolist() == [1]


def test_a_memory_whose_words_name_no_class_leaves_the_cue_its_own(
    collection: Memory, tmp_path: Path
) -> None:
    model = Diffusion(DiffusionConfig(shape=(3, 8, 8), channels=(1,), condition=ConditionConfig(classes=2)))
    save_generator(tmp_path / "m", model, facts=Facts("two", labels=(("one",), ("two",))))
    imagination = Imagination(load(tmp_path / "m"), collection)
    emoji("sun").save(tmp_path / "it.png")
    cues = {"text": "two", "image": (tmp_path / "it.png",)}
    assert imagination.collection is not None
    found = imagination.collection.recall("the sun", (tmp_path / "it.png",))
    request = imagination.request(cues, found=found)
    assert request.condition.label is not None and request.condition.label.tolist() == [1]
    assert "from the cue itself" in request.how
    with pytest.raises(HarmoniaError, match="no class 'the sun'"):
        imagination.request(cues, from_memory=True, found=found)


def test_a_generator_that_is_told_nothing_completes_and_follows(harmonia: Cli, tmp_path: Path) -> None:
    model = Diffusion(DiffusionConfig(shape=(3, 8, 8), channels=(1,), steps=2))
    save_generator(tmp_path / "m", model)
    half = emoji("sun").convert("RGBA")
    half.paste((0, 0, 0, 0), (32, 0, 64, 64))
    half.save(tmp_path / "half.png")
    for way in ("--complete", "--like"):
        code, out, err = harmonia("imagine", way, "half.png", "--generator", tmp_path / "m", "-n", "1")
        assert code == 0 and len(out.splitlines()) == 1, err


def test_the_guidance_is_the_generators_own_unless_told(tmp_path: Path) -> None:
    told = ConditionConfig(classes=2, drop=0.1)
    model = Diffusion(DiffusionConfig(shape=(1, 8, 8), channels=(1,), condition=told, steps=3, guidance=3.0))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    save_generator(tmp_path / "m", model)
    saved, condition = load(tmp_path / "m"), Condition(1, label=torch.tensor([1]))
    own, same, other = (
        next(draw(saved, condition, Sampling(1, guidance=guidance))) for guidance in (None, 3.0, 1.0)
    )
    assert torch.equal(own, same) and not torch.equal(own, other)


def test_long_cues_keep_their_seeds_apart(harmonia: Cli, trained: Path, tmp_path: Path) -> None:
    words = "a picture of an apple that has been lying in the sun for far too long to eat"
    seen = [
        harmonia("imagine", words, "--generator", trained, "-n", "1", "--seed", str(s))[1] for s in (0, 1)
    ]
    assert seen[0] != seen[1] and len(list((tmp_path / "imagined").glob("*-sheet.png"))) == 2


def test_a_generator_that_is_told_words_gets_those_of_the_memory(collection: Memory, tmp_path: Path) -> None:
    model = Diffusion(DiffusionConfig(shape=(3, 8, 8), channels=(1,), condition=ConditionConfig(text=16)))
    save_generator(tmp_path / "words", model)
    emoji("sun").save(tmp_path / "it.png")
    cues = {"text": "sun", "image": (tmp_path / "it.png",)}
    request = Imagination(load(tmp_path / "words"), collection).request(cues)
    assert request.condition.text is not None
    said = bytes(int(b) - 1 for b in request.condition.text[0] if b).decode()
    assert said == "the sun"
    with pytest.raises(HarmoniaError, match="needs text: give words"):
        Imagination(load(tmp_path / "words")).request({"image": (tmp_path / "it.png",)})


def test_bad_input_is_one_line(
    harmonia: Cli, collection: Memory, trained: Path, vae: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(emoji_bytes(tmp_path)[:60])
    (tmp_path / "file").write_text("not a folder")
    flow = ("imagine", "sun", "--generator", trained)
    cases = {
        ("imagine", "sun", "--generator", tmp_path / "nowhere"): "there is no generator",
        ("imagine", "sun", "--generator", tmp_path): "neither config.json",
        ("imagine", "--generator", trained): "nothing to imagine",
        (*flow, "-m", tmp_path / "no-memory"): "no memory in",
        (*flow, "--from-memory"): "no memory here",
        ("imagine", "--vary", "broken.png", "--generator", trained): "broken.png",
        (*flow, "--complete", "broken.png"): "broken.png",
        (*flow, "--to", "audio"): "no generator of audio",
        (*flow, "--out", tmp_path / "file"): "is a file",
        (*flow, "--between", "a", "b"): "takes no other cues",
        (*flow, "-n", "0"): "-n",
        (*flow, "--steps", "0"): "--steps",
        ("imagine", "sun", "--generator", vae): "is unconditional",
        (
            "imagine",
            "--generator",
            vae,
            "--like",
            "plain.png",
            "-n",
            "1",
        ): "cannot inpaint or start from an image",
        ("reconstruct", "broken.png", "--generator", vae): "broken.png",
        ("reconstruct", "plain.png", "--generator", trained): "not an autoencoder",
    }
    for arguments, said in cases.items():
        code, out, err = harmonia(*arguments)
        assert code != 0 and out == "" and said in err, (arguments, err)
        assert len([line for line in err.splitlines() if not line.startswith(("Usage", "Try"))]) <= 2
        assert "Traceback" not in err
    assert not list(tmp_path.glob("imagined/*")) and not list(tmp_path.glob("reconstructed/*"))


def emoji_bytes(folder: Path) -> bytes:
    emoji("sun").save(folder / "plain.png")
    return (folder / "plain.png").read_bytes()


def test_a_full_disk_and_a_stop_leave_whole_files(
    harmonia: Cli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Image.Image.save

    def full(self: Image.Image, file: object, *rest: object, **more: object) -> None:
        if len(list(tmp_path.glob("imagined/*.png"))) >= 3:
            Path(str(file)).write_bytes(b"half of a")
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, file, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(Image.Image, "save", full)
    base = ("imagine", "sun", "--generator", trained, "-n", "6", "--steps", "2")
    code, _, err = harmonia(*base)
    assert code == 1 and "No space left on device" in err and "Traceback" not in err
    left = list((tmp_path / "imagined").iterdir())
    assert len(left) == 3 and all(pictures.mark_of(file) for file in left)
    monkeypatch.setattr(Image.Image, "save", plain)
    shutil.rmtree(tmp_path / "imagined")
    told = 0

    def stop(self: Diffusion, condition: Condition, **options: object) -> Tensor:
        nonlocal told
        told += 1
        if told > 1:
            raise KeyboardInterrupt
        return torch.zeros(len(condition), 3, SIDE, SIDE)

    monkeypatch.setattr(Diffusion, "sample", stop)
    assert harmonia(*base)[0] == 130
    assert sorted(f.name for f in (tmp_path / "imagined").iterdir()) == [
        "sun-0-1.png", "sun-0-2.png", "sun-0-3.png", "sun-0-4.png", "sun-0-sheet.png",
    ]  # fmt: skip


def test_reconstruct_denoise_and_anomaly(
    harmonia: Cli, collection: Memory, vae: Path, tmp_path: Path
) -> None:
    emoji("leaf").save(tmp_path / "leaf.png")
    noise = np.random.default_rng(0).normal(0, 100, (SIDE, SIDE, 3))
    noisy = np.clip(np.asarray(emoji("leaf", SIDE)) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    strange = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(strange).save(tmp_path / "strange.png")
    code, out, _ = harmonia("reconstruct", "leaf.png", "--generator", vae)
    assert code == 0 and out.strip() == str(Path("reconstructed") / "leaf-1.png")
    assert distance(tmp_path / out.strip(), "leaf") < 24
    mark = pictures.mark_of(tmp_path / out.strip())
    assert mark is not None and (mark.generator, mark.cue, mark.seed) == ("little VAE", "leaf.png", None)
    _, out, _ = harmonia("denoise", "noisy.png", "--generator", vae)
    before = tensor_of(pictures.read(tmp_path / "noisy.png"), (3, SIDE, SIDE))
    real = tensor_of(Signal("image", np.asarray(emoji("leaf"))), (3, SIDE, SIDE))
    after = tensor_of(pictures.read(tmp_path / out.strip()), (3, SIDE, SIDE))
    assert (after - real).abs().mean() < (before - real).abs().mean()
    code, out, _ = harmonia(
        "anomaly", "leaf.png", "strange.png", "--generator", vae, "-m", collection.root, "--json"
    )
    found = json.loads(out)["files"]
    assert code == 0 and [one["path"] for one in found] == ["strange.png", "leaf.png"]
    assert found[0]["rank"] == 1.0 and found[1]["rank"] < 1.0 and found[0]["score"] > found[1]["score"]


def test_the_condition_is_one_row_or_a_series(trained: Path) -> None:
    saved = load_generator(trained)
    request = GenerationRequest(
        Condition(3, code=torch.zeros(3, saved.generator.config.condition.code)), "", ""
    )
    drawn = torch.cat(list(draw(saved, request.condition, Sampling(3, 2, 1.0, 0))))
    assert torch.equal(drawn[0], drawn[1]), "a series differs by its conditions only"
    with pytest.raises(HarmoniaError, match="3 conditions for 2 images"):
        next(draw(saved, request.condition, Sampling(2)))
    with pytest.raises(HarmoniaError, match="at least 1"):
        Sampling(0)
    assert signal_of(torch.ones(1, 2, 2)).array.shape == (2, 2, 3)
