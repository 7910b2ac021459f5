"""What AST is made of in Keras: padding, linear layers and convolutions, feed-forward networks.

The same computations as fairweather's PyTorch model, written in `keras.ops` alone, so that they run
on TensorFlow, JAX and PyTorch. Tensors are (B, H, W, C); H and W may be unknown until a call.
Each layer says its output shape itself: no backend has to trace sizes that are None.
"""

import random
from typing import Any

import keras
import numpy as np

from fairweather.models import OPEN_GATE

NORM_EPSILON = 1e-5  # PyTorch's; Keras' own would be 1e-3.
LINEAR_STDDEV = 0.02

Shape = tuple[int | None, ...]
ops: Any = keras.ops  # its annotations are unions of all backends' tensors and None


def precise_dtype(dtype: str) -> str:
    """Float32, or the dtype itself if it is wider: for what bfloat16 and float16 would spoil."""
    return dtype if dtype == "float64" else "float32"  # Keras' result_type knows no float64


def register(layer: Any) -> Any:
    """Lets Keras find a class of ours when it reads a saved model."""
    return keras.saving.register_keras_serializable(package="fairweather")(layer)


@register
class Spread(keras.initializers.Initializer):
    """Random numbers around zero, drawn by NumPy: the same on every backend for the same seed.

    And at once: JAX compiles Keras' own initialisers for each shape, which takes a minute for an
    AST. `keras.utils.set_random_seed` decides the numbers where `seed` is None.

    Args:
        scale: standard deviation of a normal distribution, or the limit of a uniform one.
        uniform: whether the distribution is uniform.
        seed: of the numbers; None draws one.
    """

    def __init__(self, scale: float, *, uniform: bool = False, seed: int | None = None):
        self.scale, self.uniform = scale, uniform
        self.seed = random.getrandbits(32) if seed is None else seed

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        generator = np.random.default_rng(self.seed)
        if self.uniform:
            numbers = generator.uniform(-self.scale, self.scale, shape)
        else:
            numbers = generator.normal(0, self.scale, shape)
        return ops.convert_to_tensor(numbers.astype("float32"), dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "uniform": self.uniform, "seed": self.seed}


def fan_uniform(fan_in: int) -> Spread:
    """PyTorch's initialisation of a convolution's kernel and of its bias."""
    return Spread(fan_in**-0.5, uniform=True)


def linear(units: int, policy: Any, *, name: str) -> Any:
    """A dense layer, initialised as the official code does it."""
    spread = Spread(LINEAR_STDDEV)
    return keras.layers.Dense(units, kernel_initializer=spread, dtype=policy, name=name)


def pixelwise(units: int, policy: Any, *, name: str, channels: int) -> Any:
    """A dense layer without a bias, initialised as PyTorch's convolution of single pixels is."""
    return keras.layers.Dense(
        units,
        use_bias=False,
        kernel_initializer=fan_uniform(channels),
        dtype=policy,
        name=name,
    )


def convolution(
    filters: int,
    size: int,
    policy: Any,
    *,
    name: str,
    channels: int,
    stride: int = 1,
    bias: bool = True,
) -> Any:
    """A convolution of `channels` that gives 1 / stride of the size, a whole number."""
    fan_in = channels * size**2
    return keras.layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="same",
        data_format="channels_last",
        use_bias=bias,
        kernel_initializer=fan_uniform(fan_in),
        bias_initializer=fan_uniform(fan_in),
        dtype=policy,
        name=name,
    )


def upsampling(filters: int, policy: Any, *, name: str, size: int = 2, stride: int = 2) -> Any:
    """A transposed convolution that gives `stride` times the size."""
    fan_in = size**2 * filters  # as PyTorch counts it for a transposed convolution
    return keras.layers.Conv2DTranspose(
        filters,
        size,
        strides=stride,
        padding="same",
        data_format="channels_last",
        kernel_initializer=fan_uniform(fan_in),
        bias_initializer=fan_uniform(fan_in),
        dtype=policy,
        name=name,
    )


def norm(policy: Any, *, name: str) -> Any:
    """A layer norm over the channels."""
    return keras.layers.LayerNormalization(epsilon=NORM_EPSILON, dtype=policy, name=name)


def depthwise(policy: Any, *, name: str = "depthwise", bias: bool = True) -> Any:
    """A 3 × 3 depthwise convolution."""
    return keras.layers.DepthwiseConv2D(
        3,
        padding="same",
        data_format="channels_last",
        depthwise_initializer=fan_uniform(9),
        bias_initializer=fan_uniform(9),
        use_bias=bias,
        dtype=policy,
        name=name,
    )


def gelu(x: Any) -> Any:
    """The exact GELU, with the error function."""
    return ops.gelu(x, approximate=False)


@register
class PadToMultiple(keras.layers.Layer):
    """Pads (B, H, W, C) at the bottom and right to a multiple [px].

    By reflection, or by replication along an axis that is not longer than its padding.
    """

    def __init__(self, multiple: int, **layer: Any):
        super().__init__(**layer)
        self.multiple = multiple

    def call(self, image: Any) -> Any:
        for axis in (1, 2):
            length = ops.shape(image)[axis]
            padded = (length + self.multiple - 1) // self.multiple * self.multiple
            if isinstance(length, int) and length == padded:
                continue
            place = ops.arange(padded)
            reflected = ops.where(place < length, place, 2 * (length - 1) - place)
            replicated = ops.minimum(place, length - 1)
            is_longer = ops.convert_to_tensor(length > padded - length)
            image = ops.take(image, ops.where(is_longer, reflected, replicated), axis=axis)
        return image

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, *lengths, channels = input_shape
        return (batch, *(n and -(-n // self.multiple) * self.multiple for n in lengths), channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "multiple": self.multiple}


@register
class AddCropped(keras.layers.Layer):
    """Adds the top left part of a residual (B, ≥ H, ≥ W, C) to an image (B, H, W, C)."""

    def call(self, image: Any, residual: Any) -> Any:
        _, height, width, _ = ops.shape(image)
        return image + residual[:, :height, :width]

    def compute_output_shape(self, image_shape: Shape, residual_shape: Shape) -> Shape:
        return image_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config()  # Keras would not serialise a dtype policy unasked


class SameShape(keras.layers.Layer):
    """A layer whose output has the shape of its input."""

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


class BlockOfParts(SameShape):
    """A block of an attention, if there is any, and a feed-forward network, behind norms.

    Attributes:
        options: what it was made from.
        attention: behind `attention_norm`, or None.
        feed_forward: behind `feed_forward_norm`.
    """

    options: dict[str, Any]
    attention: Any
    attention_norm: Any
    feed_forward: Any
    feed_forward_norm: Any

    def build(self, input_shape: Shape) -> None:
        if self.attention is not None:
            self.attention_norm.build(input_shape)
            self.attention.build(input_shape)
        self.feed_forward_norm.build(input_shape)
        self.feed_forward.build(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.options}


@register
class LeakyReLU(SameShape):
    """x, or 0.01·x where x is negative.

    Of plain operations: TensorFlow's optimiser of graphs fails on the gradient of its own leaky
    ReLU behind a convolution, says so, and leaves the whole graph as it is.
    """

    def call(self, x: Any) -> Any:
        return ops.where(x > 0, x, 0.01 * x)

    def get_config(self) -> dict[str, Any]:
        return super().get_config()  # Keras would not serialise a dtype policy unasked


@register
class FeedForward(SameShape):
    """The feed-forward network of a block, one of three kinds.

    `frfn` is the paper's (section 3.3): a partial convolution enhances, a gated depthwise one
    eases. `leff` (Uformer, CVPR 2022) has a depthwise convolution between two linear layers, and
    `mlp` has nothing between them.
    """

    def __init__(self, hidden: int, *, kind: str, **layer: Any):
        super().__init__(**layer)
        self.hidden, self.kind = hidden, kind

    def build(self, input_shape: Shape) -> None:
        channels, policy = input_shape[-1] or 0, self.dtype_policy
        if self.kind == "frfn":
            quarter = channels // 4
            self.partial = convolution(
                quarter, 3, policy, channels=quarter, bias=False, name="partial"
            )
            self.partial.build((*input_shape[:-1], quarter))
        width = 2 * self.hidden if self.kind == "frfn" else self.hidden
        self.expand = linear(width, policy, name="expand")
        self.expand.build(input_shape)
        inner = (*input_shape[:-1], self.hidden)
        if self.kind != "mlp":
            self.depthwise = depthwise(policy)
            self.depthwise.build(inner)
        self.project = linear(channels, policy, name="project")
        self.project.build(inner)

    def call(self, x: Any) -> Any:
        if self.kind == "frfn":
            quarter = x.shape[-1] // 4
            x = ops.concatenate([self.partial(x[..., :quarter]), x[..., quarter:]], axis=-1)
            local, gate = ops.split(gelu(self.expand(x)), 2, axis=-1)
            return self.project(gelu(self.depthwise(local)) * gate)
        x = gelu(self.expand(x))
        return self.project(x if self.kind == "mlp" else gelu(self.depthwise(x)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "hidden": self.hidden, "kind": self.kind}


@register
class GlobalContext(keras.layers.Layer):
    """What the whole image looks like, which a window cannot see: is there any haze at all?

    Takes the features (B, H, W, C) and the image that they are of, `scale` times as large: what
    lies beyond it is left out. Gives the features with what the mean says, and a gate (B, 1, 1, 1)
    for the residual.

    Attributes:
        told: what to take the mean of instead, (B, rows, columns, C), while a tile is exported.
    """

    def __init__(self, scale: int, **layer: Any):
        super().__init__(**layer)
        self.scale = scale
        self.told: Any = None

    def build(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x_shape: Shape, image_shape: Shape
    ) -> None:
        channels, policy = x_shape[-1] or 0, self.dtype_policy
        self.norm = norm(policy, name="norm")
        self.norm.build(x_shape)
        self.gather = linear(channels, policy, name="gather")
        self.gather.build(x_shape)
        self.spread = keras.layers.Dense(
            channels, kernel_initializer="zeros", dtype=policy, name="spread"
        )
        start: Any = keras.initializers.Constant(OPEN_GATE)  # Keras' annotations know only names
        self.gate = keras.layers.Dense(
            1,
            activation="sigmoid",
            kernel_initializer="zeros",
            bias_initializer=start,
            dtype=policy,
            name="gate",
        )
        for layer in (self.spread, self.gate):
            layer.build((x_shape[0], 1, 1, channels))

    def call(self, x: Any, image: Any) -> tuple[Any, Any]:
        places = self.look_around(x, image) if self.told is None else self.told
        context = gelu(ops.mean(places, axis=(1, 2), keepdims=True))
        return x + self.spread(context), self.gate(context)

    def look_around(self, x: Any, image: Any) -> Any:
        """Return what each place of the image says, (B, rows, columns, C)."""
        _, height, width, _ = ops.shape(image)
        rows, columns = ((side + self.scale - 1) // self.scale for side in (height, width))
        return gelu(self.gather(self.norm(x[:, :rows, :columns])))

    def compute_output_shape(self, x_shape: Shape, image_shape: Shape) -> tuple[Shape, Shape]:
        return x_shape, (x_shape[0], 1, 1, 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale}


@register
class StochasticDepth(SameShape):
    """Drops a residual branch of whole samples while training, and scales the kept ones up."""

    def __init__(self, probability: float, *, seed: int | None = None, **layer: Any):
        super().__init__(**layer)
        self.probability, self.seed = probability, seed
        if probability:
            self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, *, training: bool | None = None) -> Any:
        if not training or not self.probability:
            return x
        keep = 1 - self.probability
        shape = (ops.shape(x)[0], *[1] * (len(x.shape) - 1))
        kept = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator) < keep
        return x * (ops.cast(kept, x.dtype) / keep)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "probability": self.probability, "seed": self.seed}
