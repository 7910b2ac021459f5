"""Two processes compute what one computes with twice the batch for each."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from tiny_runs import (
    QUIET,
    assert_close,
    of_pairs,
    one_thread_of_the_cpu,
    read_logs,
    train,
    weights_in,
    write_images,
)

from fairweather.errors import DataError
from fairweather.training import Machines, Recipe, dump_recipe

STEPS = 20
TOLERANCE = 1e-9

pytestmark = QUIET


def make_recipe() -> Recipe:
    """Nothing random but the crops; the gradients are clipped in every step."""
    stage = {"crop_px": 16, "batch": 4, "steps": STEPS, "learning_rate": 1e-3}
    return of_pairs(stages=[stage], validate_every_steps=5, gradient_clip_norm=0.01)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs; three are held out, which are not equally many for two processes."""
    return write_images(tmp_path_factory.mktemp("data"), clean=0, pairs=8)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    run = tmp_path_factory.mktemp("alone")
    with one_thread_of_the_cpu():
        train(make_recipe(), data=data, run=run)
    return run


SCRIPT = """
import os, sys
import fairweather.training
sys.path.insert(0, {tests!r})
from tiny_runs import StopAt
from fairweather.cli import main

stop_at = {stop_at}
if stop_at is not None:  # both processes end at the start of this batch, as in a power cut
    train = fairweather.training.train
    def train_and_stop(*arguments, **options):
        stop = StopAt(stage=0, batch=stop_at, action=lambda module: os._exit(3))
        return train(*arguments, **options, callbacks=(stop,))
    fairweather.training.train = train_and_stop
main()
"""


def torchrun(
    folder: Path, *, data: Path, run: Path, stop_at: int | None = None
) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc_per_node=2 fairweather train …` on the CPU."""
    script, recipe = folder / "command.py", folder / "recipe.yaml"
    tests = str(Path(__file__).parent)
    script.write_text(SCRIPT.format(tests=tests, stop_at=stop_at))
    recipe.write_text(dump_recipe(make_recipe()), encoding="utf-8")
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script]
    words += ["train", recipe, "--data", data, "-o", run, "--cache", folder / "cache"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_same_as_alone(run: Path, alone: Path) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        weights, expected = (weights_in(folder / "stage-0" / name) for folder in (run, alone))
        assert {tensor.dtype for tensor in weights.values()} == {torch.float64}
        assert_close(weights, expected, atol=TOLERANCE)
    columns, expected_columns = (read_logs(folder)[0] for folder in (run, alone))
    assert columns.keys() == expected_columns.keys()
    for name, points in columns.items():
        assert points == pytest.approx(expected_columns[name], rel=0, abs=TOLERANCE), name
    assert list(columns["train_loss"]) == list(range(STEPS))
    assert list(columns["val_psnr_db"]) == [4, 9, 14, 19]


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_where_they_stopped(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stopped = torchrun(tmp_path, data=data, run=run, stop_at=12)
    assert stopped.returncode != 0
    assert torch.load(run / "stage-0/last.ckpt", weights_only=True)["global_step"] == 10
    done = torchrun(tmp_path, data=data, run=run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained: ") >= 1
    assert_same_as_alone(run, alone)
    starts = json.loads((run / "starts.json").read_text())
    assert [(start["devices"], start["nodes"]) for start in starts] == [(2, 1), (2, 1)]
    losses = list(read_logs(run)[0]["train_loss"].values())
    assert len(set(losses)) == STEPS
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_torchrun_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert Machines.of_torchrun() is None
    for name, value in {
        "TORCHELASTIC_RUN_ID": "none",
        "LOCAL_WORLD_SIZE": "4",
        "WORLD_SIZE": "8",
    }.items():
        monkeypatch.setenv(name, value)
    machines = Machines.of_torchrun(workers=3, cache=Path("cache"))
    assert machines == Machines(devices=4, nodes=2, workers=3, cache=Path("cache"))


def test_a_batch_that_does_not_divide_is_refused_at_once(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that of a later stage, before the first one is trained."""
    monkeypatch.setattr(lightning.Trainer, "fit", lambda *_, **__: pytest.fail("trains"))
    stage = {"crop_px": 16, "batch": 4, "steps": 2, "learning_rate": 1e-3}
    recipe = of_pairs(stages=[stage, {**stage, "batch": 6}])
    with pytest.raises(DataError, match="batch 6 does not divide among 4 devices"):
        train(recipe, data=data, run=tmp_path / "run", machines=Machines(devices=2, nodes=2))
    assert not (tmp_path / "run").exists()
