"""Folders become pairs, and files become bytes."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from fairweather.data import Pair, find_images, find_pairs, natural_order, read_bytes
from fairweather.errors import DataError
from fairweather.imaging import Photo, write_image


def coordinates(height: int, width: int) -> np.ndarray:
    """Every pixel says where it is: row and column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], -1).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_pair(folder: Path, number: int) -> None:
    for side in ("input", "target"):
        save(folder / side / f"{number}.png", coordinates(4, 4))


def test_images_are_found_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = ["b.png", "a.JPG", "deep/er/c.tif", "z.webp"]
    for name in names:
        save(tmp_path / name, coordinates(4, 4))
    save(tmp_path / ".hidden.png", coordinates(4, 4))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    assert find_images(tmp_path) == [tmp_path / name for name in sorted(names)]


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    image = save(tmp_path / "frames.png/a.png", coordinates(4, 4))
    assert find_images(tmp_path) == [image]


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere: is not a folder"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="holds no image") as caught:
        find_images(tmp_path)
    assert str(tmp_path) in str(caught.value)
    file = save(tmp_path / "a.png", coordinates(4, 4))
    with pytest.raises(DataError, match=r"a\.png: is not a folder"):
        find_images(file)


def test_pairs_are_found_by_name_whatever_their_suffixes(tmp_path: Path) -> None:
    files = {}
    for side, suffix in (("input", ".png"), ("target", ".jpg")):
        for name in ("b", "a.v2", "deep/a"):
            files[side, name] = save(tmp_path / side / f"{name}{suffix}", coordinates(4, 4))
    expected = [Pair(files["input", n], files["target", n]) for n in ("a.v2", "b", "deep/a")]
    assert find_pairs(tmp_path) == expected
    assert not any(pair.is_synthetic for pair in expected)


@pytest.mark.parametrize(("lone", "other"), [("input", "target"), ("target", "input")])
def test_a_file_without_a_partner_is_named(tmp_path: Path, lone: str, other: str) -> None:
    for number in range(3):
        save_pair(tmp_path, number)
    for name in ("rainy-8", "rainy-9"):
        save(tmp_path / lone / f"{name}.png", coordinates(4, 4))
    with pytest.raises(DataError, match=rf"{lone}/rainy-8 has no partner in {other}/.*\(2 ") as it:
        find_pairs(tmp_path)
    assert str(tmp_path) in str(it.value)


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    save_pair(tmp_path, 7)
    save(tmp_path / "input/7.jpg", coordinates(4, 4))
    with pytest.raises(DataError, match="input/7"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("side", ["input", "target"])
def test_a_missing_side_is_named(tmp_path: Path, side: str) -> None:
    save_pair(tmp_path, 0)
    (tmp_path / side / "0.png").unlink()
    (tmp_path / side).rmdir()
    with pytest.raises(DataError, match=f"{side}: is not a folder"):
        find_pairs(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_are_read_as_eight(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    bytes_ = np.arange(768).reshape(16, 16, 3).astype(np.uint8)
    deep = bytes_.astype(np.uint16) * 257
    if suffix == ".png":
        write_image(path, Photo(deep))
    else:
        tifffile.imwrite(path, deep, photometric="rgb")
    pixels = read_bytes(path)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, bytes_)


def test_sixteen_bits_between_two_bytes(tmp_path: Path) -> None:
    deep = np.linspace(0, 65535, 48 * 48 * 3).astype(np.uint16).reshape(48, 48, 3)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb")
    assert np.abs(read_bytes(tmp_path / "deep.tif") - deep / 257).max() < 1


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_every_image_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(coordinates(6, 9)).convert(mode).save(path)
    pixels = read_bytes(path)
    assert pixels.shape == (6, 9, 3)
    assert pixels.dtype == np.uint8


def test_numbers_in_names_are_sorted_by_their_value() -> None:
    names = ["b2", "A10", "a2/x", "a2", "B02", "a", "10", "9", ""]
    ordered = ["", "9", "10", "a", "a2", "a2/x", "A10", "B02", "b2"]
    assert sorted(names, key=natural_order) == ordered
