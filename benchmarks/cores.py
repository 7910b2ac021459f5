"""Measure what more threads gain, for one large photograph and for a folder, and write the page.

python benchmarks/cores.py [--threads 1 2] [--rounds 3]

`fairweather restore` runs in a process of its own with each number of threads, in turns. Two
threads take about ten minutes on two cores.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from laboratory.pages import RESULTS, line_of

PHOTOS = 40
SIZES = {"one photograph of 12 megapixels": (4242, 2828), "a folder": (1224, 816)}
PAGE = """# Threads

Written by `python benchmarks/cores.py`; do not edit it.

`fairweather restore PHOTO|FOLDER --task rain --levels 0`, from the start of Python to the last
written file, with OMP_NUM_THREADS as given: medians of {rounds} runs in turns. The folder holds
{photos} JPEGs of 1 megapixel. {cores} cores.

{table}
"""


def main() -> None:
    """Measure with each number of threads, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", nargs="*", type=int, default=[1, os.cpu_count() or 1])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    runs: dict[str, list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        photo, photos = make_inputs(Path(folder))
        for _ in range(asked.rounds):
            for name, source in zip(SIZES, (photo, photos), strict=True):
                for threads in asked.threads:
                    figures = measure(source, threads=threads)
                    runs.setdefault(f"{name}|{threads}", []).append(figures)
                    print(name, threads, figures, flush=True)
    medians = {
        key: [round(statistics.median(column), 1) for column in zip(*figures, strict=True)]
        for key, figures in runs.items()
    }
    (RESULTS / "cores.json").write_text(json.dumps(medians, indent=1) + "\n", "utf-8")
    (RESULTS / "cores.md").write_text(page(medians, rounds=asked.rounds), "utf-8")


def make_inputs(folder: Path) -> tuple[Path, Path]:
    """Write a large photograph and a folder of small ones; return where."""
    scene = skimage.data.coffee()
    photo, photos = folder / "photo.jpg", folder / "photos"
    photos.mkdir()
    large, small = SIZES.values()
    Image.fromarray(scene).resize(large, Image.Resampling.BICUBIC).save(photo, quality=92)
    for number in range(PHOTOS):
        other = Image.fromarray(np.roll(scene, 13 * number, axis=1))
        path = photos / f"{number:02}.jpg"
        other.resize(small, Image.Resampling.BICUBIC).save(path, quality=92)
    return photo, photos


def measure(source: Path, *, threads: int) -> tuple[float, float, float]:
    """Return seconds by the clock, processor seconds, and the peak of memory [MB] of a run."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / source.name
        options = ["-o", str(target), "--task", "rain", "--levels", "0"]
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "fairweather", "restore", str(source), *options],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - started
    if status:
        raise SystemExit(f"{source}: the command failed with status {status}")
    kilobytes = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    return seconds, usage.ru_utime + usage.ru_stime, kilobytes / 1024


def page(medians: dict[str, list[float]], *, rounds: int) -> str:
    """Return the page of these figures."""
    header = ["", "threads", "seconds", "processor seconds", "memory", "times as fast"]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    first: dict[str, float] = {}
    for key, (seconds, processor_s, megabytes) in medians.items():
        name, threads = key.split("|")
        gain = first.setdefault(name, seconds) / seconds
        figures = [f"{seconds:.1f}", f"{processor_s:.1f}", f"{megabytes:.0f} MB", f"{gain:.2f}"]
        rows.append([name, threads, *figures])
    table = "\n".join(line_of(*row) for row in rows)
    cores = os.cpu_count()
    return PAGE.format(rounds=rounds, photos=PHOTOS, cores=cores, table=table)


if __name__ == "__main__":
    main()
