"""16-bit TIFF files that unpack to more, or to less, than they say."""

import lzma
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from fairweather.errors import ImageError
from fairweather.imaging import read_image


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "photo.tif"


STRIPS: dict[str, dict[str, Any]] = {
    "strips": {"rowsperstrip": 7},
    "one strip": {},
    "tiles": {"tile": (16, 32)},
    "planes": {"planarconfig": "separate", "rowsperstrip": 10},
}


def strips_of(path: Path, kind: str, compression: str) -> list[tuple[int, int]]:
    pixels = np.random.default_rng(0).integers(0, 65536, (40, 48, 3), dtype=np.uint16)
    source = np.moveaxis(pixels, 2, 0) if kind == "planes" else pixels
    tifffile.imwrite(path, source, photometric="rgb", compression=compression, **STRIPS[kind])
    np.testing.assert_array_equal(read_image(path).pixels, pixels)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        return list(zip(page.dataoffsets, page.databytecounts, strict=True))


@pytest.mark.parametrize("kind", STRIPS)
@pytest.mark.parametrize("compression", ["zlib", "lzma"])
@pytest.mark.parametrize("streams", [1, 2])
def test_a_strip_unpacks_to_no_more_than_it_may(
    path: Path, kind: str, compression: str, streams: int
) -> None:
    """The check counts; nothing here is large, so that memory is no matter."""
    offset, length = strips_of(path, kind, compression)[0]
    pack = {"zlib": zlib.compress, "lzma": lzma.compress}[compression]
    bomb = pack(bytes(40 * 48 * 6 * 2))
    if streams == 2 and compression == "lzma":  # which tifffile unpacks one after the other
        bomb = pack(b"") + bomb
    assert len(bomb) <= length
    content = bytearray(path.read_bytes())
    content[offset : offset + len(bomb)] = bomb
    content[offset + len(bomb) : offset + length] = bytes(length - len(bomb))
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"strip 0 unpacks to more than .* bytes"):
        read_image(path)


@pytest.mark.parametrize("kind", STRIPS)
def test_a_strip_that_holds_too_little_is_refused(path: Path, kind: str) -> None:
    offset, length = strips_of(path, kind, "zlib")[-1]
    content = bytearray(path.read_bytes())
    short = zlib.compress(bytes(10))
    content[offset : offset + length] = short.ljust(length, b"\0")
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"cut off: strip \d+ holds 10 of"):
        read_image(path)


def test_tiles_and_channels_count_as_pixels(path: Path) -> None:
    """A narrow image of wide tiles, and one of very many channels, take what larger ones take."""
    tifffile.imwrite(path, np.zeros((600, 20, 3), np.uint16), tile=(16, 512), photometric="rgb")
    with pytest.raises(ImageError, match=r"512 × 608 = 311,296 pixels"):
        read_image(path, max_pixels=100_000)
    tifffile.imwrite(
        path, np.zeros((20, 30, 99), np.uint16), planarconfig="contig", photometric="rgb"
    )
    with pytest.raises(ImageError, match=r"30 × 500 = 15,000 pixels"):
        read_image(path, max_pixels=10_000)
