"""An evaluation as data: results.json and results.csv."""

import csv
import io
import math
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from fairweather.evaluation.inference import INFERENCES
from fairweather.evaluation.protocols import describe_protocol
from fairweather.evaluation.published import PUBLISHED, why_not_comparable
from fairweather.evaluation.report.rows import RESTORED, Evaluation, Figures, Mean, Row, SetResult
from fairweather.evaluation.weights import INPUT

FORMAT = "fairweather evaluation 1"
PACKAGES = ("fairweather", "torch", "numpy", "scikit-image", "pillow")


def as_tree(evaluation: Evaluation) -> dict[str, Any]:
    """What results.json holds; infinite PSNR, of equal images, is null."""
    how = evaluation.protocol
    return {
        "format": FORMAT,
        "protocol": asdict(how) | {"in_words": describe_protocol(how)} if how else None,
        "inference": evaluation.inference,
        "inference_in_words": INFERENCES.get(evaluation.inference or "", ""),
        "self_ensemble": evaluation.self_ensemble,
        "device": evaluation.device,
        "weights": [asdict(facts) for facts in evaluation.weights],
        "versions": {package: version(package) for package in PACKAGES},
        "date": datetime.now(UTC).date().isoformat(),
        "notes": evaluation.notes,
        "sets": [_set_tree(evaluation, result) for result in evaluation.sets],
        "faults": evaluation.faults,
    }


def as_results_tree(evaluation: Evaluation) -> dict[str, Any]:
    """What `evaluate --restored --json` prints: the figures of one set of results."""
    (result,) = evaluation.sets
    assert evaluation.protocol is not None
    return {
        "protocol": evaluation.protocol.name,
        "images": [
            {"name": row.name, **finite(row.restored[RESTORED]), **_input_tree(row)}
            for row in result.rows
        ],
        "mean": {
            **(_mean_tree(result.mean(RESTORED)) if result.rows else {}),
            **({"input": _mean_tree(result.mean(None))} if result.has_input else {}),
        },
    }


def finite(figures: Figures) -> dict[str, float | None]:
    """For JSON, which has no infinity."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _input_tree(row: Row) -> dict[str, Any]:
    return {"input": finite(row.input)} if row.input is not None else {}


def _mean_tree(mean: Mean) -> dict[str, Any]:
    """Means, and of how many images where some had no finite figure."""
    counts = {"mean_of": dict(mean.counts)} if mean.counts else {}
    return {**finite(mean.figures), **counts}


def _set_tree(evaluation: Evaluation, result: SetResult) -> dict[str, Any]:
    figure = PUBLISHED.get(result.about.benchmark) if evaluation.protocol else None
    published = None
    if figure is not None:
        published = {**asdict(figure), "not_comparable_because": reasons(evaluation, result)}
    return {
        "name": result.name,
        "task": result.about.task,
        "layout": result.about.layout,
        "split": result.about.split,
        "folder": result.about.folder,
        "degradation": result.about.degradation,
        "count": len(result.rows),
        "mean": {
            "input": _mean_tree(result.mean(None)) if result.has_input else None,
            "restored": {name: _mean_tree(result.mean(name)) for name in result.columns},
        },
        "published": published,
        "images": [_row_tree(row) for row in result.rows],
        "faults": result.faults,
    }


def _row_tree(row: Row) -> dict[str, Any]:
    restored = {}
    for name, figures in row.restored.items():
        gain = row.gain_db(name)
        restored[name] = finite(figures)
        if row.input is not None and "psnr_db" in row.input:
            restored[name] |= finite({"gain_db": gain})
        if name in row.seconds:
            restored[name] |= {"seconds": round(row.seconds[name], 3)}
    return {
        "name": row.name,
        "height": row.height,
        "width": row.width,
        "input": finite(row.input) if row.input is not None else None,
        "restored": restored,
    }


def reasons(evaluation: Evaluation, result: SetResult) -> list[str]:
    """Why the published figure of a set may not be compared with ours; empty without one."""
    figure = PUBLISHED.get(result.about.benchmark)
    if figure is None or evaluation.protocol is None:
        return []
    return why_not_comparable(
        figure,
        protocol=evaluation.protocol,
        inference=evaluation.inference,
        ensemble=evaluation.self_ensemble,
        images=len(result.rows),
        training=[facts.training_data for facts in evaluation.weights],
    )


def as_table(evaluation: Evaluation) -> str:
    """results.csv: a line for each image and column; what is not known or infinite is empty."""
    names = dict.fromkeys(
        name
        for result in evaluation.sets
        for row in result.rows
        for _, figures in columns_of(row)
        for name in figures
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    heads = ["set", "task", "image", "height", "width", "weights", *names, "gain_db", "seconds"]
    writer.writerow(heads)
    for result in evaluation.sets:
        for row in result.rows:
            about = [result.name, result.about.task, row.name, row.height, row.width]
            for column, figures in columns_of(row):
                gain = row.gain_db(column) if column != INPUT else math.nan
                seconds = row.seconds.get(column, math.nan)
                values = [*(figures.get(name, math.nan) for name in names), gain, seconds]
                cells = [f"{value:.6f}" if math.isfinite(value) else "" for value in values]
                writer.writerow([*about, column, *cells])
    return text.getvalue()


def columns_of(row: Row) -> Iterator[tuple[str, Figures]]:
    """The input's figures, if there are any, then those of the weights."""
    if row.input is not None:
        yield INPUT, row.input
    yield from row.restored.items()
