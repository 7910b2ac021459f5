"""Measure how far tiles and engines are from the untiled PyTorch result, and write the page.

python benchmarks/tiles.py [--weights haze …] [--engines torch …] [--tiles none 256 512]

Takes the better part of an hour on one core. Figures lie in docs/results/tiles.json, so a run that
measures only some of them keeps the others.
"""

import argparse
import json
import math
import sys

import numpy as np
import skimage.data
import torch
from PIL import Image

from fairweather import Restorer
from fairweather.data import degrade_pixels
from fairweather.models import list_weights
from laboratory.pages import RESULTS, line_of

SIZE = (1100, 1500)
TASK_OF = {"weather": "haze"}  # of what the all-in-one weights restore, the hardest to tile
TILES = ("none", "256", "512")
ENGINES = ("torch", "openvino", "onnxruntime")
GOAL_DB = {"none": 60, "256": 55, "512": 60}
PAGE = """# Tiles and engines

Written by `python benchmarks/tiles.py`; do not edit it.

A photograph of {width}×{height} px (`skimage.data.coffee`, enlarged, with the degradation that the
weights are for) is restored by each engine, in tiles and whole. Each figure is the PSNR [dB] of the
result against that of PyTorch in fp32, untiled. The goal is {goal_256} dB with tiles of 256 px and
{goal_512} dB with tiles of 512 px. "Equal" is equal to the last bit.

{table}

A tile that is too small for the overlap that a network needs is enlarged: `weather` looks a window
of 128 px further than the others, so its tiles overlap by 256 px and are of 512 px at least.
`haze` and `shadow` restore a small version of the photograph, so for them there is one tile.
"""


def main() -> None:
    """Measure what is asked for, and write the page with all that is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", nargs="*", default=sorted(list_weights()))
    parser.add_argument("--engines", nargs="*", default=ENGINES)
    parser.add_argument("--tiles", nargs="*", default=TILES, choices=TILES)
    asked = parser.parse_args()
    known = RESULTS / "tiles.json"
    figures = json.loads(known.read_text("utf-8")) if known.exists() else {}
    for weights in asked.weights:
        image = photograph(TASK_OF.get(weights) or weights)
        whole = Restorer(weights, device="cpu", tile=None)(image)
        for engine in asked.engines:
            for tile in asked.tiles:
                if (engine, tile) == ("torch", "none"):
                    continue
                side = None if tile == "none" else int(tile)
                found = Restorer(weights, device="cpu", engine=engine, tile=side)(image)
                figures[f"{weights} {engine} {tile}"] = round(psnr_db(found, whole), 1)
                print(weights, engine, tile, figures[f"{weights} {engine} {tile}"], flush=True)
                known.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", "utf-8")
    (RESULTS / "tiles.md").write_text(page(figures), "utf-8")


def photograph(task: str) -> np.ndarray:
    """Return a degraded photograph, (H, W, 3) float32 in [0, 1]."""
    large = Image.fromarray(skimage.data.coffee()).resize((1650, 1100), Image.Resampling.LANCZOS)
    clean = np.ascontiguousarray(np.asarray(large)[: SIZE[0], 75 : 75 + SIZE[1]])
    return degrade_pixels(clean, task=task, seed=0) / np.float32(255)


def psnr_db(image: np.ndarray, reference: np.ndarray) -> float:
    """Return the PSNR of floats in [0, 1]; infinite for equal ones."""
    error = float(np.square(image - reference, dtype=np.float64).mean())
    return -10 * math.log10(error) if error else math.inf


def page(figures: dict[str, float]) -> str:
    """Return the page of these figures."""
    rows = [["weights", *(f"{engine}, {tile}" for engine in ENGINES for tile in TILES)]]
    rows.append(["---", *(["---:"] * (len(rows[0]) - 1))])
    for weights in sorted({key.split()[0] for key in figures}):
        cells = [
            figure(figures.get(f"{weights} {engine} {tile}"), goal_db=GOAL_DB[tile])
            for engine in ENGINES
            for tile in TILES
        ]
        rows.append([weights, "equal", *cells[1:]])
    table = "\n".join(line_of(*row) for row in rows)
    goals = {"goal_256": GOAL_DB["256"], "goal_512": GOAL_DB["512"]}
    return PAGE.format(height=SIZE[0], width=SIZE[1], table=table, **goals)


def figure(psnr: float | None, *, goal_db: float) -> str:
    """Return a cell: a figure, in bold where it misses the goal."""
    if psnr is None:
        return "not measured"
    if math.isinf(psnr):
        return "equal"
    return f"{psnr:.1f}" if psnr >= goal_db else f"**{psnr:.1f}**"


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
