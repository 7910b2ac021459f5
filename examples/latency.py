"""Measure where the time of one frame goes, in this process and on this machine's CPU.

python latency.py [WEIGHTS] [--size 480x640] [--frames 20] [--json latency.json] times, for each
engine that is installed, with one thread and with all: the bytes made a float32 tensor, the
network, and the way back to bytes; and beside them the call of `fairweather.Restorer`, which does
all three. Weights that restore a small version of the frame (`haze`, `shadow`) have the last alone.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image

import fairweather as fw
from fairweather.hardware import cpu_name, keep_freed_memory, usable_cores
from fairweather.restoration import list_engines

ENGINES = ("torch", "openvino", "onnxruntime")


def sample_frame(height, width):
    """Return a photograph as (height, width, 3) bytes."""
    return np.asarray(Image.fromarray(skimage.data.astronaut()).resize((width, height)))


def stages_of(restorer, frame):
    """Yield the name of each stage of a frame, and a call that does it once."""
    network = restorer.engine
    if network.config.proxy_px is None:
        tensor = to_tensor(frame)
        restored = network(tensor)
        yield "to tensor", lambda: to_tensor(frame)
        yield "network", lambda: network(tensor)
        yield "back", lambda: to_bytes(restored)
    yield "Restorer", lambda: restorer(frame)


def to_tensor(frame):
    """Return (1, H, W, 3) float32 in [0, 1]."""
    return np.divide(frame[None], 255, dtype=np.float32)


def to_bytes(restored):
    """Return the (H, W, 3) bytes of a batch of one."""
    return np.rint(restored[0].clip(0, 1) * 255).astype(np.uint8)


def seconds_of(call, frames, warm_up):
    """Return how long each of `frames` calls took, after some that do not count."""
    taken = []
    for _ in range(warm_up + frames):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken[warm_up:]


def measure(weights, *, engines, size, frames, warm_up):
    """Yield a row for each engine, number of threads and stage, with its times [ms]."""
    frame = sample_frame(*size)
    for engine in engines:
        for threads in sorted({1, usable_cores()}):
            torch.set_num_threads(threads)  # the other engines take as many as PyTorch has
            restorer = fw.Restorer(weights, device="cpu", engine=engine, levels=0)
            for stage, call in stages_of(restorer, frame):
                times_ms = 1000 * np.array(seconds_of(call, frames, warm_up))
                yield {
                    **{"engine": engine, "threads": threads, "stage": stage},
                    "median_ms": round(float(np.median(times_ms)), 3),
                    "p95_ms": round(float(np.percentile(times_ms, 95)), 3),
                }


def size_of(text):
    """Return (height, width) from `480x640`."""
    height, width = map(int, text.split("x"))
    return height, width


def main():
    """Read the command line, print a table, and write JSON where asked to."""
    here = [engine.name for engine in list_engines() if engine.installed]
    installed = [engine for engine in ENGINES if engine in here]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("weights", nargs="?", default="rain", help="as fairweather.Restorer takes")
    parser.add_argument(
        "--size", type=size_of, default=(480, 640), help="HEIGHTxWIDTH of the frame"
    )
    parser.add_argument(
        "--engine", action="append", choices=installed, help="only this one, or more"
    )
    parser.add_argument("--frames", type=int, default=20, help="how many count")
    parser.add_argument("--warm-up", type=int, default=3, help="how many do not, before them")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    asked = parser.parse_args()
    size = "{}x{}".format(*asked.size)
    keep_freed_memory()
    about = {"cpu": cpu_name(), "weights": asked.weights, "size": size}
    print(f"{asked.weights}, {size}, {asked.frames} frames, {about['cpu']}\n")
    print(f"{'engine':12} {'threads':>7}  {'stage':10} {'median':>10} {'95 %':>10}  [ms]")
    rows = []
    options = {"size": asked.size, "frames": asked.frames, "warm_up": asked.warm_up}
    for row in measure(asked.weights, engines=asked.engine or installed, **options):
        rows.append(row)
        words = f"{row['engine']:12} {row['threads']:7}  {row['stage']:10}"
        print(f"{words} {row['median_ms']:10.2f} {row['p95_ms']:10.2f}", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
