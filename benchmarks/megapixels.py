"""Measure what photographs of 1 to 96 megapixels take, and write the page.

python benchmarks/megapixels.py [--weights rain …] [--megapixels 1 12 …] [--before CHECKOUT]

Each photograph is restored by a process of its own, `fairweather restore` on one core, decoding and
encoding included. Figures lie in docs/results/megapixels.json, so a run that measures only some of
them keeps the others. All of it takes an hour and a half on one core.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from fairweather.data import degrade_pixels
from fairweather.models import list_weights
from laboratory.pages import RESULTS, line_of

MEGAPIXELS = (1, 12, 24, 48, 96)
TASK_OF = {"weather": "rain"}
SCENE_PX = 1000  # longer side of the photograph that is degraded and then enlarged
ROOT = Path(__file__).parents[1]
PAGE = """# Large photographs

Written by `python benchmarks/megapixels.py`; do not edit it.

`fairweather restore photo.jpg --task WEIGHTS` on one core, as a process of its own: processor
seconds from the start of Python to the written JPEG, and the peak of its memory. The photograph is
`skimage.data.coffee` with the degradation that the weights are for, enlarged as a camera's larger
sensor would.

{tables}
"""
COMMAND = "from fairweather.cli import main; main()"


def main() -> None:
    """Measure what is asked for, and write the page with all that is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", nargs="*", default=[*list_weights()])
    parser.add_argument("--megapixels", nargs="*", type=int, default=MEGAPIXELS)
    parser.add_argument("--fast", action="store_true", help="with --fast")
    parser.add_argument("--before", type=Path, help="a checkout to measure instead of this one")
    asked = parser.parse_args()
    known = RESULTS / "megapixels.json"
    figures = json.loads(known.read_text("utf-8")) if known.exists() else {}
    when = "before" if asked.before else "fast" if asked.fast else "now"
    for weights in asked.weights:
        for megapixels in asked.megapixels:
            with tempfile.TemporaryDirectory() as folder:
                photo = Path(folder) / "photo.jpg"
                photograph(TASK_OF.get(weights) or weights, megapixels).save(photo, quality=95)
                options = ["--task", weights, *(["--fast"] if asked.fast else [])]
                seconds, peak_mb = measure(photo, options, checkout=asked.before or ROOT)
            figures.setdefault(when, {})[f"{weights} {megapixels}"] = [seconds, peak_mb]
            print(when, weights, megapixels, f"{seconds} s, {peak_mb} MB", flush=True)
            known.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", "utf-8")
    (RESULTS / "megapixels.md").write_text(page(figures), "utf-8")


def photograph(task: str, megapixels: int) -> Image.Image:
    """Return a degraded photograph of 3:2, enlarged to so many million pixels."""
    scene = Image.fromarray(skimage.data.coffee())
    scene = scene.resize((SCENE_PX, SCENE_PX * 2 // 3), Image.Resampling.LANCZOS)
    degraded = degrade_pixels(np.asarray(scene), task=task, seed=0)
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    size = (round(1.5 * height), height)
    return Image.fromarray(degraded).resize(size, Image.Resampling.BICUBIC)


def measure(photo: Path, options: list[str], *, checkout: Path) -> tuple[float, int]:
    """Return processor seconds and the peak of memory [MB] of a restoration."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout / "src")}
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "restore", str(photo), *options],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{photo.name}: the command failed; its message stands above")
    kilobytes = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    return round(usage.ru_utime + usage.ru_stime, 1), round(kilobytes / 1024)


def page(figures: dict[str, dict[str, list[float]]]) -> str:
    """Return the page of these figures: a table for each weights file."""
    tables = []
    for weights in sorted({key.split()[0] for part in figures.values() for key in part}):
        columns = [when for when in ("before", "now", "fast") if when in figures]
        rows = [["megapixels", *columns]]
        rows.append(["---:"] * len(rows[0]))
        for megapixels in MEGAPIXELS:
            cells = [cell(figures[when].get(f"{weights} {megapixels}")) for when in columns]
            rows.append([str(megapixels), *cells])
        tables.append(f"## {weights}\n\n" + "\n".join(line_of(*row) for row in rows))
    return PAGE.format(tables="\n\n".join(tables))


def cell(figure: list[float] | None) -> str:
    """Return seconds and megabytes as text."""
    return "not measured" if figure is None else f"{figure[0]} s, {figure[1]} MB"


if __name__ == "__main__":
    main()
