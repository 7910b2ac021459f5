"""What is as large as the photograph is undone on a small version, and handed on."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from skimage.metrics import peak_signal_noise_ratio

from fairweather import Restorer
from fairweather.errors import OptionError
from fairweather.imaging import as_float
from fairweather.models import ASTConfig, create_model
from fairweather.restoration.proxy import (
    DARKEST,
    DOUBT,
    LEAST_CHANGE,
    apply_from_proxy,
    enlarge_rows,
    make_proxy,
)

PHOTO = skimage.data.astronaut()[:300, :450]
PROXY_PX = 96


def shaded(photo: np.ndarray) -> np.ndarray:
    """With a sharp shadow over a part."""
    result = photo.copy()
    result[60:220, 100:380] //= 2
    return result


def handed_on(
    pixels: np.ndarray, restored: np.ndarray, *, proxy: np.ndarray, radius_px: int | None = None
) -> np.ndarray:
    out = np.empty_like(pixels)
    apply_from_proxy(pixels, proxy=proxy, restored=restored, out=out, radius_px=radius_px)
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_what_was_not_changed_stays_to_the_bit(dtype: Any) -> None:
    pixels = PHOTO.astype(dtype)
    pixels = pixels * 257 if dtype is np.uint16 else pixels
    pixels = pixels / np.float32(255) if dtype is np.float32 else pixels
    small = as_float(make_proxy(pixels, longest_px=PROXY_PX))
    assert small.shape == (64, 96, 3)
    result = handed_on(pixels, small, proxy=small)
    if dtype is np.float32:
        np.testing.assert_allclose(result, pixels, atol=1e-7)
    else:
        np.testing.assert_array_equal(result, pixels)


@pytest.mark.parametrize("radius_px", [None, 1, 16])
def test_an_affine_change_of_the_colours_is_the_same_everywhere(radius_px: int | None) -> None:
    photo = PHOTO // 2
    small = as_float(make_proxy(photo, longest_px=PROXY_PX))
    matrix = np.array([[1.5, 0.1, 0.0], [0.0, 1.4, 0.2], [0.1, 0.0, 1.6]], np.float32)
    changed = small @ matrix + np.float32(0.03)
    result = handed_on(photo, changed, proxy=small, radius_px=radius_px)
    expected = 255 * (as_float(photo) @ matrix + 0.03)
    difference = np.abs(result - expected.clip(0, 255))
    assert difference.mean() < 0.3
    assert np.quantile(difference, 0.999) < 1.6


def test_wide_windows_even_out_what_a_network_paints_into_a_smooth_picture() -> None:
    picture = np.linspace(0.3, 0.6, 96 * 64 * 3, dtype=np.float32).reshape(64, 96, 3)
    pattern = np.tile([[1.3, 1.3, 1.4, 1.4]], (64, 24)).astype(np.float32)[..., None]
    results = [
        handed_on(picture, picture * pattern, proxy=picture, radius_px=radius_px)
        for radius_px in (None, 8)
    ]
    across = [np.abs(np.diff(result / picture, axis=1)).mean() for result in results]
    assert across[1] < across[0] / 10
    assert results[1].mean() == pytest.approx(results[0].mean(), rel=0.01)


def test_a_photograph_that_hardly_changes_is_left_alone_to_the_bit() -> None:
    small = as_float(make_proxy(PHOTO // 2, longest_px=PROXY_PX))
    patch = small.copy()
    patch[20:30, 40:50] *= np.float32(1.3)
    np.testing.assert_array_equal(handed_on(PHOTO // 2, patch, proxy=small), PHOTO // 2)


def test_between_slight_and_certain_a_part_of_the_change_is_made() -> None:
    small = as_float(make_proxy(PHOTO // 2, longest_px=PROXY_PX))
    middle = np.float32(LEAST_CHANGE + DOUBT / 2)
    brighter = (small + DARKEST) * np.exp(middle) - DARKEST
    expected = (as_float(PHOTO // 2) + DARKEST) * (1 + np.exp(middle)) / 2 - DARKEST
    result = handed_on(PHOTO // 2, brighter, proxy=small)
    np.testing.assert_allclose(result, 255 * expected, atol=0.6)


def test_a_sharp_shadow_goes_and_every_detail_stays() -> None:
    degraded = shaded(PHOTO)
    small, wanted = (as_float(make_proxy(one, longest_px=PROXY_PX)) for one in (degraded, PHOTO))
    result = handed_on(degraded, wanted, proxy=small)
    enlarged = np.rint(255 * enlarged_by_torch(wanted, PHOTO.shape[:2])).astype(np.uint8)
    before, after, blurred = (
        peak_signal_noise_ratio(PHOTO, one) for one in (degraded, result, enlarged)
    )
    assert before < 16
    assert blurred < 28
    assert after > 30


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_preview_changes_a_large_photograph_as_its_small_version(dtype: Any) -> None:
    large = np.kron(PHOTO, np.ones((4, 4, 1), np.uint8)).astype(dtype)  # 2.2 megapixels
    large = large * 257 if dtype is np.uint16 else large
    large = large / np.float32(255) if dtype is np.float32 else large
    model = create_model(ASTConfig(embed_dim=8, depths=(1, 1, 1), heads=(1, 1, 1), window=4))
    with torch.no_grad():
        model.output_conv.weight.zero_()
        assert model.output_conv.bias is not None
        model.output_conv.bias.fill_(-0.1)  # 0.1 darker everywhere
    preview = Restorer(model, device="cpu", fast=True, levels=0)
    result = preview.restore_pixels(large)
    assert result.dtype == dtype
    expected = (as_float(large) - 0.1).clip(0)
    assert np.abs(as_float(result) - expected).mean() < 0.003


def test_a_small_photograph_has_no_preview() -> None:
    model = create_model("ast_n", init="official")
    preview, full = (Restorer(model, device="cpu", fast=fast) for fast in (True, False))
    np.testing.assert_array_equal(preview(PHOTO), full(PHOTO))


def enlarged_by_torch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    planes = torch.from_numpy(image).permute(2, 0, 1)[None]
    return F.interpolate(planes, size=size, mode="bilinear")[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("before", "after"), [(5, 17), (64, 64), (1, 7), (2, 3), (9, 10)])
def test_interpolation_is_that_of_torch_in_any_parts(before: int, after: int) -> None:
    line = torch.from_numpy(np.random.default_rng(0).random((before, 4), dtype=np.float32))
    middle = after // 2
    parts = [enlarge_rows(line, *part, length=after) for part in ((0, middle), (middle, after))]
    expected = F.interpolate(line.T[None], size=after, mode="linear")[0].T
    torch.testing.assert_close(torch.cat(parts), expected, atol=1e-6, rtol=0)


class Seen:
    """An engine that brightens and keeps the shapes it was given."""

    def __init__(self, restorer: Restorer):
        self.device, self.config = restorer.engine.device, restorer.engine.config
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, tiles: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
        self.shapes.append(tiles.shape)
        return (tiles + DARKEST) * np.float32(1.5) - DARKEST

    def at_once(self) -> int:
        return 1

    def free_bytes(self) -> int:
        return 1 << 30

    def release(self) -> None:
        pass


def a_restorer(least_change: float | None = None, **options: Any) -> tuple[Restorer, Seen]:
    config = dataclasses.replace(
        create_model("ast_n").config, proxy_px=PROXY_PX, proxy_least_change=least_change
    )
    restorer = Restorer(create_model(config), device="cpu", **options)
    seen = Seen(restorer)
    restorer.engine = seen  # type: ignore[assignment]
    return restorer, seen


def test_the_network_sees_the_proxy_and_the_photograph_changes() -> None:
    restorer, seen = a_restorer()
    steps: list[tuple[int, int]] = []
    result = restorer.restore_pixels(PHOTO, on_tile=lambda done, total: steps.append((done, total)))
    assert seen.shapes == [(1, 64, 96, 3)]
    assert steps == [(1, 1)]
    expected = 255 * ((as_float(PHOTO) + DARKEST) * 1.5 - DARKEST)
    # Where the proxy is clipped there is no factor to be had.
    dark = PHOTO.max(-1) < 128
    assert np.median(np.abs(result - expected)[dark]) < 1
    assert result.dtype == np.uint8


def test_a_fifth_of_the_strength_is_a_fifth_of_the_change_and_as_certain() -> None:
    results = [
        a_restorer(strength=strength)[0].restore_pixels(PHOTO // 3).astype(float)
        for strength in (0.0, 0.2, 1.0)
    ]
    np.testing.assert_array_equal(results[0], PHOTO // 3)
    np.testing.assert_allclose(results[1], 0.8 * results[0] + 0.2 * results[2], atol=1)


def test_a_grey_photograph_stays_grey() -> None:
    grey = np.repeat(PHOTO[..., :1], 3, axis=2)
    result = a_restorer()[0].restore_pixels(grey, grey=True)
    assert np.ptp(result, axis=-1).max() == 0


def test_a_photograph_as_small_as_a_proxy_is_restored_itself() -> None:
    restorer, seen = a_restorer()
    small = PHOTO[:64, :96] // 2
    result = restorer.restore_pixels(small)
    expected = 255 * ((as_float(small) + DARKEST) * 1.5 - DARKEST)
    np.testing.assert_allclose(result, expected, atol=0.51)
    assert seen.shapes == [(1, 64, 96, 3)]


def test_a_row_of_pixels() -> None:
    restorer, seen = a_restorer()
    line = PHOTO[:1]
    assert restorer.restore_pixels(line).shape == line.shape
    assert seen.shapes == [(1, 1, 96, 3)]


def test_a_proxy_too_small_to_see_anything_is_refused() -> None:
    with pytest.raises(OptionError, match="proxy_px 8: must be at least 16"):
        ASTConfig(proxy_px=8)


@pytest.mark.parametrize(
    ("longest_px", "radius_px"), [(None, 3), (64, 0), (64, 17), (64, -1), (64, 2.5), (64, True)]
)
def test_windows_that_do_not_lie_on_the_proxy_are_refused(longest_px: Any, radius_px: Any) -> None:
    with pytest.raises(OptionError, match="proxy_radius_px"):
        ASTConfig(proxy_px=longest_px, proxy_radius_px=radius_px)


@pytest.mark.parametrize(
    ("longest_px", "least_change"), [(None, 0.3), (64, 0.0), (64, -0.1), (64, np.nan), (64, np.inf)]
)
def test_a_least_change_that_is_none_is_refused(longest_px: Any, least_change: float) -> None:
    with pytest.raises(OptionError, match="proxy_least_change"):
        ASTConfig(proxy_px=longest_px, proxy_least_change=least_change)


@pytest.mark.parametrize(("least_change", "made"), [(None, True), (0.3, True), (0.42, False)])
def test_weights_say_which_change_is_certain(least_change: float | None, *, made: bool) -> None:
    restorer, _ = a_restorer(least_change)  # multiplies by 1.5, whose logarithm is 0.405
    assert (restorer.restore_pixels(PHOTO // 3) != PHOTO // 3).any() == made
