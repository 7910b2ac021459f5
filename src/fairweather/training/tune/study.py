"""The database of a search: its trials, those of other processes, and those that were stopped."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from fairweather.training.tune.summary import TrialResult

log = logging.getLogger(__name__)

# Of the whole length of a trial, since a searched batch may change how many steps its epochs have.
PARTS_OF_A_TRIAL = 10_000
NEVER_PRUNED_TRIALS = 4
NEVER_PRUNED_PARTS = PARTS_OF_A_TRIAL // 4
DATABASE = "study.db"
HEARTBEAT_S = 20
GRACE_S = 120  # without a heartbeat, after which a trial's process is taken for killed
WAIT_FOR_DATABASE_S = 60.0
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class Storage(RDBStorage):
    """Optuna's storage, which takes no living trial for dead where the clock was set forward."""

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        stale = super()._get_stale_trial_ids(study_id)
        if stale:  # a living one is heard of again by then
            time.sleep(1.5 * HEARTBEAT_S)
            stale = sorted({*stale} & {*super()._get_stale_trial_ids(study_id)})
        return stale


def open_study(out: Path, *, first: dict[str, float | str]) -> optuna.Study:
    """Open the folder's study, new or as it was left.

    The median prunes, and not successive halving: that gives up three of four trials after a fixed
    budget, which fits many short trials, while here a few go through warm-ups and stages after
    which ranks change.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a fault of a trial is raised besides
    with stable():
        storage = Storage(
            f"sqlite:///{out / DATABASE}",
            engine_kwargs={"connect_args": {"timeout": WAIT_FOR_DATABASE_S}},
            heartbeat_interval=HEARTBEAT_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=queue_again,
        )
    study = optuna.create_study(
        storage=storage,
        study_name="fairweather",
        direction="maximize",
        pruner=MedianPruner(
            n_startup_trials=NEVER_PRUNED_TRIALS, n_warmup_steps=NEVER_PRUNED_PARTS
        ),
        load_if_exists=True,
    )
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(first)
    return study


@contextmanager
def stable() -> Iterator[None]:
    """Keep Optuna from warning of what it has called experimental for years."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Leave a stopped trial, with its number and what it reported, to the next process or call."""
    waiting = optuna.create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        intermediate_values=trial.intermediate_values,
    )
    study.add_trial(waiting)


def others_do_the_rest(study: optuna.Study, *, trials: int) -> bool:
    """Tell whether all trials are done, or other processes are at the last; if so, wait a while.

    Trials of processes that were killed are queued again first.
    """
    with stable():
        fail_stale_trials(study)
    begun = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, *DONE))
    if len(begun) < trials:
        return False
    if any(trial.state == TrialState.RUNNING for trial in begun):
        log.info("waiting for the trials of other processes")
        time.sleep(HEARTBEAT_S)
    return True


def next_trial(
    study: optuna.Study, objective: Callable[[optuna.Trial], float], *, seed: int
) -> TrialResult:
    """Run the trial that a stopped process left behind, or a new one.

    The sampler is seeded for each trial, so that a resumed search goes on with other draws than it
    began with, and with the same ones as if it had not been stopped.
    """
    drawn = [t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]
    entropy = np.random.SeedSequence((seed, count_drawn(drawn)))
    study.sampler = TPESampler(seed=int(entropy.generate_state(1, np.uint32)[0]))
    begun: list[int] = []

    def begin(trial: optuna.Trial) -> float:
        begun.append(trial.number)
        return objective(trial)

    try:
        # The traceback of what pruned a trial holds its network until it is collected.
        study.optimize(begin, n_trials=1, gc_after_trial=True)
    except BaseException:  # also an interrupt, and the exit that Lightning makes of one
        for number in begun:
            study.tell(number, state=TrialState.FAIL, skip_if_finished=True)
            queue_again(study, study.trials[number])
        raise
    return result_of(study.trials[begun[0]])


def count_drawn(trials: Sequence[FrozenTrial]) -> int:
    """Return how many trials there are if one that was queued again counts once."""
    return len({trial.user_attrs.get("number", f"new {trial.number}") for trial in trials})


def read_results(study: optuna.Study) -> tuple[TrialResult, ...]:
    """Read the trials that are done, by number."""
    done = study.get_trials(deepcopy=False, states=DONE)
    return tuple(sorted(map(result_of, done), key=lambda result: result.number))


def result_of(trial: FrozenTrial) -> TrialResult:
    """Return what is known of a trial that is done."""
    complete = trial.state == TrialState.COMPLETE
    reported = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    return TrialResult(
        number=trial.user_attrs["number"],
        folder=folder_of(trial.user_attrs["number"]),
        complete=complete,
        psnr_db=trial.value if complete else max(reported, default=None),
        values=trial.params,
        trained=1.0 if complete else max(trial.intermediate_values, default=0) / PARTS_OF_A_TRIAL,
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
        reason=trial.user_attrs["reason"],
    )


def folder_of(number: int) -> str:
    """Return the name of a trial's run folder."""
    return f"trial-{number:04}"
