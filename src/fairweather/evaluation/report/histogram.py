"""How many images gained how much: as a drawing in the page, and as a PNG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fairweather.files import replacing

BARS = 20
STEPS_DB = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
BAR_PX, HEIGHT_PX, LABEL_PX = 34, 130, 150
SCALE = 2  # of the PNG
GOOD, BAD, INK = "#1a8f4c", "#c8372d", "#222222"
AXIS = "gain over the input [dB]"


@dataclass(frozen=True)
class Histogram:
    """How many gains lie between neighbouring edges [dB]; 0 is an edge, if it is among them."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


def count_gains(gains: Sequence[float]) -> Histogram:
    """Steps of a round number of dB, about 5 to 20; a gain on an edge counts above it."""
    low, high = min(gains), max(gains)
    bars = min(max(5, round(2 * math.sqrt(len(gains)))), BARS)
    step = next((step for step in STEPS_DB if (high - low) / step < bars), STEPS_DB[-1])
    first, last = (math.floor(gain / step + 1e-9) for gain in (low, high))
    edges = tuple(round(place * step, 6) for place in range(first, last + 2))
    counts, _ = np.histogram(gains, edges)
    return Histogram(edges, tuple(int(count) for count in counts))


def as_svg(gains: Sequence[float]) -> str:
    """A drawing for the page, whose colours it takes."""
    drawn = count_gains(gains)
    width, margin = _width(drawn)
    parts = [
        f'<svg viewBox="0 0 {width} {HEIGHT_PX + 34}" width="{width}" role="img"'
        ' aria-label="histogram of the gain in dB" font-size="11" text-anchor="middle">'
    ]
    for place, count in enumerate(drawn.counts):
        left, size = margin + place * BAR_PX, _bar_height(count, drawn)
        colour = "var(--good)" if drawn.edges[place] >= 0 else "var(--bad)"
        parts.append(
            f'<rect x="{left + 2}" y="{HEIGHT_PX - size}" width="{BAR_PX - 4}" height="{size}"'
            f' fill="{colour}"/>'
        )
        if count:
            parts.append(_svg_text(left + BAR_PX / 2, HEIGHT_PX - size - 4, str(count)))
    for place, edge in enumerate(drawn.edges):
        parts.append(_svg_text(margin + place * BAR_PX, HEIGHT_PX + 14, f"{edge:g}"))
    parts.append(_svg_text(width / 2, HEIGHT_PX + 30, AXIS))
    return "".join([*parts, "</svg>"])


def write_png(path: Path, gains: Sequence[float], *, title: str) -> None:
    """The same for a paper or a slide, twice as large on white."""
    drawn = count_gains(gains)
    width, margin = _width(drawn)
    top = 24
    image = Image.new("RGB", (SCALE * width, SCALE * (top + HEIGHT_PX + 34)), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(11 * SCALE)

    def write(x: float, y: float, text: str) -> None:
        draw.text((SCALE * x, SCALE * (top + y)), text, fill=INK, font=font, anchor="ms")

    write(width / 2, -6, title)
    for place, count in enumerate(drawn.counts):
        left, height = margin + place * BAR_PX, _bar_height(count, drawn)
        box = (left + 2, top + HEIGHT_PX - height, left + BAR_PX - 2, top + HEIGHT_PX)
        if count:
            colour = GOOD if drawn.edges[place] >= 0 else BAD
            draw.rectangle([SCALE * one for one in box], fill=colour)
            write(left + BAR_PX / 2, HEIGHT_PX - height - 4, str(count))
    for place, edge in enumerate(drawn.edges):
        write(margin + place * BAR_PX, HEIGHT_PX + 14, f"{edge:g}")
    write(width / 2, HEIGHT_PX + 30, AXIS)
    with replacing(path) as file:
        image.save(file, "PNG")


def _width(drawn: Histogram) -> tuple[int, int]:
    bars = BAR_PX * len(drawn.counts)
    margin = max(16, (LABEL_PX - bars) // 2)
    return bars + 2 * margin, margin


def _bar_height(count: int, drawn: Histogram) -> int:
    return max(1 if count else 0, round(count / max(drawn.counts) * (HEIGHT_PX - 16)))


def _svg_text(x: float, y: float, text: str) -> str:
    return f'<text x="{x}" y="{y}" fill="currentColor">{text}</text>'
