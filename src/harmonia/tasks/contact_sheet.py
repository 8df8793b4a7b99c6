"""Contact sheets of recollections: the cues on the left, the recalled records on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from harmonia.data.left_out import SHEET_MARK
from harmonia.modalities import MODALITIES
from harmonia.modalities.limits import replacing
from harmonia.types import HarmoniaError, Part, Recalled, Recollection, Signal

CELL, GAP, LINE = 200, 12, 16
INK, FAINT, PAPER, LIKELY = "#1b1f24", "#6a737d", "#ffffff", "#1a7f37"
ORDER = ("image", "video", "audio", "text")

Row = tuple[Sequence[tuple[str, str | Path]], Recollection]


def draw_sheet(rows: Sequence[Row], root: Path, *, across: int = 5) -> Image.Image:
    """Draw one row per recollection: its cues ``(modality, words or file)``, an arrow, and the first records.

    ``root`` is the folder of the memory, for copied media; ``across`` the number of records in a row.
    """
    cues = max(len(given) for given, _ in rows)
    width = (cues + across) * (CELL + GAP) + 3 * GAP + 40
    height = CELL + 3 * LINE + 2 * GAP
    sheet = Image.new("RGB", (width, height * len(rows) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (given, found) in enumerate(rows):
        top = GAP + number * height
        for column, (modality, value) in enumerate(given):
            left = GAP + (column + cues - len(given)) * (CELL + GAP)
            sheet.paste(_tile(modality, value), (left, top))
            _line(draw, left, top + CELL + 4, f"cue: {modality}", FAINT)
        arrow = GAP + cues * (CELL + GAP)
        _arrow(draw, arrow, top + CELL // 2)
        for column, recalled in enumerate(found.records[:across]):
            left = arrow + 40 + column * (CELL + GAP)
            sheet.paste(_record(recalled, root), (left, top))
            ink = LIKELY if recalled.probability >= 0.5 else FAINT
            _line(draw, left, top + CELL + 4, f"{recalled.probability:.0%}  {_name(recalled)}", ink)
            shares = ", ".join(f"{name} {share:.0%}" for name, share in recalled.shares.items())
            _line(draw, left, top + CELL + 4 + LINE, shares, FAINT)
        if found.abstained:
            _line(draw, arrow + 40, top + CELL + 4 + 2 * LINE, "nothing here matches; the nearest:", FAINT)
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write the sheet to an image file, atomically. A PNG file says what it is: walks leave it out."""
    if path.suffix.lower() != ".png":
        MODALITIES["image"].write(Signal("image", np.asarray(sheet)), path)
        return
    mark = PngInfo()
    mark.add_text("Software", SHEET_MARK)
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG", pnginfo=mark)


def _record(recalled: Recalled, root: Path) -> Image.Image:
    """A tile of the record: its first part in ``ORDER`` large, the others in a strip below."""
    parts = {part.modality: part for part in reversed(recalled.moment or recalled.record.parts)}
    shown = [parts[modality] for modality in ORDER if modality in parts]
    tiles = [_part_tile(part, root) for part in shown]
    if len(tiles) == 1:
        return tiles[0]
    whole = Image.new("RGB", (CELL, CELL), PAPER)
    strip = CELL // 3
    whole.paste(tiles[0].resize((CELL - strip, CELL - strip)), (0, 0))
    left = 0
    for part, tile in zip(shown[1:], tiles[1:], strict=True):
        if part.modality == "text":
            _note(whole, part.text or "", left, CELL - strip + 4)
        else:
            whole.paste(tile.resize((strip - 4, strip - 4)), (left, CELL - strip + 4))
        left += strip
    return whole


def _note(tile: Image.Image, text: str, left: int, top: int) -> None:
    """Write as much of a text as fits beside the other parts."""
    draw, font = ImageDraw.Draw(tile), _font(11)
    line = ""
    for word in [*text.split(), ""]:
        if word and draw.textlength(f"{line} {word}", font=font) <= CELL - left:
            line = f"{line} {word}".strip()
            continue
        if top > CELL - 13:
            return
        draw.text((left, top), line, fill=INK, font=font)
        line, top = word, top + 13


def _arrow(draw: ImageDraw.ImageDraw, left: int, middle: int) -> None:
    draw.line([(left + 4, middle), (left + 28, middle)], fill=INK, width=3)
    draw.polygon([(left + 34, middle), (left + 24, middle - 7), (left + 24, middle + 7)], fill=INK)


def _part_tile(part: Part, root: Path) -> Image.Image:
    if part.modality == "text" and part.text is not None:
        return _tile("text", part.text)
    path = root / (part.path or "")
    if part.modality == "audio" and path.suffix.lower() in MODALITIES["video"].SUFFIXES:
        return _tile("video", path, part.start, sound=True)
    return _tile(part.modality, path, part.start)


def _tile(modality: str, value: str | Path, start: float | None = None, sound: bool = False) -> Image.Image:
    """A square preview, or a grey tile with the reason if the file cannot be read."""
    tile = Image.new("RGB", (CELL, CELL), "#f0f2f4")
    module = MODALITIES[modality]
    try:
        source = value.encode() if modality == "text" and isinstance(value, str) else value
        signal = next(iter(module.windows(source)))
        for window in module.windows(source):
            if start is None or window.start is None or window.start >= start - 1e-3:
                signal = window
                break
        if sound and signal.sound is not None:
            signal, module = signal.sound, MODALITIES["audio"]
        preview = module.preview(signal, CELL)
        preview.thumbnail((CELL, CELL))
        tile.paste(preview, ((CELL - preview.width) // 2, (CELL - preview.height) // 2))
    except (HarmoniaError, OSError) as error:
        _line(ImageDraw.Draw(tile), 6, CELL // 2, str(error), FAINT)
    return tile


def _name(recalled: Recalled) -> str:
    return str(recalled.record.metadata.get("name") or recalled.record.id[:8])


def _line(draw: ImageDraw.ImageDraw, left: int, top: int, text: str, ink: str) -> None:
    line = " ".join(text.split())
    while line and draw.textlength(line, font=_font(13)) > CELL:
        line = line[:-2] + "…"
    draw.text((left, top), line, fill=ink, font=_font(13))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
