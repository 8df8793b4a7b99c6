"""The towers: shapes, masks, independence of the batch, budgets, learning, and what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import scipy.signal
import torch

from harmonia.encoders.towers import tokenizer as bpe
from harmonia.encoders.towers.audio import AudioConfig, AudioTower, log_mel, mel_filterbank
from harmonia.encoders.towers.base import SIZES, Tower, parameters
from harmonia.encoders.towers.image import ImageConfig, ImageTower
from harmonia.encoders.towers.text_motion import MotionConfig, MotionTower, TextConfig, TextTower
from harmonia.encoders.towers.video import VideoConfig, VideoTower
from harmonia.layers import ConvNet, Pool, ResNet50, Transformer
from harmonia.types import HarmoniaError, Signal
from tests.media import scene, tone

SENTENCES = [
    "A dog runs on the beach.",
    "two children play in the snow",
    "Ein Hund läuft am Strand.",
    "一只狗在海滩上奔跑",
    "a man rides a red bicycle past a shop",
]


@pytest.fixture(scope="module")
def tokenizer() -> bpe.Tokenizer:
    return bpe.train_tokenizer(SENTENCES * 3, 400)


def texts() -> list[Signal]:
    return [Signal("text", sentence) for sentence in SENTENCES]


def photo(seed: int, size: tuple[int, int] = (60, 40)) -> Signal:
    return Signal("image", np.asarray(scene(seed, size)))


def sound(hz: float, seconds: float = 1.0, rate: int = 16000) -> Signal:
    return Signal("audio", tone(seconds, hz, rate)[None], rate=float(rate))


def video(seed: int, hz: float | None = 300.0, frames: int = 6) -> Signal:
    shots = np.stack([np.asarray(scene(seed, (24, 16), shift=0.1 * i)) for i in range(frames)])
    heard = None if hz is None else sound(hz)
    return Signal("video", shots, rate=10.0, times=np.arange(frames) / 10, sound=heard)


def motion(seed: int, length: int = 100) -> Signal:
    return Signal("motion", np.random.default_rng(seed).normal(size=(6, length)).astype(np.float32))


def towers(tokenizer: bpe.Tokenizer) -> dict[str, tuple[Tower, list[Signal]]]:
    torch.manual_seed(0)
    text = {"vocabulary": 400, "length": 24, "dim": 32}
    hear = {"seconds": 1.0, "dim": 32}
    see = {"resolution": 32, "dim": 32}
    sounds = [sound(hz) for hz in (200, 400, 800, 1600)]
    photos = [photo(seed) for seed in range(4)]
    videos = [video(0), video(1, None), video(2, 500.0, 1), video(3, 900.0)]
    depths = [Signal("depth", photo(seed).array[..., 0].astype(np.float32)) for seed in range(4)]
    made = {
        "text": (TextTower(TextConfig(**text), tokenizer), texts()),
        "bag": (TextTower(TextConfig(**text, blocks=0, pool="attention"), tokenizer), texts()),
        "motion": (MotionTower(MotionConfig(dim=32)), [motion(seed, 80 + seed) for seed in range(4)]),
        "convnet": (ImageTower(ImageConfig(**see)), photos),
        "residual": (ImageTower(ImageConfig(**see, kind="residual")), photos),
        "resnet50": (ImageTower(ImageConfig(**see, kind="resnet50")), photos),
        "vit": (ImageTower(ImageConfig(**see, kind="vit")), photos),
        "depth": (ImageTower(ImageConfig(**see, channels=1, modality="depth")), depths),
        "audio": (AudioTower(AudioConfig(**hear)), sounds),
        "residual audio": (AudioTower(AudioConfig(**hear, kind="residual")), sounds),
        "transformer": (AudioTower(AudioConfig(**hear, kind="transformer", pool="attention")), sounds),
        "vggish": (AudioTower(AudioConfig(**hear, kind="vggish")), sounds),
        "video": (VideoTower(VideoConfig(**see, frames=4, seconds=1.0)), videos),
        "residual video": (VideoTower(VideoConfig(**see, frames=4, seconds=1.0, kind="residual")), videos),
        "vit video": (VideoTower(VideoConfig(**see, frames=4, seconds=1.0, kind="vit")), videos),
        "silent": (VideoTower(VideoConfig(**see, frames=4, seconds=1.0, sound=False)), videos),
    }
    return {name: (tower.eval(), signals) for name, (tower, signals) in made.items()}


NAMES = [
    "text", "bag", "motion", "convnet", "residual", "resnet50", "vit", "depth", "audio",
    "residual audio", "transformer", "vggish", "video", "residual video", "vit video", "silent",
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tokenizer: bpe.Tokenizer) -> dict[str, tuple[Tower, list[Signal]]]:
    return towers(tokenizer)


@pytest.mark.parametrize("name", NAMES)
def test_a_code_depends_on_its_own_signal_only(
    name: str, made: dict[str, tuple[Tower, list[Signal]]]
) -> None:
    tower, signals = made[name]
    inputs = tower.prepare(signals)
    assert inputs.device.type == "cpu" and len(inputs) == len(signals)
    with torch.no_grad():
        codes = tower(inputs)
        assert codes.shape == (len(signals), tower.dim) and codes.isfinite().all()
        alone = torch.cat([tower(tower.prepare([signal])) for signal in signals])
        assert torch.allclose(codes, alone, atol=1e-5)
        assert torch.equal(codes, tower(inputs))  # deterministic
    distances = torch.cdist(codes, codes) + torch.eye(len(codes))
    assert distances.min() > 1e-3  # different signals, different codes
    assert len(tower.prepare([])) == 0 and tower.prepare([]).shape[1:] == inputs.shape[1:]
    assert tower.prepare([]).dtype == inputs.dtype


@pytest.mark.parametrize("name", [name for name in NAMES if name != "resnet50"])
def test_a_few_steps_of_contrastive_learning_tell_signals_apart(name: str, tokenizer: bpe.Tokenizer) -> None:
    tower, signals = towers(tokenizer)[name]
    inputs = tower.train().prepare(signals)
    target = torch.nn.functional.normalize(torch.randn(len(signals), tower.dim), dim=1)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=2e-3)
    losses = []
    for _ in range(25):
        codes = torch.nn.functional.normalize(tower(inputs), dim=1)
        loss = torch.nn.functional.cross_entropy(codes @ target.T * 10, torch.arange(len(signals)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert all(p.grad is not None for p in tower.parameters())  # nothing in it is unused


@pytest.mark.parametrize(
    ("size", "least", "most"),
    [("tiny", 0.2, 0.4), ("small", 1.0, 2.0), ("base", 10, 20), ("large", 80, 100)],
)
def test_sizes_keep_to_their_budgets(size: str, least: float, most: float, tokenizer: bpe.Tokenizer) -> None:
    with torch.device("meta"):
        text = TextTower(TextConfig(size=size), tokenizer)
        counts = {
            "text": parameters(text) - text.embed.weight.numel(),
            "motion": parameters(MotionTower(MotionConfig(size=size))),
            "image": parameters(ImageTower(ImageConfig(size=size))),
            "vit": parameters(ImageTower(ImageConfig(size=size, kind="vit"))),
            "audio": parameters(AudioTower(AudioConfig(size=size))),
            "transformer": parameters(AudioTower(AudioConfig(size=size, kind="transformer"))),
        }
    assert {name: n for name, n in counts.items() if not least <= n / 1e6 <= most} == {}


def test_resnet50_has_the_published_parameters() -> None:
    with torch.device("meta"):
        net = ResNet50()
    assert parameters(net) == 23_508_032
    names = set(net.state_dict())
    assert {"conv1.weight", "layer1.0.downsample.1.running_var", "layer4.2.bn3.bias"} <= names


def test_resnet50_computes_what_transformers_does() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    theirs = transformers.ResNetModel(transformers.ResNetConfig(downsample_in_bottleneck=False)).eval()
    ours = ResNet50().eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), _in_our_order(theirs.state_dict()), strict=True)))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x).last_hidden_state, atol=1e-4)


def _in_our_order(state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """They name the shortcut of a block before its convolutions, torchvision after them."""
    groups: dict[str, list[tuple[bool, torch.Tensor]]] = {}
    for name, value in state.items():
        block = name.split(".layer.")[0].split(".shortcut.")[0]
        groups.setdefault(block, []).append((".shortcut." in name, value))
    return [value for group in groups.values() for _, value in sorted(group, key=lambda pair: pair[0])]


def test_the_tokenizer_keeps_every_language_and_folds_case_and_forms(tokenizer: bpe.Tokenizer) -> None:
    ids = bpe.encode(tokenizer, ["ＤＯＧ on the Beach 🐕 ñandú", "dog on the beach 🐕 ñandú"], 48)
    assert ids.dtype == np.int32 and ids.shape == (2, 48)
    assert (ids[0] == ids[1]).all()
    assert tokenizer.decode(ids[0].tolist()).strip() == "dog on the beach 🐕 ñandú"
    assert bpe.SPECIAL.index("[UNK]") not in ids
    known = bpe.encode(tokenizer, [SENTENCES[0]], 48)
    assert (known != bpe.PAD).sum() < len(SENTENCES[0]) / 2  # it learned longer pieces than bytes


def test_a_long_text_is_cut_and_still_ends() -> None:
    tokenizer = bpe.train_tokenizer(SENTENCES, 300)
    ids = bpe.encode(tokenizer, ["a dog " * 50, ""], 8)
    assert ids[0, 0] == 2 and ids[0, -1] == 3 and (ids[0] != bpe.PAD).all()
    assert ids[1].tolist() == [2, 3, 0, 0, 0, 0, 0, 0]


def test_the_tokenizer_is_the_same_each_time_and_survives_json(tokenizer: bpe.Tokenizer) -> None:
    text = bpe.to_json(tokenizer)
    assert bpe.to_json(bpe.train_tokenizer(SENTENCES * 3, 400)) == text
    again = bpe.from_json(text)
    assert (bpe.encode(again, SENTENCES, 32) == bpe.encode(tokenizer, SENTENCES, 32)).all()


def test_padding_does_not_change_a_text_code(made: dict[str, tuple[Tower, list[Signal]]]) -> None:
    for name in ("text", "bag"):
        tower, signals = made[name]
        ids = tower.prepare(signals[:1])
        used = int((ids != 0).sum())
        with torch.no_grad():
            assert torch.allclose(tower(ids[:, :used]), tower(ids), atol=1e-6)


def test_only_a_transformer_reads_word_order(made: dict[str, tuple[Tower, list[Signal]]]) -> None:
    signals = [Signal("text", "dog bites man"), Signal("text", "man bites dog")]
    same = {}
    for name in ("text", "bag"):
        tower, _ = made[name]
        with torch.no_grad():
            codes = tower(tower.prepare(signals))
        same[name] = torch.allclose(codes[0], codes[1], atol=1e-5)
    assert same == {"text": False, "bag": True}


def test_a_picture_is_averaged_down_whole() -> None:
    picture = np.zeros((40, 80, 3), dtype=np.uint8)
    picture[:, 40:] = 200
    pixels = ImageTower(ImageConfig(resolution=4)).prepare([Signal("image", picture)])
    assert pixels.dtype == torch.uint8 and pixels.shape == (1, 3, 4, 4)
    assert (pixels[0, :, :, :2] == 0).all() and (pixels[0, :, :, 2:] == 200).all()


def test_pixels_as_floats_give_the_same_code(made: dict[str, tuple[Tower, list[Signal]]]) -> None:
    tower, signals = made["convnet"]
    pixels = tower.prepare(signals)
    with torch.no_grad():
        assert torch.equal(tower(pixels), tower(pixels.float()))


def test_depth_is_stretched_and_gaps_are_nearest() -> None:
    tower = ImageTower(ImageConfig(resolution=2, channels=1, modality="depth"))
    depth = np.array([[1.0, np.nan], [2.0, 3.0]])
    assert tower.prepare([Signal("depth", depth)]).tolist() == [[[[0, 0], [128, 255]]]]


def test_log_mel_agrees_with_scipy() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    mels = log_mel(torch.from_numpy(wave)[None], 64)[0].numpy()
    window = np.pad(scipy.signal.get_window("hann", 400), 56)
    stft = scipy.signal.ShortTimeFFT(window, 160, 16000, mfft=512)
    power = np.abs(stft.stft(wave, p0=0, p1=100)) ** 2
    power = mel_filterbank(64).numpy() @ power
    expected = np.log10(np.maximum(power / power.max(), 1e-8)) / 4 + 1
    assert mels.shape == (64, 100)
    assert np.abs(mels - expected).max() < 1e-4


def test_mel_filters_agree_with_transformers() -> None:
    utils = pytest.importorskip("transformers.audio_utils")
    theirs = utils.mel_filter_bank(257, 64, 50.0, 8000.0, 16000, norm=None, mel_scale="htk")
    assert np.abs(mel_filterbank(64).numpy() - theirs.T).max() < 1e-5
    assert all((mel_filterbank(n).sum(dim=1) > 0).all() for n in (16, 40, 64, 80))


def test_loudness_rate_and_channels_do_not_count(made: dict[str, tuple[Tower, list[Signal]]]) -> None:
    tower, _ = made["audio"]
    first = sound(440)
    louder = Signal("audio", np.repeat(first.array * 0.2, 2, axis=0), rate=first.rate)
    mels = tower.prepare([first, louder, sound(440, rate=48000)]).float()
    assert mels.abs().max() <= 1
    assert (mels[0] - mels[1]).abs().max() < 2e-3
    loud = mels[0] > 0  # within 40 dB of the peak
    assert (mels[0] - mels[2])[loud].abs().max() < 0.05


def test_short_sounds_repeat_long_ones_are_cut_and_silence_is_even() -> None:
    tower = AudioTower(AudioConfig(seconds=2.0, dim=8))
    mels = tower.prepare([sound(400, 1.0), sound(400, 2.0)]).float()
    assert (mels[0] - mels[1])[:, 5:95].abs().max() < 0.05
    silence = Signal("audio", np.zeros((1, 100), dtype=np.float32), rate=16000.0)
    empty = Signal("audio", np.zeros((1, 0), dtype=np.float32), rate=16000.0)
    assert (tower.prepare([silence, empty]) == -1).all()
    pieces = tower.windows(sound(400, 7.0))
    assert [p.array.shape[1] for p in pieces] == [32000] * 4
    assert len(tower.windows(sound(400, 2.1))) == 1


def test_video_packs_and_unpacks_exactly(made: dict[str, tuple[Tower, list[Signal]]]) -> None:
    tower, signals = made["video"]
    assert isinstance(tower, VideoTower)
    packed = tower.prepare(signals)
    frames, mel, heard = tower.unpack(packed)
    assert packed.dtype == torch.uint8 and frames.shape == (4, 4, 3, 32, 32)
    assert heard.tolist() == [True, False, True, True]
    alone = AudioTower(AudioConfig(seconds=1.0)).prepare([s.sound for s in signals if s.sound])
    assert torch.equal(mel[heard], alone)
    assert torch.equal(tower.pack(frames, mel, heard), packed)


def test_missing_sound_is_left_out_and_present_sound_counts(
    made: dict[str, tuple[Tower, list[Signal]]],
) -> None:
    tower, _ = made["video"]
    assert isinstance(tower, VideoTower)
    frames, mel, heard = tower.unpack(tower.prepare([video(0)]))
    with torch.no_grad():
        with_sound = tower(tower.pack(frames, mel, heard))
        without = tower(tower.pack(frames, mel, ~heard))
        other = tower(tower.pack(frames, torch.zeros_like(mel), ~heard))
    assert torch.equal(without, other)
    assert not torch.allclose(with_sound, without, atol=1e-4)


def test_a_long_video_is_cut_with_its_sound(made: dict[str, tuple[Tower, list[Signal]]]) -> None:
    tower, _ = made["video"]
    frames = np.zeros((30, 8, 8, 3), dtype=np.uint8)
    long = Signal(
        "video", frames, rate=10.0, times=np.arange(30) / 10, start=0.0, end=3.0, sound=sound(9, 3.0)
    )
    pieces = tower.windows(long)
    assert [len(p.array) for p in pieces] == [10, 10, 10]
    assert [p.sound.array.shape[1] for p in pieces if p.sound] == [16000] * 3


def test_pools_ignore_what_is_masked() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]])
    mask = torch.tensor([[True, True, False]])
    assert Pool(2)(x, mask).tolist() == [[2.0, 4.0]]
    assert Pool(2, "attention")(x, mask).tolist() == [[2.0, 4.0]]  # even weights at the start
    assert Pool(2, "mean+max")(x, mask).tolist() == [[5.0, 10.0]]


def test_layers_give_the_shapes_they_state() -> None:
    assert ConvNet(3, (8, 16, 32), (1, 1, 1))(torch.zeros(2, 3, 30, 17)).shape == (2, 32, 2, 2)
    x, mask = torch.randn(2, 5, 8), torch.tensor([[True] * 5, [True, True, False, False, False]])
    net = Transformer(8, 2, 2).eval()
    y = net(x, mask)
    assert torch.allclose(y[1, :2], net(x[1:, :2])[0], atol=1e-6)


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "size": (lambda: TextConfig(size="huge"), "there is no size 'huge'"),
    "dim": (lambda: ImageConfig(dim=0), "dim >= 1"),
    "dropout": (lambda: ImageConfig(dropout=1.0), "dropout < 1"),
    "length": (lambda: TextConfig(length=1), "length >= 2"),
    "text pool": (lambda: TextConfig(pool="sum"), "pool must be one of"),
    "motion": (lambda: MotionConfig(samples=100, patch=8), "multiple of patch"),
    "kind": (lambda: ImageConfig(kind="vgg"), "kind must be one of"),
    "channels": (lambda: ImageConfig(channels=4), "channels 1 or 3"),
    "patch": (lambda: ImageConfig(kind="vit", resolution=60), "multiple of patch"),
    "mels": (lambda: AudioConfig(mels=128), "16 to 80 mels"),
    "seconds": (lambda: AudioConfig(seconds=0), "seconds"),
    "audio kind": (lambda: AudioConfig(kind="lstm"), "kind must be one of"),
    "frames": (lambda: VideoConfig(frames=0), "frames >= 1"),
    "video seconds": (lambda: VideoConfig(seconds=0), "seconds"),
    "vocabulary": (lambda: bpe.train_tokenizer(SENTENCES, 100), "too small"),
    "no text": (lambda: bpe.train_tokenizer(["", " "]), "no text"),
    "json": (lambda: bpe.from_json("{"), "damaged"),
    "other tokens": (
        lambda: bpe.from_json(json.dumps({"model": {"type": "BPE", "vocab": {}, "merges": []}})),
        "does not begin with",
    ),
    "small table": (
        lambda: TextTower(TextConfig(vocabulary=10), bpe.train_tokenizer(SENTENCES, 300)),
        "set vocabulary",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_settings_are_refused_in_one_line(case: str) -> None:
    call, says = BAD[case]
    with pytest.raises(HarmoniaError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_bad_signals_and_inputs_are_refused(made: dict[str, tuple[Tower, list[Signal]]]) -> None:
    array = np.zeros
    bad: list[tuple[str, Signal, str]] = [
        ("text", photo(0), "cannot encode a signal of modality image"),
        ("convnet", texts()[0], "cannot encode a signal of modality text"),
        ("convnet", Signal("image", array((0, 4, 3), dtype=np.uint8)), "an image must be"),
        ("convnet", Signal("image", array((4, 4, 3))), "an image must be"),
        ("depth", Signal("depth", np.full((2, 2), np.nan)), "no finite value"),
        ("audio", Signal("audio", array(5, dtype=np.float32), rate=8000), "audio must be"),
        ("video", Signal("video", array((0, 4, 4, 3), dtype=np.uint8)), "a video must be"),
        ("motion", Signal("motion", array((3, 50), dtype=np.float32)), "a motion signal must be"),
        ("motion", Signal("motion", np.full((6, 5), np.inf, dtype=np.float32)), "not finite"),
    ]
    for name, signal, says in bad:
        with pytest.raises(HarmoniaError, match=says):
            made[name][0].prepare([signal])
    for name in NAMES:
        with pytest.raises(HarmoniaError, match=r"takes \(n, "):
            made[name][0](torch.zeros(2, 3, 5, 7, 9))
    with pytest.raises(HarmoniaError, match="tokens are too many"):
        made["text"][0](torch.ones(1, 99, dtype=torch.int32))


def test_every_size_has_whole_heads() -> None:
    assert all(size.width % size.heads == 0 for size in SIZES.values())
