"""What there is to build and to load, with its size; listing it imports nothing heavy."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

from safetensors import safe_open

from fairweather.models.bundled import list_weights
from fairweather.models.config import ASTConfig, make_config
from fairweather.models.presets import PRESETS

# Parameters, and multiply-adds for 256 × 256 [10⁹]: a test counts them, which takes seconds.
COSTS = {
    "ast_f": (581_894, 0.873),
    "ast_n": (578_006, 3.235),
    "ast_s": (3_410_168, 4.839),
    "ast_t": (6_645_347, 13.443),
    "ast_b": (65_362_455, 109.831),
    "astv2_n": (296_611, 3.173),
    "astv2": (8_996_076, 98.240),
    "astv2_l": (13_249_976, 197.046),
    "haze": (3_542_521, 4.855),
    "moire": (611_415, 3.252),
    "rain": (578_006, 3.235),
    "raindrop": (578_006, 3.235),
    "shadow": (3_542_521, 4.855),
    "snow": (578_006, 3.235),
    "weather": (3_542_521, 4.855),
}


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
        ModelEntry(name, "preset", "untrained architecture", *COSTS[name]) for name in PRESETS
    ]
    weights = [
        ModelEntry(name, "weights", describe_weights(name), *COSTS[name]) for name in list_weights()
    ]
    return presets + weights


def describe_weights(name: str) -> str:
    """Say what bundled weights are, from what their file says."""
    with safe_open(list_weights()[name], framework="numpy") as file:
        metadata = file.metadata()
    config = make_config(json.loads(metadata["config"]))
    plain = dataclasses.replace(
        config, proxy_px=None, proxy_radius_px=None, proxy_least_change=None, symmetries="all"
    )
    if isinstance(plain, ASTConfig):
        plain = dataclasses.replace(plain, global_context=False)
    preset = next((preset for preset, known in PRESETS.items() if known == plain), "network")
    context = " with a global context," if config.global_context else ""
    proxy = f" on {config.proxy_px} px," if config.proxy_px else ""
    return f"{preset}{context}{proxy} trained for {metadata.get('task', '?')}"
