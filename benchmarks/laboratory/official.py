"""The official implementation from a checkout, on our weights and used the official way.

Its repository is joshyZhou/AST. It needs three small functions of a second vision library; where
that is not installed, stand-ins take their place.
"""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from torch import nn

from fairweather.errors import MissingExtraError, OptionError
from fairweather.models import AST, StochasticDepth, to_official

REPOSITORY = "joshyZhou/AST"
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
    path = checkout / "model.py"
    if not path.is_file():
        raise OptionError(
            f"{checkout}: holds no model.py; give a checkout of https://github.com/{REPOSITORY}"
        )
    return path


def load_official(checkout: Path, model: AST) -> nn.Module:
    """Build the official network with the weights of ours.

    Args:
        checkout: of the official repository. Its model.py is run.
        model: ours, of an architecture that the official code has.

    Raises:
        OptionError: if the checkout holds no such network, or the architecture is only ours.
        MissingExtraError: if a library that it imports is not installed.
    """
    path, config = check_checkout(checkout), model.config
    if config.levels != LEVELS or config.encoder_attention or config.branches != "both":
        raise OptionError(
            f"depths {config.depths}, branches {config.branches!r}: the official code has only"
            f" networks of {LEVELS} levels with both branches, as ast_t and ast_b"
        )
    module = import_file(path)
    if not hasattr(module, "AST"):
        raise OptionError(f"{path}: defines no AST; is it a checkout of {REPOSITORY}?")
    network = module.AST(
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
    try:
        network.load_state_dict(to_official(model.state_dict()))
    except RuntimeError as error:
        raise OptionError(f"{path}: its AST does not take these weights: {error}") from error
    return network


def import_file(path: Path) -> ModuleType:
    """Run a Python file as a module, with stand-ins for what it takes from a missing library."""
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
