"""Make a folder of pairs and a contact sheet from a folder of clean photographs."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from fairweather.data.degradations import DEGRADATIONS
from fairweather.data.pairs import Made, make_pairs, name_images, pair_files
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
) -> Made:
    """Write `input/` (degraded) and `target/` (clean), pairs of the layout `folders`, as 8-bit PNG.

    A photograph that cannot be degraded does not stop the rest. A call that was stopped goes on.

    Args:
        source: a folder of clean photographs, searched with all below.
        out: where to write; pairs that it holds must be of the same task and seed.
        task: which degradation, a key of `DEGRADATIONS`.
        seed: of the degradation; with the same seed a file gets the same degradation in any folder.
        on_done: called with (photographs done, photographs in all).

    Returns:
        How many pairs there are, and what could not be degraded.

    Raises:
        OptionError: for a task without a degradation.
        DataError: if there are no photographs, two of one name, or other pairs in `out`; or if none
            of the photographs can be degraded.
    """
    if task not in DEGRADATIONS:
        raise OptionError(f"task {task!r}: is none of {', '.join(DEGRADATIONS)}")
    photos = name_images(source)

    def make(name: Path, path: Path) -> tuple[Photo, Photo]:
        clean = read_image(path)
        clean = replace(clean, pixels=as_bytes(clean.pixels), alpha=None)
        name_seed = zlib.crc32(f"{seed} {name.as_posix()}".encode())
        degraded = degrade_pixels(clean.pixels, task=task, seed=name_seed)
        return replace(clean, pixels=degraded, grey=False), clean

    made = make_pairs(photos, out, make, about={"task": task, "seed": seed}, on_done=on_done)
    pairs = (pair_files(out, name) for name in photos)
    whole = (pair for pair in pairs if all(one.exists() for one in pair))
    shown = [read_image(one) for pair in islice(whole, SHEET_PHOTOS) for one in pair]
    write_contact_sheet(out / "contact_sheet.jpg", shown, columns=4)
    return made


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
