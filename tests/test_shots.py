"""What is decided for a shot and eased, and what flickers less for it."""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from parity import random_model
from skimage import data

from fairweather import Restorer
from fairweather.errors import OptionError
from fairweather.imaging import Frame
from fairweather.restoration import Decisions, Settled, restore_frames

PHOTOS = (data.astronaut(), data.coffee())
PHOTO = np.ascontiguousarray(data.astronaut()[:96, 200:328])
OTHER = np.ascontiguousarray(data.coffee()[:96, 200:328])


def framed(pictures: list[np.ndarray]) -> list[Frame]:
    return [Frame(index, 1, pixels) for index, pixels in enumerate(pictures)]


class Brightens:
    """Adds as much to each frame as the frame that decided is bright."""

    def __init__(self) -> None:
        self.settled = 0

    def settle(self, pixels: np.ndarray) -> Settled:
        self.settled += 1
        return Settled(self.restore, Decisions(certainty=float(pixels.mean())))

    def restore(
        self, images: Sequence[np.ndarray], decisions: Decisions, *, grey: bool
    ) -> list[np.ndarray]:
        assert decisions.certainty is not None
        return [np.full_like(pixels, round(decisions.certainty)) for pixels in images]

    def at_once(self) -> int:
        return 1

    def together(self) -> int:
        return 3

    def describe(self) -> str:
        return ""


def test_decisions_are_renewed_and_eased() -> None:
    """A scene that darkens slowly, without a cut."""
    pictures = [np.full((8, 8, 3), 200 - index, np.uint8) for index in range(60)]
    restorer = Brightens()
    rate = 3.0  # so that decisions are renewed after 30 frames and eased over 3
    got = [int(f.pixels[0, 0, 0]) for f in restore_frames(restorer, framed(pictures), rate=rate)]
    assert got[:30] == [200] * 30
    assert got[30:33] == [190, 180, 170]
    assert got[33:] == [170] * 27
    assert restorer.settled == 2
    whole = restore_frames(restorer, framed(pictures), rate=rate, skip=31)
    assert [int(f.pixels[0, 0, 0]) for f in whole] == got[31:]


def test_frames_are_read_and_used_while_others_are_restored() -> None:
    places: set[int] = set()

    class Noted(Brightens):
        def restore(
            self, images: Sequence[np.ndarray], decisions: Decisions, *, grey: bool
        ) -> list[np.ndarray]:
            places.add(threading.get_ident())
            return super().restore(images, decisions, grey=grey)

    pictures = [np.full((8, 8, 3), index, np.uint8) for index in range(9)]
    assert len(list(restore_frames(Noted(), framed(pictures)))) == 9
    assert len(places) == 1
    assert threading.get_ident() not in places


def test_decisions_of_another_kind_fade_into_each_other() -> None:
    dark, bright = (
        Settled(lambda images, decisions, *, grey, to=to: [np.full_like(images[0], to)], decided)
        for to, decided in ((100, Decisions(1)), (200, Decisions(0)))
    )
    (between,) = dark.eased(bright, 0.25)([PHOTO], grey=False)
    assert between[0, 0, 0] == 125
    (between,) = dark.eased(Settled(), 0.5)([np.zeros((4, 4, 3), np.uint16)], grey=False)
    assert between[0, 0, 0] == 50


@pytest.mark.parametrize("proxy_px", [None, 64])
def test_a_settled_image_is_restored_as_by_itself(proxy_px: int | None) -> None:
    model = random_model(global_context=True, proxy_px=proxy_px)
    restorer = Restorer(model, device="cpu", levels=0 if proxy_px else 1)
    first, other = (np.ascontiguousarray(photo[:400, :512]) for photo in PHOTOS)
    settled = restorer.settle(first)
    assert len(settled.decisions.contexts) == (1 if proxy_px else 2)
    assert (settled.decisions.certainty is None) == (proxy_px is None)
    results = settled([first, other])
    alone = [restorer.restore_pixels(pixels) for pixels in (first, other)]
    assert np.abs(results[0].astype(int) - alone[0]).max() <= 1
    # Another frame is restored as the first one was, not as by itself.
    assert (results[1] != alone[1]).any()


@pytest.mark.parametrize("global_context", [False, True])
def test_frames_go_through_the_network_together(global_context: bool) -> None:
    model = random_model(global_context=global_context)
    one_by_one, together = (
        Restorer(model, device="cpu", levels=0, batch=batch, strength=0.5) for batch in (1, 3)
    )
    assert (one_by_one.together(), together.together()) == (1, 3)
    pictures = [np.roll(PHOTO, 2 * step, axis=1) for step in range(7)]
    frames = framed(pictures)
    expected = [frame.pixels for frame in restore_frames(one_by_one, frames)]
    results = [frame.pixels for frame in restore_frames(together, frames)]
    assert np.abs(np.stack(results).astype(int) - np.stack(expected)).max() <= 1


def test_a_streak_in_one_frame_goes_where_nothing_moves() -> None:
    still = [PHOTO.copy() for _ in range(5)]
    still[2][:, 60:62] = 255
    before, out = still[1], list(restore_frames(Keeps(), framed(still), calm=True))
    assert np.abs(out[2].pixels.astype(int) - before).max() <= 2
    assert [frame.time for frame in out] == list(range(5))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_moves_is_not_blurred(dtype: type) -> None:
    scale = np.iinfo(dtype).max // 255
    big = data.astronaut()
    moving = [
        np.ascontiguousarray(big[:96, 5 * step : 5 * step + 128]).astype(dtype) * scale
        for step in range(6)
    ]
    out = list(restore_frames(Keeps(), framed(moving), calm=True))
    for frame, pixels in zip(out, moving, strict=True):
        error = (frame.pixels.astype(float) - pixels) / scale
        assert np.sqrt(np.square(error).mean()) < 2.5
        assert frame.pixels.dtype == dtype


def test_a_cut_is_not_blended() -> None:
    frames = framed([PHOTO, PHOTO, OTHER, OTHER])
    for frame, pixels in zip(
        restore_frames(Keeps(), frames, calm=True), [PHOTO, PHOTO, OTHER, OTHER], strict=True
    ):
        np.testing.assert_array_equal(frame.pixels, pixels)


def test_calm_frames_are_the_same_after_a_stop() -> None:
    generator = np.random.default_rng(0)
    noisy = [
        np.clip(PHOTO + generator.normal(0, 8, PHOTO.shape), 0, 255).astype(np.uint8)
        for _ in range(9)
    ]
    whole = [frame.pixels for frame in restore_frames(Keeps(), framed(noisy), calm=True)]
    rest = [frame.pixels for frame in restore_frames(Keeps(), framed(noisy), calm=True, skip=4)]
    np.testing.assert_array_equal(np.stack(whole[4:]), np.stack(rest))
    variances = [np.var(np.stack(frames).astype(float), axis=0).mean() for frames in (noisy, whole)]
    assert variances[1] < 0.9 * variances[0]


class Keeps(Brightens):
    """Leaves frames as they are."""

    def restore(
        self, images: Sequence[np.ndarray], decisions: Decisions, *, grey: bool
    ) -> list[np.ndarray]:
        return list(images)


def test_a_cut_begins_a_shot() -> None:
    restorer = Keeps()
    assert len(list(restore_frames(restorer, framed([PHOTO, PHOTO, OTHER, PHOTO])))) == 4
    assert restorer.settled == 3


def test_frames_of_mixed_depth_are_calmed_alike() -> None:
    deep = PHOTO.astype(np.uint16) * 257
    for pictures in ([PHOTO, deep, PHOTO], [deep, PHOTO, deep]):
        (_, middle, _) = restore_frames(Keeps(), framed(pictures), calm=True)
        np.testing.assert_array_equal(middle.pixels, pictures[1])


def test_few_frames_are_held() -> None:
    alive = 0

    class Counted(Frame):
        def __post_init__(self) -> None:
            nonlocal alive
            alive += 1

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def frames() -> Iterator[Frame]:
        for index in range(100):
            yield Counted(index, 1, np.zeros((4, 4, 3), np.uint8))

    held = [alive for _ in restore_frames(Keeps(), frames(), calm=True)]
    assert len(held) == 100
    assert max(held) < 20


def test_what_cannot_be_changed_is_refused() -> None:
    restorer = Restorer(random_model(), device="cpu")
    other = restorer.with_options(strength=0.5, levels=1)
    assert (restorer.strength, other.strength, other.engine) == (1.0, 0.5, restorer.engine)
    with pytest.raises(OptionError, match="strength 2"):
        restorer.with_options(strength=2)
    with pytest.raises(OptionError, match="tile: is chosen when a Restorer is made"):
        restorer.with_options(tile=256)
