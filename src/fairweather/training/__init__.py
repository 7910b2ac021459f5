"""Recipe → checkpoint. What trains needs the extra `train`; reading recipes does not."""

import importlib
from typing import TYPE_CHECKING, Any

from fairweather.errors import MissingExtraError

if TYPE_CHECKING:
    from fairweather.training.batches import (
        HeldOutCrops,
        degrade_crops,
        degrade_held_out,
        seed_of,
        split_pairs,
        training_crops,
    )
    from fairweather.training.classifier import train_classifier
    from fairweather.training.classifier_confusion import confuse
    from fairweather.training.faults import describe_fault
    from fairweather.training.losses import (
        CHARBONNIER_EPSILON,
        HIGHEST_PSNR_DB,
        LEAST_MSE,
        SSIM_SIGMA_PX,
        SSIM_WINDOW_PX,
    )
    from fairweather.training.plan import Plan, plan_training
    from fairweather.training.recipe import Recipe, Stage
    from fairweather.training.recipe_files import (
        dump_recipe,
        list_recipes,
        load_recipe,
        recipe_schema,
    )
    from fairweather.training.run import (
        SECONDS_BETWEEN_CURVES,
        TRIPTYCHS,
        Machines,
        StageRun,
        run_recipe,
    )
    from fairweather.training.schedules import StageLength, length_of
    from fairweather.training.stage_run import train
    from fairweather.training.tune import SearchResult, search_recipe

# Lightning takes seconds to import, and neither a recipe nor Keras needs it: a name is looked up
# when it is used, in the light rooms first.
ROOMS = (
    *("recipe", "recipe_files", "losses", "schedules", "batches", "faults", "run", "plan"),
    *("classifier", "classifier_confusion", "stage_run", "tune"),
)

__all__ = [
    "CHARBONNIER_EPSILON",
    "HIGHEST_PSNR_DB",
    "LEAST_MSE",
    "SECONDS_BETWEEN_CURVES",
    "SSIM_SIGMA_PX",
    "SSIM_WINDOW_PX",
    "TRIPTYCHS",
    "HeldOutCrops",
    "Machines",
    "Plan",
    "Recipe",
    "SearchResult",
    "Stage",
    "StageLength",
    "StageRun",
    "confuse",
    "degrade_crops",
    "degrade_held_out",
    "describe_fault",
    "dump_recipe",
    "length_of",
    "list_recipes",
    "load_recipe",
    "plan_training",
    "recipe_schema",
    "run_recipe",
    "search_recipe",
    "seed_of",
    "split_pairs",
    "train",
    "train_classifier",
    "training_crops",
]


def __getattr__(name: str) -> Any:
    """Import the room of a name when the name is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        rooms = (importlib.import_module(f"{__name__}.{room}") for room in ROOMS)
        value = next(getattr(room, name) for room in rooms if hasattr(room, name))
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("fairweather"):
            raise
        raise MissingExtraError(
            f"training needs {missing.name}; install it with: pip install 'fairweather[train]'"
        ) from missing
    globals()[name] = value
    return value
