"""Weights on disk: where they are found, loaded from and saved to."""

import dataclasses
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from fairweather.errors import CheckpointError, OptionError
from fairweather.files import replacing
from fairweather.models.astv2 import ASTv2
from fairweather.models.bundled import list_weights
from fairweather.models.config import (
    ASTConfig,
    Config,
    Symmetries,
    architecture_of,
    make_config,
)
from fairweather.models.creation import Network, build_network
from fairweather.models.hub import HUB_NAME, find_in_hub
from fairweather.models.official import to_official
from fairweather.models.official_v2 import to_official_v2
from fairweather.models.presets import PRESETS
from fairweather.models.sources import WEIGHTS_SUFFIXES, find_by_url
from fairweather.models.state_dict import (
    Metadata,
    find_state,
    read_content,
    refuse_nonfinite,
    walk,
)


def load_model(weights: str | Path, *, bottleneck_shift: bool | None = None) -> Network:
    """Load weights of ours or of the official code; the architecture is told from the file.

    Args:
        weights: a name that `list_weights` gives, a `.safetensors`, an official `.pth`, a folder
            that holds one of them, or weights elsewhere, `hf:OWNER/NAME` or a URL with a SHA-256
            (see `find_weights`).
        bottleneck_shift: whether odd bottleneck blocks shift their windows, which no checkpoint
            says (see `ASTConfig`). None keeps what our own files store, and is False for others,
            as in the official test scripts. An AST-v2 has none.

    Returns:
        The model on the CPU in evaluation mode.

    Raises:
        CheckpointError: if the file is missing, unsafe, broken, or of another network, or cannot be
            downloaded, or if its values are not finite.
        OptionError: for a `bottleneck_shift` of a network that has no such thing.
    """
    path = find_weights(weights)
    content, metadata = read_content(path)
    told = read_config(metadata, source=path)
    state, config = find_state(content, source=path, config=told)
    if bottleneck_shift is not None:
        config = with_bottleneck_shift(config, shifts=bottleneck_shift, source=path)
    model = build_network(config)
    model.load_state_dict(state)  # copies into float32, whatever the file holds
    refuse_nonfinite(model.state_dict(), source=path)
    return model.eval()


def with_bottleneck_shift(config: Config, *, shifts: bool, source: object) -> ASTConfig:
    """Return the config of an AST whose bottleneck shifts its windows or not.

    Raises:
        OptionError: for another network.
    """
    if not isinstance(config, ASTConfig):
        raise OptionError(f"{source}: is an AST-v2, which has no windows to shift")
    return dataclasses.replace(config, bottleneck_shift=shifts)


def save_model(
    model: Network, path: str | Path, *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a `.safetensors` with the whole config, in one move.

    Args:
        model: the model; its parameters are written as they are.
        path: where to; a file of that name is replaced.
        metadata: what else the file shall say (task, training_data, licence, figures …).

    Raises:
        CheckpointError: if the weights are not finite.
    """
    refuse_nonfinite(model.state_dict(), source=path)
    config = json.dumps(dataclasses.asdict(model.config))
    about = {"architecture": architecture_of(model.config), "config": config, **(metadata or {})}
    write_safetensors(model.state_dict(), path, about=about)


def write_safetensors(
    state: Mapping[str, Tensor], path: str | Path, *, about: Mapping[str, str]
) -> None:
    """Write a state dict in one move, with that and our version as metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = {"fairweather_version": version("fairweather"), **about}
    with replacing(path) as file:
        file.write(safetensors.torch.save(tensors, header))


def save_official(model: Network, path: str | Path) -> None:
    """Write a `.pth` that the official code loads, in one move.

    Official names are under `state_dict` for an AST, under `params` for an AST-v2.

    Args:
        model: the model; whether its bottleneck shifts is not in such a file.
        path: where to; a file of that name is replaced.

    Raises:
        CheckpointError: if the model has a global context, which the official code has not, or its
            weights are not finite.
    """
    refuse_nonfinite(model.state_dict(), source=path)
    wrapper = "params" if isinstance(model, ASTv2) else "state_dict"
    with replacing(path) as file:
        torch.save({wrapper: official_state(model)}, file)


def official_state(model: Network) -> dict[str, Tensor]:
    """Return the weights under the names of the network's official code.

    Raises:
        CheckpointError: if the official code has no such network.
    """
    to_names = to_official_v2 if isinstance(model, ASTv2) else to_official
    return to_names(model.state_dict())


def find_weights(weights: str | Path) -> Path:
    """Find the file that a bundled name, a path, a folder, a repository or a URL stands for.

    What is elsewhere is downloaded once, to a cache, and its hash is compared each time. With
    `HF_HUB_OFFLINE=1` it comes from the cache alone, or not at all. Names and paths of this machine
    never ask the network.

    Args:
        weights: one of
            a name that `list_weights` gives;
            a weights file, or a folder that holds one;
            a repository on the Hugging Face Hub, `hf:OWNER/NAME`, and after it `@REVISION`, `:FILE`
            and `#sha256=…` where they are wanted;
            `https://…/NAME.safetensors#sha256=…`, with the 64 digits of the file's SHA-256.

    Returns:
        The file, of this machine or in a cache.

    Raises:
        CheckpointError: if there is no such file, a folder or repository holds none or several, a
            download fails, or a hash is another one.
    """
    bundled = list_weights()
    if str(weights) in bundled:
        return bundled[str(weights)]
    if isinstance(weights, str) and weights.startswith("hf:"):
        return find_in_hub(weights)
    if isinstance(weights, str) and weights.startswith(("https://", "http://")):
        return find_by_url(weights)
    path = Path(weights)
    if path.is_dir():
        return only_weights(path)
    if not path.is_file():
        is_preset = str(weights) in PRESETS
        what = "is a preset, which has no weights" if is_preset else "is no file or folder"
        may_be_hub = path.suffix not in WEIGHTS_SUFFIXES and HUB_NAME.fullmatch(f"hf:{weights}")
        hub = f", or hf:{weights} for that of the Hub" if may_be_hub else ""
        raise CheckpointError(
            f"{weights}: {what}; give a weights file, one of the bundled names"
            f" ({', '.join(bundled)}){hub}"
        )
    return path


def only_weights(folder: Path) -> Path:
    """Return the one weights file in a folder."""
    found = [file for file in sorted(folder.iterdir()) if file.suffix in WEIGHTS_SUFFIXES]
    if not found and any(folder.glob("stage-*/")):
        kept = [path for name in ("best", "last") for path in folder.glob(f"stage-*/{name}.ckpt")]
        best = max(kept, key=lambda path: path.stat().st_mtime_ns, default=None)
        raise CheckpointError(
            f"{folder}: is a training run that is not finished; train on with the same command, or"
            + (f" give {best}, its newest checkpoint" if best else " wait for its first checkpoint")
        )
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(f"{folder}: holds {names}; name the one weights file to load")
    return found[0]


def read_metadata(weights: str | Path) -> Metadata:
    """Return what a weights file says about itself; empty if it is no safetensors file."""
    return read_content(find_weights(weights))[1]


def read_state(path: Path) -> tuple[dict[str, Tensor], Metadata]:
    """Read the tensors of a weights file by name, without wrappers, and what it says of itself.

    Raises:
        CheckpointError: if the file cannot be read, holds more than tensors and plain data, or
            values that are not finite.
    """
    content, metadata = read_content(path)
    state = next((tensors for _, tensors in walk(content)), {})
    refuse_nonfinite(state, source=path)
    return state, metadata


def read_config(metadata: Mapping[str, str], *, source: object) -> Config | None:
    """Return the config in the metadata of a weights file of ours; None if there is none.

    Raises:
        CheckpointError: if it is no config.
    """
    if "config" not in metadata:
        return None
    try:
        recipe = json.loads(metadata.get("recipe", "null"))
        fields = json.loads(metadata["config"])
        return make_config({"symmetries": symmetries_of(recipe), **fields})
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CheckpointError(f"{source}: its config is none of an AST: {error}") from error


def symmetries_of(recipe: Any) -> Symmetries:
    """Return the flips and turns under which a recipe (JSON) shows the degradation in its training.

    Clean images are turned before they are degraded: rain falls downwards in all of them. Weights
    whose recipe is not known are taken for such.
    """
    try:
        orientation = recipe["augmentation"]["orientation"]
        is_turned = not recipe["data"]["clean"] or orientation == "none"
    except (KeyError, TypeError):
        return "horizontal_flip"
    return orientation if is_turned else "horizontal_flip"
