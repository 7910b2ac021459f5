"""Frames as files and through pipes: the same frames, and pixels alone on standard output."""

import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_clips import make_clip, scene
from tiny_sets import write_weights
from typer.testing import CliRunner

from fairweather import Restorer, cli
from fairweather.errors import FileTakenError, ImageError, OptionError
from fairweather.imaging import (
    ClipOptions,
    RawVideo,
    read_clip_facts,
    read_frames,
    read_raw,
    read_y4m,
)

av: Any = pytest.importorskip("av", reason="NOT TESTED: piped clips, because PyAV is not installed")

COMMAND = "from fairweather.cli import main; main()"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "mine.safetensors", strength=0.3)


@pytest.fixture
def restorer(weights: Path) -> Restorer:
    return Restorer(weights, device="cpu", levels=0)


def make_y4m(path: Path, *, frames: int = 5, pixel_format: str = "yuv420p") -> Path:
    with av.open(str(path), "w", format="yuv4mpegpipe", options={"strict": "-1"}) as made:
        stream = made.add_stream("wrapped_avframe", rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = 76, 50, pixel_format
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(index, (50, 76))).reformat(format=pixel_format)
            frame.pts, frame.time_base = index, Fraction(1001, 30000)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return path


def run(*arguments: object, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "restore", *map(str, arguments)],
        input=given,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def frames_in(path: Path) -> tuple[Any, list[np.ndarray]]:
    with path.open("rb") as file:
        facts, frames = read_y4m(file, ClipOptions(), name=str(path))
        return facts, [frame.pixels for frame in frames]


def photos(folder: Path, *, count: int = 5) -> list[np.ndarray]:
    folder.mkdir(exist_ok=True)
    pixels = [scene(index, (50, 76)) for index in range(count)]
    for index, one in enumerate(pixels, 8):
        Image.fromarray(one).save(folder / f"frame_{index:03}.png")
    return pixels


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p", "yuv422p10le"])
def test_pixels_alone_go_through_a_pipe(
    restorer: Restorer, weights: Path, tmp_path: Path, pixel_format: str
) -> None:
    source = make_y4m(tmp_path / "a.y4m", pixel_format=pixel_format)
    done = run("-", "-o", "-", "--weights", weights, "--levels", 0, given=source.read_bytes())
    assert (done.returncode, done.stderr) == (0, b"")
    (tmp_path / "b.y4m").write_bytes(done.stdout)
    (facts, before), (told, after) = frames_in(source), frames_in(tmp_path / "b.y4m")
    assert len(after) == 5
    same = ("width", "height", "rate", "depth", "chroma")
    assert [getattr(facts, name) for name in same] == [getattr(told, name) for name in same]
    assert after[0].dtype == (np.uint16 if "10" in pixel_format else np.uint8)
    most = float(np.iinfo(after[0].dtype).max)
    for one, two in zip(before, after, strict=True):
        error = restorer.restore_pixels(one).astype(float) - two
        assert np.sqrt(np.square(error).mean()) < 0.02 * most  # halved colours lose most of it
    assert before[1].astype(float).mean() != after[1].astype(float).mean()


def test_a_clip_is_written_to_a_pipe(weights: Path, tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", frames=4)
    done = run(tmp_path / "a.mp4", "-o", "-", "--weights", weights)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b" C420mpeg2 " in done.stdout[:100]  # as H.264 has its colours
    (tmp_path / "b.y4m").write_bytes(done.stdout)
    assert len(frames_in(tmp_path / "b.y4m")[1]) == 4


@pytest.mark.parametrize(
    ("kept", "said"),
    [(slice(0, -70), b"'-' is cut off behind frame 4"), (slice(0, 30), b"is no Y4M that can be")],
)
def test_a_cut_off_pipe_is_an_error(tmp_path: Path, kept: slice, said: bytes) -> None:
    whole = make_y4m(tmp_path / "a.y4m").read_bytes()
    done = run("-", given=whole[kept])
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_what_y4m_says_is_kept_or_refused(weights: Path, tmp_path: Path) -> None:
    whole = make_y4m(tmp_path / "a.y4m").read_bytes()
    options = ("-", "-o", "-", "--weights", weights, "--levels", 0)
    assert b" A0:0 " in whole
    done = run(*options, given=whole.replace(b" A0:0 ", b" A64:45 ", 1))
    assert b" A64:45 " in done.stdout[:100]
    assert b" C420jpeg " in whole[:100]
    for siting in (b" C420jpeg ", b" C420mpeg2 ", b" C420paldv "):
        done = run(*options, given=whole.replace(b" C420jpeg ", siting, 1))
        assert siting in done.stdout[:100]
    done = run(*options, given=whole.replace(b" Ip ", b" It ", 1))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"is interlaced" in done.stderr
    woven = run(*options, "--interlaced", "deinterlace", given=whole.replace(b" Ip ", b" It ", 1))
    assert (woven.returncode, woven.stderr) == (0, b"")
    assert woven.stdout.count(b"FRAME\n") == 5
    longer = whole.replace(b"FRAME\n", b"FRAME Ip\n")
    assert run(*options, given=longer).returncode == 0
    assert b"is cut off behind frame 4" in run(*options, given=longer[:-50]).stderr
    broken = run(*options, given=whole + b"\n")
    assert broken.returncode == 1
    assert broken.stderr.count(b"\n") == 1


@pytest.mark.parametrize("pixel_format", ["bgr24", "gray", "rgb48le"])
def test_raw_frames_go_through_a_pipe(restorer: Restorer, weights: Path, pixel_format: str) -> None:
    def laid_out(pixels: np.ndarray) -> np.ndarray:
        return {"bgr24": pixels[..., ::-1], "gray": pixels[..., :1]}.get(pixel_format, pixels)

    frames = [scene(index, (50, 76)) for index in range(3)]
    if pixel_format == "gray":
        frames = [np.repeat(frame[..., 1:2], 3, axis=-1) for frame in frames]
    if pixel_format == "rgb48le":
        frames = [frame.astype("<u2") * 257 - index for index, frame in enumerate(frames)]
    options = ("-o", "-", "--rawvideo", f"76x50:{pixel_format}@30000/1001", "--levels", 0)
    given = np.stack([laid_out(frame) for frame in frames])
    done = run("-", *options, "--weights", weights, given=given.tobytes())
    assert (done.returncode, done.stderr) == (0, b"")
    is_grey = pixel_format == "gray"
    expected = [laid_out(restorer.restore_pixels(frame, grey=is_grey)) for frame in frames]
    result = np.frombuffer(done.stdout, given.dtype).reshape(given.shape)
    np.testing.assert_allclose(result, np.stack(expected), rtol=0, atol=1)  # one unit is rounding
    assert np.ptp(result.astype(int) - given) > 1


def test_raw_frames_come_while_more_are_read(weights: Path) -> None:
    words = ("restore", "-", "--rawvideo", "76x50", "--threads", "1")
    frame = scene(0, (50, 76)).tobytes()
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words, "--weights", str(weights)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(8 * frame)
        process.stdin.flush()
        assert len(process.stdout.read(len(frame))) == len(frame)  # the end is yet to come
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "holds no frame"),
        (bytes(3 * 36 + 5), "cut off behind frame 3: 5 bytes are left, and a frame of 4x3:rgb24"),
        (b"YUV4MPEG2 W4 H3 F25:1\nFRAME\n" + bytes(36), "leave out --rawvideo"),
    ],
)
def test_a_raw_stream_that_does_not_fit(given: bytes, said: str) -> None:
    with pytest.raises(ImageError, match=said):
        list(read_raw(io.BytesIO(given), RawVideo(4, 3), name="-"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("- --rawvideo rgb24", "write WIDTHxHEIGHT"),
        ("- --rawvideo 0x3", "must have 1 to"),
        ("- --rawvideo 4x3@0", "above 0 frames a second"),
        ("- --rawvideo 4x3:yuv420p", "FFmpeg makes them with -pix_fmt"),
        ("a.mp4 -o - --rawvideo 4x3", "name - as the one input"),
        ("a.mp4 --rawvideo 4x3", "name - as the one input"),
        ("- -o a.mp4 --rawvideo 4x3", "leave out -o"),
    ],
)
def test_a_raw_stream_that_is_not_described(words: str, said: str) -> None:
    result = CliRunner().invoke(cli.app, ["restore", *words.split()])
    assert isinstance(result.exception, OptionError)
    assert said in str(result.exception)


def test_frames_without_a_header_need_their_size() -> None:
    result = CliRunner().invoke(cli.app, ["restore", "-"], input=bytes(50_000))
    assert isinstance(result.exception, ImageError)
    assert "raw frames with --rawvideo WIDTHxHEIGHT" in str(result.exception)


def test_frames_from_a_pipe_are_not_a_file(tmp_path: Path) -> None:
    done = run("-", "-o", tmp_path / "b.mkv", given=make_y4m(tmp_path / "a.y4m").read_bytes())
    assert done.returncode == 2
    assert b"leave out -o" in done.stderr


def test_a_pipe_that_nobody_reads_ends_quietly(weights: Path, tmp_path: Path) -> None:
    source = make_y4m(tmp_path / "a.y4m", frames=60)
    with source.open("rb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "restore", "-", "--weights", str(weights)],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert process.stdout
        assert process.stdout.read(10) == b"YUV4MPEG2 "
        process.stdout.close()
        assert process.stderr
        with process.stderr:
            assert process.stderr.read() == b""
        assert process.wait(60) == 1


def test_numbered_files_are_frames_of_one_clip(restorer: Restorer, tmp_path: Path) -> None:
    pixels = photos(tmp_path / "a")
    seen: list[tuple[int, int]] = []
    restored = restorer.restore_file(
        tmp_path / "a" / "frame_%03d.png",
        tmp_path / "b" / "%d.png",
        on_tile=lambda done, total: seen.append((done, total)),
    )
    assert (restored.frames, restored.height, restored.width) == (5, 50, 76)
    assert seen == [(count, 5) for count in range(1, 6)]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        *("10.png", "11.png", "12.png", "8.png", "9.png")
    ]
    for index, one in enumerate(pixels, 8):
        with Image.open(tmp_path / "b" / f"{index}.png") as result:
            np.testing.assert_array_equal(np.asarray(result), restorer.restore_pixels(one))


def test_a_stopped_sequence_goes_on(restorer: Restorer, tmp_path: Path) -> None:
    photos(tmp_path / "a")
    source, target = tmp_path / "a" / "frame_%03d.png", tmp_path / "b" / "frame_%03d.png"
    calm = ClipOptions(calm=True)
    restorer.restore_file(source, target, clip=calm)
    whole = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    with pytest.raises(FileTakenError, match="allow it with --overwrite"):
        restorer.restore_file(source, target, clip=calm)
    for number in (10, 12):
        (tmp_path / "b" / f"frame_{number:03}.png").unlink()
    kept = tmp_path / "b" / "frame_011.png"
    kept.write_bytes(b"kept")
    restorer.restore_file(source, target, clip=calm, go_on=True)
    assert kept.read_bytes() == b"kept"
    kept.write_bytes(whole["frame_011.png"])
    assert whole == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}


def test_what_is_no_sequence_is_refused(restorer: Restorer, tmp_path: Path) -> None:
    photos(tmp_path / "a")
    folder = tmp_path / "a"
    with pytest.raises(ImageError, match="matches no image"):
        restorer.restore_file(folder / "other_%03d.png", folder / "b_%d.png")
    with pytest.raises(ImageError, match="with one %06d"):
        restorer.restore_file(folder / "frame_%03d.png", folder / "b.png")
    (tmp_path / "link").symlink_to(folder)
    for target in (folder / "frame_0%02d.png", tmp_path / "link" / "frame_%03d.png"):
        with pytest.raises(ImageError, match="overwritten by its own result"):
            restorer.restore_file(folder / "frame_%03d.png", target, overwrite=True)
    done = run(folder / "frame_%03d.png", "-o", "-")
    assert done.returncode == 2
    assert b"stands for several images" in done.stderr
    Image.new("RGB", (5, 5)).save(folder / "frame_013.png")
    with pytest.raises(ImageError, match="frames of a clip have one size"):
        restorer.restore_file(folder / "frame_%03d.png", tmp_path / "b_%d.png")
    (folder / "frame_010.png").unlink()
    with pytest.raises(ImageError, match="has no number 10"):
        restorer.restore_file(folder / "frame_%03d.png", tmp_path / "c_%d.png")


def test_names_may_hold_other_signs(restorer: Restorer, tmp_path: Path) -> None:
    photos(tmp_path / "a", count=2)
    for path in sorted((tmp_path / "a").iterdir()):
        path.rename(path.with_name(f"50% of {path.name}"))
    restorer.restore_file(tmp_path / "a" / "50% of frame_%03d.png", tmp_path / "b" / "100% %d.png")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["100% 8.png", "100% 9.png"]


def test_hardware_that_is_not_there_is_named(restorer: Restorer, tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", frames=3)
    with pytest.raises(ImageError, match="--hardware"):
        restorer.restore_file(
            tmp_path / "a.mp4", tmp_path / "b.mp4", clip=ClipOptions(hardware="videotoolbox")
        )
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    with pytest.raises(OptionError, match="has no ffv1"):
        ClipOptions(hardware="nvenc", codec="ffv1")


def test_pipes_and_files_have_the_frames_of_the_clip(restorer: Restorer, tmp_path: Path) -> None:
    """The grey of a file stays grey, and a clip of these frames is restored as they are."""
    (tmp_path / "a").mkdir()
    for index in range(3):
        grey = Image.fromarray(scene(index, (50, 76))).convert("L")
        grey.save(tmp_path / "a" / f"{index}.png")
    restorer.restore_file(tmp_path / "a" / "%d.png", tmp_path / "b_%d.png")
    with Image.open(tmp_path / "b_0.png") as result:
        assert result.mode == "L"
    make_clip(tmp_path / "c.mp4", frames=3)
    facts = read_clip_facts(tmp_path / "c.mp4", ClipOptions())
    assert not any(f.grey for f in read_frames(tmp_path / "c.mp4", facts, ClipOptions()))
