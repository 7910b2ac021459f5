"""The known weights, the numbers of the official code that they give, and drawn weights."""

import dataclasses
import functools
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fairweather.models import AST, PRESETS, ASTConfig, ASTv2, ASTv2Config, from_official

FIXTURES = Path(__file__).parent / "fixtures" / "parity"
SMALL = ASTConfig(
    embed_dim=8, depths=(1, 1, 2), heads=(1, 2, 4), window=4, mlp_ratio=1.5, bottleneck_shift=True
)

SMALL_V2 = ASTv2Config(
    embed_dim=8, depths=(1, 2, 1), heads=(1, 2, 4), refinement_blocks=1, mlp_ratio=1.5, groups=2
)


@functools.cache
def load(name: str) -> Mapping[str, np.ndarray]:
    """An archive of arrays."""
    with np.load(FIXTURES / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive.files}


@functools.cache
def official_state_dicts() -> dict[str, dict[str, Sequence[int]]]:
    """Official state dicts: variant → name → shape."""
    content = json.loads((FIXTURES / "official_state_dict.json").read_text())
    return {key: value for key, value in content.items() if not key.endswith("_params")}


def official_parameters(variant: str) -> int:
    """The official parameter count of a variant."""
    content = json.loads((FIXTURES / "official_state_dict.json").read_text())
    return content[f"{variant}_params"]


def known_weight(name: str, shape: Sequence[int]) -> Tensor:
    """The weight that the fixtures were computed with."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype("float32")
    if name.endswith(".w"):
        values = 0.5 * values
    elif "norm" in name and name.endswith("weight"):
        values = 1 + 0.1 * values
    elif name.endswith("temperature"):
        values = 1 + 0.3 * values
    elif name.endswith("bias"):
        values = 0.02 * values
    elif "relative_position_bias_table" in name:
        values = 0.5 * values
    else:
        values = values / np.sqrt(np.prod(shape[1:]) if len(shape) > 1 else shape[0])
    return torch.from_numpy(np.asarray(values, dtype="float32"))


def known_state(variant: str) -> dict[str, Tensor]:
    """A whole official state dict of known weights, without index buffers."""
    return {
        name: known_weight(name, shape)
        for name, shape in official_state_dicts()[variant].items()
        if not name.endswith("relative_position_index")
    }


@functools.cache
def known_ast_t(*, bottleneck_shift: bool = False) -> AST:
    """`ast_t` with the known weights, in evaluation mode; do not change it."""
    model = AST(dataclasses.replace(PRESETS["ast_t"], bottleneck_shift=bottleneck_shift))
    model.load_state_dict(from_official(known_state("ast_t_frfn")))
    return model.eval()


@functools.cache
def known_state_v2() -> dict[str, Tensor]:
    """The official state dict of known weights of the AST-v2 for SPAD."""
    content = json.loads((FIXTURES / "official_state_dict_v2.json").read_text())
    return {name: known_weight(name, shape) for name, shape in content["astv2_spad"].items()}


def random_v2(*, std: float = 0.2, **changes: Any) -> ASTv2:
    """A small AST-v2 of always the same drawn weights, in evaluation mode."""
    torch.manual_seed(0)
    model = ASTv2(dataclasses.replace(SMALL_V2, **changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def random_model(config: ASTConfig = SMALL, *, std: float = 0.1, **changes: Any) -> AST:
    """Of always the same drawn weights, in evaluation mode; its output is no copy of its input."""
    torch.manual_seed(0)
    model = AST(dataclasses.replace(config, **changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model.eval()


def relative_error(ours: Tensor | np.ndarray, theirs: Tensor | np.ndarray) -> float:
    """‖ours − theirs‖ / ‖theirs‖ in float64."""
    a, b = (torch.as_tensor(np.asarray(x), dtype=torch.float64) for x in (ours, theirs))
    assert a.shape == b.shape
    return float((a - b).norm() / b.norm())
