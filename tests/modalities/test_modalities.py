"""Media files become signals: what is read, how it is cut into windows, what is written back."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import soundfile
from PIL import Image, PngImagePlugin

from harmonia.modalities import MODALITIES, audio, image, modality_of, sniff, text, video
from harmonia.types import MODALITIES as NAMES
from harmonia.types import Signal
from tests.allocations import peak_of
from tests.media import make_photo, make_tone, make_video, scene, tone

# --- all ----------------------------------------------------------------------------------------


def test_every_suffix_belongs_to_one_modality() -> None:
    assert tuple(MODALITIES) == NAMES
    suffixes = [suffix for module in MODALITIES.values() for suffix in module.SUFFIXES]
    assert len(suffixes) == len(set(suffixes))
    assert modality_of("A Photo.JPEG") == "image"
    assert modality_of(Path("folder.png/notes.md")) == "text"
    assert modality_of("clip.MP4") == "video"
    assert modality_of("song.flac") == "audio"
    assert modality_of("table.xlsx") is None


MAKERS = {
    "image": ("päp ä ☂.png", make_photo),
    "audio": ("päp ä ☂.flac", make_tone),
    "video": ("päp ä ☂.mp4", make_video),
    "text": ("päp ä ☂.txt", lambda path: path.write_text("a note", encoding="utf-8")),
}


@pytest.mark.parametrize("name", MAKERS)
def test_path_bytes_and_stream_give_the_same(name: str, tmp_path: Path) -> None:
    filename, make = MAKERS[name]
    path = tmp_path / filename
    make(path)
    raw = path.read_bytes()
    module = MODALITIES[name]
    first = module.read(path)
    assert sniff(raw[:64]) == name

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    stream = io.BytesIO(raw)
    stream.seek(7)
    for source in (str(path), raw, stream, Pipe(raw)):
        again = module.read(source)
        assert np.array_equal(again.data, first.data)
        assert again.caption == first.caption
    assert not stream.closed
    piece = next(module.windows(raw))
    assert piece.modality == name


# --- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_text_encodings(encoding: str) -> None:
    words = "Grüße, “naïve” café: 5 € für zwei.\nZeile"
    assert text.read(words.replace("\n", "\r\n").encode(encoding)).text == words


def test_text_windows_are_slices_of_whole_paragraphs() -> None:
    rng = np.random.default_rng(0)
    paragraphs = ["word " * int(n) + "end." for n in rng.integers(5, 60, 40)]
    whole = "\n\n".join(paragraphs)
    pieces = list(text.windows(whole.encode(), characters=600))
    assert len(pieces) > 5
    for piece in pieces:
        assert piece.start is not None and piece.end is not None
        assert piece.text == whole[int(piece.start) : int(piece.end)]
        assert len(piece.text) <= 600
        assert piece.text.endswith("end.")
    # packed: no two neighbours would have fitted into one piece
    assert all(len(a.text) + len(b.text) > 300 for a, b in pairwise(pieces))
    assert " ".join(p.text for p in pieces).split() == whole.split()


def test_long_paragraphs_are_cut_at_sentences_words_or_anywhere() -> None:
    sentences = [p.text for p in text.windows(("A short sentence here. " * 30).encode(), characters=100)]
    assert all(s.endswith(".") and len(s) <= 100 for s in sentences)
    words = [p.text for p in text.windows(b"wording " * 60, characters=100)]
    assert set(" ".join(words).split()) == {"wording"}
    assert [len(p.text) for p in text.windows(b"x" * 250, characters=100)] == [100, 100, 50]


def test_a_heading_stays_with_its_paragraph() -> None:
    pieces = list(text.windows(("Title\n\n" + "Some words here. " * 40).encode(), characters=200))
    assert pieces[0].text.startswith("Title\n\nSome words")


def test_text_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "note.md"
    text.write(Signal("text", "eins\n\nzwei ☂"), path)
    assert path.read_bytes() == "eins\n\nzwei ☂".encode()
    assert text.read(path).text == "eins\n\nzwei ☂"


# --- image --------------------------------------------------------------------------------------


def encoded(picture: Image.Image, format: str, **save: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, format, **save)
    return file.getvalue()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff"])
def test_image_round_trip(suffix: str, tmp_path: Path) -> None:
    picture = np.asarray(scene(3))
    image.write(Signal("image", picture), tmp_path / f"a{suffix}")
    signal = image.read(tmp_path / f"a{suffix}")
    assert signal.array.dtype == np.uint8 and signal.array.shape == (240, 320, 3)
    error = np.abs(signal.array.astype(float) - picture).mean()
    assert error == 0 if suffix in (".png", ".bmp", ".tiff") else error < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = scene(1, (64, 48))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    signal = image.read(encoded(stored, "PNG", exif=exif))
    assert np.array_equal(signal.array, np.asarray(upright))


def test_transparency_shows_white() -> None:
    rgba = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    rgba.putpixel((1, 0), (255, 0, 0, 255))
    rgba.putpixel((2, 0), (0, 0, 0, 128))
    got = image.read(encoded(rgba, "PNG")).array
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[0, 1].tolist() == [255, 0, 0]
    assert abs(int(got[0, 2, 0]) - 127) <= 1
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 128, 0, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    got = image.read(encoded(palette, "PNG", transparency=1)).array
    assert got[0].tolist() == [[0, 128, 0], [255, 255, 255]]


def test_tones_of_all_depths() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    expected = np.arange(256).reshape(16, 16)
    for format in ("PNG", "TIFF"):
        got = image.read(encoded(Image.fromarray(ramp), format)).array
        assert np.abs(got[..., 0].astype(int) - expected).max() <= 1
    for scale, low in ((1.0, 0.0), (5000.0, -300.0)):
        tones = (np.linspace(0, 1, 256).reshape(16, 16) * scale + low).astype(np.float32)
        tones[3, 3] = np.nan
        got = image.read(encoded(Image.fromarray(tones), "TIFF")).array[..., 1].astype(int)
        close = np.abs(got - expected) <= 1
        close[3, 3] = True
        assert close.all()


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "LA", "P"])
def test_other_modes_keep_their_look(mode: str) -> None:
    grey = scene(2, (64, 48)).convert("L").convert("RGB")
    stored = grey.convert(mode)
    got = image.read(encoded(stored, "TIFF" if mode != "P" else "GIF")).array
    assert got.shape == (48, 64, 3)
    expected = np.asarray(stored.convert("RGB")).astype(float)
    assert np.abs(got - expected).mean() < 1


def test_first_frame_of_an_animation() -> None:
    first, second = scene(1, (40, 30)).quantize(64), scene(2, (40, 30)).quantize(64)
    raw = encoded(first, "GIF", save_all=True, append_images=[second], duration=100)
    assert np.abs(image.read(raw).array.astype(float) - np.asarray(first.convert("RGB"))).mean() < 1


def test_a_reduced_jpeg_equals_the_full_one_scaled(tmp_path: Path) -> None:
    path = make_photo(tmp_path / "large.jpg", size=(2400, 1600), quality=92)
    small = image.read(path, max_side=300).array
    full = Image.fromarray(image.read(path).array).resize((300, 200), Image.Resampling.LANCZOS)
    assert small.shape == (200, 300, 3)
    assert np.abs(small.astype(float) - np.asarray(full)).mean() < 1.5
    assert next(image.windows(path)).array.shape == (683, 1024, 3)
    assert image.read(path, max_side=9999).array.shape == (1600, 2400, 3)


def test_captions_are_found(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "Ein Hund am Strand"
    exif[0x9C9B] = "Rex ☂".encode("utf-16-le") + b"\0\0"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "Sommer".encode("utf-16-le")
    signal = image.read(encoded(scene(), "JPEG", exif=exif))
    assert signal.caption == "Ein Hund am Strand. Rex ☂. Sommer"

    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><rdf:Description><dc:description><rdf:Alt>'
        "<rdf:li>Regen &amp; Wind</rdf:li></rdf:Alt></dc:description></rdf:Description></rdf:RDF>"
        "</x:xmpmeta>"
    )
    assert image.read(encoded(scene(), "JPEG", xmp=packet.encode())).caption == "Regen & Wind"

    words = b"A red boat"
    iptc = b"\x1c\x02\x78" + len(words).to_bytes(2, "big") + words
    resource = b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc + b"\0" * (len(iptc) % 2)
    segment = b"Photoshop 3.0\0" + resource
    jpeg = encoded(scene(), "JPEG")
    app13 = b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment
    assert image.read(jpeg[:2] + app13 + jpeg[2:]).caption == "A red boat"

    info = PngImagePlugin.PngInfo()
    info.add_itxt("Description", "ein Blatt ☘")
    assert image.read(encoded(scene(), "PNG", pnginfo=info)).caption == "ein Blatt ☘"
    assert image.read(encoded(scene(), "PNG")).caption is None


def test_what_cameras_write_is_no_caption() -> None:
    exif = Image.Exif()
    exif[0x010E] = "OLYMPUS DIGITAL CAMERA         "
    assert image.read(encoded(scene(), "JPEG", exif=exif)).caption is None


def test_heic(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "from a phone"
    path = tmp_path / "IMG 0001.HEIC"
    pillow_heif.from_pillow(scene(4)).save(path, quality=90, exif=exif.tobytes())
    signal = image.read(path, max_side=160)
    assert signal.array.shape == (120, 160, 3) and signal.caption == "from a phone"
    expected = np.asarray(scene(4).resize((160, 120), Image.Resampling.LANCZOS)).astype(float)
    assert np.abs(signal.array - expected).mean() < 6


# --- audio --------------------------------------------------------------------------------------


def loudest(signal: Signal) -> float:
    """The frequency of the strongest component, in Hz."""
    samples = signal.array[0]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * (signal.rate or 0) / len(samples))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".aiff", ".mp3", ".m4a", ".aac", ".opus"])
def test_audio_formats(suffix: str, tmp_path: Path) -> None:
    path = make_tone(tmp_path / f"a{suffix}", seconds=1.5, hz=600, rate=48000)
    signal = audio.read(path)
    assert signal.array.dtype == np.float32 and signal.array.shape[0] == 1
    assert signal.rate == 48000
    assert signal.array.shape[1] / 48000 == pytest.approx(1.5, abs=0.1)
    assert loudest(signal) == pytest.approx(600, abs=3)
    assert 0.4 < np.abs(signal.array).max() < 0.75


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3"])
def test_audio_round_trip(suffix: str, tmp_path: Path) -> None:
    stereo = np.stack([tone(hz=300), tone(hz=500)])
    audio.write(Signal("audio", stereo, rate=16000.0), tmp_path / f"a{suffix}")
    again = audio.read(tmp_path / f"a{suffix}")
    assert again.rate == 16000 and again.array.shape == stereo.shape
    assert np.corrcoef(again.array.ravel(), stereo.ravel())[0, 1] > 0.95
    if suffix in (".wav", ".flac"):
        assert np.abs(again.array - stereo).max() < 2 / 32768


def test_audio_windows_tile_the_sound(tmp_path: Path) -> None:
    path = make_tone(tmp_path / "a.wav", seconds=12.3)
    pieces = list(audio.windows(path))
    assert [(p.start, p.end) for p in pieces] == [(0, 5), (5, 10), (10, 12.3)]
    joined = np.concatenate([p.array for p in pieces], axis=1)
    assert np.array_equal(joined, audio.read(path).array)


@pytest.mark.parametrize(
    ("seconds", "ends"),
    [(10.0, [5, 10]), (10.4, [5, 10.4]), (10.5, [5, 10, 10.5]), (0.2, [0.2]), (5.4, [5.4])],
)
def test_a_short_last_piece_joins_the_one_before(seconds: float, ends: list[float], tmp_path: Path) -> None:
    path = make_tone(tmp_path / "a.wav", seconds=seconds)
    assert [p.end for p in audio.windows(path)] == pytest.approx(ends)


def test_silent_windows_are_left_out(tmp_path: Path) -> None:
    quiet = np.zeros(5 * 8000, np.float32)
    loud = tone(5.0, rate=8000)
    soundfile.write(tmp_path / "a.wav", np.concatenate([quiet, loud, quiet, loud]), 8000)
    assert [p.start for p in audio.windows(tmp_path / "a.wav")] == [5, 15]


def windows_of(path: Path) -> list[tuple[float, float]]:
    return [(piece.start, piece.end) for piece in list(audio.windows(path))]


def test_three_silent_hours_stream_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(180):
            file.write(np.zeros(60 * 8000, np.int16))
    pieces, peak = peak_of(windows_of, path)
    assert pieces == [(0, 5)]
    assert peak < 30 * 2**20


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg", ".mp3", ".m4a"])
def test_audio_tags_become_the_caption(suffix: str, tmp_path: Path) -> None:
    tags = {"title": "Rain", "comment": "on a tin roof"}
    path = make_tone(tmp_path / f"a{suffix}", tags=tags)
    assert audio.read(path).caption == "Rain. on a tin roof"
    assert next(audio.windows(path)).caption == "Rain. on a tin roof"


def test_mono_resamples() -> None:
    signal = Signal("audio", np.stack([tone(1.0, 440, 44100)] * 2), rate=44100.0)
    samples = audio.mono(signal, 16000)
    assert samples.dtype == np.float32 and samples.shape == (16000,)
    assert loudest(Signal("audio", samples[None], rate=16000.0)) == pytest.approx(440, abs=2)
    odd = Signal("audio", tone(1.0, 440, 44101)[None], rate=44101.0)
    assert abs(len(audio.mono(odd, 16000)) - 16000) <= 2
    assert np.array_equal(audio.mono(signal, 44100), signal.array[0])


# --- video --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi"])
def test_video_formats(suffix: str, tmp_path: Path) -> None:
    path = make_video(tmp_path / f"a{suffix}", seconds=2.0, seed=2)
    signal = video.read(path, max_frames=8)
    assert signal.array.shape == (8, 120, 160, 3) and signal.array.dtype == np.uint8
    assert signal.rate == pytest.approx(10)
    assert signal.times is not None and np.all(np.diff(signal.times) > 0)
    assert signal.times[0] == pytest.approx(0) and signal.times[-1] > 1.5
    for frame, time in zip(signal.array, signal.times, strict=True):
        # AVI stores no times of frames that are shown out of order
        drift = 0.1 if suffix == ".avi" else 0.0
        shown = np.asarray(scene(2, (160, 120), shift=0.2 * max(time - drift, 0)))
        assert np.abs(frame.astype(float) - shown).mean() < 12
    assert signal.sound is not None and signal.sound.rate == 48000
    assert loudest(signal.sound) == pytest.approx(440, abs=3)


def test_video_is_scaled_and_may_be_mute(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", sound=False, size=(320, 180))
    signal = video.read(path, max_side=160)
    assert signal.array.shape[1:] == (90, 160, 3)
    assert signal.sound is None
    assert [w.sound for w in video.windows(path)] == [None]


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_phone_rotation_is_respected(rotation: int, tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=0.5, rotation=rotation)
    shown = video.read(path).array[0].astype(float)
    expected = np.rot90(np.asarray(scene(0, (160, 120))), rotation // 90)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 12


def test_video_windows_end_at_cuts_and_after_ten_seconds(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=19.0, cuts=(3.0,), seed=5)
    pieces = list(video.windows(path))
    assert [p.start for p in pieces] == pytest.approx([0, 3, 13], abs=0.5)
    assert [p.end for p in pieces[:-1]] == [p.start for p in pieces[1:]]
    assert pieces[-1].end == pytest.approx(19, abs=0.1)
    whole = video.read(path).sound
    assert whole is not None
    for piece in pieces:
        assert piece.times is not None and piece.start is not None and piece.end is not None
        assert 2 <= len(piece.array) == len(piece.times) <= 8
        assert np.all((piece.start <= piece.times) & (piece.times < piece.end))
        # its own sound, of the same span
        assert piece.sound is not None
        assert (piece.sound.start, piece.sound.end) == (piece.start, piece.end)
        first = round(piece.start * 48000)
        same = whole.array[:, first : first + piece.sound.array.shape[1]]
        assert np.abs(piece.sound.array[:, : same.shape[1]] - same).max() < 1e-6


def test_key_frames_are_enough_where_they_are_dense(tmp_path: Path) -> None:
    """Every frame of MJPEG-like video is a key frame: two in a second are decoded, no more."""
    dense = make_video(tmp_path / "dense.mp4", seconds=8.0, gop=1)
    sparse = make_video(tmp_path / "sparse.mp4", seconds=8.0, gop=500)
    a, b = (next(video.windows(path)) for path in (dense, sparse))
    assert a.times is not None and b.times is not None
    assert len(a.times) == len(b.times) == 8
    assert np.abs(a.times - b.times).max() <= 0.5
    assert np.abs(a.array.astype(float) - b.array).mean() < 12


def test_a_rest_too_short_joins_the_last_window(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", seconds=4.5)
    assert [p.end for p in video.windows(path, seconds=4.0)] == pytest.approx([4.5], abs=0.1)
    path = make_video(tmp_path / "b.mp4", seconds=5.5)
    assert [p.end for p in video.windows(path, seconds=4.0)] == pytest.approx([4, 5.5], abs=0.1)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_video_round_trip(suffix: str, tmp_path: Path) -> None:
    frames = np.stack([np.asarray(scene(i, (161, 121))) for i in range(5)])
    times = np.array([0.0, 0.4, 0.5, 1.2, 1.7])
    sound = Signal("audio", np.stack([tone(2.0, 500, 22050)] * 2), rate=22050.0)
    video.write(Signal("video", frames, 25.0, times=times, sound=sound), tmp_path / f"a{suffix}")
    again = video.read(tmp_path / f"a{suffix}")
    assert again.times is not None and again.times == pytest.approx(times, abs=2e-3)
    assert np.abs(again.array[:, :121, :161].astype(float) - frames).mean() < 8
    assert again.sound is not None and again.sound.array.shape[0] == 2
    assert loudest(again.sound) == pytest.approx(500, abs=3)


def test_a_window_of_a_video_can_be_written(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", seconds=6.0)
    second = list(video.windows(source, seconds=3.0))[1]
    video.write(second, tmp_path / "b.mp4")
    again = video.read(tmp_path / "b.mp4")
    assert again.times is not None and again.times[0] == pytest.approx(0, abs=0.01)
    assert again.sound is not None
    assert again.sound.array.shape[1] / 48000 == pytest.approx(3, abs=0.1)


# --- previews -----------------------------------------------------------------------------------


def test_previews_show_something(tmp_path: Path) -> None:
    photo = image.preview(image.read(make_photo(tmp_path / "a.png")), 100)
    sound = audio.preview(audio.read(make_tone(tmp_path / "a.wav")), 100)
    clip = video.preview(video.read(make_video(tmp_path / "a.mp4")), 100)
    card = text.preview(Signal("text", "some words to show\n" * 99), 100)
    assert photo.size == (100, 75) and sound.size == card.size == (100, 100)
    assert clip.size == (4 * 67 + 6, 62)
    for picture in (photo, sound, clip, card):
        assert picture.mode == "RGB" and np.asarray(picture).std() > 5


def test_the_spectrogram_shows_pitch_and_survives_extremes() -> None:
    def brightest(hz: float) -> int:
        picture = audio.preview(Signal("audio", tone(1.0, hz)[None], rate=16000.0), 200)
        return int(np.asarray(picture)[67:].sum(axis=(1, 2)).argmax())

    assert brightest(3000) < brightest(1000) < brightest(300)
    for samples in (np.zeros((1, 16000)), np.zeros((2, 1)), np.ones((1, 10))):
        audio.preview(Signal("audio", samples.astype(np.float32), rate=8000.0), 64)
