"""What a search varies: entries like `stages.*.learning_rate=1e-4..2e-3`, read and applied."""

import contextlib
import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import optuna
import yaml

from fairweather.errors import RecipeError
from fairweather.training.recipe import Recipe
from fairweather.training.recipe_files import apply_override, parse_recipe, read_yaml, suggest

Value = float | str
Values = Mapping[str, Value]

DEFAULT_SPACE = ("stages.*.learning_rate=x0.2..5", "stages.*.batch=x0.5|1|2")
EVERY_STAGE = "stages.*."
LOG_FROM_RATIO = 10
SEARCHED_DATA = ("data.real_fraction", "data.identity_fraction")
# They change which images are measured and under which degradation, or nothing at all.
NOT_SEARCHED = (
    *("name", "description", "published", "cost"),
    *("task", "data", "seed", "validation_crop_px"),
)
HOW = (
    "write a range as key=LOW..HIGH, choices as key=A|B|C, and with x in front, as in"
    " stages.*.batch=x0.5|1|2, factors of the recipe's own values"
)


@dataclass(frozen=True)
class Dimension:
    """One value that a search varies.

    Attributes:
        entry: as it was written.
        key: dotted, with `*` for every stage; all places of a dimension get the same draw.
        places: the key of each stage, or the key alone.
        scales: whether the draw is a factor of the recipe's own value in each place.
        choices: as they were written, of a choice.
        low: end of a range, in it.
        high: the other end, in it too.
        own: the draw that gives the recipe's own values; None if there is none.
    """

    entry: str
    key: str
    places: tuple[str, ...]
    scales: bool
    choices: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    own: Value | None = None

    @property
    def label(self) -> str:
        """The key, and whether it is scaled."""
        return f"{self.key} ×" if self.scales else self.key

    @property
    def is_log(self) -> bool:
        """Whether the range is drawn from on a logarithmic scale."""
        return not self.choices and self.low > 0 and self.high / self.low >= LOG_FROM_RATIO

    @property
    def is_whole(self) -> bool:
        """Whether the range is of whole numbers: both ends were written as such."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not self.scales

    def suggest(self, trial: optuna.Trial) -> Value:
        """The trial's draw."""
        if self.choices:
            return trial.suggest_categorical(self.key, self.choices)
        if self.is_whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.is_log)
        return trial.suggest_float(self.key, self.low, self.high, log=self.is_log)

    @staticmethod
    def show(value: Value) -> str:
        """A draw for people."""
        return value if isinstance(value, str) else f"{value:.4g}"


def parse_space(entries: Sequence[str], recipe: Recipe) -> tuple[Dimension, ...]:
    """Reads what to vary; without entries, learning rates and batches around the recipe's own.

    `key=LOW..HIGH` draws uniformly, or log-uniformly where LOW is above 0 and HIGH at least ten
    times it, and whole numbers where both are; `key=A|B|C` is a choice. With `x` in front these are
    factors of the recipe's own values. `stages.*.` is every stage, with one draw for all of them.

    Raises:
        RecipeError: for an entry that cannot be read, a key that no recipe has, two entries for one
            value, or a key that would change what trials are compared by.
    """
    dimensions = tuple(_parse_entry(entry, recipe) for entry in entries or DEFAULT_SPACE)
    taken: dict[str, str] = {}
    for dimension in dimensions:
        for place in dimension.places:
            if place in taken:
                raise RecipeError(
                    f"{dimension.entry!r}: {taken[place]!r} varies {place} already; keep one"
                )
            taken[place] = dimension.entry
    return dimensions


def _parse_entry(entry: str, recipe: Recipe) -> Dimension:
    key, separator, text = (part.strip() for part in entry.partition("="))
    if not separator:
        raise RecipeError(f"{entry!r}: says no range; {HOW}")
    if key.split(".")[0] in NOT_SEARCHED and key not in SEARCHED_DATA:
        raise RecipeError(
            f"{entry!r}: trials with another {key} could not be compared; set it for all of them,"
            " without --search"
        )
    places = (key,)
    if key.startswith(EVERY_STAGE):
        rest = key.removeprefix(EVERY_STAGE)
        places = tuple(f"stages.{index}.{rest}" for index in range(len(recipe.stages)))
    elif "*" in key:
        raise RecipeError(f"{entry!r}: * is every stage, as in stages.*.learning_rate, and no more")
    tree = recipe.model_dump(mode="json")
    own = [_own_value(recipe, tree, place) for place in places]
    scales = text.startswith("x") and text[1:2] in tuple(".0123456789")
    if scales and not all(_is_number(value) for value in own):
        raise RecipeError(f"{entry!r}: the recipe has no number there to multiply; give values")
    return _parse_values(
        Dimension(entry, key, places, scales=scales),
        text.removeprefix("x") if scales else text,
        own=1 if scales else own[0] if all(value == own[0] for value in own) else None,
    )


def _parse_values(dimension: Dimension, text: str, *, own: Any) -> Dimension:
    low, dots, high = text.partition("..")
    if dots:
        ends = [_parse_value(end, dimension.entry) for end in (low, high)]
        if not all(_is_number(end) and math.isfinite(end) for end in ends) or ends[0] >= ends[1]:
            raise RecipeError(f"{dimension.entry!r}: {text} is no range; {HOW}")
        inside = _is_number(own) and ends[0] <= own <= ends[1]
        whole = all(isinstance(end, int) for end in ends) and not dimension.scales
        fits = inside and (isinstance(own, int) or not whole)
        return replace(dimension, low=ends[0], high=ends[1], own=own if fits else None)
    choices = tuple(choice.strip() for choice in text.split("|"))
    if len(set(choices)) < max(2, len(choices)) or not all(choices):
        raise RecipeError(f"{dimension.entry!r}: has no two different values; {HOW}")
    values = {choice: _parse_value(choice, dimension.entry) for choice in choices}
    if dimension.scales and not all(_is_number(value) for value in values.values()):
        raise RecipeError(f"{dimension.entry!r}: a factor is a number; {HOW}")
    same = (choice for choice, value in values.items() if own is not None and value == own)
    return replace(dimension, choices=choices, own=next(same, None))


def _parse_value(text: str, entry: str) -> Any:
    """As YAML, but 1e-4 is a number, which for YAML 1.1 needs a point."""
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(text)
    return read_yaml(text, source=f"{entry!r}: {text!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _own_value(recipe: Recipe, tree: Any, place: str) -> Any:
    """What the recipe says in a place; None where it need not say anything."""
    parts = place.split(".")
    if parts[0] == "architecture":
        return _own_architecture(recipe, place)
    value = tree
    try:
        for part in parts:
            value = value[int(part) if part.isdecimal() else part]
    except (KeyError, IndexError, TypeError):
        probe = copy.deepcopy(tree)
        apply_override(probe, f"{place}=1")
        parse_recipe(probe, source=place)  # says which key is nearest
        return None
    return value


def _own_architecture(recipe: Recipe, place: str) -> Any:
    names = [field.name for field in fields(recipe.config)]
    name = place.partition(".")[2]
    if name not in names:
        raise RecipeError(f"{place}: there is no such key; {suggest(name, names)}")
    return getattr(recipe.config, name)


def recipe_with(recipe: Recipe, dimensions: Sequence[Dimension], values: Values) -> Recipe:
    """The recipe with the values of one trial.

    The final learning rate of a stage moves with its learning rate, unless it is varied itself, so
    that the cosine keeps its shape.

    Raises:
        RecipeError: if they make no valid recipe.
    """
    own = recipe.model_dump(mode="json")
    tree = copy.deepcopy(own)
    varied = {place for dimension in dimensions for place in dimension.places}
    for dimension in dimensions:
        value = values[dimension.key]
        drawn = _parse_value(value, dimension.entry) if isinstance(value, str) else value
        for place in dimension.places:
            new = drawn
            if dimension.scales:
                new = _scaled(_own_value(recipe, own, place), drawn)
            elif isinstance(drawn, float):
                new = _rounded(drawn)
            # YAML that holds 1.0e-05, which a plain 1e-05 would not be.
            apply_override(tree, f"{place}={yaml.safe_dump(new)}")
    for index, (before, after) in enumerate(zip(own["stages"], tree["stages"], strict=True)):
        old, new = before["learning_rate"], after["learning_rate"]
        moves = _is_number(new) and new != old
        if moves and f"stages.{index}.final_learning_rate" not in varied:
            after["final_learning_rate"] = _rounded(before["final_learning_rate"] * new / old)
    return parse_recipe(tree, source="with these values")


def _scaled(own: float, factor: float) -> float:
    if isinstance(own, int):
        return max(1, round(own * factor)) if own else 0
    return own if factor == 1 else _rounded(own * factor)


def _rounded(value: float) -> float:
    """To four digits, which are enough for a recipe that people read."""
    return float(f"{value:.4g}")
