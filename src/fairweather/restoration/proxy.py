"""Degradations as large as the photograph, undone on a small version of it, the proxy.

A network sees the whole of a shadow or of haze on a proxy, and what it changes there is handed on
to the full size by local affine colour models: in each small window of the proxy, the restored
colours are an affine function of the colours that were there. Its coefficients hardly vary from
window to window, so they can be enlarged and applied at the full size, where every detail is kept
(Chen et al., "Bilateral Guided Upsampling", 2016; He et al., "Guided Image Filtering", PAMI 2013).

A network that is not sure changes a little everywhere. A photograph that is hardly changed is
therefore left as it was.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairweather.imaging import as_bytes, as_float, quantise, resized
from fairweather.restoration.decisions import Decisions
from fairweather.restoration.scales import Source
from fairweather.restoration.tiled import OnTile, TiledRun

RADIUS_PX = 2  # of the windows of a model, on the proxy
CONTRAST_RADIUS_PX = 8  # of the windows that say how contrast changes where a small one is flat
FLAT = 1e-4  # variance of the colours below which a small window is flat
BLANK = 1e-6  # the same for a larger one: that of rounding to 8 bits
DARKEST = 0.02  # is added to both before they are compared: a factor of nearly black is noise
LEAST_CHANGE = 0.15  # root mean square of the log factors up to which nothing of a change counts
DOUBT = 0.05  # as much above that all of it counts
FAST_PIXELS = 1_000_000  # of the small version of a preview
ROWS = 64  # of the photograph at a time


def run_on_proxy(
    run: TiledRun,
    pixels: np.ndarray,
    *,
    strength: float = 1.0,
    grey: bool = False,
    on_tile: OnTile | None = None,
    decisions: Decisions | None = None,
) -> np.ndarray:
    """Restore a small version of a photograph, and change the photograph as that was changed.

    Args:
        run: of a network with `proxy_px`.
        pixels: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1].
        strength: 0 returns the pixels, 1 the restored ones.
        grey: whether the channels are equal, and shall stay so.
        on_tile: called with (tiles done, tiles in all).
        decisions: of another photograph, which hold for this one.

    Returns:
        The same size and type.
    """
    proxy_px = run.engine.config.proxy_px
    assert proxy_px is not None
    proxy = as_float(make_proxy(pixels, longest_px=proxy_px))
    restored, out = np.empty_like(proxy), np.empty_like(pixels)
    context = decisions.contexts[0] if decisions and decisions.contexts else None
    way: dict[str, Any] = {"strength": strength, "grey": grey}
    run.restore(Source(proxy), out=restored, context=context, on_tile=on_tile, **way)
    config = run.engine.config
    way |= {"radius_px": config.proxy_radius_px, "least_change": config.proxy_least_change}
    way["share"] = decisions and decisions.certainty
    apply_from_proxy(pixels, proxy=proxy, restored=restored, out=out, **way)
    return out


def decide_on_proxy(run: TiledRun, pixels: np.ndarray) -> Decisions:
    """Return what is decided for the whole of a photograph on its small version.

    Args:
        run: of a network with `proxy_px`.
        pixels: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1].
    """
    proxy_px = run.engine.config.proxy_px
    assert proxy_px is not None
    proxy = as_float(make_proxy(pixels, longest_px=proxy_px))
    restored = np.empty_like(proxy)
    context = run.look(Source(proxy), always=True)
    run.restore(Source(proxy), out=restored, context=context)
    contexts = () if context is None else (context,)
    least = run.engine.config.proxy_least_change
    return Decisions(0, contexts, certainty(proxy, restored=restored, least_change=least))


def run_fast(
    restore: Callable[[np.ndarray], tuple[np.ndarray, int]], pixels: np.ndarray, *, grey: bool
) -> tuple[np.ndarray, int]:
    """Restore `FAST_PIXELS` of a photograph, and hand on what that changes.

    Args:
        restore: (h, w, 3) uint8 → the same, restored, and how many levels it took.
        pixels: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1], more than that.
        grey: whether the channels are equal, and shall stay so.

    Returns:
        The same size and type, and how many levels the small version took.
    """
    small = make_preview(pixels)
    restored, levels = restore(small)
    out = np.empty_like(pixels)
    hand_on_residual(pixels, change=as_float(restored) - as_float(small), out=out, grey=grey)
    return out, levels


def make_preview(pixels: np.ndarray) -> np.ndarray:
    """Scale a photograph down to `FAST_PIXELS`, unless it has no more: (h, w, 3) uint8."""
    height, width = pixels.shape[:2]
    scale = min(1.0, (FAST_PIXELS / (height * width)) ** 0.5)
    return make_proxy(pixels, longest_px=round(max(height, width) * scale))


def make_proxy(pixels: np.ndarray, *, longest_px: int) -> np.ndarray:
    """Scale a photograph down, unless it is small enough.

    Args:
        pixels: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1].
        longest_px: largest length of its longer side after that.

    Returns:
        (h, w, 3) uint8.
    """
    height, width = pixels.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    return resized(as_bytes(pixels), (round(height * scale), round(width * scale)))


def apply_from_proxy(
    pixels: np.ndarray,
    *,
    proxy: np.ndarray,
    restored: np.ndarray,
    out: np.ndarray,
    strength: float = 1.0,
    grey: bool = False,
    share: float | None = None,
    radius_px: int | None = None,
    least_change: float | None = None,
) -> None:
    """Change a photograph as its proxy was changed, if that is certain.

    Args:
        pixels: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1].
        proxy: (h, w, 3) float32 in [0, 1].
        restored: the same, restored.
        out: (H, W, 3) to write to, of the same type.
        strength: with which it was restored, in [0, 1]; less changes less, and is as certain.
        grey: whether the channels are equal, and shall stay so.
        share: how much of the change counts; by default as much as is certain.
        radius_px: as for `hand_on_colours`.
        least_change: as for `certainty`.
    """
    if share is None:
        share = certainty(proxy, restored=restored, least_change=least_change, strength=strength)
    if share == 0:
        out[:] = pixels
        return
    change = (restored - proxy) * np.float32(share)
    hand_on_colours(pixels, proxy=proxy, change=change, out=out, grey=grey, radius_px=radius_px)


def hand_on_colours(
    pixels: np.ndarray,
    *,
    proxy: np.ndarray,
    change: np.ndarray,
    out: np.ndarray,
    grey: bool = False,
    radius_px: int | None = None,
) -> None:
    """Change a photograph as its proxy was changed, colour by colour: for what has no detail.

    Args:
        pixels: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1].
        proxy: (h, w, 3) float32 in [0, 1].
        change: (h, w, 3) float32, what the proxy lacks.
        out: (H, W, 3) to write to, of the same type.
        grey: whether the channels are equal, and shall stay so.
        radius_px: of the windows of the models; None is `RADIUS_PX`, but hands on the very change
            of a proxy that is as large as the photograph.
    """
    height, width = pixels.shape[:2]
    if radius_px is None and proxy.shape[:2] == (height, width):
        hand_on_residual(pixels, change=change, out=out, grey=grey)
        return
    least, most = (torch.from_numpy(ends) for ends in (change.min((0, 1)), change.max((0, 1))))
    models = enlarge_columns(fit_models(proxy, change, radius_px or RADIUS_PX), width)
    for start in range(0, height, ROWS):
        stop = min(start + ROWS, height)
        matrix, offset = enlarge_rows(models, start, stop, length=height).split((9, 3), -1)
        colours = torch.from_numpy(as_float(pixels[start:stop]))
        for channel in range(3):
            offset += colours[..., channel : channel + 1] * matrix[..., 3 * channel :][..., :3]
        changed = colours + offset.clamp(least, most)  # no edge changes more than the proxy did
        write_rows(changed, out=out[start:stop], grey=grey)


def hand_on_residual(
    pixels: np.ndarray, *, change: np.ndarray, out: np.ndarray, grey: bool = False
) -> None:
    """Add to a photograph what its proxy lacks, enlarged: for what has detail of its own.

    Args:
        pixels: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1].
        change: (h, w, 3) float32, what the proxy lacks.
        out: (H, W, 3) to write to, of the same type.
        grey: whether the channels are equal, and shall stay so.
    """
    height, width = pixels.shape[:2]
    wide = enlarge_columns(torch.from_numpy(change), width)
    for start in range(0, height, ROWS):
        stop = min(start + ROWS, height)
        added = enlarge_rows(wide, start, stop, length=height)
        colours = torch.from_numpy(as_float(pixels[start:stop]))
        write_rows(colours + added, out=out[start:stop], grey=grey)


def write_rows(changed: Tensor, *, out: np.ndarray, grey: bool) -> None:
    """Write (h, w, 3) into an array of any type."""
    quantise((changed.mean(-1, keepdim=True) if grey else changed).numpy(), out=out)


def certainty(
    proxy: np.ndarray,
    *,
    restored: np.ndarray,
    least_change: float | None,
    strength: float = 1.0,
) -> float:
    """Return how much of a change counts, in [0, 1]: none of it where a proxy hardly changed.

    Args:
        proxy: (h, w, 3) float32 in [0, 1].
        restored: the same, restored.
        least_change: up to which nothing counts; None is `LEAST_CHANGE`.
        strength: with which it was restored, in [0, 1].
    """
    if strength == 0:
        return 0.0
    factors = np.log((restored + DARKEST) / (proxy + DARKEST)) / strength
    changed = float(np.sqrt(np.square(factors).mean()))
    least = LEAST_CHANGE if least_change is None else least_change
    return min(1.0, max(0.0, (changed - least) / DOUBT))


def fit_models(proxy: np.ndarray, change: np.ndarray, radius: int) -> Tensor:
    """Fit an affine colour model of a change in the window around each pixel, by ridge regression.

    In a window without detail nothing tells how detail changes. There the model multiplies each
    channel as the change does in a larger window.

    Args:
        proxy: (h, w, 3).
        change: (h, w, 3).
        radius: of the windows [px].

    Returns:
        (h, w, 12): a 3 × 3 matrix, input channel by output channel, and an offset.
    """
    colours, wanted = as_planes(proxy), as_planes(change)
    contrast = diagonal_gain(colours, wanted, max(radius, CONTRAST_RADIUS_PX))
    mean, wanted_mean = window_mean(colours, radius), window_mean(wanted, radius)
    flat = FLAT * torch.eye(3, dtype=torch.float64)
    spread = covariance(colours, colours, radius) + flat
    shared = covariance(colours, wanted, radius) + FLAT * torch.diag_embed(contrast)
    matrix = torch.linalg.solve(spread, shared)
    offset = last(wanted_mean) - (last(mean)[..., None, :] @ matrix)[..., 0, :]
    models = torch.cat((matrix.flatten(-2), offset), -1).permute(2, 0, 1)[None]
    return last(window_mean(models, radius)).float()


def diagonal_gain(colours: Tensor, wanted: Tensor, radius: int) -> Tensor:
    """Return the slope of the change over the colours, channel by channel: (h, w, 3)."""
    mean, wanted_mean = window_mean(colours, radius), window_mean(wanted, radius)
    shared = window_mean(colours * wanted, radius) - mean * wanted_mean
    return last(shared / (window_mean(colours.square(), radius) - mean.square() + BLANK))


def covariance(first: Tensor, second: Tensor, radius: int) -> Tensor:
    """Return the covariances of the channels in small windows: (h, w, 3, 3)."""
    products = (first[:, :, None] * second[:, None]).flatten(1, 2)
    means = window_mean(first, radius)[:, :, None] * window_mean(second, radius)[:, None]
    return last(window_mean(products, radius) - means.flatten(1, 2)).unflatten(-1, (3, 3))


def as_planes(image: np.ndarray) -> Tensor:
    """(H, W, C) → (1, C, H, W), in float64: covariances are differences of nearly equal numbers."""
    return torch.from_numpy(image).permute(2, 0, 1)[None].double()


def last(planes: Tensor) -> Tensor:
    """(1, C, H, W) → (H, W, C)."""
    return planes[0].permute(1, 2, 0)


def window_mean(planes: Tensor, radius: int) -> Tensor:
    """Return the mean around each pixel of (1, C, H, W), whose border is repeated outwards."""
    rows = F.pad(planes, (0, 0, radius, radius), mode="replicate")
    rows = F.avg_pool2d(rows, (2 * radius + 1, 1), stride=1)
    both = F.pad(rows, (radius, radius, 0, 0), mode="replicate")
    return F.avg_pool2d(both, (1, 2 * radius + 1), stride=1)


def enlarge_columns(maps: Tensor, length: int) -> Tensor:
    """Scale the second axis up to a length, as `enlarge_rows` does the first."""
    return enlarge_rows(maps.transpose(0, 1), 0, length, length=length).transpose(0, 1)


def enlarge_rows(maps: Tensor, start: int, stop: int, *, length: int) -> Tensor:
    """Scale the first axis of (h, …) up to a length, and return a part of it, (stop − start, …).

    Values are interpolated linearly between the middles of the rows.
    """
    before = maps.shape[0]
    place = (torch.arange(start, stop) + 0.5) * (before / length) - 0.5
    place = place.clamp(0, before - 1)
    first = place.long()
    share = (place - first).view(-1, *[1] * (maps.ndim - 1)).to(maps)
    second = (first + 1).clamp(max=before - 1)
    return torch.lerp(maps[first], maps[second], share.expand(-1, *maps.shape[1:]))
