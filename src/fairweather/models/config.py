"""What decides the architecture of an AST or AST-v2, and what follows from it alone."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fairweather.errors import OptionError

Branches = Literal["both", "dense", "sparse"]
FeedForwardKind = Literal["frfn", "leff", "mlp"]
Symmetries = Literal["all", "flips", "horizontal_flip", "none"]

MOST_HALVINGS, MOST_BLOCKS, MOST_FOLDED = 8, 256, 8  # far beyond any that was trained
SHIFT_MASK_LOGIT = -100.0  # Official: finite, so that a fully masked row cannot become NaN.


@dataclass(frozen=True)
class ASTConfig:
    """Everything that decides what an AST computes besides its parameters.

    `depths` and `heads` have one entry for each stage in the order of the forward pass: n encoder
    stages, the bottleneck, n decoder stages. Stage i of the encoder works at 1 / 2^i of the
    resolution with embed_dim · 2^i channels, a decoder stage with twice the channels of the encoder
    stage at its resolution.

    Attributes:
        embed_dim: channels after the input projection.
        fold: side of the squares of pixels that the input layer makes one token of, and the output
            layer makes pixels again; 1 in all published models. 2 takes a quarter of the work.
        depths: blocks in each stage.
        heads: attention heads in each stage; not read for stages without attention.
        window: side of the attention window [tokens].
        mlp_ratio: hidden channels of the feed-forward network / its input channels.
        feed_forward: `frfn` (the paper's), `leff` (Uformer's, met in checkpoints) or a plain `mlp`.
        branches: `both` is ASSA; `dense` keeps only the softmax, `sparse` only the ReLU².
        encoder_attention: whether encoder blocks attend; in the published models they do not.
        bottleneck_shift: whether odd bottleneck blocks shift their windows. The official model does
            so only if it was built for images larger than one bottleneck window, which its test
            scripts do not do.
        global_context: whether the whole image has a say in the bottleneck and in how much of the
            residual is added (`GlobalContext`); in no published model it has.
        proxy_px: longer side of a small version of the photograph, which the network restores and
            whose change is handed on to the full size (`fairweather.restoration.proxy`), for
            degradations as large as the photograph. None, as in all published models, restores it
            as it is.
        proxy_radius_px: of the windows on the proxy whose colour models hand the change on. Wider
            ones even it out, for haze. None is 2, and leaves a photograph that is no larger than
            the proxy to the network alone.
        proxy_least_change: below which a change of the proxy is taken for a guess and not made:
            root mean square of the logarithms of its factors. 0.05 above it the whole change is
            made. None is 0.15.
        stochastic_depth: largest probability of skipping a residual branch while training.
        symmetries: the flips and turns under which the training showed the degradation, which a
            self-ensemble averages over: all eight, as officially, the four flips, left-right, none.
    """

    embed_dim: int = 32
    depths: tuple[int, ...] = (1, 2, 8, 8, 2, 8, 8, 2, 1)
    heads: tuple[int, ...] = (1, 2, 4, 8, 16, 16, 8, 4, 2)
    window: int = 8
    mlp_ratio: float = 4.0
    feed_forward: FeedForwardKind = "frfn"
    branches: Branches = "both"
    encoder_attention: bool = False
    bottleneck_shift: bool = False
    global_context: bool = False
    proxy_px: int | None = None
    proxy_radius_px: int | None = None
    proxy_least_change: float | None = None
    stochastic_depth: float = 0.1
    symmetries: Symmetries = "all"
    fold: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        object.__setattr__(self, "heads", tuple(self.heads))
        self._refuse_other_types()
        if len(self.depths) // 2 > MOST_HALVINGS:
            raise OptionError(
                f"depths of {len(self.depths)} stages: at most {2 * MOST_HALVINGS + 1} are possible"
            )
        if len(self.depths) % 2 == 0 or len(self.depths) < 3 or min(self.depths) < 1:
            raise OptionError(
                f"depths {self.depths}: needs one entry of at least 1 for each of n encoder stages,"
                " the bottleneck and n decoder stages"
            )
        if self.blocks > MOST_BLOCKS:
            raise OptionError(f"depths: more than {MOST_BLOCKS} blocks are not possible")
        if len(self.heads) != len(self.depths):
            raise OptionError(
                f"heads {self.heads}: needs one entry a stage, as depths {self.depths}"
            )
        for name, choices in (
            ("feed_forward", get_args(FeedForwardKind)),
            ("branches", get_args(Branches)),
            ("symmetries", get_args(Symmetries)),
        ):
            if getattr(self, name) not in choices:
                raise OptionError(
                    f"{name} {getattr(self, name)!r:.40}: is none of {', '.join(choices)}"
                )
        if not 1 <= self.fold <= MOST_FOLDED:
            raise OptionError(f"fold {self.fold}: must be from 1 to {MOST_FOLDED}")
        if self.window < 2 or self.embed_dim < 1 or self.mlp_ratio <= 0:
            raise OptionError(
                f"window {self.window}, embed_dim {self.embed_dim} and mlp_ratio {self.mlp_ratio}:"
                " must be at least 2, at least 1 and above 0"
            )
        for stage, (channels, heads) in enumerate(zip(self.channels, self.heads, strict=True)):
            if self.attends(stage) and (heads < 1 or channels % heads):
                raise OptionError(
                    f"stage {stage}: {channels} channels do not split into {heads} heads"
                )
            if self.feed_forward == "frfn" and channels < 4:
                raise OptionError(
                    f"stage {stage}: FRFN's partial convolution needs 4 channels or more"
                )
        refuse_proxy(
            self.proxy_px, radius_px=self.proxy_radius_px, least_change=self.proxy_least_change
        )
        if not 0 <= self.stochastic_depth < 1:
            raise OptionError(f"stochastic_depth {self.stochastic_depth}: must lie in [0, 1)")

    def _refuse_other_types(self) -> None:
        """Refuse what a file may hold instead of the numbers that the types say."""
        refuse_other_numbers(
            embed_dim=[self.embed_dim],
            depths=self.depths,
            heads=self.heads,
            window=[self.window],
            fold=[self.fold],
            proxy_px=[0 if self.proxy_px is None else self.proxy_px],
            proxy_radius_px=[0 if self.proxy_radius_px is None else self.proxy_radius_px],
        )
        switches = (self.encoder_attention, self.bottleneck_shift, self.global_context)
        words = (self.feed_forward, self.branches, self.symmetries)
        if not all(isinstance(one, str) for one in words):
            raise OptionError("feed_forward, branches, symmetries: must be words")
        if not all(isinstance(one, bool) for one in switches):
            raise OptionError(
                "encoder_attention, bottleneck_shift, global_context: must be true or false"
            )
        if not all(math.isfinite(one) for one in (self.mlp_ratio, self.stochastic_depth)):
            raise OptionError("mlp_ratio, stochastic_depth: must be finite")

    @property
    def blocks(self) -> int:
        """Return how many blocks there are in all."""
        return sum(self.depths)

    @property
    def levels(self) -> int:
        """Return how many times the resolution is halved."""
        return len(self.depths) // 2

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the channels of each stage; a decoder stage works on the skip too."""
        encoder = tuple(self.embed_dim * 2**level for level in range(self.levels))
        return (*encoder, self.embed_dim * 2**self.levels, *(2 * c for c in reversed(encoder)))

    @property
    def size_multiple(self) -> int:
        """Return what height and width are padded to a multiple of [px]: one bottleneck window."""
        return self.window * self.place_px

    @property
    def place_px(self) -> int:
        """Return the side of what one token of the bottleneck stands for [px]."""
        return self.fold * 2**self.levels

    def attends(self, stage: int) -> bool:
        """Return whether the blocks of a stage have attention."""
        return stage >= self.levels or self.encoder_attention


def shift_pattern(config: ASTConfig, stage: int) -> list[bool]:
    """Return which blocks of a stage shift their windows: the odd ones."""
    may_shift = stage != config.levels or config.bottleneck_shift
    return [may_shift and block % 2 == 1 for block in range(config.depths[stage])]


def stochastic_depth_schedule(config: ASTConfig) -> list[float]:
    """Return each block's drop probability: it rises in the encoder and falls in the decoder."""
    rate, levels = config.stochastic_depth, config.levels

    def ramp(blocks: int) -> list[float]:
        return [rate * block / max(1, blocks - 1) for block in range(blocks)]

    encoder = ramp(sum(config.depths[:levels]))
    decoder = ramp(sum(config.depths[levels + 1 :]))[::-1]
    return [*encoder, *[rate] * config.depths[levels], *decoder]


@dataclass(frozen=True)
class ASTv2Config:
    """Everything that decides what an AST-v2 computes besides its parameters.

    Stage i of the encoder works at 1 / 2^i of the resolution with embed_dim · 2^i channels. The
    decoder goes back through the same stages, the last of them with twice the channels, as do the
    refinement blocks behind it.

    Attributes:
        embed_dim: channels after the input convolution, a multiple of 2 · groups.
        depths: blocks in each stage of the encoder, finest first; the decoder has as many.
        heads: attention heads in each stage of the decoder, finest first.
        refinement_blocks: blocks behind the decoder, at the full resolution.
        mlp_ratio: hidden channels of the feed-forward network / its input channels.
        groups: of the feed-forward network's channels, in each of which half are convolved; 12 in
            all published models.
        proxy_px: as for `ASTConfig`.
        proxy_radius_px: as for `ASTConfig`.
        proxy_least_change: as for `ASTConfig`.
        symmetries: as for `ASTConfig`.
        architecture: tells a config in a file from that of an AST.
    """

    embed_dim: int = 48
    depths: tuple[int, int, int] = (2, 4, 6)
    heads: tuple[int, int, int] = (2, 4, 8)
    refinement_blocks: int = 2
    mlp_ratio: float = 4.0
    groups: int = 12
    proxy_px: int | None = None
    proxy_radius_px: int | None = None
    proxy_least_change: float | None = None
    symmetries: Symmetries = "all"
    architecture: Literal["astv2"] = "astv2"

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))
        object.__setattr__(self, "heads", tuple(self.heads))
        refuse_other_numbers(
            embed_dim=[self.embed_dim],
            depths=self.depths,
            heads=self.heads,
            refinement_blocks=[self.refinement_blocks],
            groups=[self.groups],
            proxy_px=[0 if self.proxy_px is None else self.proxy_px],
            proxy_radius_px=[0 if self.proxy_radius_px is None else self.proxy_radius_px],
        )
        if self.symmetries not in get_args(Symmetries) or self.architecture != "astv2":
            raise OptionError(
                f"symmetries {self.symmetries!r:.40} and architecture {self.architecture!r:.40}:"
                f" must be one of {', '.join(get_args(Symmetries))}, and astv2"
            )
        if len(self.depths) != 3 or len(self.heads) != 3 or min(*self.depths, *self.heads) < 1:
            raise OptionError(
                f"depths {self.depths} and heads {self.heads}: need an entry of at least 1 for each"
                " of the three resolutions"
            )
        if self.refinement_blocks < 0 or self.blocks > MOST_BLOCKS:
            raise OptionError(
                f"refinement_blocks {self.refinement_blocks}: must not be negative, and at most"
                f" {MOST_BLOCKS} blocks are possible in all, not {self.blocks}"
            )
        if self.groups < 1 or self.embed_dim < 1 or self.embed_dim % (2 * self.groups):
            raise OptionError(
                f"embed_dim {self.embed_dim}: must be a multiple of twice the groups {self.groups}"
            )
        if not math.isfinite(self.mlp_ratio) or self.mlp_ratio <= 0:
            raise OptionError(f"mlp_ratio {self.mlp_ratio}: must be above 0, and finite")
        for channels, heads in zip(self.channels[self.levels :], self.heads[::-1], strict=True):
            if channels % heads:
                raise OptionError(f"heads {heads}: {channels} channels do not split into them")
        refuse_proxy(
            self.proxy_px, radius_px=self.proxy_radius_px, least_change=self.proxy_least_change
        )

    @property
    def blocks(self) -> int:
        """Return how many blocks there are in all."""
        return 2 * sum(self.depths) + self.refinement_blocks

    @property
    def levels(self) -> int:
        """Return how many times the resolution is halved."""
        return len(self.depths) - 1

    @property
    def channels(self) -> tuple[int, ...]:
        """Return the channels of each resolution on the way down, and of those on the way up."""
        down = tuple(self.embed_dim * 2**level for level in range(self.levels + 1))
        return (*down, *down[-2:0:-1], 2 * self.embed_dim)

    @property
    def size_multiple(self) -> int:
        """Return what height and width are padded to a multiple of [px]: as officially, 8."""
        return 8

    @property
    def place_px(self) -> int:
        """Return the side of what one token of the coarsest stage stands for [px]."""
        return 2**self.levels

    @property
    def global_context(self) -> bool:
        """Return False: only an AST may know the whole image that a tile is of."""
        return False


Config = ASTConfig | ASTv2Config


def architecture_of(config: Config) -> str:
    """Return the name of an architecture in the metadata of files: `ast` or `astv2`."""
    return config.architecture if isinstance(config, ASTv2Config) else "ast"


def make_config(fields: Mapping[str, Any]) -> Config:
    """Return the config with those fields, as `dataclasses.asdict` gives them.

    Raises:
        OptionError: for values that no network has.
        TypeError: for names that no config has.
    """
    return ASTv2Config(**fields) if "architecture" in fields else ASTConfig(**fields)


def refuse_proxy(
    longest_px: int | None, *, radius_px: int | None, least_change: float | None
) -> None:
    """Refuse a proxy that is too small to restore, windows that do not lie on it, and no change."""
    if longest_px is not None and longest_px < 16:
        raise OptionError(f"proxy_px {longest_px}: must be at least 16, or None")
    if radius_px is not None and (longest_px is None or not 1 <= radius_px <= longest_px // 4):
        raise OptionError(
            f"proxy_radius_px {radius_px}: must be from 1 to a quarter of proxy_px {longest_px}"
        )
    if least_change is not None and (longest_px is None or not 0 < least_change < math.inf):
        raise OptionError(
            f"proxy_least_change {least_change}: must be above 0, and needs a proxy_px"
        )


def refuse_other_numbers(**fields: Sequence[object]) -> None:
    """Refuse what a file may hold instead of whole numbers."""
    for name, values in fields.items():
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in values):
            raise OptionError(f"{name}: must be whole numbers")
