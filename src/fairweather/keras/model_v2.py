"""AST-v2 (Zhou et al., TPAMI 2025) as a Keras 3 model."""

from typing import Any

import keras
import numpy as np

from fairweather.keras.layers import (
    AddCropped,
    BlockOfParts,
    PadToMultiple,
    SameShape,
    Shape,
    convolution,
    depthwise,
    gelu,
    norm,
    ops,
    pixelwise,
    precise_dtype,
    register,
)
from fairweather.keras.network import Network
from fairweather.models import LEAST_LENGTH, ASTv2Config


@register
class ChannelAttention(SameShape):
    """Adaptive sparse attention among the channels of a head, over all tokens of the image.

    Cosines, softmax and what modulates it are float32 under every dtype policy.
    """

    def __init__(self, heads: int, **layer: Any):
        super().__init__(**layer)
        self.heads = heads

    def build(self, input_shape: Shape) -> None:
        channels, policy = input_shape[-1] or 0, self.dtype_policy
        size = channels // self.heads
        self.qkv = pixelwise(3 * channels, policy, channels=channels, name="qkv")
        self.qkv.build(input_shape)
        self.depthwise = depthwise(policy, bias=False)
        self.depthwise.build((*input_shape[:-1], 3 * channels))
        precise = precise_dtype(self.compute_dtype)
        self.modulate = pixelwise(2 * size, precise, channels=size, name="modulate")
        self.modulate.build((None, self.heads, size, size))
        self.project = pixelwise(channels, policy, channels=channels, name="project")
        self.project.build(input_shape)
        self.temperature = self.add_weight(
            name="temperature", shape=(self.heads, 1, 1), initializer="ones", autocast=False
        )

    def call(self, x: Any) -> Any:
        batch, height, width, channels = ops.shape(x)
        heads, size = self.heads, channels // self.heads
        qkv = self.depthwise(self.qkv(x))
        tokens = [
            ops.reshape(part, (batch, height * width, heads, size))
            for part in ops.split(qkv, 3, axis=-1)
        ]
        query, key, value = (ops.transpose(part, (0, 2, 3, 1)) for part in tokens)
        attended = ops.matmul(ops.cast(self.weigh(query, key), value.dtype), value)
        attended = ops.reshape(ops.transpose(attended, (0, 3, 1, 2)), (-1, height, width, channels))
        return self.project(attended)

    def weigh(self, query: Any, key: Any) -> Any:
        """Attention weights (B, heads, queries, keys) of (B, heads, channels, tokens)."""
        query, key = (ops.cast(each, precise_dtype(self.compute_dtype)) for each in (query, key))
        lengths = [
            ops.maximum(ops.sqrt(ops.sum(ops.square(each), -1, keepdims=True)), LEAST_LENGTH)
            for each in (query, key)
        ]
        products = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
        lengths = lengths[0] * ops.transpose(lengths[1], (0, 1, 3, 2))
        logits = products / lengths * ops.cast(self.temperature, products.dtype)
        sparse = ops.square(ops.relu(logits))
        scale, shift = ops.split(self.modulate(gelu(sparse) * sparse), 2, axis=-1)
        return ops.softmax(logits) * (1 + scale) + shift

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads}


@register
class GroupedFeatureRefinement(SameShape):
    """FRFN of AST-v2: half of each group of channels is enhanced, by filters that groups share."""

    def __init__(self, hidden: int, *, groups: int, **layer: Any):
        super().__init__(**layer)
        self.hidden, self.groups = hidden, groups

    def build(self, input_shape: Shape) -> None:
        channels, policy = input_shape[-1] or 0, self.dtype_policy
        self.partial = depthwise(policy, name="partial", bias=False)
        self.partial.build((*input_shape[:-1], channels // (2 * self.groups)))
        self.expand = pixelwise(2 * self.hidden, policy, channels=channels, name="expand")
        self.expand.build(input_shape)
        inner = (*input_shape[:-1], self.hidden)
        self.depthwise = depthwise(policy, bias=False)
        self.depthwise.build(inner)
        self.project = pixelwise(channels, policy, channels=self.hidden, name="project")
        self.project.build(inner)

    def call(self, x: Any) -> Any:
        local, gate = ops.split(self.expand(self.enhance(x)), 2, axis=-1)
        return self.project(self.depthwise(local) * gate)

    def enhance(self, x: Any) -> Any:
        """Convolves the first half of each group of channels."""
        filters = ops.cast(self.partial.kernel, x.dtype)
        untouched = x.shape[-1] // self.groups - filters.shape[2]
        # The other channels go through a filter that changes nothing: one convolution for all.
        same = np.zeros((3, 3, untouched, 1), np.float32)
        same[1, 1] = 1
        filters = ops.concatenate([filters, ops.cast(same, x.dtype)], axis=2)
        filters = ops.tile(filters, (1, 1, self.groups, 1))
        return ops.depthwise_conv(x, filters, padding="same", data_format="channels_last")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": self.hidden, "groups": self.groups}


@register
class ChannelBlock(BlockOfParts):
    """Attention among channels in the decoder, then the feed-forward network.

    Args:
        heads: attention heads; 0 for a block without attention.
        hidden: inner channels of the feed-forward network.
        groups: of its channels.
        layer: name, trainable and dtype, as Keras layers take them.
    """

    def __init__(self, *, heads: int, hidden: int, groups: int, **layer: Any):
        super().__init__(**layer)
        self.options = {"heads": heads, "hidden": hidden, "groups": groups}
        policy = self.dtype_policy
        self.attention = None
        if heads:
            self.attention_norm = norm(policy, name="attention_norm")
            self.attention = ChannelAttention(heads, dtype=policy, name="attention")
        self.feed_forward_norm = norm(policy, name="feed_forward_norm")
        self.feed_forward = GroupedFeatureRefinement(
            hidden, groups=groups, dtype=policy, name="feed_forward"
        )

    def call(self, x: Any) -> Any:
        if self.attention is not None:
            x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


@register
class SpaceToChannels(keras.layers.Layer):
    """Makes one token of 2 × 2: (B, H, W, C) → (B, H / 2, W / 2, 4C), as PyTorch orders them."""

    def call(self, x: Any) -> Any:
        _, height, width, channels = ops.shape(x)
        # The rows of a batch are one axis: LiteRT multiplies no more than five.
        x = ops.reshape(x, (-1, 2, width // 2, 2, channels))
        x = ops.transpose(x, (0, 2, 4, 1, 3))
        return ops.reshape(x, (-1, height // 2, width // 2, 4 * channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return (batch, height and height // 2, width and width // 2, 4 * (channels or 0))

    def get_config(self) -> dict[str, Any]:
        return super().get_config()  # Keras would not serialise a dtype policy unasked


@register
class ChannelsToSpace(keras.layers.Layer):
    """Makes 2 × 2 tokens of one: (B, H, W, 4C) → (B, 2H, 2W, C)."""

    def call(self, x: Any) -> Any:
        _, height, width, channels = ops.shape(x)
        x = ops.reshape(x, (-1, width, channels // 4, 2, 2))
        x = ops.transpose(x, (0, 3, 1, 4, 2))
        return ops.reshape(x, (-1, 2 * height, 2 * width, channels // 4))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return (batch, height and 2 * height, width and 2 * width, (channels or 0) // 4)

    def get_config(self) -> dict[str, Any]:
        return super().get_config()  # Keras would not serialise a dtype policy unasked


def restore(image: Any, config: ASTv2Config, *, policy: Any) -> Any:
    """Applies a new network to an image of unknown size."""
    channels, levels, precise = config.channels, config.levels, image.dtype

    def stage(x: Any, name: str, width: int, depth: int, heads: int = 0) -> Any:
        hidden = int(width * config.mlp_ratio + 1e-6)  # a ratio told from shapes is rounded
        options = {"heads": heads, "hidden": hidden, "groups": config.groups, "dtype": policy}
        for block in range(depth):
            x = ChannelBlock(**options, name=f"{name}_{block}")(x)
        return x

    def convolve(x: Any, filters: int, name: str) -> Any:
        return convolution(filters, 3, policy, channels=x.shape[-1], bias=False, name=name)(x)

    x = PadToMultiple(config.size_multiple, dtype=precise, name="pad")(image)
    x = convolve(x, config.embed_dim, "input_conv")
    skips = []
    for level, depth in enumerate(config.depths):
        x = stage(x, f"encoder_{level}", channels[level], depth)
        if level < levels:
            skips.append(x)
            x = convolve(x, channels[level] // 2, f"downsample_{level}")
            x = SpaceToChannels(dtype=policy, name=f"halve_{level}")(x)
    for index, depth in enumerate(config.depths[::-1]):
        width = channels[levels + index]
        if index > 0:
            x = convolve(x, 2 * channels[levels + index - 1], f"upsample_{index - 1}")
            x = ChannelsToSpace(dtype=policy, name=f"double_{index - 1}")(x)
            x = keras.layers.Concatenate(dtype=policy, name=f"skip_{index - 1}")([x, skips.pop()])
        if 0 < index < levels:
            x = pixelwise(width, policy, channels=2 * width, name=f"reduce_{index - 1}")(x)
        x = stage(x, f"decoder_{index}", width, depth, config.heads[levels - index])
    x = stage(x, "refinement", channels[-1], config.refinement_blocks, config.heads[0])
    residual = convolve(x, 3, "output_conv")
    return AddCropped(dtype=precise, name="restored")(image, residual)


@register
class ASTv2(Network):
    """AST-v2 as a Keras model; see `Network`."""

    restore = staticmethod(restore)
