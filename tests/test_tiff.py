import io
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational, ImageFileDirectory_v2

from fairweather.errors import ImageError
from fairweather.imaging import Metadata, Photo, read_image, tiff, write_image

UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2


def noise(*shape: int, dtype: type = np.uint16) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def lzw(data: bytes) -> bytes:
    """Encodes with 9-bit codes only: the table is cleared before it grows (TIFF 6.0, 13)."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    bits = (np.array([*codes, 257])[:, None] >> np.arange(8, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).ravel()).tobytes()


def lzw_tiff(samples: np.ndarray, *, order: str = "<", **tags: object) -> bytes:
    height, width, channels = samples.shape
    strip = lzw(samples.astype(order + "u2").tobytes())
    directory = ImageFileDirectory_v2(prefix=b"II" if order == "<" else b"MM")
    directory.tagtype.update({273: 4, 279: 4})
    layout = {256: width, 257: height, 258: (16,) * channels, 259: 5, 262: 2 if channels > 2 else 1}
    layout |= {273: (0,), 277: channels, 278: height, 279: (len(strip),)}
    for tag, value in (layout | {int(name[1:]): value for name, value in tags.items()}).items():
        directory[tag] = value
    file = io.BytesIO()
    directory.save(file)
    return file.getvalue() + strip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "photo.tif"


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [3, 4])
def test_reads_16_bit_colour(
    path: Path,
    byteorder: Literal["<", ">"],
    planarconfig: str,
    compression: str | None,
    channels: int,
) -> None:
    samples = noise(7, 9, channels)
    stored = samples if planarconfig == "contig" else np.moveaxis(samples, -1, 0)
    tifffile.imwrite(
        path, stored, photometric="rgb", planarconfig=planarconfig, byteorder=byteorder,
        compression=compression, extrasamples=["unassalpha"] * (channels - 3), rowsperstrip=2,
    )  # fmt: skip
    photo = read_image(path)
    np.testing.assert_array_equal(photo.pixels, samples[..., :3])
    assert photo.pixels.dtype == np.uint16
    assert photo.pixels.dtype.isnative
    if channels == 4:
        np.testing.assert_array_equal(photo.alpha, samples[..., 3])
    else:
        assert photo.alpha is None
    assert photo.notes == ()


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_reads_predictors_tiles_and_bigtiff(
    path: Path, tile: tuple[int, int] | None, *, predictor: bool, bigtiff: bool
) -> None:
    samples = noise(37, 41, 3)
    tifffile.imwrite(
        path, samples, photometric="rgb", compression="zlib", predictor=predictor, tile=tile,
        bigtiff=bigtiff,
    )  # fmt: skip
    np.testing.assert_array_equal(read_image(path).pixels, samples)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_sides_of_one_pixel_survive(path: Path, size: tuple[int, int]) -> None:
    samples = noise(*size, 3)
    tifffile.imwrite(path, samples, photometric="rgb")
    np.testing.assert_array_equal(read_image(path).pixels, samples)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extra", [UNSPECIFIED, ASSOCIATED, UNASSOCIATED, None])
def test_lzw_is_read_without_imagecodecs(path: Path, order: str, extra: int | None) -> None:
    samples = noise(7, 9, 3 if extra is None else 4)
    if extra == ASSOCIATED:
        samples[..., 3] = 65535
    tags = {} if extra is None else {"_338": (extra,)}
    path.write_bytes(lzw_tiff(samples, order=order, **tags))
    photo = read_image(path)
    np.testing.assert_array_equal(photo.pixels, samples[..., :3])
    if extra in (ASSOCIATED, UNASSOCIATED):
        np.testing.assert_array_equal(photo.alpha, samples[..., 3])
    else:
        assert photo.alpha is None
    assert bool(photo.notes) == (extra == UNSPECIFIED)


@pytest.mark.parametrize("photometric", [0, 1])
def test_grey_lzw_is_read_without_imagecodecs(path: Path, photometric: int) -> None:
    samples = noise(7, 9, 1)
    path.write_bytes(lzw_tiff(samples, _262=photometric))
    photo = read_image(path)
    assert photo.grey
    expected = samples if photometric else 65535 - samples
    np.testing.assert_array_equal(photo.pixels, np.repeat(expected, 3, axis=-1))


@pytest.mark.skipif(find_spec("imagecodecs") is not None, reason="tests the lack of imagecodecs")
def test_what_needs_imagecodecs_says_so(path: Path) -> None:
    path.write_bytes(lzw_tiff(noise(7, 9, 2), _338=(UNASSOCIATED,)))
    with pytest.raises(ImageError, match=r"photo\.tif.*LZW.*pip install imagecodecs"):
        read_image(path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_16_bits(path: Path, orientation: int, *, compressed: bool) -> None:
    samples = noise(5, 8, 3)
    if compressed:
        path.write_bytes(lzw_tiff(samples, _274=orientation))
    else:
        tifffile.imwrite(
            path, samples, photometric="rgb", extratags=[(274, "H", 1, orientation, True)]
        )
    upright = {
        1: samples,
        2: samples[:, ::-1],
        3: samples[::-1, ::-1],
        4: samples[::-1],
        5: np.transpose(samples, (1, 0, 2)),
        6: np.rot90(samples, -1),
        7: np.transpose(samples[::-1, ::-1], (1, 0, 2)),
        8: np.rot90(samples),
    }[orientation]
    photo = read_image(path)
    np.testing.assert_array_equal(photo.pixels, upright)
    write_image(path, photo)
    np.testing.assert_array_equal(read_image(path).pixels, upright)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_at_zero_is_inverted(path: Path, dtype: type) -> None:
    samples = noise(7, 9, dtype=dtype)
    tifffile.imwrite(path, samples, photometric="miniswhite")
    photo = read_image(path)
    assert photo.grey
    np.testing.assert_array_equal(photo.pixels[..., 1], np.iinfo(dtype).max - samples)


def test_associated_alpha_is_divided_out(path: Path) -> None:
    straight, alpha = noise(16, 16, 3), noise(16, 16) // 2 + 32768
    alpha[0, 0] = 0
    premultiplied = np.rint(straight.astype(float) * alpha[..., None] / 65535).astype(np.uint16)
    samples = np.dstack([premultiplied, alpha])
    tifffile.imwrite(path, samples, photometric="rgb", extrasamples=["assocalpha"])
    photo = read_image(path)
    np.testing.assert_array_equal(photo.alpha, alpha)
    assert photo.pixels[0, 0].tolist() == [0, 0, 0]
    difference = np.abs(photo.pixels.astype(int) - straight)[alpha > 0]
    assert difference.max() <= 1  # half a step of 16 bits, at an alpha of at least a half


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", [["unspecified"], ["unassalpha", "unspecified"]])
def test_a_channel_without_meaning_is_told(path: Path, dtype: type, extra: list[str]) -> None:
    samples = noise(7, 9, 3 + len(extra), dtype=dtype)
    tifffile.imwrite(path, samples, photometric="rgb", extrasamples=extra)
    photo = read_image(path)
    np.testing.assert_array_equal(photo.pixels, samples[..., :3])
    np.testing.assert_array_equal(photo.alpha, samples[..., 3] if extra[1:] else None)
    assert photo.notes == ("a channel that is neither colour nor transparency is left out",)


def test_deep_cmyk_is_told(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((7, 9, 4), np.uint16), photometric="separated")
    photo = read_image(path)
    assert (photo.pixels == 255).all()
    assert photo.pixels.dtype == np.uint8
    assert photo.notes[0] == "16 bits per channel of CMYK are restored as 8"


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_associated_alpha_of_8_bits_is_divided_out(path: Path, compression: str | None) -> None:
    samples = np.array([[[100, 50, 25, 128], [7, 8, 9, 255], [0, 0, 0, 0]]], np.uint8)
    tifffile.imwrite(
        path, samples, photometric="rgb", extrasamples=["assocalpha"], compression=compression
    )
    photo = read_image(path)
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[128, 255, 0]]
    np.testing.assert_allclose(photo.pixels[0, 0].astype(int), [199, 100, 50], atol=1)
    assert photo.pixels[0, 1].tolist() == [7, 8, 9]


def test_a_palette_with_alpha_is_read(path: Path) -> None:
    palette = Image.fromarray(noise(7, 9, dtype=np.uint8) % 4)
    palette.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200, 9, 9, 9])
    alpha = noise(7, 9, dtype=np.uint8)
    Image.merge("PA", (palette.convert("P"), Image.fromarray(alpha))).save(path)
    photo = read_image(path)
    np.testing.assert_array_equal(photo.alpha, alpha)
    assert photo.notes == ("the palette is restored as RGB",)


def test_grey_with_alpha_is_read(path: Path) -> None:
    samples = noise(7, 9, 2)
    tifffile.imwrite(
        path, samples, photometric="minisblack", planarconfig="contig",
        extrasamples=["unassalpha"],
    )  # fmt: skip
    photo = read_image(path)
    assert photo.grey
    np.testing.assert_array_equal(photo.pixels[..., 2], samples[..., 0])
    np.testing.assert_array_equal(photo.alpha, samples[..., 1])


def test_only_the_first_page_is_restored(path: Path) -> None:
    samples = noise(3, 7, 9, 3)
    tifffile.imwrite(path, samples, photometric="rgb")
    photo = read_image(path)
    np.testing.assert_array_equal(photo.pixels, samples[0])
    assert photo.notes == ("only the first of 3 frames is restored",)


def test_twelve_bits_are_stretched(path: Path) -> None:
    packed = bytes([0x00, 0x0F, 0xFF, 0x80, 0x00, 0x01])  # 000 fff | 800 001
    directory = ImageFileDirectory_v2()
    directory.tagtype.update({273: 4, 279: 4})
    for tag, value in {
        256: 2,
        257: 2,
        258: (12,),
        259: 1,
        262: 1,
        273: (0,),
        277: 1,
        278: 2,
    }.items():
        directory[tag] = value
    directory[279] = (6,)
    file = io.BytesIO()
    directory.save(file)
    path.write_bytes(file.getvalue() + packed)
    photo = read_image(path)
    assert photo.pixels[..., 0].tolist() == [[0, 65535], [0x8008, 0x0010]]
    assert photo.notes == ("12-bit grey is restored as 16-bit",)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_floats_are_refused(path: Path, dtype: type, channels: int) -> None:
    samples = np.ones((7, 9, channels), dtype)
    tifffile.imwrite(path, samples, photometric="rgb" if channels == 3 else "minisblack")
    with pytest.raises(ImageError, match=r"photo\.tif.*floating-point.*save it as 16-bit"):
        read_image(path)


def test_wide_integers_are_read_where_they_fit(path: Path) -> None:
    samples = noise(7, 9).astype(np.int32)
    tifffile.imwrite(path, samples)
    np.testing.assert_array_equal(read_image(path).pixels[..., 0], samples)
    tifffile.imwrite(path, samples + 65536)
    with pytest.raises(ImageError, match=r"photo\.tif.*outside 0 to 65535.*16-bit"):
        read_image(path)


def test_camera_raw_is_refused_instead_of_its_thumbnail(path: Path) -> None:
    tifffile.imwrite(path, noise(7, 9, 3), photometric="rgb", subfiletype=1)
    with pytest.raises(ImageError, match=r"photo\.tif.*camera raw.*develop"):
        read_image(path)


def test_cut_off_files_are_errors(path: Path) -> None:
    for compression in (None, "zlib"):
        tifffile.imwrite(path, noise(40, 40, 3), photometric="rgb", compression=compression)
        path.write_bytes(path.read_bytes()[:-500])
        with pytest.raises(ImageError, match=r"photo\.tif.*copy it again"):
            read_image(path)


def test_a_bomb_of_tiles_is_refused(path: Path) -> None:
    tifffile.imwrite(path, noise(16, 16, 3), photometric="rgb", tile=(16, 16), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        for tag in (322, 323):
            file.pages.first.tags[tag].overwrite(60000)
    with pytest.raises(ImageError, match="3,600,000,000 pixels"):
        read_image(path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_readers_read_what_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch, dtype: type, channels: int
) -> None:
    monkeypatch.setattr(tiff, "_BAND_BYTES", 1000)
    samples = noise(40, 50, channels, dtype=dtype)
    with path.open("wb") as file:
        assert tiff.write_tiff(file, samples, metadata=Metadata()) == ()
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert len(page.dataoffsets) > 1
        np.testing.assert_array_equal(page.asarray().reshape(samples.shape), samples)
        assert [int(extra) for extra in page.extrasamples] == [UNASSOCIATED] * (channels in (2, 4))
    if dtype == np.uint8:
        np.testing.assert_array_equal(np.asarray(Image.open(path)).reshape(samples.shape), samples)


def test_bigtiff_is_written_where_four_gigabytes_are_not_enough(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff, "_CLASSIC_LIMIT_BYTES", 100)
    samples, exif = noise(30, 100, 3), Image.Exif()
    exif[ExifTags.Base.Make] = "Fair"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = IFDRational(28, 10)
    write_image(path, Photo(samples, metadata=Metadata(exif=exif.tobytes())))
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.pages.first.asarray(), samples)
    photo, again = read_image(path), Image.Exif()
    np.testing.assert_array_equal(photo.pixels, samples)
    again.load(photo.metadata.exif or b"")
    assert again[ExifTags.Base.Make] == "Fair"
    assert again.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] == pytest.approx(2.8)


def test_exif_that_tiff_cannot_hold_does_not_cost_the_photo(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif, tags = Image.Exif(), tiff.tiff_tags
    exif[ExifTags.Base.Make] = "Fair"

    def with_a_wrong_type(metadata: Metadata) -> dict[int, object]:
        return tags(metadata) | ({271: object()} if metadata.exif else {})

    monkeypatch.setattr(tiff, "tiff_tags", with_a_wrong_type)
    notes = write_image(path, Photo(noise(5, 5, 3), metadata=Metadata(exif=exif.tobytes())))
    assert notes == ("the EXIF data could not be written as TIFF tags and are left out",)
    np.testing.assert_array_equal(read_image(path).pixels, noise(5, 5, 3))
