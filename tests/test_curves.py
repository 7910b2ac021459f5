"""Curves are pictures of what the logs hold: every stage, every start, each point once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairweather.training.curves import CurvePlotter, draw_curves, read_logs


def write_log(run: Path, name: str, text: str) -> None:
    folder = run / "logs" / name
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(text, encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Stage 0 of five steps, stopped after four of them and begun again at 2; stage 1 of two."""
    write_log(
        tmp_path,
        "stage-0.0",
        "epoch,lr-AdamW,step,train_loss,val_psnr_db,val_input_psnr_db,val_ssim\n"
        ",0.5,0,,,,\n0,,0,9.0,,,\n0,,1,8.0,,,\n0,,1,,20.0,19.0,0.5\n0,,2,7.5,,,\n0,,3,6.5,,,\n",
    )
    write_log(
        tmp_path,
        "stage-0.1",
        "epoch,step,train_loss,val_psnr_db\n0,2,7.0,\n0,3,6.0,\n0,3,,21.0\n0,4,5.0,\n0,4,,22.0\n",
    )
    write_log(tmp_path, "stage-1.0", "lr-Adam,step,train_loss\n0.25,0,\n,0,4.0\n,1,3.0\n")
    return tmp_path


def test_each_point_is_there_once_and_the_later_start_has_the_last_word(run: Path) -> None:
    columns, starts = read_logs(run)
    assert columns["train_loss"] == {0: 9, 1: 8, 2: 7, 3: 6, 4: 5, 5: 4, 6: 3}
    assert columns["val_psnr_db"] == {1: 20, 3: 21, 4: 22}
    assert columns["val_ssim"] == {1: 0.5}
    assert columns["lr"] == {0: 0.5, 5: 0.25}  # whatever the optimiser is called
    assert starts == [0, 5]


def test_the_tenth_start_is_after_the_ninth(tmp_path: Path) -> None:
    for attempt in (2, 10, 9, 0):
        write_log(tmp_path, f"stage-0.{attempt}", f"step,train_loss\n0,{attempt}\n")
    assert read_logs(tmp_path)[0]["train_loss"] == {0: 10}


def test_the_eleventh_stage_is_after_the_tenth(tmp_path: Path) -> None:
    for stage in range(11):
        write_log(tmp_path, f"stage-{stage}.0", f"step,train_loss\n0,{stage}\n1,{stage}.5\n")
    columns, starts = read_logs(tmp_path)
    assert starts == list(range(0, 22, 2))
    assert columns["train_loss"] == {
        2 * s + half: s + half / 2 for s in range(11) for half in (0, 1)
    }


@pytest.mark.parametrize("rest", ["1,0.", "1", "1,0.2,", "x,0.2", '1,"0.2', "1,0.2e", ",0.2"])
def test_a_row_that_a_killed_process_left_unfinished(tmp_path: Path, rest: str) -> None:
    """It is left out or read as far as it goes; it never ends the run that draws it."""
    write_log(tmp_path, "stage-0.0", f"step,train_loss\n0,0.1\n{rest}")
    write_log(tmp_path, "stage-0.1", "step,train_loss\n1,0.25\n2,0.3\n")
    assert read_logs(tmp_path)[0]["train_loss"] == {0: 0.1, 1: 0.25, 2: 0.3}


def test_a_log_without_a_row(tmp_path: Path) -> None:
    write_log(tmp_path, "stage-0.0", "")
    assert read_logs(tmp_path) == ({}, [0])
    assert draw_curves(tmp_path) == []
    assert draw_curves(tmp_path / "no-run") == []


def inked(path: Path, colour: tuple[int, int, int]) -> np.ndarray:
    """Columns of a picture that hold a colour, in pixels."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return np.flatnonzero((np.abs(pixels - np.array(colour)).max(-1) < 8).any(0))


BLUE, ORANGE, MARK = (31, 119, 180), (255, 127, 14), (204, 204, 204)


def test_the_pictures_show_the_curves(run: Path) -> None:
    paths = draw_curves(run)
    assert [path.name for path in paths] == [
        "loss.png",
        "psnr.png",
        "ssim.png",
        "learning_rate.png",
    ]
    assert {path.parent for path in paths} == {run / "curves"}
    loss, psnr = inked(paths[0], BLUE), inked(paths[1], BLUE)
    assert np.ptp(loss) > 600  # from one side of the picture to the other
    assert np.ptp(psnr) > 300
    assert len(inked(paths[0], ORANGE)) == 0
    assert len(inked(paths[1], ORANGE)) > 0  # as it came
    assert len(inked(paths[0], MARK)) >= 2  # where stages start


def test_a_picture_is_replaced(run: Path) -> None:
    before = draw_curves(run)[0].read_bytes()
    write_log(run, "stage-2.0", "step,train_loss\n0,2.0\n")
    assert draw_curves(run)[0].read_bytes() != before
    assert not [path for path in run.rglob("*") if path.name.startswith(".")]


def test_curves_are_drawn_when_they_are_due(run: Path) -> None:
    CurvePlotter(run, every_s=600).draw(if_due=True)
    CurvePlotter(run, every_s=None).draw()
    assert not (run / "curves").exists()
    CurvePlotter(run, every_s=0).draw(if_due=True)
    assert (run / "curves/loss.png").exists()
