"""Two processes compute what one computes with twice the batch for each."""

import json
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from tiny_runs import (
    QUIET,
    of_pairs,
    one_thread_of_the_cpu,
    read_logs,
    train,
    write_images,
)
from two_processes import STEPS, STOPPED_AT, assert_same_as_alone, make_recipe, torchrun

from fairweather.errors import DataError
from fairweather.training import Machines

pytestmark = QUIET


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


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_where_they_stopped(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    stopped = torchrun(tmp_path, recipe=make_recipe(), data=data, run=run, stop_at=STOPPED_AT)
    assert stopped.returncode != 0
    assert torch.load(run / "stage-0/last.ckpt", weights_only=True)["global_step"] == 10
    done = torchrun(tmp_path, recipe=make_recipe(), data=data, run=run)
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
