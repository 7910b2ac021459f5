import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage import data

from fairweather.imaging import Span, TilePlan, cut_tile, merge_tiles, plan_tiles
from fairweather.models import pad_to_multiple

LENGTHS = st.integers(1, 400)
MULTIPLES = st.sampled_from([4, 8, 32, 64, 128])


@st.composite
def plans(draw: st.DrawFn, *, lengths: st.SearchStrategy[int] = LENGTHS) -> tuple[TilePlan, int]:
    """A plan of any valid tile and overlap, and what its tiles are multiples of."""
    multiple = draw(MULTIPLES)
    overlap_px = draw(st.integers(0, 2 * multiple))
    least = max(1, 2 * -(-overlap_px // multiple)) * multiple
    tile_px = draw(st.none() | st.integers(least, least + 3 * multiple))
    size = (draw(lengths), draw(lengths))
    return plan_tiles(size, tile_px=tile_px, overlap_px=overlap_px, multiple=multiple), multiple


def padded(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def axes_of(plan: TilePlan) -> list[tuple[int, tuple[Span, ...]]]:
    return [(plan.height, plan.rows), (plan.width, plan.columns)]


@given(plans())
@settings(max_examples=200)
def test_spans_are_aligned_inside_and_alike(planned: tuple[TilePlan, int]) -> None:
    plan, multiple = planned
    assert len(plan) == len(plan.rows) * len(plan.columns)
    for length, spans in axes_of(plan):
        assert spans[0].start == 0
        assert spans[-1].stop == padded(length, multiple)
        for span in spans:
            assert span.start % multiple == span.stop % multiple == 0
            assert 0 <= span.start < span.stop <= padded(length, multiple)
            assert span.weights.shape == (span.stop - span.start,)
            assert span.weights.dtype == np.float32
            assert span.weights.min() >= 0
        assert len({span.stop - span.start for span in spans}) == 1
        assert all(one.start < other.start for one, other in itertools.pairwise(spans))


@given(plans())
@settings(max_examples=200)
def test_the_weights_of_an_axis_sum_to_one_at_each_pixel(planned: tuple[TilePlan, int]) -> None:
    plan, multiple = planned
    for length, spans in axes_of(plan):
        total = np.zeros(padded(length, multiple))
        for span in spans:
            total[span.start : span.stop] += span.weights
        np.testing.assert_allclose(total, 1, rtol=0, atol=1e-6)


@given(
    LENGTHS,
    MULTIPLES,
    st.integers(1, 2),
    st.integers(0, 3),
)
@settings(max_examples=200)
def test_a_tile_counts_nothing_at_its_inner_borders(
    length: int, multiple: int, overlaps: int, more: int
) -> None:
    overlap = overlaps * multiple
    tile = 2 * overlap + more * multiple
    plan = plan_tiles((length, 1), tile_px=tile, overlap_px=overlap, multiple=multiple)
    end = padded(length, multiple)
    for span in plan.rows:
        outer = overlap // 4  # its outputs see the zeros that convolutions pad with
        if span.start > 0:
            assert (span.weights[:outer] == 0).all()
        else:
            assert span.weights[0] == 1
        if span.stop < end:
            assert (span.weights[-outer:] == 0).all()
        else:
            assert span.weights[-1] == 1


@given(LENGTHS, MULTIPLES, st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=100)
def test_neighbours_overlap_at_least_by_what_was_asked_for(
    length: int, multiple: int, overlap_px: int, more_px: int
) -> None:
    least = max(multiple, 2 * padded(overlap_px, multiple))
    size = (length, 1)
    plan = plan_tiles(size, tile_px=least + more_px, overlap_px=overlap_px, multiple=multiple)
    pairs = list(itertools.pairwise(plan.rows))
    assert all(one.stop - other.start >= overlap_px for one, other in pairs)
    assert bool(pairs) == (length > (least + more_px) // multiple * multiple)


def test_a_known_plan() -> None:
    plan = plan_tiles((300, 64), tile_px=200, overlap_px=33, multiple=64)
    assert [(span.start, span.stop) for span in plan.rows] == [
        (0, 192),
        (128, 320),
    ]
    assert [(span.start, span.stop) for span in plan.columns] == [(0, 64)]
    assert len(plan) == 2
    first, second = plan.rows
    np.testing.assert_array_equal(first.weights[:144], 1)
    np.testing.assert_array_equal(first.weights[176:], 0)
    assert (np.diff(first.weights[144:177]) < 0).all()
    np.testing.assert_allclose(first.weights[128:] + second.weights[:64], 1, atol=1e-6)


def test_no_tile_size_is_one_tile() -> None:
    plan = plan_tiles((130, 65), tile_px=None, overlap_px=64, multiple=64)
    assert [(len(axis), axis[0].start, axis[0].stop) for axis in (plan.rows, plan.columns)] == [
        (1, 0, 192),
        (1, 0, 128),
    ]


@pytest.mark.parametrize(
    ("tile_px", "overlap_px", "numbers"),
    [(128, 65, ("128", "256", "64")), (191, 128, ("128", "256", "64")), (63, 0, ("0", "64"))],
)
def test_a_tile_without_a_core_is_refused(
    tile_px: int, overlap_px: int, numbers: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="a tile of ") as caught:
        plan_tiles((1000, 1000), tile_px=tile_px, overlap_px=overlap_px, multiple=64)
    words = str(caught.value).replace(";", " ").split()
    assert [number for number in numbers if number not in words] == []


def image_of(size: tuple[int, int], dtype: type) -> np.ndarray:
    rng = np.random.default_rng(size)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(0, np.iinfo(dtype).max, (*size, 3), dtype=dtype, endpoint=True)
    return rng.random((*size, 3), dtype=dtype)


@given(plans(lengths=st.integers(1, 200)))
@example((plan_tiles((1, 1), tile_px=None, overlap_px=64, multiple=64), 64))
@example((plan_tiles((64, 33), tile_px=None, overlap_px=64, multiple=64), 64))
@example((plan_tiles((32, 31), tile_px=None, overlap_px=64, multiple=64), 64))
@settings(max_examples=100)
def test_tiles_are_cut_from_what_the_network_would_pad(planned: tuple[TilePlan, int]) -> None:
    plan, multiple = planned
    image = image_of((plan.height, plan.width), np.uint8)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    whole = pad_to_multiple(batch, multiple)[0].permute(1, 2, 0).numpy()
    for row, column in itertools.product(plan.rows, plan.columns):
        tile = cut_tile(image, row, column)
        assert tile.dtype == np.uint8
        expected = whole[row.start : row.stop, column.start : column.stop]
        np.testing.assert_array_equal(tile, expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (40, 33), (33, 64), (32, 65), (100, 127)])
def test_padding_reflects_or_replicates(size: tuple[int, int]) -> None:
    image = image_of(size, np.uint16)
    expected = image
    for axis, length in enumerate(size):
        pads = [(0, 0)] * 3
        pads[axis] = (0, -length % 64)
        mode = "reflect" if -length % 64 < length else "edge"
        expected = np.pad(expected, pads, mode=mode)
    plan = plan_tiles(size, tile_px=None, overlap_px=64, multiple=64)
    np.testing.assert_array_equal(cut_tile(image, plan.rows[0], plan.columns[0]), expected)


def identity_tiles(image: np.ndarray) -> Callable[[Span, list[Span]], Iterator[np.ndarray]]:
    """What `merge_tiles` asks for, of a network that returns its input."""
    largest = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1

    def restored(row: Span, columns: list[Span]) -> Iterator[np.ndarray]:
        for column in columns:
            yield cut_tile(image, row, column).astype(np.float32) / np.float32(largest)

    return restored


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@given(planned=plans(lengths=st.integers(1, 200)))
@settings(max_examples=60)
def test_merging_what_was_cut_gives_the_image(planned: tuple[TilePlan, int], dtype: type) -> None:
    plan, _ = planned
    image = image_of((plan.height, plan.width), dtype)
    out = np.zeros_like(image)
    merge_tiles(plan, identity_tiles(image), out=out)
    np.testing.assert_array_equal(out, image)


@given(planned=plans(lengths=st.integers(1, 200)))
@settings(max_examples=60)
def test_merging_floats_gives_the_image_but_for_rounding(planned: tuple[TilePlan, int]) -> None:
    plan, _ = planned
    image = image_of((plan.height, plan.width), np.float32)
    out = np.full_like(image, np.nan)
    merge_tiles(plan, identity_tiles(image), out=out)
    np.testing.assert_allclose(out, image, rtol=0, atol=5e-7)
    alone = [np.zeros(padded(length, 128), bool) for length in (plan.height, plan.width)]
    for (_, spans), where in zip(axes_of(plan), alone, strict=True):
        for span in spans:
            where[span.start : span.stop] |= span.weights == 1
    exact = alone[0][: plan.height, None] & alone[1][: plan.width]
    np.testing.assert_array_equal(out[exact], image[exact])
    assert len(plan) > 1 or exact.all()


def test_a_photo_in_many_tiles_is_the_photo() -> None:
    image = data.astronaut()[:300, :260]
    plan = plan_tiles((300, 260), tile_px=128, overlap_px=64, multiple=64)
    assert len(plan) == 16
    out = np.zeros_like(image)
    merge_tiles(plan, identity_tiles(image), out=out)
    np.testing.assert_array_equal(out, image)


def test_tiles_are_weighted_and_not_pasted() -> None:
    """Tiles that disagree give a smooth ramp from one to the next, without a step."""
    plan = plan_tiles((64, 192), tile_px=128, overlap_px=64, multiple=64)

    def restored(row: Span, columns: list[Span]) -> Iterator[np.ndarray]:
        for number, _ in enumerate(columns):
            yield np.full((64, 128, 3), number, np.float32)

    out = np.zeros((64, 192, 3), np.float32)
    merge_tiles(plan, restored, out=out)
    np.testing.assert_array_equal(out, out[:1].repeat(64, 0))
    ramp = out[0, :, 0]
    np.testing.assert_array_equal(ramp[:80], 0)
    np.testing.assert_array_equal(ramp[112:], 1)
    assert np.diff(ramp[80:112]).min() > 0
    assert np.diff(ramp).max() < 0.06
    np.testing.assert_allclose(ramp[64:128], 1 - ramp[64:128][::-1], atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_are_rounded_and_clipped(dtype: type) -> None:
    top = np.iinfo(dtype).max
    plan = plan_tiles((1, 5), tile_px=None, overlap_px=8, multiple=8)
    values = np.zeros((8, 8, 1), np.float32)
    values[0, :5, 0] = [-0.5, 0.4 / top, 0.6 / top, 1.0, 7.0]
    out = np.full((1, 5, 1), 9, dtype)
    merge_tiles(plan, lambda row, columns: iter([values]), out=out)
    assert out.ravel().tolist() == [0, 0, 1, top, top]


def test_floats_are_clipped_and_not_rounded() -> None:
    plan = plan_tiles((1, 3), tile_px=None, overlap_px=8, multiple=8)
    values = np.zeros((8, 8, 1), np.float32)
    values[0, :3, 0] = [-0.5, 0.1234567, 1.5]
    out = np.full((1, 3, 1), 9, np.float32)
    merge_tiles(plan, lambda row, columns: iter([values]), out=out)
    assert out.ravel().tolist() == [0, np.float32(0.1234567), 1]


def test_only_one_band_of_tiles_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The floats in memory do not grow with the height of the image."""
    plan = plan_tiles((1024, 8), tile_px=32, overlap_px=8, multiple=8)
    image = image_of((1024, 8), np.uint8)
    rows: list[int] = []
    zeros = np.zeros

    def counted(shape: tuple[int, ...], dtype: type) -> np.ndarray:
        rows.append(shape[0])
        return zeros(shape, dtype)

    out = np.empty_like(image)
    monkeypatch.setattr(np, "zeros", counted)
    merge_tiles(plan, identity_tiles(image), out=out)
    assert max(rows) == 32
    np.testing.assert_array_equal(out, image)
