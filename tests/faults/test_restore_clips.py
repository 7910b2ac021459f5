"""Faults while clips are restored: a kill, a quota, a folder that must not be written."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import random_model
from tiny_clips import frames_of, make_clip

from fairweather import Restorer
from fairweather.errors import ImageError
from fairweather.models import save_model

pytest.importorskip("av", reason="NOT TESTED: clips, because PyAV is not installed")


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def run_command(source: Path, weights: Path, **how: Any) -> subprocess.Popen[bytes]:
    command = ["-m", "fairweather", "restore", str(source), "--weights", str(weights)]
    command += ["--levels", "0", "--threads", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=how.pop("stderr", subprocess.DEVNULL),
        **how,
    )


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    weights, source = tmp_path / "net.safetensors", tmp_path / "clip.mp4"
    save_model(random_model(std=0.05), weights)
    make_clip(source, frames=200, size=(128, 160))
    target = tmp_path / "clip.restored.mp4"
    assert run_command(source, weights).wait(200) == 0
    expected = frames_of(target)
    target.unlink()
    drawn = random.Random(0)
    for _ in range(10):
        process = run_command(source, weights)
        time.sleep(drawn.uniform(2.0, 4.5))
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        hidden = ".clip.restored.mp4.fairweather"
        assert left_in(tmp_path) <= {weights.name, source.name, hidden, target.name}
        if target.exists():
            break
    assert run_command(
        source,
        weights,
    ).wait(200) in (0, 1)
    result = frames_of(target)
    assert [time for time, _ in result] == [time for time, _ in expected]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(result, expected, strict=True))
    assert left_in(tmp_path) == {"net.safetensors", "clip.mp4", target.name}


def limit_files() -> None:
    """No file above 20 kB, as a quota; the signal that would end the process is ignored."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_a_quota_ends_in_one_line(tmp_path: Path) -> None:
    weights, source = tmp_path / "net.safetensors", tmp_path / "clip.mp4"
    save_model(random_model(std=0.05), weights)
    make_clip(source, frames=60)
    kept = source.read_bytes()
    with run_command(source, weights, preexec_fn=limit_files, stderr=subprocess.PIPE) as process:
        _, error = process.communicate(timeout=120)
    assert process.returncode == 1
    assert b"clip.mp4" in error
    assert b"Traceback" not in error
    assert source.read_bytes() == kept
    assert not (tmp_path / "clip.restored.mp4").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_must_not_be_written(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.mp4", frames=3)
    restorer = Restorer(random_model(), device="cpu", levels=0)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ImageError, match=r"clip\.mp4"):
            restorer.restore_file(tmp_path / "clip.mp4", tmp_path / "out.mp4")
    finally:
        tmp_path.chmod(0o700)
