"""Small real media files for tests: photo, tone, video. The path's suffix picks the format.

Everything is drawn from a seed, so that two seeds give clearly different media and one seed always
gives the same. The libraries are called directly, without the code under test.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image, ImageDraw

_AUDIO_CODECS = {".mp3": "libmp3lame", ".m4a": "aac", ".aac": "aac", ".opus": "libopus"}
_VIDEO_CODECS = {".webm": ("libvpx", "libopus"), ".avi": ("mpeg4", "libmp3lame")}


def scene(seed: int = 0, size: tuple[int, int] = (320, 240), shift: float = 0.0) -> Image.Image:
    """A picture of a sky-to-ground gradient with four shapes; ``shift`` moves them sideways."""
    rng = np.random.default_rng(seed)
    width, height = size
    top, bottom = rng.uniform(0, 255, (2, 3))
    ramp = np.linspace(0.0, 1.0, height)[:, None, None]
    sky = np.broadcast_to(top * (1 - ramp) + bottom * ramp, (height, width, 3))
    image = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for shape in range(4):
        x, y = rng.uniform(0, 0.75, 2)
        side = rng.uniform(0.12, 0.35) * min(size)
        left, above = ((x + shift) % 1.0) * width, y * height
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        box = (left, above, left + side, above + side)
        (draw.ellipse if shape % 2 else draw.rectangle)(box, fill=colour)
    return image


def tone(seconds: float = 2.0, hz: float = 440.0, rate: int = 16000) -> NDArray[np.float32]:
    """A sine at half of full scale with one soft overtone, float32 ``(samples,)``."""
    phase = 2 * np.pi * hz * np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(phase) + 0.1 * np.sin(2 * phase)).astype(np.float32)


def make_photo(path: str | Path, seed: int = 0, size: tuple[int, int] = (320, 240), **save: Any) -> Path:
    """Write a photo of ``scene(seed, size)``; ``save`` goes to Pillow (quality, exif, ...)."""
    path = Path(path)
    scene(seed, size).save(path, **save)
    return path


def make_tone(
    path: str | Path,
    seconds: float = 2.0,
    hz: float = 440.0,
    rate: int = 16000,
    tags: dict[str, str] | None = None,
) -> Path:
    """Write a mono tone: wav, flac, ogg by soundfile; mp3, m4a, aac, opus by PyAV."""
    path = Path(path)
    samples = tone(seconds, hz, rate)
    codec = _AUDIO_CODECS.get(path.suffix.lower())
    if codec is None:
        with soundfile.SoundFile(path, "w", rate, 1) as file:
            for name, value in (tags or {}).items():
                setattr(file, name, value)
            file.write(samples)
        return path
    with av.open(str(path), "w") as container:
        container.metadata.update(tags or {})
        _add_tone(container, codec, samples, rate)()
    return path


def make_video(
    path: str | Path,
    seconds: float = 2.0,
    sound: bool = True,
    size: tuple[int, int] = (160, 120),
    fps: int = 10,
    seed: int = 0,
    cuts: tuple[float, ...] = (),
    hz: float = 440.0,
    rotation: int = 0,
    gop: int = 12,
) -> Path:
    """Write a video of moving shapes with a tone; at every second in ``cuts`` a new scene begins.

    ``rotation`` is the display rotation that phones write, in degrees counterclockwise; ``gop``
    the frames from one key frame to the next.
    """
    path = Path(path)
    video_codec, audio_codec = _VIDEO_CODECS.get(path.suffix.lower(), ("libx264", "aac"))
    with av.open(str(path), "w") as container:
        video = container.add_stream(video_codec, rate=fps)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.gop_size = gop
        video.time_base = Fraction(1, fps)
        if rotation:
            video.set_display_rotation(rotation)
        finish_sound = None
        if sound:
            finish_sound = _add_tone(container, audio_codec, tone(seconds, hz, 48000), 48000)
        for index in range(round(seconds * fps)):
            second = index / fps
            shot = sum(second >= cut for cut in cuts)
            image = scene(seed + 1000 * shot, size, shift=0.2 * second)
            frame = av.VideoFrame.from_image(image)
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if finish_sound is not None:
            finish_sound()
    return path


def _add_tone(container: Any, codec: str, samples: NDArray[np.float32], rate: int) -> Any:
    """Add an audio stream now; the function returned encodes and closes it."""
    stream = container.add_stream(codec, rate=rate)
    stream.layout = "mono"

    def finish() -> None:
        # PyAV repacks the frames to the size and format that the codec wants
        whole = (np.clip(samples, -1, 1) * 32767).astype(np.int16)[None]
        resampler = av.AudioResampler(stream.format, "mono", rate, stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
        frame.rate, frame.pts = rate, 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode())

    return finish
