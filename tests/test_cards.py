"""What cards record of a lower precision, and what `auto` makes of it."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
from command import Run

import fairweather as fw
from fairweather.errors import DataError
from fairweather.models import (
    PrecisionRecord,
    create_model,
    list_weights,
    multiplies_in_bf16,
    read_precision_records,
    save_model,
    write_precision_records,
)

FREE = PrecisionRecord("Rain100L", "bf16", 31.7285, 31.732)
DEAR = PrecisionRecord("Rain100H", "bf16", 24.6, 24.7)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_model(create_model("ast_n"), path, metadata={"task": "rain"})
    return path


def test_no_card_records_nothing(weights: Path) -> None:
    assert read_precision_records(weights) == []


def test_what_is_recorded_is_read(weights: Path) -> None:
    card = write_precision_records(weights, [DEAR, FREE])
    assert card == weights.with_suffix(".md")
    assert read_precision_records(weights) == [DEAR, FREE]
    assert FREE.loss_db == pytest.approx(0.0035)


def test_a_record_takes_the_place_of_an_older_one_and_the_card_stays(weights: Path) -> None:
    card = weights.with_suffix(".md")
    card.write_text("# mine\n\nWhat it is for.\n\n## Limits\n\nNone.\n", "utf-8")
    write_precision_records(weights, [PrecisionRecord("Rain100L", "bf16", 20.0, 30.0), DEAR])
    card.write_text(card.read_text("utf-8") + "\n## Last\n\nThe end.\n", "utf-8")
    write_precision_records(weights, [FREE])
    assert read_precision_records(weights) == [DEAR, FREE]
    text = card.read_text("utf-8")
    assert text.startswith("# mine\n\nWhat it is for.\n\n## Limits\n\nNone.\n\n## Precision\n\n")
    assert text.endswith("\n\n## Last\n\nThe end.\n")
    assert text.count("Rain100L") == 1


def test_records_of_other_weights_do_not_count(weights: Path) -> None:
    write_precision_records(weights, [FREE])
    save_model(create_model("ast_n", init="official"), weights, metadata={"task": "rain"})
    assert read_precision_records(weights) == []


def test_a_card_that_cannot_be_written_is_named(weights: Path) -> None:
    card = weights.with_suffix(".md")
    card.mkdir()
    with pytest.raises(DataError, match=r"mine\.md: cannot be written"):
        write_precision_records(weights, [FREE])


@pytest.mark.parametrize(
    ("records", "free"),
    [([], False), ([FREE], True), ([FREE, DEAR], False)],
)
def test_auto_takes_bf16_where_it_is_free(
    weights: Path, records: list[PrecisionRecord], *, free: bool
) -> None:
    write_precision_records(weights, records)
    expected = "bf16" if free and multiplies_in_bf16() else "fp32"
    assert fw.Restorer(weights, device="cpu", precision="auto").precision == expected
    assert fw.Restorer(weights, device="cpu").precision == "fp32"


def test_a_model_in_memory_has_no_card() -> None:
    model = create_model("ast_n")
    assert fw.Restorer(model, device="cpu", precision="auto").precision == "fp32"


@pytest.mark.parametrize("name", list_weights())
def test_the_records_of_bundled_weights_are_of_these_files(name: str) -> None:
    assert {one.precision for one in read_precision_records(name)} == {"bf16"}


def test_the_command_measures_and_records(run: Run, weights: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    photo = PIL.Image.fromarray(skimage.data.astronaut()[:96, :96])
    photo.save(photos / "one.png")
    model = create_model("ast_n", init="official")
    save_model(model, weights, metadata={"task": "rain"})
    told = run("models", "precision", str(weights), str(photos), "--degradation", "rain", "--json")
    document = json.loads(told.out)
    (record,) = document["records"]
    assert record["images"].startswith("photos")
    (kept,) = read_precision_records(weights)
    assert kept.fp32_db == pytest.approx(record["fp32_db"], abs=1e-4)
    assert kept.lower_db == pytest.approx(record["lower_db"], abs=1e-4)
    restored = tmp_path / "restored.png"
    told = run(
        *("restore", str(photos / "one.png"), "-o", str(restored), "--weights", str(weights)),
        *("--precision", "auto", "--json"),
    )
    (image,) = json.loads(told.out)["restored"]
    free = kept.loss_db <= 0.01 and multiplies_in_bf16()
    assert image["precision"] == ("bf16" if free else "fp32")
    same = fw.Restorer(weights, precision=image["precision"])(PIL.Image.open(photos / "one.png"))
    with PIL.Image.open(restored) as written:
        np.testing.assert_array_equal(np.asarray(written), np.asarray(same))
