"""What every export says about itself, and what it has to prove before it counts as written."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from fairweather.errors import ExportError, OptionError
from fairweather.models import ASTConfig

Size = tuple[int, int]
Images = Mapping[Size, np.ndarray]
Runner = Callable[[np.ndarray], np.ndarray]

SIZES: tuple[Size, ...] = ((64, 64), (200, 336), (121, 83))


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model in the format of another program.

    Attributes:
        path: the file or folder.
        bytes: how large it is, with the files that belong to it.
        differences: the largest |difference| from the model's own output for each verified size.
        notes: what a user of the file should know.
    """

    path: Path
    bytes: int
    differences: dict[Size, float]
    notes: tuple[str, ...] = ()


def describe_export(
    config: ASTConfig, metadata: Mapping[str, str] | None, *, shape: str
) -> dict[str, str]:
    """The metadata of an exported file.

    Args:
        config: the architecture.
        metadata: what the weights file says (task, licence, …), as `read_metadata` gives it.
        shape: of input and output, as `(B, 3, H, W)`.
    """
    return {
        **(metadata or {}),
        "architecture": "ast",
        "config": json.dumps(dataclasses.asdict(config)),
        "fairweather_version": version("fairweather"),
        "input": f"image: {shape} float32, RGB in [0, 1]",
        "output": f"restored: {shape} float32, RGB, clipped to [0, 1]",
    }


def sample_images(
    *, channels_last: bool, sizes: tuple[Size, ...] = SIZES, batched: bool = True
) -> Images:
    """Noise to verify with, the same every time.

    Args:
        channels_last: (B, H, W, 3) instead of (B, 3, H, W).
        sizes: (height, width) of each.
        batched: whether the first is a batch of two; the others are batches of one.
    """
    generator = np.random.default_rng(0)
    images = {}
    for index, size in enumerate(sizes):
        batch = 2 if batched and index == 0 else 1
        shape = (batch, *size, 3) if channels_last else (batch, 3, *size)
        images[size] = generator.random(shape, dtype=np.float32)
    return images


def verify_export(
    exported: Runner, reference: Runner, *, images: Images, tolerance: float
) -> dict[Size, float]:
    """Compares what a file computes with what the model computes.

    Args:
        exported: runs the file, in the runtime of its format.
        reference: runs the model, and clips.
        images: what to run both on.
        tolerance: the largest |difference| allowed.

    Returns:
        The largest |difference| for each size.

    Raises:
        ExportError: if one is above the tolerance, or the file does not run at some size.
    """
    differences = {}
    for (height, width), image in images.items():
        expected = reference(image)
        try:
            found = exported(image)
        except Exception as error:  # each runtime raises what it likes
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ExportError(
                f"the exported model fails at {height}×{width}, so nothing was written: {reason}"
            ) from error
        if found.shape != expected.shape:
            raise ExportError(
                f"the exported model gives {found.shape} instead of {expected.shape} at"
                f" {height}×{width}, so nothing was written"
            )
        difference = float(np.abs(found - expected).max())
        if not difference <= tolerance:  # true for NaN as well
            raise ExportError(
                f"the exported model is {difference:.1e} away from the original at"
                f" {height}×{width}, where {tolerance:.0e} is allowed, so nothing was written"
            )
        differences[height, width] = difference
    return differences


def check_target(path: Path, *, suffix: str, overwrite: bool) -> None:
    """Refuses a file name of another format, and what must not be replaced.

    Raises:
        OptionError: for another suffix.
        ExportError: if there is something of that name.
    """
    if path.suffix != suffix:
        raise OptionError(f"{path}: a file of this format ends in {suffix}")
    if path.is_dir():
        raise ExportError(f"'{path}' is a folder; choose another name")
    if path.exists() and not overwrite:
        raise ExportError(
            f"'{path}' exists already; choose another name, or allow it with --overwrite"
            " (overwrite=True)"
        )


def size_bytes(*paths: Path) -> int:
    """How large files, and folders with all below, are together."""
    files = [file for path in paths for file in (path, *path.rglob("*")) if file.is_file()]
    return sum(file.stat().st_size for file in files)
