"""Weights × test sets × protocol → a row for each image, and means."""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fairweather.data import degrade_pixels
from fairweather.errors import DataError, FairweatherError, OptionError
from fairweather.evaluation.inference import Run, build_run, usual_inference
from fairweather.evaluation.metrics import measure, measure_alone, measure_cast, prepare_image
from fairweather.evaluation.protocols import PROTOCOLS, MetricProtocol
from fairweather.evaluation.report.rows import RESTORED, Evaluation, Figures, Images, Row, SetResult
from fairweather.evaluation.sets import NO_DEGRADATION, Item, TestSet, name_images
from fairweather.evaluation.weights import describe_weights, name_weights
from fairweather.hardware import pick_device
from fairweather.imaging import read_image
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
    masks: Path | None = None,
    on_image: OnImage | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Evaluation:
    """Restores every degraded image with all of the weights and measures it, one at a time.

    Args:
        sets: as `find_test_sets` and `find_degraded_set` give them.
        weights: bundled names, files, or folders with one.
        protocol: a name of `PROTOCOLS`.
        inference: how the model is run, one of `INFERENCES`.
        ensemble: average over the eight flips and quarter turns.
        device: as for `Restorer`.
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
    evaluation, runs = load_runs(weights, inference=inference, ensemble=ensemble, device=device)
    evaluation.protocol = how
    evaluation.notes += told_notes(evaluation, sets)

    def read(item: Item) -> tuple[Images, dict[str, float]]:
        assert item.clean is not None
        clean = read_pixels(item.clean, how)
        degraded = degrade_item(clean, item) if item.degradation else read_degraded(item, how)
        check_sizes(degraded, clean=clean)
        restored, seconds = run_all(runs, degraded)
        return Images(
            None if item.degradation == NO_DEGRADATION else degraded, restored, clean
        ), seconds

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
    """Measures images that were restored elsewhere; `match_results` finds them.

    8-bit files are all that is left of what a model gave, so protocols that score floats give
    figures that differ in the second or third decimal from those of the floats. Under a protocol
    that prepares the input, the clean image is prepared, and the restored one is taken as it is.

    Args:
        results: items with a restored and a clean image.
        protocol: a name of `PROTOCOLS`.
        masks: as for `evaluate`.
        on_image: as for `evaluate`.
        on_progress: as for `evaluate`.

    Raises:
        OptionError: for an unknown protocol, or masks that it does not use.
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
    """Restores photographs without a clean version and says what can be said of them.

    No figure of this tells whether a restored image is right: `blur` and `entropy_bits` are those
    of `measure_alone`, `change_levels` is the mean absolute difference from the input, of 255, and
    `cast_ab` is how far the mean colour moved, as `measure_cast` says.

    Args:
        photos: as `find_photos` gives them.
        weights: as for `evaluate`, like all that follows.
        inference: likewise.
        ensemble: likewise.
        device: likewise.
        on_image: likewise.
        on_progress: likewise.

    Raises:
        OptionError: for an unknown inference or device, or weights that are given twice.
        CheckpointError: if weights cannot be loaded.
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
    """Goes through all items, and holds the images of one of them at a time."""
    total, done = sum(len(one.items) for one in sets), 0
    on_progress(done, total)
    for one in sets:
        result = SetResult(one, faults=list(one.faults))
        evaluation.sets.append(result)
        for item in one.items:
            try:
                images, seconds = read(item)
                before, after = score(item, images)
            except FairweatherError as error:
                result.faults.append(f"'{item.name}' of {one.name}: {error}")
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
    weights: Sequence[str | Path], *, inference: str, ensemble: bool, device: str
) -> tuple[Evaluation, dict[str, Run]]:
    """What restores an image, for each of the weights, and an evaluation that describes them."""
    place = str(pick_device(device))
    evaluation = Evaluation(None, inference, ensemble, device=place)
    runs = {}
    for name, one in zip(name_weights(weights), weights, strict=True):
        model = load_model(one)
        runs[name] = build_run(model, inference=inference, device=device, ensemble=ensemble)
        evaluation.weights.append(describe_weights(one, model, name=name))
    return evaluation, runs


def run_all(
    runs: Mapping[str, Run], degraded: np.ndarray
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """What each of the weights makes of an image, and how long it took."""
    restored, seconds = {}, {}
    for name, run in runs.items():
        started = time.perf_counter()
        restored[name] = run(degraded)
        seconds[name] = time.perf_counter() - started
    return restored, seconds


def score_under(protocol: MetricProtocol, *, masks: Path | None) -> Score:
    """What gives the figures of the input and of the restored images.

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
            mask = read_mask(paths[item.name], shape=clean.shape[:2])

        def figures(image: np.ndarray) -> Figures:
            found = measure(image, clean, protocol=protocol, mask=mask)
            return {"psnr_db": found.psnr_db, "ssim": found.ssim, **found.also}

        before = None if images.degraded is None else figures(images.degraded)
        return before, {name: figures(image) for name, image in images.restored.items()}

    return score


def read_mask(path: Path, *, shape: tuple[int, ...]) -> np.ndarray:
    """Where the shadow lies, (H, W) bool.

    Raises:
        DataError: if it is of another size.
        ImageError: if it cannot be read.
    """
    mask = read_pixels(path).mean(-1) >= 0.5
    if mask.shape != shape:
        raise DataError(f"mask is {size_text(mask)}, not {shape[0]}×{shape[1]}")
    return mask


def read_pixels(path: Path, protocol: MetricProtocol | None = None) -> np.ndarray:
    """(H, W, 3) float32 in [0, 1] of an image of 8 or 16 bits, as a protocol gives it to a model.

    Raises:
        ImageError: if it cannot be read.
    """
    pixels = read_image(path).pixels
    if protocol is not None and protocol.model_input != "whole image":
        if pixels.dtype == np.uint16:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        pixels = prepare_image(pixels, protocol=protocol)
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def read_degraded(item: Item, protocol: MetricProtocol) -> np.ndarray:
    """The input of an item that has a file of it, as `read_pixels` gives it."""
    assert item.degraded is not None
    return read_pixels(item.degraded, protocol)


def degrade_item(clean: np.ndarray, item: Item) -> np.ndarray:
    """The input that is made of a clean image, rounded to 8 bits as a file of it would be.

    Args:
        clean: (H, W, 3) float32 in [0, 1].
        item: its degradation, and the name that seeds it.
    """
    if item.degradation == NO_DEGRADATION:
        return clean
    pixels = np.rint(clean * np.float32(255)).astype(np.uint8)
    seed = zlib.crc32(item.name.encode())
    return degrade_pixels(pixels, task=item.degradation, seed=seed) / np.float32(255)


def check_sizes(pixels: np.ndarray, *, clean: np.ndarray, what: str = "degraded") -> None:
    """Refuses two images of different sizes."""
    if pixels.shape != clean.shape:
        raise DataError(
            f"{what} is {size_text(pixels)} but clean is {size_text(clean)}; is one of them"
            " resized or rotated?"
        )


def size_text(pixels: np.ndarray) -> str:
    """Height × width."""
    return f"{pixels.shape[0]}×{pixels.shape[1]}"


def named_protocol(name: str) -> MetricProtocol:
    """The protocol of that name.

    Raises:
        OptionError: if there is none.
    """
    if name not in PROTOCOLS:
        raise OptionError(f"protocol {name!r}: is none of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def told_notes(evaluation: Evaluation, sets: Sequence[TestSet]) -> list[str]:
    """What a reader of the figures would otherwise trip over."""
    notes = []
    assert evaluation.protocol is not None
    usual = usual_inference(evaluation.protocol)
    run = evaluation.inference
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
                f"weights {weights.name} were trained for {weights.task}, and not for what is to"
                f" be restored in {names}"
            )
    return notes
