"""Large images in overlapping tiles: where they lie, how they are cut and merged.

A tile starts and ends on multiples of the size that the network pads to, so its windows are the
windows of the whole image, and only what lies near its border differs. There its weight is zero.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fairweather.errors import OptionError
from fairweather.imaging.pixels import quantise

Pixels = np.ndarray


@dataclass(frozen=True)
class Span:
    """A tile's extent on one axis of the padded image, and the weight of each of its pixels.

    At every pixel of an axis the weights of all spans sum to one.
    """

    start: int
    stop: int
    weights: np.ndarray


@dataclass(frozen=True)
class TilePlan:
    """Tiles that cover an image: each row span with each column span."""

    height: int
    width: int
    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)


def plan_tiles(
    size: tuple[int, int], *, tile_px: int | None, overlap_px: int, multiple: int
) -> TilePlan:
    """Cover an image with tiles.

    Args:
        size: (height, width) of the image [px].
        tile_px: side of a tile, rounded down to the multiple; None is one tile for the image.
        overlap_px: how far neighbours overlap at least, rounded up to the multiple.
        multiple: what the network pads to [px].

    Raises:
        OptionError: A tile is smaller than twice the overlap, so that it would have no core.
    """
    height, width = size
    if tile_px is None:
        tile_px = max(height, width) + multiple
    tile = tile_px // multiple * multiple
    overlap = -(-overlap_px // multiple) * multiple
    axes = [plan_axis(length, tile=tile, overlap=overlap, multiple=multiple) for length in size]
    return TilePlan(height, width, rows=axes[0], columns=axes[1])


def plan_axis(length: int, *, tile: int, overlap: int, multiple: int) -> tuple[Span, ...]:
    """Return the spans along one axis; the last is moved inwards, so that none sticks out."""
    padded = -(-length // multiple) * multiple
    if padded <= tile:
        return (Span(0, padded, np.ones(padded, np.float32)),)
    least = max(multiple, 2 * overlap)
    if tile < least:
        raise OptionError(
            f"a tile of {tile} px has no core between overlaps of {overlap} px;"
            f" take a tile of at least {least} px (it is cut to multiples of {multiple} px)"
        )
    stride = tile - overlap
    starts = [*range(0, padded - tile, stride), padded - tile]
    weights = np.zeros((len(starts), padded), np.float32)
    for row, start in zip(weights, starts, strict=True):
        row[start : start + tile] = taper(
            tile, overlap=overlap, at_start=start > 0, at_stop=start + tile < padded
        )
    weights /= weights.sum(0)
    return tuple(
        Span(start, start + tile, row[start : start + tile].copy())
        for start, row in zip(starts, weights, strict=True)
    )


def taper(tile: int, *, overlap: int, at_start: bool, at_stop: bool) -> np.ndarray:
    """Return weights: one inside, zero in the outer quarter of the overlap, smooth between."""
    distance = np.arange(tile, dtype=np.float32) + 0.5
    weights = np.ones(tile, np.float32)
    for tapers, from_edge in ((at_start, distance), (at_stop, distance[::-1])):
        if tapers and overlap:
            ramp = np.clip((from_edge - overlap / 4) / (overlap / 2), 0, 1)
            weights *= ramp * ramp * (3 - 2 * ramp)
    return weights


def cut_tile(image: Pixels, row: Span, column: Span) -> Pixels:
    """Cut a tile out of (H, W, …), padded at the bottom and right as the network would."""
    height, width = image.shape[:2]
    if row.stop <= height and column.stop <= width:
        return image[row.start : row.stop, column.start : column.stop]
    return image[padded_indices(height, row)[:, None], padded_indices(width, column)]


def padded_indices(length: int, span: Span) -> np.ndarray:
    """Return which pixel stands at each place of a span: reflected, or replicated if short."""
    index = np.arange(span.start, span.stop)
    reflects = span.stop - length < length
    beyond = 2 * (length - 1) - index if reflects else np.full_like(index, length - 1)
    return np.where(index < length, index, beyond)


def merge_tiles(
    plan: TilePlan, restored: Callable[[Span, list[Span]], Iterator[Pixels]], *, out: Pixels
) -> None:
    """Merge tiles row by row into an image, holding one row of tiles in floats at a time.

    Args:
        plan: where the tiles lie.
        restored: gives for a row span the tiles of all column spans, (h, w, C) float32 in [0, 1].
        out: (H, W, C) to write to; integer types are rounded to, with 1.0 as their largest value.
    """
    channels = out.shape[2]
    pending = np.zeros((0, plan.width, channels), np.float32)  # rows above that await the next band
    for row, following in itertools.zip_longest(plan.rows, plan.rows[1:]):
        band = np.zeros((row.stop - row.start, plan.width, channels), np.float32)
        for column, tile in zip(plan.columns, restored(row, list(plan.columns)), strict=True):
            stop = min(column.stop, plan.width)
            weights = column.weights[: stop - column.start, None]
            band[:, column.start : stop] += tile[:, : stop - column.start] * weights
        band *= row.weights[:, None, None]
        band[: len(pending)] += pending
        finished = min(following.start if following else row.stop, plan.height) - row.start
        quantise(band[:finished], out=out[row.start : row.start + finished])
        pending = band[finished:] if following else band[:0]
