"""Weights × test sets × protocol → figures, and a report to look at."""

from fairweather.evaluation.evaluate import evaluate, evaluate_photos, evaluate_results
from fairweather.evaluation.inference import INFERENCES, build_run
from fairweather.evaluation.metrics import (
    Measures,
    measure,
    measure_alone,
    measure_cast,
    prepare_image,
)
from fairweather.evaluation.protocols import (
    PROTOCOLS,
    MetricProtocol,
    Source,
    SsimVariant,
    describe_protocol,
)
from fairweather.evaluation.quality_page import write_benchmark_page
from fairweather.evaluation.report import ReportWriter, figure_text, label
from fairweather.evaluation.report.rows import RESTORED, Evaluation, Images, Row, SetResult
from fairweather.evaluation.results import as_results_tree, as_tree
from fairweather.evaluation.sets import (
    Item,
    TestSet,
    find_degraded_set,
    find_photos,
    find_test_sets,
    match_results,
)

__all__ = [
    "INFERENCES",
    "PROTOCOLS",
    "RESTORED",
    "Evaluation",
    "Images",
    "Item",
    "Measures",
    "MetricProtocol",
    "ReportWriter",
    "Row",
    "SetResult",
    "Source",
    "SsimVariant",
    "TestSet",
    "as_results_tree",
    "as_tree",
    "build_run",
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
    "prepare_image",
    "write_benchmark_page",
]
