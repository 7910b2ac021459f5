"""Measure what a self-ensemble gains with the bundled weights, by its views, and write the page.

python benchmarks/ensemble.py

Takes a few minutes on one core.
"""

import dataclasses

import numpy as np
import skimage.data
from skimage.metrics import peak_signal_noise_ratio

from fairweather import Restorer, load_model
from fairweather.data import DEGRADATIONS, degrade_pixels
from fairweather.models import Symmetries, list_weights
from laboratory.pages import RESULTS

VIEWS: tuple[Symmetries, ...] = ("none", "horizontal_flip", "flips", "all")
PAGE = """# Self-ensemble

Written by `python benchmarks/ensemble.py`; do not edit it.

PSNR [dB], the mean of {count} photographs of scikit-image (256×320 px) under each synthetic
degradation, restored plainly and as the mean over views. `--self-ensemble` takes the views that
the weights were trained with, in bold. Clean photographs are turned before they are degraded, so no
weights trained on synthetic degradation have seen it turned. Official checkpoints, whose training
turned the pairs, keep all eight views.

| weights | degradation | input | plain | left-right (2 views) | flips (4) | flips and turns (8) |
|---|---|---:|---:|---:|---:|---:|
{rows}
"""


def photographs() -> list[np.ndarray]:
    """Return the clean photographs."""
    rocket, coffee, cat = skimage.data.rocket(), skimage.data.coffee(), skimage.data.chelsea()
    cut = (rocket[:256, :320], coffee[60:316, 100:420], cat[:256, :320])
    return [np.ascontiguousarray(one) for one in cut]


def psnr_db(clean: np.ndarray, other: np.ndarray) -> float:
    """Return how close two images are."""
    return float(peak_signal_noise_ratio(clean, other))


def measure(weights: str, task: str) -> str:
    """Return one row of the table."""
    model = load_model(weights)
    trained = model.config.symmetries
    pairs = [(clean, degrade_pixels(clean, task=task, seed=1)) for clean in photographs()]
    cells = [f"{np.mean([psnr_db(*pair) for pair in pairs]):.2f}"]
    for views in VIEWS:
        model.config = dataclasses.replace(model.config, symmetries=views)  # pyright: ignore[reportAttributeAccessIssue]
        restorer = Restorer(model, device="cpu", tile=None, self_ensemble=True)
        score_db = np.mean([psnr_db(clean, restorer(degraded)) for clean, degraded in pairs])
        cells.append(f"**{score_db:.2f}**" if views == trained else f"{score_db:.2f}")
    return f"| `{weights}` | {task} | {' | '.join(cells)} |"


def main() -> None:
    """Measure all bundled weights, and write the page."""
    rows = []
    for weights in list_weights():
        tasks = ("rain", "snow") if weights == "weather" else (weights,)
        for task in tasks:
            assert task in DEGRADATIONS
            rows.append(measure(weights, task))
            print(rows[-1], flush=True)
    page = PAGE.format(count=len(photographs()), rows="\n".join(rows))
    (RESULTS / "self-ensemble.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
