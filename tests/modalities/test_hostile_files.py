"""Files that are empty, cut off, mislabelled, oversized or malicious: one clear error, no harm."""

from __future__ import annotations

import struct
import wave
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from av.stream import Disposition
from PIL import Image

from harmonia.modalities import MODALITIES, Limits, audio, image, text, video
from harmonia.types import HarmoniaError, Signal
from tests.media import make_photo, make_tone, make_video, scene


def refused(call: Any, *words: str) -> str:
    """The one-line message of the HarmoniaError that ``call`` raises, which must hold ``words``."""
    with pytest.raises(HarmoniaError) as caught:
        result = call()
        if not isinstance(result, Signal):
            list(result)
    message = str(caught.value)
    assert "\n" not in message and "; " in message
    for word in words:
        assert word in message, message
    return message


SUFFIX = {"image": ".png", "audio": ".wav", "video": ".mp4", "text": ".txt"}
each_modality = pytest.mark.parametrize("name", SUFFIX)


# --- no file, no content ------------------------------------------------------------------------


@each_modality
def test_missing_empty_and_folder(name: str, tmp_path: Path) -> None:
    module, path = MODALITIES[name], tmp_path / f"a b{SUFFIX[name]}"
    refused(lambda: module.read(path), path.name, "does not exist")
    refused(lambda: module.windows(path), path.name, "does not exist")
    path.touch()
    refused(lambda: module.read(path), path.name, "is empty")
    refused(lambda: module.windows(b""), "the given data", "is empty")
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(lambda: module.read(folder), "folder is a folder")
    refused(lambda: module.read(tmp_path / "a\nb"), "a?b does not exist")
    refused(lambda: module.read("a\0b"), "cannot be opened")


# --- the wrong kind of file ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "looks"),
    [("image", "an image"), ("audio", "a sound"), ("video", "a video"), ("text", "text")],
)
def test_a_wrong_suffix_is_named(content: str, looks: str, tmp_path: Path) -> None:
    original = tmp_path / f"a{SUFFIX[content]}"
    if content == "text":
        original.write_text("Only words, saved under the wrong name.")
    else:
        {"image": make_photo, "audio": make_tone, "video": make_video}[content](original)
    for name, module in MODALITIES.items():
        if name == content or (content, name) == ("video", "audio"):
            continue  # the sound of a video may be read as a sound
        wrong = tmp_path / f"wrong{SUFFIX[name]}"
        wrong.write_bytes(original.read_bytes())
        if (content, name) == ("audio", "video"):
            refused(lambda m=module, w=wrong: m.read(w), "has no video stream")
        else:
            refused(lambda m=module, w=wrong: m.read(w), wrong.name, f"(it looks like {looks})")


def test_noise_is_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8).tobytes()
    for module in MODALITIES.values():
        refused(lambda m=module: m.read(noise), "is not")
    refused(lambda: text.read(b"words\0and\0zeros" * 9), "is not text")
    refused(lambda: text.read(b" \n\t "), "is empty")


def test_a_video_without_sound_and_a_sound_without_picture(tmp_path: Path) -> None:
    mute = make_video(tmp_path / "mute.mp4", sound=False)
    refused(lambda: audio.read(mute), "mute.mp4 has no audio stream")
    song = make_tone(tmp_path / "song.m4a").rename(tmp_path / "song.mp4")
    refused(lambda: video.read(song), "song.mp4 has no video stream")


def with_cover(path: Path, tone: Path, cover: Path) -> Path:
    """A copy of an M4A file with a picture as its cover art."""
    with av.open(str(path), "w", format="mp4") as out:
        sources = [av.open(str(cover)), av.open(str(tone))]
        streams = [out.add_stream_from_template(source.streams[0]) for source in sources]
        streams[0].disposition = Disposition.attached_pic
        for source, stream in zip(sources, streams, strict=True):
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    out.mux(packet)
            source.close()
    assert b"covr" in path.read_bytes()
    return path


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    song = with_cover(tmp_path / "song.m4a", make_tone(tmp_path / "tone.m4a"), make_photo(tmp_path / "a.png"))
    refused(lambda: video.read(song), "song.m4a has no video stream")
    assert audio.read(song).array.size


# --- cut off ------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff"])
def test_truncated_pictures(suffix: str, tmp_path: Path) -> None:
    path = make_photo(tmp_path / f"a{suffix}")
    whole = path.read_bytes()
    for share in (0.8, 0.5, 0.02):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(lambda: image.read(path), path.name)
        refused(lambda: image.read(path, max_side=64), path.name)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".m4a"])
def test_truncated_sounds(suffix: str, tmp_path: Path) -> None:
    path = make_tone(tmp_path / f"a{suffix}", seconds=4.0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(lambda: audio.read(path), path.name)
    refused(lambda: audio.windows(path), path.name)


@pytest.mark.parametrize("rate", [44100, 22050, 8000])
def test_an_mp3_is_held_to_the_length_that_it_declares_and_to_no_other(rate: int, tmp_path: Path) -> None:
    whole = make_tone(tmp_path / "a.mp3", seconds=4.0, rate=rate, tags={"title": "Rain"}).read_bytes()
    half = tmp_path / "half.mp3"
    half.write_bytes(whole[: len(whole) // 2])
    refused(lambda: audio.read(half), "half.mp3 is truncated: ", " of 4.")

    plain = tmp_path / "plain.mp3"  # recorders that stream write no header
    with (
        av.open(str(tmp_path / "a.mp3")) as source,
        av.open(str(plain), "w", options={"write_xing": "0"}) as out,
    ):
        stream = out.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert b"Info" not in plain.read_bytes()
    half.write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    assert 1.5 < audio.read(half).array.shape[1] / rate < 2.5

    joined = tmp_path / "joined.mp3"  # the header of the first part says nothing of the second
    joined.write_bytes(whole + plain.read_bytes())
    assert audio.read(joined).array.shape[1] / rate > 7


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm"])
def test_truncated_videos(suffix: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / f"a{suffix}", seconds=4.0)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(lambda: video.read(path), path.name)
    refused(lambda: video.windows(path), path.name)


def test_a_streamed_recording_of_unknown_length_is_whole(tmp_path: Path) -> None:
    path = make_tone(tmp_path / "a.wav")
    raw = bytearray(path.read_bytes())
    raw[4:8] = b"\xff\xff\xff\xff"
    raw[40:44] = b"\xff\xff\xff\xff"
    assert audio.read(bytes(raw)).array.shape == (1, 32000)


# --- over the limits ----------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_by_their_header(tmp_path: Path) -> None:
    refused(lambda: image.read(png_header(60000, 60000)), "60000 x 60000 pixels", "limit")
    refused(lambda: image.read(png_header(60000, 60000), max_side=64), "limit")
    gif = make_photo(tmp_path / "a.gif").read_bytes()
    gif = gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:]
    refused(lambda: image.read(gif), "65535 x 65535")


def test_the_limit_on_pixels_is_ours_not_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_photo(tmp_path / "a.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert image.read(path).array.shape == (240, 320, 3)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    refused(lambda: image.read(path, limits=Limits(pixels=1000)), "a.jpg has 320 x 240 pixels")


def test_limits_on_sound(tmp_path: Path) -> None:
    path = make_tone(tmp_path / "a.flac", seconds=4.0)
    refused(lambda: audio.read(path, limits=Limits(seconds=3)), "a.flac lasts 4 s", "3 s")
    refused(lambda: audio.windows(path, limits=Limits(seconds=3)), "a.flac lasts 4 s")
    few = Limits(decoded_bytes=100_000)
    refused(lambda: audio.read(path, limits=few), "MiB decoded", "windows()")
    assert len(list(audio.windows(path, seconds=1.0, limits=few))) == 4
    # ADTS declares no length, so the limit must hold while decoding
    endless = make_tone(tmp_path / "a.aac", seconds=4.0)
    refused(lambda: audio.windows(endless, limits=Limits(seconds=2)), "a.aac lasts")


def test_limits_on_video(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=3.0)
    refused(lambda: video.read(path, limits=Limits(pixels=1000)), "160 x 120 pixels")
    refused(lambda: video.windows(path, limits=Limits(seconds=2)), "a.mp4 lasts 3 s")
    refused(lambda: video.read(path, limits=Limits(decoded_bytes=1000)), "MiB decoded")


def test_limit_on_text() -> None:
    assert text.read(b"x" * 100, limits=Limits(text_bytes=100)).text == "x" * 100
    refused(lambda: text.read(b"x" * 101, limits=Limits(text_bytes=100)), "Limits.text_bytes")


def test_absurd_sample_rates(tmp_path: Path) -> None:
    for rate in (1, 2_000_000_000):
        with wave.open(str(tmp_path / "a.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(1)
            file.setframerate(rate)
            file.writeframes(bytes(1000))
        refused(lambda: audio.read(tmp_path / "a.wav"), "a.wav")


def test_more_channels_than_pyav_survives(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000)
        stream.layout = "hexadecagonal"
        silence = np.zeros((1, 16 * 1000), np.int16)
        frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="hexadecagonal")
        frame.rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    refused(lambda: audio.read(path), "a.mkv claims 16 channels")


# --- malicious ----------------------------------------------------------------------------------


def test_playlists_do_not_open_other_files(tmp_path: Path) -> None:
    secret = make_video(tmp_path / "secret.mp4")
    lists = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{secret}\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile {secret}\n",
        "concat.m4a": f"ffconcat version 1.0\nfile {secret.name}\n",
    }
    for name, content in lists.items():
        path = tmp_path / name
        path.write_text(content)
        module = video if name.endswith("mp4") else audio
        refused(lambda m=module, p=path: m.read(p), name, "(it looks like text)")


def test_postscript_is_not_run() -> None:
    refused(lambda: image.read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "is not an image")


def test_expanding_entities_in_xmp_are_ignored(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 9}">' for i in range(20))
    packet = (
        f'<!DOCTYPE x [<!ENTITY e0 "ha">{entities}]><x xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<dc:description>&e20;</dc:description></x>"
    )
    path = make_photo(tmp_path / "a.jpg", xmp=packet.encode())
    assert image.read(path).caption is None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_exif_costs_only_the_caption(tmp_path: Path) -> None:
    path = make_photo(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(9))
    assert image.read(path).array.shape == (240, 320, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "suffix",
    [
        "jpg",
        "png",
        "webp",
        "gif",
        "bmp",
        "tiff",
        "wav",
        "flac",
        "ogg",
        "mp3",
        "m4a",
        "mp4",
        "mkv",
        "avi",
    ],
)
def test_damaged_files_are_read_or_refused(suffix: str, tmp_path: Path) -> None:
    """Bytes changed at random: a signal or a HarmoniaError, nothing else."""
    path = tmp_path / f"a.{suffix}"
    name = next(n for n, m in MODALITIES.items() if path.suffix in m.SUFFIXES)
    if name == "image":
        exif = Image.Exif()
        exif[0x010E] = "a caption"
        make_photo(path, size=(64, 48), **({} if path.suffix in (".gif", ".bmp") else {"exif": exif}))
    else:
        (make_tone if name == "audio" else make_video)(path, seconds=0.7)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(7)
    for trial in range(12 if name == "video" else 40):
        raw = whole.copy()
        reach = len(raw) if trial % 2 else min(len(raw), 300)
        places = rng.integers(0, reach, rng.integers(1, 12))
        raw[places] = rng.integers(0, 256, len(places))
        for call in (MODALITIES[name].read, MODALITIES[name].windows):
            try:
                result = call(raw.tobytes())
                signals = [result] if isinstance(result, Signal) else list(result)
            except HarmoniaError as error:
                assert "\n" not in str(error)
                continue
            for signal in signals:
                assert signal.modality == name
                if name == "audio":
                    assert np.isfinite(signal.array).all() and np.abs(signal.array).max() <= 1


def test_wild_float_samples_are_tamed(tmp_path: Path) -> None:
    samples = np.array([np.nan, np.inf, -np.inf, 1e30, -7.0, 0.5] * 2000, np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    got = audio.read(tmp_path / "a.wav").array[0, :6]
    assert got.tolist() == [0.0, 1.0, -1.0, 1.0, -1.0, 0.5]


# --- writing ------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_photo(tmp_path / "a.png")
    before = path.read_bytes()

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", full_disk)
    refused(lambda: image.write(Signal("image", np.asarray(scene(9))), path), "No space left")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_unwritable_names_are_refused(tmp_path: Path) -> None:
    picture = Signal("image", np.asarray(scene()))
    sound = Signal("audio", np.zeros((1, 1000), np.float32), rate=16000.0)
    clip = Signal("video", np.asarray(scene())[None], rate=10.0)
    refused(lambda: image.write(picture, tmp_path / "a.pdf"), "a.pdf is of no format")
    refused(lambda: audio.write(sound, tmp_path / "a.xyz"), "a.xyz is of no format")
    refused(lambda: video.write(clip, tmp_path / "a.gif"), "a.gif is of no format")
    refused(lambda: text.write(Signal("text", "x"), tmp_path / "no" / "a.txt"), "there is no folder")
    assert list(tmp_path.iterdir()) == []


def test_the_process_keeps_its_settings(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS, av.logging.get_level()
    image.read(make_photo(tmp_path / "a.png"))
    video.read(make_video(tmp_path / "a.mp4"))
    assert (Image.MAX_IMAGE_PIXELS, av.logging.get_level()) == before
