"""What every degradation promises, and the one thing that makes each what it is."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from fairweather.data import DEGRADATIONS
from fairweather.data.degradations import weather
from fairweather.data.degradations.haze import HazeRanges, add_haze, guess_depth, guided_filter
from fairweather.data.degradations.moire import (
    MoireRanges,
    add_moire,
    demosaick,
    gaussian_blur,
    screen_grid,
)
from fairweather.data.degradations.raindrop import (
    RaindropRanges,
    add_raindrops,
    drop_layer,
    look_through,
)
from fairweather.data.degradations.randomness import Dice, scatter
from fairweather.data.degradations.shadow import (
    ShadowRanges,
    add_shadow,
    convex,
    limbs,
    shadow_matte,
)
from fairweather.data.degradations.snow import SnowRanges, add_snow

TASKS = tuple(DEGRADATIONS)


def photos(size: tuple[int, int]) -> Tensor:
    """Three crops of a photograph."""
    height, width = size
    pixels = skimage.data.astronaut()
    crops = [pixels[at : at + height, at : at + width] for at in range(40, 40 + 7 * 3, 7)]
    return torch.from_numpy(np.stack(crops) / np.float32(255)).permute(0, 3, 1, 2)


def degrade(task: str, clean: Tensor, *, seed: int = 0) -> Tensor:
    return DEGRADATIONS[task](clean, generator=torch.Generator().manual_seed(seed))


def dice(seed: int = 0) -> Dice:
    return Dice(torch.Generator().manual_seed(seed), torch.device("cpu"))


def direction_deg(drawn: Tensor) -> float:
    """Direction in which the image changes least, 0 is downwards: its structure tensor."""
    smooth = gaussian_blur(drawn[:, None], torch.full((len(drawn), 1, 1, 1), 1.5))
    down, right = torch.gradient(smooth, dim=(-2, -1))
    twice = math.atan2(2 * (down * right).sum(), (right.square() - down.square()).sum())
    return -math.degrees(twice) / 2


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [(16, 16), (17, 200), (64, 48), (33, 90), (128, 128)])
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


@pytest.mark.gpu
@pytest.mark.parametrize("task", TASKS)
def test_a_seed_gives_the_same_degradation_on_the_gpu(task: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    clean = photos((64, 96))
    # A pixel on a cell's border may fall to the other side by rounding.
    difference = (degrade(task, clean.cuda()).cpu() - degrade(task, clean)).abs()
    assert difference.mean() < 1e-4


# Haze of one grey, too thick to see through.
THICK = HazeRanges(
    airlight=(0.7, 0.7), warmth=(1.0, 1.0), tint=0.0, density=(50.0, 50.0), near_depth=(0.5, 0.5),
)  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        (None, {"rain": 100, "raindrop": 100, "haze": 100, "snow": 100}),
        ({"snow": 3.0, "rain": 1.0}, {"rain": 100, "raindrop": 0, "haze": 0, "snow": 300}),
    ],
    ids=["all as often", "with shares"],
)
def test_weather_comes_in_its_shares(
    shares: dict[str, float] | None, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def paint(value: float) -> Callable[..., Tensor]:
        return lambda clean, *, generator: clean + value

    values = {"rain": 0.1, "raindrop": 0.2, "haze": 0.3, "snow": 0.4}
    assert list(values) == list(weather.WEATHERS)
    for task, value in values.items():
        monkeypatch.setitem(weather.WEATHERS, task, paint(value))
    clean = torch.rand(400, 3, 4, 4) / 2
    drawn = (weather.add_weather(clean, generator=dice().generator, shares=shares) - clean).mean(
        (1, 2, 3)
    )
    counts = {task: int((drawn - value).abs().lt(1e-5).sum()) for task, value in values.items()}
    assert sum(counts.values()) == 400
    for task, count in counts.items():
        likely = expected[task] / 400
        assert abs(count - expected[task]) <= 4 * math.sqrt(400 * likely * (1 - likely))


def test_haze_is_the_scattering_model() -> None:
    """Where β is huge only the airlight is left; where there is none only the scene."""
    clean = photos((64, 64))
    hazy = add_haze(clean, generator=dice().generator, ranges=THICK)
    torch.testing.assert_close(hazy, torch.full_like(clean, 0.7))
    none = replace(THICK, density=(1e-9, 1e-9))
    torch.testing.assert_close(add_haze(clean, generator=dice().generator, ranges=none), clean)


def test_warmth_is_the_red_of_the_airlight_over_its_blue() -> None:
    warm = replace(THICK, warmth=(1.2, 1.2))
    hazy = add_haze(torch.zeros(1, 3, 32, 32), generator=dice().generator, ranges=warm)[0]
    torch.testing.assert_close(hazy[0] / hazy[2], torch.full((32, 32), 1.2))
    torch.testing.assert_close(hazy.mean(0), torch.full((32, 32), 0.7))


def test_haze_lets_as_much_light_through_as_in_reside() -> None:
    """RESIDE's indoor pairs: mean transmission 0.45 to 0.76, deviation over an image 0.09 to 0.25.

    Ours is a little denser on purpose. On a grey image the guessed depth has no objects, so the
    deviation is a little less.
    """
    black, grey = torch.full((64, 3, 64, 64), 0.0), torch.full((64, 3, 64, 64), 0.5)
    transmission = 2 * (degrade("haze", grey) - degrade("haze", black))[:, 0]
    means, deviations = transmission.mean((1, 2)), transmission.std((1, 2))
    assert 0.45 < means.median() < 0.7
    assert means.min() < 0.45
    assert means.max() > 0.6
    assert 0.09 < deviations.median() < 0.25


def test_the_depth_has_the_spread_asked_for_and_recedes_upwards() -> None:
    ranges = HazeRanges(
        spread=(0.1, 0.1), near_depth=(0.2, 0.2), ground=(1.0, 1.0), ground_angle_deg=(0.0, 0.0),
        objects=(0.0, 0.0), relief=(0.0, 0.0), horizon=(0.8, 0.8),
    )  # fmt: skip
    clean = photos((64, 80))
    depth = guess_depth(clean, dice(), ranges)
    assert depth.min() >= 0.2
    assert depth.max() <= 1
    assert depth.std((2, 3)).mean().item() == pytest.approx(0.8 * 0.1, rel=0.1)
    rows = depth[0, 0].mean(1)
    assert (rows.diff() <= 0).all()  # the top is farthest,
    assert rows[0] - rows[8] > 3 * (rows[40] - rows[48])  # and the ground recedes ever faster
    ranges = replace(ranges, ground=(0.0, 0.0), objects=(1.0, 1.0))
    both = torch.stack((guess_depth(clean, dice(), ranges)[0].flatten(), depth[0].flatten()))
    assert torch.corrcoef(both)[0, 1] < 0.9


def test_the_guided_filter_smooths_between_the_edges_of_its_guide() -> None:
    guide = torch.zeros(1, 1, 64, 64)
    guide[..., 32:] = 1
    noise = 0.1 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth = guided_filter(guide, guide + noise, radius_px=12)
    assert (smooth - guide).std() < 0.2 * noise.std()
    flat = guided_filter(torch.zeros_like(guide), guide, radius_px=12)
    assert 0.3 < flat[0, 0, 32, 32] < 0.7  # an edge that the guide lacks is not kept


# One layer of hard, straight, white flakes and nothing else.
FLAKES = SnowRanges(
    layers=(1, 1), radius_px=(4.0, 4.0), coverage=(0.05, 0.05), opacity=(1.0, 1.0),
    softness=(0.5, 0.5), irregularity=(0.0, 0.0), motion=(0.0, 0.0), flutter_deg=(0.0, 0.0),
    brightness=(1.0, 1.0), tint=0.0, veil=(0.0, 0.0),
)  # fmt: skip


def snow(ranges: SnowRanges, *, size: int = 128) -> Tensor:
    """What snow adds to eight black images: (8, H, W)."""
    black = torch.zeros(8, 3, size, size)
    return add_snow(black, generator=dice().generator, ranges=ranges)[:, 0]


def test_snow_is_brighter_than_a_dark_scene_and_covers_as_much_as_asked() -> None:
    dark = torch.full((8, 3, 128, 128), 0.1)
    snowy = add_snow(dark, generator=dice().generator, ranges=FLAKES)
    assert (snowy >= dark - 1e-6).all()
    for coverage in (0.01, 0.05, 0.1):
        drawn = snow(replace(FLAKES, coverage=(coverage, coverage)), size=256) > 0.2
        assert drawn.float().mean().item() == pytest.approx(coverage, rel=0.3)


@pytest.mark.parametrize("angle_deg", [-40.0, 0.0, 30.0])
def test_flakes_are_drawn_out_along_their_fall(angle_deg: float) -> None:
    fast = replace(FLAKES, motion=(4.0, 4.0), angle_deg=(angle_deg, angle_deg))
    assert direction_deg(snow(fast)) == pytest.approx(angle_deg, abs=3)


def test_near_flakes_are_softer_and_dimmer() -> None:
    far, near = (snow(replace(FLAKES, radius_px=(px, px))) for px in (2.0, 12.0))
    assert near.amax() < 0.9 * far.amax()
    middling = [
        ((drawn > 0.1) & (drawn < 0.4)).sum() / (drawn > 0.1).sum() for drawn in (far, near)
    ]
    assert middling[1] > 1.2 * middling[0]


def test_a_veil_of_snow_is_its_share_of_white() -> None:
    none = replace(FLAKES, opacity=(0.0, 0.0), patchiness=(0.0, 0.0), veil=(0.2, 0.2),
                   veil_probability=1.0)  # fmt: skip
    torch.testing.assert_close(snow(none), torch.full((8, 128, 128), 0.2))


@pytest.mark.parametrize("size", [(80, 80), (50, 120)])
def test_scattered_particles_lie_whole_in_the_image_of_one_cell(size: tuple[int, int]) -> None:
    """Around each centre, the pixels that know it fill the disc that the particle may reach."""
    reach_px = torch.tensor([4.0, 6.0]).view(2, 1, 1)
    found = scatter(
        dice(), size=size, reach_px=reach_px, spacing_px=2 * reach_px, smallest=0.5, traits=1
    )
    row, column = torch.arange(size[0]).view(-1, 1), torch.arange(size[1])
    counted = 0
    for image in range(2):
        centres = torch.stack((row - found.down[image], column - found.right[image]), -1)
        reach = found.scale[image] * reach_px[image]
        inside = torch.hypot(found.down[image], found.right[image]) < reach
        for centre in centres[inside].mul(8).round().div(8).unique(dim=0):
            own = inside & ((centres - centre).abs().amax(-1) < 0.13)
            radius = reach[own].mean().item()
            border = min(*centre, size[0] - 1 - centre[0], size[1] - 1 - centre[1])
            if border > radius:
                counted += 1
                assert own.sum().item() == pytest.approx(torch.pi * radius**2, rel=0.3)
                assert found.traits[0, image][own].unique().numel() == 1
    assert counted > 20


# One layer of sharp, round, clear drops that add no light of their own.
DROPS = RaindropRanges(
    layers=(1, 1), radius_px=(6.0, 6.0), coverage=(0.06, 0.06), elongation=(1.0, 1.0),
    irregularity=(0.0, 0.0), softness=(0.15, 0.15), opacity=(1.0, 1.0), view=(1.0, 1.0),
    wander=(1.0, 1.0), sky=(0.0, 0.0), rim=(0.0, 0.0), glint=(0.0, 0.0),
)  # fmt: skip


def test_drops_change_only_what_they_cover_and_show_the_scene_elsewhere() -> None:
    clean = photos((256, 256))
    cover, _ = drop_layer(dice(), DROPS, clean=clean)
    assert cover.mean().item() == pytest.approx(0.06, rel=0.3)
    wet = add_raindrops(clean, generator=dice().generator, ranges=DROPS)
    changed = ((wet - clean).abs().amax(1) > 0.02).float().mean((1, 2))
    assert ((changed > 0.02) & (changed < 0.12)).all()
    none = replace(DROPS, opacity=(0.0, 0.0))
    assert torch.equal(add_raindrops(clean, generator=dice().generator, ranges=none), clean)


def through_one_drop(clean: Tensor, ranges: RaindropRanges, *, softness: float = 0.2) -> Tensor:
    """The light through a drop that fills the image: (B, 3, H, W)."""
    row = torch.linspace(-1, 1, clean.shape[2]).view(-1, 1)
    column = torch.linspace(-1, 1, clean.shape[3])
    towards = torch.stack(torch.broadcast_tensors(row, column))[:, None]
    return look_through(
        dice(),
        ranges,
        clean=clean,
        towards=towards.expand(-1, len(clean), -1, -1),
        softness=torch.full((len(clean), 1, 1), softness),
    )


def test_a_drop_shows_the_world_upside_down() -> None:
    clean = torch.zeros(1, 3, 64, 64)
    clean[:, :, :32] = 0.8  # a bright sky over a black ground
    light = through_one_drop(clean, DROPS)[0, 0]
    assert light[4:20].max() < 0.1
    assert light[-20:-4].min() > 0.5


def test_a_drop_out_of_focus_shows_less_of_the_scene() -> None:
    clean = photos((96, 96))
    sharp, soft = (through_one_drop(clean, DROPS, softness=s).diff(dim=-1) for s in (0.0, 1.0))
    assert soft.abs().mean() < 0.6 * sharp.abs().mean()


def test_a_drop_sees_the_sky_at_its_bottom_and_darkens_at_its_rim() -> None:
    clean = torch.zeros(1, 3, 64, 64)
    clean[:, :, :8, :8] = 1
    sky = through_one_drop(clean, replace(DROPS, sky=(1.0, 1.0)), softness=1.0)[0, 0, :, 32]
    assert sky[60] > 0.8
    assert sky[4] < 0.3
    grey = torch.full((1, 3, 65, 65), 0.5)
    rim = through_one_drop(grey, replace(DROPS, rim=(0.5, 0.5)))[0, 0, 32]
    torch.testing.assert_close(rim[32], torch.tensor(0.25))  # linear light, of a square root
    assert rim[0] < 0.7 * rim[32]


def test_shadow_keeps_the_share_asked_for_of_each_colour_and_leaves_the_lit_part() -> None:
    grey = torch.full((6, 3, 96, 96), 0.7)
    ranges = ShadowRanges(
        ambient=(0.3, 0.3), blue_over_red=(1.5, 1.5), area=(0.4, 0.4), texture=(0.0, 0.0),
        penumbra=(0.004, 0.004),
    )  # fmt: skip
    shaded = add_shadow(grey, generator=dice().generator, ranges=ranges)
    assert (shaded <= grey + 1e-6).all()
    kept = 0.3 * torch.tensor([1.5**-0.5, 1.0, 1.5**0.5])
    umbra = (0.7 * kept ** (1 / 2.2)).expand(6, 3)
    torch.testing.assert_close(shaded.amin((2, 3)), umbra, atol=0.02, rtol=0)
    lit = ((shaded - grey).abs().amax(1) < 0.01).float().mean((1, 2))
    assert (lit > 0.25).all()


def test_the_matte_has_the_area_and_the_penumbra_asked_for() -> None:
    ranges = ShadowRanges(area=(0.3, 0.3), widening=(0.0, 0.0))
    soft_shares = []
    for penumbra in (0.004, 0.2):
        wanted = replace(ranges, penumbra=(penumbra, penumbra))
        matte = shadow_matte(dice(), wanted, batch=32, size=(96, 128))
        hidden = (matte > 0.5).float().mean((1, 2, 3))
        torch.testing.assert_close(hidden, torch.full((32,), 0.3), atol=0.03, rtol=0)
        soft_shares.append(((matte > 0.05) & (matte < 0.95)).float().mean().item())
    assert soft_shares[0] < 0.25
    assert soft_shares[1] > 2 * soft_shares[0]


@pytest.mark.parametrize("outline", [convex, limbs])
def test_outlines_are_signed_distances(outline: Callable[..., Tensor]) -> None:
    """Both sides are there, and a step of a pixel changes the distance by its length at most."""
    row = torch.linspace(-1, 1, 81).view(1, 81, 1).expand(16, -1, -1)
    column = torch.linspace(-1, 1, 81).view(1, 1, 81)
    distance = outline(dice(), row, column)
    assert (distance < 0).flatten(1).any(1).float().mean() > 0.7
    assert (distance > 0).flatten(1).any(1).float().mean() > 0.7
    steps = torch.hypot(distance.diff(dim=1)[:, :, 1:], distance.diff(dim=2)[:, 1:])
    # A limb is thinner at its end, which adds a little.
    assert steps.max() < 1.5 * 2 / 80
    assert steps.median().item() == pytest.approx(2 / 80, rel=0.05)


# A camera that changes nothing, before a screen of bare stripes.
PLAIN_SCREEN = MoireRanges(
    pitch_px=(2.0,), detuning=(0.05, 0.05), angle_deg=(0.0, 0.0), sweep=(0.0, 0.0),
    bend=(0.0, 0.0), contrast=(0.6, 0.6), lines=(0.0, 0.0), scaling_px=(0.0, 0.0),
    chroma=(1.0, 1.0), optics_px=(0.0, 0.0), exponent=(1.0, 1.0), steepness=(0.0, 0.0),
    saturation=(1.0, 1.0), gain=(1.0, 1.0), tint=0.0, black=(0.0, 0.0),
)  # fmt: skip


def photograph(clean: Tensor, ranges: MoireRanges) -> Tensor:
    return add_moire(clean, generator=dice().generator, ranges=ranges)


def test_moire_beats_at_the_difference_of_the_grids() -> None:
    """A screen pitch of 2.1 sensor pixels against a colour's pitch of 2: one beat in 42 pixels."""
    photo = photograph(torch.full((1, 3, 168, 168), 0.5), PLAIN_SCREEN)
    red = photo[0, 0].mean(0)
    spectrum = torch.fft.rfft(red - red.mean()).abs()
    assert int(spectrum[:20].argmax()) == 168 // 42


def test_moire_is_grey_without_chroma_and_gone_without_contrast() -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    colours = photograph(grey, PLAIN_SCREEN)
    assert (colours[:, 0] - colours[:, 2]).abs().max() > 0.05
    plain = photograph(grey, replace(PLAIN_SCREEN, chroma=(0.0, 0.0)))
    assert plain.std() > 0.005
    torch.testing.assert_close(plain[:, :1].expand_as(plain), plain)
    clean = photos((64, 64))
    none = photograph(clean, replace(PLAIN_SCREEN, contrast=(0.0, 0.0)))
    torch.testing.assert_close(none, clean, atol=1e-4, rtol=0)


def test_a_sweep_bends_straight_bands() -> None:
    def across_rows(ranges: MoireRanges) -> float:
        grid = screen_grid(dice(), ranges, batch=4, size=(64, 64))
        return (grid - grid.mean(2, keepdim=True)).abs().mean().item()

    assert across_rows(PLAIN_SCREEN) < 1e-4
    assert across_rows(replace(PLAIN_SCREEN, sweep=(0.2, 0.2))) > 0.1


def test_photographs_of_a_screen_are_as_bright_as_in_uhdm() -> None:
    """69 training pairs: brighter by −0.26 to 0.08, by −0.04 in the mean."""
    clean = photos((64, 64))[:1].expand(64, -1, -1, -1)
    change = (degrade("moire", clean) - clean).mean((1, 2, 3))
    assert change.mean().item() == pytest.approx(-0.04, abs=0.04)
    assert change.min() < -0.15
    assert change.max() > 0.05


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
    field = dice().smooth_noise(2, 3, size=(60, 90), cells=3)
    assert field.shape == (2, 3, 60, 90)
    torch.testing.assert_close(field.mean((-2, -1)), torch.zeros(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(field.std((-2, -1)), torch.ones(2, 3), atol=1e-4, rtol=0)
    assert field.diff(dim=-1).abs().max() < 0.4
