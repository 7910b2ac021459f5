"""What a contestant is told to do, as plain data that goes to its process."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

Role = Literal["engine", "plain", "official", "step", "official step", "matrix", "copy"]
Allocator = Literal["fairweather", "shipped", "tuned"]

SHIPPED, TUNED = "official, as shipped", "official, tuned"  # what tables call them
OFFICIAL = {"shipped": SHIPPED, "tuned": TUNED}
ALLOCATORS: tuple[Allocator, ...] = ("shipped", "tuned")

# Of glibc, for the official code. Ours sets the like itself, as the `fairweather` command does.
ALLOCATOR_ENVIRONMENT = {
    "shipped": {},
    "tuned": {
        "MALLOC_MMAP_THRESHOLD_": "4294967296",
        "MALLOC_TRIM_THRESHOLD_": "8589934592",
    },
    "fairweather": {},
}


@dataclass(frozen=True)
class Job:
    """One contestant.

    Attributes:
        name: what tables call it.
        role: what it is; `step` is a training step, `matrix` and `copy` are the machine's ceilings.
        engine: of an `engine`, as `create_engine` takes it.
        allocator: `fairweather` keeps freed memory by itself, `shipped` is glibc as it comes,
            `tuned` keeps freed memory by environment variables.
        device: as torch names it.
        precision: `fp32`, `bf16` or `fp16`.
        threads: of each library that computes.
        weights: the weights file.
        checkout: of the official repository.
        image: a .npy file (B, H, W, 3) that a round works on.
        checks: .npy files to work on before the first round, and files for what comes out.
        checkpointing: whether a training step computes activations again instead of keeping them.
        races: False for one that ends after its check, as others are only compared with it.
    """

    name: str
    role: Role
    engine: str = ""
    allocator: Allocator = "fairweather"
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    weights: str = ""
    checkout: str = ""
    image: str = ""
    checks: tuple[tuple[str, str], ...] = ()
    checkpointing: bool = False
    races: bool = True

    def as_line(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))


def job_of(line: str) -> Job:
    """What `Job.as_line` wrote."""
    fields = json.loads(line)
    fields["checks"] = tuple((before, after) for before, after in fields["checks"])
    return Job(**fields)


@dataclass(frozen=True)
class Round:
    """What one round of one contestant cost.

    Attributes:
        wall_s: on the clock [s].
        processor_s: of all its threads together, in the program and in the kernel [s].
        peak_bytes: the most main memory its process has held so far.
        device_peak_bytes: the most that torch has held on a GPU so far; 0 without one.
    """

    wall_s: float
    processor_s: float
    peak_bytes: int
    device_peak_bytes: int
