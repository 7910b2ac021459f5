"""Make a folder of pairs and a contact sheet from a folder of clean photographs."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fairweather.data.degradations import DEGRADATIONS
from fairweather.data.pairs import name_images, refuse_pairs_in, write_pair
from fairweather.errors import DataError, OptionError
from fairweather.imaging import Photo, as_bytes, read_image, write_contact_sheet

SMALLEST_SIDE_PX = 16
SHEET_PHOTOS = 12


def degrade_folder(
    source: Path,
    out: Path,
    *,
    task: str,
    seed: int = 0,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write `input/` (degraded) and `target/` (clean), pairs of the layout `folders`, as 8-bit PNG.

    Args:
        source: a folder of clean photographs, searched with all below.
        out: where to write; it must not hold pairs yet.
        task: which degradation, a key of `DEGRADATIONS`.
        seed: of the degradation; with the same seed a file gets the same degradation in any folder.
        on_done: called with (photographs done, photographs in all).

    Returns:
        How many pairs were written.

    Raises:
        OptionError: for a task without a degradation.
        DataError: if there are no photographs, two of one name, or pairs in `out` already.
        ImageError: if a photograph cannot be read or written.
    """
    if task not in DEGRADATIONS:
        raise OptionError(f"task {task!r}: is none of {', '.join(DEGRADATIONS)}")
    photos = name_images(source)
    refuse_pairs_in(out)
    shown: list[Photo] = []
    for number, (name, path) in enumerate(photos.items(), 1):
        clean = read_image(path)
        clean = replace(clean, pixels=as_bytes(clean.pixels), alpha=None)
        name_seed = zlib.crc32(f"{seed} {name.as_posix()}".encode())
        degraded = replace(
            clean, pixels=degrade_pixels(clean.pixels, task=task, seed=name_seed), grey=False
        )
        write_pair(out, name, degraded=degraded, clean=clean)
        if len(shown) < 2 * SHEET_PHOTOS:
            shown += [degraded, clean]
        on_done(number, len(photos))
    write_contact_sheet(out / "contact_sheet.jpg", shown, columns=4)
    return len(photos)


def degrade_pixels(pixels: np.ndarray, *, task: str, seed: int) -> np.ndarray:
    """Degrade one image, (H, W, 3) uint8 RGB.

    Raises:
        DataError: if a side is under 16 px.
    """
    if min(pixels.shape[:2]) < SMALLEST_SIDE_PX:
        raise DataError(
            f"an image of {pixels.shape[0]}×{pixels.shape[1]} px is too small to be degraded;"
            f" each side needs {SMALLEST_SIDE_PX} px"
        )
    batch = torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None]
    degraded = DEGRADATIONS[task](batch, generator=torch.Generator().manual_seed(seed))
    return as_bytes(degraded[0].permute(1, 2, 0).numpy())
