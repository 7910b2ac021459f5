"""Images are decoded once, whoever asks, and whatever happens to the disk."""

import errno
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import pytest
from PIL import Image

from fairweather.data import (
    Augmentation,
    ImageCache,
    Pair,
    PairCache,
    RandomCrops,
    default_cache_folder,
    read_bytes,
)
from fairweather.data import cache as cache_room
from fairweather.errors import DataError, FairweatherError

POSIX = pytest.mark.skipif(os.name == "nt", reason="has no limit of descriptors to lower")
SIDE_PX = 36
IMAGE_BYTES = 4096  # on the disk
SIDES = ("degraded", "clean")


def picture(number: int = 0, *, height: int = SIDE_PX, width: int = SIDE_PX) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=0)
    return path


def save_pictures(folder: Path, count: int) -> list[Path]:
    return [save(folder / f"photos/{number}.png", picture(number)) for number in range(count)]


def stored(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.npy"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded so far."""
    paths: list[Path] = []

    def counted(path: Path) -> np.ndarray:
        paths.append(path)
        return read_bytes(path)

    monkeypatch.setattr(cache_room, "read_bytes", counted)
    return paths


def test_the_second_read_maps_what_the_first_decoded(tmp_path: Path, decoded: list[Path]) -> None:
    (path,) = save_pictures(tmp_path, 1)
    first = ImageCache(tmp_path / "cache").read(path)
    assert decoded == [path]
    second = ImageCache(tmp_path / "cache").read(path)  # as another process would
    assert decoded == [path]
    assert isinstance(second, np.memmap)
    assert not second.flags.writeable
    assert second.dtype == np.uint8
    np.testing.assert_array_equal(first, picture())
    np.testing.assert_array_equal(second, picture())


def test_memory_holds_what_no_folder_does(tmp_path: Path, decoded: list[Path]) -> None:
    (path,) = save_pictures(tmp_path, 1)
    cache = ImageCache(None)
    first = cache.read(path)
    path.unlink()
    assert cache.read(path) is first
    assert decoded == [path]
    np.testing.assert_array_equal(first, picture())
    assert [file.name for file in tmp_path.iterdir()] == ["photos"]


def test_a_changed_file_is_decoded_anew(tmp_path: Path, decoded: list[Path]) -> None:
    (path,) = save_pictures(tmp_path, 1)
    cache = ImageCache(tmp_path / "cache")
    cache.read(path)
    before = path.stat()
    save(path, picture(7))
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    np.testing.assert_array_equal(cache.read(path), picture(7))
    assert len(decoded) == 2
    save(path, picture(7, height=9))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # of another size
    np.testing.assert_array_equal(cache.read(path), picture(7, height=9))


def test_two_names_of_a_file_are_one_image(
    tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = save_pictures(tmp_path, 1)
    cache = ImageCache(tmp_path / "cache")
    cache.read(path)
    monkeypatch.chdir(tmp_path)
    cache.read(Path("photos/0.png"))
    cache.read(tmp_path / "cache/../photos/0.png")
    assert decoded == [path]


def break_file(file: Path, *, how: str) -> None:
    content = file.read_bytes()
    other: dict[str, bytes] = {
        "empty": b"",
        "half a header": content[:50],
        "half the pixels": content[: len(content) // 2],
        "a byte short": content[:-1],
        "text": b"Dear cache,\n" * 99,
        "a header gone wrong": content[:12] + b"((({'" + content[17:],
    }
    if how in other:
        file.write_bytes(other[how])
    elif how == "an archive":
        with file.open("wb") as stream:
            np.savez(stream, a=picture())
    else:
        arrays: dict[str, Any] = {
            "floats": picture().astype(float),
            "grey": picture()[..., 0],
            "four channels": np.zeros((4, 4, 4), np.uint8),
            "objects": np.array([{}]),
        }
        np.save(file, arrays[how], allow_pickle=True)


@pytest.mark.parametrize(
    "how",
    [
        "empty", "half a header", "half the pixels", "a byte short", "text", "an archive",
        "a header gone wrong", "floats", "grey", "four channels", "objects",
    ],
)  # fmt: skip
def test_a_broken_or_foreign_file_is_written_anew(
    tmp_path: Path, decoded: list[Path], how: str
) -> None:
    (path,) = save_pictures(tmp_path, 1)
    folder = tmp_path / "cache"
    ImageCache(folder).read(path)
    (file,) = stored(folder)
    whole = file.read_bytes()
    break_file(file, how=how)
    np.testing.assert_array_equal(ImageCache(folder).read(path), picture())
    assert len(decoded) == 2
    assert file.read_bytes() == whole
    assert isinstance(ImageCache(folder).read(path), np.memmap)
    assert len(decoded) == 2


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def test_beyond_the_limit_nothing_is_stored(
    tmp_path: Path, decoded: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    paths = save_pictures(tmp_path, 5)
    folder = tmp_path / "cache"
    cache = ImageCache(folder, limit_bytes=4 * IMAGE_BYTES - 1)
    for _ in range(2):
        for number, path in enumerate(paths):
            np.testing.assert_array_equal(cache.read(path), picture(number))
    assert len(stored(folder)) == 3
    assert decoded == [*paths, *paths[3:]]
    (warning,) = warnings_in(caplog)
    assert str(folder) in warning
    assert "limit of 16,383 bytes" in warning


@pytest.mark.parametrize("counted", [True, False])
def test_the_limit_is_of_the_folder(tmp_path: Path, *, counted: bool) -> None:
    """Of all processes together, with what lies there, even where the count was lost."""
    paths = save_pictures(tmp_path, 9)
    folder = tmp_path / "cache"
    one, other = (ImageCache(folder, limit_bytes=5 * IMAGE_BYTES) for _ in range(2))
    for first, second in (paths[:2], paths[2:4]):
        one.read(first)
        other.read(second)
    if not counted:
        (folder / "blocks").unlink()
    for path in paths[4:]:
        other.read(path)
        one.read(path)
    assert len(stored(folder)) == 5


@pytest.mark.parametrize(
    ("free", "held", "limit"), [(20, 0, 10), (14, 6, 10), (1 << 40, 0, 1 << 24)]
)
def test_the_limit_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, held: int, limit: int
) -> None:
    """Half of what the disk has for the folder, and so the same for the next run; or 64 GiB."""
    usage = type("Usage", (), {"free": free * 4096})
    monkeypatch.setattr(cache_room.shutil, "disk_usage", lambda path: usage)
    (path,) = save_pictures(tmp_path, 1)
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "blocks").write_bytes(bytes(held))
    cache = ImageCache(folder)
    cache.read(path)
    assert cache.limit_bytes == limit * 4096


def test_a_limit_of_nothing_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path,) = save_pictures(tmp_path, 1)
    cache = ImageCache(tmp_path / "cache", limit_bytes=0)
    np.testing.assert_array_equal(cache.read(path), picture())
    assert not (tmp_path / "cache").exists()
    assert warnings_in(caplog) == []


def test_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    paths = save_pictures(tmp_path, 4)
    folder = tmp_path / "cache"
    cache = ImageCache(folder)
    cache.read(paths[0])

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for number, path in enumerate(paths):
        np.testing.assert_array_equal(cache.read(path), picture(number))
    assert len(stored(folder)) == 1
    assert list(folder.rglob(".*")) == []
    (warning,) = warnings_in(caplog)
    assert "No space left" in warning


@pytest.mark.parametrize("obstacle", ["permissions", "a file"])
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, obstacle: str
) -> None:
    paths = save_pictures(tmp_path, 3)
    folder = tmp_path / "cache"
    if obstacle == "a file":
        folder.touch()
    elif os.name == "nt" or os.geteuid() == 0:
        pytest.skip("permissions stop nobody here")
    else:
        folder.mkdir(mode=0o500)
    cache = ImageCache(folder)
    for number, path in enumerate(paths):
        np.testing.assert_array_equal(cache.read(path), picture(number))
    (warning,) = warnings_in(caplog)
    assert str(folder) in warning


@pytest.mark.slow
def test_many_processes_fill_one_folder(tmp_path: Path) -> None:
    paths = save_pictures(tmp_path, 12)
    folder = tmp_path / "cache"
    code = (
        "import sys; from pathlib import Path; from fairweather.data import ImageCache\n"
        "cache = ImageCache(Path(sys.argv[1]), limit_bytes=1 << 20)\n"
        "for _ in range(3):\n"
        "    for path in map(Path, sys.argv[2:]):\n"
        "        sys.stdout.buffer.write(cache.read(path).tobytes())\n"
    )
    command = [sys.executable, "-c", code, str(folder), *map(str, paths)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    expected = b"".join(picture(number).tobytes() for number in range(12)) * 3
    assert all(output == expected for output in outputs)
    assert len(stored(folder)) == 12
    assert list(folder.rglob(".*")) == []
    blocks = (folder / "blocks").stat().st_size
    assert 12 <= blocks <= 3 * 12  # an image that two write at a time counts for both


@POSIX
def test_more_images_than_descriptors(
    tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    monkeypatch.setattr(os, "fsync", lambda file: None)  # 3000 of them take their time
    count = 3000
    file = save(tmp_path / "tiny.png", picture(height=4, width=4))
    links = [tmp_path / f"{number}.png" for number in range(count)]
    for link in links:
        link.write_bytes(file.read_bytes())
    pairs = PairCache([Pair(link, link) for link in links], images=ImageCache(tmp_path / "cache"))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        for _ in range(2):
            for index in range(count):
                assert pairs[index][0].shape == (4, 4, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(decoded) == count
    assert len(stored(tmp_path / "cache")) == count


@pytest.mark.parametrize("folder", [None, "cache"])
def test_images_of_any_shape_become_squares(tmp_path: Path, folder: str | None) -> None:
    pixels = picture(height=40, width=70)
    path = save(tmp_path / "wide.png", pixels)
    where = folder and tmp_path / folder
    expected = np.array(Image.fromarray(pixels).resize((16, 16), Image.Resampling.BICUBIC))
    for _ in range(2):
        square = ImageCache(where and Path(where), resize_px=16).read(path)
        np.testing.assert_array_equal(square, expected)
    whole = ImageCache(where and Path(where)).read(path)
    np.testing.assert_array_equal(whole, pixels)
    assert ImageCache(where and Path(where), resize_px=20).read(path).shape == (20, 20, 3)


def test_a_cache_goes_to_other_processes(tmp_path: Path) -> None:
    (path,) = save_pictures(tmp_path, 1)
    cache = ImageCache(tmp_path / "cache")
    cache.read(path)
    copy = pickle.loads(pickle.dumps(cache))
    np.testing.assert_array_equal(copy.read(path), picture())


@pytest.mark.parametrize("folder", [None, "cache"])
def test_what_is_no_image_is_named(tmp_path: Path, folder: str | None) -> None:
    cache = ImageCache(folder and tmp_path / folder)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(FairweatherError, match=r"broken\.png"):
        cache.read(tmp_path / "broken.png")
    with pytest.raises(FairweatherError, match=r"none\.png"):
        cache.read(tmp_path / "none.png")


def test_the_default_folder_is_of_the_user() -> None:
    assert default_cache_folder() == Path(platformdirs.user_cache_dir("fairweather")) / "decoded"


def test_a_synthetic_pair_is_one_image(tmp_path: Path, decoded: list[Path]) -> None:
    (path,) = save_pictures(tmp_path, 1)
    degraded, clean = PairCache([Pair(path, path)])[0]
    assert degraded is clean
    assert decoded == [path]


@pytest.mark.parametrize("folder", [None, "cache"])
def test_a_pair_of_two_sizes_is_named(tmp_path: Path, folder: str | None) -> None:
    pair = Pair(
        save(tmp_path / "input/rainy-7.png", picture(height=40, width=24)),
        save(tmp_path / "target/rainy-7.png", picture(height=24, width=40)),
    )
    pairs = PairCache([pair], images=ImageCache(folder and tmp_path / folder))
    for _ in range(2):
        with pytest.raises(DataError, match=r"rainy-7\.png.* 40×24 .* 24×40"):
            pairs[0]


def test_crops_are_the_same_from_everywhere_and_may_be_written_to(tmp_path: Path) -> None:
    """Even a crop of the whole image, which could be the cache's own memory."""
    path, other = save_pictures(tmp_path, 2)
    pairs = [Pair(path, path), Pair(other, path)]
    augmentation = Augmentation(orientation="horizontal_flip")
    expected: list[bytes] = []
    for folder in (None, tmp_path / "cache"):
        crops = RandomCrops(
            pairs,
            crop_px=SIDE_PX,
            length=20,
            seed=0,
            real_fraction=0.5,
            augmentation=augmentation,
            images=ImageCache(folder),
        )
        for _ in range(2):
            drawn = [crops[number] for number in range(20)]
            content = [crop[side].numpy().tobytes() for crop in drawn for side in SIDES]
            expected = expected or content
            assert content == expected
            for crop in drawn:
                for side in SIDES:
                    crop[side].zero_()
