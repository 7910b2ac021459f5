"""How far the colours of a photograph moved as a whole."""

import numpy as np
import pytest
import skimage.data

from fairweather.errors import ImageError
from fairweather.evaluation import measure_cast


def test_a_cast_is_a_shift_of_the_mean_colour_and_not_of_the_brightness() -> None:
    photo = skimage.data.astronaut()[:64, :80]
    assert measure_cast(photo, photo) == 0
    assert measure_cast(photo / np.float32(255), photo) == pytest.approx(0, abs=1e-4)
    grey = np.full((8, 9, 3), 0.5, np.float32)
    assert measure_cast(grey * 0.6, grey) == pytest.approx(0, abs=1e-3)
    red = np.zeros((5, 5, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    # Red of sRGB has a* = 80.1, b* = 67.2.
    assert measure_cast(red, np.zeros_like(red)) == pytest.approx(np.hypot(80.1, 67.2), abs=0.1)
    warm = (photo * np.array([1, 0.97, 0.9])).astype(np.uint8)
    assert 2 < measure_cast(warm, photo) < 8
    with pytest.raises(ImageError, match="reference"):
        measure_cast(photo, photo[..., 0])
