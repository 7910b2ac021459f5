"""TIFF beyond what Pillow does: 16 bits per sample in colour, and metadata of every TIFF."""

import struct
import sys
import zlib
from typing import Any, BinaryIO, cast

import numpy as np
import tifffile
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from fairweather.errors import ImageError
from fairweather.imaging.metadata import EXIF_PREFIX, Metadata

MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2  # PhotometricInterpretation (TIFF 6.0, section 4)

_BAND_BYTES = 1 << 20
_CLASSIC_LIMIT_BYTES = 2**32 - 2**25
_SUB_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_INTEROP = 0xA005  # holds an offset into the old file
# ImageDescription, Make, Model, Software, DateTime, Artist, HostComputer, Rating, RatingPercent,
# Copyright, XPTitle to XPSubject: what is said about the photo, not about this file's layout.
_TOLD_TAGS = (270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
_ASSOCIATED_ALPHA, _UNASSOCIATED_ALPHA = 1, 2  # ExtraSamples


def read_directory(file: BinaryIO) -> ImageFileDirectory_v2:
    """Reads the tags of the first image in the file."""
    file.seek(0)
    header = file.read(8)
    if header[2:4] in (b"\x2b\x00", b"\x00\x2b"):
        header += file.read(8)
    directory = ImageFileDirectory_v2(header)
    file.seek(directory.next)
    directory.load(file)
    return directory


def refuse_what_is_no_photo(directory: ImageFileDirectory_v2, *, path: object) -> None:
    """Raises an ImageError for a camera raw file and for floating-point samples."""
    if 50706 in directory or directory.get(254, 0) == 1:  # DNGVersion; NewSubfileType: a thumbnail
        raise ImageError(
            f"'{path}' is a camera raw file; develop it first and restore the TIFF or JPEG"
        )
    if (np.atleast_1d(directory.get(339, 1)) == 3).any():
        raise ImageError(
            f"'{path}' holds floating-point pixels, whose white point is not known; "
            "save it as 16-bit TIFF"
        )


def size_of(directory: ImageFileDirectory_v2) -> tuple[int, int]:
    """Returns width and height."""
    return directory[256], directory[257]


def tile_size_of(directory: ImageFileDirectory_v2) -> tuple[int, int]:
    """Returns width and height of the tiles in which the image lies, (1, 1) where in strips."""
    return directory.get(322, 1), directory.get(323, 1)


def _colours_and_alpha(directory: ImageFileDirectory_v2) -> tuple[int, int]:
    """Returns the number of colour channels, and the kind of alpha, 0 where there is none."""
    colours = {RGB: 3, 5: 4, 6: 3, 8: 3}.get(directory.get(262, 1), 1)  # 5 CMYK, 6 YCbCr, 8 CIELAB
    if directory.get(277, 1) <= colours:
        return colours, 0
    extra = directory.get(338, ())
    extra = extra if isinstance(extra, tuple) else (extra,)
    # Four samples without a word about the fourth are RGB and alpha to every reader.
    kind = extra[0] if extra else _UNASSOCIATED_ALPHA
    return colours, {999: _UNASSOCIATED_ALPHA}.get(kind, kind)  # 999: Corel Draw


def note_what_is_lost(directory: ImageFileDirectory_v2) -> tuple[str, ...]:
    """Tells of channels and bits that nothing here can hold."""
    notes = []
    colours, kind = _colours_and_alpha(directory)
    if directory.get(277, 1) > colours + (kind > 0):
        notes.append("a channel that is neither colour nor transparency is left out")
    if not is_deep(directory) and np.max(directory.get(258, 1)) == 16 and colours > 1:
        notes.append("16 bits per channel of CMYK are restored as 8")
    return tuple(notes)


def count_frames(file: BinaryIO) -> int:
    """Counts the images in the file."""
    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            return len(tiff.pages)
    except Exception:  # what follows the first frame may be broken: the first is still a photo
        return 1


def is_deep(directory: ImageFileDirectory_v2) -> bool:
    """Tells whether the image is grey or RGB with 16 bits per sample."""
    bits = np.atleast_1d(directory.get(258, 1))
    unsigned = (np.atleast_1d(directory.get(339, 1)) == 1).all()
    photometric = directory.get(262)
    return bool((bits == 16).all() and unsigned and photometric in (0, 1, 2))


def read_samples(
    file: BinaryIO, directory: ImageFileDirectory_v2, *, path: object
) -> tuple[np.ndarray, int]:
    """Decodes a TIFF file for which `is_deep` holds.

    Returns:
        (H, W, C) uint16 with C 1 to 4 (grey or RGB, with alpha last, not premultiplied), and the
        orientation in which it lies.
    """
    orientation = directory.get(274, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    file.seek(0)
    with tifffile.TiffFile(file) as tiff:
        page = cast(tifffile.TiffPage, tiff.pages.first)
        try:
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


def _decoded_in_two_passes(file: BinaryIO, directory: ImageFileDirectory_v2) -> np.ndarray | None:
    """Decodes through Pillow's libtiff, as `png16` does, what tifffile needs imagecodecs for.

    Returns upright (H, W, C) uint16, or None where Pillow cannot either.
    """
    channels = directory.get(277, 1)
    if directory.get(284, 1) != 1 or channels not in (1, 3, 4):
        return None
    swapped = "B" if sys.byteorder == "little" else "L"
    native = "L" if sys.byteorder == "little" else "B"
    mode = {3: "RGB", 4: "RGBA"}.get(channels)
    samples = None
    for order, shift in ((native, 8), (swapped, 0)):
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
    """Applies what the tags say about the samples: inverted grey, kind of alpha, extra channels."""
    colours, kind = _colours_and_alpha(directory)
    colour, alpha = samples[..., :colours], samples[..., colours : colours + 1]
    if directory.get(262) == MIN_IS_WHITE:
        colour = 65535 - colour
    if kind == 0:
        return colour
    if kind == _ASSOCIATED_ALPHA:
        colour = _divided_by_alpha(colour, alpha)
    return np.concatenate([colour, alpha], axis=-1)


def _divided_by_alpha(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Undoes premultiplication: colour × 65535 / alpha, rounded; black where nothing is visible."""
    divided = np.empty_like(colour)
    rows = max(1, _BAND_BYTES // colour[0].nbytes)
    for top in range(0, len(colour), rows):
        a = alpha[top : top + rows].astype(np.uint64)
        scaled = colour[top : top + rows] * np.uint64(65535) + a // 2
        divided[top : top + rows] = np.minimum(scaled // np.maximum(a, 1), 65535) * (a > 0)
    return divided


def read_metadata(file: BinaryIO, directory: ImageFileDirectory_v2) -> Metadata:
    """Collects the metadata of a TIFF file, EXIF as the block that other formats carry."""
    xmp, icc_profile, iptc = (directory.get(tag) for tag in (700, 34675, 33723))
    if isinstance(iptc, tuple):  # Photoshop declares these bytes as 32-bit integers
        iptc = np.array(iptc, _byte_order(directory) + "u4").tobytes()
    try:
        exif = _exif_block(file, directory)
    except Exception:  # a broken directory must not cost the photo
        exif = EXIF_PREFIX  # an empty block, which is reported as damaged
    return Metadata(
        format="TIFF",
        exif=exif,
        icc_profile=icc_profile or None,
        dpi=_dpi(directory),
        xmp=xmp if isinstance(xmp, bytes) else None,
        iptc=iptc if isinstance(iptc, bytes) else None,
    )


def _byte_order(directory: ImageFileDirectory_v2) -> str:
    return "<" if directory.prefix == b"II" else ">"


def _exif_block(file: BinaryIO, directory: ImageFileDirectory_v2) -> bytes | None:
    exif, source = Image.Exif(), Image.Exif()
    source.endian, source.bigtiff = _byte_order(directory), directory._bigtiff
    source.load_from_fp(file, directory.offset)
    for tag in _TOLD_TAGS:
        if tag in directory:
            exif[tag] = directory[tag]
    told = len(exif) > 0
    for tag in _SUB_DIRECTORIES:
        values = {key: value for key, value in source.get_ifd(tag).items() if key != _INTEROP}
        exif.get_ifd(tag).update(values)
        told = told or bool(values)
    return exif.tobytes() if told else None


def _dpi(directory: ImageFileDirectory_v2) -> tuple[float, float] | None:
    across, down, unit = (directory.get(tag) for tag in (282, 283, 296))
    scale = {None: 1.0, 2: 1.0, 3: 2.54}.get(unit)
    if not across or not down or scale is None:
        return None
    return float(across) * scale, float(down) * scale


def write_samples(file: BinaryIO, samples: np.ndarray, *, metadata: Metadata) -> tuple[str, ...]:
    """Writes a TIFF file, deflated with a horizontal predictor, and as BigTIFF from 4 GB on.

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
        256: width,
        257: height,
        258: (samples.itemsize * 8,) * channels,
        259: 8,  # Compression: Adobe deflate
        262: MIN_IS_BLACK if channels < 3 else RGB,
        273: tuple(int(start) for start in np.cumsum([0, *map(len, strips)])[:-1]),
        277: channels,
        278: rows,
        279: tuple(map(len, strips)),
        284: 1,  # PlanarConfiguration: contiguous
        317: 2,  # Predictor: horizontal
    }
    if channels in (2, 4):
        layout[338] = _UNASSOCIATED_ALPHA
    notes = ()
    try:
        directory = _directory(layout, _told(metadata), big=big)
    except Exception:  # a value of the wrong type must not cost the photo
        directory = _directory(layout, _told(metadata.without("exif")), big=big)
        notes = ("the EXIF data could not be written as TIFF tags and are left out",)
    file.write(directory)
    file.writelines(strips)
    return notes


def _strip(rows: np.ndarray) -> bytes:
    rows = rows.astype(rows.dtype.newbyteorder("<"))  # a copy
    rows[:, 1:] -= rows[:, :-1].copy()
    return zlib.compress(rows.tobytes())


def _directory(layout: dict[int, Any], told: dict[int, Any], *, big: bool) -> bytes:
    header = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) if big else struct.pack("<2sHI", b"II", 42, 8)
    )
    directory = ImageFileDirectory_v2(header)
    directory.tagtype.update({273: 16 if big else 4, 279: 16 if big else 4})
    for tag, value in (layout | told).items():
        directory[tag] = value
    return header + directory.tobytes(len(header))


def _told(metadata: Metadata) -> dict[int, Any]:
    """Returns the tags that carry the metadata."""
    tags: dict[int, Any] = {700: metadata.xmp, 33723: metadata.iptc, 34675: metadata.icc_profile}
    if metadata.dpi:
        tags |= {282: metadata.dpi[0], 283: metadata.dpi[1], 296: 2}
    if metadata.exif:
        exif = Image.Exif()
        exif.load(metadata.exif)
        tags |= {tag: exif[tag] for tag in _TOLD_TAGS if tag in exif}
        for tag in _SUB_DIRECTORIES:
            values = exif.get_ifd(tag)
            tags[tag] = {key: value for key, value in values.items() if key != _INTEROP}
    return {tag: value for tag, value in tags.items() if value}
