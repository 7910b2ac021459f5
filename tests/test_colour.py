"""Colour spaces that are told without a profile; LittleCMS says what the profiles made mean."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base, Interop
from png_files import chunk, png
from skimage import data

from fairweather.imaging import WRITTEN_SUFFIXES, Photo, read_image, write_image

PIXELS = np.ascontiguousarray(data.astronaut()[:40, :56])
SRGB_GREEN = np.array([[0.3127, 0.3290], [0.64, 0.33], [0.30, 0.60], [0.15, 0.06]])
P3 = np.array([[0.3127, 0.3290], [0.68, 0.32], [0.265, 0.69], [0.15, 0.06]])
BT2020 = np.array([[0.3127, 0.3290], [0.708, 0.292], [0.170, 0.797], [0.131, 0.046]])


def code_points(primaries: int, transfer: int) -> bytes:
    return bytes([primaries, transfer, 0, 1])


def chromaticities(points: np.ndarray) -> bytes:
    return np.rint(points * 100_000).astype(">u4").tobytes()


def saved(path: Path, *chunks: tuple[bytes, bytes], grey: bool = False) -> Path:
    pixels = PIXELS[..., :1] if grey else PIXELS
    rows = [row.tobytes() for row in pixels]
    extra = b"".join(chunk(*one) for one in chunks)
    path.write_bytes(
        png(rows, size=PIXELS.shape[:2], depth=8, colour_type=0 if grey else 2, extra=extra)
    )
    return path


def profile_told_by(folder: Path, part: tuple[bytes, bytes]) -> bytes | None:
    """What a PNG that tells a space in a chunk gets as a TIFF."""
    write_image(folder / "told.tif", read_image(saved(folder / "told.png", part)))
    return read_image(folder / "told.tif").metadata.icc_profile


def xyz_of(profile: bytes, colours: np.ndarray) -> np.ndarray:
    """What LittleCMS makes of (N, 3) bytes: XYZ under D50, by way of CIELAB."""
    opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    lab = ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(opened, lab, "RGB", "LAB", renderingIntent=1)
    image = ImageCms.applyTransform(Image.fromarray(colours[None]), transform)
    assert image is not None
    values = np.asarray(image)[0].astype(float)
    return np.column_stack([values[:, 0] / 2.55, values[:, 1:].astype(np.int8)])


def lab_of(linear: np.ndarray, points: np.ndarray) -> np.ndarray:
    """CIELAB (D50) of linear RGB, as the textbook has it: Bradford, then the cube roots."""
    bradford = np.array(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
    )
    whole = np.column_stack([points, 1 - points.sum(1)]) / points[:, 1:]
    white, primaries = whole[0], whole[1:].T
    d50 = np.array([0.9642, 1, 0.8249])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ white)) @ bradford
    xyz = linear @ (adapt @ primaries @ np.diag(np.linalg.inv(primaries) @ white)).T / d50
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.column_stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])]
    )


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


SPACES = {
    "Display P3": ((b"cICP", code_points(12, 13)), P3, srgb_to_linear),
    "linear": ((b"gAMA", struct.pack(">I", 100_000)), SRGB_GREEN, lambda v: v),
    "gamma 1.8": ((b"gAMA", struct.pack(">I", 55_556)), SRGB_GREEN, lambda v: v**1.8),
    "chromaticities": ((b"cHRM", chromaticities(P3)), P3, srgb_to_linear),
    "BT.2020": (
        (b"cICP", code_points(9, 14)),
        BT2020,
        lambda v: np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45)),
    ),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("suffix", sorted({".jpg", ".tif", ".webp", ".avif"} & WRITTEN_SUFFIXES))
def test_a_space_without_profile_becomes_a_profile(tmp_path: Path, space: str, suffix: str) -> None:
    part, points, to_linear = SPACES[space]
    photo = read_image(saved(tmp_path / "a.png", part))
    assert photo.metadata.icc_profile is None
    write_image(tmp_path / f"b{suffix}", photo)
    profile = read_image(tmp_path / f"b{suffix}").metadata.icc_profile
    assert profile is not None
    colours = np.random.default_rng(0).integers(60, 200, (50, 3), dtype=np.uint8)
    colours[:2] = [[255, 255, 255], [0, 0, 0]]
    expected = lab_of(to_linear(colours / 255), points)
    seen = np.abs(expected[:, 1:]).max(1) < 127  # what 8 bits of CIELAB can hold
    np.testing.assert_allclose(xyz_of(profile, colours)[seen], expected[seen], atol=1.1)
    assert seen.sum() > 30


def test_png_keeps_what_it_told(tmp_path: Path) -> None:
    for part, *_ in SPACES.values():
        write_image(tmp_path / "b.png", read_image(saved(tmp_path / "a.png", part)))
        again = read_image(tmp_path / "b.png").metadata
        assert again.png_colour == (part,)
        assert again.icc_profile is None


def test_grey_gets_a_grey_profile(tmp_path: Path) -> None:
    part = (b"gAMA", struct.pack(">I", 100_000))
    photo = read_image(saved(tmp_path / "a.png", part, grey=True))
    assert write_image(tmp_path / "b.tif", photo) == ()
    profile = read_image(tmp_path / "b.tif").metadata.icc_profile
    assert profile is not None
    grey = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(grey, ImageCms.createProfile("sRGB"), "L", "RGB")
    image = ImageCms.applyTransform(Image.fromarray(np.array([[0, 55, 255]], np.uint8)), transform)
    assert np.asarray(image)[0, :, 1].tolist() == [0, 128, 255]  # sRGB of 55 / 255


@pytest.mark.parametrize(
    "part",
    [
        (b"sRGB", b"\0"),
        (b"gAMA", struct.pack(">I", 45_455)),
        (b"cHRM", chromaticities(SRGB_GREEN)),
        (b"cICP", code_points(1, 13)),
        (b"cICP", code_points(2, 2)),
    ],
)
def test_srgb_needs_no_profile(tmp_path: Path, part: tuple[bytes, bytes]) -> None:
    photo = read_image(saved(tmp_path / "a.png", part))
    assert write_image(tmp_path / "b.tif", photo) == ()
    assert read_image(tmp_path / "b.tif").metadata.icc_profile is None


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp"])
@pytest.mark.parametrize(
    "part",
    [
        (b"cICP", code_points(9, 16)),
        (b"cICP", code_points(9, 18)),
        (b"cHRM", bytes(32)),
        (b"cHRM", b"short"),
        (b"gAMA", bytes(4)),
        (b"gAMA", struct.pack(">I", 1)),
    ],
)
def test_what_no_profile_tells_is_said(
    tmp_path: Path, part: tuple[bytes, bytes], suffix: str
) -> None:
    photo = Photo(PIXELS, metadata=read_image(saved(tmp_path / "a.png", (b"sRGB", b"\0"))).metadata)
    photo.metadata.__dict__["png_colour"] = (part,)
    (note,) = write_image(tmp_path / f"b{suffix}", photo, quality=90)
    assert "cannot hold the colour space" in note
    assert read_image(tmp_path / f"b{suffix}").metadata.icc_profile is None


@pytest.mark.skipif(".avif" not in WRITTEN_SUFFIXES, reason="Pillow without AVIF")
@pytest.mark.parametrize(("primaries", "transfer"), [(12, 13), (9, 16), (1, 13), (2, 2)])
def test_the_space_of_avif_is_found(tmp_path: Path, primaries: int, transfer: int) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.avif", quality=90)
    content = bytearray((tmp_path / "a.avif").read_bytes())
    at = content.index(b"colrnclx") + 8
    content[at : at + 4] = struct.pack(">HH", primaries, transfer)
    (tmp_path / "a.avif").write_bytes(content)
    metadata = read_image(tmp_path / "a.avif").metadata
    part = (b"cICP", code_points(primaries, transfer))
    if transfer == 16:
        assert metadata.png_colour == (part,)
        assert metadata.icc_profile is None
    else:
        assert metadata.png_colour == ()
        assert metadata.icc_profile == profile_told_by(tmp_path, part)


def test_the_chromaticities_of_tiff_are_found(tmp_path: Path) -> None:
    tags = {318: tuple(P3[0]), 319: tuple(P3[1:].ravel())}
    Image.fromarray(PIXELS).save(tmp_path / "a.tif", tiffinfo=tags)
    write_image(tmp_path / "b.webp", read_image(tmp_path / "a.tif"))
    profile = read_image(tmp_path / "b.webp").metadata.icc_profile
    assert profile is not None
    assert profile == profile_told_by(tmp_path, (b"cHRM", chromaticities(P3)))


ADOBE_RGB = np.array([[0.3127, 0.3290], [0.64, 0.33], [0.21, 0.71], [0.15, 0.06]])


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_adobe_rgb_that_exif_alone_tells_becomes_a_profile(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    told = {Base.ColorSpace: 0xFFFF, IFD.Interop: {Interop.InteropIndex: "R03"}}
    exif.get_ifd(IFD.Exif).update(told)
    Image.fromarray(PIXELS).save(tmp_path / "camera.jpg", exif=exif)
    write_image(tmp_path / f"out{suffix}", read_image(tmp_path / "camera.jpg"))
    profile = read_image(tmp_path / f"out{suffix}").metadata.icc_profile
    assert profile is not None
    colours = np.random.default_rng(0).integers(60, 200, (50, 3), dtype=np.uint8)
    expected = lab_of((colours / 255) ** (563 / 256), ADOBE_RGB)
    seen = np.abs(expected[:, 1:]).max(1) < 127
    np.testing.assert_allclose(xyz_of(profile, colours)[seen], expected[seen], atol=1.1)


def test_srgb_that_exif_tells_needs_no_profile(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif)[IFD.Interop] = {Interop.InteropIndex: "R98"}
    Image.fromarray(PIXELS).save(tmp_path / "camera.jpg", exif=exif)
    assert read_image(tmp_path / "camera.jpg").metadata.icc_profile is None
