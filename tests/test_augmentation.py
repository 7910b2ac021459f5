"""Crops that belong together, whatever is varied in them."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny_images import coordinates, save, save_pair

from fairweather.data import (
    Augmentation,
    Pair,
    RandomCrops,
    random_crop,
    random_jitter,
    random_orientation,
)
from fairweather.errors import DataError, FairweatherError

Crops = tuple[np.ndarray, np.ndarray]


def degrade(clean: np.ndarray) -> np.ndarray:
    return 255 - clean


def save_number(folder: Path, number: int, *, size: tuple[int, int] = (24, 40)) -> Pair:
    clean = coordinates(*size, image=number)
    return save_pair(folder, number, degrade(clean), clean)


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


CORNERS = [
    [8, 0, 2, 8, 15, 2],
    [20, 15, 3, 20, 30, 3],
    [18, 17, 4, 3, 17, 4],
    [1, 32, 4, 16, 32, 4],
    [22, 15, 3, 7, 15, 3],
    [8, 17, 3, 23, 17, 3],
]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Three synthetic pairs, then two real ones."""
    synthetic = [save_clean(tmp_path, number) for number in range(3)]
    return [*synthetic, *(save_number(tmp_path, number) for number in (3, 4))]


def test_the_two_crops_of_a_pair_lie_over_each_other(pairs: list[Pair]) -> None:
    crops = RandomCrops(pairs, crop_px=16, length=300, seed=1, real_fraction=0.5)
    seen: set[tuple[int, int]] = set()
    for number in range(len(crops)):
        crop = crops[number]
        degraded, clean = arrays(crop)
        image = int(clean[0, 0, 2])
        assert bool(crop["synthetic"]) is pairs[image].is_synthetic
        assert np.array_equal(degraded, clean if crop["synthetic"] else degrade(clean))
        top, left = (int(clean[..., axis].min()) for axis in (0, 1))
        window = coordinates(24, 40, image=image)[top : top + 16, left : left + 16]
        turned = [np.array_equal(clean, view) for view in orientations(window)]
        assert sum(turned) == 1
        seen.add((image, turned.index(True)))
    assert seen == {(image, turn) for image in range(5) for turn in range(8)}


def test_a_crop_is_a_tensor_of_bytes(pairs: list[Pair]) -> None:
    crop = RandomCrops(pairs, crop_px=16, length=1, seed=1)[0]
    assert set(crop) == {"degraded", "clean", "synthetic", "index", "number"}
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
        degraded, crop = random_crop((degrade(clean), clean), crop_px=crop_px, random=random)
        assert crop.shape == (crop_px, crop_px, 3)
        assert np.array_equal(degraded, degrade(crop))
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
    degraded, crop = random_crop((degrade(clean), clean), crop_px=8, random=generator())
    assert np.array_equal(crop, clean)
    assert np.array_equal(degraded, degrade(clean))


@pytest.mark.parametrize("size", [(5, 40), (24, 7), (5, 7), (2, 3), (1, 1), (1, 30)])
def test_a_small_image_is_reflected_on_both_sides_alike(size: tuple[int, int]) -> None:
    clean = coordinates(*size)
    random = generator()
    for _ in range(20):
        degraded, crop = random_crop((degrade(clean), clean), crop_px=16, random=random)
        assert crop.shape == (16, 16, 3)
        assert np.array_equal(degraded, degrade(crop))
        for axis, length in enumerate(size):
            lines = crop[..., axis].T if axis else crop[..., axis]
            first = int(lines[0, 0]) if length > 16 else 0
            period = max(1, 2 * (length - 1))
            steps = (np.arange(first, first + 16)) % period
            expected = np.minimum(steps, period - steps) if length > 1 else np.zeros(16)
            assert np.array_equal(lines[:, 0], expected)


def test_a_larger_square_is_scaled_down_as_far_as_the_image_reaches() -> None:
    clean = coordinates(200, 90)
    random, sides = generator(), []
    for _ in range(200):
        degraded, crop = random_crop(
            (degrade(clean), clean), crop_px=32, random=random, largest_downscale=4
        )
        assert crop.shape == (32, 32, 3)
        assert np.abs(degraded.astype(int) - degrade(crop)).max() <= 1  # both rounded
        across, down = (crop[..., axis].astype(int) for axis in (1, 0))
        sides.append((across[16, 30] - across[16, 2]) / 28 * 32)
        assert abs((down[30, 16] - down[2, 16]) / 28 * 32 - sides[-1]) < 3
    assert 31 < min(sides) < 34
    assert 86 < max(sides) < 92  # 128 px are asked for, the image is 90 px wide
    assert abs(np.median(sides) - math.sqrt(32 * 90)) < 7


def test_a_smaller_square_is_scaled_up_and_may_be_a_larger_one_as_well() -> None:
    clean = coordinates(200, 90)
    for largest_downscale, widest_px in ((1.0, 32), (2.0, 64)):
        random, sides = generator(), []
        for _ in range(200):
            degraded, crop = random_crop(
                (degrade(clean), clean),
                crop_px=32,
                random=random,
                largest_downscale=largest_downscale,
                largest_upscale=4,
            )
            assert crop.shape == (32, 32, 3)
            assert np.abs(degraded.astype(int) - degrade(crop)).max() <= 1  # both rounded
            across = crop[..., 1].astype(int)
            sides.append((across[16, 26] - across[16, 6]) / 20 * 32)
        assert 6.5 < min(sides) < 10
        assert widest_px - 3 < max(sides) < widest_px + 3
        assert abs(np.median(sides) - math.sqrt(8 * widest_px)) < 3


def test_small_images_pass_through_the_whole_stream(tmp_path: Path) -> None:
    pair = save_number(tmp_path, 0, size=(9, 11))
    crops = RandomCrops([pair], crop_px=16, length=20, seed=0)
    for number in range(20):
        degraded, clean = arrays(crops[number])
        assert clean.shape == (16, 16, 3)
        assert np.array_equal(degraded, degrade(clean))
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


def test_the_crops_that_the_shipped_weights_were_trained_on_stay_as_they_are(
    pairs: list[Pair],
) -> None:
    """Of each crop, where its upper corners lie in which image, from before there was a jitter."""
    crops = RandomCrops(pairs, crop_px=16, length=6, seed=1, real_fraction=0.5)
    corners = [crops[number]["clean"][:, 0, ::15].T.flatten().tolist() for number in range(6)]
    assert corners == CORNERS


def test_a_seed_of_several_numbers(pairs: list[Pair]) -> None:
    one, same, other, third = (
        RandomCrops(pairs, crop_px=16, length=50, seed=seed) for seed in (1, (1,), (1, 1), (1, 2))
    )
    assert all(streams_equal(one, same, number) for number in range(50))
    assert sum(streams_equal(one, other, number) for number in range(50)) < 5
    assert sum(streams_equal(other, third, number) for number in range(50)) < 5


def test_a_crop_says_which_pair_and_number_it_is(pairs: list[Pair]) -> None:
    crops = RandomCrops(pairs, crop_px=16, length=30, seed=1, real_fraction=0.5)
    for number in range(30):
        assert int(crops[number]["index"]) == int(crops[number]["clean"][2, 0, 0])
        assert int(crops[number]["number"]) == number


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


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(b"not an image")
    with pytest.raises(FairweatherError, match=r"broken\.png"):
        RandomCrops([Pair(path, path)], crop_px=16, length=1, seed=0)[0]


VIEWS = {
    "all": range(8),
    "flips": range(4),
    "horizontal_flip": (0, 2),
    "none": (0,),
}  # of `orientations`


@pytest.mark.parametrize("orientation", VIEWS)
def test_each_choice_of_orientations(orientation: Any) -> None:
    clean, random = coordinates(4, 4), generator()
    views = [view.tobytes() for view in orientations(clean)]
    drawn: Counter[int] = Counter()
    count = 200 * len(VIEWS[orientation])
    for _ in range(count):
        images = degrade(clean), clean
        degraded, turned = random_orientation(images, random=random, orientation=orientation)
        assert np.array_equal(degraded, degrade(turned))
        drawn[views.index(turned.tobytes())] += 1
    assert set(drawn) == set(VIEWS[orientation])
    assert all(abs(n - 200) < 4.5 * math.sqrt(200) for n in drawn.values())


def test_the_shape_stays_where_nothing_is_turned() -> None:
    images = (coordinates(3, 5), coordinates(3, 5))
    for orientation in ("flips", "horizontal_flip", "none"):
        turned = random_orientation(images, random=generator(), orientation=orientation)
        assert [image.shape for image in turned] == [(3, 5, 3)] * 2


STOPS = st.floats(0, 3)
COLOUR = st.floats(0, 0.99)


@given(stops=STOPS, colour=COLOUR, seed=st.integers(0, 99))
def test_jitter_is_one_function_of_the_bytes_of_both_images(
    stops: float, colour: float, seed: int
) -> None:
    """Of each channel; so what was equal stays equal, and each pixel keeps its partner."""
    clean = generator(seed).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    clean[:5, :, 1] = 0
    before = degrade(clean), clean
    augmentation = Augmentation(exposure_jitter_stops=stops, colour_jitter=colour)
    after = random_jitter(before, random=generator(seed), augmentation=augmentation)
    for channel in range(3):
        table: dict[int, int] = {}
        for old, new in zip(before, after, strict=True):
            assert (new.shape, new.dtype) == (old.shape, np.uint8)
            for byte, changed in zip(old[..., channel].flat, new[..., channel].flat, strict=True):
                assert table.setdefault(int(byte), int(changed)) == changed
        largest = 2**stops * (1 + colour)
        smallest = 2**-stops * (1 - colour)
        for byte, changed in table.items():
            assert min(255, byte * smallest) - 0.5001 <= changed <= byte * largest + 0.5001


def test_the_gains_of_a_jitter() -> None:
    """An exposure is one gain for all channels; the gains of colours are drawn for each."""
    grey = np.full((4, 4, 3), 100, np.uint8)
    exposure = Augmentation(exposure_jitter_stops=1)
    colour = Augmentation(colour_jitter=0.2)
    random = generator()
    stops, gains = [], []
    for _ in range(400):
        bright, same = random_jitter((grey, grey), random=random, augmentation=exposure)
        assert same is bright
        assert len(np.unique(bright)) == 1
        stops.append(math.log2(bright[0, 0, 0] / 100))
        gains.append(random_jitter((grey, grey), random=random, augmentation=colour)[0][0, 0] / 100)
    assert -1 <= min(stops) < -0.95
    assert 0.95 < max(stops) <= 1
    assert abs(np.mean(stops)) < 4 * math.sqrt(1 / 3 / 400)
    assert np.allclose(np.min(gains, axis=0), 0.8, atol=0.01)
    assert np.allclose(np.max(gains, axis=0), 1.2, atol=0.01)
    assert np.abs(np.corrcoef(np.transpose(gains)) - np.eye(3)).max() < 4 / math.sqrt(400)


def test_without_jitter_nothing_is_drawn() -> None:
    images, random = (coordinates(4, 4), coordinates(4, 4)), generator()
    assert random_jitter(images, random=random, augmentation=Augmentation()) is images
    assert random.random() == generator().random()


@settings(max_examples=25)
@given(
    orientation=st.sampled_from(list(VIEWS)), stops=STOPS, colour=COLOUR, seed=st.integers(0, 99)
)
def test_pairs_stay_aligned_through_all_of_it(
    tmp_path_factory: pytest.TempPathFactory,
    orientation: Any,
    stops: float,
    colour: float,
    seed: int,
) -> None:
    """Where the clean image has one byte in a channel, the degraded one has one byte too."""
    pair = save_number(tmp_path_factory.mktemp("pair"), 0)
    augmentation = Augmentation(
        orientation=orientation, exposure_jitter_stops=stops, colour_jitter=colour
    )
    crops = RandomCrops(
        [pair, Pair(pair.clean, pair.clean)],
        crop_px=16,
        length=8,
        seed=seed,
        real_fraction=0.5,
        augmentation=augmentation,
    )
    plain = RandomCrops(
        crops.cache.pairs,
        crop_px=16,
        length=8,
        seed=seed,
        real_fraction=0.5,
        augmentation=Augmentation(orientation=orientation),
    )
    for number in range(8):
        degraded, clean = arrays(crops[number])
        before = arrays(plain[number])  # the same place and turn, as the jitter is drawn last
        if crops[number]["synthetic"]:
            assert np.array_equal(degraded, clean)
        for channel in range(3):
            for old, new in zip(before, (degraded, clean), strict=True):
                found = set(zip(old[..., channel].flat, new[..., channel].flat, strict=True))
                assert len(found) == len(np.unique(old[..., channel]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("orientation", "diagonal"),
        ("exposure_jitter_stops", -1),
        ("colour_jitter", 1),
        ("mixup_probability", 1.1),
        ("mixup_alpha", 0),
        ("color_jitter", 0.1),
    ],
)
def test_an_augmentation_out_of_bounds_is_refused(key: str, value: object) -> None:
    with pytest.raises(ValidationError, match=key):
        Augmentation.model_validate({key: value})
