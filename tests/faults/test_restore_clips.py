"""Faults while clips are restored: a kill, a quota, a full disk, one that must not be written.

Runs are killed in processes that are forked from one that has loaded everything, so that each kill
falls into the work.
"""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import run_script
from parity import random_model
from tiny_clips import frames_of, make_clip

from fairweather import Restorer
from fairweather.errors import ImageError
from fairweather.models import save_model

pytest.importorskip("av", reason="NOT TESTED: clips, because PyAV is not installed")


KILLS = """
import os, random, signal, sys, time
count, folder = int(sys.argv[1]), sys.argv[2]
os.chdir(folder)
import av, torch
torch.set_num_threads(1)
from fairweather.restoration import Restorer
from forked import start_command
choose = random.Random(0)
TARGET = "clip.restored.mp4"
FOLDER = "." + TARGET + ".fairweather"
MAY_BE_THERE = {"net.safetensors", "clip.mp4", FOLDER, TARGET}

def start():
    words = "restore clip.mp4 --weights net.safetensors --device cpu --levels 0 --threads 1"
    return start_command(*words.split())

def segments():
    whole = filter(lambda one: one.name.endswith(".nut"), os.scandir(FOLDER))
    return {(one.name, one.stat().st_mtime_ns) for one in whole}

started = time.monotonic()
assert os.waitpid(start(), 0)[1] == 0
took, killed, was_done = time.monotonic() - started, 0, False
os.rename(TARGET, sys.argv[3])
while killed < count:
    before = set() if was_done or not os.path.exists(FOLDER) else segments()
    pid = start()
    time.sleep(choose.uniform(0, took))
    os.kill(pid, signal.SIGKILL)
    killed += os.waitpid(pid, 0)[1] != 0
    assert set(os.listdir()) <= MAY_BE_THERE, os.listdir()
    if was_done := os.path.exists(TARGET):
        os.unlink(TARGET)  # so that there is something to do
    elif before:
        assert before <= segments()  # what was finished is not done again
assert os.waitpid(start(), 0)[1] == 0
print(killed)
"""


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
@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    work, whole = tmp_path / "work", tmp_path / "whole.mp4"
    work.mkdir()
    save_model(random_model(std=0.05), work / "net.safetensors")
    make_clip(work / "clip.mp4", frames=150, size=(64, 80))  # three segments
    count = os.environ.get("FAIRWEATHER_KILLS", "3")
    assert run_script(KILLS, count, work, whole).strip() == count
    result, expected = frames_of(work / "clip.restored.mp4"), frames_of(whole)
    assert [time for time, _ in result] == [time for time, _ in expected]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(result, expected, strict=True))
    left = {path.name for path in work.iterdir()}
    assert left == {"net.safetensors", "clip.mp4", "clip.restored.mp4"}


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


MOUNTED = 'mount -t tmpfs -o "$0" none disk && "$@"; status=$?; ls -A disk; exit $status'
ON_DISK = ["unshare", "--map-root-user", "--mount", "sh", "-c", MOUNTED]


@pytest.mark.skipif(not shutil.which("unshare"), reason="NOT TESTED: a full disk, no unshare")
@pytest.mark.parametrize(
    ("options", "said"),
    [("size=40k", os.strerror(errno.ENOSPC)), ("ro", os.strerror(errno.EROFS))],
)
def test_a_disk_that_takes_no_more(tmp_path: Path, options: str, said: str) -> None:
    """A real one, which only the process of the command sees."""
    (tmp_path / "disk").mkdir()
    if subprocess.run([*ON_DISK, options, "true"], cwd=tmp_path, check=False).returncode:
        pytest.skip("NOT TESTED: a full disk, because nothing can be mounted here")
    weights, source = tmp_path / "net.safetensors", tmp_path / "clip.mp4"
    save_model(random_model(std=0.05), weights)
    make_clip(source, frames=60)
    kept = source.read_bytes()
    command = [sys.executable, "-m", "fairweather", "restore", "clip.mp4", "-o", "disk/clear.mp4"]
    done = subprocess.run(
        [*ON_DISK, options, *command, "--weights", str(weights), "--threads", "1"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"failed: 'clip.mp4' cannot be written to 'disk': {said}",
        "0 restored, 1 failed",
    ]
    assert set(done.stdout.split()) <= {".clear.mp4.fairweather"}  # to go on from
    assert source.read_bytes() == kept
