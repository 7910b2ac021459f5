"""AST, the Adaptive Sparse Transformer (Zhou et al., CVPR 2024), as a Keras 3 model."""

from typing import Any

import keras

from fairweather.keras.attention import WindowAttention
from fairweather.keras.layers import (
    AddCropped,
    BlockOfParts,
    FeedForward,
    GlobalContext,
    LeakyReLU,
    PadToMultiple,
    StochasticDepth,
    convolution,
    norm,
    register,
    upsampling,
)
from fairweather.keras.model_v2 import ASTv2
from fairweather.keras.network import Network
from fairweather.models import (
    ASTConfig,
    ASTv2Config,
    Config,
    find_config,
    shift_pattern,
    stochastic_depth_schedule,
)


@register
class Block(BlockOfParts):
    """Window attention where the stage has it, then the feed-forward network.

    Args:
        heads: attention heads; 0 for a block without attention.
        hidden: inner channels of the feed-forward network.
        feed_forward: `frfn`, `leff` or `mlp`.
        window: side of the attention window [tokens].
        shifts: whether the windows are shifted by half of their side.
        branches: `both`, `dense` or `sparse`.
        drop_probability: how often training skips a residual branch.
        layer: name, trainable and dtype, as Keras layers take them.
    """

    def __init__(
        self,
        *,
        heads: int,
        hidden: int,
        feed_forward: str,
        window: int,
        shifts: bool,
        branches: str,
        drop_probability: float,
        **layer: Any,
    ):
        super().__init__(**layer)
        self.options = {
            "heads": heads,
            "hidden": hidden,
            "feed_forward": feed_forward,
            "window": window,
            "shifts": shifts,
            "branches": branches,
            "drop_probability": drop_probability,
        }
        policy = self.dtype_policy
        self.attention = None
        if heads:
            self.attention_norm = norm(policy, name="attention_norm")
            attends = {"window": window, "shifts": shifts, "branches": branches}
            self.attention = WindowAttention(heads, **attends, dtype=policy, name="attention")
        self.feed_forward_norm = norm(policy, name="feed_forward_norm")
        self.feed_forward = FeedForward(
            hidden, kind=feed_forward, dtype=policy, name="feed_forward"
        )
        self.stochastic_depth = StochasticDepth(
            drop_probability, dtype=policy, name="stochastic_depth"
        )

    def call(self, x: Any, *, training: bool | None = None) -> Any:
        if self.attention is not None:
            attended = self.attention(self.attention_norm(x))
            x = x + self.stochastic_depth(attended, training=training)
        refined = self.feed_forward(self.feed_forward_norm(x))
        return x + self.stochastic_depth(refined, training=training)


def restore(image: Any, config: ASTConfig, *, policy: Any) -> Any:
    """Applies a new network to an image of unknown size."""
    channels, levels = config.channels, config.levels
    precise = image.dtype
    padded = PadToMultiple(config.size_multiple, dtype=precise, name="pad")(image)
    side, stride = 3 * config.fold, config.fold
    x = convolution(config.embed_dim, side, policy, channels=3, stride=stride, name="input_conv")(
        padded
    )
    x = LeakyReLU(dtype=policy, name="input_activation")(x)
    skips = []
    for level in range(levels):
        x = run_stage(x, config, level, policy=policy)
        skips.append(x)
        x = convolution(
            channels[level + 1],
            4,
            policy,
            channels=channels[level],
            stride=2,
            name=f"downsample_{level}",
        )(x)
    gate = None
    if config.global_context:
        x, gate = GlobalContext(config.place_px, dtype=policy, name="context")(x, image)
    x = run_stage(x, config, levels, policy=policy)
    for level in range(levels):
        stage = levels + 1 + level
        x = upsampling(channels[stage] // 2, policy, name=f"upsample_{level}")(x)
        x = keras.layers.Concatenate(dtype=policy, name=f"skip_{level}")([x, skips.pop()])
        x = run_stage(x, config, stage, policy=policy)
    if config.fold == 1:
        last = convolution(3, 3, policy, channels=channels[-1], name="output_conv")
    else:
        last = upsampling(3, policy, size=side, stride=stride, name="output_conv")
    residual = last(x)
    if gate is not None:
        residual = keras.layers.Multiply(dtype=policy, name="gated")([residual, gate])
    return AddCropped(dtype=precise, name="restored")(image, residual)


def run_stage(x: Any, config: ASTConfig, stage: int, *, policy: Any) -> Any:
    """Applies the new blocks of a stage to (B, H, W, C)."""
    levels, channels = config.levels, config.channels[stage]
    name = "bottleneck"
    if stage != levels:
        name = f"encoder_{stage}" if stage < levels else f"decoder_{stage - levels - 1}"
    first = sum(config.depths[:stage])
    drops = stochastic_depth_schedule(config)[first:]
    for index, shifts in enumerate(shift_pattern(config, stage)):
        x = Block(
            heads=config.heads[stage] if config.attends(stage) else 0,
            hidden=int(channels * config.mlp_ratio + 1e-6),  # a ratio told from shapes is rounded
            feed_forward=config.feed_forward,
            window=config.window,
            shifts=shifts,
            branches=config.branches,
            drop_probability=drops[index],
            dtype=policy,
            name=f"{name}_{index}",
        )(x)
    return x


@register
class AST(Network):
    """The Adaptive Sparse Transformer as a Keras model; see `Network`."""

    restore = staticmethod(restore)


def build_network(config: Config, *, name: str, dtype: Any = None) -> Network:
    """Builds the network that a config is of, with the official initialisation."""
    network = ASTv2 if isinstance(config, ASTv2Config) else AST
    return network(config, name=name, dtype=dtype)


def create_model(
    preset: str | Config,
    *,
    init: str = "identity",
    name: str | None = None,
    dtype: Any = None,
) -> Network:
    """Builds an untrained model.

    Args:
        preset: a name of `fairweather.models.PRESETS` (`ast_n`, `ast_t`, `astv2` …) or a config.
        init: `identity` returns its input until it is trained (the output layer starts at zero);
            `official` keeps the official initialisation of every layer.
        name: name of the model; None takes the preset's.
        dtype: a dtype policy or its name, as `mixed_bfloat16`; None takes the global one.

    Returns:
        A model (B, H, W, 3) in [0, 1] → (B, H, W, 3).

    Raises:
        OptionError: for an unknown preset or initialisation.
    """
    config = find_config(preset, init=init)
    name = name or (preset if isinstance(preset, str) else "ast")
    model = build_network(config, name=name, dtype=dtype)
    if init == "identity":
        model.zero_output()
    return model
