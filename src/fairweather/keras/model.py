"""AST, the Adaptive Sparse Transformer (Zhou et al., CVPR 2024), as a Keras 3 model."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

import keras
import numpy as np

from fairweather.keras.attention import WindowAttention
from fairweather.keras.layers import (
    AddCropped,
    FeedForward,
    GlobalContext,
    LeakyReLU,
    PadToMultiple,
    SameShape,
    Shape,
    StochasticDepth,
    convolution,
    norm,
    precise_dtype,
    register,
    upsampling,
)
from fairweather.models import (
    ASTConfig,
    find_config,
    shift_pattern,
    stochastic_depth_schedule,
)


@register
class Block(SameShape):
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

    def build(self, input_shape: Shape) -> None:
        if self.attention is not None:
            self.attention_norm.build(input_shape)
            self.attention.build(input_shape)
        self.feed_forward_norm.build(input_shape)
        self.feed_forward.build(input_shape)

    def call(self, x: Any, *, training: bool | None = None) -> Any:
        if self.attention is not None:
            attended = self.attention(self.attention_norm(x))
            x = x + self.stochastic_depth(attended, training=training)
        refined = self.feed_forward(self.feed_forward_norm(x))
        return x + self.stochastic_depth(refined, training=training)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options}


@register
class AST(keras.Model):
    """The Adaptive Sparse Transformer: (B, H, W, 3) RGB in [0, 1] → the same shape, not clipped.

    Channels come last, as Keras users expect, whatever `keras.config.image_data_format()` is.
    Any H and W from 1 up: the image is padded once, at the bottom and right, to a multiple of
    `config.size_multiple`, and the output is cropped. With the same weights the output is that of
    `fairweather.create_model`, whose images are (B, 3, H, W).

    A functional model on every backend: `summary()`, `get_layer`, `compile`, `fit`, `save` and
    `export` work as on any other.

    Args:
        config: the architecture, as fairweather's PyTorch model takes it, or its fields.
        name: name of the model.
        trainable: whether its weights are trained.
        dtype: a dtype policy or its name, as `mixed_bfloat16`; None takes the global one. The
            image, what is added to it, and the softmax are float32 under every policy.
    """

    def __init__(
        self,
        config: ASTConfig | Mapping[str, Any],
        *,
        name: str = "ast",
        trainable: bool = True,
        dtype: Any = None,
    ):
        if not isinstance(config, ASTConfig):
            config = ASTConfig(**config)
        policy = keras.dtype_policies.get(dtype)
        image = keras.Input(
            (None, None, 3), dtype=precise_dtype(policy.compute_dtype), name="image"
        )
        restored = restore(image, config, policy=policy)
        super().__init__(inputs=image, outputs=restored, name=name, trainable=trainable)
        self.dtype_policy = policy
        self.config = config

    def zero_output(self) -> None:
        """Makes the predicted residual zero, so that the model returns its input until trained."""
        output_conv = self.get_layer("output_conv")
        for variable in (output_conv.kernel, output_conv.bias):
            variable.assign(np.zeros(variable.shape))

    def get_config(self) -> dict[str, Any]:
        return {
            "config": dataclasses.asdict(self.config),
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        return cls(**config)

    def save_own_variables(self, store: Any) -> None:
        # A .weights.h5 alone says too little to build its model; this says all.
        text = json.dumps(dataclasses.asdict(self.config))
        store["config"] = np.frombuffer(text.encode(), dtype=np.uint8)

    def load_own_variables(self, store: Any) -> None:
        """Nothing: all variables are the layers', and whether they fit is for them to say."""


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


def create_model(
    preset: str | ASTConfig,
    *,
    init: str = "identity",
    name: str | None = None,
    dtype: Any = None,
) -> AST:
    """Builds an untrained model.

    Args:
        preset: a name of `fairweather.models.PRESETS` (`ast_n`, `ast_s`, `ast_t`, `ast_b`) or a
            config.
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
    model = AST(config, name=name, dtype=dtype)
    if init == "identity":
        model.zero_output()
    return model
