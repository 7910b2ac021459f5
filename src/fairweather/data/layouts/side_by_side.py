"""Data sets whose files hold both images of a pair side by side → folders of pairs."""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from fairweather.data.layouts.find import layout_named, wrong_tree
from fairweather.data.layouts.folders import side_by_side_names
from fairweather.data.pairs import Made, make_pairs, read_bytes
from fairweather.errors import DataError, FairweatherError, OptionError
from fairweather.imaging import Photo

LOOKED_AT = 15


def unpack_side_by_side(
    root: Path,
    out: Path,
    *,
    layout: str,
    split: str = "train",
    degraded: Literal["left", "right"] | None = None,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> Made:
    """Take files that hold both images of a pair apart, so that `find_layout_pairs` reads `out`.

    The halves become PNG files, which lose nothing, in `out/SPLIT/input` and `out/SPLIT/target`. A
    file that cannot be taken apart does not stop the rest. A call that was stopped goes on.

    Args:
        root: the folder that the layout describes.
        out: where to write; it must not hold other pairs of this split.
        layout: one whose pairs lie side by side, as `rain800` and `did-mdn`.
        split: one of the layout's splits.
        degraded: which half is degraded; None looks at some files and takes the half with the
            stronger edges, which is the one with rain.
        on_done: called with (files done, files in all).

    Returns:
        How many pairs there are, and which files could not be taken apart.

    Raises:
        OptionError: The layout has nothing side by side.
        DataError: The tree is another one, `out` holds other pairs of the split, looking at the
            files does not tell the halves, or none can be taken apart.
    """
    folders = layout_named(layout).side_by_side.get(split)
    if folders is None:
        raise OptionError(f"layout '{layout}', split {split!r}: has no images side by side")
    names = side_by_side_names(root, folders)
    if not names:
        raise DataError(wrong_tree(root, name=layout, split=split, expected=folders))
    side = degraded or _look(list(names.values()))

    def make(name: Path, path: Path) -> tuple[Photo, Photo]:
        left, right = (Photo(half) for half in _halves(path))
        return (left, right) if side == "left" else (right, left)

    about = {"layout": layout, "split": split, "degraded": side}
    return make_pairs(names, out / split, make, about=about, on_done=on_done)


def _halves(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the left and the right half, (H, W / 2, 3) uint8 each."""
    pixels = read_bytes(path)
    width = pixels.shape[1]
    if width % 2:
        raise DataError(f"{path}: is {width} px wide, which two images side by side cannot be")
    return pixels[:, : width // 2].copy(), pixels[:, width // 2 :].copy()


def _look(files: Sequence[Path]) -> Literal["left", "right"]:
    """Tell which half is degraded: rain adds edges, and nearly all files must agree."""
    looked_at, rainy_left = 0, 0
    for path in files[:: max(1, len(files) // LOOKED_AT)][:LOOKED_AT]:
        with contextlib.suppress(FairweatherError):  # which is told when it is to be taken apart
            left, right = (
                float(np.abs(np.diff(half.astype(np.int16), axis=1)).mean())
                for half in _halves(path)
            )
            looked_at += 1
            rainy_left += left > right
    share = rainy_left / looked_at if looked_at else 0.5
    if 0.1 < share < 0.9:
        raise DataError(
            f"{files[0].parent}: of {looked_at} files the left half has the stronger edges in"
            f" {rainy_left}, which does not tell which half is degraded; say it: --degraded left or"
            " right"
        )
    return "left" if share >= 0.9 else "right"
