"""The network that all contestants run, the images, and how much work they are."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairweather.models import (
    PRESETS,
    ASTv2Config,
    Network,
    build_network,
    count_parameters,
    create_model,
    find_weights,
    load_model,
    save_model,
)
from laboratory.summary import Load


@dataclass(frozen=True)
class Subject:
    """A network with weights, on disk for every process to load.

    Attributes:
        model: the network.
        path: its weights file.
        facts: what a result says about it.
    """

    model: Network
    path: Path
    facts: dict[str, Any]


def take_subject(name: str, *, folder: Path) -> Subject:
    """Build a preset, or load weights, and write them into a folder.

    Args:
        name: a preset, whose weights are drawn with seed 0, the output layer's too; or weights.
        folder: where to.

    Raises:
        CheckpointError: if there are no such weights.
    """
    if name in PRESETS:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = create_model(name, init="official")
        origin = "drawn with seed 0"
    else:
        found = find_weights(name)
        model, origin = (
            load_model(found),
            f"sha256 {hashlib.sha256(found.read_bytes()).hexdigest()}",
        )
    path = folder / "weights.safetensors"
    save_model(model.eval(), path)
    facts = {
        "name": Path(name).name,
        "weights": origin,
        "parameters": count_parameters(model),
    }
    return Subject(model, path, facts)


def draw_image(path: Path, shape: tuple[int, int, int]) -> None:
    """Write images (B, H, W, 3) float32 in [0, 1] of soft shapes and noise; always the same."""
    batch, height, width = shape
    random = np.random.default_rng(0)
    rows = np.linspace(0, 6, height, dtype=np.float32)[:, None, None]
    columns = np.linspace(0, 9, width, dtype=np.float32)[None, :, None]
    phases = random.uniform(0, 6, (batch, 1, 1, 3)).astype(np.float32)
    soft = 0.5 + 0.3 * np.sin(rows + phases) * np.cos(columns)
    noise = random.normal(0, 0.08, (batch, height, width, 3)).astype(np.float32)
    np.save(path, np.clip(soft + noise, 0, 1, dtype=np.float32))


def load_of(model: Network, *, shape: tuple[int, int, int], trains: bool = False) -> Load:
    """Count what images (B, H, W) cost a network at least.

    Args:
        model: the network.
        shape: of the images.
        trains: whether gradients are computed too. The bytes are still those of a forward pass.
    """
    from torch.utils.flop_counter import FlopCounterMode  # it imports Triton where there is one

    batch, height, width = shape
    with torch.device("meta"):
        twin = build_network(model.config).eval()
        image = torch.zeros(batch, 3, height, width)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(image)
    passes = 3 if trains else 1  # a backward pass has two products for each of a forward pass
    return Load(
        gflop=passes * counter.get_total_flops() / 1e9,
        gbytes=least_bytes(model, shape=shape) / 1e9,
        megapixels=batch * height * width / 1e6,
    )


def least_bytes(model: Network, *, shape: tuple[int, int, int]) -> int:
    """Count parameters once, and every block's features (float32) once in and once out."""
    config, (batch, height, width) = model.config, shape
    multiple = config.size_multiple
    pixels = batch * (-(-height // multiple) * multiple) * (-(-width // multiple) * multiple)
    numbers = count_parameters(model)
    depths, levels = list(config.depths), range(config.levels)
    resolutions = [*levels, config.levels, *reversed(levels)]
    if isinstance(config, ASTv2Config):  # at the coarsest resolution the decoder has blocks too
        depths += depths[-2::-1]
        depths[config.levels] *= 2
        depths[-1] += config.refinement_blocks
    for level, depth, channels in zip(resolutions, depths, config.channels, strict=True):
        numbers += 2 * depth * channels * pixels // 4**level
    return 4 * numbers
