"""Compare the GPU kernels with plain PyTorch on one GPU, and time both; see gpu.sh."""

import contextlib
import json
import re
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from torch import Tensor, nn

from fairweather.files import replacing
from fairweather.models import AST, ASTConfig, create_model, gpu_kernels, plain_kernels
from fairweather.models.ast import (
    FeatureRefinement,
    WindowAttention,
    gated_depthwise,
    window_attention,
)
from fairweather.models.fast import cuda
from fairweather.models.fast.self_check import relative_errors

LIMIT_SECONDS = 280  # for all; what is not measured by then is left out
SECONDS_EACH = 1.5
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "speed"
TINY = ASTConfig(embed_dim=8, depths=(1, 1, 2), heads=(1, 1, 1), window=4, mlp_ratio=2)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Document = dict[str, Any]


class Work(NamedTuple):
    """One thing to time."""

    what: str  # restore, train
    who: str  # plain, kernels, official, compiled
    precision: str  # a name of DTYPES


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
    folder: Annotated[Path, typer.Option(help="Where the JSON file goes.")] = RESULTS,
) -> None:
    """Compare and time the GPU kernels; write docs/results/speed/gpu-NAME.json."""
    if device == "cuda" and not torch.cuda.is_available():
        typer.echo(f"no NVIDIA GPU here that PyTorch {torch.__version__} can use", err=True)
        raise typer.Exit(1)
    torch.manual_seed(0)
    model = create_model("ast_b" if device == "cuda" else TINY, init="official").to(device)
    document = describe_machine(device)
    name = re.sub(r"[^a-z0-9]+", "-", document["gpu"].lower()).strip("-")
    path = folder / f"gpu-{name}.json"
    with contextlib.suppress(OutOfTimeError), time_limit(LIMIT_SECONDS):
        document["comparison"] = compare_kernels(model, device)
        document["kernels_agree"] = all(row["agrees"] for row in document["comparison"])
        for work in list_works(document, official=official, device=device):
            document["times"].append(measure(work, model, official=official, device=device))
            write(document, path)
    write(document, path)
    typer.echo(f"written to {path}")
    raise typer.Exit(0 if document["kernels_agree"] else 1)


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
    try:
        triton = version("triton")
    except PackageNotFoundError:
        triton = None
    return {
        "gpu": torch.cuda.get_device_name() if on_gpu else "cpu trial",
        "capability": list(torch.cuda.get_device_capability()) if on_gpu else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton,
        "fairweather": version("fairweather"),
        "model": "ast_b" if on_gpu else "tiny",
        "kernels_agree": False,
        "comparison": [],
        "times": [],
    }


def compare_kernels(model: AST, device: str) -> list[Document]:
    """Compare the kernels with their formulas, forward and backward, at every size of a model."""
    rows: list[Document] = []
    for precision, dtype in DTYPES.items():
        seen = set()
        for layer in model.modules():
            call = call_of(layer, dtype=dtype, device=device)
            if call is None:
                continue
            operation, args, options = call
            kernel = cuda.KERNELS[operation.name]
            sizes = kernel.sizes(*args, **options)
            if sizes is None or sizes in seen:
                continue
            seen.add(sizes)
            row = {"operation": operation.name, "precision": precision, "sizes": sizes}
            rows.append(row | compare(operation, kernel, args, options, device=device))
            typer.echo(" ".join(map(str, rows[-1].values())))
    return rows


def call_of(
    layer: nn.Module, *, dtype: torch.dtype, device: str
) -> tuple[Any, tuple[Any, ...], dict[str, Any]] | None:
    """Return the operation that a layer calls, with arguments of a dtype; None if it has none."""
    if isinstance(layer, WindowAttention):
        one = WindowAttention(
            layer.output.in_features,
            layer.heads,
            window=layer.window,
            shifts=layer.shift > 0,
            branches=layer.branches,
        ).to(device, dtype)
        x = torch.zeros(1, one.window, one.window, one.output.in_features, device=device)
        options = {name: getattr(one, name) for name in ("heads", "window", "shift", "branches")}
        parts = one.qkv, one.position_bias(), one.dense_share(), one.masks()
        return window_attention, (x.to(dtype), *parts), options
    if isinstance(layer, FeatureRefinement):
        channels, hidden = layer.expand.in_features, layer.depthwise.in_channels
        one = FeatureRefinement(channels, hidden).to(device, dtype)
        x = torch.zeros(1, 1, 1, channels, device=device, dtype=dtype)
        return gated_depthwise, (x, one.expand, one.depthwise), {}
    return None


def compare(operation: Any, kernel: Any, args: Any, options: Any, *, device: str) -> Document:
    """Compare one kernel with its formula; the formula with itself on a CPU."""
    run = kernel.run if device == "cuda" else operation.formula
    try:
        sample = kernel.sample(*args, **options)
        errors = relative_errors(run, operation.formula, sample, like=args, options=options)
    except Exception as error:  # Triton raises nearly anything on what it cannot compile
        return {"agrees": False, "fault": f"{type(error).__name__}: {error}"}
    return {
        "agrees": all(ours <= allowed for ours, _, allowed in errors),
        "kernel_errors": [ours for ours, _, _ in errors],
        "plain_errors": [plain for _, plain, _ in errors],
    }


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
        for precision in DTYPES
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
    with replacing(path) as file:
        file.write((json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    app()
