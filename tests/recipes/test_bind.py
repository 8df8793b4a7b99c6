"""The recipes bind, video, multilingual and student on tiny data in the published tables, and the benchmark's
protocol: who meets whom in training."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import torch.nn.functional as F

from benchmarks.bind import NAMES, World, bind_run, by_modality, nearest, never_met, shuffled
from harmonia.encoders.towers.saved import load_towers
from harmonia.memory import Given
from harmonia.recipes import RECIPES, prepare
from harmonia.recipes.encoders.bind import CONCEPTS, HEARD, BindSettings, Sets, load, vary
from harmonia.recipes.encoders.multilingual import LatentSemantics, balanced
from harmonia.recipes.run import Run
from harmonia.training.record_arrays import Views
from harmonia.types import HarmoniaError
from tests.media import make_photo, make_video, scene, tone

TINY = {"steps": "2", "batch": "8", "vocabulary": "300", "device": "cpu", "size": "tiny", "dim": "16"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMONIA_CACHE", str(tmp_path_factory.mktemp("cache")))


def png(seed: int, suffix: str = "PNG") -> bytes:
    file = io.BytesIO()
    scene(seed, (32, 32)).save(file, suffix)
    return file.getvalue()


def table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def write_hub(folder: Path) -> Path:
    """Two handwritten and two spoken takes of each digit, two clips of each class, an emoji for each of
    those and four that stand for no sound."""
    for name in ("mnist", "fsdd"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    labels = np.arange(40) // 4 % 10
    np.savez(folder / "mnist" / "digits.npz", x=rng.integers(0, 255, (40, 28, 28), dtype=np.uint8), y=labels)
    waves = [(tone(0.2, 200 + 40 * (i % 10), 8000) * 20000).astype(np.int16) for i in range(20)]
    np.savez(
        folder / "fsdd" / "digits.npz", audio=np.concatenate(waves),
        offset=np.cumsum([0, *map(len, waves)]), label=np.arange(20) % 10,
        speaker=np.array(["ann"] * 20), index=np.arange(20) // 10 * 7,
    )  # fmt: skip
    clips = []
    for number, name in enumerate(HEARD):
        for fold in (1, 2):
            file = io.BytesIO()
            soundfile.write(file, tone(0.5, 300 + 60 * number), 16000, format="OGG")
            clips.append(
                {"file": f"{fold}-{number}.ogg", "label": name, "label_id": number, "fold": fold,
                 "freesound_id": str(number), "take": "A", "ogg": file.getvalue(), "license": "CC BY"}
            )  # fmt: skip
    table(folder / "esc10" / "clips.parquet", clips)
    codes = [(codes[0], words[0]) for codes, words in HEARD.values()]
    codes += [(f"1F60{i}", f"face {i}") for i in range(4)]
    emoji = [
        {"hexcode": code, "emoji": chr(int(code, 16)), "name": name, "group": "g", "subgroup": "s",
         "names": json.dumps({"en": name}), "tags": json.dumps({"en": ["thing"]}), "png": png(i)}
        for i, (code, name) in enumerate(codes)
    ]  # fmt: skip
    table(folder / "emoji" / "noto.parquet", emoji)
    return folder


def check_run(run: Run, folder: Path, modalities: set[str]) -> dict[str, float]:
    """The run trains, its figures are shares, and what it leaves can be loaded."""
    outcome = run.train(folder / "run")
    assert outcome.result.step == 2
    assert run.monitor in outcome.figures
    assert all(0 <= value <= 1 for value in outcome.figures.values())
    assert set(load_towers(outcome.model).towers) == modalities
    return outcome.figures


# --- bind


def test_bind_trains_and_no_record_has_a_sound_and_a_word(tmp_path: Path) -> None:
    run = prepare("bind", write_hub(tmp_path / "data"), TINY | {"seconds": "1.0", "mels": "32"})
    figures = check_run(run, tmp_path, {"image", "text", "audio"})
    assert {"digits", "sounds", "digits recalled", "sounds recalled"} < set(figures)
    assert never_met(run.dataset, "audio", "text")
    assert not never_met(run.dataset, "audio", "image")
    assert not never_met(run.dataset, "text", "image")
    assert ("text", "audio") not in run.model.pairs
    assert ("audio", "text") not in run.model.pairs
    for step in range(20):
        batch = run.dataset.batch(torch.arange(8), torch.Generator().manual_seed(step))
        assert set(batch) in ({"image", "text"}, {"image", "audio"})


def test_held_out_sounds_are_not_trained_on(tmp_path: Path) -> None:
    settings = BindSettings(seconds=1.0, mels=32, vocabulary=300, dim=16)
    material = load(write_hub(tmp_path), settings)
    assert len(material.heard["audio"].record) == CONCEPTS
    for name in ("digits", "sounds"):
        assert sorted(material.held[name].audio.record.tolist()) == list(range(10))
        assert sorted(set(material.held[name].text.record.tolist())) == list(range(10))
    pictures = {name: part["image"] for name, part in (("n", material.named), ("h", material.heard))}
    named, heard = (
        {bytes(p.numpy()) for p in view.inputs[view.record < 10]} for view in (pictures["n"], pictures["h"])
    )
    assert not named & heard, "a digit that is named is another picture than one that is heard"


@pytest.mark.parametrize(
    ("kind", "met"), [("cmhn", False), ("clip", False), ("direct", True), ("shuffled", False)]
)
def test_only_the_direct_control_has_sounds_with_words(tmp_path: Path, kind: str, met: bool) -> None:
    settings = BindSettings(seconds=1.0, mels=32, vocabulary=300, dim=16, steps=2, batch=8, device="cpu")
    material = load(write_hub(tmp_path), settings)
    run = bind_run(kind, material, settings)
    assert never_met(run.dataset, "audio", "text") is not met
    assert run.model.config.objective == ("clip" if kind == "clip" else "cmhn")
    losses = run.model.losses(run.dataset.batch(torch.arange(8), torch.Generator().manual_seed(0)))
    assert losses["alignment"].isfinite()


def test_shuffling_keeps_every_sound_and_breaks_what_it_goes_with() -> None:
    record = torch.arange(10).repeat_interleave(20)
    heard = {
        "audio": Views(torch.arange(200.0)[:, None], record),
        "image": Views(torch.zeros(10, 1), torch.arange(10)),
    }
    audio = shuffled(heard, 0)["audio"]
    assert torch.equal(audio.record.bincount(), record.bincount())
    assert torch.equal(audio.inputs, heard["audio"].inputs)
    assert 0.02 < float((audio.record == record).float().mean()) < 0.25


def test_a_batch_of_sets_is_of_one_of_them_and_of_its_generator_only() -> None:
    def part(first: float, count: int) -> Views:
        return Views(torch.arange(count)[:, None] + first, torch.arange(count))

    sets = Sets(
        [{"a": part(0, 6), "b": part(0, 6)}, {"a": part(100, 4), "c": part(100, 4)}],
        per_record={"a": 1, "b": 1, "c": 1},
    )
    assert len(sets) == 10
    seen = set()
    for seed in range(12):
        batch = sets.batch(torch.arange(5), torch.Generator().manual_seed(seed))
        again = sets.batch(torch.arange(5), torch.Generator().manual_seed(seed))
        seen.add(tuple(sorted(batch)))
        (other,) = set(batch) - {"a"}
        assert torch.equal(batch["a"].inputs, batch[other].inputs)
        assert torch.equal(batch["a"].inputs, again["a"].inputs)
        assert len(batch["a"].record) == (5 if other == "b" else 4)
    assert seen == {("a", "b"), ("a", "c")}


def test_turning_a_sound_in_time_keeps_its_bands() -> None:
    mels = torch.arange(8.0)[:, None].expand(8, 50)[None].repeat(3, 1, 1)
    out = vary(mels, torch.Generator().manual_seed(0))
    kept = out == mels
    assert out.shape == mels.shape
    assert bool(kept.any()) and bool((kept | (out == 3.5)).all()), "what changes is masked with the mean"


def test_pictures_without_any_that_stand_for_a_sound_are_refused(tmp_path: Path) -> None:
    folder = write_hub(tmp_path)
    rows = pq.read_table(folder / "emoji" / "noto.parquet").to_pylist()
    table(folder / "emoji" / "noto.parquet", [r for r in rows if r["name"].startswith("face")])
    with pytest.raises(HarmoniaError, match="none of these emoji belongs to a sound"):
        prepare("bind", folder, TINY)


# --- twelve modalities


def test_a_memory_by_modality_holds_what_is_there_and_the_baseline_skips_what_is_not() -> None:
    world = World(0)
    latents = world.latents(30)
    codes = F.normalize(torch.randn(30, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    present = torch.ones(30, 2, dtype=torch.bool)
    present[::3, 0], present[1::3, 1] = False, False
    stored = {
        n: torch.where(there[:, None], codes, 0.0) for n, there in zip(NAMES[:2], present.T, strict=True)
    }
    memory = by_modality(stored, present)
    cue = {NAMES[1]: codes}
    has = present[:, 1]
    found = memory.recall([Given(NAMES[1], codes)], k=1).slots[:, 0]
    assert torch.equal(found[has], torch.arange(30)[has])
    assert torch.equal(nearest(cue, stored), torch.arange(30))
    assert world.view(NAMES[0], latents).shape == (30, 24)


# --- video


def test_video_trains_on_talking_faces(tmp_path: Path) -> None:
    words = ["bin", "blue", "at", "f", "two", "now"]
    rows = []
    for number in range(20):
        path = make_video(
            tmp_path / f"{number}.mp4", seconds=0.5, size=(32, 32), seed=number, hz=200 + 30 * number
        )
        said = [*words[:3], "abcdefghijklmnopqrst"[number], *words[4:]]
        rows.append(
            {"clip": f"clip{number}", "text": " ".join(said), "words": said,
             "start": [0.1 * i for i in range(6)], "end": [0.1 * i + 0.1 for i in range(6)],
             "mp4": path.read_bytes()}
        )  # fmt: skip
    table(tmp_path / "grid" / "clips.parquet", rows)
    run = prepare("video", tmp_path / "grid", TINY | {"frames": "2", "seconds": "0.5", "resolution": "32"})
    assert len(run.dataset) == 18
    assert {name: len(view.record) for name, view in run.dataset.parts.items()} == {
        "video": 18, "audio": 18, "text": 18
    }  # fmt: skip
    figures = check_run(run, tmp_path, {"video", "audio", "text"})
    assert {"video->text/recall@1", "text->video/recall@1", "audio->text/recall@1"} < set(figures)
    inputs = run.dataset.parts["video"].inputs
    batch = run.dataset.batch(torch.arange(18), torch.Generator().manual_seed(0))
    pixels = 2 * 3 * 32 * 32
    assert torch.equal(batch["video"].inputs[:, :pixels], inputs[:, :pixels]), "only the sound is varied"
    assert not torch.equal(batch["video"].inputs, inputs)


# --- languages


def write_captions(folder: Path, photos: int = 24) -> Path:
    """Photos with one English, one German and two Chinese captions each, the last three held out."""
    captions, others = [], []
    things = ["dog", "cat", "boy", "girl", "man", "woman", "ball", "tree"]
    for number in range(photos):
        split = "train" if number < photos - 3 else "dev"
        name, text = f"{number}.jpg", f"a {things[number % 8]} by a {things[number // 3 % 8]}"
        photo = make_photo(folder / "photo.jpg", seed=number, size=(32, 32)).read_bytes()
        captions.append({"image_id": name, "split": split, "jpeg": photo, "captions": [text]})
        said = [
            ("en", "multi30k_task1_source", text),
            ("de", "multi30k_task1_human_translation", f"ein {text}"),
        ]
        said += [
            ("zh", "human_written", f"一只{number % 8}"),
            ("zh", "human_written", f"有{number // 3 % 8}"),
        ]
        others += [
            {"image_id": name, "lang": lang, "kind": kind, "n": 0, "caption": caption, "split": split}
            for lang, kind, caption in said
        ]
    (folder / "photo.jpg").unlink()
    table(folder / "images_captions.parquet", captions)
    table(folder / "captions_multilingual.parquet", others)
    return folder


def test_multilingual_trains_and_is_scored_by_language(tmp_path: Path) -> None:
    (tmp_path / "flickr8k").mkdir()
    home = write_captions(tmp_path / "flickr8k")
    run = prepare("multilingual", home, TINY | {"languages": "en,de,zh", "resolution": "32"})
    assert len(run.dataset) == 21
    # one English and one German caption, each twice as often for the two Chinese ones
    assert len(run.dataset.parts["text"].record) == 21 * 6
    figures = check_run(run, tmp_path, {"image", "text"})
    assert {"de->image/recall@10", "image->zh/recall@1", "zh->en/recall@1", "recall@10"} < set(figures)


def test_a_student_learns_the_teachers_space_from_translations(tmp_path: Path) -> None:
    (tmp_path / "flickr8k").mkdir()
    home = write_captions(tmp_path / "flickr8k")
    changes = TINY | {"languages": "en,de", "dim": "4"}
    figures = check_run(prepare("student", home, changes), tmp_path, {"text"})
    assert set(figures) == {"en->en/recall@1", "de->en/recall@1", "recall@1"}
    long = prepare("student", home, changes | {"steps": "60", "batch": "16", "lr": "0.01"})
    before = {k: v.clone() for k, v in long.dataset.parts.items() for v in [v.inputs]}
    first = long.model.losses(long.dataset.batch(torch.arange(16), torch.Generator()))["alignment"].item()
    long.train(tmp_path / "long")
    after = long.model.losses(long.dataset.batch(torch.arange(16), torch.Generator()))["alignment"].item()
    assert after < first / 2
    assert torch.equal(before["teacher"], long.dataset.parts["teacher"].inputs), "the teacher stays as it is"


def test_latent_semantics_puts_sentences_of_common_words_together() -> None:
    texts = ["a dog runs fast", "a dog runs home", "red cars drive fast", "red cars drive home"] * 3
    space = LatentSemantics(texts, 3)
    dog, hound, car, none = space.codes(["dog runs", "the dog runs", "red cars", "xyz"])
    assert float(dog @ hound) > 0.9 > float(dog @ car)
    assert not none.any()
    with pytest.raises(HarmoniaError, match="too few for 100 dimensions"):
        LatentSemantics(texts, 100)


def test_rare_languages_are_repeated() -> None:
    view = Views(torch.arange(5)[:, None], torch.tensor([0, 0, 0, 0, 1]))
    out = balanced(view, ["zh", "zh", "zh", "zh", "fr"])
    assert out.inputs[:, 0].tolist() == [0, 1, 2, 3, 4, 4, 4, 4]
    assert out.record.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_the_recipes_are_registered_and_their_settings_can_be_changed(tmp_path: Path) -> None:
    assert {"bind", "video", "multilingual", "student"} < set(RECIPES)
    with pytest.raises(HarmoniaError, match="has no setting 'colour'"):
        prepare("video", tmp_path, {"colour": "red"})
    with pytest.raises(HarmoniaError, match="is not here"):
        prepare("bind", tmp_path / "nothing", {})
    assert replace(BindSettings(), seed=1).seed == 1
