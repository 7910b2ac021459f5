import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from png_files import chunk, png

from fairweather.imaging import deep, read_image

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def encoded(samples: np.ndarray, *, interlaced: bool = False, extra: bytes = b"") -> bytes:
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    rows = [
        row.astype(">u2").tobytes()
        for top, left, down, across in passes
        for row in samples[top::down, left::across]
        if row.size
    ]
    height, width, channels = samples.shape
    return png(
        rows,
        size=(height, width),
        depth=16,
        colour_type=COLOUR_TYPES[channels],
        interlaced=interlaced,
        extra=extra,
    )


def decoded(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    return deep.read_png(file, PngImageFile(file))


def noise(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 65536, (height, width, channels), dtype=np.uint16)


def unfiltered(data: bytes, height: int, width: int, channels: int) -> np.ndarray:
    """Decodes what was written, byte by byte after the specification."""
    row_bytes = width * channels * 2
    raw = zlib.decompress(data)
    rows = np.zeros((height + 1, row_bytes), int)  # with a row above
    for y in range(height):
        kind, *line = raw[y * (row_bytes + 1) : (y + 1) * (row_bytes + 1)]
        assert kind == 2
        rows[y + 1] = (np.array(line) + rows[y]) % 256
    return rows[1:].astype(np.uint8).view(">u2").reshape(height, width, -1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (9, 13), (3, 1)])
def test_reads_every_kind(channels: int, size: tuple[int, int], *, interlaced: bool) -> None:
    samples = noise(*size, channels)
    read = decoded(encoded(samples, interlaced=interlaced))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, samples)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**32))
def test_writes_what_the_specification_reads(h: int, w: int, channels: int, seed: int) -> None:
    samples, file = noise(h, w, channels, seed), io.BytesIO()
    deep.write_png(file, samples)
    data = file.getvalue()
    assert data[24:26] == bytes([16, COLOUR_TYPES[channels]])
    start = data.index(b"IDAT")
    pieces, at = b"", start - 4
    while data[at + 4 : at + 8] == b"IDAT":
        (length,) = struct.unpack_from(">I", data, at)
        pieces += data[at + 8 : at + 8 + length]
        at += 12 + length
    np.testing.assert_array_equal(unfiltered(pieces, h, w, channels), samples)
    Image.open(file).verify()  # checksums
    np.testing.assert_array_equal(decoded(data), samples)


def test_bands_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, whole, banded = noise(50, 7, 3), io.BytesIO(), io.BytesIO()
    deep.write_png(whole, samples)
    monkeypatch.setattr(deep, "_BAND_BYTES", 3 * 42)
    deep.write_png(banded, samples)
    np.testing.assert_array_equal(decoded(banded.getvalue()), samples)
    assert len(banded.getvalue()) == len(whole.getvalue())


@pytest.mark.parametrize("channels", [1, 3])
def test_a_colour_key_becomes_alpha(channels: int) -> None:
    samples = noise(6, 7, channels)
    key = np.array([258, 771, 1284][:channels], np.uint16)
    samples[2, 3] = samples[4, 4] = key
    samples[0, 0] = key
    samples[0, 0, 0] += 1  # the high bytes are equal, so 8 bits would not tell them apart
    read = decoded(encoded(samples, extra=chunk(b"tRNS", key.astype(">u2").tobytes())))
    expected = np.full((6, 7), 65535)
    expected[2, 3] = expected[4, 4] = 0
    np.testing.assert_array_equal(read[..., :-1], samples)
    np.testing.assert_array_equal(read[..., -1], expected)


def test_colour_chunks_are_found_as_they_are() -> None:
    gamma = chunk(b"gAMA", struct.pack(">I", 100000))
    text = chunk(b"tEXt", b"Title\0x")
    file = io.BytesIO(
        encoded(noise(2, 2, 3), extra=gamma + text + chunk(b"cICP", b"\x09\x10\x00\x01"))
    )
    assert deep.png_colour_chunks(file) == (
        (b"gAMA", struct.pack(">I", 100000)),
        (b"cICP", b"\x09\x10\x00\x01"),
    )


def test_the_public_face_reads_all_sixteen_bits(tmp_path: Path) -> None:
    samples = noise(5, 6, 4)
    (tmp_path / "deep.png").write_bytes(encoded(samples))
    photo = read_image(tmp_path / "deep.png")
    np.testing.assert_array_equal(photo.pixels, samples[..., :3])
    np.testing.assert_array_equal(photo.alpha, samples[..., 3])
