"""Networks: what they compute, their named shapes, and their weights on disk."""

from fairweather.models.ast import (
    AST,
    OPEN_GATE,
    StochasticDepth,
    add_global_context,
    count_parameters,
    relative_position_index,
)
from fairweather.models.catalog import ModelEntry, describe_config, list_models
from fairweather.models.checkpoint import (
    CONFIG_KEY,
    create_model,
    find_weights,
    list_weights,
    load_model,
    read_metadata,
    read_state,
    save_model,
    save_official,
)
from fairweather.models.classifier import (
    CLASSES,
    CLASSIFIER_WEIGHTS,
    VIEW_PX,
    DegradationClassifier,
    Views,
    load_classifier,
    save_classifier,
)
from fairweather.models.config import ASTConfig, shift_pattern, stochastic_depth_schedule
from fairweather.models.fast.dispatch import plain_kernels
from fairweather.models.official import from_official, to_official
from fairweather.models.padding import pad_to_multiple
from fairweather.models.presets import PRESETS

__all__ = [
    "AST",
    "CLASSES",
    "CLASSIFIER_WEIGHTS",
    "CONFIG_KEY",
    "OPEN_GATE",
    "PRESETS",
    "VIEW_PX",
    "ASTConfig",
    "DegradationClassifier",
    "ModelEntry",
    "StochasticDepth",
    "Views",
    "add_global_context",
    "count_parameters",
    "create_model",
    "describe_config",
    "find_weights",
    "from_official",
    "list_models",
    "list_weights",
    "load_classifier",
    "load_model",
    "pad_to_multiple",
    "plain_kernels",
    "read_metadata",
    "read_state",
    "relative_position_index",
    "save_classifier",
    "save_model",
    "save_official",
    "shift_pattern",
    "stochastic_depth_schedule",
    "to_official",
]
