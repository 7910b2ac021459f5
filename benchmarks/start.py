"""How fast the command answers: `python benchmarks/start.py [ROUNDS]` prints medians.

The commands take turns, so that other work on the machine slows them alike. "Outside the network"
is a whole `fairweather restore` less the processor time of the network itself. Each process runs on
one thread. Needs a POSIX system.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "fairweather"]
# Writes the processor time of the network to the file that its first argument names.
RESTORE = """
import sys, time
from pathlib import Path
from fairweather import Restorer, cli
inner, told = Restorer.restore_pixels, Path(sys.argv.pop(1))
def timed(*args, **kwargs):
    before = time.process_time()
    try:
        return inner(*args, **kwargs)
    finally:
        told.write_text(str(time.process_time() - before))
Restorer.restore_pixels = timed
cli.main()
"""


def main(rounds: int) -> None:
    """Measure every command in turns, and print the medians."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        photo, told = Path(folder, "photo.png"), Path(folder, "network.txt")
        make_photo(photo)
        restore = ["restore", str(photo), "--overwrite"]
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "python -c 'import torch'": [sys.executable, "-c", "import torch"],
            "python -c 'import fairweather'": [sys.executable, "-c", "import fairweather"],
            "fairweather --version": [*COMMAND, "--version"],
            "fairweather --help": [*COMMAND, "--help"],
            "fairweather restore --help": [*COMMAND, "restore", "--help"],
            "fairweather restore --wrong": [*COMMAND, "restore", "--wrong"],
            "fairweather restore photo.png": [sys.executable, "-c", RESTORE, str(told), *restore],
        }
        for turn in range(rounds + 1):
            for name, command in commands.items():
                processor, wall = run(command)
                if turn == 0:  # fills the caches of the file system
                    continue
                seconds.setdefault(name, []).append((processor, wall))
                if told.exists():
                    network = float(told.read_text())
                    told.unlink()
                    seconds.setdefault("… outside the network", []).append((processor - network, 0))
            told.unlink(missing_ok=True)
    print_table(seconds)


def make_photo(path: Path) -> None:
    """Write a photograph of 128 × 128 px."""
    from PIL import Image
    from skimage import data

    Image.fromarray(data.astronaut()[:128, :128]).save(path)


def run(command: list[str]) -> tuple[float, float]:
    """Run a command on one thread; return its processor and wall time [s]."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, env=environment, capture_output=True)
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def print_table(seconds: dict[str, list[tuple[float, float]]]) -> None:
    """Print the median of each, and how it compares with importing PyTorch."""
    torch = statistics.median(processor for processor, _ in seconds["python -c 'import torch'"])
    print(f"{'':<32}{'processor':>10}{'wall':>9}{'of import torch':>17}")
    for name, pairs in seconds.items():
        processor, wall = (statistics.median(column) for column in zip(*pairs, strict=True))
        clock = f"{wall:.2f} s" if wall else ""
        print(f"{name:<32}{processor:>8.2f} s{clock:>9}{processor / torch:>17.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
