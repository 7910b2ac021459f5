"""Recipes are data: all of them build, every fault is named, and every field is read."""

import json
import math
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from imports import PACKAGE, attributes_read
from pydantic import ValidationError

from fairweather.data import DEGRADATIONS, Augmentation
from fairweather.errors import FairweatherError, RecipeError
from fairweather.models import Network, create_model
from fairweather.training import (
    Recipe,
    Stage,
    list_recipes,
    load_recipe,
    recipe_schema,
)
from fairweather.training.recipe import Cost, DataSpec, PairFolder, PublishedFigure

SMALL: dict[str, Any] = {
    "name": "small",
    "task": "rain",
    "description": "A recipe for tests.",
    "preset": "ast_n",
    "data": {"clean": ["clean"]},
    "stages": [
        {"crop_px": 32, "batch": 2, "steps": 10, "learning_rate": 1.0e-3},
        {"crop_px": 64, "batch": 4, "steps": 20, "learning_rate": 1.0e-4, "warmup_steps": 5},
    ],
}


def save(folder: Path, tree: Any) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def without(tree: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in tree.items() if name != key}


def with_stage(**changes: Any) -> dict[str, Any]:
    first, second = SMALL["stages"]
    return {**SMALL, "stages": [first, {**second, **changes}]}


def with_ranges(ranges: dict[str, object], *, task: str = "rain") -> dict[str, object]:
    return {**SMALL, "task": task, "data": {"clean": ["clean"], "ranges": ranges}}


def with_shares(shares: dict[str, float], *, task: str = "rain") -> dict[str, Any]:
    return {**SMALL, "task": task, "data": {"clean": ["clean"], "weather_shares": shares}}


def message_of(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides=overrides)
    return str(caught.value)


def test_there_are_recipes() -> None:
    assert "rain_n" in list_recipes()
    files = {path.stem for path in PACKAGE.glob("training/recipes/*")}
    assert {*list_recipes(), "recipe.schema"} == files


@pytest.mark.parametrize("name", list_recipes())
def test_a_bundled_recipe_builds(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description.strip()
    assert isinstance(create_model(recipe.preset), Network)
    assert recipe.task in DEGRADATIONS or not recipe.data.clean
    for stage in recipe.stages:
        assert stage.final_learning_rate <= stage.learning_rate


def test_a_recipe_holds_what_the_file_says(tmp_path: Path) -> None:
    recipe = load_recipe(save(tmp_path, SMALL))
    assert recipe.data.clean == ("clean",)
    assert [stage.batch for stage in recipe.stages] == [2, 4]
    assert recipe.stages[1].warmup_steps == 5
    assert recipe.stages[0].learning_rate == 1e-3
    assert recipe == load_recipe(str(save(tmp_path, SMALL)))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_recipe_is_frozen(tmp_path: Path) -> None:
    recipe = load_recipe(save(tmp_path, SMALL))
    for part, field in (
        (recipe, "seed"),
        (recipe.data, "real_fraction"),
        (recipe.stages[0], "steps"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(part, field, 1)
    assert isinstance(recipe.stages, tuple)
    assert isinstance(recipe.data.clean, tuple)


@pytest.mark.parametrize(
    ("tree", "place", "reason"),
    [
        ({**SMALL, "colour": "blue"}, "colour", "there is no such key"),
        ({**SMALL, "data": {"clean": ["c"], "seed": 1}}, "data.seed", "there is no such key"),
        (with_stage(learning_rat=1), "stages.1.learning_rat", "there is no such key"),
        (without(SMALL, "preset"), "preset", "required"),
        (without(SMALL, "data"), "data", "required"),
        ({**SMALL, "stages": []}, "stages", "at least 1"),
        ({**SMALL, "stages": 3}, "stages", "tuple"),
        ({**SMALL, "data": {"clean": "clean"}}, "data.clean", "tuple"),
        (with_stage(batch="many"), "stages.1.batch", "integer"),
        (with_stage(batch=2.5), "stages.1.batch", "integer"),
        (with_stage(batch=0), "stages.1.batch", "greater than or equal to 1"),
        (with_stage(crop_px=15), "stages.1.crop_px", "greater than or equal to 16"),
        (with_stage(learning_rate=0), "stages.1.learning_rate", "greater than 0"),
        (with_stage(learning_rate="fast"), "stages.1.learning_rate", "number"),
        (with_stage(warmup_steps=20), "stages.1", "warmup_steps 20 must be under steps 20"),
        (with_stage(warmup_steps=99), "stages.1", "warmup_steps 99 must be under steps 20"),
        ({**SMALL, "preset": "ast_x"}, "preset", "ast_n, ast_s, ast_t, ast_b"),
        ({**SMALL, "loss": "l3"}, "loss.l3: ", "'l3' is none of charbonnier, l1, mse"),
        ({**SMALL, "loss": {}}, "loss", "at least 1"),
        ({**SMALL, "loss": {"l1": 1.0, "edge": 0.0}}, "loss.edge: ", "greater than 0"),
        ({**SMALL, "loss": {"edge": -1.0}}, "loss.edge: ", "greater than 0"),
        ({**SMALL, "loss": {"edge": math.nan}}, "loss.edge: ", "finite"),
        ({**SMALL, "loss": {"edge": math.inf}}, "loss.edge: ", "finite"),
        ({**SMALL, "loss": {"perceptual": 1.0}}, "perceptual_backbone", "belong together"),
        ({**SMALL, "perceptual_backbone": "a:b"}, "perceptual_backbone", "belong together"),
        ({**SMALL, "precision": 16}, "precision", "bf16-mixed"),
        ({**SMALL, "ema_decay": 1.0}, "ema_decay", "less than 1"),
        ({**SMALL, "gradient_clip_norm": 0}, "gradient_clip_norm", "greater than 0"),
        ({**SMALL, "validate_every_steps": 0}, "validate_every_steps", "greater than"),
        ({**SMALL, "data": {}}, "data", "neither clean folders nor pairs"),
        (with_ranges({"size": [1, 2]}), "data.ranges", "range 'size': rain has none; it has"),
        (with_ranges({"tint": [0, 1]}), "data.ranges", "takes one number"),
        (with_ranges({"width_px": 2.0}), "data.ranges", "takes the least and the greatest"),
        (with_ranges({"width_px": [3, 2]}), "data.ranges", "takes the least and the greatest"),
        (with_ranges({"layers": [1, 2.5]}), "data.ranges", "takes whole numbers"),
        (with_ranges({"rain": 1.0}, task="weather"), "data.ranges", "has no ranges; these have"),
        ({**SMALL, "data": {"pairs": ["p"], "ranges": {"tint": 0.1}}}, "", "name data.clean"),
        (with_shares({"rain": 1.0}), "", "for task weather, not for rain"),
        (with_shares({}, task="weather"), "data.weather_shares", "at least 1"),
        (with_shares({"fog": 1}, task="weather"), "data.weather_shares", "'fog' is none of rain"),
        (with_shares({"snow": 0}, task="weather"), "data.weather_shares.snow", "greater than 0"),
        ({**SMALL, "data": {"clean": [], "pairs": []}}, "data", "neither clean folders nor pairs"),
        ({**SMALL, "data": {"clean": ["c"], "real_fraction": 1.5}}, "data.real_fraction", "less"),
        ({**SMALL, "data": {"clean": ["c"], "held_out_every": 1}}, "data.held_out_every", "2"),
        (
            {**SMALL, "data": {"clean": ["c"], "layers": ["l"], "each_once": True}},
            "data",
            "each_once goes with clean folders or with pairs",
        ),
        ({**SMALL, "task": "sunshine"}, "sunshine", "no synthetic degradation"),
        (
            {**SMALL, "task": "snow", "data": {"clean": ["c"], "layers": ["l"]}},
            "data.layers",
            "to clean images of task rain",
        ),
        ([SMALL], "recipe", "dictionary"),
        (None, "recipe", "dictionary"),
        ("rain", "recipe", "dictionary"),
    ],
)
def test_a_fault_is_named_with_its_place(
    tmp_path: Path, tree: Any, place: str, reason: str
) -> None:
    path = save(tmp_path, tree)
    message = message_of(path)
    assert message.startswith(f"{path}: ")
    assert place in message.removeprefix(str(path))
    assert reason in message


def test_what_only_follows_from_a_fault_is_not_named(tmp_path: Path) -> None:
    """The split's default depends on the layout, and a tuple without valid entries is too short."""
    pairs = {"pairs": [{"folder": "a", "layout": "x"}]}
    tree = {**SMALL, "data": pairs, "stages": [{**SMALL["stages"][0], "batch": 0}]}
    message = message_of(save(tmp_path, tree))
    assert "data.pairs.0.layout: 'x' is none of folders, " in message
    assert "split" not in message
    assert "stages: " not in message


def test_every_fault_is_named(tmp_path: Path) -> None:
    message = message_of(save(tmp_path, {**with_stage(batch=0, steps="few"), "colour": "blue"}))
    assert all(place in message for place in ("stages.1.batch", "stages.1.steps", "colour"))


def test_a_task_without_synthetic_degradation_can_be_trained_on_pairs(tmp_path: Path) -> None:
    tree = {**SMALL, "task": "sunshine", "data": {"pairs": ["pairs"]}}
    assert load_recipe(save(tmp_path, tree)).task == "sunshine"


def test_a_recipe_that_is_missing(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert str(missing) in message_of(missing)
    with pytest.raises(RecipeError, match=r"'rain_z' is neither .* rain_n"):
        load_recipe("rain_z")
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    assert str(folder) in message_of(folder)


def test_a_file_that_is_not_yaml(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: [rain\ntask: : rain", encoding="utf-8")
    message = message_of(path)
    assert f"{path}: is not YAML" in message
    assert "line 2" in message


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "photo.yaml"
    path.write_bytes(b"\xff\xd8\xff\xe0")
    assert str(path) in message_of(path)


def test_a_recipe_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "evil.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []", encoding="utf-8")
    assert "is not YAML" in message_of(path)


def test_overrides(tmp_path: Path) -> None:
    path = save(tmp_path, SMALL)
    plain = load_recipe(path)
    changed = load_recipe(
        path,
        overrides=[
            "stages.0.batch=8",
            "stages.1.learning_rate=8e-5",
            "data.real_fraction=0.25",
            "data.pairs=[one, two]",
            "gradient_clip_norm=null",
            "description=a = b",
            "stages.0.batch=16",
        ],
    )
    assert changed.stages[0].batch == 16  # the last one counts
    assert changed.stages[1].learning_rate == 8e-5
    assert changed.data.real_fraction == 0.25  # a key that the file leaves out
    assert [source.folder for source in changed.data.pairs] == ["one", "two"]
    assert changed.gradient_clip_norm is None
    assert changed.description == "a = b"
    assert changed.stages[1].batch == plain.stages[1].batch
    assert load_recipe(path) == plain


def test_a_whole_stage_is_overridden(tmp_path: Path) -> None:
    override = "stages=[{crop_px: 16, batch: 1, steps: 1, learning_rate: 1.0}]"
    assert len(load_recipe(save(tmp_path, SMALL), overrides=[override]).stages) == 1


def test_a_bundled_recipe_is_overridden_for_one_call() -> None:
    assert load_recipe("rain_n", overrides=["seed=7"]).seed == 7
    assert load_recipe("rain_n").seed == 0


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("stages.2.batch=8", "'stages.2.batch'"),
        ("stages.2={}", "'stages.2'"),
        ("stages.first.batch=8", "'stages.first.batch'"),
        ("stages.-1.batch=8", "'stages.-1.batch'"),
        ("stages.0.batch.0=8", "'stages.0.batch.0'"),
        ("nothing.batch=8", "'nothing.batch'"),
        ("name.0=8", "'name.0'"),
    ],
)
def test_an_override_of_nothing_is_named(tmp_path: Path, override: str, place: str) -> None:
    message = message_of(save(tmp_path, SMALL), override)
    assert override in message
    assert f"has no {place}" in message


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("colour=blue", "colour: "),
        ("stages.0.colour=blue", "stages.0.colour: "),
        ("stages.0.batch=many", "stages.0.batch: "),
        ("stages.0.batch=", "stages.0.batch: "),
        ("stages.0.warmup_steps=10", "stages.0: "),
        ("preset=ast_x", "preset: "),
        ("=8", "there is no such key"),
    ],
)
def test_an_override_that_does_not_validate(tmp_path: Path, override: str, place: str) -> None:
    path = save(tmp_path, SMALL)
    message = message_of(path, override)
    assert message.startswith(f"{path}: ")
    assert place in message


def test_an_override_without_a_value_says_how_it_is_written(tmp_path: Path) -> None:
    message = message_of(save(tmp_path, SMALL), "stages.0.batch")
    assert "'stages.0.batch'" in message
    assert "key=value" in message


@pytest.mark.parametrize("override", ["data.clean=[a", "description=a: b: c", "name=*x"])
def test_an_override_whose_value_is_not_yaml(tmp_path: Path, override: str) -> None:
    assert override in message_of(save(tmp_path, SMALL), override)


def test_an_override_with_a_digit_that_is_no_number(tmp_path: Path) -> None:
    assert "stages.²" in message_of(save(tmp_path, SMALL), "stages.².batch=8")


def test_a_recipe_error_is_one_of_ours() -> None:
    assert issubclass(RecipeError, FairweatherError)


ROOMS = {*PACKAGE.rglob("*.py")} - {PACKAGE / "training/recipe.py"}  # where fields are defined
FIELDS = [
    (owner, field)
    for model, owner in (
        (Recipe, "recipe"),
        (DataSpec, "data"),
        (PairFolder, "source"),
        (Augmentation, "augmentation"),
        (Stage, "stage"),
        (PublishedFigure, "figure"),
        (Cost, "cost"),
    )
    for field in model.model_fields
    if (owner, field) != ("recipe", "description")  # for people
]


@pytest.mark.parametrize(("owner", "field"), FIELDS)
def test_every_field_is_read(owner: str, field: str) -> None:
    """An option that nothing reads is a promise that is not kept."""
    assert field in attributes_read(ROOMS, owner), f"nothing reads {owner}.{field}"


def test_a_field_that_nothing_reads_is_found() -> None:
    assert "steps" in attributes_read(ROOMS, "stage")
    assert "no_such_field" not in attributes_read(ROOMS, "stage")


def test_the_schema_for_editors_is_that_of_the_code() -> None:
    """`fairweather train --schema > src/fairweather/training/recipes/recipe.schema.json`."""
    saved = PACKAGE / "training/recipes/recipe.schema.json"
    assert json.loads(saved.read_text("utf-8")) == recipe_schema()


@pytest.mark.parametrize("name", list_recipes())
def test_a_bundled_recipe_fits_the_schema(name: str) -> None:
    text = (PACKAGE / f"training/recipes/{name}.yaml").read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    jsonschema.validate(yaml.safe_load(text), recipe_schema())


def test_what_the_code_refuses_does_not_fit_the_schema() -> None:
    schema = recipe_schema()
    jsonschema.validate(SMALL, schema)
    for wrong in ({"colour": "blue"}, {"loss": 3}, {"data": {"pairs": [3]}}, {"stages": []}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**SMALL, **wrong}, schema)


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("stages.0.learning_rte=1", "stages.0.learning_rte: there is no such key; did you mean"
         " learning_rate?"),
        ("data.cleen=[a]", "data.cleen: there is no such key; did you mean clean?"),
        ("augmentation.mixup=1", "did you mean mixup_"),
        ("precison=32-true", "did you mean precision?"),
        ("stagse.0.batch=1", "the recipe has no 'stagse.0.batch'; did you mean stages?"),
        ("zzz=1", "zzz: there is no such key; it may be one of name, task,"),
    ],
)  # fmt: skip
def test_the_nearest_key_is_suggested(tmp_path: Path, override: str, suggestion: str) -> None:
    assert suggestion in message_of(save(tmp_path, SMALL), override)
