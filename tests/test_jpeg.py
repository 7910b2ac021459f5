"""JPEG files that are whole, that only lack their end, and that lack pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fairweather.errors import ImageError
from fairweather.imaging import Photo, read_image

PIXELS = np.ascontiguousarray(data.astronaut()[:200, :232])
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "progressive": {"progressive": True},
    "full chroma": {"subsampling": 0},
    "restart markers": {"restart_marker_rows": 1},
    "progressive with restart markers": {"progressive": True, "restart_marker_blocks": 7},
}
MODES = ["RGB", "L", "CMYK"]
END = b"\xff\xd9"
NO_END = "the end marker of the file is missing; its pixels are whole"


def encoded(kind: str = "baseline", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    picture = Image.fromarray(PIXELS).convert("L" if mode == "L" else "RGB")
    if mode == "CMYK":
        picture = Image.merge("CMYK", (*picture.split(), picture.convert("L")))
    picture.save(file, "JPEG", quality=90, **KINDS[kind])
    return file.getvalue()


def read(folder: Path, content: bytes, **options: Any) -> Photo:
    (folder / "a.jpg").write_bytes(content)
    return read_image(folder / "a.jpg", **options)


def start_of_pixels(content: bytes) -> int:
    """Where the last scan begins."""
    return content.rindex(b"\xff\xda")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_a_missing_end_marker_costs_nothing_but_a_note(
    tmp_path: Path, kind: str, mode: str
) -> None:
    content = encoded(kind, mode)
    whole = read(tmp_path, content)
    assert NO_END not in whole.notes
    photo = read(tmp_path, content[:-2])
    np.testing.assert_array_equal(photo.pixels, whole.pixels)
    assert set(photo.notes) - set(whole.notes) == {NO_END}
    half_marker = read(tmp_path, content[:-1])
    np.testing.assert_array_equal(half_marker.pixels, whole.pixels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("end", [b"", END])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.95])
def test_missing_pixels_are_refused_or_told(
    tmp_path: Path, kind: str, mode: str, end: bytes, keep: float
) -> None:
    """libjpeg makes up the missing pixels without a word, also before an end marker."""
    content = encoded(kind, mode)
    start = start_of_pixels(content)
    cut = content[: start + int((len(content) - start) * keep)].rstrip(b"\xff") + end
    with pytest.raises(ImageError, match=r"a\.jpg' is cut off: .*--truncated allow"):
        read(tmp_path, cut)
    photo = read(tmp_path, cut, truncated="allow")
    (note,) = [note for note in photo.notes if "cut off" in note]
    row = int(note.split("from row ")[1].split(" of 200 ")[0])
    assert 0 <= row < 200
    whole = read(tmp_path, content).pixels
    np.testing.assert_array_equal(photo.pixels[: row - 8], whole[: max(0, row - 8)])
    assert (photo.pixels != whole).any()


def test_a_cut_between_restart_markers_is_found(tmp_path: Path) -> None:
    content = encoded("restart markers")
    cut = content[: content.rindex(b"\xff\xd3")]
    for end in (b"", END):
        with pytest.raises(ImageError, match="is cut off: the pixels from row"):
            read(tmp_path, cut + end)


def test_what_follows_the_end_marker_does_not_matter(tmp_path: Path) -> None:
    content = encoded()
    whole = read(tmp_path, content)
    for tail in (b"\xff", b"trailer \xff\xda of a camera", content):
        photo = read(tmp_path, content + tail)
        np.testing.assert_array_equal(photo.pixels, whole.pixels)
        assert photo.notes == ()


def test_a_thumbnail_is_not_taken_for_the_end(tmp_path: Path) -> None:
    """A thumbnail in the EXIF block has an end marker of its own."""
    file = io.BytesIO()
    thumbnail = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + encoded()
    Image.fromarray(PIXELS).save(file, "JPEG", exif=thumbnail[:60000])
    content = file.getvalue()
    assert read(tmp_path, content).notes == ()
    with pytest.raises(ImageError, match="cut off"):
        read(tmp_path, content[: -len(content) // 20])


def test_few_bytes_do_not_make_a_large_photo(tmp_path: Path) -> None:
    content = bytearray(encoded())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = (20000).to_bytes(2, "big") * 2
    with pytest.raises(ImageError, match="cut off: the pixels from row 0 of 20000"):
        read(tmp_path, bytes(content))


def test_more_scans_than_a_photo_has_are_refused(tmp_path: Path) -> None:
    content = encoded("progressive")
    start = start_of_pixels(content)
    with pytest.raises(ImageError, match="scans, more than the 200"):
        read(tmp_path, content[:start] + content[start:-2] * 250 + END)
