"""Engines and the official code restore the same images with the same weights, in turns."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fairweather.benchmark.jobs import Job
from fairweather.benchmark.machine import describe_document
from fairweather.benchmark.setting import Setting, checks_of, largest_difference
from fairweather.benchmark.speed import OnTurn, Tree, race, summary_of
from fairweather.benchmark.subject import Subject, draw_image, load_of, take_subject
from fairweather.restoration import list_engines, square_side

Size = tuple[int, int]

PLAIN, PLAIN_ENGINE = "torch, plain", "plain"
SLOW_TO_START = ("compiled",)  # measured when named


def benchmark_restore(
    model: str = "ast_t",
    *,
    engines: Sequence[str] = (),
    sizes: Sequence[Size] = ((256, 256),),
    batch: int = 1,
    setting: Setting | None = None,
    on_turn: OnTurn = lambda name, done, total: None,
) -> Tree:
    """Measures how fast images are restored, and in how much memory.

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
    """Those that can be used here and do not take minutes to start."""
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
    """All rounds for images (B, H, W)."""
    multiple = subject.model.config.size_multiple
    batch, height, width = shape
    side = square_side(height, width, multiple=multiple)
    checked = side if height == width == side else 2 * multiple
    folder = Path(tempfile.mkdtemp(dir=subject.path.parent))
    image, square = folder / "image.npy", folder / "square.npy"
    draw_image(image, shape)
    draw_image(square, (batch, checked, checked))
    jobs = restoring_jobs(subject, engines=engines, setting=setting, image=image, square=square)
    raced, faults = race([*jobs, *setting.ceilings()], rounds=setting.rounds, on_turn=on_turn)
    differences = {
        job.name: largest_difference(Path(after), reference_path(Path(before)))
        for job in jobs
        if job.name in raced
        for before, after in job.checks[:1]
    }
    return {
        "shape": list(shape),
        "official_shape": [batch, side, side] if setting.official else None,
        "official_checked_at": [checked, checked] if setting.official else None,
        **summary_of(raced, load=load_of(subject.model, shape=shape), differences=differences),
        "largest_change": largest_difference(reference_path(image), image),
        "faults": faults,
    }


def restoring_jobs(
    subject: Subject, *, engines: Sequence[str], setting: Setting, image: Path, square: Path
) -> list[Job]:
    """The reference, the engines, and the official code."""
    shared = setting.shared(subject, image)
    checks = tuple((str(path), str(reference_path(path))) for path in (image, square))
    jobs = [Job(PLAIN, "plain", checks=checks, races=PLAIN_ENGINE in engines, **shared)]
    for name in dict.fromkeys(engines):
        if name != PLAIN_ENGINE:
            checks = checks_of(image, name)
            jobs.append(Job(name, "engine", engine=name, checks=checks, **shared))
    return jobs + setting.official_jobs("official", checked=square, shared=shared)


def reference_path(image: Path) -> Path:
    """Where the plain path's output for an image lies."""
    return image.with_stem(f"{image.stem}-plain")
