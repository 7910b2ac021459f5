"""Bulk runs that are killed, and stores that fail: the same bytes, nothing twice, nothing lost."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil
import pyarrow.parquet
import pytest
from object_store import Store
from PIL import Image
from skimage import data

pytest.importorskip("ray", reason="NOT TESTED: bulk work, because Ray is not installed")

from fairweather.imaging import Photo, write_image
from fairweather.serving import open_place

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("alone_with_ray"),
    pytest.mark.skipif(os.name == "nt", reason="signals are others"),
]
COMMAND = "from fairweather.cli import main; main()"
WORKER = "ray::MapWorker"
PHOTO = data.astronaut()
COUNT = int(os.environ.get("FAIRWEATHER_PHOTOS", "20"))
UNUSUAL = {9: "result.jpg", 10: "a b#1?.jpg"}
BROKEN = ("broken.jpg", "deep/cut.png")


def cut(index: int, *, size: int = 160) -> np.ndarray:
    top = index * 4 % (len(PHOTO) - size)
    return np.ascontiguousarray(PHOTO[top : top + size, 120 : 120 + size + index % 7])


def make_photos(folder: Path, *, count: int) -> None:
    """Photographs of several kinds, and two that are broken."""
    (folder / "deep").mkdir(parents=True)
    for index in range(count):
        place, pixels = folder / ("deep" if index % 3 == 2 else "."), cut(index)
        if index % 6 == 0:
            write_image(place / f"{index}.tif", Photo(pixels.astype(np.uint16) * 257))
        elif index % 6 == 1:
            Image.fromarray(pixels).convert("CMYK").save(place / f"{index}.jpg")
        elif index % 6 == 2:
            Image.fromarray(pixels).convert("RGBA").save(place / f"{index}.png")
        else:
            name = UNUSUAL.get(index, f"{index}.jpg")
            Image.fromarray(pixels).save(place / name, quality=80 + index % 15)
    whole = (folder / "deep/2.png").read_bytes()
    (folder / BROKEN[0]).write_bytes(b"\xff\xd8\xff\xe0 nothing")
    (folder / BROKEN[1]).write_bytes(whole[: len(whole) // 2])


def start(
    *arguments: str, errors: IO[str] | int = subprocess.DEVNULL, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments, "--device", "cpu", "--json"],
        stdout=subprocess.PIPE,
        stderr=errors,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def run(*arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = start(*arguments, errors=errors, **environment)
        out, _ = process.communicate(timeout=400)
        errors.seek(0)
        assert process.returncode in (0, 1), errors.read()
    return process.returncode, json.loads(out)


def files_in(folder: Path) -> dict[str, bytes]:
    """Return results; neither the table nor what is being written."""
    shown = (path for path in folder.rglob("*") if not path.name.startswith("."))
    found = (path for path in shown if path.is_file() and path.parent.name != "_fairweather")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def wait_for_workers() -> None:
    """Wait for the end of workers whose driver was killed."""
    ends = time.monotonic() + 300
    while any(
        WORKER in " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])
    ):
        assert time.monotonic() < ends
        time.sleep(0.1)


def noted_in(out: Path) -> dict[str, int]:
    """Return when each file was noted in the table."""
    table = pyarrow.parquet.read_table(out / "_fairweather/files.parquet")
    return {row["name"]: row["noted_ns"] for row in table.to_pylist()}


@contextlib.contextmanager
def workers_killed(process: subprocess.Popen[str], *, after: int, out: Path) -> Iterator[None]:
    """Kill one worker when there are some results."""

    def kill() -> None:
        while process.poll() is None:
            if len(files_in(out)) >= after:
                children = psutil.Process(process.pid).children(recursive=True)
                for one in children:
                    with contextlib.suppress(psutil.Error):
                        if WORKER in " ".join(one.cmdline()):
                            one.kill()
                            killed.append(one.pid)
                            return
            time.sleep(0.02)

    killed: list[int] = []
    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()
    assert killed


def test_a_run_that_is_killed_goes_on_and_gives_the_bytes_of_the_command(tmp_path: Path) -> None:
    source, out, expected = tmp_path / "in", tmp_path / "out", tmp_path / "expected"
    make_photos(source, count=COUNT)
    code, _ = run("restore", str(source), "-o", str(expected))
    assert code == 1  # the broken ones
    bulk = ("bulk", str(source), "-o", str(out), "--workers", "2")

    driver = start(*bulk)
    while len(list(out.glob("_fairweather/part-*.parquet"))) < 2:  # some of it is noted
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    wait_for_workers()
    before = {name: (out / name).stat().st_mtime_ns for name in files_in(out)}
    assert 0 < len(before) < COUNT

    process = start(*bulk)
    with workers_killed(process, after=len(before) + 3, out=out):
        printed, _ = process.communicate(timeout=400)
    report = json.loads(printed)
    assert process.returncode == 1
    assert files_in(out) == files_in(expected)
    assert not list(out.rglob("*.part"))
    assert (report["files"], report["failed"]) == (COUNT + 2, 2)
    assert report["failures"] == {"ImageError": 2}
    assert report["unchanged"] > 0
    kept = [name for name, written in before.items() if (out / name).stat().st_mtime_ns == written]
    assert len(kept) == report["unchanged"]

    time.sleep(3)  # until nothing can change again within the same tick of a clock
    os.utime(source / "3.jpg")  # which is read, and found to be the same
    Image.fromarray(cut(77)).save(source / "4.jpg")
    (out / "deep/5.jpg").unlink()
    written = {name: (out / name).stat().st_mtime_ns for name in files_in(out)}
    code, report = run(*bulk)
    assert (code, report["restored"], report["unchanged"]) == (1, 2, COUNT - 2)
    assert (out / "deep/5.jpg").exists()
    changed = {name for name in written if (out / name).stat().st_mtime_ns != written[name]}
    assert changed == {"4.jpg"}

    noted = noted_in(out)
    code, report = run(*bulk)
    assert (code, report["restored"], report["unchanged"]) == (1, 0, COUNT)
    assert len(report["errors"]) == 2
    assert noted_in(out) == noted  # not even read
    table = pyarrow.parquet.read_table(out / "_fairweather/files.parquet").to_pylist()
    assert sorted(row["source"] for row in table if row["status"] == "failed") == [
        str(source / name) for name in BROKEN
    ]

    (tmp_path / "other").mkdir()
    Image.fromarray(cut(0)).save(tmp_path / "other/4.jpg")
    held = (out / "4.jpg").read_bytes()
    code, report = run("bulk", str(tmp_path / "other"), "-o", str(out))
    assert (code, report["failures"]) == (1, {"FileTakenError": 1})
    assert (out / "4.jpg").read_bytes() == held


def test_a_run_that_is_stopped_says_what_is_done(tmp_path: Path) -> None:
    """By SIGTERM, for which Ray has a handler with another status."""
    source, out = tmp_path / "in", tmp_path / "out"
    make_photos(source, count=COUNT)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "bulk", source, "-o", out, "--workers", "1"],
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    while not list(out.glob("_fairweather/part-*.parquet")) or not files_in(out):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert re.fullmatch(r"stopped with .* done; the same command goes on", told.splitlines()[-1])
    assert len(files_in(out)) < COUNT


def test_what_auto_leaves_as_it_was_is_no_restored_photograph(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    Image.fromarray(data.coffee()).save(source / "a.png")
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "bulk", source, "-o", out, "--task", "auto"],
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.startswith("1 photograph: 0 restored, 1 left as they were, 0 done before\n")
    assert "degradations: clean 1" in done.stdout
    assert list(files_in(out)) == ["a.png"]


def test_a_file_over_which_workers_die_is_given_up(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    place = Path(tempfile.mkdtemp(prefix="fw-"))  # Ray wants a short one
    source.mkdir()
    for index in range(4):
        Image.fromarray(cut(index)).save(source / f"{index}.png")
    Image.fromarray(np.tile(PHOTO, (3, 3, 1))).save(source / "poison.bmp")
    process = start("bulk", str(source), "-o", str(out), "--workers", "1", TMPDIR=str(place))
    seen: set[str] = set()
    while process.poll() is None:
        # Folders go meanwhile, over which Path.rglob of Python 3.11 stumbles.
        found = {folder for folder, _, files in os.walk(place) if "file.bmp" in files}
        for folder in found - seen:
            seen.add(folder)
            for one in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if WORKER in " ".join(one.cmdline()):
                        one.kill()
        time.sleep(0.01)
    report = json.loads(process.communicate()[0])
    assert process.returncode == 1
    assert (report["restored"], report["failures"]) == (4, {"WorkerDied": 1})
    assert len(seen) == 3
    shutil.rmtree(place)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_store_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("moto", reason="NOT TESTED: object stores, because moto is not installed")
    store = Store()
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    bucket = open_place("s3://city?allow_bucket_creation=true")
    bucket.fs.create_dir("city")
    source, expected = tmp_path / "in", tmp_path / "expected"
    make_photos(source, count=8)
    for path in source.rglob("*.*"):
        bucket.at(f"cameras/{path.relative_to(source).as_posix()}").write(path.read_bytes())
    run("restore", str(source), "-o", str(expected))
    bulk = ("bulk", "s3://city/cameras", "-o", "s3://city/clear", "--workers", "2")

    store.fails, store.puts = True, []
    code, report = run(*bulk)
    store.fails = False
    assert (code, report["restored"], report["failed"]) == (1, 8, 2)
    found = {one.path.removeprefix("city/clear/") for one in bucket.at("clear").files()}
    results = {name for name in found if not name.startswith("_fairweather")}
    assert results == set(files_in(expected))
    for name, held in files_in(expected).items():
        assert bucket.at(f"clear/{name}").read() == held
    written = [path for path in store.puts if "_fairweather" not in path]
    assert len(written) == len(set(written))

    code, report = run(*bulk)
    assert (code, report["restored"], report["unchanged"]) == (1, 0, 8)
