"""Engines and the official code restore the same images with the same weights, in turns."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairweather.benchmark.jobs import ALLOCATORS, OFFICIAL, Allocator, Job, Role
from fairweather.benchmark.machine import describe_document
from fairweather.benchmark.official import REPOSITORY, check_checkout, padded_side
from fairweather.benchmark.speed import COPY, MATRIX, OnTurn, Tree, race, summary_of
from fairweather.benchmark.subject import Subject, draw_image, load_of, take_subject
from fairweather.errors import OptionError
from fairweather.restoration import check_precision, list_engines, pick_device

Size = tuple[int, int]

PLAIN, PLAIN_ENGINE = "torch, plain", "plain"
SLOW_TO_START = ("compiled",)  # measured when named


@dataclass(frozen=True)
class Setting:
    """What all contestants of a benchmark share.

    Attributes:
        device: as torch names it.
        precision: `fp32`, `bf16` or `fp16`.
        threads: of each library that computes.
        rounds: how often all take turns.
        official: a checkout of the official repository, if it takes part.
        allocators: with which of glibc's settings it does.
    """

    device: str
    precision: str
    threads: int
    rounds: int
    official: Path | None
    allocators: tuple[Allocator, ...]

    @property
    def computing(self) -> Tree:
        """What every job says."""
        return {"device": self.device, "precision": self.precision, "threads": self.threads}

    def shared(self, subject: Subject, image: Path) -> Tree:
        """What every job on an image says."""
        return self.computing | {"weights": str(subject.path), "image": str(image)}

    def facts(self) -> Tree:
        """What a result says about it."""
        official = REPOSITORY if self.official else None
        return self.computing | {"rounds": self.rounds, "official": official}

    def ceilings(self) -> list[Job]:
        """The machine's own speed, measured in the same rounds."""
        return [Job(MATRIX, "matrix", **self.computing), Job(COPY, "copy", **self.computing)]

    def official_jobs(self, role: Role, *, checked: Path, shared: Tree) -> list[Job]:
        """The official code, if it takes part, with each of glibc's settings."""
        return [
            Job(
                OFFICIAL[allocator],
                role,
                allocator=allocator,
                checkout=str(self.official),
                checks=checks_of(checked, OFFICIAL[allocator]),
                **shared,
            )
            for allocator in (self.allocators if self.official else ())
        ]


def benchmark_restore(
    model: str = "ast_t",
    *,
    engines: Sequence[str] = (),
    sizes: Sequence[Size] = ((256, 256),),
    batch: int = 1,
    threads: int = 1,
    rounds: int = 5,
    device: str = "auto",
    precision: str = "fp32",
    official: Path | None = None,
    allocators: Sequence[Allocator] = ALLOCATORS,
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
        threads: of each library that computes.
        rounds: how often they take turns.
        device: as torch names it, or `auto`.
        precision: `fp32`, `bf16` or `fp16`.
        official: a checkout of the official repository, to take part on the same weights, its
            images padded to a square as in its test scripts.
        allocators: `shipped`, `tuned`: with which settings of glibc it takes part.
        on_turn: is told whose turn it is, how many turns are done, of how many.

    Returns:
        A tree for JSON: machine, versions, command and figures.

    Raises:
        OptionError: if something cannot be measured that way.
        CheckpointError: if there are no such weights.
        MissingExtraError: if an engine or the official code needs what is not installed.
    """
    setting = make_setting(
        device=device,
        precision=precision,
        threads=threads,
        rounds=rounds,
        official=official,
        allocators=allocators,
    )
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


def make_setting(
    *,
    device: str,
    precision: str,
    threads: int,
    rounds: int,
    official: Path | None,
    allocators: Sequence[Allocator],
) -> Setting:
    """Checks what can be checked before anything is started.

    Raises:
        OptionError: if something cannot be measured that way.
    """
    check_precision(precision)
    picked = pick_device(device)
    if rounds < 1 or threads < 1:
        raise OptionError(f"rounds {rounds}, threads {threads}: must be at least 1")
    if official is not None:
        check_checkout(official)
    on_cpu = picked.type == "cpu"
    return Setting(
        str(picked),
        precision,
        threads,
        rounds,
        official,
        tuple(allocators) if on_cpu else ("shipped",),
    )


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
    side = padded_side(height, width, multiple=multiple)
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


def checks_of(image: Path, name: str) -> tuple[tuple[str, str], ...]:
    """That a contestant works on an image before the first round, and where the output goes."""
    return ((str(image), str(image.with_name(f"{name}.npy"))),)


def reference_path(image: Path) -> Path:
    """Where the plain path's output for an image lies."""
    return image.with_stem(f"{image.stem}-plain")


def largest_difference(path: Path, reference: Path) -> float | None:
    """Between two arrays on disk; None if what should have written one has failed."""
    if not (path.is_file() and reference.is_file()):
        return None
    return float(np.abs(np.load(path) - np.load(reference)).max())
