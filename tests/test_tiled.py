"""Tiles are told what the network must know of the photograph that they make up."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio
from test_restorer import PHOTO, ScarceMemory, assert_alike, changing_model

from fairweather.data import degrade_pixels
from fairweather.errors import CheckpointError
from fairweather.models import AST, PRESETS, Symmetries, look_margin_px
from fairweather.restoration import Restorer, create_engine
from fairweather.restoration.scales import Source
from fairweather.restoration.tiled import look_at


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
    restorer.engine = JudgesForItself(restorer.engine)
    assert peak_signal_noise_ratio(restorer(photo), whole) < 45


class JudgesForItself:
    """An engine that is told, and does not listen."""

    def __init__(self, engine: Any):
        self.engine, self.config = engine, engine.config
        self.look, self.at_once = engine.look, engine.at_once

    def __call__(self, tiles: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
        return self.engine(tiles)


@pytest.mark.parametrize("tile_px", [64, 128, 192])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"encoder_attention": True},
        {"depths": (2, 1, 1, 1, 1, 1, 1), "feed_forward": "leff"},
        {"fold": 2},
    ],
)
def test_the_context_does_not_depend_on_the_tiles(changes: dict[str, Any], tile_px: int) -> None:
    config = dataclasses.replace(PRESETS["ast_n"], global_context=True, **changes)
    engine = create_engine("torch", changing_model(config), device="cpu")
    image = PHOTO[:291, :200] / np.float32(255)
    expected = engine.look(image[None]).mean((1, 2), keepdims=True)
    margin_px = look_margin_px(config)
    tile_px = max(tile_px, 2 * margin_px // 64 * 64 + 64)
    found = look_at(Source(image), engine, tile_px=tile_px, margin_px=margin_px)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


def test_what_lies_within_the_margin_matters() -> None:
    config = dataclasses.replace(PRESETS["ast_n"], global_context=True)
    engine = create_engine("torch", changing_model(config), device="cpu")
    image = PHOTO / np.float32(255)
    expected = engine.look(image[None]).mean((1, 2), keepdims=True)
    found = look_at(Source(image), engine, tile_px=128, margin_px=0)
    assert np.abs(found - expected).max() > 1e-4


def test_where_memory_runs_out_the_photograph_is_looked_at_in_smaller_tiles() -> None:
    model, photo = judging_model(), unlike_halves()
    restorer = Restorer(model, device="cpu", tile=128)
    engine = ScarceMemory(restorer.engine, most_px=128 * 128)
    restorer.engine = engine
    assert_alike(restorer(photo), Restorer(model, device="cpu", tile=None)(photo))
    assert engine.refused == [(1, 256, 256)]  # twice the tile, as looking takes less
    assert {shape[1:] for shape in engine.accepted} == {(128, 128)}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rain", "moire"])
def test_tiles_of_bundled_weights_give_the_pixels_of_the_whole(name: str) -> None:
    """In small; `benchmarks/tiles.py` measures all weights and engines on a large photograph."""
    clean = np.ascontiguousarray(np.kron(data.coffee()[:300, :450], np.ones((2, 2, 1), np.uint8)))
    degraded = degrade_pixels(clean, task=name, seed=0) / np.float32(255)
    whole = Restorer(name, device="cpu", tile=None)(degraded)
    tiled = Restorer(name, device="cpu", tile=256)(degraded)
    assert peak_signal_noise_ratio(tiled, whole, data_range=1) > 55


@pytest.mark.parametrize(
    ("symmetries", "views"),
    [
        ("flips", [(0, 1), (0, -1), (2, 1), (2, -1)]),
        ("horizontal_flip", [(0, 1), (0, -1)]),
        ("none", [(0, 1)]),
    ],
)
def test_self_ensemble_takes_the_views_that_the_training_showed(
    symmetries: Symmetries, views: list[tuple[int, int]], tmp_path: Path
) -> None:
    model = changing_model(dataclasses.replace(PRESETS["ast_n"], symmetries=symmetries))
    photo = np.ascontiguousarray(PHOTO[:64, :128])
    image = photo / np.float32(255)
    engine = create_engine("torch", model, device="cpu")
    plain = Restorer(model, device="cpu", tile=None)(image)
    seen = [
        np.rot90(engine(np.rot90(image, turns)[None, :, ::flip])[0, :, ::flip], -turns)
        for turns, flip in views
    ]
    restorer = Restorer(model, device="cpu", tile=None, self_ensemble=True)
    restored = restorer(image)
    np.testing.assert_allclose(restored, np.mean(seen, 0).clip(0, 1), atol=1e-5)
    assert (np.abs(restored - plain).max() > 1e-4) == (symmetries != "none")
    Image.fromarray(photo).save(tmp_path / "a.png")
    (note,) = restorer.restore_file(tmp_path / "a.png", tmp_path / "b.png").notes
    assert note.startswith("--self-ensemble" if len(views) == 1 else f"{len(views)} views")


def test_a_result_that_is_not_finite_is_never_written(tmp_path: Path) -> None:
    model = changing_model(PRESETS["ast_n"])
    Image.fromarray(PHOTO[:64, :64]).save(tmp_path / "a.png")
    model.output_conv.bias.data[1] = float("nan")
    restorer = Restorer(model, device="cpu")
    with pytest.raises(CheckpointError, match="is not finite"):
        restorer.restore_file(tmp_path / "a.png", tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()
    with pytest.raises(CheckpointError, match="is not finite"):
        restorer(PHOTO)


@pytest.mark.parametrize("changes", [{}, {"global_context": True}])
def test_tiles_in_threads_give_the_same_pixels(
    threads: Callable[[int], None], changes: dict[str, Any]
) -> None:
    network = changing_model(dataclasses.replace(PRESETS["ast_n"], **changes))
    threads(1)
    restore = Restorer(network, device="cpu", tile=128, batch=2)
    alone = restore(PHOTO)
    done: list[tuple[int, int]] = []
    threads(3)
    together = restore.restore_pixels(PHOTO, on_tile=lambda *count: done.append(count))
    np.testing.assert_array_equal(together, alone)
    assert [count for count, _ in done] == sorted(count for count, _ in done)
    assert done[-1][0] == done[-1][1]


def test_threads_run_out_of_memory_together() -> None:
    model = changing_model(PRESETS["ast_n"])
    whole = Restorer(model, device="cpu", tile=None)(PHOTO)
    restore = Restorer(model, device="cpu", tile=256, batch=1)
    restore.engine = engine = ScarceMemory(restore.engine, most_px=128 * 128, threads=2)
    assert_alike(restore(PHOTO), whole)
    assert {shape[1:] for shape in engine.accepted} == {(128, 128)}
