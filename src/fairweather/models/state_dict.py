"""What a checkpoint holds, checked before any network is built: it may come from anywhere."""

import dataclasses
import pickle
import re
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from fairweather.errors import CheckpointError
from fairweather.models.ast import AST
from fairweather.models.astv2 import ASTv2
from fairweather.models.config import ASTConfig, ASTv2Config, Config
from fairweather.models.official import OFFICIAL_BUFFER, from_official, is_official, window_of
from fairweather.models.official_v2 import from_official_v2, is_official_v2

Metadata = dict[str, str]

CONFIG_KEY = "fairweather_config"  # in checkpoints of our trainings, as JSON
# Where training code keeps its weights, averages first. Other names come after these.
WRAPPERS = (
    *("params_ema", "state_dict_ema", "model_ema", "ema_state_dict", "ema"),
    *("state_dict", "params", "model_state_dict", "model", "net_g", "generator"),
)
MOST_NESTED = 4
# Ours, and the official names of AST and AST-v2.
FIRST_LAYER = ("input_conv.weight", "input_proj.proj.0.weight", "patch_embed.proj.weight")
LARGEST_BUFFERS_BYTES = 1 << 29  # what no file holds: indices and masks of the windows


def read_content(path: Path) -> tuple[dict[Any, Any], Metadata]:
    """Read a weights file: tensors by name, perhaps under wrappers, and what it says of itself.

    Raises:
        CheckpointError: if the file cannot be read, or holds more than tensors and plain data.
    """
    if path.suffix in (".keras", ".h5"):
        raise CheckpointError(
            f"{path}: is for the Keras port, fairweather.keras; convert it with: fairweather models"
            f" convert {path} {path.with_suffix('.safetensors')}"
        )
    if path.suffix == ".safetensors":
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(f"{path}: is not a safetensors file: {error}") from error
    try:
        with path.open("rb") as file:
            if file.read(2)[:1] not in (b"P", b"\x80"):  # a zip archive or a pickle
                raise ValueError("it is another kind of file")
        refuse_bomb(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than tensors, which could run code; it was not opened."
            " Load it where you trust it and save its state dict alone with torch.save"
        ) from error
    except Exception as error:  # the unpickler raises nearly anything on bytes that are no pickle
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path}: is not a PyTorch checkpoint: {reason}") from error
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path}: holds no state dict, but a {type(content).__name__}")
    config = content.get(CONFIG_KEY)
    return dict(content), {"config": config} if isinstance(config, str) else {}


def refuse_bomb(path: Path) -> None:
    """Raise a ValueError for an archive that would unpack to more than its own size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:
            raise ValueError(f"it would unpack to {unpacked:,} bytes, more than it has")


def find_state(
    content: Mapping[Any, Any], *, source: Path, config: Config | None
) -> tuple[dict[str, Tensor], Config]:
    """Find the tensors of an AST under whatever wrappers and prefixes, and their config.

    The first that fit an AST are taken, by their names and shapes.

    Args:
        content: of `read_content`.
        source: the file.
        config: what the file says; None tells it from the tensors.

    Raises:
        CheckpointError: saying what is there instead, and where it looked.
    """
    fault, places = "", []
    for place, tensors in walk(content):
        prefixes = prefixes_of(tensors)
        places.append(place + (f" ({prefixes[0]}*)" if prefixes and prefixes[0] else ""))
        for prefix in prefixes:
            state = {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
            if prefix == "":
                state.pop("n_averaged", None)  # of AveragedModel
            try:
                return fit_state(state, bytes_of_file=source.stat().st_size, config=config)
            except CheckpointError as error:
                fault = fault or str(error)
    looked = f"looked at {', '.join(places[:8])}"
    if fault:
        raise CheckpointError(f"{source}: {fault} ({looked})")
    tensors = next((tensors for _, tensors in walk(content)), None)
    if tensors is None:
        keys = ", ".join(f"{key!r:.40}" for key in [*content][:8])
        raise CheckpointError(f"{source}: holds no state dict; it holds {keys or 'nothing'}")
    raise CheckpointError(
        f"{source}: is not an AST checkpoint: nothing is called {' or '.join(FIRST_LAYER)}, with"
        f" any prefix; {looked}, and the first keys are {', '.join([*tensors][:3])}"
    )


def walk(content: Mapping[Any, Any]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the tensors of each mapping that holds any, with its place: outer ones first."""
    waiting = deque([("the top level", content, 0)])
    seen: set[int] = set()  # a pickle may hold itself
    while waiting:
        place, mapping, depth = waiting.popleft()
        if id(mapping) in seen:
            continue
        seen.add(id(mapping))
        named = {key: value for key, value in mapping.items() if isinstance(key, str)}
        tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
        if tensors:
            yield place, tensors
        inner = [key for key, value in named.items() if isinstance(value, Mapping)]
        inner.sort(key=lambda key: WRAPPERS.index(key) if key in WRAPPERS else len(WRAPPERS))
        for key in inner if depth < MOST_NESTED else ():
            path = f"{place}.{key}" if depth else key
            waiting.append((path, named[key], depth + 1))


def prefixes_of(names: Iterable[str]) -> list[str]:
    """Return what stands before the names of networks' first layers; averages come first."""
    found = [
        name.removesuffix(layer)
        for name in names
        for layer in FIRST_LAYER
        if name == layer or name.endswith(f".{layer}")
    ]
    return sorted(found, key=lambda prefix: "ema" not in re.split(r"[._]", prefix))


def fit_state(
    state: Mapping[str, Tensor], *, bytes_of_file: int, config: Config | None
) -> tuple[dict[str, Tensor], Config]:
    """Return a state dict under our names, and the config of the AST that it fits.

    Nothing is allocated that the file does not hold.

    Raises:
        CheckpointError: if it fits none.
    """
    refuse_odd_tensors(state, bytes_of_file=bytes_of_file)
    try:
        ours = to_our_names(state)
        config = config or infer_config(ours)
        if config.blocks > len(ours):
            raise CheckpointError(
                f"its config asks for {config.blocks} blocks, and it holds {len(ours)} tensors"
            )
        misfits = find_misfits(ours, expected_state(config))
    except (KeyError, ValueError, TypeError, ArithmeticError, IndexError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"is not an AST checkpoint ({type(error).__name__}: {reason}); its first keys are"
            f" {', '.join([*state][:3])}"
        ) from error
    if misfits:
        raise CheckpointError(
            f"does not fit any AST: {misfits}. Is it a checkpoint of another network?"
        )
    return ours, config


def to_our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict, ours or an official one, under our names."""
    if is_official(state):
        return from_official(state)
    return from_official_v2(state) if is_official_v2(state) else dict(state)


def refuse_odd_tensors(state: Mapping[str, Tensor], *, bytes_of_file: int) -> None:
    """Refuse tensors that are no plain numbers, or stand for more numbers than the file holds."""
    for name, tensor in state.items():
        is_index = name.endswith(OFFICIAL_BUFFER)
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_nested:
            raise CheckpointError(f"{name} is no dense tensor with values, but sparse or empty")
        if not (tensor.dtype.is_floating_point or is_index):
            raise CheckpointError(f"{name} holds {tensor.dtype}, where weights are floats")
    numbers = sum(tensor.numel() for tensor in state.values())
    if numbers > bytes_of_file:
        raise CheckpointError(
            f"its tensors repeat what they hold: {numbers:,} numbers in {bytes_of_file:,} bytes"
        )


class ShapesOnly(TorchFunctionMode):
    """Makes parameters without values; what is computed from windows is small here."""

    def __torch_function__(
        self, func: Any, types: object, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        makes = func in (torch.empty, torch.zeros, torch.ones)
        return func(*args, **{**(kwargs or {}), **({"device": "meta"} if makes else {})})


def expected_state(config: Config) -> dict[str, Tensor]:
    """Return the state dict of a network with shapes and no values.

    Raises:
        CheckpointError: if what no state dict holds takes too much memory.
    """
    if isinstance(config, ASTv2Config):
        with ShapesOnly():
            single = ASTv2(
                dataclasses.replace(config, depths=(1, 1, 1), refinement_blocks=1)
            ).state_dict()
        return repeat_blocks(single, stages_of_astv2(config))
    with ShapesOnly():  # blocks of a stage are alike, so one of each is built
        single = AST(dataclasses.replace(config, depths=(1,) * len(config.depths), window=2))
    tokens, attending = config.window**2, sum(map(config.attends, range(len(config.depths))))
    buffers = (8 + 3 * 4) * tokens**2 * attending * max(config.depths)  # indices and masks
    if buffers > LARGEST_BUFFERS_BYTES:
        raise CheckpointError(
            f"windows of {config.window} tokens would take {buffers / 2**30:.1f} GiB of indices"
        )
    state = {
        name: tensor.new_empty((2 * config.window - 1) ** 2, tensor.shape[1])
        if name.endswith(".bias_table")
        else tensor
        for name, tensor in single.state_dict().items()
    }
    return repeat_blocks(state, dict(zip(stage_names(config.levels), config.depths, strict=True)))


def repeat_blocks(single: Mapping[str, Tensor], depths: Mapping[str, int]) -> dict[str, Tensor]:
    """Return the state dict of stages of many blocks, given that of stages of one.

    Args:
        single: the block 0 of each stage, and what is in no stage.
        depths: blocks of each stage, by what the names of its parameters begin with.
    """
    expected: dict[str, Tensor] = {}
    for name, tensor in single.items():
        stage = next((stage for stage in depths if name.startswith(stage)), None)
        if stage is None:
            expected[name] = tensor
            continue
        inside = name.removeprefix(f"{stage}0.")
        expected |= {f"{stage}{block}.{inside}": tensor for block in range(depths[stage])}
    return expected


def stages_of_astv2(config: ASTv2Config) -> dict[str, int]:
    """Return what the names of each stage's parameters begin with, and its blocks."""
    down = {f"encoder.{level}.": depth for level, depth in enumerate(config.depths)}
    up = {f"decoder.{level}.": depth for level, depth in enumerate(config.depths[::-1])}
    return {**down, **up, "refinement.": config.refinement_blocks}


def stage_names(levels: int) -> list[str]:
    """Return what the names of each stage's parameters begin with, in the order of the stages."""
    sides = [[f"{side}.{level}." for level in range(levels)] for side in ("encoder", "decoder")]
    return [*sides[0], "bottleneck.", *sides[1]]


def infer_config(state: Mapping[str, Tensor]) -> Config:
    """Tell the config from the names and shapes of a state dict (ours).

    Those of an AST-v2 tell everything. What those of an AST do not tell is as published: stochastic
    depth and no bottleneck shift. Dense-only and sparse-only attention have the same keys and read
    as dense. Heads of stages without attention are made up.
    """
    return infer_astv2(state) if "reduce.0.weight" in state else infer_ast(state)


def infer_astv2(state: Mapping[str, Tensor]) -> ASTv2Config:
    """Tell the config of an AST-v2."""
    embed_dim = state["input_conv.weight"].shape[0]
    project = state["encoder.2.0.feed_forward.project.weight"]  # where rounding says least
    depths = [count_numbers(state, f"encoder.{level}.") for level in range(3)]
    heads = [
        state[f"decoder.{stage}.0.attention.temperature"].shape[0] for stage in reversed(range(3))
    ]
    partial = state["encoder.0.0.feed_forward.partial.weight"]
    return ASTv2Config(
        embed_dim=embed_dim,
        depths=(depths[0], depths[1], depths[2]),
        heads=(heads[0], heads[1], heads[2]),
        refinement_blocks=count_numbers(state, "refinement."),
        mlp_ratio=project.shape[1] / project.shape[0],
        groups=embed_dim // (2 * partial.shape[0]),
    )


def infer_ast(state: Mapping[str, Tensor]) -> ASTConfig:
    """Tell the config of an AST, as far as a state dict does."""
    embed_dim, _, side, _ = state["input_conv.weight"].shape
    levels = count_numbers(state, "downsample.")
    stages = stage_names(levels)
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
        fold=side // 3,
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


def refuse_nonfinite(state: Mapping[str, Tensor], *, source: object) -> None:
    """Refuse weights that hold NaN or infinity, as those of a training that diverged.

    Raises:
        CheckpointError: naming the tensors.
    """
    spoilt = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if spoilt:
        more = f" and {len(spoilt) - 3} more" if len(spoilt) > 3 else ""
        raise CheckpointError(
            f"{source}: holds values that are not finite (NaN or infinity) in"
            f" {', '.join(spoilt[:3])}{more}, so all that it restores would be spoilt. Is it of a"
            " training that diverged? Take an earlier checkpoint"
        )
