"""Samples → image file: what each format holds, and what becomes of the rest."""

import io
import math
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin

from fairweather.imaging import colour, png, tiff
from fairweather.imaging.containers import Chroma
from fairweather.imaging.extra_formats import HEIF_SUFFIXES, write_heif
from fairweather.imaging.metadata import (
    Metadata,
    profile_fits,
    save_options,
    too_long_for_jpeg,
    uprighted,
)
from fairweather.imaging.pixels import as_bytes, by_rows

_EVERYWHERE = ("exif", "icc_profile", "xmp")
_IN_WORDS = {
    "exif": "EXIF data",
    "icc_profile": "colour profile",
    "xmp": "XMP data",
    "iptc": "IPTC data",
    "comment": "comment",
    "text": "text",
}


@dataclass(frozen=True)
class Format:
    """What a file format can hold.

    Attributes:
        name: Pillow's name.
        max_side_px: The largest width and height.
        alpha: Whether it holds transparency.
        grey: Whether it holds one channel.
        deep: Whether it holds 16 bits per channel.
        lossless: Whether it can keep each pixel exactly.
        fields: The fields of `Metadata` that it carries.
    """

    name: str
    max_side_px: int
    alpha: bool = True
    grey: bool = True
    deep: bool = False
    lossless: bool = True
    fields: tuple[str, ...] = _EVERYWHERE


_JPEG = Format(
    "JPEG",
    65500,
    alpha=False,
    lossless=False,
    fields=(*_EVERYWHERE, "dpi", "iptc", "comment", "coding"),
)
_TIFF = Format("TIFF", 2**31 - 1, deep=True, fields=(*_EVERYWHERE, "dpi", "iptc"))
_PNG_FIELDS = (*_EVERYWHERE, "dpi", "text", "png_colour")
FORMATS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), _JPEG),
    ".png": Format("PNG", 2**31 - 1, deep=True, fields=_PNG_FIELDS),
    ".webp": Format("WEBP", 16383, grey=False),
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": Format("BMP", 2**31 - 1, alpha=False, fields=("dpi",)),
    ".gif": Format("GIF", 65535, lossless=False, fields=()),
    ".avif": Format("AVIF", 32768, lossless=False),
    **dict.fromkeys(HEIF_SUFFIXES, Format("HEIF", 16384, lossless=False)),
}


DEFAULT_QUALITY = 95
_SIZED = ("WEBP", "AVIF", "HEIF")  # that do not tell the quality that they were written with
_TRIED = (20, 45, 70, 85, DEFAULT_QUALITY)
_SAMPLE_PX, _SAMPLES = 128, 4  # side of a piece, and pieces in each direction


def encode(
    file: BinaryIO,
    target: Format,
    *,
    pixels: np.ndarray,
    alpha: np.ndarray | None,
    grey: bool,
    metadata: Metadata,
    quality: int | None = None,
    chroma: Chroma | None = None,
) -> tuple[str, ...]:
    """Write one image.

    Args:
        file: An empty file, open for writing.
        target: The format.
        pixels: (H, W, 3) RGB uint8 or uint16.
        alpha: (H, W) of the same type, or None.
        grey: Write the luma of the pixels as one channel.
        metadata: What goes along, as far as the format carries it.
        quality: See `write_image`.
        chroma: The same.

    Returns:
        Notes for the user: what the format could not hold.
    """
    notes: list[str] = []
    if quality is None:
        if metadata.is_lossless and target.name == "WEBP":
            quality = 100
        elif metadata.format == target.name in _SIZED and metadata.coded_bytes:
            quality = _quality_of_source(pixels, alpha, metadata=metadata, chroma=chroma)
        if metadata.is_lossless and not target.lossless:
            notes.append(f"{target.name} changes each pixel a little (.png is exact)")
    if not target.deep and pixels.dtype == np.uint16:
        notes.append(f"16 bits per channel become 8, all that {target.name} holds (.png keeps 16)")
        pixels, alpha = as_bytes(pixels), None if alpha is None else as_bytes(alpha)
    if alpha is not None and not target.alpha:
        if alpha.min() < np.iinfo(alpha.dtype).max:
            notes.append(f"transparency is laid on white: {target.name} has none (.png keeps it)")
            pixels = _on_white(pixels, alpha)
        alpha = None
    colour = _luma(pixels) if grey else np.ascontiguousarray(pixels)
    if grey and not target.grey:
        colour, grey = np.repeat(colour[..., None], 3, axis=-1), False
    height, width = colour.shape[:2]
    metadata = uprighted(metadata, height=height, width=width)
    metadata, lost = _carried(metadata, target, grey=grey)
    notes += lost
    if target.name == "TIFF":
        notes += tiff.write_tiff(file, _joined(colour, alpha), metadata=metadata)
    elif colour.dtype == np.uint16:
        png.write_deep(file, _joined(colour, alpha), chunks=_png_chunks(metadata))
    elif target.name == "GIF":
        notes += _write_gif(file, colour, alpha)
    else:
        notes += _write_with_pillow(
            file,
            colour,
            alpha,
            name=target.name,
            options=_options(target.name, metadata, quality=quality, chroma=chroma),
            metadata=metadata,
        )
    return tuple(notes)


def _quality_of_source(
    pixels: np.ndarray, alpha: np.ndarray | None, *, metadata: Metadata, chroma: Chroma | None
) -> int:
    """Return the quality at which a photo takes about as many bytes as the file it came from.

    It is found on pieces of a large photo, and is no higher than the default.
    """
    name = str(metadata.format)
    sample = _sample(as_bytes(pixels))
    opacity = None if alpha is None else _sample(as_bytes(alpha))
    wanted = metadata.coded_bytes * sample[..., 0].size / pixels[..., 0].size
    sizes: list[int] = []
    for quality in _TRIED:
        file = io.BytesIO()
        options = _options(name, Metadata(), quality=quality, chroma=chroma)
        _write_with_pillow(file, sample, opacity, name=name, options=options, metadata=Metadata())
        sizes.append(file.tell())
    return round(np.interp(math.log(wanted), np.log(np.maximum.accumulate(sizes)), _TRIED))


def _sample(samples: np.ndarray) -> np.ndarray:
    """Return pieces from all over a large image, side by side; a small one as it is."""
    height, width = samples.shape[:2]
    if height * width <= (_SAMPLES * _SAMPLE_PX) ** 2:
        return np.ascontiguousarray(samples)
    tops, lefts = (
        np.linspace(0, max(0, side - _SAMPLE_PX), _SAMPLES, dtype=int) for side in (height, width)
    )
    rows = (samples[top : top + _SAMPLE_PX] for top in tops)
    return np.concatenate(
        [
            np.concatenate([row[:, left : left + _SAMPLE_PX] for left in lefts], axis=1)
            for row in rows
        ]
    )


def _carried(metadata: Metadata, target: Format, *, grey: bool) -> tuple[Metadata, list[str]]:
    """Return the metadata that the file will hold, and notes about the rest."""
    notes = []
    if metadata.png_colour and not metadata.icc_profile and "png_colour" not in target.fields:
        profile = colour.profile_of(metadata.png_colour, grey=grey)
        metadata = replace(metadata, icc_profile=profile or None)
        if profile is None:
            notes.append(f"{target.name} cannot hold the colour space, such as HDR (.png keeps it)")
    if metadata.icc_profile and not profile_fits(metadata.icc_profile, grey=grey):
        kind = "grey" if grey else "RGB"
        notes.append(f"the colour profile is not for {kind} pixels and is left out")
        metadata = metadata.without("icc_profile")
    lost = {name for name in _IN_WORDS if getattr(metadata, name) and name not in target.fields}
    if target.name == "JPEG":
        lost |= set(too_long_for_jpeg(metadata))
    if lost:
        words = " and ".join(phrase for name, phrase in _IN_WORDS.items() if name in lost)
        keeps = [suffix for suffix in (".png", ".tif", ".jpg") if lost <= {*FORMATS[suffix].fields}]
        keeper = next(
            (f" ({suffix} keeps it)" for suffix in keeps if FORMATS[suffix] != target), ""
        )
        notes.append(f"{target.name} cannot hold the {words}{keeper}")
    left_out = {*Metadata.__dataclass_fields__} - {"format", *target.fields} | lost
    return metadata.without(*left_out), notes


def _luma(pixels: np.ndarray) -> np.ndarray:
    """Return the grey of (H, W, 3) pixels (ITU-R BT.601, as Pillow's "L"); equal channels stay."""
    weights = np.array([19595, 38470, 7471], np.uint32)  # of 65536

    def grey(band: np.ndarray) -> np.ndarray:
        return (band.astype(np.uint32) @ weights + 32768) >> 16

    return by_rows(grey, pixels, out=np.empty(pixels.shape[:2], pixels.dtype))


def _on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay the photo on white, as photo editors do when they export to JPEG."""
    white = np.uint32(np.iinfo(pixels.dtype).max)

    def laid(band: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        opacity = alpha[..., None].astype(np.uint32)
        return (band * opacity + white * (white - opacity) + white // 2) // white

    return by_rows(laid, pixels, alpha, out=np.empty_like(pixels))


def _joined(colour: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """Return (H, W, C) samples."""
    colour = colour if colour.ndim == 3 else colour[..., None]
    return colour if alpha is None else np.concatenate([colour, alpha[..., None]], axis=-1)


def _write_with_pillow(
    file: BinaryIO,
    colour: np.ndarray,
    alpha: np.ndarray | None,
    *,
    name: str,
    options: dict[str, Any],
    metadata: Metadata,
) -> tuple[str, ...]:
    image = Image.fromarray(colour)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    if name == "HEIF":
        write_heif(file, image, **options, metadata=metadata)
        return ()
    if name == "AVIF" and colour.ndim < 3:
        options = {"quality": options["quality"]}
    told = save_options(metadata, name)
    if name == "AVIF" and metadata.exif:
        told["exif"] = _ExifAsItIs(metadata.exif)
    image.save(file, name, **options, **told)
    if name == "AVIF" and alpha is not None and options["quality"] < 100:
        return ("AVIF keeps transparency only approximately at this quality (.png keeps it)",)
    return ()


def _options(
    name: str, metadata: Metadata, *, quality: int | None, chroma: Chroma | None
) -> dict[str, Any]:
    """Return what Pillow takes, for one of its formats."""
    told = metadata.coding if name == "JPEG" else None
    known = quality or DEFAULT_QUALITY
    if name == "WEBP":  # `exact` keeps the colours under transparent pixels
        return {"quality": known, "lossless": known == 100, "exact": True}
    if name in ("JPEG", "AVIF", "HEIF"):
        chroma = chroma or (told.chroma if told else "4:4:4")
        if told and quality is None:  # Pillow would scale the tables by a quality
            return {"qtables": told.tables, "subsampling": chroma}
        return {"quality": known, "subsampling": chroma}
    # zlib level 4 takes two thirds of the time of the default, for files as small.
    return {"compress_level": 4} if name == "PNG" else {}


class _ExifAsItIs(Image.Exif):
    """An EXIF block that is written as it is; Pillow's AVIF plugin would write it anew."""

    def __init__(self, block: bytes):
        super().__init__()
        self._block = block

    def __bool__(self) -> bool:
        return True

    def tobytes(self, offset: int = 8) -> bytes:
        return self._block


def _png_chunks(metadata: Metadata) -> list[tuple[bytes, bytes]]:
    """Let Pillow write the metadata into a PNG of one pixel, and take its chunks."""
    image = Image.new("RGB", (1, 1))
    options = save_options(metadata, "PNG")
    chunks = PngImagePlugin.getchunks(image, **options)
    return [(name, data) for name, data, _ in chunks if name not in (b"IHDR", b"IDAT", b"IEND")]


def _write_gif(file: BinaryIO, colour: np.ndarray, alpha: np.ndarray | None) -> tuple[str, ...]:
    """Write 256 colours, or 255 and one that is transparent; exact where there are no more."""
    image, notes = Image.fromarray(colour), []
    if alpha is None and image.mode == "L":
        image.save(file, "GIF")
        return ()
    image = image.convert("RGB")
    count = 256 if alpha is None else 255
    indexed = image.quantize(count, method=Image.Quantize.MEDIANCUT)
    if image.getcolors(count) is None:
        indexed = image.quantize(palette=indexed, dither=Image.Dither.FLOYDSTEINBERG)
        notes.append(
            f"GIF holds no more than {count} colours, so they are approximate (.png is exact)"
        )
    if alpha is None:
        indexed.save(file, "GIF")
        return tuple(notes)
    if not np.isin(alpha, (0, 255)).all():
        notes.append("GIF pixels are transparent or not, nothing in between (.png keeps it)")
    indices = np.asarray(indexed).copy()
    indices[alpha < 128] = 255
    palette = (indexed.getpalette() or []) + [0] * 768
    indexed = Image.fromarray(indices)
    indexed.putpalette(palette[:768])
    indexed.save(file, "GIF", transparency=255)
    return tuple(notes)
