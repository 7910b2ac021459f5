"""Time engines, and the official code, while they restore the same images in turns."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from fairweather.benchmark import OnTurn
from fairweather.cli import counting, parse_size, run_command
from fairweather.restoration import list_engines, square_side
from laboratory import console
from laboratory.jobs import Job
from laboratory.machine import describe_document
from laboratory.setting import Setting, figures_of, largest_difference, run_jobs
from laboratory.subject import Subject, draw_image, load_of, take_subject
from laboratory.summary import Tree

Size = tuple[int, int]

PLAIN, PLAIN_ENGINE = "torch, plain", "plain"
SLOW_TO_START = ("compiled",)  # measured when named

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    *,
    model: console.Model = "ast_t",
    engine: Annotated[
        list[str] | None,
        typer.Option(help="Repeat for more, plain included; without it, all that start fast."),
    ] = None,
    size: Annotated[
        list[str] | None, typer.Option(metavar="HxW", help="Repeat for more; 256x256 without it.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Images in a call.", min=1)] = 1,
    threads: console.Threads = 1,
    rounds: console.Rounds = 5,
    device: console.Device = "auto",
    precision: console.Precision = "fp32",
    official: console.Official = None,
    official_allocator: console.Allocators = None,
    json_file: console.JsonFile = None,
) -> None:
    """Time engines, and the official code, in turns: seconds, memory, share of the ceiling."""
    sizes = [parse_size(one) for one in size or ["256x256"]]
    setting = Setting(
        device=device,
        precision=precision,
        threads=threads,
        rounds=rounds,
        official=official,
        allocators=tuple(one.value for one in official_allocator or console.GlibcSetting),
    )
    with counting() as show:
        measured = benchmark_restoring(
            model,
            engines=engine or (),
            sizes=sizes,
            batch=batch,
            setting=setting,
            on_turn=lambda name, done, total: show(done, total, name),
        )
    call = ["benchmarks/restoring.py", "--model", measured["model"]["name"]]
    call += [word for name in measured["engines"] for word in ("--engine", name)]
    call += [word for height, width in sizes for word in ("--size", f"{height}x{width}")]
    call += ["--batch", str(batch)]
    console.finish(measured, call=call, setting=setting, json_file=json_file)


def benchmark_restoring(
    model: str = "ast_t",
    *,
    engines: Sequence[str] = (),
    sizes: Sequence[Size] = ((256, 256),),
    batch: int = 1,
    setting: Setting | None = None,
    on_turn: OnTurn = lambda name, done, total: None,
) -> Tree:
    """Measure how fast images are restored, and in how much memory.

    Every contestant is a process of its own. In each round each of them restores the same images
    once, from an array to an array; a large matrix product and a large copy take part.

    Args:
        model: a preset, with weights drawn from a seed, or weights.
        engines: names that `create_engine` takes, and `plain` for eager PyTorch without strips and
            fused kernels, which all are compared with; empty for all that are installed and start
            fast.
        sizes: (height, width) of images; each size has rounds of its own.
        batch: images in a call.
        setting: device, threads and the like. The official code takes part with its images padded
            to a square, as in its test scripts.
        on_turn: is told whose turn it is, how many turns are done, of how many.

    Returns:
        A tree for JSON: machine, versions, command and figures.

    Raises:
        CheckpointError: if there are no such weights.
        MissingExtraError: if an engine or the official code needs what is not installed.
    """
    setting = setting or Setting()
    document = describe_document("restore", setting.facts(), device=setting.device)
    chosen = tuple(engines) or installed_engines()
    with tempfile.TemporaryDirectory() as temporary:
        subject = take_subject(model, folder=Path(temporary))
        document |= {"model": subject.facts, "engines": list(chosen), "runs": []}
        for number, size in enumerate(sizes):
            run = race_restoring(
                subject,
                (batch, *size),
                engines=chosen,
                setting=setting,
                on_turn=lambda name, done, total, number=number: on_turn(
                    name, number * total + done, len(sizes) * total
                ),
            )
            document["runs"].append(run)
    return document


def installed_engines() -> tuple[str, ...]:
    """List those that can be used here and do not take minutes to start."""
    return PLAIN_ENGINE, *(
        entry.name
        for entry in list_engines()
        if entry.installed and entry.name not in SLOW_TO_START
    )


def race_restoring(
    subject: Subject,
    shape: tuple[int, int, int],
    *,
    engines: Sequence[str],
    setting: Setting,
    on_turn: OnTurn,
) -> Tree:
    """Run all rounds for images (B, H, W)."""
    multiple = subject.model.config.size_multiple
    batch, height, width = shape
    side = square_side(height, width, multiple=multiple)
    checked = side if height == width == side else 2 * multiple
    folder = Path(tempfile.mkdtemp(dir=subject.path.parent))
    image, square = folder / "image.npy", folder / "square.npy"
    draw_image(image, shape)
    draw_image(square, (batch, checked, checked))
    jobs = restoring_jobs(subject, engines=engines, setting=setting, image=image, square=square)
    raced, faults = run_jobs([*jobs, *setting.ceilings()], rounds=setting.rounds, on_turn=on_turn)
    plain = raced.get(PLAIN)
    references = dict(zip(jobs[0].checks, plain.checked, strict=True)) if plain else {}
    load = load_of(subject.model, shape=shape)
    return {
        "shape": list(shape),
        "official_shape": [batch, side, side] if setting.official else None,
        "official_checked_at": [checked, checked] if setting.official else None,
        **figures_of(raced, load=load, references=references),
        "largest_change": largest_difference(np.load(image), references.get(str(image))),
        "faults": faults,
    }


def restoring_jobs(
    subject: Subject, *, engines: Sequence[str], setting: Setting, image: Path, square: Path
) -> list[Job]:
    """Return jobs for the reference, the engines, and the official code."""
    shared = setting.shared(subject, image)
    checks = (str(image), str(square))
    jobs = [Job(PLAIN, "plain", checks=checks, races=PLAIN_ENGINE in engines, **shared)]
    for name in dict.fromkeys(engines):
        if name != PLAIN_ENGINE:
            jobs.append(Job(name, "engine", engine=name, checks=(str(image),), **shared))
    return jobs + setting.official_jobs("official", checked=square, shared=shared)


if __name__ == "__main__":
    run_command(app)
