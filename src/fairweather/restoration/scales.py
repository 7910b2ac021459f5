"""Coarse to fine: a restoration at every scale that a photograph needs.

Networks are trained on small pictures, in which a streak of rain is a few pixels wide. A camera
makes it many pixels wide, and a network that looks at single pixels of it finds nothing. So a
version scaled down is restored first; what changed there is enlarged and added to the next larger
version, which is restored in turn, up to the full size. That is a third more work at most.

A scale that a photograph does not need costs quality, so the photograph decides: by how fine its
finest detail is, and by the scale at which the network finds most to change.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from fairweather.imaging import Span, as_float, cut_tile, padded_indices

MOST_LEVELS = 3
LEAST_PX = 256  # longer side of the smallest version: the networks saw pictures of 300 to 500 px
WIDE_PX = 512  # the same for one that lacks detail of the photograph
SAMPLE_PX = 256  # side of the parts in which detail and changes are measured
MOST_SAMPLES = 36
BLOCK_PX = 32
STRONGEST = 0.9  # quantile of the blocks' energy: the sharpest places tell how sharp a photo is
EMPTY = 0.3  # an octave with less of the next one's energy holds no detail of its own
TRIALS = 4  # parts of each version that are restored to see what the network finds
# Root mean square of what the network changes, of 1. Chosen with `rain` on held-out training
# photographs at several scales (docs/experiments/rain.md): less is what it changes in clean ones.
FOUND = 7 / 255
SURELY_FOUND = 13 / 255  # for a version that lacks detail
MUCH_MORE = 1.15  # times what it finds in the finest version that holds all detail
ROWS = 256
Levels = int | Literal["auto"]
Restore = Callable[[np.ndarray], np.ndarray]


def choose_levels(versions: Sequence[np.ndarray], restore: Restore) -> int:
    """Return from which version a restoration should start.

    That is the smallest version that still holds nearly all detail, if the network finds something
    there; or a smaller one in which it finds much more.

    Args:
        versions: of a photograph, each half as large as the one before.
        restore: (h, w, 3) float32 in [0, 1] → the same, restored.

    Returns:
        The index of a version; 0 restores the photograph at its own size alone.
    """
    if len(versions) == 1:
        return 0
    detailed = min(empty_octaves(versions[0]), len(versions) - 1)
    smaller = [version for version in versions[detailed + 1 :] if max(version.shape) >= WIDE_PX]
    found = [change_found(version, restore) for version in smaller]
    best = int(np.argmax(found)) if found else 0
    surely = bool(found) and found[best] > SURELY_FOUND
    if not detailed and not surely:
        return 0
    here = change_found(versions[detailed], restore)
    if surely and found[best] > MUCH_MORE * here:
        return detailed + 1 + best
    return detailed if here > FOUND else 0


def make_versions(pixels: np.ndarray, *, levels: int) -> list[np.ndarray]:
    """Return a photograph and its halved versions, as many as levels or as make sense."""
    versions = [pixels]
    while len(versions) <= levels and max(versions[-1].shape[:2]) >= 2 * LEAST_PX:
        versions.append(halve(versions[-1]))
    return versions


def change_found(pixels: np.ndarray, restore: Restore) -> float:
    """Return the root mean square of what a restoration changes in some parts of an image."""
    parts = [as_float(part) for part in samples(pixels, most=TRIALS)]
    squares = [float(np.square(restore(part) - part).mean()) for part in parts]
    return float(np.mean(squares)) ** 0.5


def empty_octaves(pixels: np.ndarray) -> int:
    """Return how many halvings of a photograph lose next to no detail, at most `MOST_LEVELS`.

    An octave of a sharp photograph holds about as much energy as the next coarser one. One that was
    enlarged, or is out of focus, holds next to nothing in its finest octaves.

    Args:
        pixels: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1].
    """
    energies = octave_energies(pixels)
    levels = 0
    while levels < MOST_LEVELS and energies[levels] < EMPTY * energies[levels + 1]:
        levels += 1
    return levels


def octave_energies(pixels: np.ndarray) -> list[float]:
    """Return the energy in each octave where it is strongest, `MOST_LEVELS` + 1, finest first.

    An energy is a mean square of the brightness, which lies in [0, 1].
    """
    parts = [as_float(part).mean(-1) for part in samples(pixels, most=MOST_SAMPLES)]
    finer = torch.from_numpy(np.stack(parts))[:, None]
    energies = []
    for level in range(MOST_LEVELS + 1):
        coarser = F.avg_pool2d(pad_to_even(finer), 2)
        height, width = finer.shape[-2:]
        enlarged = F.interpolate(coarser, scale_factor=2, mode="bicubic", align_corners=False)
        detail = (finer - enlarged[..., :height, :width]).square()
        side = min(max(2, BLOCK_PX >> level), height, width)
        energies.append(float(F.avg_pool2d(detail, side).flatten().quantile(STRONGEST)))
        finer = coarser
    return energies


def samples(pixels: np.ndarray, *, most: int) -> list[np.ndarray]:
    """Return parts of one size that are spread evenly over an image, or all of a small one."""
    sides = [min(length, SAMPLE_PX) for length in pixels.shape[:2]]
    rows, columns = (
        np.linspace(0, length - side, min(-(-length // side), round(most**0.5)) + 2)[1:-1]
        for length, side in zip(pixels.shape[:2], sides, strict=True)
    )
    height, width = sides
    starts = [(round(y), round(x)) for y in rows for x in columns]
    return [pixels[y : y + height, x : x + width] for y, x in starts]


def pad_to_even(planes: torch.Tensor) -> torch.Tensor:
    """Repeat the last row and column of (B, C, H, W) where their number is odd."""
    height, width = planes.shape[-2:]
    return F.pad(planes, (0, width % 2, 0, height % 2), mode="replicate")


def halve(pixels: np.ndarray) -> np.ndarray:
    """Scale (H, W, 3) down by two, to ⌈H/2⌉ × ⌈W/2⌉: the mean of four pixels, in uint16.

    Args:
        pixels: uint8, uint16 or floats in [0, 1].
    """
    height, width = pixels.shape[:2]
    out = np.empty(((height + 1) // 2, (width + 1) // 2, 3), np.uint16)
    for start in range(0, height, ROWS):
        band = torch.from_numpy(as_float(pixels[start : start + ROWS])).permute(2, 0, 1)[None]
        mean = F.avg_pool2d(pad_to_even(band), 2)[0].permute(1, 2, 0)
        out[start // 2 : start // 2 + len(mean)] = (mean * 65535).round().numpy()
    return out


def find_change(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return what `after`, (H, W, 3) of any type, is more than `before`, in float16."""
    change = np.empty(before.shape, np.float16)
    for start in range(0, len(before), ROWS):
        rows = slice(start, start + ROWS)
        change[rows] = as_float(after[rows]) - as_float(before[rows])
    return change


def enlarge(change: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Interpolate a change at some rows and columns of twice the size: (h, w, 3) float32."""
    above, below, share = neighbours(rows, len(change))
    left, right, share_x = neighbours(columns, change.shape[1])
    first, last = min(above.min(), below.min()), max(above.max(), below.max()) + 1
    band = change[first:last].astype(np.float32)
    band = band[:, left] + share_x[:, None] * (band[:, right] - band[:, left])
    upper, lower = band[above - first], band[below - first]
    return upper + share[:, None, None] * (lower - upper)


def neighbours(places: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return between which two of half as many places each lies, and how far from the first."""
    middle = ((places + 0.5) / 2 - 0.5).clip(0, length - 1)
    first = np.floor(middle).astype(int)
    return first, np.minimum(first + 1, length - 1), (middle - first).astype(np.float32)


@dataclass(frozen=True)
class Source:
    """What a restoration reads: an image, and what has to be changed in it beforehand.

    Attributes:
        pixels: (H, W, 3), uint8, uint16 or floats in [0, 1].
        change: `find_change` at half the size, if that was restored.
    """

    pixels: np.ndarray
    change: np.ndarray | None = None

    def tile(self, row: Span, column: Span) -> np.ndarray:
        """Return a tile as float32, padded at the bottom and right as the network would."""
        tile = as_float(cut_tile(self.pixels, row, column))
        if self.change is None:
            return tile
        height, width = self.pixels.shape[:2]
        places = padded_indices(height, row), padded_indices(width, column)
        return (tile + enlarge(self.change, *places)).clip(0, 1)

    def whole(self) -> np.ndarray:
        """Return all of it as float32."""
        whole = as_float(self.pixels)
        if self.change is None:
            return whole
        rows, columns = (np.arange(length) for length in whole.shape[:2])
        return (whole + enlarge(self.change, rows, columns)).clip(0, 1)
