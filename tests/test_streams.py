"""`-` for standard input and output."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_sets import scene, write_weights

from fairweather.imaging import read_image
from fairweather.restoration import Restorer


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "mine.safetensors", strength=0.3)


def restore(
    weights: Path, *words: object, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    command = ["restore", "--weights", weights, "--device", "cpu", *words]
    return subprocess.run(
        [sys.executable, "-m", "fairweather", *map(str, command)],
        input=given,
        capture_output=True,
        check=False,
    )


def encoded(format: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(scene(1)).save(file, format, **({"lossless": True} if format == "WEBP" else {}))
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "words", "written"),
    [("PNG", ("-",), "PNG"), ("JPEG", ("-", "-o", "-", "--format", "webp", "--lossless"), "WEBP")],
)
def test_an_image_goes_through_a_pipe(
    weights: Path, format: str, words: tuple[str, ...], written: str
) -> None:
    given = encoded(format)
    done = restore(weights, *words, given=given)
    assert (done.returncode, done.stderr) == (0, b"")
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert image.format == written
        found = np.asarray(image)
    pixels = np.asarray(Image.open(io.BytesIO(given)))
    np.testing.assert_array_equal(found, Restorer(weights, device="cpu")(pixels))


def test_one_end_may_be_a_file(weights: Path, tmp_path: Path) -> None:
    target, source = tmp_path / "b.png", tmp_path / "a.png"
    source.write_bytes(encoded("PNG"))
    done = restore(weights, "-", "-o", target, given=source.read_bytes())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    done = restore(weights, source, "-o", "-")
    assert done.returncode == 0
    restored = read_image(target).pixels
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(done.stdout))), restored)


def test_what_is_no_image_is_named_by_the_dash(weights: Path) -> None:
    done = restore(weights, "-", given=b"Dear photo,")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"error: '-' ")


def test_an_image_that_is_cut_off_is_named_by_the_dash_or_allowed(weights: Path) -> None:
    whole = encoded("JPEG")
    half = whole[:-60]  # most of it is header
    refused = restore(weights, "-", given=half)
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert refused.stderr.startswith(b"error: '-' is cut off: ")
    done = restore(weights, "-", "--truncated", "allow", given=half)
    assert done.returncode == 0
    assert done.stderr.startswith(b"note: the file is cut off: ")
    with Image.open(io.BytesIO(done.stdout)) as image:
        assert (image.format, image.size) == ("JPEG", Image.open(io.BytesIO(whole)).size)


@pytest.mark.parametrize("words", [("-", "a.png"), ("-", "--json"), ("a.png", "-o-", "--compare")])
def test_what_does_not_go_with_a_stream_is_a_wrong_call(
    weights: Path, words: tuple[str, ...]
) -> None:
    done = restore(weights, *words)
    assert (done.returncode, done.stdout) == (2, b"")
