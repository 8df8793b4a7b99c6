"""The product under mteb's harness: its mock tasks end to end, and what the adapter promises beyond them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
if find_spec("mteb") is None:
    pytest.skip("mteb is not installed: pip install 'harmonia[eval]'", allow_module_level=True)

import harmonia
from benchmarks.mteb import DenseEncoder, bundled, own, png, table, wav
from harmonia.encoders.towers import tokenizer as bpe
from harmonia.encoders.towers.audio import AudioConfig, AudioTower
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.encoders.towers.saved import save_towers
from harmonia.encoders.towers.text_motion import TextConfig, TextTower
from harmonia.encoders.towers.video import VideoConfig, VideoTower
from harmonia.tasks import mteb as adapter
from harmonia.tasks.mteb import MemorySearch, evaluate
from harmonia.types import HarmoniaError
from tests.media import scene, tone

NOTES = [
    "waves at dusk", "a red kite over the hill", "two dogs in the snow", "a train leaves the station",
    "bread fresh from the oven", "children paint a wall", "an old clock tower", "rain on a tin roof",
    "the market on saturday", "a violin in the subway", "wolves cross the frozen lake", "a lamp in the fog",
]  # fmt: skip
PHOTOS = [png(np.asarray(scene(seed, (96, 72)))) for seed in range(6)]
# What a model that compares everything, or only like with like, must score in these.
ALIKE = {
    "MockVisionCentricQA", "MockAny2AnyRetrievalA2A", "MockAudioReranking",
    "MockVideoAudioTextRetrievalVAT2T", "MockRetrievalTask", "MockRetrievalDialogTask",
    "MockInstructionRetrieval", "MockRerankingTask",
}  # fmt: skip


@pytest.fixture(scope="module")
def mocks() -> list[Any]:
    return bundled()


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small untrained model whose four modalities share one space."""
    torch.manual_seed(0)
    tokenizer = bpe.train_tokenizer(NOTES, 300)
    towers = {
        "text": TextTower(TextConfig(vocabulary=300, length=16, dim=16), tokenizer),
        "image": ImageTower(ImageConfig(resolution=32, dim=16)),
        "audio": AudioTower(AudioConfig(seconds=1.0, dim=16)),
        "video": VideoTower(VideoConfig(resolution=32, frames=3, seconds=1.0, dim=16)),
    }
    folder = tmp_path_factory.mktemp("models") / "joint"
    save_towers(folder, towers)
    return str(folder)


def ask(model: Any, task: Any, k: int = 100) -> dict[str, dict[str, float]]:
    """What a model answers, as mteb asks it, best first."""
    from mteb.models import SearchEncoderWrapper

    search = model if isinstance(model, MemorySearch) else SearchEncoderWrapper(model)
    split = task.dataset["default"]["test"]
    place = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default",
             "encode_kwargs": {"batch_size": 5}, "num_proc": None}  # fmt: skip
    search.index(split["corpus"], **place)
    found = search.search(split["queries"], top_k=k, top_ranked=split["top_ranked"], **place)
    return {q: dict(sorted(docs.items(), key=lambda pair: -pair[1])) for q, docs in found.items()}


def notes_task(queries: list[str], corpus: list[str]) -> Any:
    return own("notes", "t2t", {"text": queries}, {"text": corpus}, {"q0": {"d0": 1}})


def test_descriptors_answer_the_mock_tasks_that_they_can_compare(mocks: list[Any]) -> None:
    results = evaluate(MemorySearch(), mocks)
    assert results.model_name == "harmonia/recall-descriptors" and not results.exceptions
    main = {task.metadata.name: task.metadata.main_score for task in mocks}
    scores = {r.task_name: r.scores["test"][0][main[r.task_name]] for r in results.task_results}
    assert {name for name, score in scores.items() if score > 0} == ALIKE
    # The very sounds and pictures asked with are in the corpus.
    assert scores["MockAny2AnyRetrievalA2A"] == scores["MockVisionCentricQA"] == 1.0


def test_a_joint_model_answers_every_mock_task(mocks: list[Any], joint: str) -> None:
    search = MemorySearch([joint])
    for task in mocks:
        found = ask(search, task)
        assert set(found) == set(task.dataset["default"]["test"]["queries"]["id"])
        for documents in found.values():
            assert set(documents) == {"d1", "d2"}, task.metadata.name
            assert np.isfinite(list(documents.values())).all()


@pytest.mark.parametrize(
    ("category", "queries", "corpus"),
    [
        ("t2t", {"text": ["dogs in the snow", "fog lamp", "kite"]}, {"text": NOTES}),
        ("t2i", {"text": NOTES[:4]}, {"image": PHOTOS}),
        ("i2t", {"image": PHOTOS[:3]}, {"text": NOTES}),
        ("i2i", {"image": PHOTOS[:3]}, {"image": PHOTOS}),
    ],
)
def test_retrieve_ranks_as_plain_dense_search(
    joint: str, category: str, queries: dict[str, Any], corpus: dict[str, Any]
) -> None:
    task = own("plain", category, queries, corpus, {"q0": {"d0": 1}})
    mine, dense = ask(MemorySearch([joint], "retrieve"), task), ask(DenseEncoder(joint), task)
    for query, documents in dense.items():
        assert list(mine[query]) == list(documents)
        assert mine[query] == pytest.approx(documents, abs=1e-5)


def test_recall_answers_as_a_users_memory_does(tmp_path: Path) -> None:
    manifest = tmp_path / "notes.jsonl"
    rows = [json.dumps({"text": text, "document": f"d{i}"}) for i, text in enumerate(NOTES)]
    manifest.write_text("\n".join(rows), encoding="utf-8")
    memory = harmonia.open(tmp_path / "memory")
    memory.remember(manifest)
    found = ask(MemorySearch(), notes_task(["snow dogs", "tower clock"], NOTES))
    for query, words in (("q0", "snow dogs"), ("q1", "tower clock")):
        records = memory.recall(text=words, k=100).records
        assert list(found[query]) == [r.record.metadata["document"] for r in records]
        assert list(found[query].values()) == pytest.approx([r.score for r in records])


def test_several_modalities_are_bound_in_one_record_and_one_query() -> None:
    """Photo 0 stands with two notes and note 0 with two photos: only both together name one document."""
    corpus = {"image": [PHOTOS[0], PHOTOS[0], PHOTOS[1], PHOTOS[2]],
              "text": [NOTES[1], NOTES[0], NOTES[0], NOTES[2]]}  # fmt: skip
    both = {"image": [PHOTOS[0], PHOTOS[1]], "text": [NOTES[0], NOTES[0]]}
    relevant = {"q0": {"d1": 1}, "q1": {"d2": 1}}
    task = own("bound", "it2it", both, corpus, relevant)
    assert [next(iter(documents)) for documents in ask(MemorySearch(), task).values()] == ["d1", "d2"]
    scores = evaluate(MemorySearch(), [task]).task_results[0].scores["test"][0]
    assert scores["hit_rate_at_1"] == scores["ndcg_at_10"] == 1.0
    alone = own("alone", "i2it", {"image": both["image"][:1]}, corpus, {"q0": {"d1": 1}})
    answer = ask(MemorySearch(), alone)["q0"]
    assert answer["d0"] == pytest.approx(answer["d1"], abs=1e-5)


def test_sound_is_found_by_a_part_of_it() -> None:
    sounds = [tone(2.0, hz) for hz in (220.0, 440.0, 880.0, 1760.0)]
    task = own("tones", "a2a", {"audio": [wav(sounds[2][8000:24000], 16000)]},
               {"audio": [wav(s, 16000) for s in sounds]}, {"q0": {"d2": 1}})  # fmt: skip
    assert next(iter(ask(MemorySearch(), task)["q0"])) == "d2"


def test_equal_documents_are_found_together_and_empty_ones_never() -> None:
    task = notes_task([NOTES[0], "  "], [NOTES[0], NOTES[1], " ", NOTES[0]])
    found = ask(MemorySearch(), task)
    assert found["q0"]["d0"] == found["q0"]["d3"] > found["q0"]["d1"]
    assert "d2" not in found["q0"] and found["q1"] == {}
    assert list(ask(MemorySearch(), task, k=1)["q0"]) == ["d0"]
    assert ask(MemorySearch(), notes_task(["dusk"], ["", " "])) == {"q0": {}}


@pytest.mark.parametrize("kind", ["recall", "retrieve"])
def test_reranking_answers_with_the_given_documents_only(kind: Any) -> None:
    task = notes_task([NOTES[0], NOTES[1]], [NOTES[0], NOTES[0], *NOTES[2:]])
    task.dataset["default"]["test"]["top_ranked"] = {"q0": ["d5", "d1"], "q1": ["d7"]}
    found = ask(MemorySearch(search=kind), task, k=2)
    assert list(found["q0"]) == ["d1", "d5"] and list(found["q1"]) == ["d7"]
    assert list(ask(MemorySearch(search=kind), task, k=1)["q0"]) == ["d1"]


def test_titles_are_read_as_mteb_reads_them() -> None:
    from datasets import Dataset

    task = notes_task(["frozen lake"], [])
    corpus = Dataset.from_dict({"id": ["a", "b"], "title": ["the lake", ""], "text": ["frozen", "a lake?"]})
    task.dataset["default"]["test"]["corpus"] = corpus
    titled = ask(MemorySearch(), task)["q0"]
    task.dataset["default"]["test"]["corpus"] = table("d", {"text": ["the lake frozen", "a lake?"]})
    assert list(titled.values()) == pytest.approx(list(ask(MemorySearch(), task)["q0"].values()))


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir(), temporary.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    results = evaluate(MemorySearch(), [notes_task([NOTES[0]], NOTES)])
    assert results.task_results[0].scores["test"][0]["ndcg_at_10"] == 1.0
    assert list(home.iterdir()) == list(temporary.iterdir()) == []


def test_results_are_kept_in_a_temporary_folder_or_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir(), temporary.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.delenv("MTEB_CACHE", raising=False)
    assert adapter.load_mteb().ResultCache().cache_path.parent == temporary
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mine"))
    assert adapter.load_mteb().ResultCache().cache_path == tmp_path / "mine"
    assert list(home.iterdir()) == []


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HarmoniaError, match="use recall or retrieve"):
        MemorySearch(search="guess")  # type: ignore[arg-type]
    with pytest.raises(HarmoniaError, match=r"call index\(\) before"):
        MemorySearch().search(None, task_metadata=None, hf_split="", hf_subset="", top_k=1, encode_kwargs={})
    torn = own("torn", "t2i", {"text": ["x"]}, {"image": [PHOTOS[0], PHOTOS[1][:200]]}, {"q0": {"d0": 1}})
    with pytest.raises(HarmoniaError, match="1 documents cannot be remembered"):
        ask(MemorySearch(), torn)
    with pytest.raises(HarmoniaError, match=r"holds a list.*cast it to datasets\.Image"):
        adapter.contents({"id": ["a"], "image": [[1, 2]]})
    with pytest.raises(HarmoniaError, match=r"cannot read /no/such\.png"):
        adapter.contents({"image": [{"bytes": None, "path": "/no/such.png"}]})
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(HarmoniaError, match=r"needs the package mteb: pip install 'harmonia\[eval\]'"):
        MemorySearch()
