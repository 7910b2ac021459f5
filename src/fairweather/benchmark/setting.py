"""What all contestants of a benchmark share: the setting, and how outputs are compared."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairweather.benchmark.jobs import ALLOCATORS, OFFICIAL, Allocator, Job, Role
from fairweather.benchmark.official import REPOSITORY, check_checkout
from fairweather.benchmark.speed import COPY, MATRIX, Tree
from fairweather.benchmark.subject import Subject
from fairweather.errors import OptionError
from fairweather.hardware import check_precision, pick_device


@dataclass(frozen=True)
class Setting:
    """How a benchmark measures; what can be checked before anything starts is checked here.

    Attributes:
        device: as torch names it; `auto` becomes the one that is picked.
        precision: `fp32`, `bf16` or `fp16`; of training steps by autocast.
        threads: of each library that computes.
        rounds: how often all take turns.
        official: a checkout of the official repository, to take part on the same weights.
        allocators: with which of glibc's settings it does, `shipped`, `tuned`; on a GPU it is
            always as shipped.

    Raises:
        OptionError: if something cannot be measured that way.
    """

    device: str = "auto"
    precision: str = "fp32"
    threads: int = 1
    rounds: int = 5
    official: Path | None = None
    allocators: tuple[Allocator, ...] = ALLOCATORS

    def __post_init__(self) -> None:
        check_precision(self.precision)
        picked = pick_device(self.device)
        if self.rounds < 1 or self.threads < 1:
            raise OptionError(f"rounds {self.rounds}, threads {self.threads}: must be at least 1")
        if self.official is not None:
            check_checkout(self.official)
        object.__setattr__(self, "device", str(picked))
        if picked.type != "cpu":
            object.__setattr__(self, "allocators", ("shipped",))

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


def checks_of(image: Path, name: str) -> tuple[tuple[str, str], ...]:
    """That a contestant works on an image before the first round, and where the output goes."""
    return ((str(image), str(image.with_name(f"{name}.npy"))),)


def largest_difference(path: Path, reference: Path) -> float | None:
    """Between two arrays on disk; None if what should have written one has failed."""
    if not (path.is_file() and reference.is_file()):
        return None
    return float(np.abs(np.load(path) - np.load(reference)).max())
