import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngImageFile
from png_files import chunk, png

from fairweather.errors import ImageError
from fairweather.imaging import Photo, Truncated, read_image, write_image
from fairweather.imaging import png as png_room

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
    parts = png_room.take_apart(io.BytesIO(data))
    return png_room.read_deep(PngImageFile(parts.file), parts)


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
    png_room.write_deep(file, samples)
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
    png_room.write_deep(whole, samples)
    monkeypatch.setattr(png_room, "_BAND_BYTES", 3 * 42)
    png_room.write_deep(banded, samples)
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
    assert png_room.take_apart(file).colour == (
        (b"gAMA", struct.pack(">I", 100000)),
        (b"cICP", b"\x09\x10\x00\x01"),
    )


def test_the_public_face_reads_all_sixteen_bits(tmp_path: Path) -> None:
    samples = noise(5, 6, 4)
    (tmp_path / "deep.png").write_bytes(encoded(samples))
    photo = read_image(tmp_path / "deep.png")
    np.testing.assert_array_equal(photo.pixels, samples[..., :3])
    np.testing.assert_array_equal(photo.alpha, samples[..., 3])


BYTES = noise(20, 30, 3).astype(np.uint8)
LONG = "a caption of two megabytes, " * 75_000


def eight_bits(*extra: bytes, keep: int | None = None, end: bytes = b"") -> bytes:
    """An 8-bit PNG of BYTES; `keep` cuts the unpacked pixels off, and the file says it is whole."""
    raw = b"".join(b"\0" + row.tobytes() for row in BYTES)[:keep]
    return b"".join(
        (
            png([], size=BYTES.shape[:2], depth=8, colour_type=2)[:33],
            *extra,
            chunk(b"IDAT", zlib.compress(raw)),
            end,
            chunk(b"IEND", b""),
        )
    )


def read(folder: Path, content: bytes, *, truncated: Truncated = "refuse") -> Photo:
    (folder / "a.png").write_bytes(content)
    return read_image(folder / "a.png", truncated=truncated)


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LONG_CHUNKS = {
    "zTXt": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG.encode())),
    "iTXt": chunk(b"iTXt", b"Comment\0\1\0en\0Kommentar\0" + zlib.compress(LONG.encode())),
    "tEXt": chunk(b"tEXt", b"Comment\0" + LONG.encode()),
    "xmp": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG.encode())),
    "iCCP": chunk(b"iCCP", b"icc\0\0" + zlib.compress(PROFILE + LONG.encode())),
}


@pytest.mark.parametrize("kind", LONG_CHUNKS)
@pytest.mark.parametrize("after", [False, True])
def test_long_text_and_profiles_are_kept(tmp_path: Path, kind: str, *, after: bool) -> None:
    part = LONG_CHUNKS[kind]
    photo = read(tmp_path, eight_bits(end=part) if after else eight_bits(part))
    np.testing.assert_array_equal(photo.pixels, BYTES)
    assert photo.notes == ()
    again = tmp_path / "again.png"
    assert write_image(again, photo) == ()
    for metadata in (photo.metadata, read_image(again).metadata):
        if kind == "xmp":
            assert metadata.xmp == LONG.encode()
        elif kind == "iCCP":
            assert metadata.icc_profile == PROFILE + LONG.encode()
        else:
            assert metadata.text == (("Comment", LONG),)
    assert again.stat().st_size < (3e6 if kind == "tEXt" else 3e5)


def test_text_without_end_is_left_out_and_told(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(70 << 20))
    photo = read(tmp_path, eight_bits(chunk(b"zTXt", b"Bomb\0\0" + bomb)))
    assert photo.metadata.text == ()
    assert photo.notes == ("the text is left out: it unpacks to more than 64 MiB",)
    np.testing.assert_array_equal(photo.pixels, BYTES)


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (chunk(b"zTXt", b"Comment\0\0not deflate"), "text"),
        (chunk(b"iTXt", b"Comment\0"), "text"),
        (chunk(b"tEXt", b"Comment\0x")[:-1] + b"!", "text"),
        (chunk(b"iCCP", b"icc\0\0not deflate"), "colour profile"),
    ],
)
def test_damaged_text_costs_no_photo(tmp_path: Path, part: bytes, what: str) -> None:
    photo = read(tmp_path, eight_bits(part, chunk(b"tEXt", b"Title\0kept")))
    assert photo.notes == (f"the {what} is damaged and is left out",)
    assert photo.metadata.text == (("Title", "kept"),)
    np.testing.assert_array_equal(photo.pixels, BYTES)


@pytest.mark.parametrize("rows", [1, 7, 19])
def test_pixels_that_end_early_are_refused_or_told(tmp_path: Path, rows: int) -> None:
    """Such a file is in order but for the pixels, which Pillow takes for black."""
    content = eight_bits(keep=rows * 91)
    message = f"cut off: the pixels from row {rows} of 20 on are missing"
    with pytest.raises(ImageError, match=message + ".*--truncated allow"):
        read(tmp_path, content)
    photo = read(tmp_path, content, truncated="allow")
    assert photo.notes == (f"the file is {message}",)
    np.testing.assert_array_equal(photo.pixels[:rows], BYTES[:rows])
    assert (photo.pixels[rows:] == 0).all()


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("keep", [0.4, 0.9])
def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(
    tmp_path: Path, depth: int, keep: float
) -> None:
    samples = noise(20, 30, 3)
    content = eight_bits() if depth == 8 else encoded(samples)
    cut = content[: int(len(content) * keep)]
    with pytest.raises(ImageError, match="cut off"):
        read(tmp_path, cut)
    photo = read(tmp_path, cut, truncated="allow")
    (note,) = photo.notes
    row = int(note.split("from row ")[1].split(" ")[0])
    assert 20 * keep - 3 < row < 20 * keep + 1
    whole = BYTES if depth == 8 else samples
    np.testing.assert_array_equal(photo.pixels[:row], whole[:row])


def test_few_bytes_do_not_make_a_large_photo(tmp_path: Path) -> None:
    content = png([bytes(3 * 22_000)] * 3, size=(22_000, 22_000), depth=8, colour_type=2)
    with pytest.raises(ImageError, match="cut off: the pixels from row 3 of 22000 on"):
        read(tmp_path, content)


@pytest.mark.parametrize("interlaced", [False, True])
def test_a_black_end_is_no_missing_end(tmp_path: Path, *, interlaced: bool) -> None:
    samples = noise(20, 30, 3)
    samples[-3:] = 0
    photo = read(tmp_path, encoded(samples, interlaced=interlaced))
    np.testing.assert_array_equal(photo.pixels, samples)
    assert photo.notes == ()


def test_a_file_without_its_end_chunk_is_whole(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read(tmp_path, eight_bits()[:-12]).pixels, BYTES)
