"""Give clean photographs smooth skies: `python scripts/smooth_skies.py CLEAN OUT [--count N]`.

Few training photographs hold a large smooth surface, so nothing teaches a network that the grid of
its attention windows has no place there. These composites do: above a rough skyline through the
photograph lies a gradient with next to no noise. The same seed writes the same files.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.transform import resize

LONGER_PX = 480
HORIZON = (0.25, 0.75)  # mean height of the skyline, as a share of the image
SKYLINE_CELLS = (3, 24)  # how many hills along it
SKYLINE_HEIGHT = 0.08
EDGE_PX = (0.5, 3.0)  # how soft the skyline is
NOISE = (0.0, 1.5 / 255)
WITHOUT_GROUND = 0.15  # share of pictures that are sky alone


def main() -> None:
    """Write the composites as PNG files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clean", type=Path, help="folder of clean photographs")
    parser.add_argument("out", type=Path, help="folder to write to")
    parser.add_argument("--count", type=int, default=200)
    asked = parser.parse_args()
    photos = photos_in(asked.clean)
    if not photos:
        parser.error(f"{asked.clean}: holds no .jpg or .png")
    write_skies(photos, asked.out, count=asked.count)


def photos_in(folder: Path) -> list[Path]:
    """Return the photographs in a folder and all below it."""
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))


def write_skies(photos: list[Path], out: Path, *, count: int) -> None:
    """Write composites of some of the photographs, as PNG files."""
    out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count):
        photo = Image.open(photos[random.integers(len(photos))]).convert("RGB")
        photo.thumbnail((LONGER_PX, LONGER_PX), Image.Resampling.LANCZOS)
        picture = with_sky(np.asarray(photo) / 255, random)
        pixels = (picture.clip(0, 1) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(out / f"{number:04}.png")


def with_sky(ground: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return (H, W, 3) in [0, 1] with a smooth sky above a skyline."""
    height, width = ground.shape[:2]
    sky = smooth_sky(height, width, random)
    if random.random() < WITHOUT_GROUND:
        return sky
    hills = smooth_noise(1, width, int(random.integers(*SKYLINE_CELLS)), random)[0]
    skyline = (random.uniform(*HORIZON) + SKYLINE_HEIGHT * hills) * height
    below = (np.arange(height)[:, None] - skyline) / random.uniform(*EDGE_PX)
    share = 1 / (1 + np.exp(-below.clip(-30, 30)))[..., None]
    return share * ground + (1 - share) * sky


def smooth_sky(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Return a gradient between two colours, bent a little, with next to no noise."""
    grey = random.uniform(0.3, 1.0, 2)[:, None]
    top, bottom = grey + random.normal(0, 0.06, (2, 3))
    share = np.linspace(0, 1, height)[:, None] ** random.uniform(0.5, 2)
    share = share + 0.1 * smooth_noise(height, width, 3, random)
    noise = random.normal(0, random.uniform(*NOISE), (height, width, 3))
    return top + share[..., None] * (bottom - top) + noise


def smooth_noise(height: int, width: int, cells: int, random: np.random.Generator) -> np.ndarray:
    """Return (H, W) noise without detail finer than one of so many cells."""
    coarse = random.normal(size=(min(cells, height), cells))
    return np.asarray(resize(coarse, (height, width), order=3, mode="edge"))


if __name__ == "__main__":
    main()
