"""Rows and means: what is measured, what is refused, and how little memory it takes."""

import gc
import itertools
import math
import sys
import tracemalloc
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_sets import HEIGHT, WIDTH, degrade, save, scene, write_set, write_weights

from fairweather.errors import CheckpointError, OptionError
from fairweather.evaluation import (
    PROTOCOLS,
    RESTORED,
    Evaluation,
    Images,
    Item,
    ReportWriter,
    Row,
    SetResult,
    TestSet,
    evaluate,
    evaluate_photos,
    evaluate_results,
    find_photos,
    find_test_sets,
    match_results,
    measure,
    measure_alone,
    measure_cast,
)
from fairweather.imaging import Photo, write_image
from fairweather.restoration import Restorer


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that change an image a little."""
    return write_weights(tmp_path_factory.mktemp("weights") / "mine.safetensors", strength=0.3)


@pytest.fixture
def sets(tmp_path: Path) -> list[TestSet]:
    write_set(tmp_path / "rain" / "one")
    write_set(tmp_path / "rain" / "two", count=1)
    return find_test_sets(tmp_path / "rain")


def as_float(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 255


def test_rows_are_the_protocols_figures(sets: list[TestSet], weights: Path) -> None:
    """Of the input and of the floats that the model gives, in the order of the set."""
    seen: list[tuple[int, int]] = []
    done = evaluate(
        sets,
        weights=[weights],
        protocol="agan",
        device="cpu",
        on_progress=lambda n, total: seen.append((n, total)),
    )
    assert seen == [(n, 4) for n in range(5)]
    assert [(one.name, len(one.rows)) for one in done.sets] == [("one", 3), ("two", 1)]
    assert done.faults == []
    run = Restorer(weights, device="cpu").restore_pixels
    for number, row in enumerate(done.sets[0].rows, 1):
        clean = scene(number)
        degraded = degrade(clean, seed=number, amplitude=10 * number)
        assert (row.name, row.height, row.width) == (str(number), HEIGHT, WIDTH)
        for figures, image in (
            (row.input, as_float(degraded)),
            (row.restored["mine"], run(as_float(degraded))),
        ):
            expected = measure(image, as_float(clean), protocol=PROTOCOLS["agan"])
            assert figures == {"psnr_db": expected.psnr_db, "ssim": expected.ssim}
        assert row.seconds["mine"] > 0
        assert row.gain_db("mine") == row.restored["mine"]["psnr_db"] - row.input["psnr_db"]  # type: ignore[index]


def test_means_are_over_the_images(sets: list[TestSet], weights: Path) -> None:
    done = evaluate(sets, weights=[weights], protocol="spad", device="cpu")
    result = done.sets[0]
    for column, rows in (
        (None, [row.input for row in result.rows]),
        ("mine", [row.restored["mine"] for row in result.rows]),
    ):
        mean = result.mean(column)
        assert mean.counts == {}
        for name in ("psnr_db", "ssim", "rgb_psnr_db", "rgb_ssim"):
            assert mean.figures[name] == pytest.approx(np.mean([row[name] for row in rows]))  # type: ignore[index]
    gains = [row.gain_db("mine") for row in result.rows]
    assert result.mean("mine").figures["gain_db"] == pytest.approx(np.mean(gains))


def test_identical_images_leave_the_mean_and_are_counted(tmp_path: Path) -> None:
    """Weights that change nothing, on a set with one clean input."""
    write_set(tmp_path / "set")
    save(tmp_path / "set" / "input" / "2.png", scene(2))
    weights = write_weights(tmp_path / "same.safetensors")
    done = evaluate(
        find_test_sets(tmp_path / "set"), weights=[weights], protocol="plain", device="cpu"
    )
    (result,) = done.sets
    assert math.isinf(result.rows[1].restored["same"]["psnr_db"])
    assert math.isnan(result.rows[1].gain_db("same"))
    mean = result.mean("same")
    others = [result.rows[place].restored["same"]["psnr_db"] for place in (0, 2)]
    assert mean.figures["psnr_db"] == pytest.approx(np.mean(others))
    assert mean.figures["gain_db"] == pytest.approx(0)
    assert mean.counts == {"psnr_db": 2, "gain_db": 2}
    result.rows = result.rows[1:2]
    assert math.isinf(result.mean("same").figures["psnr_db"])
    assert result.mean("same").counts == {"psnr_db": 0, "gain_db": 0}


def test_several_weights_are_columns(tmp_path: Path, sets: list[TestSet]) -> None:
    """Files of one name are told apart by their folders, a run's folder gives its own."""
    first = write_weights(tmp_path / "a" / "model.safetensors", strength=0.2)
    second = write_weights(tmp_path / "b" / "model.safetensors", strength=0.4, task="haze")
    third = write_weights(tmp_path / "input" / "input.safetensors", strength=0.1)
    done = evaluate(
        sets, weights=[first, second, third.parent, "rain"], protocol="plain", device="cpu"
    )
    names = ["a/model", "b/model", f"{tmp_path.name}/input", "rain"]
    assert [facts.name for facts in done.weights] == names
    assert [facts.bundled for facts in done.weights] == [False, False, False, True]
    assert [list(row.restored) for row in done.sets[0].rows] == [names] * 3
    figures = {one["psnr_db"] for one in done.sets[0].rows[0].restored.values()}
    assert len(figures) == 4
    assert done.notes == [
        "weights b/model were trained for haze, not for the degradation of one (rain), two (rain)"
    ]
    assert done.weights[0].training_data == "noise"
    assert len(done.weights[0].sha256) == 64


def test_one_way_of_running_is_told_where_another_is_usual(
    sets: list[TestSet], weights: Path
) -> None:
    done = evaluate(sets, weights=[weights], protocol="spad", device="cpu")
    (note,) = done.notes
    assert "'square_pad_128'; these were made with 'ours'" in note
    for protocol, inference in (("spad", "square_pad_128"), ("rain13k", "whole")):
        done = evaluate(
            sets[1:], weights=[weights], protocol=protocol, inference=inference, device="cpu"
        )
        assert done.notes == []


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"protocol": "mine"}, OptionError, "protocol 'mine': is none of plain, spad"),
        ({"inference": "fast"}, OptionError, "inference 'fast'"),
        ({"device": "abacus"}, OptionError, "abacus"),
        ({"weights": []}, OptionError, "no weights"),
        ({"weights": ["rain", "rain"]}, OptionError, "given twice"),
        ({"weights": ["nowhere"]}, CheckpointError, "nowhere"),
        ({"masks": Path()}, OptionError, "protocol 'plain' uses no masks; 'istd' does"),
    ],
)
def test_wrong_calls(sets: list[TestSet], weights: Path, changes, error, message: str) -> None:
    call = {"weights": [weights], "protocol": "plain", "device": "cpu"} | changes
    with pytest.raises(error, match=message):
        evaluate(sets, **call)


def test_what_cannot_be_evaluated_is_named_and_the_rest_goes_on(
    tmp_path: Path, weights: Path
) -> None:
    write_set(tmp_path / "set", count=5)
    inputs = tmp_path / "set" / "input"
    save(inputs / "1.png", scene(1, WIDTH, HEIGHT))
    (inputs / "2.png").write_bytes((inputs / "2.png").read_bytes()[:200])
    for side in ("input", "target"):
        save(tmp_path / "set" / side / "3.png", scene(3, 8, 8))
    done = evaluate(
        find_test_sets(tmp_path / "set"), weights=[weights], protocol="plain", device="cpu"
    )
    (result,) = done.sets
    assert [row.name for row in result.rows] == ["4", "5"]
    sizes, broken, small = result.faults
    assert sizes == (
        f"'1' of set: degraded is {WIDTH}×{HEIGHT} but clean is {HEIGHT}×{WIDTH};"
        " is one of them resized or rotated?"
    )
    assert broken.startswith(f"'2' of set: '{inputs / '2.png'}' is")
    assert small.startswith("'3' of set: ")
    assert "11 px" in small


def test_grey_alpha_16_bits_and_sizes_may_mix(tmp_path: Path, weights: Path) -> None:
    """The same scene in every kind of file has the same figures."""
    clean, degraded = scene(1), degrade(scene(1))
    grey = [np.stack([image[..., 1]] * 3, -1) for image in (clean, degraded)]
    inputs, targets = tmp_path / "set" / "input", tmp_path / "set" / "target"
    for name, (target, source) in {
        "alpha": (clean, np.dstack([degraded, degraded[..., :1]])),
        "plain": (clean, degraded),
        "grey": (grey[0][..., 0], grey[1][..., 0]),
        "greyrgb": (grey[0], grey[1]),
        "large": (scene(2, 40, 200), degrade(scene(2, 40, 200))),
    }.items():
        save(targets / f"{name}.PNG", target)
        save(inputs / f"{name}.tif", source)
    for folder, pixels in ((inputs, degraded), (targets, clean)):
        write_image(folder / "deep.png", Photo(pixels.astype(np.uint16) * 257))
    done = evaluate(
        find_test_sets(tmp_path / "set"), weights=[weights], protocol="plain", device="cpu"
    )
    assert done.faults == []
    rows = {row.name: row for row in done.sets[0].rows}
    assert len(rows) == 6
    for name, same in (("alpha", "plain"), ("deep", "plain"), ("grey", "greyrgb")):
        assert rows[name].input == pytest.approx(rows[same].input)
        assert rows[name].restored["mine"] == pytest.approx(rows[same].restored["mine"])
    assert (rows["large"].height, rows["large"].width) == (40, 200)


def test_a_protocol_prepares_what_the_model_gets(tmp_path: Path, weights: Path) -> None:
    clean, degraded = scene(1, 300, 420), degrade(scene(1, 300, 420))
    folder = tmp_path / "moire" / "set"
    save(folder / "target" / "1.png", clean)
    save(folder / "input" / "1.png", degraded)
    write_image(folder / "target" / "2.png", Photo(clean.astype(np.uint16) * 257))
    save(folder / "input" / "2.png", degraded)
    done = evaluate(find_test_sets(folder), weights=[weights], protocol="tip2018", device="cpu")
    protocol = PROTOCOLS["tip2018"]
    small = [
        as_float(np.asarray(Image.fromarray(image[50:250, 70:350]).resize((256, 256), 2)))
        for image in (degraded, clean)
    ]
    expected = measure(small[0], small[1], protocol=protocol)
    for row in done.sets[0].rows:
        assert (row.height, row.width) == (256, 256)
        assert row.input == pytest.approx({"psnr_db": expected.psnr_db, "ssim": expected.ssim})


def test_shadow_masks_are_found_by_relative_name(tmp_path: Path) -> None:
    folder, masks = tmp_path / "shadow" / "set", tmp_path / "masks"
    for place, share in (("a/1", 0.5), ("b/1", 0.25), ("c/1", 0.5), ("c/2", 0.5)):
        save(folder / "target" / f"{place}.png", scene(1, 64, 64))
        save(folder / "input" / f"{place}.png", degrade(scene(1, 64, 64)))
        mask = np.zeros((64, 64, 3), np.uint8)
        mask[:, : int(64 * share)] = 255
        save(masks / f"{place}.jpg", mask)
    (masks / "c" / "1.jpg").unlink()
    save(masks / "c" / "2.jpg", np.zeros((64, 32, 3), np.uint8))
    weights = write_weights(tmp_path / "same.safetensors", task="shadow")
    done = evaluate(
        find_test_sets(folder), weights=[weights], protocol="istd", device="cpu", masks=masks
    )
    first, second = done.sets[0].rows
    assert {"lab_mae", "lab_mae_shadow", "psnr_db_outside"} <= set(first.restored["same"])
    assert first.input["lab_mae"] == pytest.approx(second.input["lab_mae"])  # type: ignore[index]
    assert first.input["psnr_db_shadow"] < second.input["psnr_db_shadow"]  # type: ignore[index]
    assert done.faults == [
        f"'c/1' of set: has no mask of its name in {masks}",
        "'c/2' of set: the mask is (64, 32) bool but must be (64, 64) bool",
    ]


def test_results_of_others(tmp_path: Path) -> None:
    """A missing image, one of another size, an extra one: each is named, the rest is measured."""
    write_set(tmp_path / "set", count=4)
    clean, inputs, restored = (tmp_path / "set" / n for n in ("target", "input", "restored"))
    for number in (1, 2, 4):
        save(restored / f"{number}.png", degrade(scene(number), amplitude=5))
    save(restored / "2.png", scene(2, HEIGHT, WIDTH - 1))
    save(restored / "extra.png", scene(1))
    results = match_results(restored, clean, degraded=inputs)
    done = evaluate_results(results, protocol="plain")
    assert [row.name for row in done.sets[0].rows] == ["1", "4"]
    assert done.faults == [
        f"'3' of {clean} has no restored image in {restored}",
        f"'extra' of {restored} has no clean image in {clean}",
        f"'2' of restored: restored is {HEIGHT}×{WIDTH - 1} but clean is {HEIGHT}×{WIDTH}; is one"
        " of them resized or rotated?",
    ]
    assert done.weights == []
    assert done.inference is None
    row = done.sets[0].rows[1]
    expected = measure(degrade(scene(4), amplitude=5), scene(4), protocol=PROTOCOLS["plain"])
    assert row.restored[RESTORED]["psnr_db"] == pytest.approx(expected.psnr_db)
    assert row.gain_db(RESTORED) > 5
    alone = evaluate_results(match_results(restored, clean), protocol="plain")
    assert alone.sets[0].rows[1].input is None
    assert math.isnan(alone.sets[0].rows[1].gain_db(RESTORED))
    assert (done.ranked_by, alone.ranked_by) == ("gain_db", "psnr_db")


def test_photographs_alone(tmp_path: Path, weights: Path) -> None:
    photo = save(tmp_path / "photos" / "a.png", scene(1))
    (tmp_path / "photos" / "b.png").write_text("no image")
    done = evaluate_photos(find_photos(tmp_path / "photos"), weights=[weights], device="cpu")
    assert (done.protocol, done.ranked_by) == (None, "change_levels")
    (row,) = done.sets[0].rows
    image = as_float(np.asarray(Image.open(photo)))
    restored = Restorer(weights, device="cpu").restore_pixels(image)
    assert row.input == measure_alone(image)
    change = row.restored["mine"]["change_levels"]
    assert change == pytest.approx(np.abs(restored - image).mean() * 255)
    cast = measure_cast(restored, image)
    assert row.restored["mine"] == {
        **measure_alone(restored),
        "change_levels": change,
        "cast_ab": cast,
    }
    assert "gain_db" not in done.sets[0].mean("mine").figures
    (fault,) = done.faults
    assert fault.startswith("'b' of photos: ")


def many(folder: Path, count: int) -> TestSet:
    """A set of many images that are few files."""
    items = (
        Item(f"{number:04}", folder / "input" / f"{n}.png", folder / "target" / f"{n}.png")
        for number, n in zip(range(count), itertools.cycle((1, 2, 3)), strict=False)
    )
    return TestSet("many", "rain", tuple(items))


def test_images_are_let_go_one_after_another(tmp_path: Path, weights: Path) -> None:
    write_set(tmp_path / "set")
    alive: list[weakref.ref[np.ndarray]] = []

    def watch(evaluation: Evaluation, result: SetResult, row: Row, images: Images) -> None:
        assert [one for one in alive if one() is not None] == []
        alive.extend(weakref.ref(image) for _, image in images.named())

    evaluate([many(tmp_path / "set", 9)], weights=[weights], protocol="plain", device="cpu",
             on_image=watch)  # fmt: skip
    assert len(alive) == 27


@pytest.mark.slow
def test_500_images_use_the_memory_of_one(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a report; what stays of an image is its row: the rest does not grow."""
    write_set(tmp_path / "set")
    for side, number in itertools.product(("input", "target"), (1, 2, 3)):
        pixels = scene(number, 48, 48)
        save(tmp_path / "set" / side / f"{number}.png", pixels if side == "target" else pixels // 2)
    room = sys.modules["fairweather.evaluation.evaluate"]  # the name is the function's, too
    monkeypatch.setattr(room, "build_run", lambda *_, **__: np.copy)
    figures = {"psnr_db": 30.0, "ssim": 0.9}
    monkeypatch.setattr(room, "measure", lambda a, b, **_: SimpleNamespace(figures=figures))
    peaks: dict[int, int] = {}

    def progress(done: int, total: int) -> None:
        assert total == 500
        if done in (20, 50, 450, 500):
            peaks[done] = tracemalloc.get_traced_memory()[1]
            gc.collect()
            tracemalloc.reset_peak()

    with ReportWriter(tmp_path / "report", images=500) as writer:
        tracemalloc.start()
        try:
            done = evaluate([many(tmp_path / "set", 500)], weights=[weights], protocol="plain",
                            device="cpu", on_image=writer.add, on_progress=progress)  # fmt: skip
        finally:
            tracemalloc.stop()
        page = writer.finish(done)
    assert len(done.sets[0].rows) == 500
    pixels_bytes = 48 * 48 * 3 * 4
    assert peaks[500] - peaks[50] < 450 * 0.1 * pixels_bytes
    assert page.stat().st_size < 100_000_000
