import io
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from png_files import chunk, png
from skimage import data

from fairweather.errors import ImageError
from fairweather.imaging import Photo, containers, decoding, read_image, write_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
ALPHA = np.random.default_rng(1).integers(0, 256, (6, 8), dtype=np.uint8)
GREY = PIXELS[..., 0]


def cmyk_profile() -> bytes:
    """Builds a printer whose inks are all grey: L* = 100 (1 - K) (1 - 0.2 (C + M + Y)).

    An ICC v2 profile with an 8-bit lookup table (ICC.1:2001-04, 6.5.7) of two steps per ink.
    """
    inks = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lightness = 255 * (1 - inks[:, 3]) * (1 - 0.2 * inks[:, :3].sum(axis=1))
    lab = np.full((16, 3), 128, np.uint8)
    lab[:, 0] = np.rint(lightness)
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *[65536 * (place % 4 == 0) for place in range(9)])
    table = b"mft1\0\0\0\0\x04\x03\x02\0" + matrix + ramp * 4 + lab.tobytes() + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)  # D50
    text = b"text\0\0\0\0no rights\0\0\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"Inks\0" + bytes(8 + 3 + 67)
    tags = {b"A2B0": table, b"wtpt": white, b"cprt": text, b"desc": name}
    directory, body = struct.pack(">I", len(tags)), b""
    for signature, content in tags.items():
        start = 128 + 4 + 12 * len(tags) + len(body)
        directory += signature + struct.pack(">II", start, len(content))
        body += content + bytes(-len(content) % 4)
    header = bytearray(128)
    header[0:4] = struct.pack(">I", 128 + len(directory) + len(body))
    header[8:24] = b"\x02\x10\0\0prtrCMYKLab "
    header[36:40] = b"acsp"
    header[68:80] = white[8:]
    return bytes(header) + directory + body


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L"])
def test_plain_modes(tmp_path: Path, mode: str, suffix: str) -> None:
    colour = PIXELS if mode.startswith("RGB") else np.repeat(GREY[..., None], 3, axis=-1)
    image = Image.fromarray(colour).convert(mode.removesuffix("A"))
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(ALPHA))
    image.save(tmp_path / f"a{suffix}")
    photo = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(photo.pixels, colour)
    assert photo.grey == mode.startswith("L")
    if mode.endswith("A"):
        np.testing.assert_array_equal(photo.alpha, ALPHA)
    else:
        assert photo.alpha is None
    assert photo.notes == ()
    assert photo.pixels.flags.c_contiguous


def test_one_bit_is_grey(tmp_path: Path) -> None:
    Image.fromarray(GREY > 127).save(tmp_path / "a.png")
    photo = read_image(tmp_path / "a.png")
    assert photo.grey
    np.testing.assert_array_equal(photo.pixels[..., 1], np.where(GREY > 127, 255, 0))


@pytest.mark.parametrize("transparency", [None, 3, bytes([255, 0, 128])])
def test_a_palette_becomes_rgb(tmp_path: Path, transparency: int | bytes | None) -> None:
    indices = (GREY % 7).astype(np.uint8)
    colours = PIXELS.reshape(-1, 3)[:7]
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    options: dict[str, Any] = {} if transparency is None else {"transparency": transparency}
    image.save(tmp_path / "a.png", **options)
    photo = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels, colours[indices])
    if transparency is None:
        assert photo.alpha is None
    elif transparency == 3:
        np.testing.assert_array_equal(photo.alpha, np.where(indices == 3, 0, 255))
    else:
        opacity = np.array([255, 0, 128, 255, 255, 255, 255])
        np.testing.assert_array_equal(photo.alpha, opacity[indices])
    assert photo.notes == ("the palette is restored as RGB",)


@pytest.mark.parametrize("transparency", [None, 3])
def test_a_palette_of_greys_is_grey(tmp_path: Path, transparency: int | None) -> None:
    indices, greys = (GREY % 7).astype(np.uint8), GREY.reshape(-1)[:7]
    image = Image.fromarray(indices)
    image.putpalette(np.repeat(greys, 3).tobytes())
    options: dict[str, Any] = {} if transparency is None else {"transparency": 3}
    image.save(tmp_path / "a.png", **options)
    photo = read_image(tmp_path / "a.png")
    assert photo.grey
    assert photo.notes == ()
    np.testing.assert_array_equal(photo.pixels[..., 0], greys[indices])
    if transparency:
        np.testing.assert_array_equal(photo.alpha, np.where(indices == 3, 0, 255))


def test_a_colour_key_becomes_alpha(tmp_path: Path) -> None:
    key = tuple(int(value) for value in PIXELS[2, 3])
    Image.fromarray(PIXELS).save(tmp_path / "a.png", transparency=key)
    photo = read_image(tmp_path / "a.png")
    expected = np.full((6, 8), 255)
    expected[2, 3] = 0
    np.testing.assert_array_equal(photo.alpha, expected)
    np.testing.assert_array_equal(photo.pixels, PIXELS)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_grey_key_of_any_depth_becomes_alpha(tmp_path: Path, depth: int) -> None:
    top = 2**depth - 1
    values = np.random.default_rng(0).integers(0, top + 1, (5, 8), dtype=np.uint8)
    bits = (values[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    rows = np.packbits(bits.astype(np.uint8).reshape(5, -1), axis=1)
    key = int(values[2, 2])
    (tmp_path / "a.png").write_bytes(
        png(
            [row.tobytes() for row in rows],
            size=values.shape,
            depth=depth,
            colour_type=0,
            extra=chunk(b"tRNS", struct.pack(">H", key)),
        )
    )
    photo = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(photo.pixels[..., 0], values * (255 // top))
    np.testing.assert_array_equal(photo.alpha, np.where(values == key, 0, 255))
    assert photo.grey


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_goes_through_its_profile(tmp_path: Path, suffix: str) -> None:
    """JPEG stores Adobe's inverted inks, TIFF the plain ones; both are the same colours."""
    inks = np.zeros((16, 48, 4), np.uint8)
    inks[:, 16:32, 0] = inks[:, 32:, 3] = 255  # paper, cyan, black
    image, path = Image.fromarray(inks, "CMYK"), tmp_path / f"a{suffix}"
    options: dict[str, Any] = {"quality": 100} if suffix == ".jpg" else {}
    image.save(path, icc_profile=cmyk_profile(), **options)
    photo = read_image(path)
    grey_of_lightness_80 = 198  # 255 (1.055 Y^(1/2.4) - 0.055), Y = ((80 + 16) / 116)^3
    colours = [photo.pixels[8, x].astype(int).tolist() for x in (4, 24, 44)]
    np.testing.assert_allclose(colours, [[255] * 3, [grey_of_lightness_80] * 3, [0] * 3], atol=3)
    assert "profile" in photo.notes[0]
    assert (photo.metadata.icc_profile or b"")[16:20] == b"RGB "
    assert write_image(tmp_path / "b.jpg", photo, quality=95) == ()


@pytest.mark.parametrize("profile", [None, b"\0" * 16 + b"CMYK" + b"\0" * 200])
def test_cmyk_without_a_usable_profile(tmp_path: Path, profile: bytes | None) -> None:
    inks = np.zeros((16, 32, 4), np.uint8)
    inks[:, 16:, 0] = 255
    Image.fromarray(inks, "CMYK").save(tmp_path / "a.jpg", quality=100, icc_profile=profile)
    photo = read_image(tmp_path / "a.jpg")
    np.testing.assert_allclose(photo.pixels[8, [4, 28]], [[255] * 3, [0, 255, 255]], atol=3)
    assert "approximate" in photo.notes[0]


def test_lab_becomes_srgb(tmp_path: Path) -> None:
    flat = Image.new("RGB", (8, 6), (200, 100, 50))
    flat.convert("LAB").save(tmp_path / "a.tif")
    photo = read_image(tmp_path / "a.tif")
    np.testing.assert_allclose(photo.pixels[3, 3].astype(int), [200, 100, 50], atol=4)
    assert photo.metadata.icc_profile
    assert photo.notes == ("CIELAB is restored as RGB (sRGB)",)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_the_first_of_several_frames(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 6), (shade, 0, 0)) for shade in (250, 120, 10)]
    path = tmp_path / f"a{suffix}"
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, **options)
    with Image.open(path) as image:
        assert sum(1 for _ in ImageSequence.Iterator(image)) == 3
    photo = read_image(path)
    assert "only the first of 3 frames is restored" in photo.notes
    assert (photo.pixels == [250, 0, 0]).all()


def test_the_second_picture_of_a_phone_jpeg_is_told(tmp_path: Path) -> None:
    image = Image.fromarray(PIXELS)
    image.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[image])
    photo = read_image(tmp_path / "a.jpg")
    assert photo.notes == ("only the first of 2 frames is restored",)
    assert photo.metadata.format == "JPEG"


def test_a_gain_map_is_told(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", xmp=b'<x hdrgm:Version="1.0"/>')
    assert "gain map" in read_image(tmp_path / "a.jpg").notes[0]


@pytest.mark.skipif(not decoding.READS_AVIF, reason="Pillow without AVIF")
def test_the_depth_of_avif_is_found(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.avif")
    assert read_image(tmp_path / "a.avif").notes == ()
    content = bytearray((tmp_path / "a.avif").read_bytes())
    assert not containers.is_high_bit_depth_avif(io.BytesIO(content))
    content[content.index(b"av1C") + 6] |= 0x40  # high_bitdepth
    assert containers.is_high_bit_depth_avif(io.BytesIO(content))


def bomb(path: Path, size: tuple[int, int]) -> Path:
    """Writes a PNG of a few bytes whose header announces many pixels."""
    path.write_bytes(png([bytes(8)], size=size, depth=8, colour_type=2))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_bomb_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    path = bomb(tmp_path / "bomb.png", (40000, 40000))
    code = """if True:
        import sys
        from pathlib import Path
        from fairweather.imaging import read_image
        def peak():
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmPeak:")[1].split()[0]) * 1024
        before = peak()
        try:
            read_image(sys.argv[1])
        except Exception as error:
            print(type(error).__name__, error, peak() - before, sep="|")
    """
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    kind, message, grown = done.stdout.split("|")
    assert kind == "ImageError"
    assert "bomb.png' is 40000 × 40000 = 1,600,000,000 pixels" in message
    assert "--max-pixels 1600000000` (max_pixels=1600000000)" in message
    assert int(grown) < 50e6


def test_the_limit_is_ours_and_not_pillows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings are errors here, so Pillow's warning between its limit and twice that would show."""
    write_image(tmp_path / "a.png", Photo(PIXELS))
    for limit in (47, 30, 20):  # of 48 pixels: Pillow would warn, and then refuse
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises((Image.DecompressionBombWarning, Image.DecompressionBombError)):
            Image.open(tmp_path / "a.png")
        monkeypatch.setattr("fairweather.imaging.pixels.BAND_PX", 8)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, PIXELS)
        assert limit == Image.MAX_IMAGE_PIXELS
    assert read_image(tmp_path / "a.png", max_pixels=48).pixels.shape == (6, 8, 3)
    with pytest.raises(ImageError, match="8 × 6 = 48 pixels, more than the 47 allowed"):
        read_image(tmp_path / "a.png", max_pixels=47)


def test_bands_meet_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = data.astronaut()[:101, :97]
    Image.fromarray(pixels).quantize(200).save(tmp_path / "a.png")
    whole = read_image(tmp_path / "a.png").pixels
    monkeypatch.setattr("fairweather.imaging.pixels.BAND_PX", 97 * 7)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, whole)


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Photo(PIXELS))
    bomb(tmp_path / "bomb.png", (20000, 20000))
    wrong: list[str] = []

    def work(limit: int) -> None:
        for _ in range(20):
            try:
                read_image(tmp_path / "bomb.png", max_pixels=limit)
            except ImageError as error:
                if ("allowed" in str(error)) != (limit < 20000**2):
                    wrong.append(str(error))
            read_image(tmp_path / "a.png")

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (100, 20000**2 - 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
