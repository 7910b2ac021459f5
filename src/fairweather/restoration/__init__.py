"""Image → restored image, of any size, on any hardware."""

from fairweather.restoration.auto import (
    AutoRestorer,
    Diagnosis,
    classifier_views,
    classify_degradation,
    diagnose,
    mirrored,
    probabilities,
)
from fairweather.restoration.batch import Failure, Job, Summary, plan_jobs, run_jobs
from fairweather.restoration.engine_choice import (
    EngineEntry,
    create_engine,
    list_engines,
    pick_engine,
)
from fairweather.restoration.engines import Engine
from fairweather.restoration.files import Restored
from fairweather.restoration.official_inference import (
    restore_equal_tiles,
    restore_square_padded,
    square_side,
)
from fairweather.restoration.restorer import Restorer, restore, self_ensemble

__all__ = [
    "AutoRestorer",
    "Diagnosis",
    "Engine",
    "EngineEntry",
    "Failure",
    "Job",
    "Restored",
    "Restorer",
    "Summary",
    "classifier_views",
    "classify_degradation",
    "create_engine",
    "diagnose",
    "list_engines",
    "mirrored",
    "pick_engine",
    "plan_jobs",
    "probabilities",
    "restore",
    "restore_equal_tiles",
    "restore_square_padded",
    "run_jobs",
    "self_ensemble",
    "square_side",
]
