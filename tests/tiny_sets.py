"""What the tests of the evaluation share: small test sets on disk, and tiny weights."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fairweather.models import AST, ASTConfig, save_model

NETWORK = ASTConfig(embed_dim=4, depths=(1, 1, 1), heads=(1, 1, 1), window=4)
# For exports, which take as long as there are operations to trace.
FEWEST_OPERATIONS = dataclasses.replace(NETWORK, feed_forward="mlp", branches="dense")
HEIGHT, WIDTH = 24, 32


def scene(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth image, (height, width, 3) uint8 from 40 to 200."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(40, 201, (4, 5, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))


def degrade(pixels: np.ndarray, *, seed: int = 0, amplitude: int = 30) -> np.ndarray:
    """The same with noise."""
    noise = np.random.default_rng(seed).integers(-amplitude, amplitude + 1, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def write_set(root: Path, *, count: int = 3, sides: tuple[str, str] = ("input", "target")) -> Path:
    """Pairs 1.png, 2.png …, each with more noise than the one before."""
    for number in range(1, count + 1):
        clean = scene(number)
        save(root / sides[1] / f"{number}.png", clean)
        degraded = degrade(clean, seed=number, amplitude=10 * number)
        save(root / sides[0] / f"{number}.png", degraded)
    return root


def tiny_model(*, strength: float = 0.0, seed: int = 0, config: ASTConfig = NETWORK) -> AST:
    """Gives back its input, changed a little with a strength."""
    torch.manual_seed(seed)
    model = AST(config).eval()
    with torch.no_grad():
        for parameter in model.output_conv.parameters():
            parameter *= strength
    return model


def write_weights(
    path: Path,
    *,
    strength: float = 0.0,
    seed: int = 0,
    task: str = "rain",
    config: ASTConfig = NETWORK,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"task": task, "training_data": "noise"}
    save_model(tiny_model(strength=strength, seed=seed, config=config), path, metadata=metadata)
    return path
