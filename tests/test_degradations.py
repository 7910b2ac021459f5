"""What every degradation promises, and the one thing that makes each what it is."""

import dataclasses

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from fairweather.data import DEGRADATIONS
from fairweather.data.degradations import (
    HazeRanges,
    MoireRanges,
    RaindropRanges,
    ShadowRanges,
    SnowRanges,
    add_haze,
    add_moire,
    add_raindrops,
    add_shadow,
    add_snow,
)
from fairweather.data.degradations.moire import demosaick
from fairweather.data.degradations.raindrop import gaussian_blur
from fairweather.data.degradations.randomness import Dice

TASKS = tuple(DEGRADATIONS)


def photos(size: tuple[int, int]) -> Tensor:
    """Three crops of a photograph."""
    height, width = size
    pixels = skimage.data.astronaut()
    crops = [pixels[at : at + height, at : at + width] for at in range(40, 40 + 7 * 3, 7)]
    return torch.from_numpy(np.stack(crops) / np.float32(255)).permute(0, 3, 1, 2)


def degrade(task: str, clean: Tensor, *, seed: int = 0) -> Tensor:
    return DEGRADATIONS[task](clean, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [(16, 16), (64, 48), (33, 90), (128, 128)])
def test_any_size_keeps_shape_range_and_input(task: str, size: tuple[int, int]) -> None:
    clean = photos(size)
    before = clean.clone()
    degraded = degrade(task, clean)
    assert degraded.shape == clean.shape
    assert degraded.dtype == clean.dtype
    assert degraded.isfinite().all()
    assert degraded.min() >= 0
    assert degraded.max() <= 1
    assert torch.equal(clean, before)
    assert (degraded - clean).abs().mean() > 1e-3


@pytest.mark.parametrize("task", TASKS)
def test_seed_decides_and_every_image_gets_its_own(task: str) -> None:
    clean = photos((64, 64))[:1].expand(3, -1, -1, -1)
    first, again, other = (degrade(task, clean, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-2)
    assert not torch.allclose(first[0], first[1], atol=1e-2)


def test_haze_is_the_scattering_model() -> None:
    """Where β is huge only the airlight is left; where it is zero only the scene."""
    clean = photos((64, 64))
    generator = torch.Generator().manual_seed(0)
    ranges = HazeRanges(airlight=(0.8, 0.8), tint=0.0, near_depth=(0.5, 0.5), patchiness=(0.0, 0.0))
    thick = dataclasses.replace(ranges, density=(50.0, 50.0))
    none = dataclasses.replace(ranges, density=(0.0, 0.0))
    torch.testing.assert_close(
        add_haze(clean, generator=generator, ranges=thick), torch.full_like(clean, 0.8)
    )
    torch.testing.assert_close(add_haze(clean, generator=generator, ranges=none), clean)


def test_snow_is_brighter_than_a_dark_scene_and_covers_as_much_as_asked() -> None:
    dark = torch.full((8, 3, 128, 128), 0.1)
    shares = []
    for coverage in ((0.01, 0.01), (0.2, 0.2)):
        ranges = SnowRanges(layers=(1, 1), coverage=coverage, veil=(0.0, 0.0), opacity=(1.0, 1.0))
        snowy = add_snow(dark, generator=torch.Generator().manual_seed(0), ranges=ranges)
        assert (snowy >= dark - 1e-6).all()
        shares.append((snowy > 0.12).float().mean().item())
    assert shares[0] < 0.06
    assert shares[1] > 3 * shares[0]


def test_drops_change_only_what_they_cover_and_show_the_scene_elsewhere() -> None:
    clean = photos((128, 128))
    few = RaindropRanges(drops=(2.0, 2.0), radius_px=(10.0, 10.0), defocus_px=(0.8, 0.8))
    wet = add_raindrops(clean, generator=torch.Generator().manual_seed(0), ranges=few)
    changed = ((wet - clean).abs().amax(1) > 0.02).float().mean((1, 2))
    assert (changed > 0.003).all()
    assert (changed < 0.3).all()
    none = add_raindrops(
        clean, generator=torch.Generator(), ranges=RaindropRanges(drops=(0.0, 0.0))
    )
    assert torch.equal(none, clean)


def test_shadow_darkens_red_more_than_blue_and_leaves_the_lit_part() -> None:
    grey = torch.full((6, 3, 96, 96), 0.7)
    ranges = ShadowRanges(
        ambient=(0.3, 0.3), blueness=(0.3, 0.3), area=(0.4, 0.4), texture=(0.0, 0.0)
    )
    shaded = add_shadow(grey, generator=torch.Generator().manual_seed(0), ranges=ranges)
    assert (shaded <= grey + 1e-6).all()
    umbra = shaded.amin((2, 3))
    assert (umbra[:, 2] > umbra[:, 0]).all()
    expected = 0.7 * (0.3 * torch.tensor([0.85, 1.0, 1.15])) ** (1 / 2.2)
    torch.testing.assert_close(umbra, expected.expand_as(umbra), atol=0.02, rtol=0)
    lit = ((shaded - grey).abs().amax(1) < 0.01).float().mean((1, 2))
    assert (lit > 0.3).all()


def test_moire_beats_at_the_difference_of_the_grids() -> None:
    """A screen pitch of 2.1 sensor pixels against a colour's pitch of 2: one beat in 42 pixels."""
    grey = torch.full((1, 3, 168, 168), 0.5)
    ranges = MoireRanges(
        pitch_px=(2.1, 2.1),
        angle_deg=(0.0, 0.0),
        bend=(0.0, 0.0),
        contrast=(0.6, 0.6),
        optics_px=(0.0, 0.0),
        gamma=(1.0, 1.0),
        gain=(1.0, 1.0),
        black=(0.0, 0.0),
    )
    photo = add_moire(grey, generator=torch.Generator().manual_seed(0), ranges=ranges)
    red = photo[0, 0].mean(0)
    spectrum = torch.fft.rfft(red - red.mean()).abs()
    assert int(spectrum[:20].argmax()) == 168 // 42


def test_demosaicking_keeps_flat_colours_and_linear_ramps_of_green() -> None:
    flat = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1).expand(1, 3, 12, 14)
    torch.testing.assert_close(demosaick(flat), flat)
    ramp = torch.linspace(0, 1, 12).expand(1, 3, 12, 12)
    torch.testing.assert_close(demosaick(ramp)[..., 2:-2, 2:-2], ramp[..., 2:-2, 2:-2])


def test_blur_has_its_sigma() -> None:
    image = torch.zeros(2, 1, 41, 41)
    image[:, :, 20, 20] = 1
    blurred = gaussian_blur(image, torch.tensor([1.5, 3.0]).view(2, 1, 1, 1))
    at = torch.arange(41.0) - 20
    variance = (blurred[:, 0].sum(1) * at.square()).sum(1)
    torch.testing.assert_close(variance.sqrt(), torch.tensor([1.5, 3.0]), atol=0.03, rtol=0)
    torch.testing.assert_close(blurred.sum((1, 2, 3)), torch.ones(2))


def test_smooth_noise_is_smooth_and_normalised() -> None:
    field = Dice(torch.Generator().manual_seed(0), torch.device("cpu")).smooth_noise(
        2, 3, size=(60, 90), cells=3
    )
    assert field.shape == (2, 3, 60, 90)
    torch.testing.assert_close(field.mean((-2, -1)), torch.zeros(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(field.std((-2, -1)), torch.ones(2, 3), atol=1e-4, rtol=0)
    assert field.diff(dim=-1).abs().max() < 0.4
