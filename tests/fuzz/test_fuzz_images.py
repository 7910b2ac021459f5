"""Damaged images are photos, or errors that name the file: never a crash, a hang or a bomb."""

import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutation import SECONDS
from png_files import chunk, png

from fairweather.errors import ImageError
from fairweather.imaging import Photo, Truncated, read_image

WORKER = Path(__file__).with_name("image_worker.py")
NAMES = [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"cICP", b"cHRM", b"gAMA", b"tRNS", b"PLTE", b"pHYs"]
NAMES += [b"eXIf", b"acTL", b"fcTL", b"IDAT", b"abCd"]


@pytest.mark.skipif(sys.platform == "win32", reason="measures with resource")
def test_mutated_images(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    command = [sys.executable, WORKER, str(seed), str(SECONDS), tmp_path]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 120)
    except subprocess.TimeoutExpired:
        pytest.fail(f"hangs at {sorted(tmp_path.glob('tried*'))}, seed {seed}")
    print(done.stdout)
    last = max(tmp_path.glob("tried*"), key=lambda path: path.stat().st_mtime, default=None)
    assert done.returncode == 0, f"crashed at {last}, seed {seed}: {done.stderr[-2000:]}"
    assert " 0 faults" in done.stdout, done.stdout


CHUNKS = st.tuples(
    st.sampled_from(NAMES),
    st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=40).map(lambda data: b"key\0\0" + zlib.compress(data)),
        st.binary(max_size=20).map(lambda data: b"key\0\1\0\0\0" + zlib.compress(data)),
    ),
)


@settings(
    deadline=None,
    max_examples=max(100, int(SECONDS * 20)),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    before=st.lists(CHUNKS, max_size=4),
    depth=st.sampled_from([1, 2, 4, 8, 16, 3]),
    colour_type=st.integers(0, 7),
    size=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    rows=st.lists(st.binary(max_size=80), max_size=9),
    interlaced=st.booleans(),
)
@pytest.mark.filterwarnings("ignore")
def test_png_files_of_any_parts(
    tmp_path: Path,
    before: list[tuple[bytes, bytes]],
    depth: int,
    colour_type: int,
    size: tuple[int, int],
    rows: list[bytes],
    *,
    interlaced: bool,
) -> None:
    path = tmp_path / "a.png"
    extra = b"".join(chunk(*part) for part in before)
    kind = {"depth": depth, "colour_type": colour_type, "interlaced": interlaced}
    path.write_bytes(png(rows, size=size, extra=extra, **kind))
    for truncated in ("refuse", "allow"):
        photo = photo_or_none(path, truncated=truncated)
        assert photo is None or photo.pixels.shape[:2] == size


def photo_or_none(path: Path, *, truncated: Truncated) -> Photo | None:
    try:
        return read_image(path, truncated=truncated)
    except ImageError as error:
        if str(path) not in str(error):
            raise
        return None
