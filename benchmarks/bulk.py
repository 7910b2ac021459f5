"""Bulk work on two workers of Ray beside plain processes, and its memory over many files."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from PIL import Image

from laboratory.load import make_photos
from laboratory.machine import memory_of
from laboratory.pages import RESULTS, write_facts

PAGE = RESULTS / "bulk.md"
COMMAND = "from fairweather.cli import main; main()"

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


def write_photos(folder: Path, count: int, longest_px: int) -> None:
    """Write different photographs in synthetic rain, as PNG."""
    folder.mkdir()
    photo = max(make_photos(), key=lambda one: one.size)
    while min(photo.shape[:2]) <= longest_px:
        photo = np.pad(photo, [(0, side) for side in photo.shape[:2]] + [(0, 0)], "symmetric")
    rows, columns = (side - longest_px for side in photo.shape[:2])
    for index in range(count):
        top, left = 7 * index % rows, 11 * index % columns
        cut = photo[top : top + longest_px * 2 // 3, left : left + longest_px]
        Image.fromarray(np.ascontiguousarray(cut)).save(folder / f"{index:05}.png")


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start a command that computes with one thread."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, arguments), "--device", "cpu", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(*processes: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for commands, and return what the last one printed."""
    told = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("a command failed")
    return json.loads(told[-1])


def timed(*commands: tuple[str | Path, ...]) -> float:
    """Run commands at the same time; return the seconds until all have ended."""
    begun = time.perf_counter()
    finish(*(start(*command) for command in commands))
    return time.perf_counter() - begun


def wait_for_a_result(process: subprocess.Popen[str], out: Path) -> None:
    """Wait until a command has written a result."""
    while not any(out.glob("*.png")):
        if process.poll() is not None:
            raise SystemExit("a command failed")
        time.sleep(0.1)


def memory_until(process: subprocess.Popen[str], out: Path, *, results: int) -> list[int]:
    """Return the memory of a process and all that it started, each second of its work [bytes]."""
    found: list[int] = []
    while process.poll() is None and sum(1 for _ in out.glob("*.png")) < results:
        with contextlib.suppress(psutil.Error):
            found.append(memory_of(psutil.Process(process.pid)))
        time.sleep(1)
    return found


@app.command()
def main(
    *,
    photos: Annotated[int, typer.Option(help="To compare speeds with.")] = 300,
    longest_px: Annotated[int, typer.Option(help="Of each.")] = 384,
    small: Annotated[int, typer.Option(help="Small images, to see memory with.")] = 3000,
    page: Annotated[Path, typer.Option(help="Where to write.")] = PAGE,
) -> None:
    """Measure bulk work, and write docs/results/bulk.md."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_photos(folder / "in", photos, longest_px)
        halves = [folder / "one", folder / "two"]
        for index, path in enumerate(sorted((folder / "in").iterdir())):
            halves[index % 2].mkdir(exist_ok=True)
            (halves[index % 2] / path.name).hardlink_to(path)
        alone = timed(("restore", folder / "in", "-o", folder / "alone"))
        plain = timed(*(("restore", half, "-o", folder / f"{half.name}-out") for half in halves))
        whole = timed(("bulk", folder / "in", "-o", folder / "bulk", "--workers", "2"))
        write_photos(folder / "few", 2, longest_px)
        one = min((folder / "few").iterdir())
        idle = timed(*(("restore", one, "-o", folder / f"{name}.png") for name in ("a", "b")))
        idle_bulk = timed(("bulk", folder / "few", "-o", folder / "few-out", "--workers", "2"))
        begun = time.perf_counter()
        finish(start("bulk", folder / "in", "-o", folder / "bulk", "--workers", "2"))
        nothing = time.perf_counter() - begun

        write_photos(folder / "small", small, 96)
        many = start("bulk", folder / "small", "-o", folder / "small-out", "--workers", "2")
        wait_for_a_result(many, folder / "small-out")
        settled = memory_until(many, folder / "small-out", results=small)
        finish(many)
    third = max(1, len(settled) // 3)
    early, late = mean(settled[third // 2 : third + third // 2]), mean(settled[-third:])
    rows = [
        ("seconds, one process of one thread", f"{alone:.1f}"),
        ("seconds, two such processes that share the files", f"{plain:.1f}"),
        ("seconds, `bulk` with two workers", f"{whole:.1f}"),
        ("`bulk` as fast as one process, times", f"{alone / whole:.2f}"),
        ("`bulk` as fast as two processes, share", f"{plain / whole:.1%}"),
        ("seconds, two processes for a photograph each", f"{idle:.1f}"),
        ("seconds, `bulk` for two photographs", f"{idle_bulk:.1f}"),
        (
            "`bulk` as fast as one process without the time for these, times",
            f"{(alone - idle) / (whole - idle_bulk):.2f}",
        ),
        (
            "`bulk` as fast as two processes without the time for these, share",
            f"{(plain - idle) / (whole - idle_bulk):.1%}",
        ),
        ("seconds, `bulk` again, with nothing to do", f"{nothing:.1f}"),
        (f"memory of all processes over {small} small images, early", mib(early)),
        ("in the last third", mib(late)),
        ("the second over the first", f"{late / early:.3f}"),
    ]
    write_facts(
        page,
        "Bulk work",
        f"`python benchmarks/bulk.py --photos {photos} --longest-px {longest_px} --small {small}`"
        f" writes this page: {photos} photographs of {longest_px} px in synthetic rain, restored"
        " with `rain` by `fairweather restore` and by `fairweather bulk`, each with the start of"
        " its processes. Memory is that of Ray, too; shared pages are counted once.",
        rows,
    )


def mib(size: float) -> str:
    """Return bytes as text."""
    return f"{size / 2**20:.0f} MiB"


if __name__ == "__main__":
    app()
