import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Run
from PIL import Image
from rich.console import Console
from skimage import data

from fairweather import __version__, cli
from fairweather.imaging import Photo, read_image, write_image
from fairweather.models import create_model, save_model
from fairweather.restoration import Job, Restorer

PHOTO = np.ascontiguousarray(data.astronaut()[20:60, 180:232])
ALPHA = np.random.default_rng(0).integers(0, 256, PHOTO.shape[:2], dtype=np.uint8)
AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals are others there")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = create_model("ast_n", init="official")
    with torch.no_grad():
        model.output_conv.weight *= 0.4
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(model, path, metadata={"task": "rain"})
    return path


@pytest.fixture
def restore(run: Run, weights: Path) -> Run:
    """Runs `fairweather restore` with the weights of these tests."""
    return lambda *arguments: run("restore", "--weights", weights, "--device", "cpu", *arguments)


def png_bomb() -> bytes:
    """The header of 40000 × 40000 pixels, and next to no pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + name
            + content
            + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    chunks = (chunk(b"IHDR", header), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def good_files(folder: Path) -> None:
    folder.mkdir(parents=True)
    image = Image.fromarray(PHOTO)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"
    image.save(folder / "portrait.jpg", quality=95, exif=exif)
    image.convert("CMYK").save(folder / "print.jpg", quality=95)
    image.quantize(64).save(folder / "palette.gif")
    deep = PHOTO.astype(np.uint16) * 257 - PHOTO
    write_image(folder / "deep.tif", Photo(deep))
    grey = Image.fromarray(PHOTO[..., 1])
    grey.putalpha(Image.fromarray(ALPHA))
    assert grey.mode == "LA"
    grey.save(folder / "grey.png")


def bad_files(folder: Path) -> list[Path]:
    stream = io.BytesIO()
    Image.fromarray(data.astronaut()).save(stream, "JPEG")
    (folder / "cut.jpg").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    (folder / "empty.jpg").touch()
    (folder / "text.png").write_text("Dear photo,\n")
    (folder / "bomb.png").write_bytes(png_bomb())
    (folder / "broken.png").symlink_to("nowhere.png")
    names = ["bomb.png", "broken.png", "cut.jpg", "empty.jpg", "text.png"]
    if not AS_ROOT:
        shutil.copy(folder / "grey.png", folder / "secret.png")
        (folder / "secret.png").chmod(0)
        names.append("secret.png")
    return [folder / name for name in sorted(names)]


def test_a_folder_of_good_and_bad_files(restore: Run, weights: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "photos", tmp_path / "photos-restored"
    good_files(folder)
    bad = bad_files(folder)
    done = restore(folder, "--threads", 1)  # or else in the order in which they are done
    assert done.status == 1
    *failures, counts = done.err.splitlines()
    assert counts == f"5 restored, {len(bad)} failed"
    assert len(failures) == len(bad)
    for path, line in zip(bad, sorted(failures), strict=True):
        assert line.startswith(f"failed: '{path}' ")
    assert "40000 × 40000" in failures[0]

    names = ["deep.tif", "grey.png", "palette.gif", "portrait.jpg", "print.jpg"]
    assert sorted(path.name for path in out.iterdir()) == names
    lines = [line for line in done.out.splitlines() if not line.startswith("    note: ")]
    assert [line.split("  (")[0] for line in lines] == [
        f"{folder / name} → {out / name}" for name in names
    ]
    assert "CMYK" in done.out
    restorer = Restorer(weights, device="cpu")
    for name in names:
        before, after = read_image(folder / name), read_image(out / name)
        assert after.pixels.dtype == before.pixels.dtype
        assert after.pixels.shape == before.pixels.shape
        assert after.grey == before.grey
        np.testing.assert_array_equal(after.alpha, before.alpha)
        expected = restorer.restore_pixels(before.pixels, grey=before.grey).astype(int)
        top = np.iinfo(before.pixels.dtype).max
        assert np.abs(expected - before.pixels).mean() > 0.01 * top
        if name in ("deep.tif", "grey.png"):
            np.testing.assert_array_equal(after.pixels, expected)
        else:  # JPEG loses a little, and GIF has 256 colours
            assert np.abs(after.pixels - expected).mean() < 0.02 * top
    assert read_image(out / "portrait.jpg").pixels.shape == (52, 40, 3)
    modes = []
    for name in names[1:]:
        with Image.open(out / name) as image:
            modes.append(image.mode)
    assert modes == ["LA", "P", "RGB", "RGB"]
    with Image.open(out / "portrait.jpg") as image:
        assert (image.getexif()[0x0112], image.getexif()[0x010F]) == (1, "Camera")


def test_one_photo(restore: Run, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    done = restore(tmp_path / "a.png", "--compare")
    assert (done.status, done.err) == (0, "")
    line = rf"{tmp_path}/a.png → {tmp_path}/a.restored.png  (52 × 40, "
    assert done.out.startswith(line)
    assert done.out.endswith(
        "\n    beside the input: " + f"{tmp_path}/a.restored.png.compare.jpg\n"
    )
    names = ["a.png", "a.restored.png", "a.restored.png.compare.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    before = (tmp_path / "a.restored.png").read_bytes()

    again = restore(tmp_path / "a.png")
    assert again.status == 1
    assert "a.restored.png' exists already" in again.err
    skipped = restore(tmp_path / "a.png", "--skip-existing", "--strength", "0")
    assert (skipped.status, skipped.out) == (0, "")
    assert (tmp_path / "a.restored.png").read_bytes() == before
    weaker = restore(tmp_path / "a.png", "--overwrite", "--strength", "0")
    assert weaker.status == 0
    np.testing.assert_array_equal(read_image(tmp_path / "a.restored.png").pixels, PHOTO)


def test_options_reach_the_restorer(restore: Run, weights: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    image = data.astronaut()[:30, :140]
    Image.fromarray(image).save(source)
    options = ("--tile", 128, "--strength", 0.5, "--precision", "bf16")
    assert restore(source, "-o", target, *options).status == 0
    expected = Restorer(weights, device="cpu", tile=128, strength=0.5, precision="bf16")(image)
    np.testing.assert_array_equal(read_image(target).pixels, expected)
    options = ("--overwrite", "--tile", "none", "--self-ensemble")
    assert restore(source, "-o", target, *options).status == 0
    expected = Restorer(weights, device="cpu", tile=None, self_ensemble=True)(image)
    np.testing.assert_array_equal(read_image(target).pixels, expected)
    refused = restore(source, "-o", tmp_path / "c.png", "--max-pixels", 30 * 140 - 1)
    assert (refused.status, (tmp_path / "c.png").exists()) == (1, False)


def test_a_photo_that_is_cut_off(restore: Run, tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    Image.fromarray(data.astronaut()[:48, :64]).save(source)
    source.write_bytes(source.read_bytes()[:-300])
    refused = restore(source)
    assert refused.status == 1
    assert "is cut off" in refused.err
    assert "--truncated allow" in refused.err
    allowed = restore(source, "--truncated", "allow")
    assert allowed.status == 0
    assert "note: the file is cut off: the pixels from row" in allowed.out
    assert read_image(tmp_path / "a.restored.jpg").pixels.shape == (48, 64, 3)


def test_json(restore: Run, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(PHOTO).save(tmp_path / name)
    (tmp_path / "b.png").write_text("no image")
    (tmp_path / "c.restored.png").touch()
    nothing = tmp_path / "*.gif"
    done = restore("--json", "--skip-existing", tmp_path / "[abc].png", nothing)
    assert (done.status, done.err) == (1, "")
    document = json.loads(done.out)
    assert done.out.count("\n") == 1
    assert set(document) == {
        "restored", "skipped", "failed", "passed_over", "interrupted",
    }  # fmt: skip
    (restored,) = document["restored"]
    seconds = restored.pop("seconds")
    assert 0 < seconds < 600
    assert restored == {
        "source": str(tmp_path / "a.png"),
        "target": str(tmp_path / "a.restored.png"),
        "compare": None,
        "height": 40,
        "width": 52,
        "notes": [],
        "diagnosis": None,
        "levels": 0,
        "frames": None,
        "precision": "fp32",
    }
    source, target = str(tmp_path / "c.png"), str(tmp_path / "c.restored.png")
    assert document["skipped"] == [{"source": source, "target": target}]
    failed = [failure["source"] for failure in document["failed"]]
    assert failed == [str(nothing), str(tmp_path / "b.png")]
    assert document["interrupted"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--strength", "1.5"),
        ("--strength", "much"),
        ("--tile", "100"),
        ("--tile", "big"),
        ("--tile", "-128"),
        ("--tile", "²"),
        ("--precision", "int8"),
        ("--device", "abacus"),
        ("--max-pixels", "0"),
        ("--overwrite", "--skip-existing"),
        ("--quality", "0"),
        ("--quality", "101"),
        ("--quality", "90", "--lossless"),
        ("--format", "heic5"),
        ("--format", "jpg", "--lossless"),
        ("--chroma", "4:1:1"),
        ("--out", ""),
        ("--out=",),
        ("",),
        ("-",),
        ("-o", "-", "--json"),
        ("second.png", "-o", "one.png"),
    ],
)
def test_a_wrong_call_has_status_2(
    restore: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PHOTO).save("a.png")
    done = restore(*arguments, *(["a.png"] if arguments else []))
    assert (done.status, done.out) == (2, "")
    assert done.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_unknown_weights_have_status_1(run: Run, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    done = run("restore", tmp_path / "a.png", "--weights", "fog")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: fog: is no file")
    assert done.err.count("\n") == 1


def test_an_unknown_task_is_a_wrong_call(run: Run, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    done = run("restore", tmp_path / "a.png", "--task", "fog")
    assert (done.status, done.out) == (2, "")
    assert "--task fog: is none of auto, haze" in done.err
    assert "--weights" in done.err


def test_version_and_help(run: Run) -> None:
    assert run("--version") == (0, f"{__version__}\n", "")
    assert "PHOTO|CLIP|FOLDER|GLOB" in run("restore", "-h").out
    assert run("nonsense").status == 2


def test_restoring_loads_nothing_that_it_does_not_need(weights: Path, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "a.jpg")
    call = ["fairweather", "restore", str(tmp_path / "a.jpg"), "--weights", str(weights)]
    code = f"""
import sys
from fairweather.cli import main
sys.argv = {call}
try:
    main()
except SystemExit as stop:
    assert not stop.code
print(*{{name.split(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.restored.jpg").exists()
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "torch" in loaded
    needless = {"skimage", "scipy", "huggingface_hub", "pooch", "openvino", "lightning", "jinja2"}
    assert loaded & needless == set()


@POSIX
def test_names_that_cannot_be_printed(restore: Run, tmp_path: Path) -> None:
    for name in (b"\xff.png", b"[red].png"):
        Image.fromarray(PHOTO).save(os.fsencode(tmp_path) + b"/" + name, "PNG")
    (tmp_path / os.fsdecode(b"\xfe.png")).touch()
    done = restore(tmp_path, "-o", tmp_path / "out")
    assert done.status == 1
    assert "\\udcff.png" in done.out
    assert "[red].png" in done.out
    assert "\\udcfe.png" in done.err
    assert len(list((tmp_path / "out").iterdir())) == 2
    json.loads(restore("--json", tmp_path, "-o", tmp_path / "out", "--skip-existing").out)


def test_the_progress_bar_shows_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    for room in (cli.console, cli.restore):
        monkeypatch.setattr(room, "err_console", console)
    jobs = [Job(Path("[red] a.png"), Path("b.png")), Job(Path("c.png"), Path("d.png"))]
    shown = cli.restore.Shown(jobs, as_json=False)
    with shown.progress:
        for job, done in zip(jobs, (3, 5), strict=True):  # two at a time
            shown.start(job)(done, 16)
        shown.progress.refresh()
    assert "[red] a.png" in screen.getvalue()
    assert "3/16" in screen.getvalue()
    assert "5/16" in screen.getvalue()
    assert "0/2" in screen.getvalue()


def test_an_interrupt_tells_what_was_done(
    restore: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes while the second photo is written: three of five are not done."""
    for name in "abcd":
        Image.fromarray(PHOTO).save(tmp_path / f"{name}.png")
    written: list[int] = []
    fsync = os.fsync

    def interrupted(file: int) -> None:
        written.append(file)
        if len(written) % 2 == 0:
            raise KeyboardInterrupt
        fsync(file)

    monkeypatch.setattr(os, "fsync", interrupted)
    inputs = (tmp_path / "?.png", tmp_path / "*.gif")
    arguments = (*inputs, "-o", tmp_path / "out", "--threads", 1)
    done = restore(*arguments)
    assert done.status == 130
    assert done.err.splitlines()[-1] == "1 restored, 1 failed, stopped with 3 not done"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    document = json.loads(restore("--json", "--skip-existing", *arguments).out)
    assert document["interrupted"] is True
    assert [len(document[key]) for key in ("skipped", "restored", "failed")] == [1, 1, 1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
