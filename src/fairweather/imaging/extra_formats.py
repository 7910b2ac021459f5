"""Photos that optional packages read: HEIF, JPEG XL and camera raw files."""

import importlib
import io
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from fairweather.errors import ImageError, installing
from fairweather.imaging import tiff
from fairweather.imaging.metadata import EXIF_PREFIX, Metadata, read_tiff_metadata

HEIF_SUFFIXES = (".heic", ".heif", ".hif")
RAW_SUFFIXES = (
    ".3fr", ".arw", ".cr2", ".cr3", ".dng", ".erf", ".iiq", ".mef", ".mos", ".mrw", ".nef", ".nrw",
    ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
)  # fmt: skip

_PACKAGES = {
    "HEIF": ("pillow_heif", "heif", "a HEIC photo"),
    "JXL": ("pillow_jxl", "jxl", "a JPEG XL image"),
    "RAW": ("rawpy", "raw", "a camera raw file"),
}
_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # JPEG XL, width first
CheckSize = Callable[[tuple[int, int]], None]


class Extra(NamedTuple):
    """What was read: upright samples, (H, W, C) uint8 or uint16, and what goes with them."""

    samples: np.ndarray
    metadata: Metadata
    code_points: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()


def read_extra(name: str, file: BinaryIO, *, path: object, check_size: CheckSize) -> Extra | bytes:
    """Read a file of one of the formats above.

    Args:
        name: HEIF, JXL or RAW.
        file: The file, at its start.
        path: Its name for messages.
        check_size: Called with (width, height) before pixels are decoded.

    Returns:
        The photo; or a JPEG file, if that is what a JPEG XL file holds.

    Raises:
        ImageError: The package is not installed; the message names the extra.
    """
    module, extra, what = _PACKAGES[name]
    try:
        package = importlib.import_module(module)
    except ImportError as error:
        raise ImageError(
            f"'{path}' is {what}; to read it, install what does with: {installing(extra)}; or"
            " convert it to JPEG, PNG or TIFF first"
        ) from error
    readers = {"HEIF": _read_heif, "JXL": _read_jxl, "RAW": _read_raw}
    try:
        return readers[name](package, file, check_size)
    except Exception as error:
        if "Unsupported" not in type(error).__name__:
            raise
        raise ImageError(
            f"'{path}' is {what} of a kind that {module} does not know; develop it first and"
            " restore the TIFF or JPEG"
        ) from error


def _read_heif(package: Any, file: BinaryIO, check_size: CheckSize) -> Extra:
    photo = package.open_heif(file, convert_hdr_to_8bit=False)
    check_size(photo.size)
    told = photo.info
    samples = np.asarray(photo)
    samples = samples if samples.ndim == 3 else samples[..., None]
    if samples.dtype == np.uint16:  # 10 or 12 bits, shifted up
        samples = samples | samples >> told["bit_depth"]
    if photo.premultiplied_alpha and samples.shape[2] == 4:
        raise ValueError("premultiplied alpha")
    notes = (f"only the first of {len(photo)} frames is restored",) * (len(photo) > 1)
    if any("gainmap" in name for name in told.get("aux", {})):
        notes += ("the HDR gain map is not restored: the result is the standard picture",)
    nclx = told.get("nclx_profile") or {}
    points = nclx.get("color_primaries", 2), nclx.get("transfer_characteristics", 2)
    exif = told.get("exif")
    return Extra(
        samples,
        Metadata(
            format="HEIF",
            exif=exif if not exif or exif.startswith(EXIF_PREFIX) else EXIF_PREFIX + exif,
            icc_profile=told.get("icc_profile") or None,
            xmp=told.get("xmp") or None,
        ),
        points if max(points) < 256 else None,
        notes,
    )


def _read_jxl(package: Any, file: BinaryIO, check_size: CheckSize) -> Extra | bytes:
    content = file.read()
    check_size(_size_of_jxl(content))
    try:
        is_jpeg, info, data, icc_profile, boxes = package.Decoder(num_threads=1)(content)
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ == "PanicException":  # of Rust, which is no Exception
            raise ValueError(str(error)) from error
        raise
    if is_jpeg:
        return bytes(data)
    channels = {"L": 1, "I;16": 1, "LA": 2, "RGB": 3, "RGBA": 4}.get(info.mode)
    if channels is None:
        raise ValueError(f"pixels of kind {info.mode}, whose white point is not known")
    samples = np.frombuffer(data, "=u2" if info.mode == "I;16" else np.uint8)
    told = {bytes(box.box_type): bytes(box.data) for box in boxes}
    exif = told.get(b"Exif")
    if exif and exif[4:6] in (b"II", b"MM"):  # after an offset
        exif = exif[4:]
    metadata = Metadata(
        format="JXL",
        exif=EXIF_PREFIX + exif if exif else None,
        icc_profile=bytes(icc_profile or b"") or None,
        xmp=told.get(b"xml "),
    )
    return Extra(samples.reshape(info.height, info.width, channels), metadata)


def _size_of_jxl(content: bytes) -> tuple[int, int]:
    """Return width and height from the header (ISO/IEC 18181-1, size header)."""
    at = 0
    if not content.startswith(b"\xff\x0a"):
        at = min(
            at + skip
            for name, skip in ((b"jxlc", 4), (b"jxlp", 8))
            if (at := content.find(name)) >= 0
        )
    bits = int.from_bytes(content[at + 2 : at + 18], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    def side(*, small: bool) -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    small = bool(take(1))
    height = side(small=small)
    ratio = _RATIOS[take(3)]
    width = side(small=small) if ratio is None else height * ratio[0] // ratio[1]
    return width, height


def _read_raw(package: Any, file: BinaryIO, check_size: CheckSize) -> Extra:
    content = file.read()
    if tiff.lacks_pixels(content):  # LibRaw would print a line of its own
        raise ValueError("its pixels are truncated")
    with package.imread(io.BytesIO(content)) as raw:
        check_size((raw.sizes.raw_width, raw.sizes.raw_height))
        samples = raw.postprocess(output_bps=16, use_camera_wb=True, gamma=(2.4, 12.92))
    try:
        directory = tiff.read_directory(io.BytesIO(content))
        exif = read_tiff_metadata(io.BytesIO(content), directory)[0].exif
    except Exception:  # of nearly any kind: not every raw file is a TIFF file
        exif = None
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return Extra(
        samples,
        Metadata(format="RAW", exif=exif, icc_profile=srgb, is_lossless=True),
        notes=("the camera raw file is developed with the camera's white balance, 16-bit sRGB",),
    )


def write_heif(
    file: BinaryIO, image: Image.Image, *, quality: int, subsampling: str, metadata: Metadata
) -> None:
    """Write a HEIF file with 8 bits per channel."""
    try:
        package = importlib.import_module("pillow_heif")
    except ImportError as error:
        raise ImageError(f"HEIC is written after: {installing('heif')}") from error
    image.info = {"icc_profile": metadata.icc_profile} if metadata.icc_profile else {}
    told = {"exif": metadata.exif, "xmp": metadata.xmp}
    chroma = int(subsampling.replace(":", ""))
    package.from_pillow(image).save(file, quality=quality, chroma=chroma, **told)
