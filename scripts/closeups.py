"""Cut close-ups of evenly lit surfaces out of photographs: pavements, walls, grass, cloth.

Writes OUT/NAME.png. A shadow on a surface is told from a dark thing by the texture that
goes on beneath it, of which whole photographs show little.
"""

from pathlib import Path

import numpy as np
import typer
from PIL import Image

from prepare_rain import photographs

TRIALS = 60  # in each photograph
SIDES = (0.2, 0.6)  # of the shorter side
SMALLEST_PX, LARGEST_PX = 128, 400
EVEN = 0.06  # deviation of the means of 4 × 4 parts, of 1
TEXTURE = 0.015  # least deviation from a blurred version, of 1

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


def unevenness(piece: Image.Image) -> tuple[float, float]:
    """Return how much the parts of a piece differ in brightness, and how much texture it has."""
    grey = piece.convert("L").resize((64, 64), Image.Resampling.BOX)
    values = np.asarray(grey, np.float32) / 255
    parts = values.reshape(4, 16, 4, 16).mean((1, 3))
    blurred = np.asarray(grey.resize((16, 16), Image.Resampling.BOX).resize((64, 64)), np.float32)
    return float(parts.std()), float((values - blurred / 255).std())


@app.command()
def main(out: Path, sources: list[Path]) -> None:
    """Cut at most one out of each photograph under SOURCES."""
    out.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    written = 0
    all_of_them = [path for source in sources for path in photographs(source)]
    for path in all_of_them:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        found = []
        for _ in range(TRIALS):
            side = int(min(image.size) * random.uniform(*SIDES))
            if side < SMALLEST_PX:
                continue
            left, top = (int(random.integers(length - side + 1)) for length in image.size)
            piece = image.crop((left, top, left + side, top + side))
            uneven, texture = unevenness(piece)
            if uneven < EVEN and texture > TEXTURE:
                found.append((uneven / texture, piece))
        if found:
            piece = min(found, key=lambda one: one[0])[1]
            piece.thumbnail((LARGEST_PX, LARGEST_PX), Image.Resampling.LANCZOS)
            piece.save(out / f"{path.stem}.png")
            written += 1
    print(f"{written} close-ups of {len(all_of_them)} photographs")


if __name__ == "__main__":
    app()
