"""Weights × test sets × protocol → a row for each image, and means."""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fairweather.data import degrade_pixels
from fairweather.errors import DataError, FairweatherError, OptionError
from fairweather.evaluation.inference import Run, build_run
from fairweather.evaluation.metrics import measure, measure_alone, measure_cast, prepare_image
from fairweather.evaluation.protocols import PROTOCOLS, MetricProtocol
from fairweather.evaluation.results import RESTORED, Evaluation, Figures, Images, Row, SetResult
from fairweather.evaluation.sets import NO_DEGRADATION, Item, TestSet, name_images
from fairweather.evaluation.weights import describe_weights, name_weights
from fairweather.hardware import pick_device
from fairweather.imaging import as_bytes, as_float, read_image
from fairweather.models import load_model

OnImage = Callable[[Evaluation, SetResult, Row, Images], None]
OnProgress = Callable[[int, int], None]
Read = Callable[[Item], tuple[Images, dict[str, float]]]
Score = Callable[[Item, Images], tuple[Figures | None, dict[str, Figures]]]


def evaluate(
    sets: Sequence[TestSet],
    *,
    weights: Sequence[str | Path],
    protocol: str,
    inference: str = "ours",
    ensemble: bool = False,
    device: str = "auto",
    precision: str = "fp32",
    masks: Path | None = None,
    on_image: OnImage | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Evaluation:
    """Restore every degraded image with each of the weights and measure it, one at a time.

    Args:
        sets: as `find_test_sets` and `find_degraded_set` return them.
        weights: bundled names, files, or folders with one.
        protocol: a name of `PROTOCOLS`.
        inference: how the model is run, one of `INFERENCES`.
        ensemble: average over the flips and quarter turns that the weights were trained with.
        device: as for `Restorer`.
        precision: the same; the official inferences compute in fp32.
        masks: a folder of shadow masks by name, white in the shadow, for the protocol `istd`.
        on_image: called with the evaluation and the set so far, the new row, and the images, which
            are not kept.
        on_progress: called with (images done, images in all).

    Returns:
        The rows. An image that cannot be evaluated is a fault of its set, and the rest goes on.

    Raises:
        OptionError: for an unknown protocol, inference or device, masks that the protocol does not
            use, or weights that are given twice.
        CheckpointError: if weights cannot be loaded.
    """
    how = named_protocol(protocol)
    score = score_under(how, masks=masks)
    evaluation, runs = load_runs(
        weights, inference=inference, ensemble=ensemble, device=device, precision=precision
    )
    evaluation.protocol = how
    evaluation.notes += told_notes(evaluation, sets)

    def read(item: Item) -> tuple[Images, dict[str, float]]:
        assert item.clean is not None
        clean = read_pixels(item.clean, how)
        if item.degraded is not None:
            degraded = read_pixels(item.degraded, how)
        elif item.degradation == NO_DEGRADATION:
            degraded = clean
        else:  # rounded to 8 bits, as a file would be
            seed = zlib.crc32(item.name.encode())
            degraded = as_float(degrade_pixels(as_bytes(clean), task=item.degradation, seed=seed))
        check_sizes(degraded, clean=clean)
        restored, seconds = run_all(runs, degraded)
        shown = None if item.degradation == NO_DEGRADATION else degraded
        return Images(shown, restored, clean), seconds

    run_sets(evaluation, sets, read, score, on_image=on_image, on_progress=on_progress)
    return evaluation


def evaluate_results(
    results: TestSet,
    *,
    protocol: str,
    masks: Path | None = None,
    on_image: OnImage | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Evaluation:
    """Measure images that were restored elsewhere.

    Files of 8 bits are all that is left of the model's floats, so under protocols that score floats
    the figures differ in the second or third decimal from those of the floats. Under a protocol
    that prepares the input, the clean image is prepared and the restored one is used as it is.
    `match_results` makes the set; all other arguments are those of `evaluate`.
    """
    how = named_protocol(protocol)
    evaluation = Evaluation(how)

    def read(item: Item) -> tuple[Images, dict[str, float]]:
        assert item.restored is not None
        assert item.clean is not None
        clean, restored = read_pixels(item.clean, how), read_pixels(item.restored)
        check_sizes(restored, clean=clean, what="restored")
        degraded = None
        if item.degraded is not None:
            degraded = read_pixels(item.degraded, how)
            check_sizes(degraded, clean=clean)
        return Images(degraded, {RESTORED: restored}, clean), {}

    score = score_under(how, masks=masks)
    run_sets(evaluation, [results], read, score, on_image=on_image, on_progress=on_progress)
    return evaluation


def evaluate_photos(
    photos: TestSet,
    *,
    weights: Sequence[str | Path],
    inference: str = "ours",
    ensemble: bool = False,
    device: str = "auto",
    on_image: OnImage | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Evaluation:
    """Restore photographs without a clean version and measure what can be measured of them.

    None of these figures tells whether a restored image is right: `blur` and `entropy_bits` are
    from `measure_alone`, `change_levels` is the mean absolute difference from the input (of 255),
    and `cast_ab`, from `measure_cast`, is how far the mean colour moved.

    `find_photos` makes the set; all other arguments are those of `evaluate`.
    """
    evaluation, runs = load_runs(weights, inference=inference, ensemble=ensemble, device=device)

    def read(item: Item) -> tuple[Images, dict[str, float]]:
        assert item.degraded is not None
        degraded = read_pixels(item.degraded)
        restored, seconds = run_all(runs, degraded)
        return Images(degraded, restored, None), seconds

    def score(item: Item, images: Images) -> tuple[Figures | None, dict[str, Figures]]:
        before = images.reference
        after: dict[str, Figures] = {
            name: {
                **measure_alone(image),
                "change_levels": float(np.abs(image - before).mean() * 255),
                "cast_ab": measure_cast(image, before),
            }
            for name, image in images.restored.items()
        }
        return measure_alone(before), after

    run_sets(evaluation, [photos], read, score, on_image=on_image, on_progress=on_progress)
    return evaluation


def run_sets(
    evaluation: Evaluation,
    sets: Sequence[TestSet],
    read: Read,
    score: Score,
    *,
    on_image: OnImage | None,
    on_progress: OnProgress,
) -> None:
    """Evaluate all items, with the images of one at a time in memory."""
    total, done = sum(len(one.items) for one in sets), 0
    on_progress(done, total)
    for one in sets:
        result = SetResult(one, faults=list(one.faults))
        evaluation.sets.append(result)
        for item in one.items:
            try:
                images, seconds = read(item)
                before, after = score(item, images)
            except Exception as error:  # each engine raises what it likes
                kind = "" if isinstance(error, FairweatherError) else f"{type(error).__name__}: "
                result.faults.append(f"'{item.name}' of {one.name}: {kind}{error}")
            else:
                height, width = images.reference.shape[:2]
                row = Row(item.name, height, width, before, after, seconds)
                result.rows.append(row)
                if on_image is not None:
                    on_image(evaluation, result, row, images)
                del images
            done += 1
            on_progress(done, total)


def load_runs(
    weights: Sequence[str | Path],
    *,
    inference: str,
    ensemble: bool,
    device: str,
    precision: str = "fp32",
) -> tuple[Evaluation, dict[str, Run]]:
    """Load all weights: an evaluation that describes them, and what runs each."""
    place = str(pick_device(device))
    evaluation = Evaluation(None, inference, ensemble, device=place)
    runs = {}
    for name, one in zip(name_weights(weights), weights, strict=True):
        model = load_model(one)
        runs[name] = build_run(
            model, inference=inference, device=device, precision=precision, ensemble=ensemble
        )
        evaluation.weights.append(describe_weights(one, model, name=name))
    return evaluation, runs


def run_all(
    runs: Mapping[str, Run], degraded: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Restore an image with each of the weights, and time them [s]."""
    restored, seconds = {}, {}
    for name, run in runs.items():
        started = time.perf_counter()
        restored[name] = run(degraded)
        seconds[name] = time.perf_counter() - started
    return restored, seconds


def score_under(protocol: MetricProtocol, *, masks: Path | None) -> Score:
    """Return a function that measures an item's input and its restored images.

    Raises:
        OptionError: if there are masks that the protocol does not use.
        DataError: if their folder is missing or empty.
    """
    if masks is not None and "lab" not in protocol.also:
        raise OptionError(f"protocol '{protocol.name}' uses no masks; 'istd' does")
    paths = name_images(masks).paths if masks is not None else {}

    def score(item: Item, images: Images) -> tuple[Figures | None, dict[str, Figures]]:
        clean, mask = images.reference, None
        if masks is not None:
            if item.name not in paths:
                raise DataError(f"has no mask of its name in {masks}")
            mask = read_pixels(paths[item.name]).mean(-1) >= 0.5

        def figures(image: np.ndarray) -> Figures:
            return measure(image, clean, protocol=protocol, mask=mask).figures

        before = None if images.degraded is None else figures(images.degraded)
        return before, {name: figures(image) for name, image in images.restored.items()}

    return score


def read_pixels(path: Path, protocol: MetricProtocol | None = None) -> np.ndarray:
    """Read an image as (H, W, 3) float32 in [0, 1], prepared as the protocol asks."""
    pixels = read_image(path).pixels
    if protocol is not None and protocol.model_input != "whole image":
        pixels = prepare_image(as_bytes(pixels), protocol=protocol)
    return as_float(pixels)


def check_sizes(pixels: np.ndarray, *, clean: np.ndarray, what: str = "degraded") -> None:
    """Refuse two images of different sizes."""
    if pixels.shape != clean.shape:
        (height, width, _), (clean_height, clean_width, _) = pixels.shape, clean.shape
        raise DataError(
            f"{what} is {height}×{width} but clean is {clean_height}×{clean_width}; is one of them"
            " resized or rotated?"
        )


def named_protocol(name: str) -> MetricProtocol:
    """Return the protocol of that name, or raise OptionError."""
    if name not in PROTOCOLS:
        raise OptionError(f"protocol {name!r}: is none of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def told_notes(evaluation: Evaluation, sets: Sequence[TestSet]) -> list[str]:
    """Return what a reader of the figures would otherwise trip over."""
    notes = []
    assert evaluation.protocol is not None
    usual, run = evaluation.protocol.inference, evaluation.inference
    if run != usual and {run, usual} != {"ours", "whole"}:
        notes.append(
            f"figures under '{evaluation.protocol.name}' are usually made with the inference"
            f" '{usual}'; these were made with '{run}'"
        )
    for weights in evaluation.weights:
        others = [one for one in sets if one.task not in ("", weights.task)]
        if weights.task not in ("", "weather") and others:
            names = ", ".join(f"{one.name} ({one.task})" for one in others)
            notes.append(
                f"weights {weights.name} were trained for {weights.task}, not for the degradation"
                f" of {names}"
            )
    return notes
