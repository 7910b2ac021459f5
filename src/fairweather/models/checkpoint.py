"""Weights on disk: safe load and save, architecture told from the keys, the official key table."""

import dataclasses
import json
import pickle
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fairweather.errors import CheckpointError
from fairweather.files import replacing
from fairweather.models.ast import AST
from fairweather.models.bundled import list_weights
from fairweather.models.config import ASTConfig
from fairweather.models.hub import find_in_hub, may_be_repository
from fairweather.models.official import from_official, is_official, to_official, window_of
from fairweather.models.presets import PRESETS
from fairweather.models.sources import WEIGHTS_SUFFIXES, find_by_url

Metadata = dict[str, str]

CONFIG_KEY = "fairweather_config"  # in checkpoints of our trainings, as JSON
WRAPPERS = ("state_dict", "params_ema", "params", "model")
PREFIXES = ("module.", "_orig_mod.", "model.")


def load_model(weights: str | Path, *, bottleneck_shift: bool | None = None) -> AST:
    """Load weights of ours or of the official code; the architecture is told from the file.

    Args:
        weights: a name that `list_weights` gives, a `.safetensors`, an official `.pth`, a folder
            that holds one of them, or weights elsewhere, `hf:OWNER/NAME` or a URL with a SHA-256
            (see `find_weights`).
        bottleneck_shift: whether odd bottleneck blocks shift their windows, which no checkpoint
            says (see `ASTConfig`). None keeps what our own files store, and is False for others,
            as in the official test scripts.

    Returns:
        The model on the CPU in evaluation mode.

    Raises:
        CheckpointError: if the file is missing, unsafe, broken, or of another network, or cannot be
            downloaded.
    """
    path = find_weights(weights)
    state, metadata = read_state(path)
    if is_official(state):
        state = from_official(state)
    try:
        config = read_config(metadata) or infer_config(state)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise CheckpointError(
            f"{path}: is not an AST checkpoint ({type(error).__name__}: {error}); its first keys"
            f" are {', '.join(list(state)[:3])}"
        ) from error
    if bottleneck_shift is not None:
        config = dataclasses.replace(config, bottleneck_shift=bottleneck_shift)
    model = AST(config)
    misfits = find_misfits(state, model.state_dict())
    if misfits:
        raise CheckpointError(
            f"{path}: does not fit any AST: {misfits}. Is it a checkpoint of another network?"
        )
    model.load_state_dict(state)  # copies into float32, whatever the file holds
    return model.eval()


def save_model(model: AST, path: str | Path, *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a `.safetensors` with the whole config, in one move.

    Args:
        model: the model; its parameters are written as they are.
        path: where to; a file of that name is replaced.
        metadata: what else the file shall say (task, training_data, licence, figures …).
    """
    config = json.dumps(dataclasses.asdict(model.config))
    about = {"architecture": "ast", "config": config, **(metadata or {})}
    write_safetensors(model.state_dict(), path, about=about)


def write_safetensors(
    state: Mapping[str, Tensor], path: str | Path, *, about: Mapping[str, str]
) -> None:
    """Write a state dict in one move, with that and our version as metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = {"fairweather_version": version("fairweather"), **about}
    with replacing(path) as file:
        file.write(safetensors.torch.save(tensors, header))


def save_official(model: AST, path: str | Path) -> None:
    """Write a `.pth` that the official code loads: official names under `state_dict`, in one move.

    Args:
        model: the model; whether its bottleneck shifts is not in such a file.
        path: where to; a file of that name is replaced.

    Raises:
        CheckpointError: if the model has a global context, which the official code has not.
    """
    with replacing(path) as file:
        torch.save({"state_dict": to_official(model.state_dict())}, file)


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
            and `#sha256=…` where they are wanted; a text `OWNER/NAME` that is no path here is one,
            too, a `Path` never is;
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
    if not path.exists() and isinstance(weights, str) and may_be_repository(weights):
        try:
            return find_in_hub(f"hf:{weights}")
        except CheckpointError as error:  # it may be a path misspelt
            raise CheckpointError(
                f"{weights}: is no file or folder here, and nothing was found on the Hub: {error}"
            ) from error
    if not path.is_file():
        what = "is a preset, which has no weights" if str(weights) in PRESETS else "is no file"
        raise CheckpointError(
            f"{weights}: {what}; give a weights file or one of the bundled names:"
            f" {', '.join(bundled)}"
        )
    return path


def only_weights(folder: Path) -> Path:
    """Return the one weights file in a folder."""
    found = [file for file in sorted(folder.iterdir()) if file.suffix in WEIGHTS_SUFFIXES]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(f"{folder}: holds {names}; name the one weights file to load")
    return found[0]


def read_metadata(weights: str | Path) -> Metadata:
    """Return what a weights file says about itself; empty if it is no safetensors file."""
    return read_state(find_weights(weights))[1]


def read_state(path: Path) -> tuple[dict[str, Tensor], Metadata]:
    """Read the tensors of a weights file by name, without wrappers and prefixes, and its metadata.

    Raises:
        CheckpointError: if the file cannot be read, or holds more than tensors and plain data.
    """
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: is not a safetensors file: {error}") from error
    try:
        with path.open("rb") as file:
            if file.read(2)[:1] not in (b"P", b"\x80"):  # a zip archive or a pickle
                raise ValueError("it is another kind of file")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors, which could run code; it was not opened."
            " Load it where you trust it and save its state dict alone with torch.save"
        ) from error
    except Exception as error:  # the unpickler raises nearly anything on bytes that are no pickle
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: is not a PyTorch checkpoint: {reason}") from error
    state = strip_prefixes(unwrap(content, source=path))
    config = content.get(CONFIG_KEY) if isinstance(content, Mapping) else None
    return state, {"config": config} if isinstance(config, str) else {}


def read_config(metadata: Metadata) -> ASTConfig | None:
    """Return the config in the metadata of a weights file of ours; None if there is none."""
    return ASTConfig(**json.loads(metadata["config"])) if "config" in metadata else None


def unwrap(content: object, *, source: Path) -> dict[str, Tensor]:
    """Return the state dict in a checkpoint, under whichever name it lies."""
    if isinstance(content, Mapping):
        for wrapper in WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                return unwrap(content[wrapper], source=source)
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
    raise CheckpointError(f"{source}: holds no state dict; looked for {', '.join(WRAPPERS)}")


def strip_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove what DataParallel, torch.compile and Lightning put before every name."""
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in state):
            return strip_prefixes({key.removeprefix(prefix): state[key] for key in state})
    return dict(state)


def infer_config(state: Mapping[str, Tensor]) -> ASTConfig:
    """Tell the config from the names and shapes of a state dict (ours).

    What they do not tell is as published: stochastic depth and no bottleneck shift. Dense-only and
    sparse-only attention have the same keys and read as dense. Heads of stages without attention
    are made up.
    """
    embed_dim = state["input_conv.weight"].shape[0]
    levels = count_numbers(state, "downsample.")
    stages = [
        *(f"encoder.{level}." for level in range(levels)),
        "bottleneck.",
        *(f"decoder.{level}." for level in range(levels)),
    ]
    depths = tuple(count_numbers(state, stage) for stage in stages)
    table = state["bottleneck.0.attention.bias_table"]
    head_channels = embed_dim * 2**levels // table.shape[1]
    heads = tuple(
        state[name].shape[1]
        if (name := f"{stage}0.attention.bias_table") in state
        else max(1, embed_dim * 2**level // head_channels)
        for level, stage in enumerate(stages)
    )
    project = state["bottleneck.0.feed_forward.project.weight"]
    return ASTConfig(
        embed_dim=embed_dim,
        depths=depths,
        heads=heads,
        window=window_of(table),
        mlp_ratio=project.shape[1] / project.shape[0],
        feed_forward=(
            "frfn"
            if "bottleneck.0.feed_forward.partial.weight" in state
            else "leff"
            if "bottleneck.0.feed_forward.depthwise.weight" in state
            else "mlp"
        ),
        branches="both" if "bottleneck.0.attention.branch_logits" in state else "dense",
        encoder_attention="encoder.0.0.attention.bias_table" in state,
        global_context="context.gather.weight" in state,
    )


def count_numbers(state: Iterable[str], prefix: str) -> int:
    """Count the numbers that follow a prefix."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def find_misfits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Name the first keys of a state dict that are unknown, missing or of another shape, if any."""
    faults = [
        *(f"{name} is unknown" for name in state if name not in expected),
        *(f"{name} is missing" for name in expected if name not in state),
        *(
            f"{name} is {tuple(tensor.shape)} instead of {tuple(expected[name].shape)}"
            for name, tensor in state.items()
            if name in expected and tensor.shape != expected[name].shape
        ),
    ]
    more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    return "; ".join(faults[:3]) + more
