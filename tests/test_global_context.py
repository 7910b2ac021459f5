"""A network that knows what the whole image looks like."""

import dataclasses
import math

import pytest
import torch
from parity import SMALL
from test_ast import small_model

from fairweather.errors import OptionError
from fairweather.models import AST, OPEN_GATE
from fairweather.models.global_context import GlobalContext


def test_a_global_context_is_one_for_the_whole_image() -> None:
    generator = torch.Generator().manual_seed(4)
    context = GlobalContext(8).requires_grad_(False)
    x = torch.randn(2, 6, 8, 8, generator=generator)
    said = context.places(x).mean((1, 2), keepdim=True)
    changed, gate = context(x, said)
    assert gate.shape == (2, 1, 1, 1)
    assert not torch.allclose(gate[0], gate[1])
    other = context(x, said + 1)[0] - changed
    torch.testing.assert_close(other, other[:, :1, :1].expand_as(other))
    assert (other.abs() > 1e-3).any()


def test_a_tile_is_told_of_the_whole() -> None:
    model = small_model(global_context=True)
    scale = 2**model.config.levels
    image = torch.rand(1, 3, 41, 29, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        places = model.look_around(image)
        assert places.shape[1:3] == (math.ceil(41 / scale), math.ceil(29 / scale))  # no padding
        assert torch.equal(model.look(image), places.mean((1, 2), keepdim=True))
        assert torch.equal(model(image, model.look(image)), model(image))
        told = model(image, model.look(image.flip(1) / 2))
        assert not torch.allclose(told, model(image), atol=1e-4)
    with pytest.raises(OptionError, match="no global context"):
        small_model().look(image)


def test_a_new_global_context_changes_little() -> None:
    torch.manual_seed(0)
    model = AST(dataclasses.replace(SMALL, global_context=True)).eval()
    plain = AST(SMALL).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    image = torch.rand(1, 3, 41, 29)
    with torch.no_grad():
        residual, whole = model(image) - image, plain(image) - image
    torch.testing.assert_close(residual, whole / (1 + math.exp(-OPEN_GATE)))
