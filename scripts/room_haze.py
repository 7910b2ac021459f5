"""Lay out the data of `haze_rooms_s`: `python scripts/room_haze.py TRAIN MORE OUT`.

A hazy room of RESIDE and the clear one tell how much light comes through at each pixel, and with
that the depth of the room. From it every room gets new haze, of other densities and airlights.
TRAIN holds `clean/SET` and `pairs/haze/SOTS-indoor/{hazy,clear}`, MORE `clean/SET` and
`haze/SOTS-indoor-more/{input,target}`. Photographs that stay as they are become links. The same
seed writes the same files.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from prepare_rain import link
from smooth_skies import photos_in, write_skies

AIRLIGHTS = np.linspace(0.7, 1, 31)  # RESIDE's range
LEAST_TRANSMISSION = 0.02  # depth cannot be told from less
DENSITY = (0.25, 1.3)  # mean optical thickness, from thinner to as dense as the densest given
TINT = 0.03


def main() -> None:
    """Write OUT/clean and OUT/pairs/haze/SOTS-indoor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", type=Path)
    parser.add_argument("more", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--hazes", type=int, default=20, help="new ones of each room")
    parser.add_argument("--skies", type=int, default=200, help="composites with smooth skies")
    asked = parser.parse_args()
    for folder in (*(asked.train / "clean").iterdir(), *(asked.more / "clean").iterdir()):
        link(asked.out / "clean" / folder.name, folder)
    skies = asked.out / "clean" / "skies"
    write_skies(photos_in(asked.train / "clean"), skies, count=asked.skies)
    rooms = asked.train / "pairs" / "haze" / "SOTS-indoor"
    out = asked.out / "pairs" / "haze" / "SOTS-indoor"
    random = np.random.default_rng(0)
    for name, clear, hazy in given_hazes(rooms, asked.more / "haze" / "SOTS-indoor-more"):
        link(out / "clear" / clear.name, clear)
        for path in hazy:
            link(out / "hazy" / path.name, path)
        clean = pixels(clear)
        depth = np.median([depth_of(pixels(path), clean) for path in hazy], 0)
        for number in range(asked.hazes):
            haze = add_haze(clean, depth, random)
            Image.fromarray(haze).save(out / "hazy" / f"{name}_{50 + number}.jpg", quality=95)


def given_hazes(rooms: Path, more: Path) -> Iterator[tuple[str, Path, list[Path]]]:
    """Yield each room's name, its clear photograph and its hazy ones."""
    hazy = defaultdict(list)
    for path in sorted([*(rooms / "hazy").iterdir(), *(more / "input").iterdir()]):
        hazy[path.stem.split("_")[0]].append(path)
    for clear in sorted((rooms / "clear").iterdir()):
        yield clear.stem, clear, hazy[clear.stem]


def depth_of(hazy: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return the optical thickness (H, W), divided by its mean, under the airlight that fits best.

    From I = J·t + A·(1 − t) with one grey A: t is a projection of I − A on J − A.
    """

    def transmission(airlight: float) -> tuple[float, np.ndarray]:
        direction = clean - airlight
        share = ((hazy - airlight) * direction).sum(-1) / ((direction**2).sum(-1) + 1e-6)
        share = share.clip(LEAST_TRANSMISSION, 1)
        return ((hazy - airlight - share[..., None] * direction) ** 2).mean(), share

    _, best = min(map(transmission, AIRLIGHTS), key=lambda fit: fit[0])
    thickness = -np.log(best)
    return thickness / thickness.mean()


def add_haze(clean: np.ndarray, depth: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a hazy version (H, W, 3) as uint8, of a depth whose mean is 1."""
    thickness = np.exp(random.uniform(*np.log(DENSITY))) * depth
    share = np.exp(-thickness)[..., None]
    airlight = random.uniform(AIRLIGHTS[0], AIRLIGHTS[-1]) + random.uniform(-TINT, TINT, 3)
    haze = clean * share + airlight.clip(0, 1) * (1 - share)
    return (haze.clip(0, 1) * 255).round().astype(np.uint8)


def pixels(path: Path) -> np.ndarray:
    """Return a photograph (H, W, 3) in [0, 1]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float32) / 255


if __name__ == "__main__":
    main()
