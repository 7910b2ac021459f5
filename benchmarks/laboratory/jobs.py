"""What a contestant is told to do, as plain data that goes to its process."""

import os
from dataclasses import dataclass
from typing import Literal

Role = Literal["engine", "plain", "official", "step", "official step", "matrix", "copy"]
Allocator = Literal["fairweather", "shipped", "tuned"]

MATRIX, COPY = "matrix product", "copy"
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
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


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
        checks: .npy files to work on before the first round; what comes out is compared.
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
    checks: tuple[str, ...] = ()
    checkpointing: bool = False
    races: bool = True

    def environment(self) -> dict[str, str]:
        """Return the variables of its process: its allocator, its threads, and none of glibc's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.threads))
        return kept | threads | ALLOCATOR_ENVIRONMENT[self.allocator]
