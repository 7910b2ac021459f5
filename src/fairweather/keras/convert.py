"""Weights between PyTorch and Keras, both ways, and Keras' own files.

Every Keras variable has one `Port`: the PyTorch tensor of the same numbers and the order of its
axes. Both directions read the same ports, so a layout is written down once.
"""

import contextlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import torch
from torch import Tensor

from fairweather import models
from fairweather.errors import CheckpointError, OptionError
from fairweather.files import staging
from fairweather.keras.layers import GlobalContext
from fairweather.keras.model import Block, build_network
from fairweather.keras.model_v2 import ChannelBlock
from fairweather.keras.network import Network
from fairweather.models import Config

KERAS_SUFFIXES = (".keras", ".weights.h5")

# Keras axes ← PyTorch axes, of the kernel of each layer.
KERNEL_AXES = {
    keras.layers.Dense: (1, 0),  # (in, out) ← (out, in)
    keras.layers.Conv2D: (2, 3, 1, 0),  # (h, w, in, out) ← (out, in, h, w)
    keras.layers.Conv2DTranspose: (2, 3, 1, 0),  # (h, w, out, in) ← (in, out, h, w)
    keras.layers.DepthwiseConv2D: (2, 3, 0, 1),  # (h, w, channels, 1) ← (channels, 1, h, w)
}


@dataclass(frozen=True)
class Port:
    """A Keras variable and the PyTorch tensor of the same numbers.

    Attributes:
        name: of the tensor in the PyTorch state dict.
        variable: the Keras variable.
        axes: the PyTorch axis that each Keras axis is; None where the layouts are the same.
    """

    name: str
    variable: Any
    axes: tuple[int, ...] | None = None

    def to_keras(self, tensor: Tensor) -> None:
        """Copies the PyTorch tensor into the Keras variable."""
        array = tensor.detach().cpu().to(torch.promote_types(tensor.dtype, torch.float32)).numpy()
        self.variable.assign(array if self.axes is None else array.transpose(self.axes))

    def to_torch(self) -> Tensor:
        """The numbers of the Keras variable as a PyTorch tensor, float32."""
        array = np.asarray(keras.ops.convert_to_numpy(self.variable.value), dtype=np.float32)
        if self.axes is not None:
            array = array.transpose(np.argsort(self.axes))
        return torch.from_numpy(np.array(array, order="C"))


def port_kernel(layer: Any, name: str) -> Iterator[Port]:
    """A linear layer or a convolution."""
    yield Port(f"{name}.weight", layer.kernel, KERNEL_AXES[type(layer)])
    if layer.use_bias:
        yield Port(f"{name}.bias", layer.bias)


def port_layer_norm(layer: Any, name: str) -> Iterator[Port]:
    """LayerNormalization ↔ nn.LayerNorm."""
    yield Port(f"{name}.weight", layer.gamma)
    yield Port(f"{name}.bias", layer.beta)


def port_attention(layer: Any, name: str) -> Iterator[Port]:
    """The attention of a block."""
    yield from port_kernel(layer.qkv, f"{name}.qkv")
    yield from port_kernel(layer.project, f"{name}.output")  # `output` is a word of Keras' own
    yield Port(f"{name}.bias_table", layer.bias_table)
    if layer.branches == "both":
        yield Port(f"{name}.branch_logits", layer.branch_logits)


def port_feed_forward(layer: Any, name: str) -> Iterator[Port]:
    """The feed-forward network of a block, whichever kind."""
    if layer.kind == "frfn":
        yield from port_kernel(layer.partial, f"{name}.partial")
    yield from port_kernel(layer.expand, f"{name}.expand")
    if layer.kind != "mlp":
        yield from port_kernel(layer.depthwise, f"{name}.depthwise")
    yield from port_kernel(layer.project, f"{name}.project")


def port_block(layer: Any, name: str) -> Iterator[Port]:
    """A transformer block."""
    if layer.attention is not None:
        yield from port_layer_norm(layer.attention_norm, f"{name}.attention_norm")
        yield from port_attention(layer.attention, f"{name}.attention")
    yield from port_layer_norm(layer.feed_forward_norm, f"{name}.feed_forward_norm")
    yield from port_feed_forward(layer.feed_forward, f"{name}.feed_forward")


def port_channel_block(layer: Any, name: str) -> Iterator[Port]:
    """A block of AST-v2."""
    if layer.attention is not None:
        yield from port_layer_norm(layer.attention_norm, f"{name}.attention_norm")
        attention = layer.attention
        yield from port_kernel(attention.qkv, f"{name}.attention.qkv")
        yield from port_kernel(attention.depthwise, f"{name}.attention.depthwise")
        yield from port_kernel(attention.modulate, f"{name}.attention.modulate")
        yield from port_kernel(attention.project, f"{name}.attention.output")
        yield Port(f"{name}.attention.temperature", attention.temperature)
    yield from port_layer_norm(layer.feed_forward_norm, f"{name}.feed_forward_norm")
    for part in ("partial", "expand", "depthwise", "project"):
        yield from port_kernel(getattr(layer.feed_forward, part), f"{name}.feed_forward.{part}")


def port_context(layer: Any, name: str) -> Iterator[Port]:
    """The global context of the bottleneck."""
    yield from port_layer_norm(layer.norm, f"{name}.norm")
    yield from port_kernel(layer.gather, f"{name}.gather")
    yield from port_kernel(layer.spread, f"{name}.spread")
    yield from port_kernel(layer.gate, f"{name}.gate")


def ports_of(model: Network) -> Iterator[Port]:
    """Every variable of a model. `decoder_0_1` in Keras is `decoder.0.1` in PyTorch."""
    for layer in model.layers:
        name = re.sub(r"_(\d+)", r".\1", layer.name)
        if isinstance(layer, Block):
            yield from port_block(layer, name)
        elif isinstance(layer, ChannelBlock):
            yield from port_channel_block(layer, name)
        elif isinstance(layer, GlobalContext):
            yield from port_context(layer, name)
        elif type(layer) in KERNEL_AXES:
            yield from port_kernel(layer, name)


def assign_state(model: Network, state: Mapping[str, Tensor]) -> None:
    """Copies a PyTorch state dict (our names) into a Keras model.

    Args:
        model: changed in place.
        state: one tensor for each variable.

    Raises:
        CheckpointError: naming the first keys that are unknown, missing or of another shape; then
            nothing was changed.
    """
    misfits = models.find_misfits(state, state_of(model))
    if misfits:
        raise CheckpointError(
            f"the state dict does not fit {model.name!r}: {misfits}. Is it of another config?"
        )
    for port in ports_of(model):
        port.to_keras(state[port.name])


def state_of(model: Network) -> dict[str, Tensor]:
    """The weights of a Keras model as a PyTorch state dict (our names), float32."""
    return {port.name: port.to_torch() for port in ports_of(model)}


def from_torch(model: models.Network, *, name: str = "ast", dtype: Any = None) -> Network:
    """A Keras model with the config and the weights of a PyTorch model.

    Args:
        model: stays as it is.
        name: name of the Keras model.
        dtype: a dtype policy or its name, as `mixed_bfloat16`; None takes the global one.

    Returns:
        A model (B, H, W, 3) → (B, H, W, 3).
    """
    ours = build_network(model.config, name=name, dtype=dtype)
    assign_state(ours, model.state_dict())
    return ours


def to_torch(model: Network) -> models.Network:
    """A PyTorch model with the config and the weights of a Keras model.

    `fairweather.models.save_model` and `save_official` write it for `Restorer` and for the official
    code.

    Args:
        model: stays as it is.

    Returns:
        A module (B, 3, H, W) → (B, 3, H, W) on the CPU in float32, in evaluation mode.
    """
    theirs = models.build_network(model.config)
    theirs.load_state_dict(state_of(model))
    return theirs.eval()


def load_model(
    weights: str | Path, *, bottleneck_shift: bool | None = None, dtype: Any = None
) -> Network:
    """Loads weights into a Keras model; the architecture is told from the file.

    Args:
        weights: what `fairweather.load_model` takes (a bundled name, a `.safetensors`, an official
            `.pth`, a folder), or a `.keras` or `.weights.h5` file of ours.
        bottleneck_shift: as for `fairweather.load_model`; None keeps what the file says.
        dtype: a dtype policy or its name, as `mixed_bfloat16`; None takes the global one.

    Returns:
        A model (B, H, W, 3) RGB in [0, 1] → (B, H, W, 3), not compiled.

    Raises:
        CheckpointError: if the file is missing, unsafe, broken, or of another network, or if its
            values are not finite.
        OptionError: as for `fairweather.load_model`.
    """
    if not str(weights).endswith(KERAS_SUFFIXES):
        return from_torch(
            models.load_model(weights, bottleneck_shift=bottleneck_shift), dtype=dtype
        )
    path = Path(weights)
    if not path.is_file():
        raise CheckpointError(f"{path}: is no file")
    config = read_config(path)
    if bottleneck_shift is not None:
        config = models.with_bottleneck_shift(config, shifts=bottleneck_shift, source=path)
    model = build_network(config, name=models.architecture_of(config), dtype=dtype)
    try:
        model.load_weights(path)
    except Exception as error:  # h5py and Keras raise nearly anything on a file that is broken
        raise CheckpointError(f"{path}: {first_line(error)}") from error
    models.refuse_nonfinite(state_of(model), source=path)
    return model


def read_config(path: Path) -> Config:
    """The config that a Keras file of an AST holds, if the file holds as many numbers as it asks.

    No code of the file is run: what Keras would build from it is not looked at.
    """
    try:
        with open_weights(path) as (file, content):
            numbers, variables = count_numbers(file, most_bytes=path.stat().st_size)
            if content is None:
                content = json.loads(np.asarray(file["vars/config"]).tobytes())
            elif content["class_name"] not in ("AST", "ASTv2"):
                raise ValueError(f"it is a model of class {content['class_name']}")
            else:
                content = content["config"]["config"]
        config = models.make_config({"symmetries": "horizontal_flip", **content})  # if it is old
        if config.blocks > variables:
            raise ValueError(f"it asks for {config.blocks} blocks, and holds {variables} arrays")
        asked = sum(tensor.numel() for tensor in models.expected_state(config).values())
        if asked > numbers:
            raise ValueError(f"it asks for {asked:,} numbers, and holds {numbers:,}")
    except Exception as error:  # h5py and zipfile raise nearly anything on a file that is broken
        raise CheckpointError(
            f"{path}: is no AST that fairweather.keras saved: {first_line(error)}"
        ) from error
    return config


@contextlib.contextmanager
def open_weights(path: Path) -> Iterator[tuple[h5py.File, Any]]:
    """Open the arrays of a Keras file, and what its `config.json` says if it is an archive."""
    if path.suffix != ".keras":
        with h5py.File(path) as file:
            yield file, None
        return
    models.refuse_bomb(path)
    with (
        zipfile.ZipFile(path) as archive,
        archive.open("model.weights.h5") as inside,
        h5py.File(inside) as file,
    ):
        yield file, json.loads(archive.read("config.json"))


def count_numbers(file: h5py.File, *, most_bytes: int) -> tuple[int, int]:
    """Count numbers and arrays in an HDF5 file; refuse what lies elsewhere or is not written."""
    links: list[tuple[str, object]] = []
    file.visititems_links(lambda *link: links.append(link))  # which must not raise
    if elsewhere := [name for name, link in links if not isinstance(link, h5py.HardLink)]:
        raise ValueError(f"{elsewhere[0]} is a link to elsewhere")
    arrays: list[Any] = [one for name, _ in links if isinstance(one := file[name], h5py.Dataset)]
    for array in arrays:
        if array.external or array.is_virtual or array.dtype.kind not in "fiub":
            raise ValueError(f"{array.name} is no plain array of this file")
    if sum(array.nbytes for array in arrays) > most_bytes:
        raise ValueError("its arrays would unpack to more than the file")
    return sum(array.size for array in arrays), len(arrays)


def first_line(error: Exception) -> str:
    """What an error says first."""
    return str(error).partition("\n")[0] or type(error).__name__


def save_model(model: Network, path: str | Path) -> None:
    """Writes a `.keras` or a `.weights.h5`, in one move.

    Args:
        model: the model; a `.keras` file has its optimiser too, if it is compiled.
        path: where to; a file of that name is replaced.

    Raises:
        OptionError: for another suffix.
        OSError: if the file cannot be written.
    """
    name = Path(path).name
    if not name.endswith(KERAS_SUFFIXES):
        raise OptionError(f"{path}: Keras weights are written as {' or '.join(KERAS_SUFFIXES)}")
    with staging(path, overwrite=True) as whole:
        if name.endswith(".keras"):
            model.save(whole)
        else:
            model.save_weights(whole)
