"""Recipe → checkpoint. Needs the extra `train`."""

from fairweather.errors import MissingExtraError

try:
    from fairweather.training.recipe import DataSpec, Recipe, Stage, list_recipes, load_recipe
    from fairweather.training.run import train
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.startswith("fairweather"):
        raise
    raise MissingExtraError(
        f"training needs {missing.name}; install it with: pip install 'fairweather[train]'"
    ) from missing

__all__ = ["DataSpec", "Recipe", "Stage", "list_recipes", "load_recipe", "train"]
