"""A search over a recipe's values: trials trained by `train`, pruned early, resumable (Optuna)."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import filelock
import lightning
import optuna
import torch
import yaml
from lightning.pytorch.callbacks import Callback

from fairweather.errors import FairweatherError, OptionError, RecipeError
from fairweather.files import write_text
from fairweather.models import read_metadata
from fairweather.training.batches import split_pairs
from fairweather.training.faults import CannotWriteError
from fairweather.training.module import RestorationModule
from fairweather.training.recipe import Recipe
from fairweather.training.recipe_files import parse_recipe
from fairweather.training.run import SECONDS_BETWEEN_CURVES, Machines, refuse_broken_pairs
from fairweather.training.run_folder import Facts, describe_data, name_difference
from fairweather.training.schedules import length_of
from fairweather.training.stage_run import train
from fairweather.training.tune.space import Dimension, parse_space, recipe_with
from fairweather.training.tune.study import (
    PARTS_OF_A_TRIAL,
    count_drawn,
    folder_of,
    next_trial,
    open_study,
    others_do_the_rest,
    read_results,
)
from fairweather.training.tune.summary import TrialResult, best_of, write_summary

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        dimensions: what was varied.
        trials: all that are done, by number.
        best: the complete trial with the highest held-out PSNR; None if all were pruned.
        recipe_path: `best.yaml`, its recipe; None likewise.
        summary_path: the plot of all trials.
        trained: how many trials this call trained.
    """

    dimensions: tuple[Dimension, ...]
    trials: tuple[TrialResult, ...]
    best: TrialResult | None
    recipe_path: Path | None
    summary_path: Path
    trained: int = 0


def search_recipe(
    recipe: Recipe,
    *,
    data: Path,
    out: Path,
    space: Sequence[str] = (),
    trials: int = 20,
    machines: Machines | None = None,
    unchecked: bool = False,
    on_trial: Callable[[TrialResult], None] = lambda _: None,
    curves_every_s: float | None = SECONDS_BETWEEN_CURVES,
) -> SearchResult:
    """Search the values of a recipe that give the highest PSNR on its held-out images.

    The first trial takes the recipe's own values where the space holds them. A trial is pruned
    where, after a quarter of its steps or later, it is worse than half of the complete ones were
    there, and where its values make no valid recipe, diverge or need more memory than there is.
    Several processes may search in one folder; the trial of a killed one is continued.

    Args:
        recipe: where the search starts.
        data: the folder that the recipe's folders are relative to.
        out: the search's folder: `trial-NNNN/` are run folders, `best.yaml`, `trials.csv`,
            `summary.png`, `values.png` and `steps.png` are what was found so far.
        space: what to vary, as `parse_space` reads it; learning rates and batches by default.
        trials: how many altogether, those of a stopped search in the same folder included.
        machines: where; one device for each process, which its trials use in turn.
        unchecked: train on pairs even if a quick look finds broken or misaligned ones.
        on_trial: told about each trial of this process once it is done.
        curves_every_s: as for `train`.

    Raises:
        OptionError: for more than one device.
        RecipeError: if the space names what no recipe has or what trials cannot be compared by, or
            the folder holds a search of another recipe or space.
        DataError: if data are missing, or pairs are broken or misaligned.
        TrainingError: if a trial is stopped.
    """
    machines = machines or Machines()
    if (machines.devices, machines.nodes) != (1, 1):
        raise OptionError("a search trains on one device")
    dimensions = parse_space(space, recipe)
    split = split_pairs(recipe, data)  # said before anything is written
    if not unchecked and not (out / "search.yaml").exists():
        refuse_broken_pairs([*split[0], *split[1]])
    out.mkdir(parents=True, exist_ok=True)
    objective = partial(
        run_trial,
        recipe=recipe,
        dimensions=dimensions,
        out=out,
        images=len(split[0]),
        train_it=partial(train_trial, data=data, machines=machines, curves_every_s=curves_every_s),
    )
    own = {d.key: d.own for d in dimensions if d.own is not None}
    with filelock.FileLock(out / ".lock"):  # of several processes one makes the database
        note_search(recipe, dimensions, out, data=describe_data(split, recipe, data))
        study = open_study(out, first=own)
    trained = 0
    while True:
        results = read_results(study)
        for result in results:
            for path in out.glob(f"{result.folder}/stage-*/*.ckpt"):  # which would fill disks
                path.unlink()
        if results:
            paths = write_summary(out, study, results=results, recipe=recipe, dimensions=dimensions)
            if len(results) >= trials:
                return SearchResult(dimensions, results, best_of(results), *paths, trained)
        if not others_do_the_rest(study, trials=trials):
            on_trial(next_trial(study, objective, seed=recipe.seed))
            trained += 1


def note_search(recipe: Recipe, dimensions: Sequence[Dimension], out: Path, *, data: Facts) -> None:
    """Write what is searched, or refuse a folder in which something else was."""
    path = out / "search.yaml"
    space = sorted(dimension.entry for dimension in dimensions)
    if path.exists():
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        counts = {key: found[key] for key in ("trained_on", "held_out")}  # all that older ones say
        how = name_difference(found.get("data", data | counts), data)
        differing = {
            "another recipe": parse_recipe(found["recipe"], source=str(path)) != recipe,
            "another space": found["space"] != space,
            f"other data ({how})": bool(how),
            "the journal of an older version": (out / "study.log").exists(),
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
        "trained_on": data["trained_on"],
        "held_out": data["held_out"],
        "data": data,
        "recipe": recipe.model_dump(mode="json"),
    }
    write_text(path, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))


def run_trial(
    trial: optuna.Trial,
    *,
    recipe: Recipe,
    dimensions: Sequence[Dimension],
    out: Path,
    images: int,
    train_it: Callable[..., str],
) -> float:
    """Train one trial to its end and return its PSNR in dB.

    What stops the search, as an interrupt, leaves the trial to the next call.

    Raises:
        TrialPruned: if it is pruned; the trial's attribute `reason` says why.
    """
    if "number" not in trial.user_attrs:
        earlier = trial.study.get_trials(deepcopy=False)[: trial.number]
        trial.set_user_attr("number", count_drawn(earlier))
    values = {dimension.key: dimension.suggest(trial) for dimension in dimensions}
    run = out / folder_of(trial.user_attrs["number"])
    log.info(
        "%s: %s", run.name, ", ".join(f"{d.label} {d.show(values[d.key])}" for d in dimensions)
    )
    score_db = math.nan
    try:
        candidate = recipe_with(recipe, dimensions, values)
    except RecipeError as error:
        reason = str(error)
    else:
        reporter = Reporter(trial, candidate, images=images)
        reason = train_it(candidate, reporter, run=run)
    if not reason:
        score_db = float(read_metadata(run / "model.safetensors")["held_out_psnr_db"])
        reason = "" if math.isfinite(score_db) else "its PSNR is not a number"
    trial.set_user_attr("reason", reason)
    if reason:
        log.info("%s is pruned: %s", run.name, reason)
        raise optuna.TrialPruned(reason)
    return score_db


def train_trial(
    recipe: Recipe,
    reporter: "Reporter",
    *,
    data: Path,
    run: Path,
    machines: Machines,
    curves_every_s: float | None,
) -> str:
    """Train a trial; return why it was pruned, empty if it was not."""
    try:
        train(
            recipe,
            data=data,
            run=run,
            machines=machines,
            unchecked=True,
            callbacks=(reporter,),
            curves_every_s=curves_every_s,
        )
    except (optuna.TrialPruned, FairweatherError, torch.OutOfMemoryError) as error:
        # Raised outside of the fit, or of a full disk: no fault of the values.
        if error is not reporter.fault or isinstance(error, CannotWriteError):
            raise
        return str(error)
    return ""


class Reporter(Callback):
    """Reports the held-out PSNR of every validation to a trial, and ends it if it is pruned."""

    def __init__(self, trial: optuna.Trial, recipe: Recipe, *, images: int):
        self.trial = trial
        self.lengths = [length_of(stage, images=images).steps for stage in recipe.stages]
        self.fault: BaseException | None = None
        # By a process that was stopped.
        self.reported = set(trial.study.trials[trial.number].intermediate_values)

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        assert isinstance(pl_module, RestorationModule)
        done, total = sum(self.lengths[: pl_module.index]) + trainer.global_step, sum(self.lengths)
        part = PARTS_OF_A_TRIAL * done // total
        if part not in self.reported:
            self.reported.add(part)
            self.trial.report(float(trainer.callback_metrics["val_psnr_db"]), part)
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
