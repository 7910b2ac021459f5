"""What runs in a contestant's process: an engine, the official code, a training step, a ceiling."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairweather.benchmark.clock import timed
from fairweather.benchmark.jobs import Job
from fairweather.benchmark.official import load_official
from fairweather.hardware import dtype_of, lowered
from fairweather.models import load_model, plain_kernels
from fairweather.restoration import create_engine, restore_square_padded

MATRIX_SIDE = {"cpu": 2048}
GPU_MATRIX_SIDE = 8192
MATRIX_REPEATS = 4
COPY_BYTES = 256 << 20
COPY_REPEATS = 8

Run = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Work:
    """What a process can be told to do.

    Attributes:
        round: what is timed.
        check: warms up, and writes what comes out for comparison.
        note: what a table should say.
    """

    round: Callable[[], object]
    check: Callable[[], object]
    note: str = ""


def build(job: Job) -> Work:
    """Makes a job ready to run; loads, converts and compiles.

    Raises:
        OptionError: if it cannot be done that way.
        MissingExtraError: if something is not installed.
    """
    makers = {
        "matrix": matrix_work,
        "copy": copy_work,
        "step": step_work,
        "official step": step_work,
    }
    return makers.get(job.role, restoring_work)(job)


def restoring_work(job: Job) -> Work:
    """Restores an image, from an array to an array."""
    make_run = {"engine": engine_run, "plain": plain_run, "official": official_run}[job.role]
    run = exact_run = make_run(job)
    image = np.load(job.image)
    if job.role == "plain" and job.precision != "fp32":  # all others are compared with it
        exact_run = make_run(dataclasses.replace(job, precision="fp32"))

    def check() -> None:
        for before, after in job.checks:
            np.save(after, exact_run(np.load(before)))
        if exact_run is not run:
            run(image)

    return Work(lambda: run(image), check)


def engine_run(job: Job) -> Run:
    """One of the engines that the package restores with."""
    model = load_model(job.weights)
    return create_engine(job.engine, model, device=job.device, precision=job.precision)


def plain_run(job: Job) -> Run:
    """Eager PyTorch, without strips and fused kernels."""
    network = module_run(load_model(job.weights), job=job)

    def run(image: np.ndarray) -> np.ndarray:
        with plain_kernels():
            return network(image)

    return run


def official_run(job: Job) -> Run:
    """The official code, behind its padding to a square."""
    model = load_model(job.weights)
    network = load_official(Path(job.checkout), model)
    padded = functools.partial(restore_square_padded, network, multiple=model.config.size_multiple)
    return module_run(network, job=job, forward=padded)


def module_run(
    network: nn.Module, *, job: Job, forward: Callable[[Tensor], Tensor] | None = None
) -> Run:
    """(B, H, W, 3) float32 → the same, through a module of (B, 3, H, W), as `TorchEngine` does."""
    network = network.eval().to(job.device)
    forward = forward or network

    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), lowered(job.device, job.precision):
            restored = forward(torch.from_numpy(image).to(job.device).permute(0, 3, 1, 2))
            return restored.permute(0, 2, 3, 1).float().cpu().numpy()

    return run


def step_work(job: Job) -> Work:
    """A training step: forward, backward and AdamW; the check gives the input's gradient."""
    network: Any = load_model(job.weights)
    if job.role == "official step":
        network = load_official(Path(job.checkout), network)
    else:
        network.activation_checkpointing = job.checkpointing
    network.train().to(job.device)
    clean = crops(Path(job.image), device=job.device)
    step = training_step(network, clean, precision=job.precision)

    def check() -> None:
        network.eval()  # leaves stochastic depth out, which is drawn
        for before, after in job.checks:
            np.save(after, input_gradient(network, crops(Path(before), device=job.device)))
        network.train()
        step()

    return Work(step, check)


def training_step(network: nn.Module, clean: Tensor, *, precision: str) -> Callable[[], float]:
    """Trains on one batch; gives the loss, which waits for the device."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)

    def step() -> float:
        with lowered(clean.device, precision):
            restored = network(clean)
        loss = F.l1_loss(restored.float(), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def crops(path: Path, *, device: str) -> Tensor:
    """(B, 3, H, W) from a .npy file of (B, H, W, 3)."""
    return torch.from_numpy(np.load(path)).permute(0, 3, 1, 2).contiguous().to(device)


def input_gradient(network: nn.Module, image: Tensor) -> np.ndarray:
    """The gradient of half the sum of squares of what the network adds, for each input value."""
    image = image.clone().requires_grad_()
    residual = network(image) - image.detach()
    residual.square().sum().mul(0.5).backward()
    assert image.grad is not None
    return image.grad.cpu().numpy()


def matrix_work(job: Job) -> Work:
    """Products of large square matrices, by whichever routine is faster here."""
    kind = torch.device(job.device).type
    dtype = dtype_of(job.precision) if kind != "cpu" else torch.float32
    side = matrix_side(job.device)
    left, right = (torch.randn(side, side, device=job.device, dtype=dtype) for _ in range(2))
    products: dict[str, Callable[[], Tensor]] = {"torch.mm": lambda: torch.mm(left, right)}
    onednn: Any = torch.ops.mkldnn
    if kind == "cpu" and hasattr(onednn, "_linear_pointwise"):
        products["oneDNN"] = lambda: onednn._linear_pointwise(left, right, None, "none", [], "none")
    seconds = {name: seconds_of(product, job=job) for name, product in products.items()}
    fastest = min(seconds, key=lambda name: seconds[name])
    return Work(lambda: repeated(products[fastest], MATRIX_REPEATS, job=job), lambda: None, fastest)


def matrix_side(device: str) -> int:
    """Rows and columns of the matrices."""
    return MATRIX_SIDE.get(torch.device(device).type, GPU_MATRIX_SIDE)


def copy_work(job: Job) -> Work:
    """Copies of a tensor that no cache holds."""
    source = torch.ones(COPY_BYTES // 4, device=job.device)
    target = torch.empty_like(source)

    def copy() -> Tensor:
        return target.copy_(source)

    return Work(lambda: repeated(copy, COPY_REPEATS, job=job), lambda: repeated(copy, 1, job=job))


def repeated(function: Callable[[], Tensor], times: int, *, job: Job) -> None:
    """Calls a function some times and waits for the device."""
    with torch.inference_mode():
        for _ in range(times):
            function()
    if torch.device(job.device).type == "cuda":
        torch.cuda.synchronize()


def seconds_of(function: Callable[[], Tensor], *, job: Job) -> float:
    """The best of three, after one more [s]."""
    repeated(function, 1, job=job)
    return min(timed(lambda: repeated(function, 1, job=job)).wall_s for _ in range(3))
