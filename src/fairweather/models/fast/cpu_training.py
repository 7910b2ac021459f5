"""Window attention on a CPU with gradients: piece by piece, and computed again on the way back.

Plain PyTorch keeps the logits of all windows and what becomes of them for the backward pass, and
reads and writes each of these tensors in memory, the largest of the whole network. Here a few
windows go through the formula while they are in the cache. The backward pass computes them again,
which costs less than fetching them. The numbers are those of the plain path up to rounding.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

WINDOWS_IN_PIECE = 32
DTYPES = (torch.float32, torch.bfloat16)


def find(operation: Any, args: Any) -> Callable[..., Any] | None:
    """Return the backend of an operation of ast.py with gradients; None if there is none."""
    autocast = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if autocast else args[0].dtype
    return window_attention if operation.name == "window_attention" and dtype in DTYPES else None


def window_attention(
    x: Tensor,
    qkv: Any,
    bias: Tensor,
    dense_share: Tensor | None,
    masks: Tensor | None,
    *,
    heads: int,
    window: int,
    shift: int,
    branches: str,
) -> Tensor:
    """Compute the operation of the same name of ast.py."""
    batch, height, width, channels = x.shape
    rows, columns, tokens = height // window, width // window, window**2
    if torch.is_autocast_enabled("cpu"):
        x = x.to(torch.get_autocast_dtype("cpu"))  # half as much to copy
    if shift:
        x = torch.roll(x, (-shift, -shift), dims=(1, 2))
    x = x.view(batch, rows, window, columns, window, channels).transpose(2, 3)
    projected = qkv(x.reshape(-1, tokens, channels)).view(-1, tokens, 3, heads, channels // heads)
    query, key, value = projected.permute(2, 3, 0, 1, 4).contiguous().unbind(0)
    scale = query.shape[-1] ** -0.5
    attended: Any = AttentionInPieces.apply(
        query * scale, key, value, bias, dense_share, masks, rows, columns, branches
    )
    x = attended.permute(1, 2, 0, 3).reshape(batch, rows, columns, window, window, channels)
    x = x.transpose(2, 3).reshape(batch, height, width, channels)
    return torch.roll(x, (shift, shift), dims=(1, 2)) if shift else x


class AttentionInPieces(torch.autograd.Function):
    """Queries, keys and values (heads, windows, window², C / heads) → attended values."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        dense_share: Tensor | None,
        masks: Tensor | None,
        rows: int,
        columns: int,
        branches: str,
    ) -> Tensor:
        """Keep nothing but the arguments."""
        ctx.save_for_backward(query, key, value, bias, dense_share, masks)
        ctx.options = rows, columns, branches
        attended = torch.empty_like(query)
        for place, weights in weigh(query, key, bias, dense_share, masks, *ctx.options):
            torch.bmm(weights.fused, value[place], out=attended[place])
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compute the attention weights again, and from them the gradients."""
        query, key, value, bias, dense_share, masks = ctx.saved_tensors
        of_query, of_key, of_value = (torch.empty_like(one) for one in (query, key, value))
        of_bias = torch.zeros_like(bias)
        of_share = None if dense_share is None else torch.zeros_like(dense_share)
        of_attended = gradients[0].contiguous()
        for place, weights in weigh(query, key, bias, dense_share, masks, *ctx.options):
            torch.bmm(weights.fused.mT, of_attended[place], out=of_value[place])
            of_weights = torch.bmm(of_attended[place], value[place].mT)
            of_logits = weights.through(of_weights, dense_share, of_share=of_share)
            of_bias[place[0]] += of_logits.sum(0, dtype=bias.dtype)
            torch.bmm(of_logits, key[place], out=of_query[place])
            torch.bmm(of_logits.mT, query[place], out=of_key[place])
        return of_query, of_key, of_value, of_bias, of_share, None, None, None, None


class Weights(NamedTuple):
    """The attention weights of a piece, (windows, window², window²), and what they are made of."""

    fused: Tensor
    dense: Tensor | None
    positive: Tensor | None

    def through(
        self, gradient: Tensor, dense_share: Tensor | None, *, of_share: Tensor | None
    ) -> Tensor:
        """Return the gradient of the logits, and add that of the dense share to `of_share`.

        Args:
            gradient: of the weights; it is overwritten.
            dense_share: as in `window_attention`.
            of_share: () or None.
        """
        of_dense = of_sparse = gradient
        if self.dense is not None:
            by_dense = gradient * self.dense
            sums = by_dense.sum(-1, keepdim=True)
            of_dense = by_dense.addcmul_(self.dense, sums, value=-1)
            if of_share is not None:
                of_share += sums.sum(dtype=of_share.dtype)
        if self.positive is not None:
            of_sparse = gradient.mul_(self.positive)
            if of_share is not None:
                of_share -= (of_sparse * self.positive).sum(dtype=of_share.dtype)
            of_sparse.mul_(2)
        if self.positive is None or self.dense is None:
            return of_dense if self.positive is None else of_sparse
        assert dense_share is not None
        return torch.lerp(of_sparse, of_dense, dense_share.to(of_dense.dtype))


def weigh(
    query: Tensor,
    key: Tensor,
    bias: Tensor,
    dense_share: Tensor | None,
    masks: Tensor | None,
    rows: int,
    columns: int,
    branches: str,
) -> Iterator[tuple[tuple[int, slice], Weights]]:
    """Yield the attention weights piece by piece, with the place of each among the windows."""
    heads, windows = query.shape[:2]
    step = max(1, WINDOWS_IN_PIECE // columns) * columns
    bias = bias.to(query.dtype)
    share = None if dense_share is None else dense_share.to(query.dtype)
    for head in range(heads):
        for first in range(0, windows, step):
            place = head, slice(first, min(windows, first + step))
            logits = torch.baddbmm(bias[head], query[place], key[place].mT)
            if masks is not None:
                mask_rows(logits, masks, first_row=first // columns, rows=rows, columns=columns)
            dense = None if branches == "sparse" else logits.softmax(-1)
            if branches == "dense":
                assert dense is not None
                yield place, Weights(dense, dense, None)
                continue
            positive = logits.relu_()
            fused = positive.square()
            if dense is not None and share is not None:
                fused = torch.lerp(fused, dense, share, out=fused)
            yield place, Weights(fused, dense, positive)


def mask_rows(logits: Tensor, masks: Tensor, *, first_row: int, rows: int, columns: int) -> None:
    """Add `shift_masks` to the logits of whole rows of windows of images with `rows` of them."""
    row_mask, column_mask, corner_mask = masks
    for number, row in enumerate(logits.unflatten(0, (-1, columns)), first_row):
        if number % rows == rows - 1:
            row[:-1] += row_mask
            row[-1] += corner_mask
        else:
            row[-1] += column_mask
