"""Data sets whose files hold both images of a pair side by side → folders of pairs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from fairweather.data.layouts.find import layout_named, wrong_tree
from fairweather.data.layouts.folders import side_by_side_names
from fairweather.data.pairs import read_bytes, refuse_pairs_in, write_pair
from fairweather.errors import DataError, OptionError
from fairweather.imaging import Photo

LOOKED_AT = 15


def unpack_side_by_side(
    root: Path,
    out: Path,
    *,
    layout: str,
    split: str = "train",
    degraded: Literal["left", "right"] | None = None,
) -> int:
    """Take files that hold both images of a pair apart, so that `find_layout_pairs` reads `out`.

    The halves become PNG files, which lose nothing, in `out/SPLIT/input` and `out/SPLIT/target`.

    Args:
        root: the folder that the layout describes.
        out: where to write; it must not hold this split yet.
        layout: one whose pairs lie side by side, as `rain800` and `did-mdn`.
        split: one of the layout's splits.
        degraded: which half is degraded; None looks at some files and takes the half with the
            stronger edges, which is the one with rain.

    Returns:
        How many pairs were written.

    Raises:
        OptionError: The layout has nothing side by side.
        DataError: The tree is another one, a width is odd, `out` holds the split already, or
            looking at the files does not tell the halves.
        ImageError: A file cannot be read or written.
    """
    folders = layout_named(layout).side_by_side.get(split)
    if folders is None:
        raise OptionError(f"layout '{layout}', split {split!r}: has no images side by side")
    names = side_by_side_names(root, folders)
    if not names:
        raise DataError(wrong_tree(root, name=layout, split=split, expected=folders))
    refuse_pairs_in(out / split)
    degraded = degraded or _look(list(names.values()))
    for name, path in names.items():
        left, right = (Photo(half) for half in _halves(path))
        if degraded == "left":
            write_pair(out / split, name, degraded=left, clean=right)
        else:
            write_pair(out / split, name, degraded=right, clean=left)
    return len(names)


def _halves(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the left and the right half, (H, W / 2, 3) uint8 each."""
    pixels = read_bytes(path)
    width = pixels.shape[1]
    if width % 2:
        raise DataError(f"{path}: is {width} px wide, which two images side by side cannot be")
    return pixels[:, : width // 2].copy(), pixels[:, width // 2 :].copy()


def _look(files: Sequence[Path]) -> Literal["left", "right"]:
    """Tell which half is degraded: rain adds edges, and nearly all files must agree."""
    chosen = files[:: max(1, len(files) // LOOKED_AT)][:LOOKED_AT]
    rainy_left = 0
    for path in chosen:
        left, right = (
            float(np.abs(np.diff(half.astype(np.int16), axis=1)).mean()) for half in _halves(path)
        )
        rainy_left += left > right
    share = rainy_left / len(chosen)
    if 0.1 < share < 0.9:
        raise DataError(
            f"{files[0].parent}: of {len(chosen)} files the left half has the stronger edges in"
            f" {rainy_left}, which does not tell which half is degraded; say it: --degraded left or"
            " right"
        )
    return "left" if share >= 0.9 else "right"
