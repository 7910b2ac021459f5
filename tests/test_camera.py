"""Both crops of a pair as a camera would have made them."""

import numpy as np
import pytest
from PIL import Image

from fairweather.data import random_camera


@pytest.mark.parametrize("seed", range(12))
def test_a_camera_treats_both_images_alike(seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    clean = np.asarray(Image.fromarray(pixels).resize((96, 96), Image.Resampling.BICUBIC))
    degraded = np.minimum(clean.astype(int) + 25, 255).astype(np.uint8)
    random = np.random.default_rng(seed)
    made, kept = random_camera((degraded, clean), random=random)
    assert made.shape == kept.shape == clean.shape
    assert made.dtype == kept.dtype == np.uint8
    assert not np.array_equal(kept, clean)
    seen = (kept > 20) & (kept < 200)
    assert np.median(made.astype(int)[seen] - kept[seen]) == pytest.approx(25, abs=3)
    alone, same = random_camera((clean, clean), random=random)
    assert alone is same


def test_a_camera_enlarges_half_of_the_crops() -> None:
    row, column = np.mgrid[:64, :64]
    waves = (128 + 60 * np.cos(row / 2) * np.cos(column / 2)).astype(np.uint8)
    crop = np.stack([waves] * 3, axis=-1)
    energies = []
    for seed in range(100):
        made, _ = random_camera((crop, crop), random=np.random.default_rng(seed))
        energies.append(np.abs(np.diff(made.astype(int), axis=0)).mean())
    original = np.abs(np.diff(crop.astype(int), axis=0)).mean()
    assert np.mean(np.array(energies) < 0.75 * original) == pytest.approx(0.5, abs=0.15)
