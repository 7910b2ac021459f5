"""A finish changes what it is for, and nothing in a photograph that the weights left alone."""

import numpy as np
import pytest
import skimage.data
from skimage import color, filters

from fairweather import Restorer
from fairweather.errors import OptionError
from fairweather.models import create_model
from fairweather.restoration import list_finishes
from fairweather.restoration.finishing import LARGEST_CAST, apply_finish

PHOTO = np.ascontiguousarray(skimage.data.astronaut())


def mean_colour(pixels: np.ndarray) -> np.ndarray:
    return color.rgb2lab(pixels)[..., 1:].mean((0, 1))


def test_an_unchanged_photograph_stays_to_the_bit() -> None:
    for name in list_finishes():
        assert np.array_equal(apply_finish(PHOTO, PHOTO, name=name), PHOTO)


def test_a_colour_cast_is_taken_back_but_for_a_small_one() -> None:
    bluer = (PHOTO * np.array([0.8, 0.95, 1.0])).astype(np.uint8)
    cast = np.linalg.norm(mean_colour(bluer) - mean_colour(PHOTO))
    finished = apply_finish(PHOTO, bluer, name="colour")
    left = np.linalg.norm(mean_colour(finished) - mean_colour(PHOTO))
    assert cast > 2 * LARGEST_CAST
    assert left == pytest.approx(LARGEST_CAST, abs=0.8)


def test_blotches_go_from_smooth_regions_and_details_stay() -> None:
    before = PHOTO.copy()
    before[:200] = 128
    noise = filters.gaussian(np.random.default_rng(0).normal(size=PHOTO.shape), 3, channel_axis=-1)
    blotchy = (before + 8 * noise / noise.std()).clip(0, 255).astype(np.uint8)
    finished = apply_finish(before, blotchy, name="smooth")
    smooth, detailed = np.s_[20:180], np.s_[260:]
    assert finished[smooth].std() < 0.6 * blotchy[smooth].std()
    assert np.abs(finished[detailed].astype(int) - blotchy[detailed]).mean() < 4


def test_local_contrast_rises() -> None:
    flat = (PHOTO * 0.5 + 64).astype(np.uint8)
    finished = apply_finish(PHOTO, flat, name="contrast")
    assert finished.std() > 1.1 * flat.std()


def test_sixteen_bits_and_floats_stay_what_they_are() -> None:
    for before in (PHOTO.astype(np.uint16) * 257, PHOTO / np.float32(255)):
        changed = (before * 0.8).astype(before.dtype)
        finished = apply_finish(before, changed, name="contrast")
        assert (finished.dtype, finished.shape) == (before.dtype, before.shape)


def test_an_unknown_finish_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'matt': is none of colour, smooth, contrast"):
        Restorer(create_model("ast_n"), finish="matt")
