"""Folders become pairs, and pairs become crops that belong together."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fairweather.data import (
    Pair,
    RandomCrops,
    find_images,
    find_pairs,
    random_crop,
    random_orientation,
    read_bytes,
)
from fairweather.errors import DataError, FairweatherError
from fairweather.imaging import Photo, write_image

Crops = tuple[np.ndarray, np.ndarray]


def coordinates(height: int, width: int, *, image: int = 0) -> np.ndarray:
    """Every pixel says where it is: row, column, and the number of its image."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, image)], -1).astype(np.uint8)


def damaged(clean: np.ndarray) -> np.ndarray:
    return 255 - clean


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_pair(folder: Path, number: int, *, size: tuple[int, int] = (24, 40)) -> Pair:
    clean = coordinates(*size, image=number)
    return Pair(
        save(folder / f"input/{number}.png", damaged(clean)),
        save(folder / f"target/{number}.png", clean),
    )


def save_clean(folder: Path, number: int, *, size: tuple[int, int] = (24, 40)) -> Pair:
    path = save(folder / f"clean/{number}.png", coordinates(*size, image=number))
    return Pair(path, path)


def orientations(image: np.ndarray) -> list[np.ndarray]:
    """The eight orientations of an image, written out."""
    transposed = image.transpose(1, 0, 2)
    return [
        image, image[::-1], image[:, ::-1], image[::-1, ::-1],
        transposed, transposed[::-1], transposed[:, ::-1], transposed[::-1, ::-1],
    ]  # fmt: skip


def arrays(crop: dict[str, torch.Tensor]) -> Crops:
    """Degraded and clean, (H, W, 3)."""
    return crop["degraded"].permute(1, 2, 0).numpy(), crop["clean"].permute(1, 2, 0).numpy()


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Three synthetic pairs, then two real ones."""
    synthetic = [save_clean(tmp_path, number) for number in range(3)]
    return [*synthetic, *(save_pair(tmp_path, number) for number in (3, 4))]


def test_the_two_crops_of_a_pair_lie_over_each_other(pairs: list[Pair]) -> None:
    crops = RandomCrops(pairs, crop_px=16, length=300, seed=1, real_fraction=0.5)
    seen: set[tuple[int, int]] = set()
    for number in range(len(crops)):
        crop = crops[number]
        degraded, clean = arrays(crop)
        image = int(clean[0, 0, 2])
        assert bool(crop["synthetic"]) is pairs[image].is_synthetic
        assert np.array_equal(degraded, clean if crop["synthetic"] else damaged(clean))
        top, left = (int(clean[..., axis].min()) for axis in (0, 1))
        window = coordinates(24, 40, image=image)[top : top + 16, left : left + 16]
        turned = [np.array_equal(clean, view) for view in orientations(window)]
        assert sum(turned) == 1
        seen.add((image, turned.index(True)))
    assert seen == {(image, turn) for image in range(5) for turn in range(8)}


def test_a_crop_is_a_tensor_of_bytes(pairs: list[Pair]) -> None:
    crop = RandomCrops(pairs, crop_px=16, length=1, seed=1)[0]
    assert set(crop) == {"degraded", "clean", "synthetic"}
    for side in ("degraded", "clean"):
        assert crop[side].shape == (3, 16, 16)
        assert crop[side].dtype == torch.uint8
    assert crop["synthetic"].dtype == torch.bool


@settings(max_examples=40, deadline=None)
@given(size=st.tuples(st.integers(5, 9), st.integers(5, 9)), crop_px=st.integers(3, 5))
def test_every_place_can_be_drawn(size: tuple[int, int], crop_px: int) -> None:
    clean = coordinates(*size)
    places = {(row, column) for row in range(size[0] - crop_px + 1)
              for column in range(size[1] - crop_px + 1)}  # fmt: skip
    random, drawn = generator(), set()
    for _ in range(25 * len(places)):  # a place is missed once in e²⁵ times
        degraded, crop = random_crop((damaged(clean), clean), crop_px=crop_px, random=random)
        assert crop.shape == (crop_px, crop_px, 3)
        assert np.array_equal(degraded, damaged(crop))
        drawn.add((int(crop[0, 0, 0]), int(crop[0, 0, 1])))
    assert drawn == places


def test_all_places_are_drawn_alike() -> None:
    clean, random = coordinates(6, 5), generator()
    counts = Counter(
        tuple(random_crop((clean, clean), crop_px=4, random=random)[1][0, 0, :2].tolist())
        for _ in range(1200)
    )
    assert len(counts) == 6
    deviation = math.sqrt(1200 / 6)
    assert all(abs(count - 200) < 4.5 * deviation for count in counts.values())


def test_a_crop_as_large_as_the_image_is_the_image() -> None:
    clean = coordinates(8, 8)
    degraded, crop = random_crop((damaged(clean), clean), crop_px=8, random=generator())
    assert np.array_equal(crop, clean)
    assert np.array_equal(degraded, damaged(clean))


def test_orientations_are_drawn_alike() -> None:
    clean, random = coordinates(4, 4), generator()
    views = [view.tobytes() for view in orientations(clean)]
    counts = [0] * 8
    for _ in range(1600):
        degraded, turned = random_orientation((damaged(clean), clean), random=random)
        assert np.array_equal(degraded, damaged(turned))
        counts[views.index(turned.tobytes())] += 1
    assert all(abs(count - 200) < 4.5 * math.sqrt(200) for count in counts)


@pytest.mark.parametrize("size", [(5, 40), (24, 7), (5, 7), (2, 3), (1, 1), (1, 30)])
def test_a_small_image_is_reflected_on_both_sides_alike(size: tuple[int, int]) -> None:
    clean = coordinates(*size)
    random = generator()
    for _ in range(20):
        degraded, crop = random_crop((damaged(clean), clean), crop_px=16, random=random)
        assert crop.shape == (16, 16, 3)
        assert np.array_equal(degraded, damaged(crop))
        for axis, length in enumerate(size):
            lines = crop[..., axis].T if axis else crop[..., axis]
            first = int(lines[0, 0]) if length > 16 else 0
            period = max(1, 2 * (length - 1))
            steps = (np.arange(first, first + 16)) % period
            expected = np.minimum(steps, period - steps) if length > 1 else np.zeros(16)
            assert np.array_equal(lines[:, 0], expected)


def test_small_images_pass_through_the_whole_stream(tmp_path: Path) -> None:
    pair = save_pair(tmp_path, 0, size=(9, 11))
    crops = RandomCrops([pair], crop_px=16, length=20, seed=0)
    for number in range(20):
        degraded, clean = arrays(crops[number])
        assert clean.shape == (16, 16, 3)
        assert np.array_equal(degraded, damaged(clean))
        assert {int(clean[..., axis].max()) for axis in (0, 1)} == {8, 10}


def streams_equal(one: RandomCrops, other: RandomCrops, number: int) -> bool:
    return all(torch.equal(one[number][key], other[number][key]) for key in one[number])


def test_the_seed_and_the_number_decide_a_crop(pairs: list[Pair]) -> None:
    one = RandomCrops(pairs, crop_px=16, length=50, seed=1, real_fraction=0.5)
    longer = RandomCrops(pairs, crop_px=16, length=500, seed=1, real_fraction=0.5)
    for number in reversed(range(50)):  # in any order, and whatever was drawn before
        assert streams_equal(one, longer, number)
    other = RandomCrops(pairs, crop_px=16, length=50, seed=2, real_fraction=0.5)
    assert sum(streams_equal(one, other, number) for number in range(50)) < 5
    distinct = {one[number]["clean"].numpy().tobytes() for number in range(50)}
    assert len(distinct) > 45


def test_the_length_is_as_asked(pairs: list[Pair]) -> None:
    assert len(RandomCrops(pairs, crop_px=16, length=7, seed=1)) == 7


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_the_share_of_real_pairs(pairs: list[Pair], fraction: float) -> None:
    count = 600
    crops = RandomCrops(pairs, crop_px=16, length=count, seed=3, real_fraction=fraction)
    images = Counter(int(crops[number]["clean"][2, 0, 0]) for number in range(count))
    real = images[3] + images[4]
    spread = 4 * math.sqrt(count * fraction * (1 - fraction))
    assert abs(real - count * fraction) <= spread
    if fraction == 0.5:  # every image of a kind is drawn alike
        assert all(abs(images[image] - 100) < 45 for image in range(3))
        assert all(abs(images[image] - 150) < 55 for image in (3, 4))


def test_the_share_does_not_matter_where_there_is_one_kind(pairs: list[Pair]) -> None:
    synthetic = RandomCrops(pairs[:3], crop_px=16, length=20, seed=0, real_fraction=1.0)
    assert all(synthetic[number]["synthetic"] for number in range(20))
    real = RandomCrops(pairs[3:], crop_px=16, length=20, seed=0, real_fraction=0.0)
    assert not any(real[number]["synthetic"] for number in range(20))


def test_nothing_to_crop_from() -> None:
    with pytest.raises(DataError, match="no pairs and no clean images"):
        RandomCrops([], crop_px=16, length=1, seed=0)


def test_a_file_is_decoded_once(tmp_path: Path) -> None:
    pair = save_pair(tmp_path, 0)
    crops = RandomCrops([pair], crop_px=16, length=10, seed=0)
    before = crops[3]
    pair.degraded.unlink()
    pair.clean.unlink()
    assert torch.equal(crops[3]["clean"], before["clean"])
    assert crops[4]["degraded"].shape == (3, 16, 16)


def test_a_pair_of_two_sizes_is_named(tmp_path: Path) -> None:
    pair = Pair(
        save(tmp_path / "input/rainy-7.png", coordinates(40, 24)),
        save(tmp_path / "target/rainy-7.png", coordinates(24, 40)),
    )
    with pytest.raises(DataError, match=r"rainy-7\.png.* 40×24 .* 24×40"):
        RandomCrops([pair], crop_px=16, length=1, seed=0)[0]


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"not an image")
    with pytest.raises(FairweatherError, match=r"broken\.png"):
        RandomCrops([Pair(path, path)], crop_px=16, length=1, seed=0)[0]


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
    save(tmp_path / "input/7.jpg", coordinates(24, 40))
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
