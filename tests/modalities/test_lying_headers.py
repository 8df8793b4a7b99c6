"""Sound and video whose header lies: the data decide, and what is cut off is refused."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import harmonia
from harmonia.modalities import audio, video
from harmonia.types import HarmoniaError
from tests.media import make_video, tone

RATE, SECONDS = 16000, 3.0
WAVE = tone(SECONDS)


def sound(form: str = "WAV", subtype: str | None = None, endian: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, WAVE, RATE, format=form, subtype=subtype, endian=endian)
    return file.getvalue()


WAV = sound("WAV", "PCM_16")
DATA = WAV.index(b"data")
SIZED = {
    "wav": WAV, "big-endian wav": sound("WAV", "PCM_16", "BIG"), "rf64": sound("RF64"),
    "wave64": sound("W64"), "aiff": sound("AIFF"), "au": sound("AU"), "extensible": sound("WAVEX"),
    "caf": sound("CAF"), "alac": sound("CAF", "ALAC_16"), "little-endian au": sound("AU", "PCM_16", "LITTLE"),
    "little-endian aiff": sound("AIFF", "PCM_16", "LITTLE"),
}  # fmt: skip


def seconds(data: bytes) -> float:
    heard = audio.read(data)
    assert heard.rate
    assert float(np.abs(heard.array).max()) > 0.4
    return float(heard.array.shape[1] / heard.rate)


def sized(at: int, size: int, data: bytes = WAV) -> bytes:
    return data[:at] + struct.pack("<I", size) + data[at + 4 :]


@settings(deadline=None, max_examples=60)
@given(st.one_of(st.integers(0, 2**32 - 1), st.integers(len(WAV) - 60, len(WAV) + 60)))
def test_the_size_of_a_riff_file_may_be_anything(size: int) -> None:
    assert seconds(sized(4, size)) == pytest.approx(SECONDS)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=64), st.integers(-1, 1), st.booleans())
def test_chunks_before_the_samples_may_lie_by_a_byte(content: bytes, wrong: int, pad: bool) -> None:
    chunk = b"LIST" + struct.pack("<I", max(0, len(content) + wrong)) + content
    chunk += b"\0" * (pad and len(content) % 2)
    assert seconds(WAV[:12] + chunk + WAV[12:]) == pytest.approx(SECONDS, abs=0.01)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["big-endian wav", "aiff", "little-endian aiff"]), st.binary(max_size=64), st.booleans()
)
def test_a_missing_pad_byte_misleads_in_no_format(name: str, content: bytes, pad: bool) -> None:
    data = SIZED[name]
    chunk = b"ANNO" + struct.pack(">I", len(content)) + content + b"\0" * (pad and len(content) % 2)
    assert seconds(data[:12] + chunk + data[12:]) == pytest.approx(SECONDS, abs=0.01)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(SIZED)), st.integers(0, 300), st.integers(1, 3))
def test_a_tag_before_a_file_of_another_format_is_passed_over(name: str, length: int, count: int) -> None:
    tag = b"ID3\3\0\0\0\0" + bytes([length >> 7, length & 127]) + bytes(length)
    if SIZED[name].startswith((b"RIFF", b"RIFX", b"RF64", b"FORM")):
        assert seconds(tag * count + SIZED[name]) == pytest.approx(SECONDS)


@pytest.mark.parametrize(
    ("name", "mark", "after", "size"),
    [
        ("rf64", b"ds64", 16, b"\xff" * 8), ("rf64", b"ds64", 16, bytes(8)), ("rf64", b"ds64", 0, b"JUNK"),
        ("wave64", b"data", 16, b"\xff" * 8), ("wave64", b"data", 16, bytes(8)),
        ("caf", b"data", 4, b"\xff" * 8),
        ("au", b".snd", 8, bytes(4)), ("au", b".snd", 8, b"\xff" * 4),
        ("little-endian au", b"dns.", 8, bytes(4)),
        ("aiff", b"SSND", 4, bytes(4)), ("aiff", b"SSND", 4, b"\xff" * 4), ("aiff", b"FORM", 4, bytes(4)),
        ("big-endian wav", b"data", 4, b"\xff" * 4), ("big-endian wav", b"data", 4, bytes(4)),
    ],
)  # fmt: skip
def test_every_format_has_a_size_for_unknown(name: str, mark: bytes, after: int, size: bytes) -> None:
    at = SIZED[name].index(mark) + after
    assert seconds(SIZED[name][:at] + size + SIZED[name][at + len(size) :]) == pytest.approx(
        SECONDS, abs=0.01
    )


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(SIZED)),
    st.integers(4, 60),
    st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 2**32 - 1]),
)
def test_no_lie_of_a_header_prints_a_traceback(
    capfd: pytest.CaptureFixture[str], name: str, at: int, number: int
) -> None:
    lying = SIZED[name][:at] + struct.pack(">I", number) + SIZED[name][at + 4 :]
    for data in (lying, lying[:at] + lying[at + 4 :]):
        with suppress(HarmoniaError):
            audio.read(data)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("more", range(8))
def test_only_whole_samples_can_be_missing(channels: int, more: int) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.repeat(WAVE[:, None], channels, 1), RATE, format="WAV", subtype="PCM_16")
    data = file.getvalue()
    lying = sized(DATA + 4, len(data) - 44 + more, data)
    if more < 2 * channels:
        assert seconds(lying) == pytest.approx(SECONDS)
    else:
        with pytest.raises(HarmoniaError, match="truncated"):
            audio.read(lying)


def test_a_flac_that_was_streamed_declares_no_length() -> None:
    data = sound("FLAC")
    assert seconds(data[:21] + bytes([data[21] & 0xF0]) + bytes(4) + data[26:]) == pytest.approx(SECONDS)


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=64))
def test_what_follows_the_samples_does_not_count(junk: bytes) -> None:
    assert seconds(WAV + junk) == pytest.approx(SECONDS)


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF, 0xFFFFFF00])
def test_a_recorder_that_streamed_does_not_know_the_size(size: int) -> None:
    assert seconds(sized(DATA + 4, size)) == pytest.approx(SECONDS)
    assert seconds(sized(4, size, sized(DATA + 4, size))) == pytest.approx(SECONDS)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(SIZED)), st.floats(0.2, 0.98))
def test_what_is_cut_off_is_refused(name: str, share: float) -> None:
    whole = SIZED[name]
    assert seconds(whole) == pytest.approx(SECONDS)
    with pytest.raises(HarmoniaError, match=r"truncated|damaged|no samples"):
        audio.read(whole[: int(len(whole) * share)])


def encoded(path: Path, codec: str, rate: int = RATE) -> Path:
    """A recording by FFmpeg, in the container that the suffix names."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.layout, stream.bit_rate = "mono", 64_000
        frame = av.AudioFrame.from_ndarray(WAVE[None], format="fltp", layout="mono")
        frame.rate, frame.pts = RATE, 0
        shaped = av.AudioResampler(
            stream.format, stream.layout, rate, stream.codec_context.frame_size or 1024
        )
        for piece in (*shaped.resample(frame), *shaped.resample(None)):
            out.mux(stream.encode(piece))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("codec", "name", "rate"),
    [
        ("flac", "a.ogg", RATE), ("libopus", "a.ogg", 48000), ("ac3", "a.wav", 48000),
        ("adpcm_g726", "a.wav", 8000), ("libmp3lame", "a.wav", RATE), ("adpcm_ms", "a.wav", RATE),
        ("aac", "a.aac", 48000), ("ac3", "a.ac3", 48000), ("wmav2", "a.wma", 44100), ("aac", "a.mka", 48000),
        ("pcm_s16be", "a.aiff", RATE), ("pcm_mulaw", "a.au", 8000), ("pcm_s16le", "a.w64", RATE),
        ("alac", "a.m4a", 44100),
    ],
)  # fmt: skip
def test_the_library_that_can_read_it_reads_it(tmp_path: Path, codec: str, name: str, rate: int) -> None:
    path = encoded(tmp_path / name, codec, rate)
    assert seconds(path.read_bytes()) == pytest.approx(SECONDS, abs=0.2)
    # and by its content, whatever its name
    memory = harmonia.open(tmp_path / "m")
    lying = tmp_path / "in" / "recording.mp3"
    lying.parent.mkdir()
    lying.write_bytes(path.read_bytes())
    assert memory.remember(lying).remembered == 1


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "aac"), ("a.3gp", "aac"), ("a.webm", "libopus"), ("a.mkv", "flac")]
)
def test_a_video_file_without_a_picture_is_a_recording(tmp_path: Path, name: str, codec: str) -> None:
    path = encoded(tmp_path / name, codec, 48000)
    memory = harmonia.open(tmp_path / "m")
    assert memory.remember(path).problems == ()
    (record,) = memory.store.records()
    assert {part.modality for part in record.parts} == {"audio"}
    for found in (memory.recall(video=path), memory.recall(audio=path)):
        assert found.records[0].record.id == record.id


def filmed(path: Path, start: float, sounds: tuple[float, ...], length: float = 3.0) -> Path:
    """A film whose clock begins at ``start``, with tracks of sound of other lengths."""
    with av.open(str(path), "w") as out:
        moving: Any = out.add_stream("mpeg4", rate=25)
        moving.width, moving.height, moving.pix_fmt = 64, 48, "yuv420p"
        moving.codec_context.time_base = Fraction(1, 1000)
        tracks = [out.add_stream("aac", rate=48000) for _ in sounds]
        for track in tracks:
            track.layout = "mono"
        for n in range(int(25 * length)):
            pixels = np.full((48, 64, 3), n % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(n * 40 + 1000 * start), Fraction(1, 1000)
            out.mux(moving.encode(frame))
        out.mux(moving.encode())
        for track, long in zip(tracks, sounds, strict=True):
            samples = tone(long, rate=48000)[None]
            wave = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            wave.rate, wave.pts = 48000, 0
            shaped = av.AudioResampler(track.format, track.layout, 48000, track.codec_context.frame_size)
            for piece in (*shaped.resample(wave), *shaped.resample(None)):
                out.mux(track.encode(piece))
            out.mux(track.encode())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("start", "sounds"), [(0, (3.0,)), (0, (3.0, 9.0)), (0, (3.0, 0.5)), (5, ()), (3600, ()), (0.4, (3.0,))]
)
def test_only_the_tracks_that_are_read_say_how_long_a_film_is(
    tmp_path: Path, suffix: str, start: float, sounds: tuple[float, ...]
) -> None:
    seen = video.read(filmed(tmp_path / f"a.{suffix}", start, sounds))
    assert len(seen.array) > 3
    assert seen.times is not None
    assert 0 <= seen.times[0] < 0.5
    assert 2 < seen.times[-1] < 4


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_film_that_is_cut_off_is_refused(tmp_path: Path, suffix: str) -> None:
    path = make_video(tmp_path / f"a.{suffix}", seconds=8)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HarmoniaError):
        video.read(path)


def test_cover_art_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("libmp3lame", rate=RATE)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(WAVE[None], format="fltp", layout="mono")
        frame.rate, frame.pts = RATE, 0
        shaped = av.AudioResampler(stream.format, stream.layout, RATE, stream.codec_context.frame_size)
        for piece in (*shaped.resample(frame), *shaped.resample(None)):
            out.mux(stream.encode(piece))
        out.mux(stream.encode())
    lying = path.rename(tmp_path / "song.mp4")
    (window, *_) = video.windows(lying)
    assert window.modality == "audio"
