"""A network that knows what the whole image looks like, and tiles that are told."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity import SMALL
from skimage.metrics import peak_signal_noise_ratio
from test_ast import small_model
from test_restorer import PHOTO, assert_alike, changing_model

from fairweather.errors import OptionError
from fairweather.models import AST, OPEN_GATE, PRESETS
from fairweather.models.ast import GlobalContext
from fairweather.restoration import Restorer


def test_a_global_context_is_the_mean_over_the_image_alone() -> None:
    generator = torch.Generator().manual_seed(4)
    context = GlobalContext(8).requires_grad_(False)
    x = torch.randn(2, 6, 8, 8, generator=generator)
    said = context.look(x, height=3, width=5)
    torch.testing.assert_close(said, context.look(x[:, :3, :5], height=3, width=5))
    halves = [context.look(part, height=3, width=4) for part in (x[:, :3, :4], x[:, :3, 4:])]
    torch.testing.assert_close(sum(halves) / 2, context.look(x, height=3, width=8))
    changed, gate = context(x, said)
    assert gate.shape == (2, 1, 1, 1)
    assert not torch.allclose(gate[0], gate[1])
    other = context(x, said + 1)[0] - changed
    torch.testing.assert_close(other, other[:, :1, :1].expand_as(other))
    assert (other.abs() > 1e-3).any()


def test_a_tile_is_told_of_the_whole() -> None:
    model = small_model(global_context=True)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
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


def unlike_halves() -> np.ndarray:
    """A photo whose left half does not tell of its right one."""
    photo = PHOTO.copy()
    photo[:, 150:] //= 4
    return photo


def judging_model() -> AST:
    """Whose gate is half open for that photo, and elsewhere for its halves."""
    network = changing_model(dataclasses.replace(PRESETS["ast_n"], global_context=True))
    context = network.context
    assert context is not None
    said = network.look(torch.from_numpy(unlike_halves() / np.float32(255)).permute(2, 0, 1)[None])
    with torch.no_grad():
        torch.nn.init.normal_(context.gate.weight, std=100.0)
        context.gate.bias.copy_(-context.gate.weight @ F.gelu(said)[0, 0, 0])
    return network


def test_tiles_are_judged_as_the_photograph_that_they_make_up() -> None:
    model, photo = judging_model(), unlike_halves()
    whole = Restorer(model, device="cpu", tile=None)(photo)
    restorer = Restorer(model, device="cpu", tile=128)
    assert_alike(restorer(photo), whole)
    restorer._look = lambda *_, **__: None  # each for itself
    assert peak_signal_noise_ratio(restorer(photo), whole) < 45


def test_where_memory_runs_out_the_photograph_is_looked_at_in_smaller_tiles() -> None:
    model, photo = judging_model(), unlike_halves()
    restorer = Restorer(model, device="cpu", tile=256)
    look, seen = restorer.engine.look, []

    def scarce(tile: np.ndarray) -> torch.Tensor:
        seen.append(tile.shape[1:3])
        if tile.shape[1] * tile.shape[2] > 128 * 128:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return look(tile)

    restorer.engine.look = scarce
    assert_alike(restorer(photo), Restorer(model, device="cpu", tile=None)(photo))
    assert seen[0] == (256, 256)
    assert len(seen) == 1 + 9
