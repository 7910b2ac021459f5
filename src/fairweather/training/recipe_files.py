"""Recipes on disk: YAML, overrides from the command line, and the JSON Schema for editors."""

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from fairweather.errors import RecipeError
from fairweather.training.losses import LOSS_NAMES
from fairweather.training.recipe import Recipe

LONGEST, DEEPEST = 100_000, 32  # characters and levels of YAML, far beyond those of any recipe
LEFT_OUT = ("architecture", "augmentation")  # parts that a file need not have
RECIPE_FOLDER = resources.files("fairweather.training") / "recipes"


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        Path(entry.name).stem for entry in RECIPE_FOLDER.iterdir() if entry.name.endswith(".yaml")
    )


class RecipeLoader(yaml.SafeLoader):
    """Reads YAML that is no deeper than a recipe can be."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Read one value."""
        self.depth += 1
        if self.depth > DEEPEST:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(
                problem=f"more than {DEEPEST} levels deep", problem_mark=mark
            )
        node = super().compose_node(parent, index)  # type: ignore[no-untyped-call]
        self.depth -= 1
        return node


def read_yaml(text: str, *, source: str) -> Any:
    """Read YAML that may come from anywhere.

    Raises:
        RecipeError: if it is none, or no recipe could be as large or as deep.
    """
    if len(text) > LONGEST:
        raise RecipeError(f"{source}: is longer than {LONGEST:,} characters, as no recipe is")
    try:
        return yaml.load(text, RecipeLoader)
    except (yaml.YAMLError, ValueError, TypeError, ArithmeticError, LookupError) as error:
        # Among what is no YAMLError: a 45th of a month.
        raise RecipeError(f"{source}: is not YAML: {error}") from error


def load_recipe(
    recipe: str | Path, *, overrides: Sequence[str] = (), allow_code: bool = False
) -> Recipe:
    """Reads a recipe.

    Args:
        recipe: the name of one that comes with the package, or a YAML file.
        overrides: `key=value` with dotted keys, as in `stages.0.batch=8`; values are YAML.
        allow_code: whether its training may import and call what `perceptual_backbone` names.

    Raises:
        RecipeError: if there is no such recipe, it does not validate, or it names code that is not
            allowed.
    """
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        text = _read(path)
    elif str(recipe) in list_recipes():
        text = (RECIPE_FOLDER / f"{recipe}.yaml").read_text(encoding="utf-8")
    else:
        raise RecipeError(
            f"{str(recipe)!r} is neither a .yaml file nor one of {', '.join(list_recipes())}"
        )
    tree = read_yaml(text, source=str(recipe))
    for override in overrides:
        apply_override(tree, override)
    parsed = parse_recipe(tree, source=str(recipe))
    if parsed.perceptual_backbone is not None and not allow_code:
        raise RecipeError(
            f"{recipe}: perceptual_backbone: a training would run {parsed.perceptual_backbone!r},"
            " which may be any code; if you trust it, add --allow-code (allow_code=True)"
        )
    return parsed


def _read(path: Path) -> str:
    if not path.is_file():
        raise RecipeError(f"{path}: there is no such recipe file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not a text file: {error}") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML, with the defaults that its file left out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def recipe_schema() -> dict[str, Any]:
    """The JSON Schema of a recipe, for editors that complete and check YAML."""
    schema = Recipe.model_json_schema()
    loss = schema["properties"]["loss"]
    full = {key: loss.pop(key) for key in ("type", "additionalProperties")}
    loss["anyOf"] = [{"enum": list(LOSS_NAMES)}, full]  # a name alone
    pairs = schema["$defs"]["DataSpec"]["properties"]["pairs"]
    pairs["items"] = {"anyOf": [{"type": "string"}, pairs["items"]]}  # a folder's name alone
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def parse_recipe(tree: Mapping[str, Any], *, source: str) -> Recipe:
    """Validates a recipe; every fault is named with its place."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        found = error.errors()
        # What holds a fault is also reported as too short, which it is not.
        holders = {fault["loc"][:depth] for fault in found for depth in range(len(fault["loc"]))}
        faults = "; ".join(
            _describe_fault(fault["loc"], fault["type"], fault["msg"])
            for fault in found
            if fault["type"] != "too_short" or fault["loc"] not in holders
            if fault["type"] != "default_factory_not_called"
        )
        raise RecipeError(f"{source}: {faults}") from error


def _describe_fault(place: tuple[str | int, ...], kind: str, message: str) -> str:
    message = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        message = "there is no such key; " + suggest(place[-1], _keys_beside(place))
    named = ".".join(str(part) for part in place if part != "[key]")
    return f"{named or 'recipe'}: {message}"


def suggest(key: str | int, keys: Sequence[str]) -> str:
    """Name the nearest valid key, or all of them."""
    near = difflib.get_close_matches(str(key), keys, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"it may be one of {', '.join(keys)}"


def _keys_beside(place: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = Recipe
    for part in place[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model in an annotation such as `tuple[Stage, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def apply_override(tree: Any, override: str) -> None:
    """Sets one dotted key of a tree of dicts and lists in place."""
    key, separator, value = override.partition("=")
    if not separator:
        raise RecipeError(f"{override!r}: an override is written key=value, as in stages.0.batch=8")
    parsed = read_yaml(value, source=f"{override!r}: the value")
    last: Any
    try:
        *parents, last = (int(part) if part.isdecimal() else part for part in key.split("."))
    except ValueError as error:  # more digits than Python reads
        raise RecipeError(f"{override!r}: the recipe has no such key") from error
    try:
        for depth, parent in enumerate(parents):
            if depth == 0 and parent in LEFT_OUT:
                tree.setdefault(parent, {})
            tree = tree[parent]
        tree[last] = parsed
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        keys = list(Recipe.model_fields)
        hint = f"; {suggest(parents[0], keys)}" if parents and parents[0] not in keys else ""
        raise RecipeError(f"{override!r}: the recipe has no {key!r}{hint}") from error
