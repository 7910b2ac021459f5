"""Synthetic rain: clean photographs → the same scenes behind streaks and a thin veil.

Streaks are drawn layer by layer as impulses (or noise, for a dense sheet of rain) convolved with an
oriented, tapering line on the crop's torus, the way motion blur draws a falling drop, and laid over
the image by adding light or by covering it. The model follows Garg and Nayar, "Vision and Rain"
(IJCV 2007: a streak is a motion-blurred drop, brighter than its background), and the layered sum of
Yang et al., "Deep Joint Rain Detection and Removal" (CVPR 2017, equation 3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from fairweather.data.degradations.randomness import Dice


@dataclass(frozen=True)
class RainRanges:
    """From what each parameter of a rainy crop is drawn, uniformly unless said otherwise.

    The ranges were set by looking at photographs of rain and at the training pairs of public
    benchmarks (Rain13K), from drizzle of a few thin streaks to a downpour that hides the scene.

    Attributes:
        layers: how many layers of streaks lie over each other.
        angle_deg: mean direction of fall, 0 is straight down.
        angle_spread_deg: standard deviation of the layers' directions around it.
        length_px: length of a streak, log-uniform.
        width_px: standard deviation across a streak, log-uniform; at most a tenth of its length,
            since a blob is snow.
        coverage: share of the image under the streaks of one layer, log-uniform.
        opacity: brightest value of a layer.
        sheet_probability: a layer is a sheet of blurred noise rather than single streaks.
        covering_probability: streaks cover what is behind them; otherwise they add light.
        airlight: brightness of covering streaks and of the veil.
        tint: largest deviation of a colour channel of the streaks from grey.
        veil_probability: how often there is a veil of fine rain in the air.
        veil: its share of the light.
    """

    layers: tuple[int, int] = (1, 4)
    angle_deg: tuple[float, float] = (-40.0, 40.0)
    angle_spread_deg: float = 4.0
    length_px: tuple[float, float] = (6.0, 100.0)
    width_px: tuple[float, float] = (0.45, 2.6)
    coverage: tuple[float, float] = (0.004, 0.35)
    opacity: tuple[float, float] = (0.08, 1.0)
    sheet_probability: float = 0.3
    covering_probability: float = 0.4
    airlight: tuple[float, float] = (0.7, 1.0)
    tint: float = 0.04
    veil_probability: float = 0.2
    veil: tuple[float, float] = (0.02, 0.15)


def add_rain(
    clean: Tensor, *, generator: torch.Generator, ranges: RainRanges | None = None
) -> Tensor:
    """Lay rain over a batch of clean images."""
    ranges = ranges or RainRanges()
    batch, _, height, width = clean.shape
    dice = Dice(generator, clean.device)
    layers = streak_layers(dice, ranges, batch=batch, size=(height, width))
    tint = 1 + dice.uniform((-ranges.tint, ranges.tint), batch, 3, 1, 1)
    airlight = (dice.uniform(ranges.airlight, batch, 1, 1, 1) * tint).clamp(max=1)
    covers = dice.chance(ranges.covering_probability, batch, 1, 1, 1)
    rainy = clean
    for layer in layers.split(1, dim=1):
        covered = torch.lerp(rainy, airlight.expand_as(rainy), layer.expand_as(rainy))
        rainy = torch.where(covers, covered, rainy + layer * tint)
    has_veil = dice.chance(ranges.veil_probability, batch, 1, 1, 1)
    veil = dice.uniform(ranges.veil, batch, 1, 1, 1) * has_veil
    return torch.lerp(rainy, airlight.expand_as(rainy), veil.expand_as(rainy)).clamp(0, 1)


def streak_layers(dice: Dice, ranges: RainRanges, *, batch: int, size: tuple[int, int]) -> Tensor:
    """How bright the streaks of each layer are: (B, layers, H, W) in [0, 1]."""
    most = ranges.layers[1]
    shape = (batch, most, 1, 1)
    count = dice.uniform((ranges.layers[0], most + 1.0), batch, 1, 1, 1).floor()
    active = count > torch.arange(most, device=dice.device).view(1, most, 1, 1)
    angle_deg = dice.uniform(ranges.angle_deg, batch, 1, 1, 1)
    angle_deg = angle_deg + ranges.angle_spread_deg * dice.normal(*shape)
    length_px = dice.log_uniform(ranges.length_px, *shape).clamp(max=0.9 * min(size))
    width_px = dice.log_uniform(ranges.width_px, *shape).minimum(length_px / 10).clamp(min=0.4)
    line = streak_profile(
        dice, size=size, angle_deg=angle_deg, length_px=length_px, width_px=width_px
    )
    area_px = line.sum((-2, -1), keepdim=True)

    coverage = dice.log_uniform(ranges.coverage, *shape)
    impulses = dice.uniform((0.0, 1.0), batch, most, *size)
    falls = impulses < coverage / area_px
    # The same draw decides where a drop is and how bright it is: rescaled, it is uniform again.
    drops = falls * (0.25 + 0.75 * impulses * area_px / coverage)
    is_sheet = dice.chance(ranges.sheet_probability, *shape)
    noise = dice.normal(batch, most, *size) * line.square().sum((-2, -1), keepdim=True).rsqrt()
    source = torch.where(is_sheet, noise, drops)
    drawn = torch.fft.irfft2(torch.fft.rfft2(source) * torch.fft.rfft2(line), s=size)
    threshold = dice.uniform((0.0, 2.0), *shape)
    gain = dice.uniform((0.2, 0.6), *shape)
    layer = torch.where(is_sheet, (drawn - threshold) * gain, drawn).clamp(0, 1)
    return layer * dice.uniform(ranges.opacity, *shape) * active


def streak_profile(
    dice: Dice, *, size: tuple[int, int], angle_deg: Tensor, length_px: Tensor, width_px: Tensor
) -> Tensor:
    """One streak for each layer, peak 1, centred on the corner of the torus: (B, layers, H, W).

    Gaussian across, along it flat in the middle with ends that taper, one end often brighter.
    """
    height, width = size
    shape = angle_deg.shape
    row = torch.fft.fftfreq(height, 1 / height, device=dice.device).view(1, 1, height, 1)
    column = torch.fft.fftfreq(width, 1 / width, device=dice.device).view(1, 1, 1, width)
    row = row + dice.uniform((-0.5, 0.5), *shape)
    column = column + dice.uniform((-0.5, 0.5), *shape)
    angle = angle_deg.deg2rad()
    along = (row * angle.cos() + column * angle.sin()) * 2 / length_px
    across = (column * angle.cos() - row * angle.sin()) / width_px
    taper = 1 - along.abs().clamp(max=1).pow(dice.log_uniform((1.0, 8.0), *shape))
    lean = 1 + along.clamp(-1, 1) * dice.uniform((-0.6, 0.6), *shape)
    profile = taper * lean * torch.exp(-0.5 * across.square())
    return profile / profile.amax((-2, -1), keepdim=True)
