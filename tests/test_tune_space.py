"""What a search may vary: reading it, refusing it, and the recipes that it makes."""

import pytest

from fairweather.errors import RecipeError
from fairweather.training import Recipe
from fairweather.training.tune.space import Dimension, parse_space, recipe_with

RATES = "stages.*.learning_rate=x0.2..5"
STAGE = {"crop_px": 16, "batch": 1, "steps": 4, "learning_rate": 1e-3}
FINAL = {"learning_rate": 5e-4, "final_learning_rate": 2e-4}
RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "task": "rain",
        "description": "A recipe for tests.",
        "preset": "ast_n",
        "architecture": {"embed_dim": 4, "depths": [1, 1, 1], "heads": [1, 1, 1], "window": 2},
        "data": {"clean": ["clean"]},
        "stages": [STAGE, {**STAGE, **FINAL, "batch": 2}],
    }
)


def only(entry: str) -> Dimension:
    (dimension,) = parse_space([entry], RECIPE)
    return dimension


@pytest.mark.parametrize(
    ("entry", "low", "high", "is_log", "is_whole", "own"),
    [
        ("stages.0.learning_rate=1e-4..2e-3", 1e-4, 2e-3, True, False, 1e-3),
        ("stages.0.learning_rate=1e-4..5e-4", 1e-4, 5e-4, False, False, None),
        ("stages.*.learning_rate=1e-4..2e-3", 1e-4, 2e-3, True, False, None),  # they differ
        ("weight_decay=0..1.0", 0, 1, False, False, 0.02),
        ("stages.0.batch=1..20", 1, 20, True, True, 1),
        ("stages.*.crop_px=16..64", 16, 64, False, True, 16),
        ("loss.edge=0.01..0.2", 0.01, 0.2, True, False, None),
        (RATES, 0.2, 5, True, False, 1),
        ("stages.*.batch=x2..4", 2, 4, False, False, None),
        ("architecture.mlp_ratio=1..2.0", 1, 2, False, False, 1.25),
    ],
)
def test_ranges(
    entry: str, low: float, high: float, is_log: bool, is_whole: bool, own: float | None
) -> None:
    found = only(entry)
    assert (found.low, found.high, found.own) == (low, high, own)
    assert (found.is_log, found.is_whole, found.choices) == (is_log, is_whole, ())


@pytest.mark.parametrize(
    ("entry", "choices", "own"),
    [
        ("stages.0.batch=4|8|16", ("4", "8", "16"), None),
        ("stages.*.batch=x0.5|1|2", ("0.5", "1", "2"), "1"),
        ("architecture.window=8|2", ("8", "2"), "2"),
        ("stages.0.learning_rate=1e-4|1e-3", ("1e-4", "1e-3"), "1e-3"),
        ("loss={l1: 1}|{charbonnier: 1}", ("{l1: 1}", "{charbonnier: 1}"), "{charbonnier: 1}"),
        ("gradient_clip_norm=null|1|0.1", ("null", "1", "0.1"), "1"),
    ],
)  # fmt: skip
def test_choices(entry: str, choices: tuple[str, ...], own: str | None) -> None:
    found = only(entry)
    assert (found.choices, found.own) == (choices, own)


def test_every_stage_and_the_default_space() -> None:
    assert only(RATES).places == ("stages.0.learning_rate", "stages.1.learning_rate")
    assert [d.key for d in parse_space((), RECIPE)] == [
        "stages.*.learning_rate",
        "stages.*.batch",
    ]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["stages.0.learning_rat=1..2"], "did you mean learning_rate"),
        (["stagse.0.batch=1|2"], "did you mean stages"),
        (["stages.7.batch=1|2"], "has no 'stages.7.batch'"),
        (["architecture.windw=4|8"], "did you mean window"),
        (["loss.egde=0.1..0.2"], "edge"),
        (["stages.0.batch"], "says no range"),
        (["stages.0.batch=8"], "no two different values"),
        (["stages.0.batch=8|8"], "no two different values"),
        (["weight_decay=1..0"], "is no range"),
        (["weight_decay=0..inf"], "is no range"),
        (["weight_decay=a..b"], "is no range"),
        (["stages.0.cycles=1|[2"], "not YAML"),
        (["precision=x0.5..2"], "no number there"),
        (["stages.*.batch=x1|two"], "a factor is a number"),
        (["data.*.folder=a|b"], "could not be compared"),
        (["architecture.*=1|2"], "every stage"),
        (["seed=0..9"], "could not be compared"),
        (["validation_crop_px=16|32"], "could not be compared"),
        ([RATES, "stages.1.learning_rate=1e-4..1e-3"], "keep one"),
    ],
)
def test_a_faulty_space_is_refused(entries: list[str], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        parse_space(entries, RECIPE)


def with_values(values: dict[str, float | str], *entries: str) -> Recipe:
    return recipe_with(RECIPE, parse_space(entries, RECIPE), values)


def test_values_become_a_recipe() -> None:
    found = with_values(
        {"stages.*.learning_rate": 0.1234567, "stages.1.batch": "0.5", "loss.edge": 1e-5},
        "stages.*.learning_rate=x0.1..2",
        "stages.1.batch=x0.5|1",
        "loss.edge=1e-6..1e-3",
    )
    assert [stage.learning_rate for stage in found.stages] == [1.235e-4, 6.173e-5]
    assert [stage.batch for stage in found.stages] == [1, 1]
    assert found.loss == {"charbonnier": 1.0, "edge": 1e-5}
    # The cosine keeps its shape.
    assert found.stages[1].final_learning_rate == pytest.approx(2e-4 * 0.1234567, rel=1e-3)


def test_a_final_rate_that_is_varied_itself_stays() -> None:
    found = with_values(
        {"stages.1.learning_rate": 1e-3, "stages.1.final_learning_rate": 1e-4},
        "stages.1.learning_rate=1e-4..1e-2",
        "stages.1.final_learning_rate=1e-5..1e-3",
    )
    assert found.stages[1].final_learning_rate == 1e-4


def test_own_values_give_the_recipe_itself() -> None:
    space = parse_space([RATES, "stages.*.batch=x0.5|1", "architecture.window=2|4"], RECIPE)
    values = {dimension.key: dimension.own for dimension in space if dimension.own is not None}
    assert recipe_with(RECIPE, space, values) == RECIPE
