"""A search over a recipe's values: trials trained by `train`, pruned early, resumable (Optuna)."""

import gc
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import lightning
import numpy as np
import optuna
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from fairweather.errors import FairweatherError, OptionError, RecipeError, TrainingError
from fairweather.files import replacing
from fairweather.models import read_metadata
from fairweather.training.data_module import split_pairs
from fairweather.training.module import RestorationModule
from fairweather.training.recipe import Recipe
from fairweather.training.recipe_files import parse_recipe
from fairweather.training.run import Machines, refuse_broken_pairs, train
from fairweather.training.schedules import length_of
from fairweather.training.tune.space import Dimension, parse_space, recipe_with
from fairweather.training.tune.summary import TrialResult, best_of, write_summary

log = logging.getLogger(__name__)

# Of the whole length of a trial, since a searched batch may change how many steps its epochs have.
PARTS_OF_A_TRIAL = 10_000
NEVER_PRUNED_TRIALS = 4
NEVER_PRUNED_PARTS = PARTS_OF_A_TRIAL // 4


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        dimensions: what was varied.
        trials: all that are done, by number.
        best: the complete trial with the highest held-out PSNR; None if all were pruned.
        recipe_path: `best.yaml`, its recipe; None likewise.
        summary_path: the plot.
    """

    dimensions: tuple[Dimension, ...]
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    recipe_path: Path | None
    summary_path: Path


def tune(
    recipe: Recipe,
    *,
    data: Path,
    out: Path,
    space: Sequence[str] = (),
    trials: int = 20,
    machines: Machines | None = None,
    unchecked: bool = False,
    on_trial: Callable[[TrialResult], None] = lambda _: None,
) -> SearchResult:
    """Searches the values of a recipe that give the highest PSNR on its held-out images.

    The first trial takes the recipe's own values where the space holds them. A trial is pruned
    where, after a quarter of its steps or later, it is worse than half of the complete ones were
    there, and where its values make no valid recipe, diverge or need more memory than there is.

    Args:
        recipe: where the search starts.
        data: the folder that the recipe's folders are relative to.
        out: the search's folder: `trial-NNNN/` are run folders, `best.yaml`, `trials.csv` and
            `summary.png` are what was found so far.
        space: what to vary, as `parse_space` reads it; learning rates and batches by default.
        trials: how many altogether, those of a stopped search in the same folder included.
        machines: where; one device, which all trials use in turn.
        unchecked: train on pairs even if a quick look finds broken or misaligned ones.
        on_trial: told about each trial once it is done.

    Raises:
        OptionError: for more than one device.
        RecipeError: if the space names what no recipe has or what trials cannot be compared by, or
            the folder holds a search of another recipe or space.
        DataError: if data are missing, or pairs are broken or misaligned.
        TrainingError: if another process searches in the folder, or a trial is stopped.
    """
    machines = machines or Machines()
    if (machines.devices, machines.nodes) != (1, 1):
        raise OptionError("a search trains on one device")
    dimensions = parse_space(space, recipe)
    training, held_out = split_pairs(recipe, data)  # said before anything is written
    out.mkdir(parents=True, exist_ok=True)
    with claimed(out):
        if not unchecked and not (out / "search.yaml").exists():
            refuse_broken_pairs([*training, *held_out])
        note_search(recipe, dimensions, out, images=(len(training), len(held_out)))
        study = open_study(out, first=own_values(dimensions))
        while True:
            results = read_results(study)
            for result in results:
                remove_checkpoints(out / result.folder)
            if results:
                paths = write_summary(out, results, recipe=recipe, dimensions=dimensions)
                if len(results) >= trials:
                    return SearchResult(dimensions, results, best_of(results), *paths)
            run_trial(
                study,
                next_trial(study, seed=recipe.seed),
                recipe=recipe,
                dimensions=dimensions,
                data=data,
                out=out,
                machines=machines,
                images=len(training),
            )
            on_trial(read_results(study)[-1])


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keeps a second process out, which would take a running trial for an interrupted one."""
    try:
        with filelock.FileLock(out / ".lock", timeout=0):
            yield
    except filelock.Timeout as error:
        raise TrainingError(
            f"{out}: another process searches here; wait for it, or end it"
        ) from error


def note_search(
    recipe: Recipe, dimensions: Sequence[Dimension], out: Path, *, images: tuple[int, int]
) -> None:
    """Writes what is searched, or refuses a folder in which something else was."""
    path = out / "search.yaml"
    space = sorted(dimension.entry for dimension in dimensions)
    if path.exists():
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        differing = {
            "another recipe": parse_recipe(found["recipe"], source=str(path)) != recipe,
            "another space": found["space"] != space,
            "another number of images": (found["trained_on"], found["held_out"]) != images,
        }
        if any(differing.values()):
            what = " and ".join(name for name, differs in differing.items() if differs)
            raise RecipeError(
                f"{out} holds a search with {what}, whose trials cannot be compared with these"
                f" (see {path}); choose a new folder"
            )
        return
    wanted = {
        "space": space,
        "trained_on": images[0],
        "held_out": images[1],
        "recipe": recipe.model_dump(mode="json"),
    }
    with replacing(path) as file:
        file.write(yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True).encode())


def open_study(out: Path, *, first: dict[str, float | str]) -> optuna.Study:
    """The folder's study, new or as it was left.

    The median prunes, and not successive halving: that gives up three of four trials after a fixed
    budget, which fits many short trials, while here a few go through warm-ups and stages after
    which ranks change.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = out / "study.log"
    mend_journal(journal)
    # Optuna's other lock, a symbolic link, waits forever for a killed process if the path is
    # relative, and needs a privilege on Windows.
    lock = JournalFileOpenLock(str(journal))
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal), lock_obj=lock)),
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


def mend_journal(path: Path) -> None:
    """Drops what a killed process left: its lock, and a last line that it did not finish."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)  # nobody else is here, see claimed
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)


def own_values(dimensions: Sequence[Dimension]) -> dict[str, float | str]:
    """The recipe's own values, of those dimensions that hold theirs."""
    return {d.key: d.own for d in dimensions if d.own is not None}


def next_trial(study: optuna.Study, *, seed: int) -> optuna.Trial:
    """The trial that a killed process left behind, or a new one.

    The sampler is seeded for each trial, so that a resumed search goes on with other draws than it
    began with, and with the same ones as if it had not been stopped.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    number = running[0].number if running else len(read_results(study))
    entropy = np.random.SeedSequence((seed, number))
    study.sampler = TPESampler(seed=int(entropy.generate_state(1, np.uint32)[0]))
    # Optuna has no public way back to a trial; failing it and enqueuing a copy would change its
    # number, and with it the folder that has its checkpoints.
    return optuna.Trial(study, running[0]._trial_id) if running else study.ask()


def run_trial(
    study: optuna.Study,
    trial: optuna.Trial,
    *,
    recipe: Recipe,
    dimensions: Sequence[Dimension],
    data: Path,
    out: Path,
    machines: Machines,
    images: int,
) -> None:
    """Trains one trial to its end or until it is pruned, and tells the study.

    What stops the search, as an interrupt, leaves the trial to the next call.
    """
    values = {dimension.key: dimension.suggest(trial) for dimension in dimensions}
    run = out / folder_of(trial.number)
    log.info(
        "%s: %s", run.name, ", ".join(f"{d.label} {d.show(values[d.key])}" for d in dimensions)
    )
    seconds = 0.0
    try:
        candidate = recipe_with(recipe, dimensions, values)
    except RecipeError as error:
        reason = str(error)
    else:
        reporter = Reporter(trial, candidate, images=images)
        reason = train_trial(candidate, reporter, data=data, run=run, machines=machines)
        seconds = reporter.seconds
    score_db = math.nan
    if not reason:
        score_db = float(read_metadata(run / "model.safetensors")["held_out_psnr_db"])
        reason = "" if math.isfinite(score_db) else "its PSNR is not a number"
    trial.set_user_attr("reason", reason)
    trial.set_user_attr("seconds", seconds)
    if reason:
        log.info("%s is pruned: %s", run.name, reason)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, score_db)


def train_trial(
    recipe: Recipe, reporter: "Reporter", *, data: Path, run: Path, machines: Machines
) -> str:
    """Why the trial was pruned; empty if it was not."""
    reason = ""
    try:
        train(recipe, data=data, run=run, machines=machines, unchecked=True, callbacks=(reporter,))
    except optuna.TrialPruned as pruned:
        reason = str(pruned)
    except (FairweatherError, torch.OutOfMemoryError) as error:
        if error is not reporter.fault:  # raised outside of the fit: no fault of the values
            raise
        reason = str(error)
    if reason:
        gc.collect()  # outside of the except clause, whose traceback holds the network
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return reason


class Reporter(Callback):
    """Reports the held-out PSNR of every validation to a trial, and ends it if it is pruned."""

    def __init__(self, trial: optuna.Trial, recipe: Recipe, *, images: int):
        self.trial = trial
        every = recipe.validate_every_steps
        self.lengths = [
            length_of(stage, images=images, validate_every_steps=every).steps
            for stage in recipe.stages
        ]
        self.fault: BaseException | None = None
        frozen = trial.study.trials[trial.number]
        self.reported = set(frozen.intermediate_values)  # by a process that was killed
        self._seconds_before = float(frozen.user_attrs.get("seconds", 0.0))
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """How long the trial has been trained, up to the last validation before a kill."""
        return self._seconds_before + time.monotonic() - self._started

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, RestorationModule)
        done, total = sum(self.lengths[: pl_module.index]) + trainer.global_step, sum(self.lengths)
        part = PARTS_OF_A_TRIAL * done // total
        if part not in self.reported:
            self.reported.add(part)
            self.trial.report(float(trainer.callback_metrics["val_psnr_db"]), part)
            self.trial.set_user_attr("seconds", self.seconds)
        if done < total and self.trial.should_prune():
            raise optuna.TrialPruned(
                f"worse than the median of the complete trials after {done} of {total} steps"
            )

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        self.fault = exception


def read_results(study: optuna.Study) -> tuple[TrialResult, ...]:
    """The trials that are done, by number."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return tuple(_result_of(trial) for trial in done)


def _result_of(trial: FrozenTrial) -> TrialResult:
    complete = trial.state == TrialState.COMPLETE
    reported = [value for value in trial.intermediate_values.values() if math.isfinite(value)]
    return TrialResult(
        number=trial.number,
        folder=folder_of(trial.number),
        complete=complete,
        psnr_db=trial.value if complete else max(reported, default=None),
        values=trial.params,
        trained=1.0 if complete else max(trial.intermediate_values, default=0) / PARTS_OF_A_TRIAL,
        seconds=trial.user_attrs["seconds"],
        reason=trial.user_attrs["reason"],
    )


def folder_of(number: int) -> str:
    """Of a trial's run, in the search's folder."""
    return f"trial-{number:04}"


def remove_checkpoints(run: Path) -> None:
    """All but `model.safetensors`, which a pruned trial does not have; twenty would fill disks."""
    for path in run.glob("stage-*/*.ckpt"):
        path.unlink()
