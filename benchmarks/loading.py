"""Compare how fast crops are loaded with how fast a training step uses them, in turns."""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader

from fairweather.cli import counting, run_command
from fairweather.data import DEGRADATIONS, ImageCache, Pair, RandomCrops, find_images
from fairweather.errors import OptionError
from fairweather.hardware import keep_freed_memory
from fairweather.models import create_model
from laboratory.works import training_step

PRECISIONS = ("fp32", "bf16")
ENDLESS = 1 << 40

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="Clean photographs.")],
    *,
    crop: Annotated[int, typer.Option(help="Side of a crop in pixels.", min=16)] = 128,
    batch: Annotated[int, typer.Option(help="Crops in a step.", min=1)] = 8,
    seconds: Annotated[
        float, typer.Option(help="How long each of the four is measured.", min=0)
    ] = 10.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead.")
    ] = False,
) -> None:
    """Compare the loading of crops with the training step of ast_n, on one thread each."""
    keep_freed_memory()  # as training does
    with counting("rounds", hidden=as_json) as show:
        measured = benchmark_loading(
            folder, crop_px=crop, batch=batch, seconds=seconds, on_round=show
        )
    if as_json:
        document = dataclasses.asdict(measured) | {"loading_to_step": measured.loading_to_step}
        sys.stdout.write(json.dumps(document) + "\n")
        return
    table = Table("", "crops/s")
    for name, speed in (
        ("loading, from the cache", measured.loading_crops_per_s),
        ("loading, decoded each time", measured.decoding_crops_per_s),
        ("degradation (rain)", measured.degradation_crops_per_s),
        (f"training step (ast_n, {measured.precision})", measured.step_crops_per_s),
    ):
        table.add_row(name, f"{speed:,.1f}")
    console = Console(soft_wrap=True)
    console.print(table)
    console.print(
        f"{measured.images} photographs, {measured.batch} crops of {measured.crop_px} px, one"
        f" thread: loading is {measured.loading_to_step:.1f} times as fast as the step"
    )


@dataclass(frozen=True)
class LoadingBenchmark:
    """Medians over rounds, with one thread on the CPU and no loading processes.

    Attributes:
        images: how many photographs were drawn from.
        crop_px: side of the crops.
        batch: crops in a batch.
        device: what degraded and trained.
        precision: `fp32` or `bf16`, of the step.
        loading_crops_per_s: reading, cropping, turning and batching of photographs that were
            decoded before and lie in a mapped cache.
        decoding_crops_per_s: the same without a cache, so that each crop decodes a photograph.
        degradation_crops_per_s: synthetic degradation, which is made where the network is trained.
        step_crops_per_s: forward, backward and AdamW.
    """

    images: int
    crop_px: int
    batch: int
    device: str
    precision: str
    loading_crops_per_s: float
    decoding_crops_per_s: float
    degradation_crops_per_s: float
    step_crops_per_s: float

    @property
    def loading_to_step(self) -> float:
        """Say how many times as fast as the step the loading is; under 1, the step waits for it."""
        return self.loading_crops_per_s / self.step_crops_per_s


def benchmark_loading(
    folder: Path,
    *,
    crop_px: int = 128,
    batch: int = 8,
    seconds: float = 10.0,
    rounds: int = 5,
    max_images: int = 300,
    preset: str = "ast_n",
    task: str = "rain",
    precision: str = "fp32",
    device: str = "cpu",
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> LoadingBenchmark:
    """Measure whether the loading of crops keeps up with a training step.

    Args:
        folder: clean photographs.
        crop_px: side of a crop.
        batch: crops in a step.
        seconds: how long each of the four is measured, over all rounds together.
        rounds: how often they take turns; the median of the rounds counts.
        max_images: photographs to draw from, spread over the folder. They are decoded into a
            temporary folder before anything is measured.
        preset: the network that is trained.
        task: whose degradation is made.
        precision: of the step, `fp32` or `bf16`.
        device: where degradation is made and the step runs, as torch names it.
        on_round: is told how many rounds are done, of how many.

    Raises:
        DataError: the folder holds no images.
        OptionError: there is no such precision or task.
    """
    for name, value, known in (("precision", precision, PRECISIONS), ("task", task, DEGRADATIONS)):
        if value not in known:
            raise OptionError(f"{name} {value!r}: is none of {', '.join(known)}")
    found = find_images(folder)
    pairs = [Pair(path, path) for path in found[:: -(-len(found) // max_images)]]
    with tempfile.TemporaryDirectory() as temporary, one_thread():
        mapped = ImageCache(Path(temporary) / "mapped")
        for pair in pairs:
            mapped.read(pair.clean)
        undecoded = ImageCache(Path(temporary) / "none", limit_bytes=0)
        crops = torch.randint(256, (batch, 3, crop_px, crop_px), dtype=torch.uint8)
        clean = crops.to(device).float() / 255
        works = [
            loading(pairs, images=mapped, crop_px=crop_px, batch=batch),
            loading(pairs, images=undecoded, crop_px=crop_px, batch=batch),
            degradation(clean, task=task),
            training_step(create_model(preset).to(device).train(), clean, precision=precision),
        ]
        for work in works:  # what is only done once is not measured
            work()
        speeds: list[list[float]] = [[] for _ in works]
        for done in range(rounds):
            for work, measured in zip(works, speeds, strict=True):
                measured.append(batch * batches_per_s(work, seconds=seconds / rounds))
            on_round(done + 1, rounds)
    medians = map(statistics.median, speeds)
    return LoadingBenchmark(len(pairs), crop_px, batch, str(clean.device), precision, *medians)


def loading(
    pairs: Sequence[Pair], *, images: ImageCache, crop_px: int, batch: int
) -> Callable[[], object]:
    """Load the next batch."""
    crops = RandomCrops(pairs, crop_px=crop_px, length=ENDLESS, seed=0, images=images)
    batches = iter(DataLoader(crops, batch_size=batch))
    return lambda: next(batches)


def degradation(clean: Tensor, *, task: str) -> Callable[[], object]:
    """Degrade a batch, differently each time."""
    generator = torch.Generator().manual_seed(0)
    return lambda: synchronized(DEGRADATIONS[task](clean, generator=generator))


def synchronized(result: Tensor) -> Tensor:
    """Wait for the device that computes a result."""
    if result.is_cuda:
        torch.cuda.synchronize(result.device)
    return result


def batches_per_s(work: Callable[[], object], *, seconds: float) -> float:
    """Return how often a second some work is done, at least once."""
    started = time.perf_counter()
    done = 0
    while (elapsed := time.perf_counter() - started) < seconds or not done:
        work()
        done += 1
    return done / elapsed


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread within."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    run_command(app)
