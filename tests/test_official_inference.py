"""The official ways of evaluating, against the official code's numbers."""

import pytest
import torch
from parity import known_ast_t, load, relative_error
from torch import Tensor

from fairweather.errors import OptionError
from fairweather.restoration import restore_equal_tiles, restore_square_padded, square_side
from fairweather.restoration.official_inference import equal_starts


@pytest.fixture
def image() -> Tensor:
    return torch.from_numpy(load("protocols")["square_pad.input"]).permute(2, 0, 1)[None] / 255


def test_square_padding_is_the_official_one(image: Tensor) -> None:
    with torch.no_grad():
        restored = restore_square_padded(known_ast_t(), image)
    assert relative_error(restored[0], load("protocols")["square_pad.output"]) < 3e-5


def test_the_side_of_the_square() -> None:
    assert square_side(720, 1280, multiple=128) == 1280
    assert square_side(128, 5, multiple=128) == 128
    assert square_side(129, 1, multiple=128) == 256


def test_equal_tiles_are_the_official_ones(image: Tensor) -> None:
    with torch.no_grad():
        restored = restore_equal_tiles(known_ast_t(), image, tile_px=128, overlap_px=32)
    assert relative_error(restored[0], load("protocols")["tiles_128_32.output"]) < 3e-5
    starts = [
        [top, left]
        for top in equal_starts(150, tile_px=128, overlap_px=32)
        for left in equal_starts(210, tile_px=128, overlap_px=32)
    ]
    assert starts == load("protocols")["tiles_128_32.starts"].tolist()


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 5), (7, 7), (1, 30)])
def test_a_model_that_returns_its_input_gives_back_the_image(height: int, width: int) -> None:
    image = torch.rand(2, 3, height, width)
    identity = torch.nn.Identity()
    assert torch.equal(restore_square_padded(identity, image, multiple=4), image)
    tiled = restore_equal_tiles(identity, image, tile_px=4, overlap_px=0)
    torch.testing.assert_close(tiled, image)


def test_overlap_as_large_as_the_tile_is_refused(image: Tensor) -> None:
    with pytest.raises(OptionError, match="overlap 128"):
        restore_equal_tiles(torch.nn.Identity(), image, tile_px=128, overlap_px=128)
