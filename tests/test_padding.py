"""Padding for any size in one graph beside padding for a known one."""

import pytest
import torch

from fairweather.errors import OptionError
from fairweather.models import pad_to_multiple
from fairweather.models.padding import gather_padded


@pytest.mark.parametrize("height", [1, 2, 8, 9, 15, 16, 17, 33])
@pytest.mark.parametrize("width", [1, 7, 16, 40])
def test_both_ways_of_padding_are_equal(height: int, width: int) -> None:
    image = torch.rand(2, 3, height, width)
    assert torch.equal(gather_padded(image, 16), pad_to_multiple(image, 16))


def test_an_exported_graph_pads_images_that_need_reflection_and_replication() -> None:
    class Pad(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return pad_to_multiple(image, 16)

    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    example = (torch.rand(1, 3, 21, 35),)
    program = torch.export.export(Pad(), example, dynamic_shapes=(dynamic,), strict=False)
    for size in ((21, 35), (5, 40), (32, 64), (33, 6)):
        image = torch.rand(1, 3, *size)
        assert torch.equal(program.module()(image), pad_to_multiple(image, 16))


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(OptionError, match="0×5"):
        pad_to_multiple(torch.zeros(1, 3, 0, 5), 16)
