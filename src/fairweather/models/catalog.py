"""What there is to build and to load, with its size."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Literal

import torch

from fairweather.models.bundled import list_weights
from fairweather.models.checkpoint import read_config, read_metadata
from fairweather.models.config import ASTConfig, Config
from fairweather.models.creation import build_network, count_parameters
from fairweather.models.presets import PRESETS


@dataclass(frozen=True)
class ModelEntry:
    """A preset or a set of bundled weights."""

    name: str
    kind: Literal["preset", "weights"]
    description: str
    parameters: int
    gmacs: float


def list_models() -> list[ModelEntry]:
    """List what `create_model` builds and the bundled weights that `load_model` loads."""
    presets = [
        describe_config(name, config, kind="preset", description="untrained architecture")
        for name, config in PRESETS.items()
    ]
    return presets + [describe_weights(name) for name in list_weights()]


def describe_weights(name: str) -> ModelEntry:
    """Return the entry of bundled weights, from what their file says."""
    metadata = read_metadata(name)
    config = read_config(metadata, source=name)
    assert config is not None  # ours, and tests load them all
    plain = dataclasses.replace(config, proxy_px=None, symmetries="all")
    if isinstance(plain, ASTConfig):
        plain = dataclasses.replace(plain, global_context=False)
    preset = next((preset for preset, known in PRESETS.items() if known == plain), "network")
    context = " with a global context," if config.global_context else ""
    proxy = f" on {config.proxy_px} px," if config.proxy_px else ""
    return describe_config(
        name,
        config,
        kind="weights",
        description=f"{preset}{context}{proxy} trained for {metadata.get('task', '?')}",
    )


def describe_config(
    name: str, config: Config, *, kind: Literal["preset", "weights"], description: str
) -> ModelEntry:
    """Count parameters, and multiply-adds for 256 × 256 [10⁹], without allocating anything."""
    # Of what decides neither, so that weights of one architecture are counted once.
    same = dataclasses.replace(config, proxy_px=None, symmetries="all")
    if isinstance(same, ASTConfig):
        same = dataclasses.replace(same, stochastic_depth=0.0)
    return ModelEntry(name, kind, description, *count_costs(same))


@functools.cache
def count_costs(config: Config) -> tuple[int, float]:
    """Return parameters and multiply-adds; see `describe_config`."""
    from torch.utils.flop_counter import FlopCounterMode  # it imports Triton where there is one

    with torch.device("meta"):
        model = build_network(config).eval()
        image = torch.zeros(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return count_parameters(model), counter.get_total_flops() / 2e9
