"""What files of AVIF, WebP and JPEG say and Pillow does not hand on as such."""

from dataclasses import dataclass
from typing import BinaryIO, Literal

from PIL.JpegImagePlugin import JpegImageFile, get_sampling

Chroma = Literal["4:4:4", "4:2:2", "4:2:0"]


@dataclass(frozen=True)
class JPEGCoding:
    """How a JPEG was written: its quantisation tables of luma and chroma, and its chroma."""

    tables: tuple[tuple[int, ...], ...]
    chroma: Chroma


def code_points_of(file: BinaryIO) -> tuple[int, int] | None:
    """Return colour primaries and transfer characteristics of an AVIF file (ISO 23008-12)."""
    file.seek(0)
    head = file.read(1 << 16)
    at = head.find(b"colrnclx")
    if at < 0 or len(head) < at + 12 or head[at + 8] or head[at + 10]:
        return None
    return head[at + 9], head[at + 11]


def is_lossless_webp(file: BinaryIO) -> bool:
    """Look for lossless pixels (VP8L) among the chunks of a WebP file."""
    at, name = 12, b"RIFF"
    while len(name) == 4 and name not in (b"VP8 ", b"VP8L"):
        file.seek(at)
        name, size = file.read(4), int.from_bytes(file.read(4), "little")
        at += 16 + 8 if name == b"ANMF" else 8 + size + size % 2  # a frame holds chunks itself
    return name == b"VP8L"


def is_high_bit_depth_avif(file: BinaryIO) -> bool:
    """Look into the configuration record (AV1-ISOBMFF, 2.3.3), of which Pillow says nothing."""
    file.seek(0)
    head = file.read(4096)
    at = head.find(b"av1C")
    return at >= 0 and len(head) > at + 6 and bool(head[at + 6] & 0x40)


def coding_of(image: JpegImageFile) -> JPEGCoding | None:
    """Return how a JPEG was written; None where a JPEG of three channels could not be so, too."""
    used = [table for _, _, _, table in image.layer[:2]]  # of luma, and of both channels of chroma
    if image.mode == "CMYK" or not all(table in image.quantization for table in used):
        return None
    tables = tuple(tuple(min(step, 255) for step in image.quantization[table]) for table in used)
    sampling = get_sampling(image)
    chroma = "4:2:0" if sampling == 2 else "4:2:2" if sampling == 1 else "4:4:4"
    return JPEGCoding(tables if len(tables) > 1 else 2 * tables, chroma)
