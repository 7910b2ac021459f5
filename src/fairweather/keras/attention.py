"""Adaptive sparse window attention (ASSA, section 3.2 of the paper) as a Keras layer."""

from typing import Any

import numpy as np

from fairweather.keras.layers import (
    LINEAR_STDDEV,
    SameShape,
    Shape,
    Spread,
    linear,
    ops,
    precise_dtype,
    register,
)
from fairweather.models import relative_position_index, shift_masks


@register
class WindowAttention(SameShape):
    """Adaptive sparse self-attention in windows (ASSA, section 3.2 of the paper).

    The logits q·kᵀ/√d + bias go through a softmax (dense branch) and through ReLU² (sparse branch);
    the two are fused with learnt weights that sum to one. Logits, softmax and fusion are float32
    under every dtype policy.
    """

    def __init__(self, heads: int, *, window: int, shifts: bool, branches: str, **layer: Any):
        super().__init__(**layer)
        self.heads, self.window, self.shifts, self.branches = heads, window, shifts, branches
        self.shift = window // 2 if shifts else 0
        self.bias_index = relative_position_index(window).numpy().astype(np.int32)
        self.row_mask, self.column_mask, _ = shift_masks(window, self.shift).numpy()

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[-1] or 0
        self.qkv = linear(3 * channels, self.dtype_policy, name="qkv")
        self.project = linear(channels, self.dtype_policy, name="project")
        for layer in (self.qkv, self.project):
            layer.build((None, self.window**2, channels))
        self.bias_table = self.add_weight(
            name="bias_table",
            shape=((2 * self.window - 1) ** 2, self.heads),
            initializer=Spread(LINEAR_STDDEV),
            autocast=False,
        )
        if self.branches == "both":
            self.branch_logits = self.add_weight(
                name="branch_logits", shape=(2,), initializer="ones", autocast=False
            )

    def call(self, x: Any) -> Any:
        _, height, width, channels = ops.shape(x)
        rows, columns = height // self.window, width // self.window
        if self.shift:
            x = ops.roll(x, (-self.shift, -self.shift), axis=(1, 2))
        # The rows of a batch are one axis: LiteRT multiplies no more than five.
        x = ops.reshape(x, (-1, self.window, columns, self.window, channels))
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3, 4)), (-1, self.window**2, channels))
        x = self.attend(x, rows, columns)
        x = ops.reshape(x, (-1, columns, self.window, self.window, channels))
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3, 4)), (-1, height, width, channels))
        return ops.roll(x, (self.shift, self.shift), axis=(1, 2)) if self.shift else x

    def attend(self, x: Any, rows: Any, columns: Any) -> Any:
        """(B · rows · columns, window², C) → the same shape: attention in each window."""
        tokens, channels = self.window**2, x.shape[-1]
        heads, size = self.heads, channels // self.heads
        qkv = ops.reshape(self.qkv(x), (-1, tokens, 3, heads, size))
        query, key, value = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), 3)
        logits = ops.matmul(query * size**-0.5, ops.transpose(key, (0, 1, 3, 2)))
        logits = ops.cast(logits, precise_dtype(self.compute_dtype)) + self.position_bias()
        if self.shift:
            mask = self.shift_mask(rows, columns, dtype=logits.dtype)
            logits = ops.reshape(logits, (-1, rows * columns, heads, tokens, tokens)) + mask
            logits = ops.reshape(logits, (-1, heads, tokens, tokens))
        weights = ops.cast(self.fuse_branches(logits), self.compute_dtype)
        attended = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
        return self.project(ops.reshape(attended, (-1, tokens, channels)))

    def fuse_branches(self, logits: Any) -> Any:
        """Attention weights of the same shape as the logits (…, queries, keys)."""
        if self.branches == "dense":
            return ops.softmax(logits)
        sparse = ops.square(ops.relu(logits))
        if self.branches == "sparse":
            return sparse
        share = ops.softmax(ops.cast(self.branch_logits, logits.dtype))[0]
        return sparse + share * (ops.softmax(logits) - sparse)

    def position_bias(self) -> Any:
        """What is added to the logits of every window: (heads, window², window²)."""
        table = ops.cast(self.bias_table, precise_dtype(self.compute_dtype))
        # Along the last axis, so that TensorFlow's gradient is dense and clipping sees its norm.
        bias = ops.take(ops.transpose(table), self.bias_index.ravel(), axis=1)
        return ops.reshape(bias, (self.heads, *self.bias_index.shape))

    def shift_mask(self, rows: Any, columns: Any, *, dtype: str) -> Any:
        """Return what keeps tokens from opposite sides of the image apart, for each window.

        After the cyclic shift only windows of the last row and column hold such tokens; in the
        corner both masks hold.

        Returns:
            (rows · columns, 1, window², window²), 0 or −100.
        """
        is_last_row = ops.reshape(ops.arange(rows) == rows - 1, (-1, 1, 1, 1))
        is_last_column = ops.reshape(ops.arange(columns) == columns - 1, (-1, 1, 1))
        masks = ops.minimum(
            ops.cast(is_last_row, dtype) * ops.cast(self.row_mask, dtype),
            ops.cast(is_last_column, dtype) * ops.cast(self.column_mask, dtype),
        )
        return ops.reshape(masks, (-1, 1, self.window**2, self.window**2))

    def get_config(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("heads", "window", "shifts", "branches")}
        return {**super().get_config(), **own}
