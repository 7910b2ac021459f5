import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage import data

from fairweather.errors import ImageError
from fairweather.imaging import IMAGE_SUFFIXES, Photo, encoding, read_image, write_image

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def message_of(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def photo_or_message(path: Path) -> Photo | str:
    try:
        return read_image(path, max_pixels=10_000_000)
    except ImageError as error:
        return str(error)


def test_the_suffixes() -> None:
    always = {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".webp",
        ".tif",
        ".tiff",
        ".bmp",
        ".gif",
    }
    avif = {".avif"} if "AVIF" in Image.SAVE else set()
    assert always | avif == IMAGE_SUFFIXES


@pytest.mark.parametrize(
    "shape_or_type",
    [{"pixels": PIXELS[..., 0]}, {"pixels": PIXELS.astype(float)}, {"pixels": PIXELS[:0]},
     {"pixels": PIXELS[..., :2]}, {"alpha": PIXELS}, {"alpha": PIXELS[:, :4, 0]},
     {"alpha": PIXELS[..., 0].astype(np.uint16)}],
)  # fmt: skip
def test_a_photo_has_one_shape(shape_or_type: dict[str, np.ndarray]) -> None:
    with pytest.raises(ImageError, match=r"photo: (pixels|alpha) .* but must be"):
        Photo(**{"pixels": PIXELS, **shape_or_type})


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".lzw.tif", ".avif"])
def test_every_orientation_is_turned_upright_once(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    if suffix == ".avif" and ".avif" not in IMAGE_SUFFIXES:
        pytest.skip("Pillow without AVIF")
    path, exif = tmp_path / f"a{suffix}", Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, Any] = {
        ".webp": {"lossless": True},
        ".lzw.tif": {"compression": "tiff_lzw"},
    }.get(suffix, {})
    Image.fromarray(data.cat()[:40, :56]).save(path, exif=exif, **options)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    photo = read_image(path)
    np.testing.assert_array_equal(photo.pixels, expected)
    write_image(tmp_path / "again.png", photo)
    np.testing.assert_array_equal(read_image(tmp_path / "again.png").pixels, expected)
    with Image.open(tmp_path / "again.png") as image:
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(image)), expected)


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", "PNG")
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg").pixels, PIXELS)


@pytest.mark.parametrize("name", ["astronaut", "camera", "coffee", "moon", "rocket"])
def test_real_pictures_make_the_round(tmp_path: Path, name: str) -> None:
    pixels = getattr(data, name)()[:200, :300]
    Image.fromarray(pixels).save(tmp_path / "in.png")
    photo = read_image(tmp_path / "in.png")
    assert photo.grey == (pixels.ndim == 2)
    np.testing.assert_array_equal(photo.pixels, pixels.reshape(*pixels.shape[:2], -1) * [1, 1, 1])
    write_image(tmp_path / "out.tif", photo)
    np.testing.assert_array_equal(read_image(tmp_path / "out.tif").pixels, photo.pixels)


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
@pytest.mark.parametrize("keep", [0.05, 0.6, 0.95])
def test_a_file_that_is_cut_off(tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, Photo(data.astronaut()[:200, :200]))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    assert "copy it again" in message_of(path)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(suffix=st.sampled_from(sorted(IMAGE_SUFFIXES)), deep=st.booleans(), draw=st.data())
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_a_photo_or_an_image_error(
    tmp_path: Path, suffix: str, *, deep: bool, draw: st.DataObject
) -> None:
    path = tmp_path / f"{deep}{suffix}"
    pixels = data.astronaut()[::16, ::16]
    if not path.exists():
        write_image(path, Photo(pixels.astype(np.uint16 if deep else np.uint8)))
    content = bytearray(path.read_bytes())
    for _ in range(draw.draw(st.integers(1, 4))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    damaged = tmp_path / f"damaged{suffix}"
    damaged.write_bytes(content)
    outcome = photo_or_message(damaged)
    if isinstance(outcome, str):
        assert str(damaged) in outcome
        assert "\n" not in outcome
    else:
        assert outcome.pixels.ndim == 3


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert "is empty" in message_of(tmp_path / "a.jpg")


def test_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("I am not a photo")
    assert "is not an image (its first bytes are b'I am not a p')" in message_of(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("head", "name"),
    [(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"), (b"8BPS\0\x01", "Photoshop"),
     (b"%PDF-1.7", "PDF"), (b"II*\0\x10\0\0\0CR\x02\0", "camera raw"),
     (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000")],
)  # fmt: skip
def test_a_stranger_is_named(tmp_path: Path, head: bytes, name: str) -> None:
    (tmp_path / "a.jpg").write_bytes(head + b"\0" * 100)
    message = message_of(tmp_path / "a.jpg")
    assert name in message
    assert "convert it" in message


def test_a_missing_file(tmp_path: Path) -> None:
    assert "does not exist; check the name" in message_of(tmp_path / "a.jpg")
    assert "does not exist; check the name" in message_of(tmp_path / "b" / "a.jpg")


def test_a_broken_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("gone.jpg")
    assert "symbolic link to 'gone.jpg', which does not exist" in message_of(tmp_path / "a.jpg")


def test_a_folder(tmp_path: Path) -> None:
    assert "is a folder" in message_of(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    assert "not a regular file" in message_of(tmp_path / "a.jpg")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    write_image(path, Photo(PIXELS))
    path.chmod(0)
    if AS_ROOT:  # who may read anything

        def denied(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)
    assert "permission denied" in message_of(path)


def test_memory_that_does_not_suffice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError

    write_image(tmp_path / "a.png", Photo(PIXELS))
    monkeypatch.setattr("fairweather.imaging.image.decode", exhausted)
    assert "memory" in message_of(tmp_path / "a.png")


def test_errors_keep_their_cause(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path / "a.jpg")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError, ValueError])
def test_a_failing_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, failure: type[BaseException]
) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, Photo(PIXELS))
    before = path.read_bytes()

    def fail(file: Any, *_: object, **__: object) -> None:
        file.write(b"half")
        raise failure("in the middle")

    monkeypatch.setattr("fairweather.imaging.image.encode", fail)
    with pytest.raises(ImageError if issubclass(failure, Exception) else failure):
        write_image(path, Photo(255 - PIXELS))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_overwriting_has_to_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_image(path, Photo(PIXELS), overwrite=False)
    with pytest.raises(ImageError, match=r"a\.png' exists already.*overwrite=True"):
        write_image(path, Photo(255 - PIXELS), overwrite=False)
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)
    write_image(path, Photo(255 - PIXELS))
    np.testing.assert_array_equal(read_image(path).pixels, 255 - PIXELS)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_the_umask_sets_the_permissions(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_image(tmp_path / "a.jpg", Photo(PIXELS))
    finally:
        os.umask(before)
    assert (tmp_path / "a.jpg").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.png.part", ".png"])
def test_an_unknown_suffix(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"cannot be written as .*\.png"):
        write_image(tmp_path / name, Photo(PIXELS))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no folder.*create it first"):
        write_image(tmp_path / "b" / "a.png", Photo(PIXELS))


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(encoding.Image.Image, "save", full)
    with pytest.raises(ImageError, match=r"a\.jpg' cannot be written: No space left on device"):
        write_image(tmp_path / "a.jpg", Photo(PIXELS))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_reading_a_jpeg_never_holds_three_copies(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5000, 4000), (90, 120, 40)).save(tmp_path / "a.jpg", exif=exif)
    code = """if True:
        import sys
        from pathlib import Path
        from fairweather.imaging import read_image, write_image
        def memory(kind):
            return int(Path("/proc/self/status").read_text().split(kind)[1].split()[0]) * 1024
        before = memory("VmRSS:")
        photo = read_image(sys.argv[1])
        write_image(sys.argv[1], photo)
        print((memory("VmHWM:") - before) / photo.pixels[..., 0].size)
    """
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.jpg"], capture_output=True, text=True, check=True
    )
    assert 6 < float(done.stdout) < 8.5  # bytes per pixel: Pillow's copy takes 4, ours 3
