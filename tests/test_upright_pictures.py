"""PIL images whose EXIF or XMP says that the camera was held otherwise."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import data

from fairweather.restoration import classify_degradation
from fairweather.restoration.in_memory import from_memory

PHOTO = np.ascontiguousarray(data.astronaut()[20:60, 180:232])


def negative(pixels: np.ndarray, *, grey: bool = False) -> np.ndarray:
    """Stands in for a network: its result is known exactly."""
    return 255 - pixels


def phone_photo(orientation: int, kind: str) -> Image.Image:
    """An image as a file of it opens: PHOTO, seen through a camera held otherwise."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112], exif[0x010F], exif[0x0100] = orientation, "maker", 9999
    options: dict[str, Any] = {"exif": exif, "dpi": (300, 150)}
    if kind == "TIFF":
        options = {"tiffinfo": {0x0112: orientation}}
    elif kind == "XMP":
        options = {"xmp": f'<x tiff:Orientation="{orientation}"/>'.encode()}
    picture = Image.fromarray(PHOTO)
    picture.save(file, "WEBP" if kind == "XMP" else kind, lossless=True, **options)
    file.seek(0)
    return Image.open(file)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "XMP"])
def test_pictures_are_turned_upright_as_files_are(orientation: int, kind: str) -> None:
    expected = ImageOps.exif_transpose(phone_photo(orientation, kind))
    image = phone_photo(orientation, kind)
    restored = from_memory(image, negative)
    np.testing.assert_array_equal(np.asarray(restored), 255 - np.asarray(expected))
    assert restored.getexif().get(0x0112, 1) == 1
    if kind != "TIFF":  # which Pillow turns itself when it loads them
        np.testing.assert_array_equal(np.asarray(image), PHOTO)
    if kind in ("PNG", "WEBP"):
        assert restored.getexif()[0x010F] == "maker"
        assert restored.getexif()[0x0100] == restored.width
        assert image.getexif()[0x0112] == orientation
    if kind == "PNG":
        dpi = (300, 150) if orientation < 5 else (150, 300)
        assert restored.info["dpi"] == pytest.approx(dpi, abs=0.1)
    again = io.BytesIO()
    restored.save(again, "PNG", exif=restored.info.get("exif", b""))
    again.seek(0)
    seen = ImageOps.exif_transpose(Image.open(again))
    np.testing.assert_array_equal(np.asarray(seen), np.asarray(restored))


def test_an_orientation_that_was_set_in_memory_counts() -> None:
    image = Image.fromarray(PHOTO)
    image.getexif()[0x0112] = 6
    restored = from_memory(image, negative)
    np.testing.assert_array_equal(np.asarray(restored), 255 - np.rot90(PHOTO, 3))


def test_damaged_exif_costs_no_picture() -> None:
    image = Image.fromarray(PHOTO)
    image.info["exif"] = b"Exif\0\0II*\0\xff\xff\xff\xff"
    np.testing.assert_array_equal(np.asarray(from_memory(image, negative)), 255 - PHOTO)


def test_the_classifier_sees_pictures_upright() -> None:
    clean = np.ascontiguousarray(data.rocket()[:200, :300])
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(clean).copy()).save(file, "PNG", exif=exif)
    assert classify_degradation(Image.open(file)) == classify_degradation(clean)
