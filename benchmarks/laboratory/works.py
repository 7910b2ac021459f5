"""What runs in a contestant's process: an engine, the official code, a training step, a ceiling."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairweather.benchmark import Work, timed
from fairweather.hardware import dtype_of, keep_freed_memory, lowered
from fairweather.models import ASTv2, load_model, pad_to_multiple, plain_kernels
from fairweather.restoration import create_engine, restore_square_padded
from laboratory.jobs import Job
from laboratory.official import load_official

MATRIX_SIDE = {"cpu": 2048}
GPU_MATRIX_SIDE = 8192
MATRIX_REPEATS = 4
COPY_BYTES = 256 << 20
COPY_REPEATS = 8
OOM_SCORE = Path("/proc/self/oom_score_adj")

Run = Callable[[np.ndarray], np.ndarray]


def build(job: Job) -> Work:
    """Make a job ready to run; load, convert and compile.

    Raises:
        OptionError: if it cannot be done that way.
        MissingExtraError: if something is not installed.
    """
    go_first_when_memory_ends()
    if job.allocator == "fairweather":
        keep_freed_memory()
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    makers = {
        "matrix": matrix_work,
        "copy": copy_work,
        "step": step_work,
        "official step": step_work,
    }
    return makers.get(job.role, restoring_work)(job)


def go_first_when_memory_ends() -> None:
    """Let Linux end this process rather than another one; what it does can be done again."""
    with contextlib.suppress(OSError):
        OOM_SCORE.write_text("1000", encoding="ascii")


def restoring_work(job: Job) -> Work:
    """Restore an image, from an array to an array."""
    make_run = {"engine": engine_run, "plain": plain_run, "official": official_run}[job.role]
    run = exact_run = make_run(job)
    image = np.load(job.image)
    if job.role == "plain" and job.precision != "fp32":  # all others are compared with it
        exact_run = make_run(dataclasses.replace(job, precision="fp32"))

    def check() -> list[np.ndarray]:
        restored = [exact_run(np.load(path)) for path in job.checks]
        if exact_run is not run:
            run(image)
        return restored

    return Work(lambda: run(image), check)


def engine_run(job: Job) -> Run:
    """Return one of the engines that the package restores with."""
    model = load_model(job.weights)
    return create_engine(job.engine, model, device=job.device, precision=job.precision)


def plain_run(job: Job) -> Run:
    """Return eager PyTorch, without strips and fused kernels."""
    network = module_run(load_model(job.weights), job=job)

    def run(image: np.ndarray) -> np.ndarray:
        with plain_kernels():
            return network(image)

    return run


def official_run(job: Job) -> Run:
    """Return the official code behind its padding: to a square, or by reflection for AST-v2."""
    model = load_model(job.weights)
    network, multiple = load_official(Path(job.checkout), model), model.config.size_multiple

    def reflected(image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        return network(pad_to_multiple(image, multiple))[..., :height, :width]

    squared = functools.partial(restore_square_padded, network, multiple=multiple)
    forward = reflected if isinstance(model, ASTv2) else squared
    return module_run(network, job=job, forward=forward)


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
    """Take training steps: forward, backward and AdamW; the check returns the input's gradient."""
    network: Any = load_model(job.weights)
    if job.role == "official step":
        network = load_official(Path(job.checkout), network)
    else:
        network.activation_checkpointing = job.checkpointing
    network.train().to(job.device)
    clean = crops(Path(job.image), device=job.device)
    step = training_step(network, clean, precision=job.precision)

    def check() -> list[np.ndarray]:
        network.eval()  # leaves stochastic depth out, which is drawn
        images = [crops(Path(path), device=job.device) for path in job.checks]
        gradients = [input_gradient(network, image) for image in images]
        network.train()
        step()
        return gradients

    return Work(step, check)


def training_step(network: nn.Module, clean: Tensor, *, precision: str) -> Callable[[], float]:
    """Return a step on one batch, which returns the loss and so waits for the device."""
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
    """Read (B, 3, H, W) from a .npy file of (B, H, W, 3)."""
    return torch.from_numpy(np.load(path)).permute(0, 3, 1, 2).contiguous().to(device)


def input_gradient(network: nn.Module, image: Tensor) -> np.ndarray:
    """Return the input's gradient of half the sum of squares of what the network adds."""
    image = image.clone().requires_grad_()
    residual = network(image) - image.detach()
    residual.square().sum().mul(0.5).backward()
    assert image.grad is not None
    return image.grad.cpu().numpy()


def matrix_work(job: Job) -> Work:
    """Multiply large square matrices, by whichever routine is faster here."""
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
    """Return the rows and columns of the matrices."""
    return MATRIX_SIDE.get(torch.device(device).type, GPU_MATRIX_SIDE)


def copy_work(job: Job) -> Work:
    """Copy a tensor that no cache holds."""
    source = torch.ones(COPY_BYTES // 4, device=job.device)
    target = torch.empty_like(source)

    def copy() -> Tensor:
        return target.copy_(source)

    return Work(lambda: repeated(copy, COPY_REPEATS, job=job), lambda: repeated(copy, 1, job=job))


def repeated(function: Callable[[], Tensor], times: int, *, job: Job) -> None:
    """Call a function some times and wait for the device."""
    with torch.inference_mode():
        for _ in range(times):
            function()
    if torch.device(job.device).type == "cuda":
        torch.cuda.synchronize()


def seconds_of(function: Callable[[], Tensor], *, job: Job) -> float:
    """Return the best of three, after one more [s]."""
    repeated(function, 1, job=job)
    return min(timed(lambda: repeated(function, 1, job=job)).wall_s for _ in range(3))
