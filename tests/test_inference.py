"""The ways of running a model: the official ones against the official code's numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from parity import known_ast_t, load, relative_error
from tiny_sets import scene, tiny_model

from fairweather.errors import FairweatherError, OptionError
from fairweather.evaluation import PROTOCOLS, inference
from fairweather.evaluation.inference import build_run
from fairweather.evaluation.protocols import INFERENCES
from fairweather.models import load_model, save_model
from fairweather.restoration import Restorer, restore_equal_tiles, restore_square_padded

IMAGE = scene(1, 40, 56).astype(np.float32) / 255


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that the fixtures were computed with, as a file."""
    path = tmp_path_factory.mktemp("weights") / "known.safetensors"
    save_model(known_ast_t(), path)
    return path


def check_pixels(weights: Path, way: str, theirs: np.ndarray) -> None:
    """Theirs are not clipped, and most of them lie far outside of [0, 1]."""
    image = (load("protocols")["square_pad.input"] / 255).astype(np.float32)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    with torch.no_grad():
        ours = inference.OFFICIAL[way](load_model(weights), batch)[0]
    assert relative_error(ours, theirs) < 3e-5
    restored = build_run(load_model(weights), inference=way, device="cpu")(image)
    np.testing.assert_array_equal(restored, ours.permute(1, 2, 0).clip(0, 1))


def test_square_padding_gives_the_official_pixels(official: Path) -> None:
    check_pixels(official, "square_pad_128", load("protocols")["square_pad.output"])


def test_equal_tiles_give_the_official_pixels(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fixture has smaller tiles, so that it is small; the way is the same."""

    def small(model: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
        return restore_equal_tiles(model, image, tile_px=128, overlap_px=32)

    monkeypatch.setitem(inference.OFFICIAL, "tiles_384_80", small)
    check_pixels(official, "tiles_384_80", load("protocols")["tiles_128_32.output"])


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("square_pad_128", lambda model, x: restore_square_padded(model, x, multiple=128)),
        (
            "tiles_384_80",
            lambda model, x: restore_equal_tiles(model, x, tile_px=384, overlap_px=80),
        ),
        (
            "tiles_1152_384",
            lambda model, x: restore_equal_tiles(model, x, tile_px=1152, overlap_px=384),
        ),
    ],
)
def test_sizes_are_those_of_the_official_scripts(way: str, expected) -> None:
    """On an image of several tiles, with a model that tells where its tile lies."""

    class Ramp(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (
                x * torch.linspace(0, 1, x.shape[-1]) * torch.linspace(0, 1, x.shape[-2])[:, None]
            )

    image = torch.rand(1, 3, 1160, 1300, generator=torch.Generator().manual_seed(0))
    found = inference.OFFICIAL[way](Ramp(), image)
    torch.testing.assert_close(found, expected(Ramp(), image))


def test_ours_and_whole_are_the_restorer() -> None:
    model = tiny_model(strength=0.3)
    for way, tile in (("ours", "auto"), ("whole", None)):
        restored = build_run(model, inference=way, device="cpu")(IMAGE)
        expected = Restorer(model, device="cpu", tile=tile).restore_pixels(IMAGE)
        np.testing.assert_array_equal(restored, expected)
        assert np.abs(restored - IMAGE).max() > 0.01


@pytest.mark.parametrize("way", INFERENCES)
def test_self_ensemble_is_the_mean_of_eight_views(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = IMAGE if way != "tiles_384_80" else np.tile(IMAGE, (3, 2, 1))[:112, :112]
    if way == "tiles_1152_384":  # an overlap of 384 px needs as large an image
        monkeypatch.setitem(
            inference.OFFICIAL,
            way,
            lambda model, x: restore_equal_tiles(model, x, tile_px=36, overlap_px=12),
        )
    model = tiny_model(strength=0.3)
    run = build_run(model, inference=way, device="cpu")
    views = [
        np.rot90(run(np.ascontiguousarray(np.rot90(image, turns)[:, ::flip]))[:, ::flip], -turns)
        for turns in range(4)
        for flip in (1, -1)
    ]
    restored = build_run(model, inference=way, device="cpu", ensemble=True)(image)
    np.testing.assert_allclose(restored, np.mean(views, 0), atol=1e-5)


def test_what_protocols_call_usual_is_a_way_of_ours() -> None:
    usual = {protocol.inference for protocol in PROTOCOLS.values()}
    assert usual == INFERENCES.keys() - {"whole", "tiles_256_200", "tiles_400_384"}


def test_wrong_calls_and_memory_that_runs_out() -> None:
    model = tiny_model()
    with pytest.raises(OptionError, match=r"inference 'fast': is none of ours, whole"):
        build_run(model, inference="fast")
    with pytest.raises(OptionError, match="abacus"):
        build_run(model, device="abacus", inference="square_pad_128")
    run = build_run(model, inference="square_pad_128", device="cpu")

    def exhausted(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    model.forward = exhausted  # type: ignore[method-assign]
    with pytest.raises(FairweatherError, match="40×56 px do not fit into memory"):
        run(IMAGE)

    def broken(*_: object) -> None:
        raise RuntimeError("shapes differ")

    model.forward = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(IMAGE)
