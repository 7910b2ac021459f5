"""Weights × test sets × protocol → figures, and a report to look at."""

from fairweather.evaluation.benchmark_page import write_benchmark_page
from fairweather.evaluation.evaluate import evaluate, evaluate_photos, evaluate_results
from fairweather.evaluation.inference import INFERENCES, build_run
from fairweather.evaluation.report import ReportWriter
from fairweather.evaluation.results import as_results_tree, as_tree
from fairweather.evaluation.rows import RESTORED, Evaluation, Images, Row, SetResult
from fairweather.evaluation.sets import (
    Item,
    TestSet,
    find_damaged_set,
    find_photos,
    find_test_sets,
    match_results,
)
from fairweather.evaluation.wording import figure_text, label

__all__ = [
    "INFERENCES",
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
    "build_run",
    "evaluate",
    "evaluate_photos",
    "evaluate_results",
    "figure_text",
    "find_damaged_set",
    "find_photos",
    "find_test_sets",
    "label",
    "match_results",
    "write_benchmark_page",
]
