"""report.html: an evaluation and its pictures as one page that loads nothing, by templates."""

import math
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from fairweather.evaluation.protocol_text import describe_protocol
from fairweather.evaluation.protocols import INFERENCES
from fairweather.evaluation.report.histogram import draw_histogram
from fairweather.evaluation.report.pictures import (
    CloseUp,
    difference_map,
    finite_gains,
    fitted,
    jpeg_uri,
)
from fairweather.evaluation.report.wording import figure_text, label
from fairweather.evaluation.results import PACKAGES, Evaluation, Images, Row
from fairweather.evaluation.weights import INPUT

LARGEST_PX, SMALLEST_PX = 800, 96
LEAST_BYTES_FOR_CROPS = 100_000
# What the buttons that put either end of the ranking first are called.
ORDERS = {
    "gain_db": ("least gain first", "most gain first"),
    "psnr_db": ("lowest PSNR first", "highest PSNR first"),
    "change_levels": ("least change first", "most change first"),
}


def for_script(value: float) -> str:
    """Return a number as JavaScript's `Number` reads it; empty if it is not known."""
    if math.isnan(value):
        return ""
    return f"{value:.6f}" if math.isfinite(value) else f"{'-' * (value < 0)}Infinity"


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("fairweather.evaluation.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.globals |= {
    "INPUT": INPUT,
    "NAN": math.nan,
    "describe_protocol": describe_protocol,
    "figure_text": figure_text,
    "for_script": for_script,
    "isfinite": math.isfinite,
    "label": label,
}


def page_parts(evaluation: Evaluation, cards: Iterable[str]) -> Iterator[str]:
    """Render the page piece by piece.

    Args:
        evaluation: what the page tells.
        cards: of all images, as `render_card` returned them; one at a time is in memory.
    """
    rows = [(result, row) for result in evaluation.sets for row in result.rows]
    before = dict.fromkeys(name for _, row in rows for name in row.input or ())
    after = dict.fromkeys(
        name for _, row in rows for figures in row.restored.values() for name in figures
    )
    gain = ["gain_db"] if evaluation.ranked_by == "gain_db" else []
    histograms = [
        (f"{result.name}: {weights}", draw_histogram(gains))
        for result in evaluation.sets
        for weights in result.columns
        if (gains := finite_gains(result, weights))
    ]
    published = [(result.name, evaluation.published(result)) for result in evaluation.sets]
    return TEMPLATES.get_template("report.html").generate(
        evaluation=evaluation,
        rows=rows,
        before=list(before)[:2],
        after=[*gain, *after],
        alone=evaluation.protocol is None,
        histograms=histograms,
        published=[(name, one) for name, one in published if one],
        orders=ORDERS[evaluation.ranked_by],
        inferences=INFERENCES,
        versions={package: version(package) for package in PACKAGES},
        cards=map(Markup, cards),
    )


def render_card(
    row: Row,
    images: Images,
    *,
    crops: Sequence[CloseUp],
    number: int,
    title: str,
    rank: float,
    budget_bytes: float,
) -> str:
    """Render an image's figures, slider and crops as an article of HTML.

    Args:
        row: the figures.
        images: the pictures.
        crops: as `close_ups` returns them; left out of a page with many images.
        number: of the image, in the order of the evaluation.
        title: the heading.
        rank: what the page sorts by; NaN comes last.
        budget_bytes: what the pictures may take; they are made smaller until they fit.
    """
    views = [*images.named(), difference_map(images)]
    shown = crops if budget_bytes >= LEAST_BYTES_FOR_CROPS else ()
    pictures = [Image.fromarray(one.pixels) for one in shown]
    close = [(one, jpeg_uri(p, quality=92), p) for one, p in zip(shown, pictures, strict=True)]
    taken = sum(len(uri) for _, uri, _ in close)
    sources, size = _fit([image for _, image in views], budget_bytes=budget_bytes - taken)
    names = [name for name, _ in views]
    return TEMPLATES.get_template("card.html").render(
        row=row,
        several=len(images.restored) > 1,
        number=number,
        title=title,
        rank=rank,
        names=names,
        sources=sources,
        size=size,
        left=0 if images.degraded is not None else len(views) - 2,  # without it, the clean one
        right=next(place for place, name in enumerate(names) if name in images.restored),
        crops=close,
    )


def _fit(images: Sequence[np.ndarray], *, budget_bytes: float) -> tuple[list[str], tuple[int, int]]:
    """The pictures as data URIs of at most so many bytes together, and their size in pixels."""
    side_px = min(LARGEST_PX, max(images[0].shape[:2]))
    while True:
        pictures = [fitted(image, side_px=side_px) for image in images]
        sources = [jpeg_uri(picture) for picture in pictures]
        taken = sum(map(len, sources))
        if taken <= budget_bytes or side_px <= SMALLEST_PX:
            return sources, pictures[0].size
        shrink = math.sqrt(max(budget_bytes, 1) / taken)
        side_px = max(SMALLEST_PX, int(side_px * min(0.9, shrink)))
