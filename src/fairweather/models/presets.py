"""The named architectures: a plain dict of configs."""

import dataclasses

from fairweather.models.config import ASTConfig, ASTv2Config, Config

_NARROW = ASTConfig(
    embed_dim=16,
    depths=(1,) * 7,
    heads=(1, 1, 2, 4, 4, 2, 1),
    mlp_ratio=1.25,
    stochastic_depth=0.0,
)
PRESETS: dict[str, Config] = {
    "ast_f": dataclasses.replace(_NARROW, fold=2),
    "ast_n": _NARROW,
    "ast_s": ASTConfig(
        embed_dim=16,
        depths=(1, 1, 1, 1, 2, 2, 1, 1, 1),
        heads=(1, 1, 2, 4, 8, 8, 4, 2, 1),
        mlp_ratio=1.25,
        bottleneck_shift=True,
        stochastic_depth=0.0,
    ),
    "ast_t": ASTConfig(embed_dim=16, depths=(2,) * 9),
    "ast_b": ASTConfig(embed_dim=32),
    "astv2_n": ASTv2Config(
        embed_dim=16,
        depths=(1, 2, 2),
        heads=(1, 2, 4),
        refinement_blocks=0,
        mlp_ratio=2.0,
        groups=4,
    ),
    "astv2": ASTv2Config(),
    "astv2_l": ASTv2Config(depths=(6, 8, 8), refinement_blocks=4),
}
