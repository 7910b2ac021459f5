import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_sets import scene

from fairweather.evaluation.report.histogram import count_gains, draw_histogram, write_png
from fairweather.evaluation.report.pictures import (
    error_map,
    fitted,
    jpeg_uri,
    strip,
    telling_crops,
)


def test_an_error_map_rises_from_black_to_white() -> None:
    clean = np.zeros((1, 6, 3), np.float32)
    restored = np.zeros_like(clean)
    restored[0, :, :] = np.array([0, 0.0625, 0.125, 0.1875, 0.25, 0.9])[:, None]
    shown = error_map(restored, clean)
    assert shown.dtype == np.uint8
    assert shown[0, 0].tolist() == [0, 0, 0]
    assert shown[0, 2].tolist() == [217, 26, 51]
    assert shown[0, 4].tolist() == shown[0, 5].tolist() == [255, 255, 255]
    brightness = shown.astype(int).sum(-1)[0]
    assert (np.diff(brightness[:5]) > 0).all()
    one_channel = clean.copy()
    one_channel[..., 1] = 0.75
    assert error_map(one_channel, clean).tolist() == [[[255, 255, 255]] * 6]


def test_crops_are_where_most_was_gained_and_lost() -> None:
    """Against looking at every square."""
    random = np.random.default_rng(0)
    clean, degraded, restored = random.random((3, 20, 26, 3)).astype(np.float32)
    helped, hurt = telling_crops(degraded, restored, clean, side_px=8)
    gain = np.square(degraded - clean).mean(-1) - np.square(restored - clean).mean(-1)
    squares = {
        (top, left): gain[top : top + 8, left : left + 8].mean()
        for top in range(13)
        for left in range(19)
    }
    for crop, pick in ((helped, max), (hurt, min)):
        expected = pick(squares, key=squares.__getitem__)
        assert (crop.top, crop.left) == expected
        assert crop.gain == pytest.approx(squares[expected])
        assert crop.cut(clean).shape == (8, 8, 3)
    whole, _ = telling_crops(degraded, restored, clean, side_px=96)
    assert (whole.top, whole.left, whole.side_px) == (0, 0, 20)


def test_a_strip_is_white_between() -> None:
    a, b = np.zeros((4, 4, 3), np.float32), np.full((4, 4, 3), 7, np.uint8)
    both = strip([a, b], gap_px=2)
    assert both.shape == (4, 10, 3)
    assert both[0, :, 0].tolist() == [0] * 4 + [255] * 2 + [7] * 4


def test_data_uris_hold_the_picture() -> None:
    pixels = scene(1, 100, 200)
    picture = fitted(pixels, side_px=50)
    assert picture.size == (50, 25)
    assert fitted(pixels, side_px=500).size == (200, 100)
    kind, _, content = jpeg_uri(fitted(pixels, side_px=500)).partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert np.abs(np.asarray(image).astype(int) - pixels).mean() < 4


@pytest.mark.parametrize(
    ("gains", "edges", "counts"),
    [
        ([0.3], [0.3, 0.35], [1]),
        ([-0.04, -0.03, 0.0, 0.06], [-0.05, 0, 0.05, 0.1], [2, 1, 1]),
        ([-3.1, 6.0, 6.4], [-4, -2, 0, 2, 4, 6, 8], [1, 0, 0, 0, 0, 2]),
        ([0.0, 45.0], [0, 10, 20, 30, 40, 50], [1, 0, 0, 0, 1]),
        ([0.0] * 99 + [1.85], np.arange(0, 1.95, 0.1), [99, *[0] * 17, 1]),
    ],
)
def test_a_histogram_has_round_steps_and_an_edge_at_0(gains, edges, counts) -> None:
    counted, found = count_gains(gains)
    assert found == pytest.approx(edges)
    assert counted == counts


def test_a_histogram_is_drawn_twice(tmp_path: Path) -> None:
    gains = [-1.2, 0.4, 0.5, 2.0]
    drawing, (counts, edges) = draw_histogram(gains), count_gains(gains)
    assert [bar.good for bar in drawing.bars] == [edge >= 0 for edge in edges[:-1]]
    heights = [bar.height for bar in drawing.bars]
    assert max(heights) == heights[counts.index(max(counts))]
    assert [bool(height) for height in heights] == [bool(count) for count in counts]
    shown = [word.text for word in drawing.words]
    assert shown == [
        *(str(count) for count in counts if count),
        *(f"{edge:g}" for edge in edges),
        "gain over the input [dB]",
    ]
    assert all(0 <= word.x <= drawing.width and word.y <= drawing.height for word in drawing.words)
    write_png(tmp_path / "a.png", gains, title="Rain100L: rain")
    with Image.open(tmp_path / "a.png") as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(100_000) or []}
    assert {(0x1A, 0x8F, 0x4C), (0xC8, 0x37, 0x2D), (255, 255, 255)} <= colours
