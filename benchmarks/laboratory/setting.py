"""What all contestants of a benchmark share, and how they are raced and compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairweather.benchmark import Entry, OnTurn, race
from fairweather.errors import OptionError
from fairweather.hardware import check_precision, pick_device
from laboratory.jobs import ALLOCATORS, COPY, MATRIX, OFFICIAL, Allocator, Job, Role
from laboratory.official import check_checkout, repository_of
from laboratory.subject import Subject
from laboratory.summary import Load, Tree, summary_of
from laboratory.works import build


@dataclass(frozen=True)
class Setting:
    """How a benchmark measures. What can be checked before anything starts is checked here.

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
        """Return what every job says."""
        return {"device": self.device, "precision": self.precision, "threads": self.threads}

    def shared(self, subject: Subject, image: Path) -> Tree:
        """Return what every job on an image says."""
        return self.computing | {"weights": str(subject.path), "image": str(image)}

    def facts(self) -> Tree:
        """Return what a result says about it."""
        official = repository_of(self.official) if self.official else None
        return self.computing | {"rounds": self.rounds, "official": official}

    def options(self) -> list[str]:
        """Return the options that repeat it, without paths of this machine."""
        named = {name: str(value) for name, value in self.facts().items() if value is not None}
        words = [word for name, value in named.items() for word in (f"--{name}", value)]
        if self.official and len(self.allocators) < len(ALLOCATORS):
            words += [word for one in self.allocators for word in ("--official-allocator", one)]
        return words

    def ceilings(self) -> list[Job]:
        """Return jobs for the machine's own speed, measured in the same rounds."""
        return [Job(MATRIX, "matrix", **self.computing), Job(COPY, "copy", **self.computing)]

    def official_jobs(self, role: Role, *, checked: Path, shared: Tree) -> list[Job]:
        """Return jobs for the official code, if it takes part, with each of glibc's settings."""
        return [
            Job(
                OFFICIAL[allocator],
                role,
                allocator=allocator,
                checkout=str(self.official),
                checks=(str(checked),),
                **shared,
            )
            for allocator in (self.allocators if self.official else ())
        ]


def run_jobs(jobs: Sequence[Job], *, rounds: int, on_turn: OnTurn) -> tuple[Tree, list[str]]:
    """Race the jobs; return what came through by name, and what became of the others."""
    entries = [Entry(job.name, build, job, job.environment(), job.races) for job in jobs]
    return race(entries, rounds=rounds, on_turn=on_turn)


def figures_of(raced: Tree, *, load: Load, references: dict[str, np.ndarray]) -> Tree:
    """Return the figures of a race.

    Args:
        raced: what came through by name.
        load: what a round computes.
        references: what should have come out, by what a contestant was checked with first.
    """
    racing = {name: one for name, one in raced.items() if one.rounds}
    differences = {
        name: largest_difference(one.checked[0], references.get(one.entry.job.checks[0]))
        for name, one in racing.items()
        if one.checked
    }
    return summary_of(racing, load=load, differences=differences)


def largest_difference(image: np.ndarray, reference: np.ndarray | None) -> float | None:
    """Compare two arrays; None if what should have made one has failed."""
    return None if reference is None else float(np.abs(image - reference).max())
