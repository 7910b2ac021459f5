"""Runs of the command that are killed or interrupted: processes of their own, real signals."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from fairweather.imaging import read_image
from fairweather.models import create_model, save_model

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are others there")

PHOTO = np.ascontiguousarray(data.astronaut()[20:60, 180:232])
COMMAND = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored where tests run
from fairweather.cli import main
main()
"""
LOST = """
import os, signal, sys, time, weakref
kept = signal.default_int_handler
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[1] == "SIGTERM" else kept)
signal.signal(signal.SIGTERM, kept)
from fairweather.cli import interrupts_kept

class Thing: pass

def callback(_):
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    time.sleep(1)

with interrupts_kept():
    thing = Thing()
    reference = weakref.ref(thing, callback)
    try:
        del thing
        time.sleep(60)
    except KeyboardInterrupt:
        print("interrupted")
"""
KILLED_WHILE_WRITING = """
import os, signal
os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(create_model("ast_n", init="official"), path)
    return path


def start(weights: Path, *arguments: object, before: str = "") -> subprocess.Popen[str]:
    options = ["restore", "--weights", weights, "--device", "cpu", *arguments]
    return subprocess.Popen(
        [sys.executable, "-c", before + COMMAND, *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )


def start_long(weights: Path, folder: Path) -> subprocess.Popen[str]:
    """Starts on a small photo and a slow one, and returns once the small one is restored."""
    Image.fromarray(PHOTO).save(folder / "a.png")
    Image.fromarray(data.astronaut()[:300, :300]).save(folder / "b.png")
    process = start(weights, folder / "?.png", "--tile", 128, "--self-ensemble")
    assert process.stdout
    line = process.stdout.readline()
    assert line.startswith(f"{folder}/a.png → {folder}/a.restored.png  (52 × 40, "), (
        process.communicate(timeout=60)
    )
    return process


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_killed_run_leaves_no_half_of_a_file(weights: Path, tmp_path: Path) -> None:
    process = start_long(weights, tmp_path)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert contents(tmp_path) == ["a.png", "a.restored.png", "b.png"]
    assert read_image(tmp_path / "a.restored.png").pixels.shape == PHOTO.shape


def test_a_run_killed_while_writing_leaves_the_old_file(weights: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(PHOTO).save(source)
    target.write_bytes(b"old")
    arguments = (source, "-o", target, "--overwrite")
    process = start(weights, *arguments, before=KILLED_WHILE_WRITING)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    temporary, *visible = contents(tmp_path)
    assert visible == ["a.png", "b.png"]
    assert temporary.startswith(".fairweather-")  # it died in the middle of writing


@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
def test_an_interrupt_that_falls_into_a_callback_is_not_lost(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST, kind], capture_output=True, encoding="utf-8", timeout=50
    )
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


@pytest.mark.parametrize(("kind", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_in_order(
    weights: Path, tmp_path: Path, kind: int, status: int
) -> None:
    process = start_long(weights, tmp_path)
    process.send_signal(kind)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert (out, err) == ("", "1 restored, stopped with 1 not done\n")
    assert contents(tmp_path) == ["a.png", "a.restored.png", "b.png"]
