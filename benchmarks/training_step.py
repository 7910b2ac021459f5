"""Time a training step, and the official code's, in turns."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from fairweather.benchmark import OnTurn
from fairweather.cli import counting, run_command
from fairweather.errors import OptionError
from laboratory import console
from laboratory.jobs import Job
from laboratory.machine import describe_document
from laboratory.setting import Setting, figures_of, run_jobs
from laboratory.subject import Subject, draw_image, load_of, take_subject
from laboratory.summary import Tree

STEP, CHECKPOINTING = "torch", "torch, checkpointing"

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    *,
    model: console.Model = "ast_t",
    batch: Annotated[int, typer.Option(help="Crops in a step.", min=1)] = 8,
    crop: Annotated[int, typer.Option(help="Side of a crop in pixels.", min=16)] = 128,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="A step that keeps fewer activations, too.")
    ] = False,
    threads: console.Threads = 1,
    rounds: console.Rounds = 5,
    device: console.Device = "auto",
    precision: console.Precision = "fp32",
    official: console.Official = None,
    official_allocator: console.Allocators = None,
    json_file: console.JsonFile = None,
) -> None:
    """Time a training step, and the official code's, in turns: seconds, memory, throughput."""
    setting = Setting(
        device=device,
        precision=precision,
        threads=threads,
        rounds=rounds,
        official=official,
        allocators=tuple(one.value for one in official_allocator or console.GlibcSetting),
    )
    with counting() as show:
        measured = benchmark_training(
            model,
            batch=batch,
            crop_px=crop,
            checkpointing=checkpointing,
            setting=setting,
            on_turn=lambda name, done, total: show(done, total, name),
        )
    call = ["benchmarks/training_step.py", "--model", measured["model"]["name"]]
    call += ["--batch", str(batch), "--crop", str(crop)]
    call += ["--checkpointing"] if checkpointing else []
    console.finish(measured, call=call, setting=setting, json_file=json_file)


def benchmark_training(
    model: str = "ast_t",
    *,
    batch: int = 8,
    crop_px: int = 128,
    checkpointing: bool = False,
    setting: Setting | None = None,
    on_turn: OnTurn = lambda name, done, total: None,
) -> Tree:
    """Measure a training step: forward, backward and AdamW, and its memory.

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
    """Run all rounds for crops (B, H, W)."""
    image = subject.path.with_name("image.npy")
    draw_image(image, shape)
    jobs = training_jobs(subject, setting=setting, image=image, checkpointing=checkpointing)
    raced, faults = run_jobs([*jobs, *setting.ceilings()], rounds=setting.rounds, on_turn=on_turn)
    references = {str(image): raced[STEP].checked[0]} if STEP in raced else {}
    load = load_of(subject.model, shape=shape, trains=True)
    return {
        "shape": list(shape),
        **figures_of(raced, load=load, references=references),
        "largest_change": None,
        "faults": faults,
    }


def training_jobs(
    subject: Subject, *, setting: Setting, image: Path, checkpointing: bool
) -> list[Job]:
    """Return jobs for our step, the same with less memory, and the official one."""
    shared = setting.shared(subject, image)
    jobs = [Job(STEP, "step", checks=(str(image),), **shared)]
    if checkpointing:
        job = Job(CHECKPOINTING, "step", checks=(str(image),), checkpointing=True, **shared)
        jobs.append(job)
    return jobs + setting.official_jobs("official step", checked=image, shared=shared)


if __name__ == "__main__":
    run_command(app)
