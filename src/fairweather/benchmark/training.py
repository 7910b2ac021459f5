"""A training step of ours and of the official code, in turns."""

import tempfile
from pathlib import Path

from fairweather.benchmark.jobs import Job
from fairweather.benchmark.machine import describe_document
from fairweather.benchmark.setting import Setting, checks_of, largest_difference
from fairweather.benchmark.speed import OnTurn, Tree, race, summary_of
from fairweather.benchmark.subject import Subject, draw_image, load_of, take_subject
from fairweather.errors import OptionError

STEP, CHECKPOINTING = "torch", "torch, checkpointing"


def benchmark_training(
    model: str = "ast_t",
    *,
    batch: int = 8,
    crop_px: int = 128,
    checkpointing: bool = False,
    setting: Setting | None = None,
    on_turn: OnTurn = lambda name, done, total: None,
) -> Tree:
    """Measures a training step: forward, backward and AdamW, and its memory.

    Args:
        model: a preset, with weights drawn from a seed, or weights.
        batch: crops in a step.
        crop_px: side of a crop.
        checkpointing: whether a step that keeps no activations inside of blocks takes part too.
        setting: device, threads and the like.
        on_turn: is told whose turn it is, how many turns are done, of how many.

    Returns:
        A tree for JSON: machine, versions, command and figures.

    Raises:
        OptionError: if the official code cannot take such crops.
        CheckpointError: if there are no such weights.
        MissingExtraError: if the official code needs what is not installed.
    """
    setting = setting or Setting()
    document = describe_document("training", setting.facts(), device=setting.device)
    with tempfile.TemporaryDirectory() as temporary:
        subject = take_subject(model, folder=Path(temporary))
        multiple = subject.model.config.size_multiple
        if setting.official is not None and crop_px % multiple:
            raise OptionError(
                f"crop {crop_px}: the official code trains on multiples of {multiple} only"
            )
        run = race_training(
            subject,
            (batch, crop_px, crop_px),
            setting=setting,
            checkpointing=checkpointing,
            on_turn=on_turn,
        )
    return document | {"model": subject.facts, "runs": [run]}


def race_training(
    subject: Subject,
    shape: tuple[int, int, int],
    *,
    setting: Setting,
    checkpointing: bool,
    on_turn: OnTurn,
) -> Tree:
    """All rounds for crops (B, H, W)."""
    image = subject.path.with_name("image.npy")
    draw_image(image, shape)
    jobs = training_jobs(subject, setting=setting, image=image, checkpointing=checkpointing)
    raced, faults = race([*jobs, *setting.ceilings()], rounds=setting.rounds, on_turn=on_turn)
    reference = Path(jobs[0].checks[0][1])
    differences = {
        job.name: largest_difference(Path(job.checks[0][1]), reference)
        for job in jobs
        if job.name in raced
    }
    load = load_of(subject.model, shape=shape, trains=True)
    return {
        "shape": list(shape),
        **summary_of(raced, load=load, differences=differences),
        "largest_change": None,
        "faults": faults,
    }


def training_jobs(
    subject: Subject, *, setting: Setting, image: Path, checkpointing: bool
) -> list[Job]:
    """Our step, the same with less memory, and the official one."""
    shared = setting.shared(subject, image)
    jobs = [Job(STEP, "step", checks=checks_of(image, STEP), **shared)]
    if checkpointing:
        checks = checks_of(image, CHECKPOINTING)
        jobs.append(Job(CHECKPOINTING, "step", checks=checks, checkpointing=True, **shared))
    return jobs + setting.official_jobs("official step", checked=image, shared=shared)
