"""Build models from a preset or a config."""

import dataclasses
import hashlib
import json

from torch import nn

from fairweather.errors import OptionError
from fairweather.models.ast import AST
from fairweather.models.astv2 import ASTv2
from fairweather.models.config import ASTv2Config, Config
from fairweather.models.presets import PRESETS

Network = AST | ASTv2


def create_model(preset: str | Config, *, init: str = "identity") -> Network:
    """Build an untrained model.

    Args:
        preset: a name of `PRESETS` (`ast_n`, `ast_t`, `astv2` …) or a config.
        init: `identity` returns its input until it is trained (the output layer starts at zero);
            `official` keeps the official initialisation of every layer.

    Returns:
        A module (B, 3, H, W) in [0, 1] → (B, 3, H, W), in training mode.

    Raises:
        OptionError: for an unknown preset or initialisation.
    """
    model = build_network(find_config(preset, init=init))
    if init == "identity":
        model.zero_output()
    return model


def build_network(config: Config) -> Network:
    """Build the network that a config is of, with the official initialisation."""
    return ASTv2(config) if isinstance(config, ASTv2Config) else AST(config)


def find_config(preset: str | Config, *, init: str = "identity") -> Config:
    """Return the config that a preset's name stands for, and check the name of an initialisation.

    Raises:
        OptionError: for an unknown preset or initialisation.
    """
    if isinstance(preset, str) and preset not in PRESETS:
        raise OptionError(f"preset {preset!r}: is none of {', '.join(PRESETS)}")
    if init not in ("identity", "official"):
        raise OptionError(f"init {init!r}: is neither identity nor official")
    return PRESETS[preset] if isinstance(preset, str) else preset


def add_global_context(model: AST) -> AST:
    """Return the same weights with a new global context, which changes little until trained."""
    wider = AST(dataclasses.replace(model.config, global_context=True))
    wider.load_state_dict(model.state_dict(), strict=False)
    return wider.train(model.training)


def count_parameters(model: nn.Module) -> int:
    """Count the trainable numbers of a module."""
    return sum(parameter.numel() for parameter in model.parameters())


def fingerprint(model: Network) -> str:
    """Return a number, in hexadecimal digits, that is the same for the same config and weights."""
    config = json.dumps(dataclasses.asdict(model.config), sort_keys=True)
    digest = hashlib.sha256(config.encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()
