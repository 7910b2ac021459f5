"""PNG files encoded as the specification says, unfiltered: what readers are compared with."""

import struct
import zlib


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    rows: list[bytes],
    *,
    size: tuple[int, int],
    depth: int,
    colour_type: int,
    interlaced: bool = False,
    extra: bytes = b"",
) -> bytes:
    """A file of packed rows of (height, width), with the chunks `extra` before them."""
    header = (size[1], size[0], depth, colour_type, 0, 0, int(interlaced))
    lines = zlib.compress(b"".join(b"\x00" + row for row in rows))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", *header)),
            extra,
            chunk(b"IDAT", lines),
            chunk(b"IEND", b""),
        ]
    )
