"""Folders of pairs with synthetic degradation."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from tiny_images import pairs_in

from fairweather.data import degrade_folder
from fairweather.errors import DataError, OptionError
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
    made = degrade_folder(
        photos,
        tmp_path / "out",
        task="rain",
        on_done=lambda done, total: calls.append((done, total)),
    )
    assert (made.new, made.kept, made.faults) == (2, 0, ())
    assert calls == [(1, 2), (2, 2)]
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
    with pytest.raises(DataError, match="holds pairs with task rain, not snow, seed 0, not 1;"):
        degrade_folder(photos, out, task="snow", seed=1)
    (out / "made.json").unlink()  # pairs from elsewhere
    with pytest.raises(DataError, match="exists already"):
        degrade_folder(photos, out, task="rain")
    write_image(photos / "a.tif", Photo(PHOTO))
    with pytest.raises(DataError, match="have one name"):
        degrade_folder(photos, tmp_path / "again", task="rain")


def make_empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_bad_files_are_named_and_do_not_stop_the_rest(photos: Path, tmp_path: Path) -> None:
    (photos / "0.png").write_bytes(b"no image")
    write_image(photos / "tiny.png", Photo(PHOTO[:9, :9]))
    made = degrade_folder(photos, tmp_path / "out", task="rain")
    assert (made.new, made.kept) == (2, 0)
    assert len(made.faults) == 2
    assert f"'{photos / '0.png'}'" in made.faults[0]
    assert f"'{photos / 'tiny.png'}': an image of 9×9 px" in made.faults[1]
    assert (tmp_path / "out" / "contact_sheet.jpg").exists()


def test_nothing_but_bad_files_is_an_error(tmp_path: Path) -> None:
    folder = make_empty(tmp_path)
    (folder / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"a\.png"):
        degrade_folder(folder, tmp_path / "out", task="rain")


def test_a_call_that_was_stopped_goes_on(photos: Path, tmp_path: Path) -> None:
    whole = degrade_folder(photos, tmp_path / "whole", task="rain")
    assert whole.new == 2

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        degrade_folder(photos, out, task="rain", on_done=stop)
    (out / "target" / "a.png").unlink()  # as if it had been killed between the two
    write_image(photos / "c.png", Photo(PHOTO))
    made = degrade_folder(photos, out, task="rain")
    assert (made.new, made.kept) == (3, 0)
    again = degrade_folder(photos, out, task="rain")
    assert (again.new, again.kept) == (0, 3)
    for pair in pairs_in(tmp_path / "whole"):
        for path in (pair.degraded, pair.clean):
            assert path.read_bytes() == (out / path.relative_to(tmp_path / "whole")).read_bytes()
