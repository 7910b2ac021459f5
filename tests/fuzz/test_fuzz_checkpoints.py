"""Damaged weights load, or are refused by an error that names them: no crash, no hang, no bomb."""

import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from mutation import SECONDS

WORKER = Path(__file__).with_name("weights_worker.py")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="measures with resource")


def load_damaged(kind: str, folder: Path) -> None:
    """Have the worker load files of a kind for as long as is asked for."""
    seed = random.SystemRandom().randrange(2**32)
    command = [sys.executable, WORKER, kind, str(seed), str(SECONDS), folder]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=SECONDS + 240,
            env=os.environ | {"KERAS_BACKEND": "torch"},
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"hangs at {sorted(folder.glob('tried*'))}, seed {seed}")
    print(done.stdout)
    tried = sorted(folder.glob("tried*"))
    assert done.returncode == 0, f"crashed at one of {tried}, seed {seed}: {done.stderr[-2000:]}"
    assert " 0 faults" in done.stdout, done.stdout


def test_damaged_checkpoints(tmp_path: Path) -> None:
    load_damaged("checkpoints", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="needs Keras")
def test_damaged_files_of_keras(tmp_path: Path) -> None:
    load_damaged("keras", tmp_path)
