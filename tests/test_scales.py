"""Coarse to fine: how many levels a photograph needs, halved versions, and changes handed up."""

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from PIL import Image

from fairweather import Restorer
from fairweather.errors import OptionError
from fairweather.imaging import Span, as_float
from fairweather.restoration.scales import (
    FOUND,
    SURELY_FOUND,
    Source,
    choose_levels,
    empty_octaves,
    enlarge,
    find_change,
    halve,
    make_versions,
)

PHOTO = skimage.data.astronaut()
COFFEE = np.ascontiguousarray(skimage.data.coffee()[:400, :592])


def enlarged(pixels: np.ndarray, times: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    return np.asarray(image.resize((width * times, height * times), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("photo", [PHOTO, COFFEE])
@pytest.mark.parametrize(("times", "octaves"), [(1, 0), (2, 1), (4, 2)])
def test_enlarging_empties_octaves(photo: np.ndarray, times: int, octaves: int) -> None:
    assert empty_octaves(enlarged(photo, times)) == octaves


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 1), (513, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_halved_version_is_the_mean_of_four_pixels(size: tuple[int, int], dtype: type) -> None:
    values = np.random.default_rng(0).random((*size, 3))
    largest = 1 if dtype is np.float32 else np.iinfo(dtype).max
    pixels = (values * largest).astype(dtype)
    even = np.pad(as_float(pixels), [(0, size[0] % 2), (0, size[1] % 2), (0, 0)], mode="edge")
    expected = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(as_float(halve(pixels)), expected, atol=1e-5)


def test_versions_end_before_they_are_too_small() -> None:
    sizes = [
        version.shape for version in make_versions(np.zeros((300, 1100, 3), np.uint8), levels=3)
    ]
    assert sizes == [(300, 1100, 3), (150, 550, 3), (75, 275, 3)]
    assert len(make_versions(np.zeros((300, 1100, 3), np.uint8), levels=1)) == 2
    assert len(make_versions(np.zeros((511, 300, 3), np.uint8), levels=3)) == 1


def changes_by(amounts: dict[int, float]) -> Callable[[np.ndarray], np.ndarray]:
    """Return what changes parts of a width by an amount."""

    def restore(part: np.ndarray) -> np.ndarray:
        return part + np.float32(amounts.get(part.shape[1], 0))

    return restore


def versions(*widths: int, times: int = 1) -> list[np.ndarray]:
    """Return versions that differ in the width of their parts."""
    photo = enlarged(PHOTO, times)
    return [np.ascontiguousarray(photo[:, :width]) for width in widths]


def test_a_sharp_photograph_starts_smaller_only_where_much_more_is_found() -> None:
    sharp = [PHOTO[:, :250], np.resize(PHOTO[:, :240], (512, 240, 3)), PHOTO[:, :230]]
    much, little = 1.5 * SURELY_FOUND, 0.9 * SURELY_FOUND
    assert choose_levels(sharp, changes_by({250: much, 240: much})) == 0
    assert choose_levels(sharp, changes_by({250: much / 2, 240: much})) == 1
    assert choose_levels(sharp, changes_by({250: much / 2, 240: much / 1.5, 230: much})) == 2
    assert choose_levels(sharp, changes_by({240: little})) == 0
    assert choose_levels(sharp[:1], changes_by({250: much})) == 0


def test_an_enlarged_photograph_starts_where_its_detail_does_if_anything_is_found() -> None:
    large = versions(250, 240, 230, times=4)
    assert choose_levels(large, changes_by({230: 1.1 * FOUND})) == 2
    assert choose_levels(large, changes_by({230: 0.9 * FOUND})) == 0
    assert choose_levels(large[:2], changes_by({240: 1.1 * FOUND})) == 1


def test_a_change_is_enlarged_linearly_in_any_parts() -> None:
    generator = np.random.default_rng(0)
    before, after = (generator.random((9, 6, 3), dtype=np.float32) for _ in range(2))
    change = find_change(before, after)
    planes = torch.from_numpy(after - before).permute(2, 0, 1)[None]
    whole = F.interpolate(planes, scale_factor=2.0, mode="bilinear")[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(
        enlarge(change, np.arange(4, 15), np.arange(3, 11)), whole[4:15, 3:11], atol=2e-3
    )


def test_a_source_is_changed_alike_whole_and_in_tiles() -> None:
    pixels = PHOTO[:100, :150]
    change = (np.random.default_rng(0).random((50, 75, 3)) - 0.5).astype(np.float16)
    source = Source(pixels, change)
    weights = np.ones(64, np.float32)
    tile = source.tile(Span(32, 96, weights), Span(64, 128, weights))
    np.testing.assert_array_equal(tile, source.whole()[32:96, 64:128])
    padded = source.tile(Span(64, 128, weights), Span(128, 192, weights))
    np.testing.assert_array_equal(padded[:36, :22], source.whole()[64:, 128:])
    assert source.whole().min() >= 0
    assert source.whole().max() <= 1


class Darkens:
    """An engine that takes a tenth of the light of what is left, at each level."""

    def __init__(self, restorer: Restorer):
        assert restorer.engine is not None
        self.device, self.config = restorer.engine.device, restorer.engine.config
        self.bytes_per_px = restorer.engine.bytes_per_px

    def __call__(self, tiles: np.ndarray, context: object = None) -> np.ndarray:
        return tiles * np.float32(0.9)

    def look(self, image: np.ndarray) -> np.ndarray:
        raise AssertionError("no context")

    def at_once(self) -> int:
        return 1

    def free_bytes(self) -> int:
        return 1 << 30

    def release(self) -> None:
        pass


@pytest.mark.parametrize(("levels", "share"), [(0, 0.9), (1, 0.81), (2, 0.729)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_each_level_restores_what_the_one_before_left(
    levels: int, share: float, dtype: type
) -> None:
    photo = enlarged(PHOTO, 2).astype(dtype) * (257 if dtype is np.uint16 else 1)
    restorer = Restorer("rain", device="cpu", levels=levels, tile=256)
    restorer.engine = Darkens(restorer)  # type: ignore[assignment]
    result = restorer.restore_pixels(photo)
    assert result.dtype == dtype
    difference = np.abs(as_float(result) - share * as_float(photo))
    # The changes of a smaller version are smooth, so edges keep a little of theirs.
    assert difference.mean() < 0.003


def test_the_tiles_of_all_levels_are_counted_from_the_start() -> None:
    photo = enlarged(PHOTO, 2)  # 1024 × 1024, then 512 × 512, then 256 × 256
    restorer = Restorer("rain", device="cpu", levels=2, tile=512)
    restorer.engine = Darkens(restorer)  # type: ignore[assignment]
    told: list[tuple[int, int]] = []
    restorer.restore_pixels(photo, on_tile=lambda *count: told.append(count))
    assert told == [(count, 1 + 1 + 9) for count in range(1, 12)]


def test_levels_are_told_and_strength_is_of_the_whole_change() -> None:
    photo = enlarged(PHOTO, 2)
    results = []
    for strength in (0.5, 1.0):
        restorer = Restorer("rain", device="cpu", levels=1, strength=strength)
        restorer.engine = Darkens(restorer)  # type: ignore[assignment]
        results.append(restorer.restore_pixels(photo).astype(float))
    np.testing.assert_allclose(results[0], (photo + results[1]) / 2, atol=1)


@pytest.mark.parametrize("levels", [-1, 4, "many"])
def test_levels_that_there_are_not(levels: object) -> None:
    with pytest.raises(OptionError, match=r"levels .*: is neither 'auto' nor a number from 0 to 3"):
        Restorer("rain", levels=levels)  # type: ignore[arg-type]
