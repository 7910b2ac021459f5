"""Rain from a bank of layers: grey images of streaks, added to clean photographs.

Rain100L and Rain100H are made this way (Yang et al., "Deep Joint Rain Detection and Removal", CVPR
2017): one grey layer is added to all three channels, and what exceeds white is clipped. The bank
holds rendered streaks (Garg and Nayar, "Photorealistic Rendering of Rain Streaks", SIGGRAPH 2006),
what the rain of training pairs added, and hard-edged lines that are drawn anew for every crop.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from torch import Tensor

from fairweather.data.degradations.randomness import Dice
from fairweather.data.pairs import Pair, read_bytes
from fairweather.errors import DataError

COVERED = 8  # from this grey level up a streak is seen
FAINTEST = 24  # the brightness to which a nearly empty layer is taken to reach
BACKGROUND_PX = 15  # radius of the mean that tells a streak from a lifted contrast
NOISE = 4  # grey levels that compression adds to a difference of two photographs


@dataclass(frozen=True)
class LayerRanges:
    """From what a rainy crop is drawn, uniformly unless said otherwise.

    Each crop gets light rain, of a few layers, or heavy rain, of many layers and lines. With the
    defaults the medians of light rain are close to those of Rain100L (a fifth of the pixels
    covered; half, nine tenths and all but a hundredth of these brightened by less than 20, 50 and
    90), those of heavy rain to those of Rain100H (four fifths; 45, 105, 175).

    Attributes:
        heavy_probability: how often the rain is heavy.
        light_count: layers of light rain.
        heavy_count: layers and sheets of lines of heavy rain.
        light_brightness: what the brightest tenth of a layer's streaks exceeds in light rain, grey
            levels of 255, log-uniform.
        heavy_brightness: the same in heavy rain.
        line_probability: how often a layer of heavy rain is drawn lines instead of one of the bank.
        scale: by how much streaks are enlarged, log-uniform.
        scale_spread: by how much the scales of a crop's layers differ at most, a factor.
        angle_deg: by how much all layers of a crop are turned.
        angle_spread_deg: standard deviation of the layers' angles around it.
        line_length_px: length of a drawn line, log-uniform.
        line_width_px: its width, log-uniform.
        line_coverage: share of the crop under a sheet of lines, log-uniform.
    """

    heavy_probability: float = 0.5
    light_count: tuple[int, int] = (1, 2)
    heavy_count: tuple[int, int] = (3, 6)
    light_brightness: tuple[float, float] = (25.0, 110.0)
    heavy_brightness: tuple[float, float] = (30.0, 100.0)
    line_probability: float = 0.6
    scale: tuple[float, float] = (0.5, 4.0)
    scale_spread: float = 1.5
    angle_deg: tuple[float, float] = (-30.0, 30.0)
    angle_spread_deg: float = 4.0
    line_length_px: tuple[float, float] = (12.0, 200.0)
    line_width_px: tuple[float, float] = (1.0, 5.0)
    line_coverage: tuple[float, float] = (0.1, 0.8)


class RainLayers:
    """A bank of layers, read when they are first used and kept as bytes."""

    def __init__(self, sources: Sequence[Path | Pair], *, ranges: LayerRanges | None = None):
        """Name the layers of a bank that has read nothing yet.

        Args:
            sources: grey images of streaks, and rainy pairs, of which the difference is taken.
            ranges: what to draw rain from.

        Raises:
            DataError: if there are none.
        """
        if not sources:
            raise DataError("there are no layers of rain to train or to validate on; add some")
        self.sources = tuple(sources)
        self.ranges = ranges or LayerRanges()
        self._layers: dict[Path | Pair, tuple[Tensor, float]] = {}

    def degrade(self, clean: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Lay rain over one crop.

        Args:
            clean: (H, W, 3) uint8 RGB, at least 16×16.
            random: where all is drawn from.

        Returns:
            The same shape, uint8, nowhere darker.
        """
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        height, width, _ = clean.shape
        rain = self.draw(generator, size=(height, width)).mul(255).round().numpy()
        return np.minimum(clean + rain[..., None], 255).astype(np.uint8)

    def draw(self, generator: torch.Generator, *, size: tuple[int, int]) -> Tensor:
        """Return the light that rain adds to a crop: (H, W), from 0 up, 1 is white."""
        dice, ranges = Dice(generator, torch.device("cpu")), self.ranges
        heavy = dice.one((0.0, 1.0)) < ranges.heavy_probability
        fewest, most = ranges.heavy_count if heavy else ranges.light_count
        brightness = ranges.heavy_brightness if heavy else ranges.light_brightness
        scale, angle_deg = dice.one_log(ranges.scale), dice.one(ranges.angle_deg)
        spread = (ranges.scale_spread**-0.5, ranges.scale_spread**0.5)
        rain = torch.zeros(size)
        for _ in range(fewest + int(dice.one((0.0, most - fewest + 1.0)))):
            bright = dice.one_log(brightness) / 255
            turned = angle_deg + ranges.angle_spread_deg * dice.normal(1).item()
            if heavy and dice.one((0.0, 1.0)) < ranges.line_probability:
                rain += bright * draw_lines(dice, ranges, size=size, angle_deg=turned)
            else:
                number = int(dice.one((0.0, float(len(self.sources)))))
                layer, brightest = self._read(self.sources[number])
                enlarged = scale * dice.one_log(spread)
                placed = place(dice, layer, size=size, scale=enlarged, angle_deg=turned)
                rain += placed * (bright / brightest)
        return rain

    def _read(self, source: Path | Pair) -> tuple[Tensor, float]:
        """Return a layer (H, W) uint8 and what the brightest tenth of its streaks exceeds."""
        if source not in self._layers:
            if isinstance(source, Pair):
                layer = layer_of_pair(read_bytes(source.degraded), read_bytes(source.clean))
            else:
                layer = read_bytes(source).min(-1)
            covered = layer[layer >= COVERED]
            brightest = float(np.quantile(covered, 0.9)) if covered.size else 0.0
            self._layers[source] = torch.from_numpy(layer), max(brightest, FAINTEST)
        return self._layers[source]


def layer_of_pair(rainy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return what rain added to a photograph (H, W, 3) uint8, beside contrast and exposure.

    It is (H, W) uint8: the smallest difference of the three channels over its mean around.
    """
    difference = (rainy.astype(np.int16) - clean).min(-1).clip(0)
    image = Image.fromarray(difference.astype(np.uint8))
    background = np.asarray(image.filter(ImageFilter.BoxBlur(BACKGROUND_PX)))
    return (difference - background - NOISE).clip(0).astype(np.uint8)


def place(
    dice: Dice, layer: Tensor, *, size: tuple[int, int], scale: float, angle_deg: float
) -> Tensor:
    """Cut a crop (height, width) out of a layer that is flipped, enlarged and turned, at any place.

    The layer is (H, W) uint8 and mirrored outside; the crop is in its grey levels.
    """
    height, width = size
    rows, columns = layer.shape
    angle = torch.tensor(angle_deg).deg2rad()
    flips = 1 - 2 * (dice.uniform((0.0, 1.0), 2) < 0.5).float()
    centre = dice.uniform((-1.0, 1.0), 2)
    # From the crop's coordinates to the layer's, both from −1 to 1.
    across, down = width / scale * flips[0], height / scale * flips[1]
    transform = torch.stack(
        (
            torch.stack((angle.cos() * across, -angle.sin() * down)) / columns,
            torch.stack((angle.sin() * across, angle.cos() * down)) / rows,
        )
    )
    theta = torch.cat((transform, centre[:, None]), 1)[None]
    grid = F.affine_grid(theta, [1, 1, height, width], align_corners=False)
    whole = layer.float()[None, None]
    return F.grid_sample(whole, grid, padding_mode="reflection", align_corners=False)[0, 0]


def draw_lines(
    dice: Dice, ranges: LayerRanges, *, size: tuple[int, int], angle_deg: float
) -> Tensor:
    """Draw straight hard-edged lines of one length and width, each evenly bright.

    Lines that leave (height, width) at one side come in at the other; 0 degrees is straight down.
    The brightest line is 1, and where lines cross they add.
    """
    height, width = size
    length_px = min(dice.one_log(ranges.line_length_px), 0.9 * min(size))
    width_px = dice.one_log(ranges.line_width_px)
    row = torch.fft.fftfreq(height, 1 / height).view(-1, 1) + dice.one((-0.5, 0.5))
    column = torch.fft.fftfreq(width, 1 / width) + dice.one((-0.5, 0.5))
    angle = torch.tensor(angle_deg).deg2rad()
    along = row * angle.cos() + column * angle.sin()
    across = column * angle.cos() - row * angle.sin()
    line = ((length_px + 1) / 2 - along.abs()).clamp(0, 1)
    line = line * ((width_px + 1) / 2 - across.abs()).clamp(0, 1)
    coverage = dice.one_log(ranges.line_coverage)
    drawn = dice.uniform((0.0, 1.0), *size) * line.sum() / coverage
    # The same draw decides where a line is and how bright: below 1 it is uniform again.
    starts = (drawn < 1) * (0.4 + 0.6 * drawn)
    lines = torch.fft.irfft2(torch.fft.rfft2(starts) * torch.fft.rfft2(line), s=size)
    return lines.clamp(min=0)


def split_layers(paths: Sequence[Path], *, held_out_every: int) -> tuple[list[Path], list[Path]]:
    """Split images of layers into those to train on and those to validate on.

    Files whose names differ only behind the last hyphen, as `12-4.png` and `12-7.png`, show the
    same streaks and stay together.
    """
    groups: dict[tuple[Path, str], list[Path]] = {}
    for path in paths:
        groups.setdefault((path.parent, path.stem.rpartition("-")[0] or path.stem), []).append(path)
    training, held_out = [], []
    for number, group in enumerate(groups.values()):
        (training if number % held_out_every else held_out).extend(group)
    return training, held_out
