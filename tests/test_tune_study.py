"""Searches that are stopped, killed, or shared by several processes."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import ALONE
from tiny_searches import RATES, make_recipe, rows_of, tune, write_images

from fairweather.training import load_recipe
from fairweather.training.module import RestorationModule
from fairweather.training.tune import study as storage

pytestmark = ALONE


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"))


def watched_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Stage and step of everything that is trained from now on."""
    steps: list[tuple[int, int]] = []
    step = RestorationModule.training_step

    def training_step(module: RestorationModule, batch: Any, batch_idx: int) -> Any:
        steps.append((module.index, module.global_step))
        return step(module, batch, batch_idx)

    monkeypatch.setattr(RestorationModule, "training_step", training_step)
    return steps


WHOLE_TRIAL = [*((0, n) for n in range(4)), *((1, n) for n in range(2))]


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_a_stopped_search_goes_on_in_the_middle_of_its_trial(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    step = RestorationModule.training_step

    def stops(module: RestorationModule, batch: Any, batch_idx: int) -> Any:
        if (module.index, module.global_step) == (0, 2):
            raise error
        return step(module, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(RestorationModule, "training_step", stops)
        patch.setattr(signal, "signal", lambda *_: None)  # Lightning switches Ctrl-C off
        with pytest.raises((KeyboardInterrupt, SystemExit, OSError)):
            tune(make_recipe(), data=data, out=tmp_path, space=(RATES,), trials=2)
    steps = watched_steps(monkeypatch)
    result = tune(make_recipe(), data=data, out=tmp_path, space=(RATES,), trials=2)
    assert steps == [*WHOLE_TRIAL[2:], *WHOLE_TRIAL]
    assert [(trial.number, trial.folder) for trial in result.trials] == [
        (0, "trial-0000"), (1, "trial-0001"),
    ]  # fmt: skip


def start(function: Callable[..., None], *arguments: Path, grace_s: int) -> subprocess.Popen[str]:
    """Calls a function of this file in a process of its own, whose heart beats fast."""
    code = (
        f"import pathlib, runpy, sys; sys.path.insert(0, {str(Path(__file__).parent)!r});"
        f" names = runpy.run_path({__file__!r});"
        f" names['storage'].HEARTBEAT_S = 1; names['storage'].GRACE_S = {grace_s};"
        f" names[{function.__name__!r}](*map(pathlib.Path, {[str(path) for path in arguments]}))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tune_and_print(data: Path, out: Path) -> None:
    """Runs in a process of its own."""
    trained: list[int] = []
    result = tune(
        make_recipe(),
        data=data,
        out=out,
        space=(RATES,),
        trials=6,
        on_trial=lambda trial: trained.append(trial.number),
    )
    print(json.dumps([trained, [trial.number for trial in result.trials]]))


@pytest.mark.slow
def test_two_processes_share_a_search(data: Path, tmp_path: Path) -> None:
    processes = [start(tune_and_print, data, tmp_path, grace_s=120) for _ in range(2)]
    done = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], done
    (one, known), (other, known_too) = (json.loads(out.splitlines()[-1]) for out, _ in done)
    # Both may have begun a last trial at the same moment, of which the first to end knows nothing.
    known = max(known, known_too, key=len)
    assert known == list(range(len(known)))
    assert len(known) in (6, 7)
    assert sorted([*one, *other]) == known
    assert min(len(one), len(other)) > 0
    draws = {load_recipe(path).stages[0].learning_rate for path in tmp_path.glob("*/recipe.yaml")}
    assert len(draws) == len(known)


def tune_and_be_killed(data: Path, out: Path) -> None:
    """Runs in a process of its own; killed in the last step of the second trial."""
    step = RestorationModule.training_step

    def training_step(module: RestorationModule, batch: Any, batch_idx: int) -> Any:
        if (out / "trial-0001").exists() and (module.index, module.global_step) == (1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(module, batch, batch_idx)

    RestorationModule.training_step = training_step  # type: ignore[method-assign]
    tune(make_recipe(), data=data, out=out, space=(RATES,), trials=3)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="POSIX")
def test_a_killed_search_is_resumed_in_the_middle_of_its_trial(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its heart has not beaten for long enough to know that it was killed."""
    killed = start(tune_and_be_killed, data, tmp_path, grace_s=5)
    _, errors = killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL, errors
    assert len(rows_of(tmp_path)) == 1
    drawn = load_recipe(tmp_path / "trial-0001/recipe.yaml")
    monkeypatch.setattr(storage, "HEARTBEAT_S", 1)
    monkeypatch.setattr(storage, "GRACE_S", 5)
    steps = watched_steps(monkeypatch)
    result = tune(make_recipe(), data=data, out=tmp_path, space=(RATES,), trials=2)
    assert steps == [(1, 1)]
    result = tune(make_recipe(), data=data, out=tmp_path, space=(RATES,), trials=3)
    assert [(trial.number, trial.complete) for trial in result.trials] == [
        (0, True), (1, True), (2, True),
    ]  # fmt: skip
    assert steps == [(1, 1), *WHOLE_TRIAL]
    assert load_recipe(tmp_path / "trial-0001/recipe.yaml") == drawn
    study = storage.open_study(tmp_path, first={})
    done = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert [len(trial.intermediate_values) for trial in done] == [6, 6, 6]


def test_a_clock_set_forward_kills_no_living_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two trials that seem to be silent, one is heard of while the search waits."""
    study = storage.open_study(tmp_path, first={})
    silent = iter([[1, 2], [2, 3]])
    monkeypatch.setattr(storage.RDBStorage, "_get_stale_trial_ids", lambda *_: next(silent))
    waited: list[float] = []
    monkeypatch.setattr(storage.time, "sleep", waited.append)
    dead: list[int] = []
    monkeypatch.setattr(
        storage.RDBStorage, "set_trial_state_values", lambda _, i, **__: dead.append(i)
    )
    assert not storage.others_do_the_rest(study, trials=1)
    assert dead == [2]
    assert waited == [1.5 * storage.HEARTBEAT_S]
