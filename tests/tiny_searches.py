"""What the tests of searches share: a tiny recipe, its images, and a search without curves."""

import csv
import functools
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fairweather.training import Recipe, search_recipe

tune = functools.partial(search_recipe, curves_every_s=None)  # which would take most of the time

RATES = "stages.*.learning_rate=x0.2..5"
SPACE = (RATES, "architecture.window=2|1")  # a window of 1 is refused


def make_recipe(**changes: Any) -> Recipe:
    """Two stages of six steps and six validations in all, on three images and one held out."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "task": "rain",
        "description": "A recipe for tests.",
        "preset": "ast_n",
        "architecture": {"embed_dim": 4, "depths": [1, 1, 1], "heads": [1, 1, 1], "window": 2},
        "data": {"clean": ["clean"], "held_out_every": 4},
        "stages": [
            {"crop_px": 16, "batch": 1, "steps": 4, "learning_rate": 1e-3},
            {
                "crop_px": 16,
                "batch": 2,
                "steps": 2,
                "learning_rate": 5e-4,
                "final_learning_rate": 2e-4,
            },
        ],
        "validate_every_steps": 1,
        "validation_crop_px": 16,
        "seed": 3,
    }
    return Recipe.model_validate(tree | changes)


def write_images(root: Path) -> Path:
    """Four images of noise, of which one is held out."""
    (root / "clean").mkdir()
    random = np.random.default_rng(0)
    for number in range(4):
        pixels = random.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"clean/{number}.png")
    return root


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "trials.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
