"""File ⇄ array: EXIF orientation, ICC, alpha, grey, 16-bit: one policy, one place.

A photo is read upright, as RGB of 8 or 16 bits. Its colours are not converted: the profile travels
along, as EXIF, XMP, IPTC, resolution and transparency do. What a file or a format cannot give is
never lost in silence: it becomes a note for the user, or an error that says what to do.

    What                     when read                           when written
    EXIF orientation         applied, then set to 1              1
    grey (also 1-bit)        three equal channels, grey=True     one channel, the luma
    16 bits                  uint16                              PNG, TIFF; else rounded to 8, note
    transparency             alpha, not premultiplied            JPEG, BMP: laid on white, note
    palette                  RGB, note                           GIF: 256 colours, note
    colour without profile   kept; AVIF: profile                 PNG: kept; profile, or note
    a lossless file                                              lossless; JPEG, AVIF: note
    CMYK, CIELAB             sRGB, note
    a profile that misfits   left out, note                      left out, note
    no end marker (JPEG)     note
    cut off (JPEG, PNG)      refused, or as far as it goes, note
    several frames           the first, note
    camera raw (extra)       developed, 16-bit sRGB, note
    floats                   refused
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from fairweather.errors import TAKEN, FileTakenError, ImageError, installing
from fairweather.files import replacing
from fairweather.imaging.decoding import READS_AVIF, Decoded, Truncated, decode
from fairweather.imaging.encoding import FORMATS, Chroma, Format, encode
from fairweather.imaging.extra_formats import HEIF_SUFFIXES, RAW_SUFFIXES
from fairweather.imaging.metadata import Metadata, uprighted
from fairweather.imaging.signatures import format_of

DEFAULT_MAX_PIXELS = 500_000_000
IMAGE_SUFFIXES: frozenset[str] = frozenset((*FORMATS, ".jxl", *RAW_SUFFIXES))
_MISSING = {
    ".avif": not READS_AVIF,
    **dict.fromkeys(HEIF_SUFFIXES, find_spec("pillow_heif") is None),
}
WRITTEN_SUFFIXES: frozenset[str] = frozenset(
    suffix for suffix in FORMATS if not _MISSING.get(suffix)
)


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo in memory.

    Attributes:
        pixels: (H, W, 3) RGB, uint8 or uint16, upright.
        alpha: (H, W) opacity of the same type, or None.
        grey: The file was greyscale: the channels are equal, and one is written.
        metadata: What travels to the file written.
        notes: Sentences for the user about what could not be read as it was.

    Raises:
        ImageError: Shapes or types are others.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype not in (np.uint8, np.uint16):
            raise ImageError(
                f"photo: pixels are {shape} {dtype} but must be (H, W, 3), uint8 or uint16"
            )
        if self.alpha is not None and (self.alpha.shape, self.alpha.dtype) != (shape[:2], dtype):
            raise ImageError(
                f"photo: alpha is {self.alpha.shape} {self.alpha.dtype} but must be {shape[:2]} "
                f"{dtype}, like the pixels"
            )


def read_image(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    truncated: Truncated = "refuse",
) -> Photo:
    """Read a photo: JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF, told by content and not by name.

    With the extras `heif`, `jxl` and `raw` HEIF, JPEG XL (8 bits) and camera raw files, too.

    It takes at most 24 bytes of memory per pixel while it is read (a common JPEG 7), and what its
    samples take afterwards.

    Args:
        path: The file.
        max_pixels: An image with more is refused, from its header and before anything is decoded.
        truncated: `allow` reads JPEG and PNG files that are cut off as far as they go, with a note.

    Raises:
        ImageError: The file cannot be opened, is no image or a damaged one, or is too large.
    """
    path = Path(path)
    with _explained(path, "read"):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ImageError(f"'{path}' is not a regular file; copy its content into one")
        with path.open("rb") as file:
            decoded = decode(file, path=path, max_pixels=max_pixels, truncated=truncated)
            size = file.seek(0, os.SEEK_END)
        about = decoded.metadata
        beside = sum(len(block or b"") for block in (about.exif, about.icc_profile, about.xmp))
        return _photo(replace(decoded, metadata=replace(about, coded_bytes=max(0, size - beside))))


def write_image(
    path: str | os.PathLike[str],
    photo: Photo,
    *,
    overwrite: bool = True,
    quality: int | None = None,
    chroma: Chroma | None = None,
) -> tuple[str, ...]:
    """Write a photo in the format that the suffix of `path` names, completely or not at all.

    What the format cannot hold is left out or approximated as a photo editor would do on export
    (transparency is laid on white, 16 bits are rounded to 8), and the notes say so.

    Args:
        path: The file; its folder must exist.
        photo: The photo, whose metadata goes along as far as the format carries it.
        overwrite: False refuses to replace a file, even one that appears while this one is written.
        quality: 1 to 100, for JPEG, WebP, AVIF and HEIC; WebP is lossless at 100. None keeps that
            of a JPEG in a JPEG, makes lossless WebP of what comes from a lossless file, makes WebP,
            AVIF and HEIC from a file of the same format about as large as that, up to 95, and is
            95 otherwise.
        chroma: Resolution of the colours in JPEG, AVIF and HEIC. None keeps that of a JPEG in a
            JPEG, and is full resolution otherwise.

    Returns:
        Sentences for the user about what the format could not hold.

    Raises:
        ImageError: The suffix is unknown, the image is too large for the format, the file exists
            and `overwrite` is False (FileTakenError), or it cannot be written.
    """
    path = Path(path)
    target = check_writable(path, shape=photo.pixels.shape)
    if quality is not None and not 1 <= quality <= 100:
        raise ImageError(f"quality is {quality} but must be 1 to 100")
    with _explained(path, "written"), replacing(path, overwrite=overwrite) as file:
        return encode(
            file,
            target,
            pixels=photo.pixels,
            alpha=photo.alpha,
            grey=photo.grey,
            metadata=photo.metadata,
            quality=quality,
            chroma=chroma,
        )


def check_writable(path: Path, *, shape: tuple[int, ...] = (1, 1)) -> Format:
    """Return the format to write; refuse what would be found to be impossible after the work.

    Raises:
        ImageError: The suffix names no format that is written here (the message names the extra
            that writes it, if there is one), its format holds no image of that shape, or the folder
            may not be written to.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        way = f"use one of {', '.join(sorted(WRITTEN_SUFFIXES))}"
        if suffix in HEIF_SUFFIXES:
            way = f"install what writes it with: {installing('heif')}; or {way}"
        raise ImageError(f"'{path}' cannot be written as '{path.suffix}'; {way}")
    target, (height, width) = FORMATS[suffix], shape[:2]
    if max(height, width) > target.max_side_px:
        raise ImageError(
            f"'{path}': {target.name} holds no more than {target.max_side_px} pixels a side and "
            f"the photo is {width} × {height}; write .png or .tif"
        )
    folder = os.path.realpath(path.parent)
    if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK):  # noqa: PTH112
        raise ImageError(
            f"'{path}' may not be written: the folder '{path.parent}' is read-only; choose another"
        )
    return target


def written_suffix(path: Path) -> str:
    """Return the suffix for the restored version of a photo: its own, if that can be written.

    Camera raw files become 16-bit TIFF, and others that are only read PNG.
    """
    suffix = path.suffix.lower()
    if suffix in RAW_SUFFIXES:
        return ".tif"
    return path.suffix if suffix in WRITTEN_SUFFIXES or suffix not in IMAGE_SUFFIXES else ".png"


def _photo(decoded: Decoded) -> Photo:
    """Turn what was decoded upright and takes alpha apart."""
    samples = _upright(decoded.samples, decoded.orientation)
    height, width, channels = samples.shape
    grey = channels < 3
    pixels = np.repeat(samples[..., :1], 3, axis=-1) if grey else samples[..., :3]
    alpha = samples[..., -1] if channels in (2, 4) else None
    metadata, notes = decoded.metadata, decoded.notes
    if metadata.dpi and decoded.orientation > 4:
        metadata = replace(metadata, dpi=metadata.dpi[::-1])
    metadata = uprighted(metadata, height=height, width=width)
    if decoded.metadata.exif and not metadata.exif:
        notes += ("the EXIF data are damaged and are left out",)
    return Photo(
        pixels=np.ascontiguousarray(pixels),
        alpha=None if alpha is None else np.ascontiguousarray(alpha),
        grey=grey,
        metadata=metadata,
        notes=notes,
    )


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Return a view of (H, W, C) samples after an EXIF orientation (Exif 2.32, 4.6.4 A)."""
    if orientation > 4:
        samples = samples.swapaxes(0, 1)
    down = -1 if orientation in (3, 4, 7, 8) else 1
    across = -1 if orientation in (2, 3, 6, 7) else 1
    return samples[::down, ::across]


@contextmanager
def _explained(path: Path, deed: str) -> Iterator[None]:
    """Turn whatever goes wrong with a file into an ImageError of one line.

    Parsers raise nearly every kind of exception on damaged files, hence `Exception`; interrupts
    pass through.
    """
    try:
        yield
    except ImageError:
        raise
    except FileExistsError as error:
        raise FileTakenError(f"'{path}' {TAKEN}") from error
    except MemoryError as error:
        raise ImageError(
            f"'{path}' cannot be {deed}: the memory does not suffice; close other programs"
        ) from error
    except Exception as error:
        raise ImageError(f"'{path}' {_reason(path, deed, error=error)}") from error


def _reason(path: Path, deed: str, *, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return f"is a symbolic link to '{path.readlink()}', which does not exist"
        if deed == "written" and not path.parent.is_dir():
            return f"cannot be {deed}: there is no folder '{path.parent}'; create it first"
        return "does not exist; check the name"
    if isinstance(error, IsADirectoryError):
        return f"is a folder and cannot be {deed}; give the path of an image"
    if isinstance(error, PermissionError):
        return f"may not be {deed} (permission denied); change the permissions of file or folder"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be {deed}: {error.strerror}"
    text = " ".join(str(error).split())
    if deed == "written":
        return f"cannot be written ({type(error).__name__}: {text}); try .png"
    if "truncated" in text.lower():
        return f"is cut off: {text}; copy it again from where it came from"
    return f"is damaged ({type(error).__name__}: {text}); copy it again from where it came from"


def suffix_of(head: bytes, *, name: str) -> str:
    """Return the suffix of a file by what it holds.

    Args:
        head: its first `HEAD_BYTES` bytes.
        name: what it is called in errors.

    Raises:
        ImageError: if it is no image that is read here.
    """
    told = format_of(head, path=name)
    suffixes = (suffix for suffix, known in FORMATS.items() if known.name == told)
    return next(suffixes, f".{told.lower()}")  # such as .jxl
