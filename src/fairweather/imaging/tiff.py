"""TIFF files, where Pillow stops at 8 bits or at grey.

Pillow's decoders still do some of the work. 8-bit TIFF is written here as well, so that every TIFF
carries the same metadata.
"""

import io
import lzma
import math
import os
import struct
import sys
import zlib
from typing import Any, BinaryIO, cast

import numpy as np
import tifffile
from PIL import Image
from PIL.ExifTags import Base as Tag
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from tifffile import COMPRESSION, EXTRASAMPLE, PHOTOMETRIC, SAMPLEFORMAT

from fairweather.errors import ImageError
from fairweather.imaging.metadata import NOTES_STAY, Metadata, has_notes_that_stay, tiff_tags
from fairweather.imaging.pixels import by_rows

_COLOURS = {
    PHOTOMETRIC.RGB: 3, PHOTOMETRIC.SEPARATED: 4, PHOTOMETRIC.YCBCR: 3, PHOTOMETRIC.CIELAB: 3
}  # fmt: skip
_PIECES = (
    (Tag.StripOffsets, Tag.StripByteCounts),
    (Tag.TileOffsets, Tag.TileByteCounts),
)
_MOST_INNER = 16  # directories within the first one; cameras write a few
_IMAGE_DEPTH = 32997  # slices of a volume (SGI)
_DEFLATE = (COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE)
_LZMA_MEMORY_BYTES = 1 << 28
_BAND_BYTES = 1 << 20
_CLASSIC_LIMIT_BYTES = 2**32 - 2**25


def read_directory(file: BinaryIO, *, at: int | None = None) -> ImageFileDirectory_v2:
    """Return the tags of the first image in a TIFF file, or of that whose directory lies there.

    Raises:
        ValueError: The file ends within the directory, of which Pillow would read a part.
    """
    file.seek(0)
    header = file.read(8)
    is_big = header[2:4] in (b"\x2b\x00", b"\x00\x2b")  # BigTIFF
    if is_big:
        header += file.read(8)
    directory = ImageFileDirectory_v2(header)
    begins = at if at is not None else int(directory.next or 0)
    file.seek(begins)
    count_bytes, entry_bytes = (8, 20) if is_big else (2, 12)
    count = int.from_bytes(file.read(count_bytes), "big" if header[:1] == b"M" else "little")
    ends = begins + count_bytes + count * entry_bytes
    if file.seek(0, os.SEEK_END) < ends:
        raise ValueError("its list of tags is truncated")
    file.seek(begins)
    directory.load(file)
    return directory


def lacks_pixels(content: bytes) -> bool:
    """Tell whether a file ends before the pixels do that its tags name; not so without tags."""
    file = io.BytesIO(content)
    try:
        first = read_directory(file)
        inner = np.atleast_1d(first.get(Tag.SubIFDs, ()))[:_MOST_INNER]
        directories = [first, *(read_directory(file, at=int(at)) for at in inner)]
    except Exception:  # of nearly any kind: not every raw file is a TIFF file
        return False
    ends = (
        int(start) + int(length)
        for directory in directories
        for starts, lengths in _PIECES
        for start, length in zip(
            np.atleast_1d(directory.get(starts, ())),
            np.atleast_1d(directory.get(lengths, ())),
            strict=False,
        )
    )
    return max(ends, default=0) > len(content)


def is_raw(directory: ImageFileDirectory_v2) -> bool:
    """Tell whether a TIFF file is a camera raw file."""
    if Tag.DNGVersion in directory:
        return True
    return directory.get(Tag.NewSubfileType, 0) == 1  # a thumbnail goes before the photo


def refuse_floats(directory: ImageFileDirectory_v2, *, path: object) -> None:
    """Raise an ImageError for floating-point samples."""
    if SAMPLEFORMAT.IEEEFP in np.atleast_1d(directory.get(Tag.SampleFormat, 1)):
        raise ImageError(
            f"'{path}' holds floating-point pixels, whose white point is not known; "
            "save it as 16-bit TIFF"
        )


def sizes_of(directory: ImageFileDirectory_v2) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return width and height of the image, and of all its tiles together.

    More than four channels, or slices of a volume, count as if the image were as much higher.
    """
    width, height = directory[Tag.ImageWidth], directory[Tag.ImageLength]
    layers = directory.get(_IMAGE_DEPTH, 1) * -(-directory.get(Tag.SamplesPerPixel, 1) // 4)
    across, down = directory.get(Tag.TileWidth, 1), directory.get(Tag.TileLength, 1)
    if across < 1 or down < 1:
        raise ValueError(f"tiles of {across} × {down}")
    tiled = -(-width // across) * across, -(-height // down) * down * layers
    return (width, height * layers), tiled


def _colours_and_alpha(directory: ImageFileDirectory_v2) -> tuple[int, int]:
    """Return the number of colour channels, and the kind of alpha, 0 where there is none."""
    photometric = directory.get(Tag.PhotometricInterpretation, PHOTOMETRIC.MINISBLACK)
    colours = _COLOURS.get(photometric, 1)
    if directory.get(Tag.SamplesPerPixel, 1) <= colours:
        return colours, 0
    extra = directory.get(Tag.ExtraSamples, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    # Four samples without a word about the fourth are RGB and alpha to every reader.
    kind = extra[0] if extra else EXTRASAMPLE.UNASSALPHA
    return colours, {999: EXTRASAMPLE.UNASSALPHA}.get(kind, kind)  # 999: Corel Draw


def note_what_is_lost(directory: ImageFileDirectory_v2) -> tuple[str, ...]:
    """Return notes about channels and bits that a `Photo` cannot hold."""
    notes = []
    colours, kind = _colours_and_alpha(directory)
    if directory.get(Tag.SamplesPerPixel, 1) > colours + (kind > 0):
        notes.append("a channel that is neither colour nor transparency is left out")
    bits = np.max(directory.get(Tag.BitsPerSample, 1))
    if not is_deep(directory) and bits == 16 and colours > 1:
        notes.append("16 bits per channel of CMYK are restored as 8")
    return tuple(notes)


def count_pages(file: BinaryIO) -> int:
    """Count the images in a TIFF file."""
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            return len(tiff.pages)
    except Exception:  # what follows the first page may be broken: the first is still a photo
        return 1


def is_deep(directory: ImageFileDirectory_v2) -> bool:
    """Tell whether a TIFF image is grey or RGB with 16 bits per sample."""
    bits = np.atleast_1d(directory.get(Tag.BitsPerSample, 1))
    formats = np.atleast_1d(directory.get(Tag.SampleFormat, SAMPLEFORMAT.UINT))
    photometric = directory.get(Tag.PhotometricInterpretation)
    plain = photometric in (PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB)
    return bool((bits == 16).all() and (formats == SAMPLEFORMAT.UINT).all() and plain)


def read_tiff(
    file: BinaryIO, directory: ImageFileDirectory_v2, *, path: object
) -> tuple[np.ndarray, int]:
    """Decode a TIFF file for which `is_deep` holds.

    Returns:
        (H, W, C) uint16 with C 1 to 4 (grey or RGB, with alpha last, not premultiplied), and the
        orientation in which it lies.

    Raises:
        ImageError: Its compression needs a codec that is not installed.
    """
    orientation = directory.get(Tag.Orientation, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = cast(tifffile.TiffPage, tiff.pages.first)
        _refuse_wrong_sizes(file, page, path=path)
        try:
            if page.compression == COMPRESSION.PACKBITS:
                raise ValueError("imagecodecs unpacks it faster")
            samples = page.asarray(squeeze=False)  # planes, 1, H, W, samples of a plane
            samples = np.moveaxis(samples[:, 0], 0, 2).reshape(*samples.shape[2:4], -1)
            samples = samples.astype(np.uint16, copy=False)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            samples = _decoded_in_two_passes(file, directory)
            orientation = 1  # Pillow turns TIFF files itself
            if samples is None:
                codec = tifffile.COMPRESSION(page.compression).name
                raise ImageError(
                    f"'{path}' is a 16-bit TIFF with {codec} compression, which needs a codec: "
                    "pip install imagecodecs, or save it again uncompressed"
                ) from error
    return _meaning(samples, directory), orientation


def _refuse_wrong_sizes(file: BinaryIO, page: tifffile.TiffPage, *, path: object) -> None:
    """Unpack each strip or tile bit by bit, and refuse one that holds too much or too little.

    tifffile unpacks it whole, whatever comes out.
    """
    if page.compression not in (*_DEFLATE, COMPRESSION.LZMA):
        return
    down, *across = page.chunks
    row_bytes = math.prod(across) * cast(np.dtype, page.dtype).itemsize
    strips = -(-page.imagelength // down)  # of a plane
    if len(page.dataoffsets) < math.prod(page.chunked):
        raise ImageError(f"'{path}' is cut off: strips are missing; copy it again")
    for index, (offset, length) in enumerate(zip(page.dataoffsets, page.databytecounts)):  # noqa: B905
        file.seek(offset)
        size = _unpacked_size(file.read(length), page.compression, most=down * row_bytes)
        is_last = not page.is_tiled and (index + 1) % strips == 0
        least = down - (-page.imagelength % down) * is_last
        if size > down * row_bytes:
            raise ImageError(
                f"'{path}': strip {index} unpacks to more than the {down * row_bytes:,} bytes that"
                " it may; the file is damaged or made to do harm"
            )
        if size < least * row_bytes:
            raise ImageError(
                f"'{path}' is cut off: strip {index} holds {size:,} of {least * row_bytes:,} bytes;"
                " copy it again from where it came from"
            )


def _unpacked_size(packed: bytes, compression: int, *, most: int) -> int:
    """Return how many bytes come out, counted until they are more than `most`."""
    size = 0
    while packed and size <= most:
        if compression == COMPRESSION.LZMA:
            unpacker = lzma.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)
        else:
            unpacker = zlib.decompressobj()
        while size <= most and (piece := unpacker.decompress(packed, _BAND_BYTES)):
            packed = getattr(unpacker, "unconsumed_tail", b"")
            size += len(piece)
            if unpacker.eof:
                break
        packed = unpacker.unused_data if compression == COMPRESSION.LZMA else b""
    return size


def _decoded_in_two_passes(file: BinaryIO, directory: ImageFileDirectory_v2) -> np.ndarray | None:
    """Decode through Pillow's libtiff what tifffile needs imagecodecs for, such as LZW.

    Returns upright (H, W, C) uint16, or None where Pillow cannot either.
    """
    channels = directory.get(Tag.SamplesPerPixel, 1)
    if directory.get(Tag.PlanarConfiguration, 1) != 1 or channels not in (1, 3, 4):
        return None
    # libtiff hands samples over in the machine's own byte order.
    high, low = ("L", "B") if sys.byteorder == "little" else ("B", "L")
    mode = {3: "RGB", 4: "RGBA"}.get(channels)
    samples = None
    for order, shift in ((high, 8), (low, 0)):
        file.seek(0)
        try:
            image = TiffImageFile(file)
        except SyntaxError:
            return None
        if mode is None:
            return np.asarray(cast(Image.Image, image)).astype(np.uint16)[..., None]
        image._mode = mode  # Pillow's own choice may premultiply, or drop the fourth channel
        image.tile = [
            tile._replace(args=(f"{mode};16{order}", *cast(tuple, tile.args)[1:]))
            for tile in image.tile
        ]
        part = np.asarray(cast(Image.Image, image)).astype(np.uint16) << shift
        samples = part if samples is None else samples | part
    return samples


def _meaning(samples: np.ndarray, directory: ImageFileDirectory_v2) -> np.ndarray:
    """Apply what the tags say about the samples: inverted grey, kind of alpha, extra channels."""
    colours, kind = _colours_and_alpha(directory)
    colour, alpha = samples[..., :colours], samples[..., colours : colours + 1]
    if directory.get(Tag.PhotometricInterpretation) == PHOTOMETRIC.MINISWHITE:
        colour = 65535 - colour
    if kind == 0:
        return colour
    if kind == EXTRASAMPLE.ASSOCALPHA:
        colour = by_rows(_divided, colour, alpha, out=np.empty_like(colour))
    return np.concatenate([colour, alpha], axis=-1)


def _divided(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Undo premultiplication: colour × 65535 / alpha, rounded; black where nothing is visible."""
    opacity = alpha.astype(np.uint64)
    scaled = colour * np.uint64(65535) + opacity // 2
    return np.minimum(scaled // np.maximum(opacity, 1), 65535) * (opacity > 0)


def write_tiff(file: BinaryIO, samples: np.ndarray, *, metadata: Metadata) -> tuple[str, ...]:
    """Write a TIFF file, deflated with a horizontal predictor, and as BigTIFF from 4 GB on.

    No library at hand writes 16-bit colour and EXIF into one file: Pillow has no such pixels, and
    tifffile refuses the EXIF directory. So Pillow writes the directory, and the strips come from
    here.

    Args:
        file: An empty file, open for writing.
        samples: (H, W, C) uint8 or uint16 with C 1 to 4: grey or RGB, with alpha last.
        metadata: What goes into the directory.

    Returns:
        Notes for the user.
    """
    height, width, channels = samples.shape
    rows = max(1, _BAND_BYTES // samples[0].nbytes)
    strips = [_strip(samples[top : top + rows]) for top in range(0, height, rows)]
    big = sum(map(len, strips)) > _CLASSIC_LIMIT_BYTES
    layout: dict[int, Any] = {
        Tag.ImageWidth: width,
        Tag.ImageLength: height,
        Tag.BitsPerSample: (samples.itemsize * 8,) * channels,
        Tag.Compression: 8,  # Adobe deflate
        Tag.PhotometricInterpretation: PHOTOMETRIC.MINISBLACK if channels < 3 else PHOTOMETRIC.RGB,
        Tag.StripOffsets: tuple(int(start) for start in np.cumsum([0, *map(len, strips)])[:-1]),
        Tag.SamplesPerPixel: channels,
        Tag.RowsPerStrip: rows,
        Tag.StripByteCounts: tuple(map(len, strips)),
        Tag.PlanarConfiguration: 1,  # contiguous
        Tag.Predictor: 2,  # horizontal
    }
    if channels in (2, 4):
        layout[Tag.ExtraSamples] = EXTRASAMPLE.UNASSALPHA
    notes = ()
    try:
        directory = _directory(layout | tiff_tags(metadata), big=big)
        if has_notes_that_stay(metadata.exif):
            notes = (NOTES_STAY,)
    except Exception:  # a value of the wrong type must not cost the photo
        directory = _directory(layout | tiff_tags(metadata.without("exif")), big=big)
        notes = ("the EXIF data could not be written as TIFF tags and are left out",)
    file.write(directory)
    file.writelines(strips)
    return notes


def _strip(rows: np.ndarray) -> bytes:
    rows = rows.astype(rows.dtype.newbyteorder("<"))  # a copy
    rows[:, 1:] -= rows[:, :-1].copy()
    return zlib.compress(rows.tobytes())


def _directory(tags: dict[int, Any], *, big: bool) -> bytes:
    header = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    )
    directory = ImageFileDirectory_v2(header)
    kind = 16 if big else 4  # LONG8, LONG
    directory.tagtype.update({Tag.StripOffsets: kind, Tag.StripByteCounts: kind})
    for tag, value in tags.items():
        directory[tag] = value
    return header + directory.tobytes(len(header))
