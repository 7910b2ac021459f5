"""Recipe → run folder, stoppable and resumable at any time, whatever framework trains it."""

import errno
import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fairweather.data import Pair, check_pairs
from fairweather.errors import CheckpointError, DataError, RecipeError, TrainingError
from fairweather.files import write_text
from fairweather.hardware import keep_freed_memory
from fairweather.imaging import Photo, as_bytes, write_side_by_side
from fairweather.models import (
    AST,
    Network,
    add_global_context,
    create_model,
    find_misfits,
    load_model,
    save_model,
)
from fairweather.training.batches import Split, split_pairs
from fairweather.training.curves import CurvePlotter
from fairweather.training.faults import cannot_write
from fairweather.training.losses import load_backbone
from fairweather.training.recipe import Recipe, Stage
from fairweather.training.run_folder import (
    Facts,
    describe_data,
    describe_weights,
    hold,
    is_finished,
    note_start,
    refuse_other_run,
    set_aside,
)
from fairweather.training.schedules import StageLength, length_of

log = logging.getLogger(__name__)

NAMED_FINDINGS = 8
SECONDS_BETWEEN_CURVES = 120.0
TRIPTYCHS = 3  # held-out images that every validation leaves a picture of


@dataclass(frozen=True)
class Machines:
    """Where a run is computed.

    Attributes:
        devices: GPUs of each machine; on a CPU, single-threaded processes.
        nodes: machines; above 1 it is started by torchrun on each of them.
        workers: loading processes for each device.
        cache: folder of decoded images; None keeps them in memory.
    """

    devices: int = 1
    nodes: int = 1
    workers: int = 0
    cache: Path | None = None

    @classmethod
    def of_torchrun(cls, *, workers: int = 0, cache: Path | None = None) -> "Machines | None":
        """Read torchrun's environment; None where the process was started without it."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return None
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
        return cls(devices=devices, nodes=nodes, workers=workers, cache=cache)


@dataclass(frozen=True)
class StageRun:
    """One stage of a run: what is trained, on what, and where its files lie.

    Attributes:
        run: the run folder.
        split: pairs to train on, and held-out ones.
    """

    recipe: Recipe
    index: int
    run: Path
    split: Split
    machines: Machines
    plotter: CurvePlotter

    @property
    def folder(self) -> Path:
        """Where the stage's checkpoints lie."""
        return self.run / f"stage-{self.index}"

    @property
    def done(self) -> Path:
        """The file that says that the stage is over, and its score."""
        return self.folder / "done.json"

    @property
    def stage(self) -> Stage:
        """The stage as the recipe has it."""
        return self.recipe.stages[self.index]

    @cached_property
    def length(self) -> StageLength:
        """The stage, counted in steps."""
        every = self.recipe.validate_every_steps
        return length_of(self.stage, images=len(self.split[0]), validate_every_steps=every)

    def new_log(self) -> Path:
        """Return the folder of this start's log: a logger would empty that of an earlier one."""
        attempt = len([*(self.run / "logs").glob(f"stage-{self.index}.*")])
        return self.run / "logs" / f"stage-{self.index}.{attempt}"

    def write_triptych(self, images: tuple[np.ndarray, ...], *, step: int, number: int) -> None:
        """Write degraded | restored | clean, (H, W, 3) in [0, 1], of a held-out image."""
        folder = self.run / "triptychs"
        folder.mkdir(exist_ok=True)
        name = f"stage-{self.index}-step-{step:07}-image-{number}.png"
        photos = (Photo(as_bytes(np.clip(image, 0, 1))) for image in images)
        write_side_by_side(folder / name, *photos)

    def tell_resumed(self, checkpoint: Path) -> None:
        """Log that a stopped stage goes on."""
        if is_first_process():
            log.info("stage %d goes on from %s", self.index, checkpoint)


FitStage = Callable[[StageRun, Network], float]
LoadBest = Callable[[StageRun, Network], None]


def run_recipe(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    fit_stage: FitStage,
    load_best: LoadBest,
    framework: str,
    versions: Mapping[str, str],
    machines: Machines,
    weights: str | Path | None,
    unchecked: bool,
    fresh: bool,
    curves_every_s: float | None,
) -> Path:
    """Train a recipe's stages, or go on where a killed run of the same folder stopped.

    `fit_stage` trains the network through a stage, from its last checkpoint if there is one, and
    returns the best PSNR of the held-out images in dB; `load_best` puts the weights of that step
    into the network. `framework` trains all stages of a folder; `versions` are of its packages, for
    the note of each start. The rest, what is returned and what is raised are as for `train`.
    """
    import lightning

    keep_freed_memory()
    lightning.seed_everything(recipe.seed, verbose=False)
    asked = {"framework": framework, "weights": weights, "unchecked": unchecked, "fresh": fresh}
    split, model, facts = prepare_run(recipe, data=data, run=run, **asked)
    path = run / "model.safetensors"
    first = is_first_process()
    try:
        if fresh and first and run.exists():
            with hold(run):
                set_aside(run)
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(run, error) from error
    with hold(run) if first else nullcontext():
        if first:
            note_start(
                recipe,
                run,
                facts=facts,
                machines=(machines.devices, machines.nodes),
                framework=framework,
                versions=versions,
            )
        if is_finished(run, recipe):
            if first:
                log.warning("%s: this run was finished before; nothing was trained", run)
            return path
        started = time.monotonic()
        plotter = CurvePlotter(run, every_s=curves_every_s)
        stages = [
            StageRun(recipe, index, run, split, machines, plotter)
            for index in range(len(recipe.stages))
        ]
        score_db = train_stages(stages, model, fit_stage=fit_stage, load_best=load_best)
        if first:
            save_trained(model, path, recipe=recipe, framework=framework, score_db=score_db)
            seconds = time.monotonic() - started
            log.info("%s: %.2f dB held out, %.0f s", recipe.name, score_db, seconds)
        return path


def train_stages(
    stages: Sequence[StageRun], model: Network, *, fit_stage: FitStage, load_best: LoadBest
) -> float:
    """Train the stages one after the other; return the best held-out PSNR of the last in dB."""
    score_db = float("nan")
    try:
        for stage in stages:
            score_db = train_stage(stage, model, fit_stage=fit_stage)
            load_best(stage, model)
    finally:  # also of a run that fails, where they show how
        if is_first_process():
            stages[0].plotter.draw()
    return score_db


def save_trained(
    model: Network, path: Path, *, recipe: Recipe, framework: str, score_db: float
) -> None:
    """Write the weights that a run was for, and what they came from.

    Raises:
        TrainingError: if the file cannot be written.
    """
    metadata = {
        "task": recipe.task,
        "recipe": recipe.model_dump_json(),
        "framework": framework,
        "training_data": json.dumps([*recipe.data.clean, *map(str, recipe.data.pairs)]),
        "held_out_psnr_db": f"{score_db:.3f}",
    }
    try:
        save_model(model.float(), path, metadata=metadata)
    except OSError as error:
        raise cannot_write(path, error) from error


def prepare_run(
    recipe: Recipe,
    *,
    data: Path,
    run: Path,
    framework: str,
    weights: str | Path | None = None,
    unchecked: bool = False,
    fresh: bool = False,
) -> tuple[Split, Network, Facts]:
    """Check all that a run needs, and write nothing; see `run_recipe` for what is asked and raised.

    Returns:
        The pairs, the network to start from, and what the run folder has to know of both.
    """
    split = split_pairs(recipe, data)
    model = start_model(recipe, weights)
    if recipe.perceptual_backbone is not None:
        load_backbone(recipe.perceptual_backbone)
    if not is_first_process():
        return split, model, {}
    facts = {"data": describe_data(split, recipe, data), "weights": describe_weights(weights)}
    if not fresh:
        refuse_other_run(run, recipe, facts, framework=framework)
    if not unchecked and (fresh or not (run / "stage-0").exists()):
        refuse_broken_pairs([*split[0], *split[1]])
    there = next(path for path in (run, *run.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise TrainingError(f"{there}: is no folder that can be written; choose another with -o")
    return split, model, facts


def train_stage(stage: StageRun, model: Network, *, fit_stage: FitStage) -> float:
    """Train one stage, unless it is done; return its best held-out PSNR in dB."""
    if stage.done.exists():
        return json.loads(stage.done.read_text())["held_out_psnr_db"]
    index, shape = stage.index, stage.stage
    if is_first_process():
        log.info(
            "stage %d (%d in all): %d steps, crops of %d px, batches of %d, rate %g to %g",
            *(index, len(stage.recipe.stages), stage.length.steps, shape.crop_px, shape.batch),
            *shape.rates,
        )
    try:
        score_db = fit_stage(stage, model)
    except (KeyboardInterrupt, SystemExit):  # the second is how Lightning ends after Ctrl-C
        if is_first_process():
            log.warning("stage %d was stopped; the same command goes on", index)
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise cannot_write(error.filename or stage.run, error) from error
    if is_first_process():
        log.info("stage %d: best %.2f dB on held-out images", index, score_db)
        write_text(stage.done, json.dumps({"held_out_psnr_db": score_db}))
    return score_db


def start_model(recipe: Recipe, weights: str | Path | None) -> Network:
    """Make an untrained network of the recipe, or one with weights of the same architecture.

    Raises:
        RecipeError: if a stage freezes parts that the network does not have, or all of it.
        CheckpointError: if `weights` cannot be loaded or are of another architecture.
    """
    model = create_model(recipe.config)
    for stage in recipe.stages:
        freeze(model, stage.frozen)  # each stage does; here so that what is wrong is said at once
    if weights is not None:
        loaded = load_model(weights)
        wants_context = model.config.global_context and not loaded.config.global_context
        if wants_context and isinstance(loaded, AST):
            loaded = add_global_context(loaded)
        misfits = find_misfits(loaded.state_dict(), model.state_dict()) or "; ".join(
            f"{name} is {getattr(loaded.config, name)} instead of {getattr(model.config, name)}"
            for name in ("branches", "bottleneck_shift", "heads", "window")  # that no shape tells
            if getattr(loaded.config, name, None) != getattr(model.config, name, None)
        )
        if misfits:
            raise CheckpointError(
                f"{weights}: is not of the recipe's architecture, {recipe.preset}"
                f" {recipe.architecture or ''} ({misfits}); choose a recipe of its own"
            )
        model.load_state_dict(loaded.state_dict())
    # Here too, so that a resumed run takes the weights of a finished stage without rounding.
    return model.double() if recipe.precision == "64-true" else model


def freeze(model: Network, parts: tuple[str, ...]) -> None:
    """Let all of a model be trained but some parts.

    Args:
        model: changed in place.
        parts: how the names of the frozen parameters begin.

    Raises:
        RecipeError: if a part is none of the model's, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for part in parts:
        if not any(name.startswith(part) for name in names):
            there = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
            raise RecipeError(f"frozen: no parameter begins with {part!r}; there are {there}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(parts))
    if parts and not any(one.requires_grad for one in model.parameters()):
        raise RecipeError(f"frozen: {', '.join(parts)} leave nothing to train")


def refuse_broken_pairs(pairs: list[Pair]) -> None:
    """Look quickly at the pairs, since a misaligned one costs more than the look.

    Raises:
        DataError: naming those that cannot be trained on.
    """
    real = [pair for pair in pairs if not pair.is_synthetic]
    errors = [f for f in check_pairs(real, quick=True) if f.severity == "error"]
    if errors:
        shown = "\n".join(f"  {finding.message}" for finding in errors[:NAMED_FINDINGS])
        more = len(errors) - NAMED_FINDINGS
        raise DataError(
            f"{len(errors)} of the pairs looked at cannot be trained on:\n{shown}\n"
            + (f"  and {more} more\n" if more > 0 else "")
            + "`fairweather data check` looks at all of them; mend or remove them, or train all the"
            " same with --unchecked (unchecked=True)"
        )


def is_first_process() -> bool:
    """Tell whether this is the only process, or the one of several that writes."""
    from lightning.pytorch.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0
