"""Faults while photographs are restored: what is left is whole or absent, and a next run finishes.

Runs are killed in processes that are forked from one that has loaded everything, so that each kill
falls into the work.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import run_script
from PIL import Image
from tiny_sets import scene, write_weights

from fairweather.restoration import Restorer, Summary, plan_jobs, run_jobs

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are others there")

KILLS = """
import os, random, signal, sys, time
count, seed, folder, weights = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
import torch
torch.set_num_threads(1)
from fairweather.restoration import Restorer, run_jobs
from forked import start_command
from PIL import Image
Image.init()
choose = random.Random(seed)

def run(*more):
    return start_command("restore", folder, "--weights", weights, "--device", "cpu", *more)

def contents(place):
    return {
        name: open(os.path.join(place, name), "rb").read()
        for name in os.listdir(place) if not name.startswith(".")
    } if os.path.isdir(place) else {}

started = time.monotonic()
assert os.waitpid(run("--compare", "-o", folder + "-whole"), 0)[1] == 0
took = time.monotonic() - started
whole, killed = contents(folder + "-whole"), 0
for _ in range(count):
    pid = run("--compare", "--skip-existing")
    time.sleep(choose.uniform(0, took))
    os.kill(pid, choose.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP]))
    killed += os.waitpid(pid, 0)[1] != 0
    found = contents(folder + "-restored")
    assert all(whole[name] == content for name, content in found.items()), found.keys()
    for name in sorted(found):  # so that there is always something to do
        if choose.random() < 0.7:
            os.unlink(os.path.join(folder + "-restored", name))
assert os.waitpid(run("--compare", "--skip-existing"), 0)[1] == 0
assert contents(folder + "-restored") == whole
print(killed)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "mine.safetensors", strength=0.3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        Image.fromarray(scene(number, 96, 128)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def restorer(weights: Path) -> Restorer:
    return Restorer(weights, device="cpu")


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}


def kill_runs(count: int, *, folder: Path, weights: Path) -> None:
    killed = int(run_script(KILLS, count, 0, folder, weights))
    assert killed > count // 4  # the others had finished
    hidden = [path.name for path in folder.with_name("photos-restored").glob(".*")]
    assert hidden == []


def test_a_few_killed_runs_leave_nothing_half_done(photos: Path, weights: Path) -> None:
    kill_runs(8, folder=photos, weights=weights)


@pytest.mark.slow
def test_many_killed_runs_leave_nothing_half_done(photos: Path, weights: Path) -> None:
    kill_runs(int(os.environ.get("FAIRWEATHER_KILLS", "16")), folder=photos, weights=weights)


def start(*arguments: object) -> subprocess.Popen[str]:
    code = "from fairweather.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, "restore", "--device", "cpu", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=environment(),
    )


def test_two_processes_share_an_output_folder(photos: Path, weights: Path, tmp_path: Path) -> None:
    options = (photos, "--weights", weights, "--skip-existing", "--compare", "--json")
    both = [start(*options) for _ in range(2)]
    documents = []
    for process in both:
        out, err = process.communicate(timeout=300)
        assert (process.returncode, err) == (0, "")
        documents.append(json.loads(out))
    for document in documents:
        assert len(document["restored"]) + len(document["skipped"]) == 6
    names = {path.name for path in tmp_path.joinpath("photos-restored").iterdir()}
    assert names == {f"{n}.png{more}" for n in range(6) for more in ("", ".compare.jpg")}


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
from fairweather.cli import main
main()
"""


def test_a_disk_that_takes_no_more_fails_each_file_and_leaves_none(
    photos: Path, weights: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "large.png")
    Image.fromarray(noise[:4, :4]).save(photos / "small.png")
    command = (photos, "--weights", weights, "--device", "cpu", "-o", tmp_path / "out")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "restore", *map(str, command)],
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        check=False,
    )
    assert done.returncode == 1
    assert f"'{photos / 'large.png'}'" in done.stderr
    assert os.strerror(errno.EFBIG) in done.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "small.png" in names
    assert "large.png" not in names
    assert not [name for name in names if name.startswith(".")]
    again = start(*command[:3], "-o", tmp_path / "out", "--skip-existing")
    again.communicate(timeout=300)
    assert again.returncode == 0
    assert len(list((tmp_path / "out").iterdir())) == 8


def test_inputs_that_vanish_are_named(photos: Path, restorer: Restorer) -> None:
    jobs, _, _ = plan_jobs([str(photos)])
    summary = Summary()

    def on_start(job: object) -> None:
        (photos / "3.png").unlink(missing_ok=True)

    run_jobs(restorer, jobs, summary=summary, on_start=on_start)
    assert [failure.source.name for failure in summary.failed] == ["3.png"]
    assert "does not exist" in summary.failed[0].reason
    assert len(summary.restored) == 5


def test_an_output_folder_that_vanishes_costs_the_files_in_it(
    photos: Path, restorer: Restorer, tmp_path: Path
) -> None:
    jobs, _, _ = plan_jobs([str(photos)], out=tmp_path / "out")
    summary = Summary()

    def on_start(job: object) -> object:
        def on_tile(done: int, total: int) -> None:
            if job == jobs[2]:
                shutil.rmtree(tmp_path / "out")

        return on_tile

    run_jobs(restorer, jobs, summary=summary, on_start=on_start)
    assert [failure.source.name for failure in summary.failed] == ["2.png"]
    again = Summary()
    run_jobs(restorer, jobs, summary=again, existing="skip")
    assert (len(again.restored), len(again.skipped), again.failed) == (3, 3, [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(photos: Path, restorer: Restorer, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    summary = Summary()
    jobs, _, _ = plan_jobs([str(photos)], out=tmp_path / "closed")
    run_jobs(restorer, jobs, summary=summary)
    assert len(summary.failed) == 6
    assert "is read-only" in summary.failed[0].reason


def test_a_clock_that_jumps_does_not_matter(
    photos: Path, restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = iter([1e9, 4e9, 0.0, 2e9] * 100)
    monkeypatch.setattr("time.time", lambda: next(moments))
    jobs, _, _ = plan_jobs([str(photos)])
    summary = Summary()
    run_jobs(restorer, jobs, summary=summary, compare=True)
    assert (len(summary.restored), summary.failed) == (6, [])
    assert all(0 <= record.seconds < 3600 for record in summary.restored)


INTERRUPTED = """
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from fairweather.cli import main
main()
"""


@pytest.mark.parametrize("name", ["typer", "rich.table", "torch", "fairweather.restoration.tiled"])
def test_an_interrupt_while_importing_is_quiet(name: str, photos: Path, weights: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(name=name), "restore", photos],
        capture_output=True,
        encoding="utf-8",
        env=environment(),
        check=False,
    )
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_memory_that_ends_in_onednn_shrinks_the_tiles(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = scene(0, 256, 256)
    expected = restorer(image)
    engine = restorer.engine
    assert engine is not None
    sizes = []

    class Scarce:
        """An engine that has memory for small tiles only."""

        def __getattr__(self, name: str) -> object:
            return getattr(engine, name)

        def __call__(self, tiles: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
            sizes.append(max(tiles.shape[1:3]))
            if sizes[-1] > 128:
                raise RuntimeError("could not create a primitive")
            return engine(tiles, context)

    monkeypatch.setattr(restorer, "engine", Scarce())
    restored = restorer(image)
    assert max(sizes) > 128 >= sizes[-1]
    assert np.abs(restored.astype(int) - expected).max() <= 1
    assert torch.is_inference_mode_enabled() is False
