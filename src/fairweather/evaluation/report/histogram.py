"""How many images gained how much: one drawing, shown by the page as SVG and saved as PNG."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MOST_BARS = 20
STEPS_DB = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
BAR_PX, BARS_HEIGHT_PX, LABEL_PX = 34, 130, 150
SCALE = 2  # of the PNG
GOOD, BAD, INK = "#1a8f4c", "#c8372d", "#222222"


class Bar(NamedTuple):
    """A rectangle in a drawing [px], of images that gained or lost."""

    x: int
    y: int
    width: int
    height: int
    good: bool


class Word(NamedTuple):
    """A text in a drawing, by the middle of its baseline [px]."""

    x: float
    y: float
    text: str


class Drawing(NamedTuple):
    """A histogram as rectangles and texts, in pixels from the upper left corner."""

    width: int
    height: int
    bars: list[Bar]
    words: list[Word]


def count_gains(gains: Sequence[float]) -> tuple[list[int], list[float]]:
    """Count gains [dB] in about 5 to 20 steps of a round size; one on an edge counts above it.

    Returns:
        Counts, and the edges between which they lie; 0 is one of them, if it is among them.
    """
    low, high = min(gains), max(gains)
    bars = min(max(5, round(2 * math.sqrt(len(gains)))), MOST_BARS)
    step = next((step for step in STEPS_DB if (high - low) / step < bars), STEPS_DB[-1])
    first, last = (math.floor(gain / step + 1e-9) for gain in (low, high))
    edges = [round(place * step, 6) for place in range(first, last + 2)]
    return np.histogram(gains, edges)[0].tolist(), edges


def draw_histogram(gains: Sequence[float]) -> Drawing:
    """Lay the histogram of gains [dB] out."""
    counts, edges = count_gains(gains)
    margin = max(16, (LABEL_PX - BAR_PX * len(counts)) // 2)
    width, bottom = BAR_PX * len(counts) + 2 * margin, BARS_HEIGHT_PX
    bars, words = [], []
    for place, count in enumerate(counts):
        left = margin + place * BAR_PX
        height = max(min(count, 1), round(count / max(counts) * (bottom - 16)))
        bars.append(Bar(left + 2, bottom - height, BAR_PX - 4, height, edges[place] >= 0))
        if count:
            words.append(Word(left + BAR_PX / 2, bottom - height - 4, str(count)))
    for place, edge in enumerate(edges):
        words.append(Word(margin + place * BAR_PX, bottom + 14, f"{edge:g}"))
    words.append(Word(width / 2, bottom + 30, "gain over the input [dB]"))
    return Drawing(width, bottom + 34, bars, words)


def write_png(path: Path, gains: Sequence[float], *, title: str) -> None:
    """Write the histogram for a paper or a slide, twice as large and on white."""
    drawing, top = draw_histogram(gains), 24
    size = (SCALE * drawing.width, SCALE * (top + drawing.height))
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(11 * SCALE)
    for x, y, width, height, good in drawing.bars:
        if height:
            box = (x, top + y, x + width, top + y + height)
            draw.rectangle([SCALE * side for side in box], fill=GOOD if good else BAD)
    for x, y, text in (Word(drawing.width / 2, -6, title), *drawing.words):
        draw.text((SCALE * x, SCALE * (top + y)), text, fill=INK, font=font, anchor="ms")
    image.save(path)
