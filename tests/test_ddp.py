"""Several processes: how many there are, and batches that do not divide among them.

`faults/test_train_at_scale.py` compares two processes with one.
"""

from pathlib import Path

import lightning
import pytest
from tiny_runs import QUIET, of_pairs, train, write_images

from fairweather.errors import DataError
from fairweather.training import Machines

pytestmark = QUIET


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs."""
    return write_images(tmp_path_factory.mktemp("data"), clean=0, pairs=8)


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
