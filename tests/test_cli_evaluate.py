"""`fairweather evaluate`, as a shell calls it."""

import json
import os
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Run
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from tiny_sets import HEIGHT, WIDTH, degrade, save, scene, write_set, write_weights

from fairweather.data import degrade_pixels
from fairweather.evaluation import PROTOCOLS, measure


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "mine.safetensors", strength=0.3)


@pytest.fixture
def run(run: Run) -> Run:
    """Runs `fairweather evaluate`."""
    return lambda *arguments, command=("evaluate",): run(*command, *arguments)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "rain" / "one")


def test_two_folders_give_one_document(run: Run, data: Path) -> None:
    restored, clean = data / "input", data / "target"
    done = run("--restored", restored, "--clean", clean, "--protocol", "spad", "--json")
    assert (done.status, done.err) == (0, "")
    assert done.out.count("\n") == 1
    document = json.loads(done.out)
    assert set(document) == {"protocol", "images", "mean"}
    assert document["protocol"] == "spad"
    assert [image["name"] for image in document["images"]] == ["1", "2", "3"]
    expected = measure(
        degrade(scene(2), seed=2, amplitude=20), scene(2), protocol=PROTOCOLS["spad"]
    )
    image = document["images"][1]
    assert image["psnr_db"] == pytest.approx(expected.psnr_db)
    assert image["ssim"] == pytest.approx(expected.ssim)
    for name in ("psnr_db", "ssim"):
        mean = sum(image[name] for image in document["images"]) / 3
        assert document["mean"][name] == pytest.approx(mean)


def test_a_mean_of_fewer_images_says_of_how_many(run: Run, data: Path) -> None:
    for number in (1, 2):  # identical ones, whose PSNR is infinite
        (data / "input" / f"{number}.png").write_bytes((data / f"target/{number}.png").read_bytes())
    done = run("--restored", data / "input", "--clean", data / "target")
    assert "(of 1)" in done.out


def test_faults_are_named_and_the_status_is_1(run: Run, data: Path) -> None:
    (data / "input" / "1.png").rename(data / "input" / "extra.png")
    save(data / "input" / "2.png", scene(2, HEIGHT, WIDTH + 1))
    done = run("--restored", data / "input", "--clean", data / "target", "--json")
    assert done.status == 1
    assert [image["name"] for image in json.loads(done.out)["images"]] == ["3"]
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)
    assert "'1' of" in lines[0]
    assert "no restored image" in lines[0]
    assert "'extra' of" in lines[1]
    assert f"restored is {HEIGHT}×{WIDTH + 1} but clean is {HEIGHT}×{WIDTH}" in lines[2]
    save(data / "input" / "3.png", scene(2, HEIGHT, WIDTH + 1))
    done = run("--restored", data / "input", "--clean", data / "target", "--json")
    assert done.status == 1
    assert json.loads(done.out) == {"protocol": "plain", "images": [], "mean": {}}


def test_a_test_set_gives_a_table_and_a_report(
    run: Run, data: Path, weights: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a report"
    done = run(data, "--weights", weights, "--weights", "rain", "--device", "cpu", "-o", out)
    assert (done.status, done.err) == (0, "")
    for word in ("one", "input", "mine", "rain", "PSNR [dB]", "gain [dB]"):
        assert word in done.out
    assert done.out.splitlines()[-1] == f"report: {out / 'report.html'}"
    tree = json.loads((out / "results.json").read_text(encoding="utf-8"))
    taken = run(data, "--weights", weights, "-o", out)
    assert (taken.status, "exists already" in taken.err) == (1, True)
    again = run(data, "--weights", weights, "--weights", "rain", "--device", "cpu", "--json",
                "-o", out, "--overwrite")  # fmt: skip
    assert (again.status, again.err) == (0, "")
    printed = json.loads(again.out)
    assert printed["sets"][0]["mean"] == tree["sets"][0]["mean"]
    assert [one["name"] for one in printed["weights"]] == ["mine", "rain"]


def test_the_table_names_the_protocol_and_the_published_figure(
    run: Run, weights: Path, tmp_path: Path
) -> None:
    data = write_set(tmp_path / "rain" / "Rain100L", count=2)
    done = run(data, "--weights", weights, "--protocol", "rain13k")
    assert done.status == 0
    assert "protocol rain13k" in done.out.splitlines()[0]
    (row,) = (line for line in done.out.splitlines() if "│ published: Restormer" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")][1:5] == [
        "100", "published: Restormer", "39.10", "0.9787",
    ]  # fmt: skip
    said = done.out.splitlines()[-1]
    assert said.startswith("Rain100L, published: Restormer (MMagic's model zoo")
    assert "not comparable: ours is the mean of 2 images, theirs of 100" in said
    assert "…" not in run(data, "--weights", weights, "--protocol", "spad").out  # is wider


def test_options_reach_the_evaluation(run: Run, data: Path, weights: Path) -> None:
    found = set()
    for options in (
        (),
        ("--inference", "square_pad_128"),
        ("--self-ensemble",),
        ("--protocol", "agan", "--inference", "whole"),
    ):
        done = run(data, "--weights", weights, "--device", "cpu", "--json", *options)
        assert done.status == 0
        tree = json.loads(done.out)
        assert tree["self_ensemble"] is ("--self-ensemble" in options)
        found.add(tree["sets"][0]["mean"]["restored"]["mine"]["psnr_db"])
    assert len(found) == 4
    layout = run(data, "--layout", "folders", "--split", "all", "--weights", weights, "--json")
    assert json.loads(layout.out)["sets"][0]["layout"] == "folders"


def test_clean_photographs_get_degradation_that_their_names_seed(
    run: Run, data: Path, weights: Path, tmp_path: Path
) -> None:
    def trees(folder: Path, *options: str) -> dict[str, Any]:
        done = run(folder, "--weights", weights, "--device", "cpu", "--json", *options)
        assert done.status == 0
        (one,) = json.loads(done.out)["sets"]
        return one

    folder = data / "target"
    hazy = trees(folder, "--degradation", "haze")
    assert (hazy["name"], hazy["task"]) == ("target, synthetic haze", "haze")
    assert all(5 < image["input"]["psnr_db"] < 40 for image in hazy["images"])
    again = trees(folder, "--degradation", "haze", "-o", str(tmp_path / "report"))
    assert again["mean"] == hazy["mean"]
    (folder / "1.png").unlink()
    fewer = trees(folder, "--degradation", "haze")
    assert [image["input"] for image in fewer["images"]] == [
        image["input"] for image in hazy["images"][1:]
    ]
    pixels = np.asarray(Image.open(folder / "2.png"))
    degraded = degrade_pixels(pixels, task="haze", seed=zlib.crc32(b"2"))
    expected = peak_signal_noise_ratio(pixels, degraded)
    assert fewer["images"][0]["input"]["psnr_db"] == pytest.approx(expected, abs=1e-4)


def test_clean_photographs_to_themselves(run: Run, data: Path, tmp_path: Path) -> None:
    same = write_weights(tmp_path / "same.safetensors", strength=0.0)
    other = write_weights(tmp_path / "other.safetensors", strength=0.3)
    done = run(data / "target", "--degradation", "none", "--weights", same, "--weights", other,
               "--json", "-o", tmp_path / "report")  # fmt: skip
    assert (done.status, done.err) == (0, "")
    (one,) = json.loads(done.out)["sets"]
    assert one["name"] == "target, clean"
    mean = one["mean"]["restored"]
    assert mean["same"]["psnr_db"] is None  # infinite
    assert mean["other"]["psnr_db"] < 60
    assert "input" not in one["mean"] or one["mean"]["input"] is None


def test_notes_go_to_standard_error(run: Run, data: Path, weights: Path) -> None:
    done = run(data, "--weights", weights, "--protocol", "spad", "--json")
    assert done.status == 0
    assert done.err.startswith("note: figures under 'spad' are usually made with")
    assert done.err.count("\n") == 1


def test_photographs_alone(run: Run, data: Path, weights: Path, tmp_path: Path) -> None:
    done = run("--photos", data / "input", "--weights", weights, "-o", tmp_path / "report")
    assert done.status == 0
    assert done.err == "note: without clean versions nothing here measures fidelity\n"
    for word in ("blur", "entropy", "change"):
        assert word in done.out
    for word in ("PSNR", "SSIM", "gain"):
        assert word not in done.out
    assert (tmp_path / "report" / "report.html").exists()
    tree = json.loads(run("--photos", data / "input", "--weights", weights, "--json").out)
    (one,) = tree["sets"]
    assert set(one["mean"]["input"]) == {"blur", "entropy_bits"}
    assert set(one["mean"]["restored"]["mine"]) == {
        "blur", "entropy_bits", "change_levels", "cast_ab",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "give one of"),
        (("DATA", "--photos", "DATA/input"), "give one of"),
        (("--clean", "DATA/target"), "give one of"),
        (("--restored", "DATA/input"), "--restored needs --clean"),
        (("DATA", "--clean", "DATA/target"), "--clean belongs to --restored"),
        (("DATA", "--degraded", "DATA/input"), "--degraded belongs to --restored"),
        (("DATA", "--split", "test"), "--split belongs to --layout"),
        (("--photos", "DATA", "--protocol", "spad"), "--protocol belongs to DATA or --restored"),
        (
            ("--restored", "DATA/input", "--clean", "DATA/target", "--weights", "rain"),
            "--weights belongs to DATA or --photos",
        ),
        (
            ("--restored", "DATA/input", "--clean", "DATA/target", "-o", "DATA/input/report"),
            "among the images",
        ),
        (("DATA", "--protocol", "mine"), "protocol 'mine': is none of"),
        (("DATA", "--inference", "fast"), "inference 'fast': is none of"),
        (("DATA", "--device", "abacus"), "abacus"),
        (("DATA", "--layout", "none"), "layout 'none'"),
        (("DATA", "--weights", "rain", "--weights", "rain"), "given twice"),
        (("DATA", "--masks", "DATA"), "uses no masks"),
        (("DATA", "--degradation", "hail"), "degradation 'hail': is none of rain, raindrop"),
        (("DATA", "--degradation", "haze", "--layout", "folders"), "leave --layout out"),
        (("--photos", "DATA", "--degradation", "haze"), "--degradation belongs to DATA"),
    ],
)
def test_a_wrong_call_has_status_2(
    run: Run, data: Path, options: tuple[str, ...], message: str
) -> None:
    files = sorted(data.rglob("*"))
    done = run(*(option.replace("DATA", str(data)) for option in options))
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert sorted(data.rglob("*")) == files


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("EMPTY",), "holds no folder with input/"),
        (("NOWHERE",), "is not a folder"),
        (("--photos", "EMPTY"), "holds no image"),
        (("DATA", "--weights", "NOWHERE"), "is no file"),
        (("DATA", "-o", "DATA"), "holds 'input', which is no part of a report"),
        (("DATA", "--layout", "spad"), "does not lie as layout 'spad'"),
    ],
)
def test_work_that_fails_has_status_1(
    run: Run, data: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"DATA": data, "EMPTY": tmp_path / "empty", "NOWHERE": tmp_path / "nowhere"}
    done = run(*(places.get(option, option) for option in options))
    assert (done.status, done.out) == (1, "")
    assert message in done.err
    assert done.err.startswith("error: ")


def test_ctrl_c_leaves_no_half_of_a_report(
    run: Run, data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = sys.modules["fairweather.evaluation.evaluate"]
    calls = iter(range(4))

    def interrupted(*given, **options):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return measure(*given, **options)

    monkeypatch.setattr(room, "measure", interrupted)
    done = run(data, "--weights", weights, "-o", tmp_path / "report")
    assert done.status == 130
    assert not (tmp_path / "report").exists()


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_names_that_cannot_be_printed(run: Run, weights: Path, tmp_path: Path) -> None:
    for side in ("input", "target"):
        folder = tmp_path / "[red] set" / side
        folder.mkdir(parents=True)
        for name in (b"\xff.png", b"[b]'&.png"):
            Image.fromarray(scene(1)).save(os.fsencode(folder) + b"/" + name, "PNG")
    (tmp_path / "[red] set" / "input" / os.fsdecode(b"\xfe.png")).touch()
    done = run(tmp_path / "[red] set", "--weights", weights, "-o", tmp_path / "report")
    assert done.status == 1
    assert "[red] set" in done.out
    assert "\\udcfe" in done.err
    tree = json.loads((tmp_path / "report" / "results.json").read_text(encoding="utf-8"))
    assert {row["name"] for row in tree["sets"][0]["images"]} == {"\udcff", "[b]'&"}
    assert "\\udcff" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_every_protocol_is_told(run: Run) -> None:
    done = run("--list-protocols")
    assert done.status == 0
    for name in PROTOCOLS:
        assert f"Protocol {name} (" in done.out


def test_a_bundled_name_is_not_a_folder_that_lies_there(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path("rain").is_dir()
    tree = json.loads(run(data, "--weights", "rain", "--json", "--device", "cpu").out)
    assert [weights["name"] for weights in tree["weights"]] == ["rain"]
