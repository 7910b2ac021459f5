"""Pictures for people hold the photos that they were given, each in its place."""

from pathlib import Path

import numpy as np
import pytest

from fairweather.errors import ImageError
from fairweather.imaging import Photo, read_image, write_contact_sheet, write_side_by_side

RED, BLUE = (250, 0, 0), (0, 0, 250)


def flat(colour: tuple[int, int, int], height: int, width: int, *, bits: int = 8) -> Photo:
    pixels = np.full((height, width, 3), colour, np.uint8)
    return Photo(pixels if bits == 8 else pixels.astype(np.uint16) * 257)


def test_photos_beside_each_other_have_a_white_gap(tmp_path: Path) -> None:
    write_side_by_side(tmp_path / "a.png", flat(RED, 20, 30), flat(BLUE, 20, 30, bits=16))
    pixels = read_image(tmp_path / "a.png").pixels
    assert pixels.shape == (20, 30 + 8 + 30, 3)
    assert pixels.dtype == np.uint8
    assert (pixels[:, :30] == RED).all()
    assert (pixels[:, 30:38] == 255).all()
    assert (pixels[:, 38:] == BLUE).all()


def test_large_photos_are_scaled_down(tmp_path: Path) -> None:
    write_side_by_side(tmp_path / "a.png", flat(RED, 1000, 4000), flat(BLUE, 1000, 4000))
    assert read_image(tmp_path / "a.png").pixels.shape == (500, 2000 + 8 + 2000, 3)


def test_a_contact_sheet_is_filled_row_by_row(tmp_path: Path) -> None:
    photos = [flat(RED, 100, 640), flat(BLUE, 40, 30), flat(RED, 10, 10)]
    write_contact_sheet(tmp_path / "a.png", photos, columns=2)
    sheet = read_image(tmp_path / "a.png").pixels
    assert sheet.shape == (2 * 328, 2 * 328, 3)
    assert (sheet[:50, :320] == RED).all()  # half as large, to fit into its cell
    assert (sheet[:40, 328:358] == BLUE).all()
    assert (sheet[328:338, :10] == RED).all()
    assert (sheet != 255).any(axis=-1).sum() == 50 * 320 + 40 * 30 + 10 * 10


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nowhere.*create it first"):
        write_side_by_side(tmp_path / "nowhere/a.png", flat(RED, 2, 2))
