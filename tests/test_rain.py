"""Rain is drawn as asked: direction, size, amount and light of the streaks are measured."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fairweather.data import RainRanges, add_rain

# One layer of single streaks that add white light and fall straight down; nothing else is drawn.
PLAIN = RainRanges(
    layers=(1, 1),
    angle_deg=(0.0, 0.0),
    angle_spread_deg=0.0,
    length_px=(40.0, 40.0),
    width_px=(1.5, 1.5),
    coverage=(0.02, 0.02),
    opacity=(1.0, 1.0),
    sheet_probability=0.0,
    covering_probability=0.0,
    tint=0.0,
    veil_probability=0.0,
)


def rain(clean: Tensor, ranges: RainRanges | None = None, *, seed: int = 0) -> Tensor:
    return add_rain(clean, generator=torch.Generator().manual_seed(seed), ranges=ranges)


def residual(ranges: RainRanges, *, size: tuple[int, int] = (128, 128), seed: int = 0) -> Tensor:
    """What the rain adds to eight black images: (8, H, W)."""
    return rain(torch.zeros(8, 3, *size), ranges, seed=seed)[:, 0]


def direction_deg(drawn: Tensor) -> float:
    """Direction in which the image changes least: its structure tensor, from the spectrum."""
    power = torch.fft.fft2(drawn.double()).abs().square().sum(0)
    row = torch.fft.fftfreq(drawn.shape[-2]).view(-1, 1)
    column = torch.fft.fftfreq(drawn.shape[-1])
    by_row, by_column = (power * row**2).sum().item(), (power * column**2).sum().item()
    cross = (power * row * column).sum().item()
    across = 0.5 * math.atan2(2 * cross, by_row - by_column)
    return math.degrees(across) % 180 - 90  # the across of a streak that falls straight is ±90


def half_width_px(drawn: Tensor, *, axis: int) -> float:
    """Shift along the axis at which the autocorrelation falls to a half."""
    centred = drawn - drawn.mean((-2, -1), keepdim=True)
    values = [(centred * centred.roll(shift, axis)).sum().item() for shift in range(64)]
    first = next(shift for shift, value in enumerate(values) if value < values[0] / 2)
    before, after = values[first - 1], values[first]
    return first - 1 + (before - values[0] / 2) / (before - after)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [(16, 16), (17, 31), (64, 24), (33, 130)])
def test_the_result_is_an_image_of_the_same_shape(size: tuple[int, int], seed: int) -> None:
    clean = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(seed))
    before = clean.clone()
    rainy = rain(clean, seed=seed)
    assert rainy.shape == clean.shape
    assert rainy.dtype == clean.dtype
    assert rainy.isfinite().all()
    assert rainy.min() >= 0
    assert rainy.max() <= 1
    assert not torch.equal(rainy, clean)
    assert torch.equal(clean, before)


def test_the_light_never_leaves_the_range_of_an_image() -> None:
    heavy = replace(PLAIN, layers=(4, 4), coverage=(0.3, 0.3), tint=0.3)
    for light in (0.0, 1.0):
        rainy = rain(torch.full((2, 3, 32, 32), light), heavy)
        assert rainy.min() >= 0
        assert rainy.max() == 1


def test_a_seed_decides_everything() -> None:
    clean = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(1))
    for ranges in (None, replace(PLAIN, coverage=(0.2, 0.2))):
        assert torch.equal(rain(clean, ranges, seed=3), rain(clean, ranges, seed=3))
        assert not torch.equal(rain(clean, ranges, seed=3), rain(clean, ranges, seed=4))


def test_a_seed_decides_whatever_the_global_generator_does() -> None:
    clean = torch.full((1, 3, 32, 32), 0.5)
    torch.manual_seed(1)
    first = rain(clean)
    torch.manual_seed(2)
    assert torch.equal(rain(clean), first)


def test_one_generator_gives_rain_after_rain() -> None:
    clean = torch.full((1, 3, 32, 32), 0.5)
    generator = torch.Generator().manual_seed(0)
    first = add_rain(clean, generator=generator)
    assert not torch.equal(add_rain(clean, generator=generator), first)


@pytest.mark.gpu
def test_a_seed_gives_the_same_rain_on_the_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    clean = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(rain(clean.cuda()).cpu(), rain(clean), rtol=0, atol=1e-4)


@pytest.mark.parametrize("sheets", [0.0, 1.0])
def test_every_image_of_a_batch_has_rain_of_its_own(sheets: float) -> None:
    drawn = residual(replace(PLAIN, sheet_probability=sheets, coverage=(0.1, 0.1)))
    correlation = torch.corrcoef(drawn.flatten(1))
    assert correlation.isfinite().all()  # it rains in each of them
    assert (correlation - torch.eye(8)).abs().max() < 0.2


def test_parameters_are_drawn_for_each_image() -> None:
    drawn = residual(replace(PLAIN, opacity=(0.1, 1.0), coverage=(0.05, 0.05)))
    brightest = drawn.amax((-2, -1))
    assert brightest.max() > 1.5 * brightest.min()


@pytest.mark.parametrize("sheets", [0.0, 1.0])
@pytest.mark.parametrize("angle_deg", [-40.0, -20.0, 0.0, 20.0, 40.0])
def test_streaks_fall_in_the_direction_asked_for(angle_deg: float, sheets: float) -> None:
    ranges = replace(PLAIN, angle_deg=(angle_deg, angle_deg), sheet_probability=sheets)
    assert direction_deg(residual(ranges)) == pytest.approx(angle_deg, abs=2)


def test_the_direction_is_the_same_in_an_oblong_image() -> None:
    ranges = replace(PLAIN, angle_deg=(20.0, 20.0))
    assert direction_deg(residual(ranges, size=(80, 200))) == pytest.approx(20, abs=2)


def test_a_positive_angle_falls_towards_the_right() -> None:
    """The ruler of the tests above, held against a streak that is drawn by hand."""
    row, column = torch.arange(64.0).view(64, 1), torch.arange(64.0)
    line = torch.exp(-0.1 * (column - 16 - row / 2).square())  # a step right for two down
    line = line * torch.exp(-0.01 * (row - 32).square())  # fades out, as the spectrum repeats it
    assert direction_deg(line[None]) == pytest.approx(math.degrees(math.atan(0.5)), abs=3)


def test_length_is_along_and_width_is_across() -> None:
    drawn = residual(PLAIN)
    assert half_width_px(drawn, axis=-2) > 5 * half_width_px(drawn, axis=-1)


def test_streaks_are_as_long_as_asked_for() -> None:
    lengths_px = (20.0, 40.0, 80.0)
    measured = [
        half_width_px(residual(replace(PLAIN, length_px=(px, px), width_px=(0.6, 0.6))), axis=-2)
        for px in lengths_px
    ]
    # A line of length L overlaps with itself, moved by L / 2, to a half; a tapering one to less.
    for length_px, half_px in zip(lengths_px, measured, strict=True):
        assert 0.3 * length_px < half_px < 0.5 * length_px


@pytest.mark.parametrize("width_px", [0.8, 1.5, 3.0])
def test_streaks_are_as_wide_as_asked_for(width_px: float) -> None:
    drawn = residual(replace(PLAIN, width_px=(width_px, width_px)))
    gaussian = width_px * 2 * math.sqrt(math.log(2))  # where exp(−shift² / 4σ²) is a half
    assert half_width_px(drawn, axis=-1) == pytest.approx(gaussian, rel=0.1)


def test_a_streak_is_never_a_blob() -> None:
    short = replace(PLAIN, length_px=(24.0, 24.0))
    asked_too_much = residual(replace(short, width_px=(50.0, 50.0)))
    assert torch.equal(asked_too_much, residual(replace(short, width_px=(10.0, 10.0))))
    assert half_width_px(asked_too_much, axis=-2) > 2 * half_width_px(asked_too_much, axis=-1)


def test_a_streak_fits_into_the_image() -> None:
    size = (20, 48)
    asked_too_much = residual(replace(PLAIN, length_px=(500.0, 500.0)), size=size)
    assert torch.equal(asked_too_much, residual(replace(PLAIN, length_px=(18.0, 18.0)), size=size))


@pytest.mark.parametrize("coverage", [0.01, 0.04, 0.1])
def test_coverage_is_the_share_under_streaks(coverage: float) -> None:
    drawn = residual(replace(PLAIN, coverage=(coverage, coverage)), size=(256, 256))
    mean_brightness_of_a_drop = 0.625  # uniform from 0.25 to 1
    assert drawn.mean().item() == pytest.approx(coverage * mean_brightness_of_a_drop, rel=0.2)


def test_hardly_any_coverage_hardly_changes_the_image() -> None:
    drawn = residual(replace(PLAIN, coverage=(1e-6, 1e-6)))
    assert drawn.mean() < 1e-3
    assert drawn.mean() < residual(PLAIN).mean() / 10


def test_more_layers_are_more_rain() -> None:
    one, four = (residual(replace(PLAIN, layers=(n, n))).mean().item() for n in (1, 4))
    assert four == pytest.approx(4 * one, rel=0.25)


def test_the_number_of_layers_is_drawn() -> None:
    ranges = replace(PLAIN, coverage=(0.1, 0.1), width_px=(0.8, 0.8))
    layers = [residual(replace(ranges, layers=(1, 5)), seed=seed) for seed in range(6)]
    light = torch.cat(layers).mean((-2, -1)) / residual(replace(ranges, layers=(1, 1))).mean()
    assert light.min() < 1.5
    assert light.max() > 3.5
    assert light.mean().item() == pytest.approx(2.5, abs=0.5)  # 3, less where streaks overlap


def test_opacity_is_the_brightest_value_of_a_layer() -> None:
    drawn = residual(replace(PLAIN, opacity=(0.3, 0.3), coverage=(0.3, 0.3)))
    assert drawn.max().item() == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("covering", [0.0, 1.0])
def test_rain_without_light_returns_the_input(covering: float) -> None:
    clean = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ranges = RainRanges(
        opacity=(0.0, 0.0), covering_probability=covering, veil_probability=1.0, veil=(0.0, 0.0)
    )
    assert torch.equal(rain(clean, ranges), clean)


def test_streaks_that_add_light_never_darken() -> None:
    clean = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    rainy = rain(clean, RainRanges(covering_probability=0.0, veil_probability=0.0))
    assert (rainy >= clean).all()
    assert (rainy - clean).mean() > 0


def test_streaks_that_cover_have_the_airlight() -> None:
    covering = replace(
        PLAIN, covering_probability=1.0, airlight=(0.7, 0.7), coverage=(0.3, 0.3), layers=(4, 4)
    )
    for light in (0.0, 1.0):
        rainy = rain(torch.full((1, 3, 64, 64), light), covering)
        assert (rainy - 0.7).abs().min() < 0.01
        assert rainy.min() >= min(light, 0.7) - 1e-6
        assert rainy.max() <= max(light, 0.7) + 1e-6


def test_streaks_are_grey_up_to_their_tint() -> None:
    black = torch.zeros(8, 3, 64, 64)
    grey = rain(black, replace(PLAIN, coverage=(0.1, 0.1)))
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    tinted = rain(black, replace(PLAIN, coverage=(0.1, 0.1), opacity=(0.5, 0.5), tint=0.2))
    ratio = tinted.sum((-2, -1)) / (0.5 * grey.sum((-2, -1)))
    assert ratio.min() >= 0.8 - 1e-4
    assert ratio.max() <= 1.2 + 1e-4
    assert ratio.max() - ratio.min() > 0.1


def test_a_veil_mixes_with_the_airlight() -> None:
    clean = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    misty = replace(
        PLAIN, opacity=(0.0, 0.0), airlight=(0.8, 0.8), veil_probability=1.0, veil=(0.1, 0.1)
    )
    torch.testing.assert_close(rain(clean, misty), 0.9 * clean + 0.08)
