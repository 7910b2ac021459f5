"""Compare the GPU kernels with plain PyTorch on one GPU, and time both; see gpu.sh."""

import contextlib
import json
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor, nn

from fairweather.files import write_text
from fairweather.models import (
    AST,
    PRESETS,
    ASTConfig,
    gpu_kernels,
    list_kernel_checks,
    plain_kernels,
)
from laboratory.machine import installed_versions
from laboratory.pages import RESULTS

LIMIT_SECONDS = 280  # for all; what is not measured by then is left out
SECONDS_EACH = 1.5
TINY = ASTConfig(embed_dim=8, depths=(1, 1, 2), heads=(1, 1, 1), window=4, mlp_ratio=2)
PRECISIONS = ("fp32", "bf16")

Document = dict[str, Any]


class Work(NamedTuple):
    """One thing to time."""

    what: str  # restore, train
    who: str  # plain, kernels, official, compiled
    precision: str  # fp32, bf16


class OutOfTimeError(BaseException):
    """The time for all measurements is over; no `except Exception` on the way may swallow it."""


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    *,
    device: Annotated[str, typer.Option(help="cuda, or cpu: a tiny trial of the plain parts")] = (
        "cuda"
    ),
    official: Annotated[Path | None, typer.Option(help="Checkout of joshyZhou/AST.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the JSON file goes.")] = RESULTS / "speed",
) -> None:
    """Compare and time the GPU kernels; write docs/results/speed/gpu-NAME.json."""
    if device == "cuda" and not torch.cuda.is_available():
        typer.echo(f"no NVIDIA GPU here that PyTorch {torch.__version__} can use", err=True)
        raise typer.Exit(1)
    torch.manual_seed(0)
    config = PRESETS["ast_b"]
    assert isinstance(config, ASTConfig)
    model = AST(config if device == "cuda" else TINY).to(device)
    document = describe_machine(device)
    name = re.sub(r"[^a-z0-9]+", "-", document["gpu"].lower()).strip("-")
    path = folder / f"gpu-{name}.json"
    with contextlib.suppress(OutOfTimeError), time_limit(LIMIT_SECONDS):
        document["comparison"] = compare_kernels(model, device)
        faults = [row["fault"] for row in document["comparison"]]
        document["kernels_agree"] = bool(faults) and not any(faults)
        for work in list_works(document, official=official, device=device):
            document["times"].append(measure(work, model, official=official, device=device))
            write(document, path)
    write(document, path)
    typer.echo(f"written to {path}")
    raise typer.Exit(0 if document["kernels_agree"] or device == "cpu" else 1)


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise OutOfTimeError in the block after so many seconds, also while something compiles."""

    def stop(*_: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def describe_machine(device: str) -> Document:
    """Say what is measured, and on what."""
    on_gpu = device == "cuda"
    return {
        "gpu": torch.cuda.get_device_name() if on_gpu else "cpu trial",
        "capability": list(torch.cuda.get_device_capability()) if on_gpu else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": installed_versions().get("triton"),
        "fairweather": version("fairweather"),
        "model": "ast_b" if on_gpu else "tiny",
        "kernels_agree": False,
        "comparison": [],
        "times": [],
    }


def compare_kernels(model: AST, device: str) -> list[Document]:
    """Compare the kernels with their formulas, forward and backward, at every size of a model.

    Each size compares itself when it is first used, so running the network once is enough.
    """
    with gpu_kernels(), torch.no_grad():
        for precision in PRECISIONS:
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
                model(torch.rand(1, 3, 64, 64, device=device))
    rows = list_kernel_checks()
    for row in rows:
        typer.echo(f"{row['operation']} {row['dtype']} {row['sizes']}: {row['fault'] or 'agrees'}")
    return rows


def list_works(document: Document, *, official: Path | None, device: str) -> list[Work]:
    """List what to time, the slow compilers last."""
    who = ["plain"]
    if device == "cuda" and document["kernels_agree"]:
        who.append("kernels")
    if official is not None:
        who.append("official")
    works = [
        Work(what, one, precision)
        for what in ("restore", "train")
        for precision in PRECISIONS
        for one in who
    ]
    if device == "cuda":
        works += [Work("restore", "compiled", "bf16"), Work("train", "compiled", "bf16")]
    return works


def measure(work: Work, model: AST, *, official: Path | None, device: str) -> Document:
    """Time one thing, in milliseconds for each image, and its memory in MiB."""
    batch, side = (8 if work.what == "restore" else 2, 256) if device == "cuda" else (1, 32)
    network: nn.Module = model
    if work.who == "official":
        from laboratory.official import load_official

        assert official is not None
        network = load_official(official, model).to(device)
    row: Document = {**work._asdict(), "batch": batch, "side_px": side}
    switch = gpu_kernels if work.who == "kernels" else plain_kernels
    autocast = torch.autocast(device, torch.bfloat16, enabled=work.precision == "bf16")
    images = torch.rand(batch, 3, side, side, device=device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        with switch(), autocast:
            seconds = time_step(make_step(work, network, images), device=device)
        row["ms_per_image"] = 1000 * seconds / batch
    except torch.OutOfMemoryError:
        row["fault"] = "out of memory"
    if device == "cuda":
        row["peak_mib"] = torch.cuda.max_memory_allocated() // 2**20
    typer.echo(" ".join(map(str, row.values())))
    return row


def make_step(work: Work, network: nn.Module, images: Tensor) -> Callable[[], object]:
    """Return a function that restores the images once, or takes one training step with them."""
    network.train(work.what == "train")
    run: Any = torch.compile(network) if work.who == "compiled" else network
    if work.what == "restore":
        return torch.no_grad()(lambda: run(images))
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        (run(images) - images).abs().mean().backward()
        optimizer.step()

    return step


def time_step(step: Callable[[], object], *, device: str) -> float:
    """Return the median seconds of a step, after three that are not counted."""
    finish = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    times: list[float] = []
    for count in range(1000):
        start = time.perf_counter()
        step()
        finish()
        if count >= 3:
            times.append(time.perf_counter() - start)
        if len(times) >= 5 and sum(times) > (SECONDS_EACH if device == "cuda" else 0):
            break
    return statistics.median(times)


def write(document: Document, path: Path) -> None:
    """Write the document whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    app()
