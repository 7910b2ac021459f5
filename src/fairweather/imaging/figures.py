"""Pictures for people: input beside result, contact sheets, and curves.

A file of the same name is replaced; an ImageError is raised if a photo cannot be written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fairweather.files import replacing
from fairweather.imaging.image import Photo, write_image
from fairweather.imaging.pixels import as_bytes

GAP_PX = 8
LONGEST_SIDE_PX = 2000
CELL_PX = 320
MANY_POINTS = 100
PARTS = 40


def write_side_by_side(path: Path, *photos: Photo) -> None:
    """Write photos of one size beside each other, scaled down to at most 2000 px each."""
    panels = [thumbnail(photo) for photo in photos]
    gap = np.full((panels[0].shape[0], GAP_PX, 3), 255, np.uint8)
    row = [part for panel in panels for part in (panel, gap)][:-1]
    write_image(path, Photo(np.concatenate(row, axis=1)))


def write_contact_sheet(path: Path, photos: Sequence[Photo], *, columns: int) -> None:
    """Write small versions of photos of any sizes in a grid, row by row."""
    cell = CELL_PX + GAP_PX
    rows = -(-len(photos) // columns)
    sheet = np.full((rows * cell, columns * cell, 3), 255, np.uint8)
    for number, photo in enumerate(photos):
        panel = thumbnail(photo, longest_px=CELL_PX)
        top, left = number // columns * cell, number % columns * cell
        sheet[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
    write_image(path, Photo(sheet))


def thumbnail(photo: Photo, *, longest_px: int = LONGEST_SIDE_PX) -> np.ndarray:
    """Return (h, w, 3) uint8, at most `longest_px` a side; opacity is left out."""
    pixels = photo.pixels
    step = max(1, max(pixels.shape[:2]) // (2 * longest_px))  # so that little is copied
    pixels = pixels[::step, ::step]
    image = Image.fromarray(np.ascontiguousarray(as_bytes(pixels)))
    image.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    return np.asarray(image)


@dataclass(frozen=True)
class Curve:
    """One line of a plot."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


def write_curves(
    path: Path,
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str = "step",
    marks: Sequence[float] = (),
) -> None:
    """Write a line plot; needs matplotlib, which the extra `train` installs.

    A curve of more than 100 points is drawn faintly, with the means of 40 parts of it over it.
    Upright lines are drawn at the `marks`, as at the start of a stage.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, curve in enumerate(curves):
        colour, noisy = f"C{number}", len(curve.x) > MANY_POINTS
        label = None if noisy else curve.label
        axes.plot(curve.x, curve.y, color=colour, alpha=0.3 if noisy else 1, label=label)
        if noisy:
            parts = (np.array_split(np.asarray(v, float), PARTS) for v in (curve.x, curve.y))
            middle = [[part.mean() for part in values] for values in parts]
            axes.plot(*middle, color=colour, label=f"{curve.label}, mean")
    for mark in marks:
        axes.axvline(mark, color="0.8", linewidth=1, zorder=0)
    axes.set(title=title, xlabel=x_label)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=110)
