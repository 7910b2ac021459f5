"""Orientation and offset of a degraded image are measured, whatever the degradation."""

import numpy as np
import pytest
from scenes import SIZE, scene

from fairweather.data import (
    DEGRADATIONS,
    ORIENTATIONS,
    degrade_pixels,
    find_offset,
    find_orientation,
)


@pytest.mark.parametrize("task", list(DEGRADATIONS))
def test_all_eight_orientations_of_a_square(task: str) -> None:
    clean = scene(0)[:, :200]
    degraded = degrade_pixels(clean, task=task, seed=3).mean(-1)
    for name, turn in ORIENTATIONS.items():
        assert find_orientation(turn(degraded), clean.mean(-1))[0] == name


@pytest.mark.parametrize("task", [task for task in DEGRADATIONS if task != "motion_blur"])
def test_offsets_under_every_degradation(task: str) -> None:
    for number in (0, 4, 5):
        degraded = degrade_pixels(scene(number), task=task, seed=number).mean(-1)
        offset = find_offset(degraded[9:, :-13], scene(number).mean(-1)[:-9, 13:])
        assert offset is not None
        assert offset.is_certain
        assert offset.down_px == pytest.approx(-9, abs=0.3)
        assert offset.right_px == pytest.approx(13, abs=0.3)


def test_nothing_is_measured_where_nothing_can_be() -> None:
    random = np.random.default_rng(0)
    noise = [random.uniform(0, 255, SIZE).astype(np.float32) for _ in range(2)]
    flat = np.full(SIZE, 128, np.float32)
    unlike = scene(0).mean(-1), scene(2).mean(-1)
    for degraded, clean in (noise, unlike, (flat, flat), (flat[:30], flat[:30])):
        offset = find_offset(degraded, clean)
        assert offset is None or not offset.is_certain
