"""One image in the report: its figures, a before/after slider, and its most telling crops."""

import html
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from fairweather.evaluation.report.pictures import (
    Crop,
    error_map,
    fitted,
    jpeg_uri,
    strip,
    telling_crops,
)
from fairweather.evaluation.report.rows import Images, Row
from fairweather.evaluation.report.wording import figures_line

LARGEST_PX, SMALLEST_PX = 800, 96
FEWEST_BYTES_FOR_CROPS = 100_000
View = tuple[str, np.ndarray]
Strips = list[tuple[str, Crop, np.ndarray]]


def make_card(
    row: Row,
    images: Images,
    *,
    strips: Strips,
    number: int,
    title: str,
    rank: float,
    budget_bytes: float,
) -> str:
    """An article of HTML.

    Args:
        row: the figures.
        images: the pictures.
        strips: as `crop_strips` gives them.
        number: of the image, in the order of the evaluation.
        title: the heading.
        rank: what the page sorts by; NaN comes last.
        budget_bytes: what the pictures may take; they are made smaller until they fit.
    """
    views: list[View] = [*images.named(), difference_map(images)]
    first = next(place for place, (name, _) in enumerate(views) if name in images.restored)
    left = 0 if images.degraded is not None else len(views) - 2  # the clean one
    crops = _crops(images, strips) if budget_bytes >= FEWEST_BYTES_FOR_CROPS else ""
    sources, size = _fit(views, budget_bytes=budget_bytes - len(crops))
    shown = "" if math.isnan(rank) else f"{rank:.6f}"
    parts = [
        f'<article class="card" id="image-{number}" data-index="{number}" data-rank="{shown}">',
        f"<h3>{html.escape(title)}</h3>",
        f"<p>{figures_line(row)}</p>",
        _slider(views, sources, size=size, left=left, right=first),
    ]
    if len(images.restored) > 1:
        parts.append(_buttons(views[:-1], side="before", label="left", pressed=left))
    parts.append(_buttons(views, side="after", label="right", pressed=first, without=left))
    parts += [
        f'<img hidden loading="lazy" data-view="{place}" src="{source}" alt="">'
        for place, source in enumerate(sources)
        if place not in (left, first)
    ]
    return "\n".join([*parts, crops, "</article>\n"])


def difference_map(images: Images) -> View:
    """How far the first restored image is from the clean one, or from the input without that."""
    name = "change" if images.clean is None else "error"
    return name, error_map(next(iter(images.restored.values())), images.reference)


def crop_strips(images: Images) -> Strips:
    """Where the first weights helped most, and where least: in words, where, and as a strip."""
    if images.degraded is None or images.clean is None:
        return []
    first = next(iter(images.restored.values()))
    strips: Strips = []
    crops = telling_crops(images.degraded, first, images.clean)
    for crop, most in zip(crops, ("helped", "hurt"), strict=True):
        shown = [crop.cut(image) for _, image in images.named()]
        shown.append(error_map(crop.cut(first), crop.cut(images.clean)))
        what = "helped" if crop.gain >= 0 else "hurt"
        strips.append((f"{what} {'most' if what == most else 'least'}", crop, strip(shown)))
    return strips


def _crops(images: Images, strips: Strips) -> str:
    if not strips:
        return ""
    names = ", ".join(html.escape(name) for name, _ in images.named())
    lines = [f"<details><summary>closer: {names}, error</summary>"]
    for words, crop, pixels in strips:
        note = f"{words}: {crop.side_px} px from row {crop.top}, column {crop.left}"
        picture = Image.fromarray(pixels)
        size = f'width="{picture.width}" height="{picture.height}"'
        source = jpeg_uri(picture, quality=92)
        lines.append(f'<p>{note}</p><img src="{source}" alt="{note}" {size} loading="lazy">')
    return "".join([*lines, "</details>"])


def _fit(views: Sequence[View], *, budget_bytes: float) -> tuple[list[str], tuple[int, int]]:
    """The pictures as data URIs of at most so many bytes together, and their size in pixels."""
    side_px = min(LARGEST_PX, max(views[0][1].shape[:2]))
    while True:
        pictures = [fitted(image, side_px=side_px) for _, image in views]
        sources = [jpeg_uri(picture) for picture in pictures]
        size = sum(map(len, sources))
        if size <= budget_bytes or side_px <= SMALLEST_PX:
            return sources, pictures[0].size
        shrink = math.sqrt(max(budget_bytes, 1) / size)
        side_px = max(SMALLEST_PX, int(side_px * min(0.9, shrink)))


def _slider(
    views: Sequence[View], sources: Sequence[str], *, size: tuple[int, int], left: int, right: int
) -> str:
    names = [html.escape(name) for name, _ in views]
    pictures = [
        f'<img class="{side}" data-view="{place}" src="{sources[place]}" alt="{names[place]}"'
        f' width="{size[0]}" height="{size[1]}" loading="lazy">'
        for side, place in (("before", left), ("after", right))
    ]
    return (
        f'<div class="slider">{"".join(pictures)}'
        '<input type="range" min="0" max="100" value="50" step="0.5"'
        ' aria-label="how much of the left picture is shown">'
        f'<span class="left">{names[left]}</span><span class="right">{names[right]}</span></div>'
    )


def _buttons(
    views: Sequence[View], *, side: str, label: str, pressed: int, without: int | None = None
) -> str:
    parts = [f'<div class="bar views" role="group" aria-label="{label} side" data-side="{side}">']
    parts.append(f"<span>{label}</span>")
    for place, (name, _) in enumerate(views):
        if place != without:
            state = str(place == pressed).lower()
            shown = html.escape(name)
            parts.append(f'<button data-show="{place}" aria-pressed="{state}">{shown}</button>')
    return "".join([*parts, "</div>"])
