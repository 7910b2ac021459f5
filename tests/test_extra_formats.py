"""HEIF, JPEG XL and camera raw files, made here, where the extras are installed."""

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms
from skimage import data

from fairweather.errors import ImageError
from fairweather.imaging import Metadata, Photo, check_writable, read_image, write_image
from fairweather.models import create_model
from fairweather.restoration import Restorer

PIXELS = np.ascontiguousarray(data.astronaut()[:60, :90])
XMP = b'<x tiff:Orientation="6" dc:title="Rain"/>'
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int = 1) -> bytes:
    block = Image.Exif()
    block[ExifTags.Base.Orientation], block[ExifTags.Base.Make] = orientation, "maker"
    return block.tobytes()


@pytest.fixture
def heif() -> Any:
    return pytest.importorskip("pillow_heif")


@pytest.fixture
def jxl() -> Any:
    return pytest.importorskip("pillow_jxl")


HEADS = {
    "heif": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "jxl": b"\xff\x0a\x0f\x41",
    "raw": b"II*\0\x10\0\0\0CR\x02\0",
}


@pytest.mark.parametrize("extra", HEADS)
def test_a_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: str
) -> None:
    for module in ("pillow_heif", "pillow_jxl", "rawpy"):
        monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / "a.jpg").write_bytes(HEADS[extra] + bytes(100))
    with pytest.raises(ImageError, match=rf"a\.jpg' is a .*pip install 'fairweather\[{extra}\]'"):
        read_image(tmp_path / "a.jpg")


def test_what_cannot_be_written_is_refused_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ImageError, match=r"cannot be written as '\.dng'; use one of .*\.tif"):
        check_writable(tmp_path / "a.dng")
    monkeypatch.setattr("fairweather.imaging.image.WRITTEN_SUFFIXES", frozenset({".png"}))
    with pytest.raises(ImageError, match=r"fairweather\[heif\]' .*; or use one of \.png"):
        check_writable(tmp_path / "a.HEIC")


def test_a_target_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    """Before the source is opened, even: it does not exist."""
    restorer = Restorer(create_model("ast_n"), device="cpu")
    with pytest.raises(ImageError, match=r"b\.dng' cannot be written"):
        restorer.restore_file(tmp_path / "gone.png", tmp_path / "b.dng")


@pytest.mark.usefixtures("heif")
@pytest.mark.parametrize("kind", ["RGB", "grey", "alpha"])
def test_heif_makes_the_round(tmp_path: Path, kind: str) -> None:
    pixels = np.repeat(PIXELS[..., 1:2], 3, -1) if kind == "grey" else PIXELS
    alpha = np.ascontiguousarray(PIXELS[..., 0]) if kind == "alpha" else None
    metadata = Metadata(exif=exif(6), xmp=XMP, icc_profile=None if kind == "grey" else PROFILE)
    photo = Photo(pixels, alpha=alpha, grey=kind == "grey", metadata=metadata)
    assert write_image(tmp_path / "a.heic", photo) == ()
    again = read_image(tmp_path / "a.heic")
    assert again.pixels.shape == pixels.shape
    assert np.abs(again.pixels.astype(int) - pixels).mean() < 3
    assert (again.grey, again.alpha is None) == (kind == "grey", kind != "alpha")
    assert again.metadata.icc_profile == metadata.icc_profile
    assert again.metadata.xmp == XMP.replace(b'"6"', b'"1"')
    block = Image.Exif()
    block.load(again.metadata.exif or b"")
    assert (block[ExifTags.Base.Orientation], block[ExifTags.Base.Make]) == (1, "maker")
    assert again.notes == ()


def test_the_orientation_of_heif_is_applied_once(tmp_path: Path, heif: Any) -> None:
    heif.from_pillow(Image.fromarray(PIXELS)).save(tmp_path / "a.heic", quality=95, exif=exif(6))
    photo = read_image(tmp_path / "a.heic")
    expected = np.rot90(PIXELS, -1)
    assert photo.pixels.shape == expected.shape
    assert np.abs(photo.pixels.astype(int) - expected).mean() < 6


def test_heif_of_ten_bits_is_read_whole(tmp_path: Path, heif: Any) -> None:
    deep = np.full((64, 64, 3), 65535, np.uint16)
    deep[:, 32:] = 20000
    heif.from_bytes("RGB;16", (64, 64), deep.tobytes()).save(tmp_path / "a.heic", quality=95)
    pixels = read_image(tmp_path / "a.heic").pixels
    assert pixels.dtype == np.uint16
    assert abs(int(pixels[32, 8, 1]) - 65535) < 200
    assert abs(int(pixels[32, 56, 1]) - 20000) < 400


def test_the_space_of_heif_is_found(tmp_path: Path, heif: Any) -> None:
    heif.from_pillow(Image.fromarray(PIXELS)).save(
        tmp_path / "a.heic", color_primaries=12, transfer_characteristics=13
    )
    profile = read_image(tmp_path / "a.heic").metadata.icc_profile
    assert profile is not None
    told = Metadata(png_colour=((b"cICP", bytes([12, 13, 0, 1])),))  # Display P3, too
    write_image(tmp_path / "b.tif", Photo(PIXELS, metadata=told))
    assert profile == read_image(tmp_path / "b.tif").metadata.icc_profile


@pytest.mark.usefixtures("heif")
def test_a_large_heif_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.heic", Photo(PIXELS))
    with pytest.raises(ImageError, match="90 × 60 = 5,400 pixels, more than the 5,000 allowed"):
        read_image(tmp_path / "a.heic", max_pixels=5000)


@pytest.mark.usefixtures("jxl")
@pytest.mark.parametrize("container", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
@pytest.mark.parametrize("size", [(60, 90), (64, 64), (1, 300), (257, 3)])
def test_jpeg_xl_is_read(
    tmp_path: Path, mode: str, size: tuple[int, int], *, container: bool
) -> None:
    samples = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)
    if mode == "I;16":
        samples = samples[..., :1].astype(np.uint16) * 256 + samples[..., 1:2]
    else:
        samples = samples[..., : len(mode)]
    image = Image.fromarray(samples.squeeze(-1) if samples.shape[2] == 1 else samples)
    told = {"exif": exif(6), "xmp": XMP} if container else {}
    image.save(tmp_path / "a.jxl", lossless=True, use_container=container, **told)
    photo = read_image(tmp_path / "a.jxl")
    np.testing.assert_array_equal(photo.pixels, samples[..., :3] * np.ones(3, samples.dtype))
    assert photo.grey == (mode in ("L", "I;16"))
    assert (photo.alpha is not None) == (mode == "RGBA")
    assert b"maker" in (photo.metadata.exif or b"") or not container
    assert photo.metadata.xmp == (XMP.replace(b'"6"', b'"1"') if container else None)
    with pytest.raises(ImageError, match=f"{size[1]} × {size[0]} = .* allowed"):
        read_image(tmp_path / "a.jxl", max_pixels=100)


@pytest.mark.usefixtures("jxl")
@pytest.mark.filterwarnings("ignore:Using JPEG reconstruction")
def test_a_jpeg_in_jpeg_xl_is_that_jpeg(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif(6))
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.jxl")
    photo, expected = read_image(tmp_path / "a.jxl"), read_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(photo.pixels, expected.pixels)
    assert photo.metadata.exif == expected.metadata.exif


@pytest.mark.usefixtures("jxl")
def test_damaged_jpeg_xl_is_an_image_error(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "JXL")
    content = file.getvalue()
    for cut in (3, 20, len(content) // 2):
        (tmp_path / "a.jxl").write_bytes(content[:cut])
        with pytest.raises(ImageError, match=r"a\.jxl' is (damaged|cut off)"):
            read_image(tmp_path / "a.jxl")


def camera_raw(path: Path, values: np.ndarray) -> None:
    """A DNG as simple as can be: a Bayer mosaic, and a matrix that does nothing."""
    one = tuple(part for value in np.eye(3).ravel() for part in (int(value), 1))
    tags = [
        (50706, "B", 4, (1, 4, 0, 0), True),  # version
        (50708, "s", 0, "Test camera", True),
        (33421, "H", 2, (2, 2), True),  # mosaic: red, green, green, blue
        (33422, "B", 4, (0, 1, 1, 2), True),
        (50714, "H", 1, 0, True),  # black
        (50717, "I", 1, 4095, True),  # white
        (50721, "2i", 9, one, True),
        (50728, "2I", 3, (1,) * 6, True),
        (50778, "H", 1, 21, True),  # D65
        (271, "s", 0, "maker", True),
        (274, "H", 1, 6, True),
    ]
    tifffile.imwrite(path, values, photometric=32803, extratags=tags, metadata=None)


def test_a_camera_raw_file_is_developed(tmp_path: Path) -> None:
    pytest.importorskip("rawpy")
    values = np.full((64, 96), 1000, np.uint16)
    values[:, 48:] = 3000
    camera_raw(tmp_path / "a.dng", values)
    photo = read_image(tmp_path / "a.dng")
    assert photo.pixels.shape == (96, 64, 3)
    assert photo.pixels.dtype == np.uint16
    dark, light = (photo.pixels[y, 10:50].astype(int).mean() for y in (20, 76))
    assert dark < light - 5000
    assert "developed" in photo.notes[0]
    block = Image.Exif()
    block.load(photo.metadata.exif or b"")
    assert block[ExifTags.Base.Make] == "maker"
    assert write_image(tmp_path / "a.tif", photo) == ()
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, photo.pixels)
    with pytest.raises(ImageError, match="pixels, more than the 1,000 allowed"):
        read_image(tmp_path / "a.dng", max_pixels=1000)


@pytest.mark.parametrize("part", [0.001, 0.01, 0.5, 0.99])
def test_a_camera_raw_file_that_is_cut_off_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], part: float
) -> None:
    pytest.importorskip("rawpy")
    camera_raw(tmp_path / "a.dng", np.full((200, 300), 1000, np.uint16))
    content = (tmp_path / "a.dng").read_bytes()
    (tmp_path / "a.dng").write_bytes(content[: int(part * len(content))])
    with pytest.raises(ImageError, match=r"a\.dng' is cut off: .* truncated; copy it again"):
        read_image(tmp_path / "a.dng")
    assert capfd.readouterr() == ("", "")
