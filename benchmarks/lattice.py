"""Measure how much of a network's own grid it paints into smooth surfaces.

python benchmarks/lattice.py [WEIGHTS …]

Attention windows and strides repeat every 4 to 128 px. What a result repeats at these periods and
its neighbouring frequencies do not show is lattice: it is given as a root mean square in grey
levels, for smooth gradients with and without the degradation that the weights are for. Rain, drops,
snow and moiré are texture, which repeats by chance: up to half a grey level says nothing there.
"""

import argparse

import numpy as np
import torch

from fairweather import Restorer
from fairweather.data import degrade_pixels
from fairweather.models import list_weights

# Windows of 8 px, halved up to four times, and for each period two near it that nothing has. A
# picture with degradation in it repeats a little of everything by chance.
CONTROLS_PX = {16: (13, 19), 32: (27, 37), 64: (53, 79), 128: (107, 149)}
LEAST_REPEATS = 6
SIDE_PX = 768  # six of the longest period
NOISE = 0.5  # standard deviation, grey levels
ALLOWED = 0.05  # more than the input holds, grey levels
TASK_OF = {"weather": "haze"}  # of what the all-in-one weights restore, the smoothest


def main() -> None:
    """Print the lattice of each weights file, and what it may be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", nargs="*", default=[*list_weights()])
    asked = parser.parse_args()
    print(f"growth of the lattice [grey levels], at most {ALLOWED} is allowed")
    for weights in asked.weights:
        restorer = Restorer(weights, device="cpu")
        for scene, found in lattice_of(restorer, TASK_OF.get(weights) or weights).items():
            print(f"{weights:10} {scene:18} {found:+.3f}", flush=True)


def lattice_of(restorer: Restorer, task: str) -> dict[str, float]:
    """Return how much lattice a restorer adds to smooth pictures.

    Args:
        restorer: what runs the weights.
        task: the degradation that its weights are for.

    Returns:
        The growth of each picture [grey levels].
    """
    assert restorer.engine is not None
    side_px = restorer.engine.config.proxy_px or SIDE_PX
    found = {}
    for name, clean in gradients(side_px).items():
        for scene, image in ((f"{name}, clean", clean), (name, degraded(clean, task))):
            found[scene] = growth(image, restorer(image))
    return found


def growth(before: np.ndarray, after: np.ndarray) -> float:
    """Return how much more repeats after a restoration than before it, and than by chance.

    Args:
        before: (H, W, 3) in [0, 1].
        after: the same, restored.

    Returns:
        Grey levels, of the worst period; below 0 where nothing was added.
    """
    periods = [period for period in CONTROLS_PX if LEAST_REPEATS * period <= min(before.shape[:2])]
    return max(
        lattice(after, period)
        - max(lattice(before, period), *(lattice(after, other) for other in CONTROLS_PX[period]))
        for period in periods
    )


def gradients(side_px: int) -> dict[str, np.ndarray]:
    """Return smooth pictures with a little noise, (side, side, 3) float32 in [0, 1]."""
    down, across = np.meshgrid(*[np.linspace(0, 1, side_px)] * 2, indexing="ij")
    sky = np.stack((0.55 + 0.3 * down, 0.65 + 0.25 * down, 0.85 + 0.1 * down), -1)
    wall = np.stack([0.35 + 0.3 * across * (1 - 0.4 * down)] * 3, -1)
    fog = np.stack([0.8 - 0.1 * (across - 0.5) ** 2 + 0.05 * down] * 3, -1)
    noise = np.random.default_rng(0).normal(0, NOISE / 255, sky.shape)
    pictures = {"sky": sky, "wall": wall, "fog": fog}
    return {name: (x + noise).astype(np.float32) for name, x in pictures.items()}


def degraded(clean: np.ndarray, task: str) -> np.ndarray:
    """Return a picture with a degradation, 8-bit steps and all."""
    pixels = (clean * 255).round().clip(0, 255).astype(np.uint8)
    return degrade_pixels(pixels, task=task, seed=0) / np.float32(255)


def lattice(image: np.ndarray, longest_px: int) -> float:
    """Return the root mean square of what repeats, beyond what neighbouring frequencies hold.

    A lattice of 128 px, and whatever divides it, lies at every n-th frequency of a picture that is
    n times as large. The frequencies half-way between them tell what is there without it.

    Args:
        image: (H, W, 3) in [0, 1], at least six of the longest period on each side.
        longest_px: the longest period; those that divide it count as well.

    Returns:
        Grey levels, of 255.
    """
    repeats = [length // longest_px for length in image.shape[:2]]
    height, width = (n * longest_px for n in repeats)
    power = spectrum(255 * image[:height, :width].mean(-1, dtype=np.float64))
    on, between = zip(*(bins(n, longest_px) for n in repeats), strict=True)
    lines = sums(power, on[0], on[1])
    around_y = sums(power, between[0], on[1]) * (on[0].shape[1] / between[0].shape[1])
    around_x = sums(power, on[0], between[1]) * (on[1].shape[1] / between[1].shape[1])
    around = (around_y + around_x) / 2
    around[:, 0], around[0, :] = around_y[:, 0], around_x[0, :]  # a smooth trend lies on the axes
    excess = lines - around
    excess[0, 0] = 0
    return max(0.0, float(excess.sum())) ** 0.5


def spectrum(brightness: np.ndarray) -> np.ndarray:
    """Return how much each frequency adds to the mean square of (H, W), without a cubic trend."""
    for axis in (0, 1):
        lines = np.moveaxis(brightness, axis, 0)
        place = np.linspace(-1, 1, len(lines))
        powers = np.polynomial.polynomial.polyvander(place, 3)
        fit = powers @ np.linalg.lstsq(powers, lines, rcond=None)[0]
        brightness = np.moveaxis(lines - fit, 0, axis)
    window = np.outer(*(np.hanning(length + 1)[:-1] for length in brightness.shape))
    power = np.abs(np.fft.fft2(brightness * window)) ** 2
    return power / np.square(window).sum() / brightness.size


def bins(repeats: int, longest_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the frequencies of the lattice, (longest, 3), and those between, (longest, n − 3)."""
    lines = repeats * np.arange(longest_px)[:, None]
    on, between = np.array([-1, 0, 1]), np.arange(2, repeats - 1)
    return (lines + on) % (repeats * longest_px), (lines + between) % (repeats * longest_px)


def sums(power: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the sum of each block of frequencies, (len(rows), len(columns))."""
    return power[rows][:, :, columns].sum((1, 3))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
