"""The recipes of AST-v2 are the options of its authors."""

import itertools
import math

import pytest

from fairweather.training import load_recipe

# Crop, batch of two devices, steps: of the options in the authors' repository.
OFFICIAL_STEPS_V2 = {
    "astv2_spad": [(128, 16, 300_000), (256, 4, 300_000)],
    "astv2_sots": [(128, 12, 150_000), (256, 4, 100_000), (384, 4, 50_000)],
    "astv2_istd": [(128, 16, 150_000), (256, 8, 150_000)],
    "astv2_snow100k": [(128, 16, 92_000), (256, 8, 208_000)],
    "astv2_gopro": [(128, 16, 100_000), (256, 4, 75_000), (384, 2, 75_000), (512, 2, 50_000)],
    "astv2_lol_v2_real": [(128, 16, 150_000), (256, 6, 100_000), (384, 2, 50_000)],
    "astv2_lol_v2_synthetic": [(128, 16, 150_000)],
    "astv2_smid": [(256, 6, 300_000)],
}


@pytest.mark.parametrize("name", OFFICIAL_STEPS_V2)
def test_the_trainings_of_ast_v2_are_followed(name: str) -> None:
    recipe = load_recipe(name)
    steps: dict[tuple[int, int], int] = {}
    for stage in recipe.stages:
        shape = stage.crop_px, stage.batch
        assert stage.steps is not None
        steps[shape] = steps.get(shape, 0) + stage.steps
    assert [(*shape, count) for shape, count in steps.items()] == OFFICIAL_STEPS_V2[name]
    # The rate is one curve: constant, then one cosine, wherever the stages begin.
    for before, after in itertools.pairwise(recipe.stages):
        assert math.isclose(before.rates[1], after.rates[0], rel_tol=1e-3)
    assert math.isclose(recipe.stages[-1].rates[1], 1e-6)
    assert (recipe.loss, recipe.gradient_clip_norm, recipe.ema_decay) == ({"l1": 1.0}, 0.01, None)
