"""Folders become pairs, and files become bytes."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiny_images import coordinates, save

from fairweather.data import find_images, natural_order, read_bytes
from fairweather.errors import DataError
from fairweather.imaging import Photo, write_image


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
