"""Tones that both images of a pair are given."""

import math
from collections.abc import Iterator

import numpy as np
from test_augmentation import degrade, generator

from fairweather.data import Augmentation, random_jitter


def jittered_ramps(**options: float) -> Iterator[np.ndarray]:
    """What becomes of all 256 bytes, (256, 1, 3), many times; of both images alike."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    random = generator()
    for _ in range(200):
        degraded, clean = random_jitter(
            (degrade(ramp), ramp), random=random, augmentation=Augmentation(**options)
        )
        assert np.array_equal(degraded, clean[::-1])
        yield clean


def test_contrast_is_drawn_towards_one_grey() -> None:
    slopes = []
    for clean in jittered_ramps(contrast_jitter=0.4):
        slope = (int(clean[255, 0, 0]) - int(clean[0, 0, 0])) / 255
        assert np.abs(clean[:, 0] - (clean[0, 0, 0] + slope * np.arange(256))[:, None]).max() <= 1
        assert np.array_equal(clean[..., 0], clean[..., 2])
        slopes.append(slope)
    assert 0.6 - 1 / 255 <= min(slopes) < 0.63
    assert max(slopes) > 0.97


def test_gamma_leaves_black_and_white_alone() -> None:
    gammas = []
    for clean in jittered_ramps(gamma_jitter=0.5):
        assert (clean[0] == 0).all()
        assert (clean[255] == 255).all()
        gamma = math.log(clean[128, 0, 0] / 255) / math.log(128 / 255)
        expected = 255 * (np.arange(256) / 255) ** gamma
        assert np.abs(clean[:, 0, 1] - expected).max() < 2  # gamma is told from a rounded byte
        gammas.append(math.log(gamma))
    assert -math.log(1.5) - 0.01 < min(gammas) < -0.38
    assert 0.38 < max(gammas) < math.log(1.5) + 0.01
