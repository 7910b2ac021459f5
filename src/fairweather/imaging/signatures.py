"""Formats told from the first bytes of a file, never from its name."""

import re

from fairweather.errors import ImageError
from fairweather.imaging import png

HEAD_BYTES = 64

_SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": re.escape(png.SIGNATURE),
    "WEBP": rb"RIFF....WEBP",
    "RAW": (
        rb"FUJIFILMCCD-RAW|IIU\x00|IIRO|MMOR|FOVb|\x00MRM|II\*\x00\x10\x00\x00\x00CR|....ftypcrx"
    ),
    "TIFF": rb"II[\x2a\x2b]\x00|MM\x00[\x2a\x2b]",
    "BMP": rb"BM",
    "GIF": rb"GIF8[79]a",
    "HEIF": rb"....ftyp(?!.{0,52}avif)(hei|hev|mif1|msf1)",
    "JXL": rb"\xff\x0a|\x00\x00\x00\x0cJXL ",
    "AVIF": rb"....ftyp(avi[fs]|.{0,52}avif)",
}
_STRANGERS = {
    "a JPEG 2000 image": rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51",
    "a Photoshop document": rb"8BPS",
    "a PDF document": rb"%PDF",
}


def format_of(head: bytes, *, path: object) -> str:
    """Return the name of the format of a file, of which the first 64 bytes are given.

    Raises:
        ImageError: The file is empty, or no image that is read here.
    """
    if not head:
        raise ImageError(f"'{path}' is empty (0 bytes); copy it again from where it came from")
    for stranger, signature in _STRANGERS.items():
        if re.match(signature, head, re.DOTALL):
            raise ImageError(f"'{path}' is {stranger}; convert it to JPEG, PNG or TIFF first")
    for name, signature in _SIGNATURES.items():
        if re.match(signature, head, re.DOTALL):
            return name
    raise ImageError(
        f"'{path}' is not an image (its first bytes are {head[:12]!r}); "
        f"{', '.join(_SIGNATURES)} are read"
    )
