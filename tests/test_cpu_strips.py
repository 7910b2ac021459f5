"""The CPU's way through a block beside the plain one."""

from typing import Any

import pytest
import torch
from parity import random_model

from fairweather.models import (
    AST,
    ASTConfig,
    create_model,
    multiplies_in_bf16,
    multiply_in_bf16,
    plain_kernels,
)
from fairweather.models.ast import sides_to_compute
from fairweather.models.fast import cpu_strips as strips

SMALL = ASTConfig(embed_dim=8, depths=(1, 2, 2), heads=(1, 2, 4), window=4, mlp_ratio=1.5)
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"branches": "dense", "encoder_attention": True},
    {"branches": "sparse", "bottleneck_shift": True},
    {"window": 8, "mlp_ratio": 4, "global_context": True},
    {"fold": 2},
    # Deep, so that there is more padding than the decoder has to compute.
    {"depths": (1, 1, 1, 1, 3, 2, 2), "heads": (1,) * 7},
    {"depths": (1, 1, 1, 1, 3, 2, 2), "heads": (1,) * 7, "window": 3},
)

pytestmark = pytest.mark.skipif(not strips.HAS_ONEDNN, reason="NOT TESTED: no oneDNN here")


def a_model(**changes: Any) -> AST:
    return random_model(SMALL, std=0.2, **changes)


def error_of(model: torch.nn.Module, x: torch.Tensor) -> float:
    """Largest difference to the plain path, beside the largest value."""
    with torch.no_grad():
        output = model(x)
        with plain_kernels():
            expected = model(x)
    assert output.shape == expected.shape
    return ((output - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("size", [(1, 1), (37, 53), (64, 200)])
def test_it_gives_what_the_plain_path_gives(
    changes: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips, "WINDOWS_IN_STRIP", 5)  # strips end in the middle of a row
    monkeypatch.setattr(strips, "TILE_BYTES", 9_000)
    monkeypatch.setattr(strips, "TILE_TOKENS", 30)
    monkeypatch.setattr(strips, "BAND_BYTES", 3_000)
    bands = []
    refine = strips.refine_band
    monkeypatch.setattr(
        strips, "refine_band", lambda *args, **side: bands.append(1) or refine(*args, **side)
    )
    assert error_of(a_model(**changes), torch.rand(2, 3, *size)) < 1e-5
    assert bands


@pytest.mark.parametrize("height", [1, 7, 768])
@pytest.mark.parametrize("width", [1, 64, 257, 1280])
@pytest.mark.parametrize("channels", [5, 64, 128, 1024])
def test_tiles_cover_an_image_and_keep_to_their_size(
    height: int, width: int, channels: int
) -> None:
    rows, columns = strips.tile_sides(height, width, channels)
    assert 1 <= rows <= height
    assert 1 <= columns <= width
    assert rows * columns <= max(strips.TILE_TOKENS, strips.TILE_BYTES // (4 * channels))


def test_the_decoder_leaves_out_padding_that_nothing_depends_on() -> None:
    decoder = create_model("ast_t").decoder
    x = torch.zeros(1, 1, 1, 1)
    with torch.inference_mode():
        sides: Any = sides_to_compute(x, decoder, height=720, width=1278)
    # Up to the next window, and beyond where blocks and the last convolution reach.
    assert sides[-1] == (728, 1288)
    assert all(above <= 2 * below for above, below in zip(sides[-1], sides[-2], strict=True))
    assert sides_to_compute(x, decoder, height=720, width=1278) == [(None, None)] * 4


def test_wide_images_waste_little_on_the_rims_of_tiles() -> None:
    rows, columns = strips.tile_sides(768, 1280, 128)  # the last decoder stage at 1280×720
    assert (rows + 2) * (columns + 2) < 1.1 * rows * columns


@pytest.mark.parametrize("change", ["in place", "state dict", "data"])
def test_changed_weights_are_seen(change: str) -> None:
    model, image = a_model(), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        before = model(image)
        changed = {name: tensor * 1.5 for name, tensor in model.state_dict().items()}
        if change == "state dict":
            model.load_state_dict(changed)
        for name, parameter in model.named_parameters():
            if change == "in place":
                parameter.copy_(changed[name])
            elif change == "data":
                parameter.data = changed[name]
        assert not torch.allclose(model(image), before)
    assert error_of(model, image) < 1e-5


@pytest.mark.parametrize("size", [(8, 8), (37, 53)])
@pytest.mark.parametrize("changes", [{}, {"global_context": True}])
def test_the_image_is_not_changed(changes: dict[str, Any], size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    before = image.clone()
    with torch.no_grad():
        a_model(**changes)(image)
    assert torch.equal(image, before)


def test_gradients_autocast_and_training_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("the strips were used")

    monkeypatch.setattr(strips, "refine_band", refuse)
    model, image = a_model(), torch.rand(1, 3, 16, 16)
    model(image)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            model(image)
        model.train()(image)
        model.eval().double()(image.double())
        a_model(feed_forward="mlp")(image)
        with pytest.raises(AssertionError, match="strips were used"):
            a_model()(image)


@pytest.mark.skipif(not multiplies_in_bf16(), reason="NOT TESTED: no bf16 on this processor")
def test_bf16_goes_through_strips_and_stays_close(monkeypatch: pytest.MonkeyPatch) -> None:
    bands = []
    refine = strips.refine_band
    monkeypatch.setattr(
        strips, "refine_band", lambda *args, **side: bands.append(1) or refine(*args, **side)
    )
    model, x = a_model(bottleneck_shift=True), torch.rand(1, 3, 64, 72)
    low = multiply_in_bf16(model)
    with torch.no_grad():
        exact = model(x) - x
        bands.clear()
        with torch.autocast("cpu", torch.bfloat16):
            residual = low(x) - x
            with plain_kernels():
                plain = low(x) - x
    assert bands
    error, plain_error = ((one - exact).norm() / exact.norm() for one in (residual, plain))
    assert 0 < error < 1.2 * plain_error
    assert model.bottleneck[0].feed_forward.expand.weight.dtype == torch.float32  # a copy
