"""The official implementations from checkouts, on our weights and used the official way.

Their repositories are joshyZhou/AST and joshyZhou/ASTv2. The first needs three small functions of a
second vision library; where that is not installed, stand-ins take their place. The second needs
einops.
"""

import ast
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from torch import nn

from fairweather.errors import MissingExtraError, OptionError
from fairweather.models import (
    AST,
    ASTv2,
    Network,
    StochasticDepth,
    official_state,
)

REPOSITORY = "joshyZhou/AST"
NETWORK_FILES = ("model.py", "basicsr/models/archs/ASTv2_arch.py")
LEVELS = 4


def to_2tuple(value: int) -> tuple[int, int]:
    """Return a number twice."""
    return value, value


STAND_INS = {
    "DropPath": StochasticDepth,
    "to_2tuple": to_2tuple,
    "trunc_normal_": nn.init.trunc_normal_,
}


def check_checkout(checkout: Path) -> Path:
    """Find the file of the network in a checkout.

    Raises:
        OptionError: if there is none.
    """
    for name in NETWORK_FILES:
        if (checkout / name).is_file():
            return checkout / name
    raise OptionError(
        f"{checkout}: holds no {' or '.join(NETWORK_FILES)}; give a checkout of"
        f" https://github.com/{REPOSITORY}, or of {REPOSITORY}v2 for an AST-v2"
    )


def repository_of(checkout: Path) -> str:
    """Return the name of the repository that a checkout is of."""
    is_second = check_checkout(checkout).name != NETWORK_FILES[0]
    return f"{REPOSITORY}v2" if is_second else REPOSITORY


def load_official(checkout: Path, model: Network) -> nn.Module:
    """Build the official network with the weights of ours.

    Args:
        checkout: of the official repository. The file of its network is run.
        model: ours, of an architecture that the official code has.

    Raises:
        OptionError: if the checkout holds no such network, or the architecture is only ours.
        MissingExtraError: if a library that it imports is not installed.
    """
    path = check_checkout(checkout)
    network = build_astv2(path, model) if isinstance(model, ASTv2) else build_ast(path, model)
    try:
        network.load_state_dict(official_state(model))
    except RuntimeError as error:
        raise OptionError(f"{path}: its network does not take these weights: {error}") from error
    return network


def build_astv2(path: Path, model: ASTv2) -> nn.Module:
    """Build the official AST-v2."""
    config, module = model.config, import_file(path)
    if not hasattr(module, "ASTv2"):
        raise OptionError(f"{path}: defines no ASTv2; is it a checkout of {REPOSITORY}v2?")
    return module.ASTv2(
        dim=config.embed_dim,
        num_blocks=list(config.depths),
        num_refinement_blocks=config.refinement_blocks,
        heads=list(config.heads),
        ffn_expansion_factor=config.mlp_ratio,
    )


def build_ast(path: Path, model: AST) -> nn.Module:
    """Build the official AST."""
    config = model.config
    if config.levels != LEVELS or config.encoder_attention or config.branches != "both":
        raise OptionError(
            f"depths {config.depths}, branches {config.branches!r}: the official code has only"
            f" networks of {LEVELS} levels with both branches, as ast_t and ast_b"
        )
    module = import_file(path)
    if not hasattr(module, "AST"):
        raise OptionError(f"{path}: defines no AST; is it a checkout of {REPOSITORY}?")
    return module.AST(
        # Official: what it is built for decides whether the bottleneck shifts, and nothing else.
        img_size=config.size_multiple * (2 if config.bottleneck_shift else 1),
        embed_dim=config.embed_dim,
        depths=list(config.depths),
        num_heads=list(config.heads),
        win_size=config.window,
        mlp_ratio=config.mlp_ratio,
        drop_path_rate=config.stochastic_depth,
        token_projection="linear",
        token_mlp=config.feed_forward,
    )


def import_file(path: Path, *, unused: Sequence[str] = ()) -> ModuleType:
    """Run a Python file as a module, with stand-ins for what it takes from a missing library.

    `unused` are libraries that it imports and does not use.
    """
    for name in unused:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            sys.modules[name] = ModuleType(name)
    for name in missing_modules(path):
        dots = [at for at, letter in enumerate(name) if letter == "."]
        for parent in (name[:dot] for dot in dots):
            sys.modules.setdefault(parent, ModuleType(parent))
        vars(sys.modules.setdefault(name, ModuleType(name))).update(STAND_INS)
    spec = importlib.util.spec_from_file_location("official_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{path}: needs {error.name}; install it with: pip install {error.name}"
        ) from error
    return module


def missing_modules(path: Path) -> list[str]:
    """List modules that are not installed, and of which a file wants nothing but what stands in."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise OptionError(f"{path}: is no Python: {error}") from error
    return [
        node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and node.module
        and {alias.name for alias in node.names} <= set(STAND_INS)
        and importlib.util.find_spec(node.module.split(".")[0]) is None
    ]
