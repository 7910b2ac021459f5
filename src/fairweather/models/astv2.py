"""AST-v2, the successor of AST (Zhou et al., TPAMI 2025), as its authors' code computes it.

A U-shaped network of three levels. Encoder blocks have a feed-forward network alone; in the decoder
and the refinement behind it channels attend to channels, over all tokens of the image, and the
sparse branch of the attention modulates the dense one instead of being mixed with it. Inside the
network tensors are (B, H, W, C); the public input and output are (B, 3, H, W).

As in `ast.py`, each formula stands here once, and an `@operation` may have faster backends.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fairweather.errors import OptionError
from fairweather.models.ast import convolve_to_image
from fairweather.models.config import ASTv2Config
from fairweather.models.fast.dispatch import operation
from fairweather.models.padding import pad_to_multiple
from fairweather.models.windows import convolve

LEAST_LENGTH = 1e-12  # of a query or key, so that none is divided by zero


class ChannelAttention(nn.Module):
    """Adaptive sparse attention among the channels of a head, over all tokens of the image.

    Attributes:
        temperature: what each head's cosines are multiplied by, (heads, 1, 1).
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.depthwise = depthwise_convolution(3 * channels)
        self.modulate = nn.Linear(channels // heads, 2 * channels // heads, bias=False)
        self.output = nn.Linear(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        batch, height, width, channels = x.shape
        qkv = convolve(self.qkv(x), self.depthwise)
        qkv = qkv.reshape(batch, height * width, 3, self.heads, channels // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 4, 1).unbind(0)  # (B, heads, C / heads, tokens)
        lengths = (each.norm(dim=-1, keepdim=True) for each in (query, key))
        weights = self.weights(query @ key.mT, *lengths)
        attended = (weights @ value).permute(0, 3, 1, 2).reshape(batch, height, width, channels)
        return self.output(attended)

    def weights(self, products: Tensor, query_lengths: Tensor, key_lengths: Tensor) -> Tensor:
        """Return attention weights (…, heads, queries, keys).

        Args:
            products: of queries and keys, (…, heads, queries, keys).
            query_lengths: Euclidean, over the tokens, (…, heads, queries, 1).
            key_lengths: (…, heads, keys, 1).
        """
        query_lengths, key_lengths = (
            each.clamp_min(LEAST_LENGTH) for each in (query_lengths, key_lengths)
        )
        logits = products / (query_lengths * key_lengths.mT) * self.temperature
        sparse = logits.relu().square()
        scale, shift = self.modulate(F.gelu(sparse) * sparse).chunk(2, -1)
        return logits.softmax(-1) * (1 + scale) + shift


class GroupedFeatureRefinement(nn.Module):
    """FRFN of AST-v2: half of each group of channels is enhanced, by filters that groups share."""

    def __init__(self, channels: int, hidden: int, *, groups: int):
        super().__init__()
        self.groups = groups
        self.partial = depthwise_convolution(channels // (2 * groups))
        self.expand = nn.Linear(channels, 2 * hidden, bias=False)
        self.depthwise = depthwise_convolution(hidden)
        self.project = nn.Linear(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        x = self.enhance(x)
        weight, gate_weight = self.expand.weight.chunk(2)
        local = convolve(F.linear(x, weight), self.depthwise)
        return self.project(local * F.linear(x, gate_weight))

    def enhance(self, x: Tensor) -> Tensor:
        """Convolve the first half of each group of channels: (B, H, W, C) → (B, H, W, C)."""
        filters = self.partial.weight
        untouched = x.shape[-1] // self.groups - len(filters)
        # The other channels go through a filter that changes nothing: one convolution for all.
        same = F.pad(filters.new_ones(untouched, 1, 1, 1), (1, 1, 1, 1))
        filters = torch.cat((filters, same)).repeat(self.groups, 1, 1, 1)
        x = x.permute(0, 3, 1, 2)
        if torch.compiler.is_exporting():
            x = x.contiguous()  # or a batch of two that it finds channels-last is a condition
        return F.conv2d(x, filters, padding=1, groups=len(filters)).permute(0, 2, 3, 1)


def depthwise_convolution(channels: int) -> nn.Conv2d:
    """Return a 3 × 3 convolution of single channels, without a bias."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


class ChannelBlock(nn.Module):
    """Attention among channels in the decoder, then the feed-forward network."""

    def __init__(self, config: ASTv2Config, channels: int, *, heads: int):
        super().__init__()
        self.attention = None
        if heads:
            self.attention_norm = nn.LayerNorm(channels)
            self.attention = ChannelAttention(channels, heads)
        self.feed_forward_norm = nn.LayerNorm(channels)
        hidden = int(channels * config.mlp_ratio + 1e-6)  # a ratio told from shapes is rounded
        self.feed_forward = GroupedFeatureRefinement(channels, hidden, groups=config.groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C)."""
        if self.attention is not None:
            x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


@operation
def run_channel_block(x: Tensor, block: nn.Module) -> Tensor:
    """Apply a block to (B, H, W, C), which a backend may overwrite."""
    return block(x)


class ASTv2(nn.Module):
    """AST-v2: (B, 3, H, W) RGB in [0, 1] → the same shape, not clipped.

    Any H and W from 1 up: the image is padded once, at the bottom and right, to a multiple of
    `config.size_multiple`, and the output is cropped. Each attention sees the whole image, so what
    a tile gives depends on where it was cut.

    Attributes:
        config: what it was built from.
        activation_checkpointing: as of `AST`.
    """

    def __init__(self, config: ASTv2Config):
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        channels, levels = config.channels, config.levels

        def stage(width: int, depth: int, heads: int = 0) -> nn.Sequential:
            return nn.Sequential(*(ChannelBlock(config, width, heads=heads) for _ in range(depth)))

        self.input_conv = convolution(3, config.embed_dim)
        self.encoder = nn.ModuleList(map(stage, channels[: levels + 1], config.depths))
        self.downsample = nn.ModuleList(
            convolution(width, width // 2) for width in channels[:levels]
        )
        self.decoder = nn.ModuleList(
            map(stage, channels[levels:], config.depths[::-1], config.heads[::-1])
        )
        self.upsample = nn.ModuleList(
            convolution(width, 2 * width) for width in channels[levels:-1]
        )
        # The last stage works on the skip too; the others on as many channels as the encoder's.
        self.reduce = nn.ModuleList(
            nn.Linear(2 * width, width, bias=False) for width in channels[levels + 1 : -1]
        )
        self.refinement = stage(channels[-1], config.refinement_blocks, config.heads[0])
        self.output_conv = convolution(channels[-1], 3)

    def forward(self, image: Tensor, context: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) → (B, 3, H, W); the network predicts what is added to the image.

        Args:
            image: RGB in [0, 1].
            context: is not read: this network has none.

        Raises:
            OptionError: for another shape, or an image without pixels.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise OptionError(f"the image is {tuple(image.shape)}; it must be (B, 3, H, W)")
        height, width = image.shape[-2:]
        padded = pad_to_multiple(image, self.config.size_multiple)
        x = convolve(padded.permute(0, 2, 3, 1), self.input_conv)
        skips: list[Tensor] = []
        for stage, downsample in itertools.zip_longest(self.encoder, self.downsample):
            x = self._run(stage, x)
            if downsample is not None:
                skips.append(x)
                x = space_to_channels(convolve(x, downsample))
        for index, stage in enumerate(self.decoder):
            if index > 0:
                x = channels_to_space(convolve(x, self.upsample[index - 1]))
                x = torch.cat((x, skips.pop()), -1)
            if 0 < index < self.config.levels:
                x = self.reduce[index - 1](x)
            x = self._run(stage, x)
        x = self._run(self.refinement, x)
        return image + convolve_to_image(x, self.output_conv)[..., :height, :width]

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        checkpoints = self.activation_checkpointing and torch.is_grad_enabled()
        for block in stage.children():
            if checkpoints:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = run_channel_block(x, block)
        return x

    def look(self, image: Tensor) -> Tensor:
        """Raise an OptionError: this network has no global context (see `AST.look`)."""
        raise OptionError("this network has no global context, so it does not look")

    look_around = look

    def zero_output(self) -> None:
        """Make the predicted residual zero, so that the model returns its input until trained."""
        nn.init.zeros_(self.output_conv.weight)


def convolution(channels: int, filters: int) -> nn.Conv2d:
    """Return a 3 × 3 convolution without a bias."""
    return nn.Conv2d(channels, filters, 3, padding=1, bias=False)


def space_to_channels(x: Tensor) -> Tensor:
    """Make one token of 2 × 2: (B, H, W, C) → (B, H / 2, W / 2, 4C)."""
    return F.pixel_unshuffle(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


def channels_to_space(x: Tensor) -> Tensor:
    """Make 2 × 2 tokens of one: (B, H, W, 4C) → (B, 2H, 2W, C)."""
    return F.pixel_shuffle(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
