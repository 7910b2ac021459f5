"""The parameter names of the official AST-v2 and ours, as a table read both ways."""

from collections.abc import Mapping

from torch import Tensor

from fairweather.models.names import replace_part, replace_prefix

OFFICIAL_MODULES = (
    ("input_conv", "patch_embed.proj"),
    ("output_conv", "output"),
    ("encoder.0.{}", "encoder_level1.{}"),
    ("encoder.1.{}", "encoder_level2.{}"),
    ("encoder.2.{}", "encoder_level3.{}"),
    ("decoder.0.{}", "decoder_level3.{}"),
    ("decoder.1.{}", "decoder_level2.{}"),
    ("decoder.2.{}", "decoder_level1.{}"),
    ("refinement.{}", "refinement.{}"),
    ("downsample.0", "down1_2.body.0"),
    ("downsample.1", "down2_3.body.0"),
    ("upsample.0", "up3_2.body.0"),
    ("upsample.1", "up2_1.body.0"),
    ("reduce.0", "reduce_chan_level2"),
)
OFFICIAL_BLOCK_PARTS = (
    ("attention_norm", "norm1.body"),
    ("attention.temperature", "attn.temperature"),
    ("attention.qkv", "attn.qkv"),
    ("attention.depthwise", "attn.qkv_dwconv"),
    ("attention.modulate", "attn.att_ca"),
    ("attention.output", "attn.project_out"),
    ("feed_forward_norm", "norm2.body"),
    ("feed_forward.partial", "ffn.partial_conv3"),
    ("feed_forward.expand", "ffn.project_in"),
    ("feed_forward.depthwise", "ffn.dwconv"),
    ("feed_forward.project", "ffn.project_out"),
)
# Linear layers of ours, which officially are convolutions of one pixel.
LINEAR = ("qkv", "modulate", "attention.output", "expand", "project", "reduce.0")


def is_official_v2(state: Mapping[str, Tensor]) -> bool:
    """Return whether a state dict has the names of the official AST-v2."""
    return any(key.startswith("patch_embed.") for key in state)


def from_official_v2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename official names to ours; names that are in no table stay as they are."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for ours, official in OFFICIAL_MODULES:
            name = replace_prefix(name, official, ours)
        for ours, official in OFFICIAL_BLOCK_PARTS:
            name = replace_part(name, official, ours)
        is_pixelwise = is_linear(name) and tensor.shape[2:] == (1, 1)
        renamed[name] = tensor.flatten(1) if is_pixelwise else tensor
    return renamed


def to_official_v2(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our names to official ones."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor[..., None, None] if is_linear(name) else tensor
        for ours, official in OFFICIAL_MODULES:
            if (prefixed := replace_prefix(name, ours, official)) != name:
                name = prefixed
                break
        for ours, official in OFFICIAL_BLOCK_PARTS:
            name = replace_part(name, ours, official)
        renamed[name] = tensor
    return renamed


def is_linear(name: str) -> bool:
    """Return whether one of our names is the weight of a linear layer."""
    return name.endswith(tuple(f"{layer}.weight" for layer in LINEAR))
