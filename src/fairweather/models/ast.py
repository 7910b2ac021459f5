"""AST, the Adaptive Sparse Transformer for image restoration (Zhou et al., CVPR 2024, section 3).

A U-shaped network: encoder stages, a bottleneck and decoder stages of transformer blocks, each an
optional window attention (ASSA, section 3.2) and a feed-forward network (FRFN, section 3.3). Inside
the network tensors are (B, H, W, C); the public input and output are (B, 3, H, W).

Each formula stands here once. What is marked as an `@operation` may be computed by a faster backend
of the tensor's device, which gives the same numbers up to rounding.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fairweather.errors import OptionError
from fairweather.models.config import (
    ASTConfig,
    Branches,
    shift_pattern,
    stochastic_depth_schedule,
)
from fairweather.models.fast.dispatch import operation
from fairweather.models.feed_forwards import LocallyEnhancedFeedForward, PlainFeedForward
from fairweather.models.global_context import GlobalContext
from fairweather.models.padding import divide_up, pad_to_multiple
from fairweather.models.windows import (
    convolve,
    mask_wrapped_windows,
    merge_windows,
    relative_position_index,
    shift_masks,
    split_into_windows,
)


class WindowAttention(nn.Module):
    """Adaptive sparse self-attention (ASSA, section 3.2) in windows, shifted in odd blocks.

    Attributes:
        bias_index: `relative_position_index` of the window.
        shift_masks: `shift_masks` of the window and shift; None if its windows are not shifted.
    """

    bias_index: Tensor
    shift_masks: Tensor | None

    def __init__(self, channels: int, heads: int, *, window: int, shifts: bool, branches: Branches):
        super().__init__()
        self.heads = heads
        self.window = window
        self.shift = window // 2 if shifts else 0
        self.branches: Branches = branches
        self.qkv = nn.Linear(channels, 3 * channels)
        self.output = nn.Linear(channels, channels)
        self.bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        if branches == "both":
            self.branch_logits = nn.Parameter(torch.ones(2))
        self.register_buffer("bias_index", relative_position_index(window), persistent=False)
        masks = shift_masks(window, self.shift) if self.shift else None
        self.register_buffer("shift_masks", masks, persistent=False)
        self._bias_cache: tuple[Tensor, Tensor] | None = None  # of which table, the bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C); H and W are multiples of the window."""
        attended = window_attention(
            x,
            self.qkv,
            self.position_bias(),
            self.dense_share(),
            self.shift_masks,
            heads=self.heads,
            window=self.window,
            shift=self.shift,
            branches=self.branches,
        )
        return self.output(attended)

    def dense_share(self) -> Tensor | None:
        """Return the softmax's share of the weights, (); None if there is one branch.

        Two learnt weights for each block, which sum to one.
        """
        return self.branch_logits.softmax(0)[0] if self.branches == "both" else None

    def position_bias(self) -> Tensor:
        """Return the position bias (heads, window², window²), kept while the table's values stay.

        A write through `.data` leaves no other trace. A GPU would have to wait for the comparison.
        """
        table, kept = self.bias_table, self._bias_cache
        keeps = table.device.type == "cpu" and not torch.is_grad_enabled()
        if not keeps or torch.compiler.is_compiling() or table.is_inference():
            return self._expand_bias(table)
        if kept is None or kept[0].dtype != table.dtype or not torch.equal(kept[0], table):
            self._bias_cache = kept = (table.detach().clone(), self._expand_bias(table))
        return kept[1]

    def _expand_bias(self, table: Tensor) -> Tensor:
        return table[self.bias_index].permute(2, 0, 1).contiguous()


@operation
def window_attention(
    x: Tensor,
    qkv: Callable[[Tensor], Tensor],
    bias: Tensor,
    dense_share: Tensor | None,
    masks: Tensor | None,
    *,
    heads: int,
    window: int,
    shift: int,
    branches: Branches,
) -> Tensor:
    """Compute adaptive sparse attention in shifted windows, up to the output projection.

    Args:
        x: (B, H, W, C); H and W are multiples of the window.
        qkv: the projection to queries, keys and values, (…, C) → (…, 3C).
        bias: the position bias, (heads, window², window²).
        dense_share: the dense branch's share of the weights, (); None if there is one branch.
        masks: `shift_masks` of the window and shift; None without a shift.
        heads: that share the C channels.
        window: side of the window [tokens].
        shift: of the windows, down and right [tokens].
        branches: `both`, `dense` or `sparse`.

    Returns:
        (B, H, W, C).
    """
    if shift:
        x = torch.roll(x, (-shift, -shift), dims=(1, 2))
    query, key, value = split_into_windows(qkv(x), heads=heads, window=window)
    logits = (query * query.shape[-1] ** -0.5) @ key.mT + bias
    if masks is not None:
        logits = mask_wrapped_windows(logits, masks)
    attended = attention_weights(logits, dense_share, branches=branches) @ value
    x = merge_windows(attended, window=window)
    return torch.roll(x, (shift, shift), dims=(1, 2)) if shift else x


def attention_weights(logits: Tensor, dense_share: Tensor | None, *, branches: Branches) -> Tensor:
    """Fuse the dense branch, softmax, and the sparse one, ReLU²: (…, queries, keys) → the same."""
    if branches == "dense":
        return logits.softmax(-1)
    sparse = logits.relu().square()
    if dense_share is None:
        return sparse
    return torch.lerp(sparse, logits.softmax(-1), dense_share)


class FeatureRefinement(nn.Module):
    """FRFN (section 3.3): a partial convolution enhances, a gated depthwise one eases."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.partial = nn.Conv2d(channels // 4, channels // 4, 3, padding=1, bias=False)
        self.expand = nn.Linear(channels, 2 * hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        quarter = self.partial.in_channels
        x = torch.cat((convolve(x[..., :quarter], self.partial), x[..., quarter:]), -1)
        return self.project(gated_depthwise(x, self.expand, self.depthwise))


@operation
def gated_depthwise(x: Tensor, expand: nn.Linear, depthwise: nn.Conv2d) -> Tensor:
    """Expand (B, H, W, C) to two halves, convolve one, gate it with the other: (B, H, W, hidden).

    Args:
        x: behind the partial convolution.
        expand: C → 2 · hidden channels, the gate behind what is convolved.
        depthwise: 3×3, on hidden channels.
    """
    # Two products instead of one and a split: both halves come out contiguous.
    (weight, gate_weight), (bias, gate_bias) = expand.weight.chunk(2), expand.bias.chunk(2)
    local = F.gelu(convolve(F.gelu(F.linear(x, weight, bias)), depthwise))
    return local * F.gelu(F.linear(x, gate_weight, gate_bias))


FEED_FORWARDS = {
    "frfn": FeatureRefinement,
    "leff": LocallyEnhancedFeedForward,
    "mlp": PlainFeedForward,
}


class StochasticDepth(nn.Module):
    """Drop a residual branch of whole samples while training, and scale the kept ones up."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """(B, …) → (B, …)."""
        if not self.training or self.probability == 0:
            return x
        keep = 1 - self.probability
        kept = torch.rand(x.shape[0], *[1] * (x.ndim - 1), device=x.device) < keep
        return x * (kept.to(x.dtype) / keep)


class Block(nn.Module):
    """Window attention where the stage has it, then the feed-forward network."""

    def __init__(self, config: ASTConfig, stage: int, *, shifts: bool, drop_probability: float):
        super().__init__()
        channels = config.channels[stage]
        self.attention = None
        if config.attends(stage):
            self.attention_norm = nn.LayerNorm(channels)
            self.attention = WindowAttention(
                channels,
                config.heads[stage],
                window=config.window,
                shifts=shifts,
                branches=config.branches,
            )
        self.feed_forward_norm = nn.LayerNorm(channels)
        hidden = int(channels * config.mlp_ratio + 1e-6)  # a ratio told from shapes is rounded
        self.feed_forward = FEED_FORWARDS[config.feed_forward](channels, hidden)
        self.stochastic_depth = StochasticDepth(drop_probability)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        if self.attention is not None:
            x = x + self.stochastic_depth(self.attention(self.attention_norm(x)))
        return x + self.stochastic_depth(self.feed_forward(self.feed_forward_norm(x)))


@operation
def run_block(x: Tensor, block: nn.Module) -> Tensor:
    """Apply a block to (B, H, W, C), which a backend may overwrite."""
    return block(x)


@operation
def sides_to_compute(
    x: Tensor, decoder: nn.ModuleList, *, height: int, width: int
) -> list[tuple[int | None, int | None]]:
    """Return the rows and columns of each decoder stage to compute from x: here all, None.

    A backend may leave out padding that none of the height × width tokens of the output needs.
    """
    return [(None, None)] * len(decoder)


@operation
def convolve_to_image(x: Tensor, layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    """Apply the last convolution to (B, H, W, C): (B, 3, H, W)."""
    return layer(x.permute(0, 3, 1, 2))


class AST(nn.Module):
    """The Adaptive Sparse Transformer: (B, 3, H, W) RGB in [0, 1] → the same shape, not clipped.

    Any H and W from 1 up: the image is padded once, at the bottom and right, to a multiple of
    `config.size_multiple`, and the output is cropped.

    Attributes:
        config: what it was built from.
        activation_checkpointing: whether a backward pass computes what lies inside the blocks again
            instead of keeping it: less memory, about a third more time.
    """

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        channels, levels = config.channels, config.levels
        drops = iter(stochastic_depth_schedule(config))
        stages = [
            nn.Sequential(
                *(
                    Block(config, stage, shifts=shifts, drop_probability=next(drops))
                    for shifts in shift_pattern(config, stage)
                )
            )
            for stage in range(len(config.depths))
        ]
        side, fold = 3 * config.fold, config.fold
        self.input_conv = nn.Conv2d(3, config.embed_dim, side, stride=fold, padding=fold)
        self.encoder = nn.ModuleList(stages[:levels])
        self.downsample = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=2, padding=1)
            for before, after in itertools.pairwise(channels[: levels + 1])
        )
        self.context = GlobalContext(channels[levels]) if config.global_context else None
        self.bottleneck = stages[levels]
        self.upsample = nn.ModuleList(
            nn.ConvTranspose2d(before, after // 2, 2, stride=2)
            for before, after in itertools.pairwise(channels[levels:])
        )
        self.decoder = nn.ModuleList(stages[levels + 1 :])
        unfold = nn.Conv2d if config.fold == 1 else nn.ConvTranspose2d
        self.output_conv = unfold(channels[-1], 3, side, stride=fold, padding=fold)
        self.apply(initialise_as_official)
        if self.context is not None:
            self.context.start_open()

    def forward(self, image: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) → (B, 3, H, W); the network predicts what is added to the image.

        Args:
            image: RGB in [0, 1].
            context: what `look` said of the whole photograph that the image is a tile of; without
                it the image is the whole. Only read by a network with a global context.

        Raises:
            OptionError: for another shape, or an image without pixels.
        """
        height, width = image.shape[-2:]
        padded, x, skips = self._encode(image)
        gate = None
        if self.context is not None:
            if context is None:
                places = self._places(x, height=height, width=width)
                context = places.mean((1, 2), keepdim=True)
            x, gate = self.context(x, context)
        x = self._run(self.bottleneck, x)
        rows, columns = (divide_up(side, self.config.fold) for side in (height, width))
        sides = sides_to_compute(x, self.decoder, height=rows, width=columns)
        for up, stage, (rows, columns) in zip(self.upsample, self.decoder, sides, strict=True):
            both = (convolve(x, up), skips.pop())
            x = self._run(stage, torch.cat([one[:, :rows, :columns] for one in both], -1))
        residual = convolve_to_image(x, self.output_conv)[..., :height, :width]
        return padded[..., :height, :width] + (residual if gate is None else gate * residual)

    def look(self, image: Tensor) -> Tensor:
        """Return what an image says as a whole to a network with a global context, for `forward`.

        The mean of what tiles say is what the image says that they make up, but for their borders.

        Args:
            image: (B, 3, H, W) RGB in [0, 1].

        Returns:
            (B, 1, 1, C).

        Raises:
            OptionError: for another shape, an image without pixels, or a network without one.
        """
        return self.look_around(image).mean((1, 2), keepdim=True)

    def look_around(self, image: Tensor) -> Tensor:
        """Return what each place says, so that `look`, their mean, can be had from tiles.

        As `look`; of places of `config.place_px` pixels: (B, ⌈H / place⌉, ⌈W / place⌉, C).
        """
        if self.context is None:
            raise OptionError("this network has no global context, so it does not look")
        height, width = image.shape[-2:]
        return self._places(self._encode(image)[1], height=height, width=width)

    def _encode(self, image: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return the padded image, the features before the bottleneck, and the skips."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise OptionError(f"the image is {tuple(image.shape)}; it must be (B, 3, H, W)")
        padded = pad_to_multiple(image, self.config.size_multiple)
        x = F.leaky_relu(convolve(padded.permute(0, 2, 3, 1), self.input_conv), 0.01)
        skips: list[Tensor] = []
        for stage, downsample in zip(self.encoder, self.downsample, strict=True):
            x = self._run(stage, x)
            skips.append(x)
            x = convolve(x, downsample)
        return padded, x, skips

    def _places(self, x: Tensor, *, height: int, width: int) -> Tensor:
        """Return what each place says that shows some of the image, and not padding alone."""
        assert self.context is not None
        rows, columns = (divide_up(side, self.config.place_px) for side in (height, width))
        return self.context.places(x[:, :rows, :columns])

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        checkpoints = self.activation_checkpointing and torch.is_grad_enabled()
        for block in stage.children():
            x = checkpoint(block, x, use_reentrant=False) if checkpoints else run_block(x, block)
        return x

    def zero_output(self) -> None:
        """Make the predicted residual zero, so that the model returns its input until trained."""
        for parameter in self.output_conv.parameters():
            nn.init.zeros_(parameter)


def initialise_as_official(module: nn.Module) -> None:
    """Initialise linear layers and bias tables as officially: truncated normal, σ = 0.02."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.bias_table, std=0.02)
