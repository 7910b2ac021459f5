"""Recipe → checkpoint. Needs the extra `train`."""

from fairweather.errors import MissingExtraError

try:
    from fairweather.training.plan import Plan, StagePlan, plan_training
    from fairweather.training.recipe import DataSpec, PairFolder, Recipe, Stage
    from fairweather.training.recipe_files import (
        dump_recipe,
        list_recipes,
        load_recipe,
        recipe_schema,
    )
    from fairweather.training.run import Machines, train
    from fairweather.training.search import SearchResult, tune
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.startswith("fairweather"):
        raise
    raise MissingExtraError(
        f"training needs {missing.name}; install it with: pip install 'fairweather[train]'"
    ) from missing

__all__ = [
    "DataSpec",
    "Machines",
    "PairFolder",
    "Plan",
    "Recipe",
    "SearchResult",
    "Stage",
    "StagePlan",
    "dump_recipe",
    "list_recipes",
    "load_recipe",
    "plan_training",
    "recipe_schema",
    "train",
    "tune",
]
