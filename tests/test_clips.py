"""Clips: nothing of them is lost, and what cannot be restored ends in one clear error."""

import shutil
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import random_model
from tiny_clips import frames_of, make_clip, packets_of
from typer.testing import CliRunner

from fairweather import Restorer, cli
from fairweather.errors import FileTakenError, ImageError, MissingExtraError, OptionError
from fairweather.imaging import (
    ClipOptions,
    Frame,
    read_clip_facts,
    read_frames,
    video,
)
from fairweather.restoration import Settled, restore_frames

pytest.importorskip("av", reason="NOT TESTED: clips, because PyAV is not installed")

NOTHING_ASKED = ClipOptions()
HLG = (9, 18, 9, 1)


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    """A small network that changes pixels a little."""
    return Restorer(random_model(), device="cpu", levels=0, strength=0.1)


def read(path: Path, options: ClipOptions = NOTHING_ASKED) -> tuple[Any, list[Frame]]:
    facts = read_clip_facts(path, options)
    return facts, list(read_frames(path, facts, options))


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    most = np.iinfo(one.dtype).max
    return 10 * np.log10(most**2 / np.square(one.astype(float) - other).mean())


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("source", "target", "codec"),
    [("a.mp4", "b.mp4", None), ("a.mkv", "b.mkv", "h265"), ("a.mkv", "b.mkv", "ffv1")],
)
def test_nothing_is_lost(
    restorer: Restorer, tmp_path: Path, source: str, target: str, codec: str | None
) -> None:
    before, after = tmp_path / source, tmp_path / target
    make_clip(before, subtitles=True, frames=60)
    seen: list[tuple[int, int]] = []
    restored = restorer.restore_file(
        before,
        after,
        clip=ClipOptions(codec=codec),
        on_tile=lambda done, total: seen.append((done, total)),
    )
    assert left_in(tmp_path) == {source, target}
    assert restored.frames == 60
    assert seen[-1] == (60, 60) or seen[-1][0] == 60
    (facts, frames), (told, results) = read(before), read(after)
    assert [frame.time * facts.time_base for frame in frames] == [
        frame.time * told.time_base for frame in results
    ]
    for kind in ("audio", "subtitle"):
        given = packets_of(before, kind)
        assert len(given) > 1
        assert given == packets_of(after, kind)
    expected = [restorer.restore_pixels(frame.pixels) for frame in frames]
    worst = min(psnr_db(one, frame.pixels) for one, frame in zip(expected, results, strict=True))
    assert worst > {None: 40, "h265": 38, "ffv1": 45}[codec]  # noise of 128 × 96 px is hard
    assert psnr_db(expected[5], frames[5].pixels) < 42  # it was restored
    import av

    with av.open(str(after)) as clip:
        assert clip.metadata["title"] == "A walk in the rain"


def test_flags_of_phones_are_kept(restorer: Restorer, tmp_path: Path) -> None:
    before, after = tmp_path / "hlg.mp4", tmp_path / "out.mp4"
    make_clip(
        before,
        codec="libx265",
        pixel_format="yuv420p10le",
        rotation=90,
        colour=HLG,
        start=4000,
        frames=20,
    )
    restorer.restore_file(before, after)
    (facts, frames), (told, results) = read(before), read(after)
    assert (told.depth, told.colour, told.matrix) == (10, HLG, facts.matrix)
    assert facts.matrix is not None
    assert [frame.time for frame in results] == [frame.time for frame in frames]
    assert frames[0].time > 0
    assert results[0].pixels.dtype == np.uint16
    assert psnr_db(restorer.restore_pixels(frames[3].pixels), results[3].pixels) > 42


def test_what_hdr10_says_is_kept(restorer: Restorer, tmp_path: Path) -> None:
    before, after = tmp_path / "hdr.mkv", tmp_path / "out.mkv"
    said = (
        "hdr10=1:master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)"
        "L(10000000,50):max-cll=1000,400"
    )
    make_clip(
        before,
        codec="libx265",
        pixel_format="yuv420p10le",
        colour=(9, 16, 9, 1),
        frames=6,
        options={"x265-params": f"log-level=none:{said}"},
    )
    restorer.restore_file(before, after)
    told = read_clip_facts(after, NOTHING_ASKED)
    assert told.mastering == read_clip_facts(before, NOTHING_ASKED).mastering == said


@pytest.mark.parametrize(
    ("name", "how", "frames"),
    [
        ("odd.mkv", {"codec": "ffv1", "size": (81, 133), "sound": False}, 20),
        ("one.mp4", {"sound": False}, 1),
        ("even.avi", {"codec": "mpeg4", "varies": False, "unit": Fraction(1, 25)}, 30),
        ("wide.mov", {"size": (64, 200)}, 10),
    ],
)
def test_clips_of_all_kinds(
    restorer: Restorer, tmp_path: Path, name: str, how: dict[str, Any], frames: int
) -> None:
    times = make_clip(tmp_path / name, frames=frames, **how)
    result = CliRunner().invoke(cli.app, ["restore", str(tmp_path), "--strength", "0"])
    assert result.exit_code == 0, result.output
    suffix = name[name.index(".") :].replace(".avi", ".mkv")
    (after,) = (tmp_path.parent / f"{tmp_path.name}-restored").iterdir()
    assert after.name == name[: name.index(".")] + suffix
    facts, results = read(after)
    assert (facts.height, facts.width) == how.get("size", (96, 128))
    assert len(results) == frames
    unit = max(facts.time_base, video.import_av().time_base * 1000)  # Matroska counts in ms
    for frame, expected in zip(results, times, strict=True):
        assert abs(frame.time * facts.time_base - expected) <= (
            0 if suffix in (".mp4", ".mov") else unit
        )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("sound.mp4", "sound", "no moving picture"),
        ("cut.mkv", "cut", "cut off|cannot be decoded"),
        ("index.mp4", "cut", "no clip that can be read"),
        ("noise.mp4", "noise", "no clip that can be read"),
        ("empty.mkv", "empty", "no clip that can be read"),
    ],
)
def test_what_cannot_be_restored(
    restorer: Restorer, tmp_path: Path, name: str, content: str, said: str
) -> None:
    path = tmp_path / name
    if content == "sound":
        import av

        with av.open(str(path), "w") as made:
            voice: Any = made.add_stream("aac", rate=44_100, layout="stereo")
            heard: Any = av.AudioFrame.from_ndarray(
                np.zeros((1, 2048), np.int16), format="s16", layout="stereo"
            )
            heard.sample_rate = 44_100
            made.mux(voice.encode(heard))
            made.mux(voice.encode(None))
    elif content == "cut":
        make_clip(path, frames=60)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"" if content == "empty" else np.random.default_rng(0).bytes(5000))
    kept = path.read_bytes()
    with pytest.raises(ImageError, match=said) as caught:
        restorer.restore_file(path, tmp_path / "out.mkv")
    assert name in str(caught.value)
    assert left_in(tmp_path) == {name}
    assert path.read_bytes() == kept


def test_damage_in_the_middle_is_named(restorer: Restorer, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mkv"
    make_clip(path, frames=60, sound=False, codec="ffv1")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"damaged\.mkv"):
        restorer.restore_file(path, tmp_path / "out.mkv")
    assert left_in(tmp_path) == {"damaged.mkv"}


def test_half_frames_are_refused_or_made_whole(restorer: Restorer, tmp_path: Path) -> None:
    path = tmp_path / "tv.mp4"
    make_clip(path, frames=12, options={"flags": "+ilme+ildct", "x264-params": "tff=1"})
    with pytest.raises(ImageError, match="--interlaced deinterlace"):
        restorer.restore_file(path, tmp_path / "out.mp4")
    restorer.restore_file(path, tmp_path / "out.mp4", clip=ClipOptions(interlaced="deinterlace"))
    assert len(frames_of(tmp_path / "out.mp4")) == 12


def test_a_container_that_does_not_fit(restorer: Restorer, tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", frames=2)
    for target, options, said in (
        ("b.mp4", ClipOptions(codec="ffv1"), "choose another --codec"),
        ("b.png", ClipOptions(), "a clip is written as"),
    ):
        with pytest.raises(ImageError, match=said):
            restorer.restore_file(tmp_path / "a.mp4", tmp_path / target, clip=options)
    (tmp_path / "b.mp4").touch()
    with pytest.raises(FileTakenError, match="exists already"):
        restorer.restore_file(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert left_in(tmp_path) == {"a.mp4", "b.mp4"}


def test_what_a_container_cannot_hold_is_named(restorer: Restorer, tmp_path: Path) -> None:
    import av

    make_clip(tmp_path / "plain.mkv", frames=6, size=(32, 48), subtitles=True)
    before = tmp_path / "a.mkv"
    with av.open(str(tmp_path / "plain.mkv")) as given, av.open(str(before), "w") as made:
        copies = [made.add_stream_from_template(one, opaque=True) for one in given.streams]
        made.add_attachment("font.ttf", "font/ttf", b"letters")
        for packet in given.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                made.mux(packet)
    restored = restorer.restore_file(before, tmp_path / "b.mp4")
    assert restored.notes == (
        "a stream of srt subtitle is left out: .mp4 cannot hold it",
        "a stream of attachment is left out: .mp4 cannot hold it",
    )
    assert packets_of(tmp_path / "b.mp4", "audio")
    assert restorer.restore_file(before, tmp_path / "b.mkv").notes == ()
    with av.open(str(tmp_path / "b.mkv")) as clip:
        (kept,) = (one for one in clip.streams if one.type == "attachment")
        assert kept.data == b"letters"


def test_a_rate_factor_without_loss_makes_no_sense() -> None:
    with pytest.raises(OptionError, match="ffv1 loses nothing"):
        ClipOptions(codec="ffv1", crf=10)
    with pytest.raises(OptionError, match="from 0 to 51"):
        ClipOptions(crf=60)


def test_without_pyav_the_extra_is_named(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").touch()
    with pytest.raises(MissingExtraError, match=r"pip install 'fairweather\[video\]'"):
        restorer.restore_file(tmp_path / "a.mp4", tmp_path / "b.mp4")


def test_a_shot_is_judged_once(
    restorer: Restorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clip(tmp_path / "a.mp4", frames=30, cut_at=18)
    judged: list[np.ndarray] = []

    def settle(self: Restorer, pixels: np.ndarray) -> Any:
        judged.append(pixels)
        return Settled()

    monkeypatch.setattr(Restorer, "settle", settle)
    _, frames = read(tmp_path / "a.mp4")
    assert len(list(restore_frames(restorer, frames))) == 30
    assert len(judged) == 2
    np.testing.assert_array_equal(judged[1], frames[18].pixels)
    judged.clear()
    assert len(list(restore_frames(restorer, frames, skip=20))) == 10
    (first,) = judged
    np.testing.assert_array_equal(first, frames[18].pixels)  # of the shot, not of what is left


def test_a_folder_of_photographs_and_clips(tmp_path: Path) -> None:
    from tiny_clips import scene

    folder = tmp_path / "shots"
    folder.mkdir()
    make_clip(folder / "a.mp4", frames=3)
    from PIL import Image

    Image.fromarray(scene(0, (64, 64))).save(folder / "b.png")
    result = CliRunner().invoke(cli.app, ["restore", str(folder), "--json", "--compare"])
    assert result.exit_code == 0, result.output
    made = left_in(tmp_path / "shots-restored")
    assert made == {"a.mp4", "b.png", "b.png.compare.jpg"}
    again = CliRunner().invoke(cli.app, ["restore", str(folder), "--skip-existing"])
    assert "2 skipped" in again.output


@pytest.mark.slow
def test_a_restored_clip_plays_in_chromium(restorer: Restorer, tmp_path: Path) -> None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    chromium = next((found for name in names if (found := shutil.which(name))), None)
    if chromium is None:
        pytest.skip(f"NOT TESTED: no Chromium, none of {', '.join(names)} is on the PATH")
    api = pytest.importorskip("playwright.sync_api", reason="NOT TESTED: no playwright")
    make_clip(tmp_path / "a.mp4", frames=60, size=(120, 160))
    restorer.restore_file(tmp_path / "a.mp4", tmp_path / "b.mp4")
    page = tmp_path / "page.html"
    page.write_text('<video id="clip" src="b.mp4" muted autoplay></video>')
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        tab = browser.new_page()
        tab.goto(page.as_uri())
        tab.wait_for_function("clip.currentTime > 0.5", timeout=20_000)
        size, fault = tab.evaluate("[[clip.videoHeight, clip.videoWidth], clip.error]")
        browser.close()
    assert size == [120, 160]
    assert fault is None
