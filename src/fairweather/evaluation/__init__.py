"""Weights × test sets × protocol → figures, and a report to look at."""

from fairweather.evaluation.evaluate import evaluate, evaluate_photos, evaluate_results
from fairweather.evaluation.metrics import measure
from fairweather.evaluation.protocols import PROTOCOLS, describe_protocol
from fairweather.evaluation.report import ReportWriter, figure_text, label
from fairweather.evaluation.results import Evaluation, as_results_tree, as_tree, read_results
from fairweather.evaluation.sets import (
    NO_DEGRADATION,
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
    "Evaluation",
    "ReportWriter",
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
    "read_results",
]
