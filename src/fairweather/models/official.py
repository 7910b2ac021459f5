"""The official model's parameter names and ours, as a table read both ways."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fairweather.errors import CheckpointError
from fairweather.models.names import replace_part, replace_prefix
from fairweather.models.windows import relative_position_index

# Where a module of ours is in the official model; {} stands for a number.
OFFICIAL_MODULES = (
    ("input_conv", "input_proj.proj.0"),
    ("output_conv", "output_proj.proj.0"),
    ("encoder.{}.{}", "encoderlayer_{}.blocks.{}"),
    ("bottleneck.{}", "conv.blocks.{}"),
    ("decoder.{}.{}", "decoderlayer_{}.blocks.{}"),
    ("downsample.{}", "dowsample_{}.conv.0"),
    ("upsample.{}", "upsample_{}.deconv.0"),
)
# The same inside a block.
OFFICIAL_BLOCK_PARTS = (
    ("attention_norm", "norm1"),
    ("attention.output", "attn.proj"),
    ("attention.bias_table", "attn.relative_position_bias_table"),
    ("attention.branch_logits", "attn.w"),
    ("feed_forward_norm", "norm2"),
    ("feed_forward.partial", "mlp.partial_conv3"),
    ("feed_forward.expand", "mlp.linear1.0"),
    ("feed_forward.depthwise", "mlp.dwconv.0"),
    ("feed_forward.project", "mlp.linear2.0"),
)
OFFICIAL_PLAIN_PARTS = (("feed_forward.expand", "mlp.fc1"), ("feed_forward.project", "mlp.fc2"))
# Ours is one product; officially queries are made apart from keys and values.
QKV, OFFICIAL_QKV = "attention.qkv", ("attn.qkv.to_q", "attn.qkv.to_kv")
OFFICIAL_BUFFER = "attn.relative_position_index"


def is_official(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has official names."""
    return any(key.startswith("input_proj.") for key in state)


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official names to ours; names that are in no table stay as they are."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(OFFICIAL_BUFFER):
            continue
        for ours, official in OFFICIAL_MODULES:
            name = replace_prefix(name, official, ours)
        for ours, official in (*OFFICIAL_BLOCK_PARTS, *OFFICIAL_PLAIN_PARTS):
            name = replace_part(name, official, ours)
        renamed[name] = tensor
    to_q, to_kv = OFFICIAL_QKV
    for name in [name for name in renamed if f".{to_q}." in name]:
        key_value = renamed.pop(name.replace(to_q, to_kv), None)
        if key_value is not None:
            renamed[name.replace(to_q, QKV)] = torch.cat((renamed.pop(name), key_value))
    return renamed


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our names to official ones, with the index buffers that official state dicts carry.

    Raises:
        CheckpointError: for a network with a global context or a fold, which the official code has
            not.
    """
    if state["input_conv.weight"].shape[-1] != 3:
        raise CheckpointError(
            "these weights fold pixels into tokens (fold in their config), which the official code"
            " does not; keep them as .safetensors"
        )
    if any(name.startswith("context.") for name in state):
        raise CheckpointError(
            "these weights have a global context (global_context in their config), which the"
            " official code has not; keep them as .safetensors"
        )
    renamed: dict[str, Tensor] = {}
    is_plain = not any("feed_forward.depthwise" in name for name in state)
    parts = OFFICIAL_PLAIN_PARTS + OFFICIAL_BLOCK_PARTS if is_plain else OFFICIAL_BLOCK_PARTS
    to_q, to_kv = OFFICIAL_QKV
    for name, tensor in state.items():
        for ours, official in OFFICIAL_MODULES:
            name = replace_prefix(name, ours, official)
        for ours, official in parts:
            name = replace_part(name, ours, official)
        if QKV in name:
            channels = len(tensor) // 3
            renamed[name.replace(QKV, to_q)] = tensor[:channels].contiguous()
            renamed[name.replace(QKV, to_kv)] = tensor[channels:].contiguous()
            continue
        renamed[name] = tensor
        if name.endswith("relative_position_bias_table"):
            block = name.removesuffix("attn.relative_position_bias_table")
            renamed[block + OFFICIAL_BUFFER] = relative_position_index(window_of(tensor))
    return renamed


def window_of(bias_table: Tensor) -> int:
    """Return the side of the window that a bias table of (2·window − 1)² rows is for."""
    return (round(bias_table.shape[0] ** 0.5) + 1) // 2
