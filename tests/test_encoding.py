import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from skimage import data

from fairweather.errors import ImageError
from fairweather.imaging import WRITTEN_SUFFIXES, Metadata, Photo, encoding, read_image, write_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 255, (6, 8), dtype=np.uint8)
DEEP = np.random.default_rng(2).integers(0, 65536, (6, 8, 3), dtype=np.uint16)
DEEP_ALPHA = np.random.default_rng(3).integers(0, 65536, (6, 8), dtype=np.uint16)
GREY = np.repeat(PIXELS[..., :1], 3, axis=-1)
GREY_DEEP = np.repeat(DEEP[..., :1], 3, axis=-1)
HOLDS_16_BITS = {".png", ".tif", ".tiff"}
HOLDS_ALPHA = HOLDS_16_BITS | {".webp", ".avif", ".gif", ".heic", ".heif", ".hif"}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".TIF", ".webp", ".bmp"])
@pytest.mark.parametrize("alpha", [None, ALPHA])
@pytest.mark.parametrize("pixels", [PIXELS, GREY])
def test_lossless_formats_keep_8_bits(
    tmp_path: Path, suffix: str, alpha: np.ndarray | None, pixels: np.ndarray
) -> None:
    if suffix == ".bmp" and alpha is not None:
        pytest.skip("BMP has no transparency")
    grey = pixels is GREY
    photo = Photo(pixels, alpha=alpha, grey=grey)
    assert write_image(tmp_path / f"a{suffix}", photo, quality=100) == ()
    again = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(again.pixels, pixels)
    np.testing.assert_array_equal(again.alpha, alpha)
    assert again.grey == (grey and suffix != ".webp")
    assert again.pixels.dtype == np.uint8


@pytest.mark.parametrize("suffix", sorted(HOLDS_16_BITS))
@pytest.mark.parametrize("alpha", [None, DEEP_ALPHA])
@pytest.mark.parametrize("pixels", [DEEP, GREY_DEEP])
def test_lossless_formats_keep_16_bits(
    tmp_path: Path, suffix: str, alpha: np.ndarray | None, pixels: np.ndarray
) -> None:
    photo = Photo(pixels, alpha=alpha, grey=pixels is GREY_DEEP)
    assert write_image(tmp_path / f"a{suffix}", photo) == ()
    again = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(again.pixels, pixels)
    np.testing.assert_array_equal(again.alpha, alpha)
    assert again.grey == photo.grey
    assert again.pixels.dtype == np.uint16


@pytest.mark.parametrize("suffix", sorted(WRITTEN_SUFFIXES - HOLDS_16_BITS - {".gif"}))
def test_16_bits_are_rounded_where_there_are_8(tmp_path: Path, suffix: str) -> None:
    flat = np.full((16, 16, 3), 100 * 257 + 128, np.uint16)
    flat[:, 8:] += 1  # the first value that rounds up
    notes = write_image(tmp_path / f"a{suffix}", Photo(flat), quality=100)
    assert [("16 bits" in note, ".png keeps 16" in note) for note in notes] == [(True, True)]
    again = read_image(tmp_path / f"a{suffix}").pixels.astype(int)
    tolerance = 1 if suffix in (".jpg", ".jpeg", ".avif") else 0
    np.testing.assert_allclose(again[8, [2, 14], 1], [100, 101], atol=tolerance)


@pytest.mark.parametrize("suffix", sorted(WRITTEN_SUFFIXES - HOLDS_ALPHA))
def test_transparency_is_laid_on_white(tmp_path: Path, suffix: str) -> None:
    pixels = np.zeros((16, 48, 3), np.uint8)
    alpha = np.repeat(np.array([[0, 128, 255]], np.uint8), 16, axis=1).repeat(16, axis=0)
    notes = write_image(tmp_path / f"a{suffix}", Photo(pixels, alpha=alpha), quality=100)
    assert len(notes) == 1
    assert "laid on white" in notes[0]
    assert ".png keeps it" in notes[0]
    again = read_image(tmp_path / f"a{suffix}")
    assert again.alpha is None
    np.testing.assert_allclose(again.pixels[8, [2, 24, 46], 0].astype(int), [255, 127, 0], atol=2)


@pytest.mark.parametrize(("pixels", "alpha"), [(PIXELS, ALPHA), (DEEP, DEEP_ALPHA)])
def test_laying_on_white_is_exact(pixels: np.ndarray, alpha: np.ndarray) -> None:
    top = np.iinfo(pixels.dtype).max
    opacity = alpha[..., None] / top
    expected = np.rint(pixels * opacity + top * (1 - opacity))
    np.testing.assert_array_equal(encoding._on_white(pixels, alpha), expected)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
def test_a_fully_opaque_alpha_is_no_loss(tmp_path: Path, suffix: str) -> None:
    photo = Photo(PIXELS, alpha=np.full((6, 8), 255, np.uint8))
    assert write_image(tmp_path / f"a{suffix}", photo) == ()


@pytest.mark.parametrize("pixels", [PIXELS, DEEP])
def test_grey_is_the_luma(tmp_path: Path, pixels: np.ndarray) -> None:
    write_image(tmp_path / "a.png", Photo(pixels, grey=True))
    again = read_image(tmp_path / "a.png").pixels
    luma = np.rint(pixels @ np.array([0.299, 0.587, 0.114]))
    np.testing.assert_allclose(again[..., 0], luma, atol=1)
    if pixels is PIXELS:
        np.testing.assert_array_equal(again[..., 0], Image.fromarray(pixels).convert("L"))


def test_equal_channels_are_kept_exactly() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(encoding._luma(np.stack([every] * 3, axis=-1)), every)


def test_bands_meet_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = data.astronaut()[:53, :41]
    whole = encoding._luma(pixels)
    monkeypatch.setattr("fairweather.imaging.pixels.BAND_PX", 41 * 5)
    np.testing.assert_array_equal(encoding._luma(pixels), whole)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp"])
def test_grey_files_hold_one_channel(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", Photo(GREY, grey=True))
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.mode == "L"


def test_grey_gif_is_exact_and_stays_grey(tmp_path: Path) -> None:
    assert write_image(tmp_path / "a.gif", Photo(GREY, grey=True)) == ()
    again = read_image(tmp_path / "a.gif")
    assert again.grey
    np.testing.assert_array_equal(again.pixels, GREY)


def test_jpeg_keeps_full_colour_resolution_and_good_quality(tmp_path: Path) -> None:
    pixels = data.astronaut()[:128, :128]
    write_image(tmp_path / "a.jpg", Photo(pixels))
    with Image.open(tmp_path / "a.jpg") as image:
        assert JpegImagePlugin.get_sampling(image) == 0  # 4:4:4
    Image.fromarray(pixels).save(tmp_path / "b.jpg", quality=95, subsampling=0)
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


@pytest.mark.parametrize("suffix", sorted({".jpg", ".webp", ".avif"} & WRITTEN_SUFFIXES))
def test_quality_is_obeyed(tmp_path: Path, suffix: str) -> None:
    sizes = []
    for quality in (1, 50, 100):
        write_image(tmp_path / f"a{suffix}", Photo(data.astronaut()[:64, :64]), quality=quality)
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)
    assert sizes[0] < sizes[1] < sizes[2]


@pytest.mark.parametrize("quality", [0, 101, -1])
def test_quality_has_limits(tmp_path: Path, quality: int) -> None:
    with pytest.raises(ImageError, match=f"quality is {quality} but must be 1 to 100"):
        write_image(tmp_path / "a.jpg", Photo(PIXELS), quality=quality)


def test_lossy_webp_keeps_alpha_and_what_lies_under_it(tmp_path: Path) -> None:
    alpha = np.zeros((32, 32), np.uint8)
    pixels = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    assert write_image(tmp_path / "a.webp", Photo(pixels, alpha=alpha)) == ()
    again = read_image(tmp_path / "a.webp")
    np.testing.assert_array_equal(again.alpha, alpha)
    np.testing.assert_allclose(again.pixels[16, 16].astype(int), [200, 100, 50], atol=4)


def test_lossless_webp_keeps_the_noise_under_transparency(tmp_path: Path) -> None:
    photo = Photo(PIXELS, alpha=np.zeros((6, 8), np.uint8))
    write_image(tmp_path / "a.webp", photo, quality=100)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp").pixels, PIXELS)


@pytest.mark.skipif(".avif" not in WRITTEN_SUFFIXES, reason="Pillow without AVIF")
def test_avif_tells_that_its_alpha_is_approximate(tmp_path: Path) -> None:
    photo = Photo(PIXELS, alpha=ALPHA)
    assert "approximately" in write_image(tmp_path / "a.avif", photo)[0]
    assert write_image(tmp_path / "a.avif", photo, quality=100) == ()
    np.testing.assert_array_equal(read_image(tmp_path / "a.avif").alpha, ALPHA)


def test_gif_is_exact_where_it_can_be(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (255, 3), dtype=np.uint8)
    pixels = colours[np.random.default_rng(1).integers(0, 255, (40, 50))]
    alpha = np.where(pixels[..., 0] > 100, 255, 0).astype(np.uint8)
    assert write_image(tmp_path / "a.gif", Photo(pixels)) == ()
    np.testing.assert_array_equal(read_image(tmp_path / "a.gif").pixels, pixels)
    assert write_image(tmp_path / "a.gif", Photo(pixels, alpha=alpha)) == ()
    again = read_image(tmp_path / "a.gif")
    np.testing.assert_array_equal(again.alpha, alpha)
    np.testing.assert_array_equal(again.pixels[alpha > 0], pixels[alpha > 0])
    write_image(tmp_path / "b.gif", again)
    np.testing.assert_array_equal(read_image(tmp_path / "b.gif").alpha, alpha)


def test_gif_tells_what_it_approximates(tmp_path: Path) -> None:
    pixels = data.astronaut()[:64, :64]
    alpha = np.linspace(0, 255, 64 * 64).astype(np.uint8).reshape(64, 64)
    notes = write_image(tmp_path / "a.gif", Photo(pixels, alpha=alpha))
    assert len(notes) == 2
    assert "no more than 255 colours" in notes[0]
    assert "nothing in between" in notes[1]
    again = read_image(tmp_path / "a.gif")
    np.testing.assert_array_equal(again.alpha, np.where(alpha < 128, 0, 255))
    difference = np.abs(again.pixels.astype(int) - pixels)[alpha >= 128]
    assert difference.mean() < 10


@pytest.mark.parametrize(
    ("suffix", "limit", "shape"), [(".webp", 16383, (1, 16384)), (".jpg", 65500, (65501, 1))]
)
def test_sides_have_limits(tmp_path: Path, suffix: str, limit: int, shape: tuple[int, int]) -> None:
    photo = Photo(np.zeros((*shape, 3), np.uint8))
    with pytest.raises(ImageError, match=rf"a\{suffix}.*no more than {limit}.*write \.png"):
        write_image(tmp_path / f"a{suffix}", photo)
    edge = Photo(photo.pixels[:limit, :limit])
    write_image(tmp_path / f"a{suffix}", edge)
    assert read_image(tmp_path / f"a{suffix}").pixels.shape == edge.pixels.shape
    assert list(tmp_path.iterdir()) == [tmp_path / f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif"])
def test_exif_is_written_as_it_is(tmp_path: Path, suffix: str) -> None:
    """Also where Pillow cannot make sense of it: a text tag that holds numbers, here."""
    if suffix not in WRITTEN_SUFFIXES:
        pytest.skip("Pillow without AVIF")
    entries = struct.pack(">HHHIIHHIHH", 2, 0x010F, 3, 2, 0x00010002, 0x0112, 3, 1, 6, 0)
    block = b"Exif\0\0MM\0*\0\0\0\x08" + entries + bytes(4) + b"a maker's notes"
    upright = block.replace(
        struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0), struct.pack(">HHIHH", 0x0112, 3, 1, 1, 0)
    )
    assert upright != block
    path = tmp_path / f"a{suffix}"
    assert write_image(path, Photo(PIXELS, metadata=Metadata(exif=block))) == ()
    assert read_image(path).metadata.exif == upright


@pytest.mark.parametrize("source", [".png", ".tif", ".bmp", ".webp"])
def test_lossless_stays_lossless(tmp_path: Path, source: str) -> None:
    """In WebP of its own accord; JPEG and AVIF, which cannot, are told."""
    write_image(tmp_path / f"a{source}", Photo(PIXELS), quality=100)
    photo = read_image(tmp_path / f"a{source}")
    assert write_image(tmp_path / "b.webp", photo) == ()
    np.testing.assert_array_equal(read_image(tmp_path / "b.webp").pixels, PIXELS)
    for suffix in {".jpg", ".avif"} & WRITTEN_SUFFIXES:
        (note,) = write_image(tmp_path / f"b{suffix}", photo)
        assert "changes each pixel a little (.png is exact)" in note
        assert write_image(tmp_path / f"b{suffix}", photo, quality=90) == ()


@pytest.mark.parametrize("source", [".jpg", ".webp"])
def test_what_was_lossy_is_written_as_ever(tmp_path: Path, source: str) -> None:
    write_image(tmp_path / f"a{source}", Photo(PIXELS), quality=90)
    photo = read_image(tmp_path / f"a{source}")
    assert not photo.metadata.is_lossless
    assert write_image(tmp_path / "b.jpg", photo) == ()
    write_image(tmp_path / "b.webp", photo)
    assert not read_image(tmp_path / "b.webp").metadata.is_lossless


def natural(height: int = 300, width: int = 400) -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[:height, 100 : 100 + width])


@pytest.mark.parametrize(
    ("suffix", "side_px"), [(".webp", 150), (".avif", 150), (".heic", 150), (".webp", 600)]
)
def test_a_file_of_a_format_with_loss_stays_about_as_large(
    tmp_path: Path, suffix: str, side_px: int
) -> None:
    """Of a large one only pieces are tried."""
    if suffix not in WRITTEN_SUFFIXES:
        pytest.skip(f"no {suffix} here")
    source, target = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    pixels = np.asarray(Image.fromarray(natural(512, 400)).resize((side_px, side_px)))
    write_image(source, Photo(pixels), quality=55)
    photo = read_image(source)
    write_image(target, photo)
    assert 0.7 < target.stat().st_size / source.stat().st_size < 1.3
    write_image(target, photo, quality=95)
    assert target.stat().st_size > 1.5 * source.stat().st_size


@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("quality", [30, 75, 92])
def test_a_jpeg_stays_about_as_large_as_it_was(tmp_path: Path, quality: int, chroma: str) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(natural()).save(source, quality=quality, subsampling=chroma)
    photo = read_image(source)
    assert write_image(target, photo) == ()
    assert target.stat().st_size == pytest.approx(source.stat().st_size, rel=0.02)
    with Image.open(source) as before, Image.open(target) as after:
        assert after.quantization == before.quantization
        assert JpegImagePlugin.get_sampling(after) == JpegImagePlugin.get_sampling(before)


def test_what_is_asked_for_comes_before_what_the_jpeg_was(tmp_path: Path) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(natural()).save(source, quality=50, subsampling="4:2:0")
    write_image(target, read_image(source), quality=90)
    with Image.open(target) as after:
        assert JpegImagePlugin.get_sampling(after) == 2
        expected = io.BytesIO()
        Image.fromarray(natural()).save(expected, "JPEG", quality=90)
        assert after.quantization == Image.open(expected).quantization
    write_image(target, read_image(source), chroma="4:4:4")
    with Image.open(target) as after, Image.open(source) as before:
        assert JpegImagePlugin.get_sampling(after) == 0
        assert after.quantization == before.quantization


def test_a_grey_jpeg_keeps_its_tables_and_one_of_cmyk_becomes_rgb(tmp_path: Path) -> None:
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(natural()).convert("L").save(source, quality=60)
    write_image(target, read_image(source))
    with Image.open(target) as after, Image.open(source) as before:
        assert after.mode == "L"
        assert after.quantization[0] == before.quantization[0]
    Image.fromarray(natural()).convert("CMYK").save(source, quality=60)
    write_image(target, read_image(source))
    with Image.open(target) as after, Image.open(source) as before:
        assert after.mode == "RGB"
        assert after.quantization[0] != before.quantization[0]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".mpo", ".JPG"])
def test_jpegs_of_other_suffixes(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", Photo(natural()))
    with Image.open(tmp_path / f"a{suffix}") as image:
        assert image.format == "JPEG"


@pytest.mark.parametrize("suffix", sorted({".jpg", ".avif", ".heic"} & WRITTEN_SUFFIXES))
def test_chroma_is_as_asked(tmp_path: Path, suffix: str) -> None:
    sizes = []
    for chroma in ("4:4:4", "4:2:0"):
        write_image(tmp_path / f"a{suffix}", Photo(natural()), chroma=chroma)
        sizes.append((tmp_path / f"a{suffix}").stat().st_size)
    assert sizes[1] < 0.95 * sizes[0]
