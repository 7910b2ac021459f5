"""What every export says about itself, and what it has to prove before it counts as written."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np

from fairweather.errors import TAKEN, ExportError, OptionError
from fairweather.models import Config, architecture_of, look_margin_px, overlap_px

Size = tuple[int, int]
Images = Mapping[Size, np.ndarray]
Runner = Callable[..., np.ndarray]

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


def look_path(path: Path) -> Path:
    """Return where the looker of the restorer at `path` lies."""
    return path.with_name(f"{path.stem}.look{path.suffix}")


def describe_export(
    config: Config, metadata: Mapping[str, str] | None, *, shape: str, looker: str
) -> dict[str, str]:
    """Return the metadata of an exported restorer.

    Args:
        config: the architecture.
        metadata: what the weights file says (task, licence, …), as `read_metadata` gives it.
        shape: of input and output, as `(B, 3, H, W)`.
        looker: the name of what gives the context.
    """
    inputs = f"image: {shape} float32, RGB in [0, 1]"
    about = {
        "multiple_px": str(config.size_multiple),
        "overlap_px": str(overlap_px(config)),
    }
    if config.global_context:
        channels = config.channels[config.levels]
        inputs += f"; context: (B, rows, columns, {channels}) float32"
        about["context"] = (
            f"what {looker} gives for the image; for a tile the mean over the"
            " photograph that it is part of"
        )
    if config.proxy_px is not None:
        about["proxy"] = proxy_note(config.proxy_px)
    return {
        **(metadata or {}),
        "architecture": architecture_of(config),
        "config": json.dumps(dataclasses.asdict(config)),
        "fairweather_version": version("fairweather"),
        "input": inputs,
        "output": f"restored: {shape} float32, RGB, clipped to [0, 1]",
        **about,
    }


def describe_look(
    config: Config, metadata: Mapping[str, str] | None, *, shape: str
) -> dict[str, str]:
    """Return the metadata of an exported looker; arguments as for `describe_export`."""
    channels = config.channels[config.levels]
    return {
        **(metadata or {}),
        "architecture": "ast, look",
        "config": json.dumps(dataclasses.asdict(config)),
        "fairweather_version": version("fairweather"),
        "input": f"image: {shape} float32, RGB in [0, 1]",
        "output": f"context: (B, rows, columns, {channels}) float32, what each place says",
        "place_px": str(config.place_px),
        "margin_px": str(look_margin_px(config)),
    }


def export_notes(config: Config, *, looker: str) -> tuple[str, ...]:
    """Say what a user has to add to an exported file to get the pixels of `Restorer`."""
    notes: list[str] = []
    if config.global_context:
        notes.append(
            "these weights judge a photograph as a whole: the input context is what"
            f" {looker} gives for it; docs/export.md says how tiles get theirs"
        )
    if config.proxy_px is not None:
        notes.append(proxy_note(config.proxy_px))
    return tuple(notes)


def proxy_note(longest_px: int) -> str:
    """Say what is missing of a restorer that works on a small version of the photograph."""
    return (
        f"these weights restore a photograph scaled down to {longest_px} px; the file holds the"
        " network alone, so handing its change on to the full size is up to the program"
    )


def sample_images(
    *, channels_last: bool, sizes: tuple[Size, ...] = SIZES, batched: bool = True
) -> Images:
    """Return noise to verify with, the same every time.

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
    """Compare what a file computes with what the model computes.

    Args:
        exported: runs the file, in the runtime of its format.
        reference: runs the model, as the file should.
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


def largest(first: dict[Size, float], second: dict[Size, float]) -> dict[Size, float]:
    """Return the larger difference for each size."""
    return {size: max(difference, second[size]) for size, difference in first.items()}


def check_targets(
    path: Path, config: Config, *, suffixes: Sequence[str], overwrite: bool
) -> list[Path]:
    """Return all files of an export; `check_target` for each of them."""
    check_target(path, suffix=suffixes[0], overwrite=overwrite)
    graphs = [path, look_path(path)] if config.global_context else [path]
    files = [graph.with_suffix(suffix) for graph in graphs for suffix in suffixes]
    for file in files:
        check_target(file, suffix=file.suffix, overwrite=overwrite)
    return files


def check_target(path: Path, *, suffix: str, overwrite: bool) -> None:
    """Refuse a file name of another format, and what must not be replaced.

    Raises:
        OptionError: for another suffix.
        ExportError: if there is something of that name.
    """
    if path.suffix != suffix:
        raise OptionError(f"{path}: a file of this format ends in {suffix}")
    if path.is_dir():
        raise ExportError(f"'{path}' is a folder; choose another name")
    if path.exists() and not overwrite:
        raise ExportError(f"'{path}' {TAKEN}")


def size_bytes(*paths: Path) -> int:
    """Return how large files, and folders with all below, are together."""
    files = [file for path in paths for file in (path, *path.rglob("*")) if file.is_file()]
    return sum(file.stat().st_size for file in files)
