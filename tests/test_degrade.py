"""Folders of pairs with synthetic degradation."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from tiny_images import pairs_in

from fairweather.data import degrade_folder
from fairweather.errors import DataError, ImageError, OptionError
from fairweather.imaging import Photo, read_image, write_image

PHOTO = skimage.data.astronaut()[:60, :80]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    write_image(folder / "a.png", Photo(PHOTO))
    write_image(folder / "deep" / "b.png", Photo(PHOTO[:, ::-1].astype(np.uint16) * 257))
    return folder


def test_pairs_are_written_that_the_pair_layout_reads(photos: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    count = degrade_folder(
        photos,
        tmp_path / "out",
        task="rain",
        on_done=lambda done, total: calls.append((done, total)),
    )
    assert (count, calls) == (2, [(1, 2), (2, 2)])
    pairs = pairs_in(tmp_path / "out")
    assert [pair.clean.relative_to(tmp_path / "out").as_posix() for pair in pairs] == [
        "target/a.png",
        "target/deep/b.png",
    ]
    for pair, clean in zip(pairs, (PHOTO, PHOTO[:, ::-1]), strict=True):
        assert np.array_equal(read_image(pair.clean).pixels, clean)
        degraded = read_image(pair.degraded).pixels
        assert degraded.shape == clean.shape
        assert not np.array_equal(degraded, clean)
    sheet = read_image(tmp_path / "out" / "contact_sheet.jpg").pixels
    assert sheet.shape == (328, 4 * 328, 3)


def test_a_file_gets_the_same_degradation_in_any_folder(photos: Path, tmp_path: Path) -> None:
    degrade_folder(photos, tmp_path / "one", task="snow", seed=3)
    (photos / "0.png").write_bytes((photos / "a.png").read_bytes())
    degrade_folder(photos, tmp_path / "two", task="snow", seed=3)
    degrade_folder(photos, tmp_path / "other", task="snow", seed=4)
    first, again, other = (
        read_image(tmp_path / folder / "input" / "a.png").pixels
        for folder in ("one", "two", "other")
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, read_image(tmp_path / "two" / "input" / "0.png").pixels)


def test_what_cannot_be_done_is_said_before_anything_is_written(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(OptionError, match="task 'hail'"):
        degrade_folder(photos, out, task="hail")
    with pytest.raises(DataError, match="holds no image"):
        degrade_folder(make_empty(tmp_path), out, task="rain")
    assert not out.exists()
    degrade_folder(photos, out, task="rain")
    with pytest.raises(DataError, match="exists already"):
        degrade_folder(photos, out, task="rain")
    write_image(photos / "a.tif", Photo(PHOTO))
    with pytest.raises(DataError, match="have one name"):
        degrade_folder(photos, tmp_path / "again", task="rain")


def make_empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_bad_files_are_named(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"broken\.png"):
        degrade_folder(photos, tmp_path / "out", task="rain")
