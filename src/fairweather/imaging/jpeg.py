"""JPEG files: where their pixels end, and whether all are there.

libjpeg makes up the pixels that a file lacks and only warns, and Pillow does not hear the warning.
So a JPEG is decoded twice: as it is, and with noise where its pixels end. A decoder that has all
pixels reads no further, and both are the same; where it has not, it takes the noise for pixels.
"""

import io
import re
import zlib
from dataclasses import dataclass

from PIL import Image, JpegImagePlugin

from fairweather.imaging.pixels import BAND_PX

END = b"\xff\xd9"
MOST_SCANS = 200  # encoders make ten or so; each one costs a pass over all pixels

_START_OF_SCAN = 0xDA
_ARITHMETIC = {0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # start of frame, by kind
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}
_AFTER_PIXELS = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_SOME = bytes((73 * i + 29) % 251 for i in range(256))
_NOISE = _SOME + b"".join(bytes([0xFF, 0xD0 + i]) + _SOME for i in range(8))  # restart markers
_LEAST_BLOCK_BITS = 1  # of the 64 pixels of a block, in the first scan of the finest channel


@dataclass(frozen=True)
class Anatomy:
    """Where the parts of a JPEG file lie.

    Attributes:
        end: Where the pixels of the last scan end.
        is_ended: Whether the end marker follows, there or later.
        is_arithmetic: Whether arithmetic coding is used, of which the end cannot be told.
        scans: Number of scans.
    """

    end: int
    is_ended: bool
    is_arithmetic: bool
    scans: int

    def cannot_be_whole(self, pixels: int) -> bool:
        """Tell whether there are fewer bytes than the pixels take, however well compressed."""
        return not self.is_arithmetic and self.end * 8 * 64 < pixels * _LEAST_BLOCK_BITS


def dissect(content: bytes) -> Anatomy:
    """Walk through the segments of a JPEG file, up to its end marker."""
    at, end, scans, is_arithmetic = 2, len(content), 0, False
    while 0 <= (at := content.find(b"\xff", at)) < len(content) - 1:
        marker = content[at + 1]
        if marker == END[1]:
            return Anatomy(end if scans else at, True, is_arithmetic, scans)
        if marker in _WITHOUT_LENGTH or marker in (0x00, 0xFF):
            at += 1 if marker == 0xFF else 2
            continue
        is_arithmetic = is_arithmetic or marker in _ARITHMETIC
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if marker == _START_OF_SCAN:
            scans += 1
            found = _AFTER_PIXELS.search(content, at)
            if found is None:
                end = len(content.rstrip(b"\xff"))
                break
            at = end = found.start()
    return Anatomy(end, False, is_arithmetic, scans)


def ended(content: bytes, anatomy: Anatomy) -> bytes:
    """Return the content with an end marker."""
    return content if anatomy.is_ended else content[: anatomy.end] + END


def noisy_row_sums(content: bytes, anatomy: Anatomy) -> list[int]:
    """Return the checksum of each row, with noise where the pixels end."""
    try:
        image = JpegImagePlugin.JpegImageFile(io.BytesIO(content[: anatomy.end] + _NOISE + END))
        return row_sums(image)
    except Exception:  # of nearly any kind; pixels that are whole are never reached by the noise
        return []


def row_sums(image: Image.Image) -> list[int]:
    """Return a checksum of each row of an image."""
    image.load()
    sums: list[int] = []
    rows = max(1, BAND_PX // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        data = memoryview(band.tobytes())
        size = len(data) // band.height
        sums += [zlib.crc32(data[i : i + size]) for i in range(0, len(data), size)]
    return sums


def first_difference(sums: list[int], others: list[int]) -> int | None:
    """Return the first row that differs, if any."""
    pairs = zip(sums, others or [-1], strict=False)
    return next((row for row, (one, other) in enumerate(pairs) if one != other), None)
