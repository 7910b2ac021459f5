"""Weights × test sets × protocol → figures, and a report to look at."""

from fairweather.evaluation.evaluate import evaluate, evaluate_photos, evaluate_results
from fairweather.evaluation.metrics import measure, measure_alone, measure_cast
from fairweather.evaluation.protocol_text import describe_protocol
from fairweather.evaluation.protocols import PROTOCOLS
from fairweather.evaluation.report import ReportWriter, figure_text, label
from fairweather.evaluation.results import (
    RESTORED,
    Evaluation,
    Images,
    Row,
    SetResult,
    as_results_tree,
    as_tree,
    read_results,
)
from fairweather.evaluation.sets import (
    NO_DEGRADATION,
    Item,
    TestSet,
    find_degraded_set,
    find_photos,
    find_test_sets,
    match_results,
)
from fairweather.evaluation.weights import INPUT

__all__ = [
    "INPUT",
    "NO_DEGRADATION",
    "PROTOCOLS",
    "RESTORED",
    "Evaluation",
    "Images",
    "Item",
    "ReportWriter",
    "Row",
    "SetResult",
    "TestSet",
    "as_results_tree",
    "as_tree",
    "describe_protocol",
    "evaluate",
    "evaluate_photos",
    "evaluate_results",
    "figure_text",
    "find_degraded_set",
    "find_photos",
    "find_test_sets",
    "label",
    "match_results",
    "measure",
    "measure_alone",
    "measure_cast",
    "read_results",
]
