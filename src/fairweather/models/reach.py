"""How far a network sees around a pixel, which decides how far its tiles have to overlap."""

from fairweather.models.config import ASTConfig, Config, shift_pattern

ASTV2_OVERLAP_PX = 64
SMALL_TILE_PX = 512  # tiles under that overlap by two windows of the bottleneck, if they can
BLOCK_REACH = {"frfn": 2, "leff": 1, "mlp": 0}  # tokens that a feed-forward network looks aside


def look_margin_px(config: Config) -> int:
    """Return how far beyond a pixel `AST.look_around` reaches, as a tile has to be cut [px].

    With that many pixels around it, each place of a tile says what it says in the photograph.
    """
    assert isinstance(config, ASTConfig)  # no other network looks
    reach = 1  # the input convolution
    for level in range(config.levels):
        for shifts in shift_pattern(config, level):
            window = config.window if config.attends(level) else 0
            block = BLOCK_REACH[config.feed_forward] + window + (window // 2 if shifts else 0)
            reach += 2**level * block
        reach += 2**level  # the convolution that halves the resolution
    reach *= config.fold  # from tokens to pixels
    grid = config.size_multiple if config.encoder_attention else config.place_px
    return -(-reach // grid) * grid


def overlap_px(config: Config, *, tile_px: int | None = None) -> int:
    """Return how far tiles of a side overlap so that no seam shows [px].

    Half of it lies between a seam and the border of a tile, where windows are cut off. Windows of
    the bottleneck that are shifted hand on what is wrong in them by another window: on a hazy
    photograph the error fell from 53 to 70 dB at a whole window from the border. Small tiles have
    more seams, and cut what is long, as a streak of rain: with tiles of 256 px the weights `rain`
    are 52 to 58 dB from untiled ones at half a window, 54 to 69 dB at a whole one.

    The channels of an AST-v2 attend over all tokens of a tile, so tiles of it differ all over. One
    fades into the next.
    """
    if not isinstance(config, ASTConfig):
        return ASTV2_OVERLAP_PX
    small = tile_px is not None and 4 * config.size_multiple <= tile_px < SMALL_TILE_PX
    whole_window = small or any(shift_pattern(config, config.levels))
    return config.size_multiple * (2 if whole_window else 1)
