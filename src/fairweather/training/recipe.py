"""What an experiment is: a frozen, validated piece of data, read from YAML."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fairweather.data import DEGRADATIONS
from fairweather.errors import RecipeError
from fairweather.models import PRESETS

RECIPE_FOLDER = resources.files("fairweather.training") / "recipes"


class Strict(BaseModel):
    """Frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSpec(Strict):
    """What is trained on; folders are relative to the data root given on the command line."""

    clean: tuple[str, ...] = Field((), description="folders of clean images, degraded on the fly")
    pairs: tuple[str, ...] = Field((), description="folders that hold input/ and target/")
    real_fraction: float = Field(0.0, ge=0, le=1, description="share of crops from the pairs")
    identity_fraction: float = Field(
        0.0, ge=0, lt=1, description="share of synthetic crops left clean, to learn to do no harm"
    )
    held_out_every: int = Field(
        25,
        ge=2,
        description="every n-th file is held out of the training to choose the best checkpoint",
    )


class Stage(Strict):
    """One leg of a progressive training: crops, batch and rate of its own, a fresh optimiser."""

    crop_px: int = Field(ge=16, description="side of a training crop")
    batch: int = Field(ge=1, description="crops in a step, over all devices together")
    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    final_learning_rate: float = Field(1e-6, ge=0, description="where the cosine ends")
    warmup_steps: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _warmup_is_shorter(self) -> "Stage":
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be under steps {self.steps}")
        return self


class Recipe(Strict):
    """An experiment: model, data, stages and what they must reach."""

    name: str
    task: str
    description: str
    preset: str = Field(description="architecture, see `fairweather models list`")
    data: DataSpec
    stages: tuple[Stage, ...] = Field(min_length=1)
    loss: Literal["charbonnier", "l1"] = "charbonnier"
    weight_decay: float = Field(0.02, ge=0)
    gradient_clip_norm: float | None = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1, description="of the averaged weights that are kept")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: int = 0
    validate_every_steps: int = Field(500, ge=1)
    validation_crop_px: int = Field(256, ge=16)

    @field_validator("preset")
    @classmethod
    def _preset_exists(cls, preset: str) -> str:
        if preset not in PRESETS:
            raise ValueError(f"is none of {', '.join(PRESETS)}")
        return preset

    @model_validator(mode="after")
    def _has_data(self) -> "Recipe":
        if not (self.data.clean or self.data.pairs):
            raise ValueError("data: names neither clean folders nor pairs")
        if self.data.clean and self.task not in DEGRADATIONS:
            raise ValueError(
                f"task {self.task!r}: has no synthetic degradation ({', '.join(DEGRADATIONS)})"
            )
        return self


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        Path(entry.name).stem for entry in RECIPE_FOLDER.iterdir() if entry.name.endswith(".yaml")
    )


def load_recipe(recipe: str | Path, *, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe.

    Args:
        recipe: the name of one that comes with the package, or a YAML file.
        overrides: `key=value` with dotted keys, as in `stages.0.batch=8`; values are YAML.

    Raises:
        RecipeError: if there is no such recipe, or it does not validate.
    """
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RecipeError(f"{path}: there is no such recipe file")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: is not a text file: {error}") from error
    elif str(recipe) in list_recipes():
        text = (RECIPE_FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8")
    else:
        raise RecipeError(
            f"{recipe!r} is neither a .yaml file nor one of {', '.join(list_recipes())}"
        )
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{recipe}: is not YAML: {error}") from error
    for override in overrides:
        apply_override(tree, override)
    return parse_recipe(tree, source=str(recipe))


def parse_recipe(tree: Mapping[str, Any], *, source: str) -> Recipe:
    """Validates a recipe; every fault is named with its place."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        found = error.errors()
        # A list whose entries are at fault is also reported as too short, which it is not.
        lists = {fault["loc"][0] for fault in found if len(fault["loc"]) > 1}
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'recipe'}: "
            + fault["msg"].removeprefix("Value error, ")
            for fault in found
            if fault["type"] != "too_short" or fault["loc"][0] not in lists
        )
        raise RecipeError(f"{source}: {faults}") from error


def apply_override(tree: Any, override: str) -> None:
    """Sets one dotted key of a tree of dicts and lists in place."""
    key, separator, value = override.partition("=")
    if not separator:
        raise RecipeError(f"{override!r}: an override is written key=value, as in stages.0.batch=8")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"{override!r}: the value is not YAML: {error}") from error
    last: Any
    *parents, last = (int(part) if part.isdecimal() else part for part in key.split("."))
    try:
        for parent in parents:
            tree = tree[parent]
        tree[last] = parsed
    except (KeyError, IndexError, TypeError) as error:
        raise RecipeError(f"{override!r}: the recipe has no {key!r}") from error
