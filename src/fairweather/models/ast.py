"""AST, the Adaptive Sparse Transformer for image restoration (Zhou et al., CVPR 2024, section 3).

A U-shaped network: encoder stages, a bottleneck and decoder stages of transformer blocks, each an
optional window attention (ASSA, section 3.2) and a feed-forward network (FRFN, section 3.3). Inside
the network tensors are (B, H, W, C); the public input and output are (B, 3, H, W).
"""

import dataclasses
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fairweather.errors import OptionError
from fairweather.models.config import ASTConfig, shift_pattern, stochastic_depth_schedule
from fairweather.models.fast.cpu_strips import (
    convolve_to_image,
    needed_sides,
    run_in_strips,
    runs_in_strips,
)
from fairweather.models.fast.dispatch import (
    Branches,
    attend_in_windows,
    fuses,
    fuses_windows,
    gelu_depthwise,
    mask_windows,
    shift_masks,
    window_attention,
)
from fairweather.models.padding import pad_to_multiple

OPEN_GATE = 4.0  # 98 % open


class WindowAttention(nn.Module):
    """Adaptive sparse self-attention in windows (ASSA, section 3.2).

    The logits q·kᵀ/√d + bias go through a softmax (dense branch) and through ReLU² (sparse branch);
    the two are fused with learnt weights that sum to one, a pair for each block.
    """

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
        if self.shift:
            masks = shift_masks(window, self.shift)
            for name, mask in zip(("row_mask", "column_mask", "corner_mask"), masks, strict=True):
                self.register_buffer(name, mask, persistent=False)
        self._bias_cache: tuple[tuple[int, torch.dtype, int], Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C); H and W are multiples of the window."""
        bias, dense_share = self.position_bias(), self.dense_share()
        heads, window, shift = self.heads, self.window, self.shift
        if fuses_windows(x, heads=heads, window=window):
            attended = window_attention(
                self.qkv(x),
                bias,
                dense_share,
                heads=heads,
                window=window,
                shift=shift,
                branches=self.branches,
            )
            return self.output(attended)
        masks = self.masks()
        if shift:
            x = torch.roll(x, (-shift, -shift), dims=(1, 2))
        if masks and not isinstance(x.shape[1], int):  # torch.export, of any size
            bias, masks = (
                bias + mask_windows(masks, x.shape[1] // window, x.shape[2] // window),
                None,
            )
        attended = attend_in_windows(
            self.qkv(x),
            bias,
            dense_share,
            heads=heads,
            window=window,
            branches=self.branches,
            masks=masks,
        )
        merged = self.output(attended)
        return torch.roll(merged, (shift, shift), dims=(1, 2)) if shift else merged

    def masks(self) -> tuple[Tensor, ...] | None:
        """The masks of windows that the shift fills from opposite sides."""
        names = ("row_mask", "column_mask", "corner_mask")
        return tuple(self.get_buffer(name) for name in names) if self.shift else None

    def dense_share(self) -> Tensor | None:
        """The softmax's share of the weights, (); None if there is one branch."""
        return self.branch_logits.softmax(0)[0] if self.branches == "both" else None

    def position_bias(self) -> Tensor:
        """The position bias (heads, window², window²), kept while the table stays the same."""
        table = self.bias_table
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or table.is_inference():
            return self._expand_bias(table)
        key = (table.data_ptr(), table.dtype, table._version)
        if self._bias_cache is None or self._bias_cache[0] != key:
            # The detached table keeps its memory, so that no other table can get the same address.
            self._bias_cache = (key, table.detach(), self._expand_bias(table))
        return self._bias_cache[2]

    def _expand_bias(self, table: Tensor) -> Tensor:
        return table[self.get_buffer("bias_index")].permute(2, 0, 1).contiguous()


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each (query, key) of a window: (window², window²), int64."""
    axis = torch.arange(window)
    row, column = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    row_offset = row[:, None] - row[None, :] + window - 1
    column_offset = column[:, None] - column[None, :] + window - 1
    return row_offset * (2 * window - 1) + column_offset


def convolve(conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """Applies a convolution to (B, H, W, C); the permutations are views (channels-last memory)."""
    return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


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
        x = torch.cat((convolve(self.partial, x[..., :quarter]), x[..., quarter:]), -1)
        if fuses(x):
            depthwise = self.depthwise
            return self.project(gelu_depthwise(self.expand(x), depthwise.weight, depthwise.bias))
        # Two products instead of one and a split: both halves come out contiguous.
        (weight, gate_weight), (bias, gate_bias) = (
            self.expand.weight.chunk(2),
            self.expand.bias.chunk(2),
        )
        local = F.gelu(convolve(self.depthwise, F.gelu(F.linear(x, weight, bias))))
        return self.project(local * F.gelu(F.linear(x, gate_weight, gate_bias)))


class LocallyEnhancedFeedForward(nn.Module):
    """LeFF (Uformer, CVPR 2022), which official checkpoints may use."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        depthwise = self.depthwise
        return self.project(gelu_depthwise(self.expand(x), depthwise.weight, depthwise.bias))


class PlainFeedForward(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.expand = nn.Linear(channels, hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        return self.project(F.gelu(self.expand(x)))


FEED_FORWARDS = {
    "frfn": FeatureRefinement,
    "leff": LocallyEnhancedFeedForward,
    "mlp": PlainFeedForward,
}


class StochasticDepth(nn.Module):
    """Drops a residual branch of whole samples while training, and scales the kept ones up."""

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
        self.refines = config.feed_forward == "frfn"
        self.stochastic_depth = StochasticDepth(drop_probability)

    def forward(self, x: Tensor, *, overwrite: bool = False) -> Tensor:
        """(B, H, W, C) → (B, H, W, C), in the memory of x if that may be overwritten."""
        if not self.training and self.refines and runs_in_strips(x):
            return run_in_strips(self, x if overwrite else x.clone())
        if self.attention is not None:
            x = x + self.stochastic_depth(self.attention(self.attention_norm(x)))
        return x + self.stochastic_depth(self.feed_forward(self.feed_forward_norm(x)))


class GlobalContext(nn.Module):
    """What the whole image looks like, which a window cannot see: is there any haze at all?

    The mean over the image of what two layers make of each place is added to every place (a global
    context block, Cao et al., 2019, with equal weights), and gives a gate for the residual.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.gather = nn.Linear(channels, channels)
        self.spread = nn.Linear(channels, channels)
        self.gate = nn.Linear(channels, 1)

    def forward(self, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, H, W, C), context (B, 1, 1, C) → features, and the gate (B, 1, 1, 1)."""
        context = F.gelu(context)
        return x + self.spread(context), self.gate(context).sigmoid()

    def look(self, x: Tensor, *, height: int, width: int) -> Tensor:
        """The context (B, 1, 1, C) of features (B, H, W, C) whose first height × width count."""
        return self.places(x[:, :height, :width]).mean((1, 2), keepdim=True)

    def places(self, x: Tensor) -> Tensor:
        """Return what each place says, (B, H, W, C) → the same; the mean is the context."""
        return F.gelu(self.gather(self.norm(x)))

    def start_open(self) -> None:
        """Adds nothing and lets nearly all of the residual through, until it is trained."""
        for layer in (self.spread, self.gate):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.spread.bias)
        nn.init.constant_(self.gate.bias, OPEN_GATE)


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
        self.input_conv = nn.Conv2d(3, config.embed_dim, 3, padding=1)
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
        self.output_conv = nn.Conv2d(channels[-1], 3, 3, padding=1)
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
                context = self._look(x, height=height, width=width)
            x, gate = self.context(x, context)
        x = self._run(self.bottleneck, x)
        sides = needed_sides(self.decoder, x, height=height, width=width)
        for up, stage, (rows, columns) in zip(self.upsample, self.decoder, sides, strict=True):
            both = (convolve(up, x), skips.pop())  # type: ignore[arg-type]
            x = self._run(stage, torch.cat([one[:, :rows, :columns] for one in both], -1))
        x = x.permute(0, 3, 1, 2)
        fast = runs_in_strips(x)
        residual = convolve_to_image(self.output_conv, x) if fast else self.output_conv(x)
        residual = residual[..., :height, :width]
        return padded[..., :height, :width] + (residual if gate is None else gate * residual)

    def look(self, image: Tensor) -> Tensor:
        """What an image says as a whole to a network with a global context, for `forward`.

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
        """Return what each place of an image says, of which `look` is the mean.

        The context of a photograph is the mean over its places, so it can be had from tiles.

        Args:
            image: (B, 3, H, W) RGB in [0, 1].

        Returns:
            (B, H / 2^levels, W / 2^levels, C), rounded up: a place for each 2^levels pixels.

        Raises:
            OptionError: as for `look`.
        """
        if self.context is None:
            raise OptionError("this network has no global context, so it does not look")
        x, scale = self._encode(image)[1], 2**self.config.levels
        rows, columns = ((side + scale - 1) // scale for side in image.shape[-2:])
        return self.context.places(x[:, :rows, :columns])

    def _encode(self, image: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """The padded image, the features of the bottleneck, and the skips."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise OptionError(f"the image is {tuple(image.shape)}; it must be (B, 3, H, W)")
        padded = pad_to_multiple(image, self.config.size_multiple)
        x = F.leaky_relu(convolve(self.input_conv, padded.permute(0, 2, 3, 1)), 0.01)
        skips: list[Tensor] = []
        for stage, downsample in zip(self.encoder, self.downsample, strict=True):
            x = self._run(stage, x)
            skips.append(x)
            x = convolve(downsample, x)  # type: ignore[arg-type]
        return padded, x, skips

    def _look(self, x: Tensor, *, height: int, width: int) -> Tensor:
        assert self.context is not None
        scale = 2**self.config.levels
        rows, columns = ((side + scale - 1) // scale for side in (height, width))
        return self.context.look(x, height=rows, width=columns)

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        checkpoints = self.activation_checkpointing and torch.is_grad_enabled()
        for block in stage.children():  # x is ours, so a block may overwrite it
            x = (
                checkpoint(block, x, use_reentrant=False)
                if checkpoints
                else block(x, overwrite=True)
            )
        return x

    def zero_output(self) -> None:
        """Makes the predicted residual zero, so that the model returns its input until trained."""
        nn.init.zeros_(self.output_conv.weight)
        if self.output_conv.bias is not None:
            nn.init.zeros_(self.output_conv.bias)


def initialise_as_official(module: nn.Module) -> None:
    """The official initialisation: truncated normal for linear layers and bias tables, σ = 0.02."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, WindowAttention):
        nn.init.trunc_normal_(module.bias_table, std=0.02)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in a module."""
    return sum(parameter.numel() for parameter in model.parameters())


def add_global_context(model: AST) -> AST:
    """The same weights with a new global context, which changes little until it is trained."""
    wider = AST(dataclasses.replace(model.config, global_context=True))
    wider.load_state_dict(model.state_dict(), strict=False)
    return wider.train(model.training)
