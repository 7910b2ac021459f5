"""What a photo file says beside its pixels, kept true for the restored file."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Interop
from PIL.ExifTags import Base as Tag
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from fairweather.imaging import colour, xmp
from fairweather.imaging.containers import JPEGCoding, coding_of

EXIF_PREFIX = b"Exif\x00\x00"

_IPTC_RESOURCE = 0x0404
_INTEGER_TYPES = {1: "B", 3: "H", 4: "I"}  # TIFF types BYTE, SHORT, LONG
# Maker notes whose offsets count from their own start, so that they may be moved.
_MOVABLE_NOTES = (
    b"Nikon\0\x02",
    b"Apple iOS\0",
    b"FUJIFILM",
    b"OLYMPUS\0",
    b"OM SYSTEM\0",
    b"PENTAX \0",
)
NOTES_STAY = "the camera's maker notes cannot be moved into or out of TIFF tags and are left out"
_JPEG_SEGMENT_BYTES = 65533
# What a TIFF says about the photo, not about its own layout.
_TOLD_TAGS = (
    Tag.ImageDescription, Tag.Make, Tag.Model, Tag.Software, Tag.DateTime, Tag.Artist,
    Tag.HostComputer, Tag.Rating, Tag.RatingPercent, Tag.Copyright,
    Tag.XPTitle, Tag.XPComment, Tag.XPAuthor, Tag.XPKeywords, Tag.XPSubject,
)  # fmt: skip
_TURNS = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
_SUB_DIRECTORIES = (IFD.Exif, IFD.GPSInfo)
_INTEROP = Tag.ExifInteroperabilityOffset  # holds an offset into the old file


@dataclass(frozen=True)
class Metadata:
    r"""What travels from the file read to the file written.

    Attributes:
        format: Pillow's name of the format read ("JPEG"), or None for a photo made in memory.
        exif: The EXIF block as it was, maker notes and GPS included, beginning with `Exif\0\0`.
            Only these things are changed, in place: the orientation is 1 (the pixels are upright),
            the thumbnail is unlinked (it shows the degraded photo), and width and height are those
            of the upright pixels.
        icc_profile: The colour profile that the pixels are in.
        dpi: Horizontal and vertical resolution in dots per inch.
        xmp: The XMP packet, its orientation and sizes likewise; it announces no gain map, video,
            thumbnail or second packet, since none of them is kept.
        iptc: The IPTC block (caption, keywords, credit) of a JPEG or TIFF file.
        comment: The comment of a JPEG file.
        text: Keyword and text of a PNG file.
        png_colour: Name and data of the gAMA, cHRM, sRGB and cICP chunks of a PNG file, or of such
            that say the same as another file.
        coding: How a JPEG file was written.
        is_lossless: Whether the file keeps each pixel exactly, as a PNG does.
        coded_bytes: What the file takes without EXIF, profile and XMP; 0 if it is not known.
    """

    format: str | None = None
    exif: bytes | None = None
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    comment: bytes | None = None
    text: tuple[tuple[str, str], ...] = ()
    png_colour: tuple[tuple[bytes, bytes], ...] = ()
    coding: JPEGCoding | None = None
    is_lossless: bool = False
    coded_bytes: int = field(default=0, compare=False)

    def without(self, *fields: str) -> "Metadata":
        """Return a copy in which the named fields are empty."""
        return replace(
            self, **{name: Metadata.__dataclass_fields__[name].default for name in fields}
        )


def read_metadata(image: Image.Image, *, text: Sequence[tuple[str, str]] = ()) -> Metadata:
    """Collect the metadata of a loaded image of any format but TIFF.

    Args:
        image: The image.
        text: Keyword and text of a PNG file, which Pillow was not shown.
    """
    info = image.info
    told = {**info, **dict(text)}
    exif = info.get("exif") or _exif_from_text(told)
    if exif and not exif.startswith(EXIF_PREFIX):
        exif = EXIF_PREFIX + exif
    packet = info.get("xmp") or told.get("XML:com.adobe.xmp")
    comment, dpi = info.get("comment"), info.get("dpi")
    if "jfif" in info and not info.get("jfif_unit") and dpi == (72, 72):
        dpi = None  # Pillow's stand-in for a JPEG that gives no resolution
    return Metadata(
        format="JPEG" if image.format == "MPO" else image.format,
        exif=exif,
        icc_profile=info.get("icc_profile") or None,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi else None,
        xmp=packet.encode() if isinstance(packet, str) else packet,
        iptc=info.get("photoshop", {}).get(_IPTC_RESOURCE),
        comment=comment.encode() if isinstance(comment, str) else comment,
        text=tuple(item for item in text if not _is_block_in_disguise(item[0])),
        coding=coding_of(image) if isinstance(image, JpegImageFile) else None,
    )


def _is_block_in_disguise(keyword: str) -> bool:
    return keyword == "XML:com.adobe.xmp" or keyword.startswith("Raw profile type ")


def _exif_from_text(text: dict[str, Any]) -> bytes | None:
    """Decode the EXIF that ImageMagick wrote into a PNG text before PNG had a chunk for it."""
    raw = text.get("Raw profile type exif") or text.get("Raw profile type APP1")
    try:
        return bytes.fromhex("".join(str(raw).split("\n")[3:])) or None if raw else None
    except ValueError:
        return None


def with_adobe_rgb(metadata: Metadata) -> Metadata:
    """Return metadata with a profile of Adobe RGB, where EXIF alone tells of it (DCF 2.0, R03)."""
    if metadata.icc_profile or metadata.png_colour or not metadata.exif:
        return metadata
    exif = Image.Exif()
    try:
        exif.load(metadata.exif)
        index = exif.get_ifd(IFD.Interop).get(Interop.InteropIndex)
    except Exception:  # of nearly any kind, from damaged EXIF, which is kept as it is
        return metadata
    return replace(metadata, icc_profile=colour.adobe_rgb()) if index == "R03" else metadata


def read_tiff_metadata(
    file: BinaryIO, directory: ImageFileDirectory_v2
) -> tuple[Metadata, tuple[str, ...]]:
    """Collect the metadata of a TIFF file, EXIF as a block that other formats carry, and notes."""
    told = Tag.XMLPacket, Tag.InterColorProfile, Tag.IPTCNAA
    packet, icc_profile, iptc = (directory.get(tag) for tag in told)
    if isinstance(iptc, tuple):  # Photoshop declares these bytes as 32-bit integers
        iptc = np.array(iptc, _byte_order(directory) + "u4").tobytes()
    notes: tuple[str, ...] = ()
    try:
        exif, is_whole = _exif_from_tiff(file, directory)
        notes = () if is_whole else (NOTES_STAY,)
    except Exception:  # a broken directory must not cost the photo
        exif = EXIF_PREFIX  # an empty block, which is reported as damaged
    metadata = Metadata(
        format="TIFF",
        exif=exif,
        icc_profile=icc_profile or None,
        dpi=_dpi_from_tiff(directory),
        xmp=packet if isinstance(packet, bytes) else None,
        iptc=iptc if isinstance(iptc, bytes) else None,
        png_colour=() if icc_profile else _chromaticities(directory),
        is_lossless=directory.get(Tag.Compression, 1) not in (6, 7),  # JPEG
    )
    return metadata, notes


def _chromaticities(directory: ImageFileDirectory_v2) -> tuple[tuple[bytes, bytes], ...]:
    told = (*directory.get(318, ()), *directory.get(319, ()))  # of white, and of the primaries
    if len(told) != 8:
        return ()
    values = [min(max(round(float(value) * 100_000), 0), 2**32 - 1) for value in told]
    return ((b"cHRM", struct.pack(">8I", *values)),)


def _byte_order(directory: ImageFileDirectory_v2) -> str:
    return "<" if directory.prefix == b"II" else ">"


def _exif_from_tiff(file: BinaryIO, directory: ImageFileDirectory_v2) -> tuple[bytes | None, bool]:
    """Return EXIF as a block, and whether it holds all maker notes."""
    exif, source = Image.Exif(), Image.Exif()
    file.seek(2)
    source.endian, source.bigtiff = _byte_order(directory), b"\x2b" in file.read(2)
    source.load_from_fp(file, directory.offset)
    for tag in _TOLD_TAGS:
        if tag in directory:
            exif[tag] = directory[tag]
    told, is_whole = len(exif) > 0, True
    for tag in _SUB_DIRECTORIES:
        values = _movable(source.get_ifd(tag))
        is_whole = is_whole and (Tag.MakerNote in values) == (Tag.MakerNote in source.get_ifd(tag))
        exif.get_ifd(tag).update(values)
        told = told or bool(values)
    return exif.tobytes() if told else None, is_whole


def _movable(values: dict[int, Any]) -> dict[int, Any]:
    """Return the tags of a directory that hold no offsets into the old file."""
    return {
        tag: value
        for tag, value in values.items()
        if tag != _INTEROP and not (tag == Tag.MakerNote and not _may_be_moved(value))
    }


def _may_be_moved(maker_notes: Any) -> bool:
    return isinstance(maker_notes, bytes) and maker_notes.startswith(_MOVABLE_NOTES)


def has_notes_that_stay(exif: bytes | None) -> bool:
    """Tell whether EXIF data hold maker notes that must not be moved."""
    if not exif:
        return False
    block = Image.Exif()
    block.load(exif)
    notes = block.get_ifd(IFD.Exif).get(Tag.MakerNote)
    return notes is not None and not _may_be_moved(notes)


def _dpi_from_tiff(directory: ImageFileDirectory_v2) -> tuple[float, float] | None:
    told = Tag.XResolution, Tag.YResolution, Tag.ResolutionUnit
    across, down, unit = (directory.get(tag) for tag in told)
    scale = {None: 1.0, 2: 1.0, 3: 2.54}.get(unit)
    if not across or not down or scale is None:
        return None
    return float(across) * scale, float(down) * scale


def tiff_tags(metadata: Metadata) -> dict[int, Any]:
    """Return the TIFF tags that carry the metadata."""
    tags: dict[int, Any] = {
        Tag.XMLPacket: metadata.xmp,
        Tag.IPTCNAA: metadata.iptc,
        Tag.InterColorProfile: metadata.icc_profile,
    }
    if metadata.dpi:
        across, down = metadata.dpi
        tags |= {Tag.XResolution: across, Tag.YResolution: down, Tag.ResolutionUnit: 2}  # inches
    if metadata.exif:
        exif = Image.Exif()
        exif.load(metadata.exif)
        tags |= {tag: exif[tag] for tag in _TOLD_TAGS if tag in exif}
        for tag in _SUB_DIRECTORIES:
            tags[tag] = _movable(exif.get_ifd(tag))
    return {tag: value for tag, value in tags.items() if value}


def orientation_of(metadata: Metadata) -> int:
    """Return the EXIF orientation, 1 to 8, from EXIF or else from XMP; 1 where there is none."""
    found: dict[int, int] = {}

    def look(tag: int, value: int) -> None:
        found.setdefault(tag, value)

    _walk_exif(metadata.exif, look)
    if Tag.Orientation not in found and (told := xmp.orientation_of(metadata.xmp)):
        found[Tag.Orientation] = told
    orientation = found.get(Tag.Orientation, 1)
    return orientation if 1 <= orientation <= 8 else 1


def uprighted(metadata: Metadata, *, height: int, width: int) -> Metadata:
    """Return the metadata of the same photo with upright pixels of the given size."""
    values: dict[int, int] = {
        Tag.Orientation: 1,
        Tag.ImageWidth: width,
        Tag.ImageLength: height,
        Tag.ExifImageWidth: width,
        Tag.ExifImageHeight: height,
    }
    exif = _walk_exif(metadata.exif, lambda tag, _: values.get(tag))
    packet = xmp.made_true(metadata.xmp, height=height, width=width)
    return replace(metadata, exif=exif, xmp=packet)


def upright_picture(image: Image.Image) -> Image.Image:
    """Return a PIL image as it is meant to be seen, with EXIF and XMP that say so.

    The orientation is the one that `ImageOps.exif_transpose` would apply. What the image says
    beside its pixels (`info`) is patched in place as for files; the image given is not changed.
    """
    image.load()  # TIFF files are turned by Pillow itself, here and not before
    metadata = read_metadata(image)
    try:
        orientation = image.getexif().get(Tag.Orientation, 1)
    except Exception:  # of nearly any kind, as Pillow raises it on damaged EXIF
        orientation = orientation_of(metadata)
    method = _TURNS.get(orientation)
    upright = image.copy() if method is None else image.transpose(method)
    told = uprighted(metadata, height=upright.height, width=upright.width)
    info = upright.info
    for name in [name for name in info if _is_block_in_disguise(str(name))]:
        del info[name]
    info.update({name: getattr(told, name) for name in ("exif", "xmp") if getattr(told, name)})
    if method is not None and orientation > 4 and "dpi" in info:
        info["dpi"] = info["dpi"][::-1]
    return upright


def _walk_exif(exif: bytes | None, visit: Callable[[int, int], int | None]) -> bytes | None:
    """Call `visit(tag, value)` for the single integers of the two main EXIF directories.

    Returns a copy that holds what `visit` returned where that is not None, and no thumbnail.
    Nothing moves: maker notes hold offsets that only the camera's maker could correct, so the
    block is patched where it lies and never written anew. None stands for a block that is broken.
    """
    if not exif:
        return None
    block = bytearray(exif.removeprefix(EXIF_PREFIX))
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    try:
        if order is None:
            return None
        (directory,) = struct.unpack_from(order + "I", block, 4)
        end, details = _walk_directory(block, directory, order=order, visit=visit)
        struct.pack_into(order + "I", block, end, 0)  # no next directory: no thumbnail
        if details:
            _walk_directory(block, details, order=order, visit=visit)
    except struct.error:
        return None
    return EXIF_PREFIX + bytes(block)


def _walk_directory(
    block: bytearray, start: int, *, order: str, visit: Callable[[int, int], int | None]
) -> tuple[int, int | None]:
    """Return where the entries end, and where the EXIF directory is if this one points to it."""
    details = None
    (count,) = struct.unpack_from(order + "H", block, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", block, entry)
        if kind not in _INTEGER_TYPES or length != 1:
            continue
        (value,) = struct.unpack_from(order + _INTEGER_TYPES[kind], block, entry + 8)
        if tag == IFD.Exif:
            details = value
        elif (new := visit(tag, value)) is not None:
            struct.pack_into(order + _INTEGER_TYPES[kind], block, entry + 8, new)
    return start + 2 + 12 * count, details


def profile_fits(icc_profile: bytes, *, grey: bool) -> bool:
    """Tell whether a profile describes pixels of this kind (ICC.1:2022, 7.2.6: bytes 16 to 19)."""
    return icc_profile[16:20] == (b"GRAY" if grey else b"RGB ")


def save_options(metadata: Metadata, name: str) -> dict[str, Any]:
    """Return the keywords with which Pillow's `save` writes the metadata in format `name`."""
    options: dict[str, Any] = {
        key: getattr(metadata, key) for key in ("exif", "icc_profile", "dpi")
    }
    if name == "PNG":
        options["pnginfo"] = _png_info(metadata)
    else:
        options["xmp"] = metadata.xmp
    if name == "JPEG":
        options["comment"] = metadata.comment
        options["extra"] = _iptc_segment(metadata.iptc)
    return {key: value for key, value in options.items() if value}


def too_long_for_jpeg(metadata: Metadata) -> list[str]:
    """Name the fields that do not fit into JPEG segments, none of which can hold 64 KiB."""
    limits = {"exif": 0, "xmp": 29, "iptc": 27, "comment": 0}  # bytes of each segment's own header
    room = {name: _JPEG_SEGMENT_BYTES - header for name, header in limits.items()}
    room["icc_profile"] = 255 * (_JPEG_SEGMENT_BYTES - 14)  # in numbered segments
    return [name for name, most in room.items() if len(getattr(metadata, name) or b"") > most]


def _png_info(metadata: Metadata) -> PngInfo:
    info = PngInfo()
    for name, data in metadata.png_colour:
        info.add(name, data)
    if metadata.xmp:
        packet = metadata.xmp.decode("utf-8", "replace")
        info.add_itxt("XML:com.adobe.xmp", packet, zip=len(packet) > 1 << 16)
    for keyword, text in metadata.text:
        info.add_text(keyword, text, zip=len(text) > 1024)
    return info


def _iptc_segment(iptc: bytes | None) -> bytes:
    """Wrap an IPTC block as the Photoshop resource in which JPEG files carry it (APP13)."""
    if not iptc:
        return b""
    resource = b"8BIM" + struct.pack(">H2xI", _IPTC_RESOURCE, len(iptc)) + iptc
    body = b"Photoshop 3.0\x00" + resource + b"\x00" * (len(iptc) % 2)
    return b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
