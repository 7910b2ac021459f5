"""Measure what `--fast` and `--finish` do to restored photographs, and write the page.

python benchmarks/options.py DATA

`DATA` is a folder of test images with dev/pairs and dev/clean. Takes about twenty minutes.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fairweather import Restorer
from fairweather.data import degrade_pixels, find_layout_pairs
from fairweather.imaging import read_image
from fairweather.restoration import list_finishes
from laboratory.pages import RESULTS, line_of

PAIRS = {  # weights, layout and most pairs of each set below DATA/dev/pairs
    "haze/REVIDE": ("haze", "folders", 3),
    "haze/SOTS-indoor": ("haze", "sots", 9),
    "shadow/UIUC": ("shadow", "folders", 2),
    "rain/Rain100L": ("rain", "folders", 8),
    "moire/UHDM-700px": ("moire", "folders", 4),
}
ENLARGED = ("rain", "raindrop", "snow", "moire", "weather")
TASK_OF = {"weather": "rain"}
TIMES = 3
KODAK = 3
PAGE = """# Preview and finishing

Written by `python benchmarks/options.py DATA`; do not edit it.

## `--fast`

{count} photographs of Kodak with the degradation that the weights are for, enlarged {times} times
(3.5 megapixels). Gain in PSNR over the input [dB], of 8-bit images. `haze` and `shadow` restore a
small version anyway.

{fast}

## `--finish`

PSNR [dB] and SSIM of restored images against clean ones, RGB, 8 bits. Bold is better than without.

{finish}

A finish is for the eye: off by default.
"""


def main() -> None:
    """Measure both options, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    asked = parser.parse_args()
    figures = {
        "fast": {weights: measure_fast(asked.data, weights) for weights in ENLARGED},
        "finish": {name: measure_finishes(asked.data, name) for name in PAIRS},
    }
    (RESULTS / "options.json").write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    (RESULTS / "options.md").write_text(page(figures), "utf-8")


def measure_fast(data: Path, weights: str) -> dict[str, float]:
    """Return the mean gain of a restoration at full size and of the preview [dB]."""
    full, fast = Restorer(weights, device="cpu"), Restorer(weights, device="cpu", fast=True)
    gains: dict[str, list[float]] = {"full": [], "fast": []}
    for path in sorted((data / "dev/clean/Kodak24").iterdir())[:KODAK]:
        clean = read_image(path).pixels
        degraded = degrade_pixels(clean, task=TASK_OF.get(weights) or weights, seed=0)
        clean, degraded = enlarge(clean), enlarge(degraded)
        before = peak_signal_noise_ratio(clean, degraded)
        for name, restorer in (("full", full), ("fast", fast)):
            restored = restorer.restore_pixels(degraded)
            gains[name].append(peak_signal_noise_ratio(clean, restored) - before)
    means = {name: round(float(np.mean(values)), 2) for name, values in gains.items()}
    print(weights, means, flush=True)
    return means


def enlarge(pixels: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) `TIMES` as large."""
    size = (TIMES * pixels.shape[1], TIMES * pixels.shape[0])
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def measure_finishes(data: Path, name: str) -> dict[str, list[float]]:
    """Return mean PSNR and SSIM of a set of pairs, without a finish and with each."""
    weights = PAIRS[name][0]
    pairs = list(read_pairs(data, name))
    figures = {}
    for finish in (None, *list_finishes()):
        restorer = Restorer(weights, device="cpu", finish=finish)
        scores = [
            (peak_signal_noise_ratio(clean, x), structural_similarity(clean, x, channel_axis=-1))
            for degraded, clean in pairs
            for x in [restorer.restore_pixels(degraded)]
        ]
        psnr_db, ssim = np.mean(scores, axis=0)
        figures[finish or "none"] = [round(float(psnr_db), 2), round(float(ssim), 4)]
        print(name, finish, figures[finish or "none"], flush=True)
    return figures


def read_pairs(data: Path, name: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return degraded and clean images of a set."""
    _, layout, most = PAIRS[name]
    for pair in find_layout_pairs(data / "dev/pairs" / name, layout, split="all")[:most]:
        yield read_image(pair.degraded).pixels, read_image(pair.clean).pixels


def page(figures: dict[str, dict[str, dict]]) -> str:
    """Return the page of these figures."""
    fast = ["| weights | full | `--fast` |", "| --- | ---: | ---: |"]
    fast += [
        line_of(weights, f"{gain['full']:+.2f}", f"{gain['fast']:+.2f}")
        for weights, gain in figures["fast"].items()
    ]
    finishes = ["none", *list_finishes()]
    finish = [line_of("set", *finishes), line_of("---", *["---:"] * len(finishes))]
    for name, found in figures["finish"].items():
        cells = []
        for one in finishes:
            parts = [
                f"**{value:{form}}**" if value > without else f"{value:{form}}"
                for value, without, form in zip(
                    found[one], found["none"], (".2f", ".4f"), strict=True
                )
            ]
            cells.append(" / ".join(parts))
        finish.append(line_of(name, *cells))
    return PAGE.format(count=KODAK, times=TIMES, fast="\n".join(fast), finish="\n".join(finish))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
