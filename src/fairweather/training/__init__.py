"""Recipe → checkpoint. Needs the extra `train`."""

from fairweather.errors import MissingExtraError

try:
    from fairweather.training.batches import degrade_crops, degrade_held_out, seed_of
    from fairweather.training.curves import draw_curves
    from fairweather.training.data_module import HeldOutCrops, split_pairs
    from fairweather.training.plan import Plan, StagePlan, plan_training
    from fairweather.training.recipe import DataSpec, PairFolder, Recipe, Stage
    from fairweather.training.recipe_files import (
        dump_recipe,
        list_recipes,
        load_recipe,
        recipe_schema,
    )
    from fairweather.training.run import (
        Machines,
        note_start,
        refuse_broken_pairs,
        start_model,
        train,
    )
    from fairweather.training.schedules import StageLength, length_of
    from fairweather.training.tune import SearchResult, tune
except ModuleNotFoundError as missing:
    if missing.name is None or missing.name.startswith("fairweather"):
        raise
    raise MissingExtraError(
        f"training needs {missing.name}; install it with: pip install 'fairweather[train]'"
    ) from missing

__all__ = [
    "DataSpec",
    "HeldOutCrops",
    "Machines",
    "PairFolder",
    "Plan",
    "Recipe",
    "SearchResult",
    "Stage",
    "StageLength",
    "StagePlan",
    "degrade_crops",
    "degrade_held_out",
    "draw_curves",
    "dump_recipe",
    "length_of",
    "list_recipes",
    "load_recipe",
    "note_start",
    "plan_training",
    "recipe_schema",
    "refuse_broken_pairs",
    "seed_of",
    "split_pairs",
    "start_model",
    "train",
    "tune",
]
