"""The Restorer: read → tiles → engine → merge → write, for files and for images in memory."""

import dataclasses
import functools
import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from fairweather.errors import FairweatherError, OptionError
from fairweather.hardware import is_out_of_memory
from fairweather.imaging import (
    Photo,
    Span,
    as_float,
    cut_tile,
    merge_tiles,
    plan_tiles,
)
from fairweather.models import AST, find_weights, load_model
from fairweather.restoration.engine_choice import create_engine
from fairweather.restoration.engines import TorchEngine, activation_bytes_per_px
from fairweather.restoration.files import FileRestorer, OnTile, Outcome, Restored
from fairweather.restoration.in_memory import from_memory
from fairweather.restoration.proxy import apply_from_proxy, make_proxy

log = logging.getLogger(__name__)

MOST_TILE_PX = {"cpu": 512}  # larger tiles gain nothing on a CPU and take longer to show progress
MOST_LOOKS = 16  # tiles; more of a large photograph say no more of it as a whole
Context = torch.Tensor | None
TilePx = int | Literal["auto"] | None


class Restorer(FileRestorer):
    """Restores photographs with one set of weights, whatever their size.

    Calling it restores an image in memory, `restore_file` a file. The image stays in host memory as
    it is; tiles go through the network and are merged so that no seam shows.
    """

    def __init__(
        self,
        weights: str | Path | AST = "rain",
        *,
        device: str = "auto",
        engine: str = "auto",
        precision: str = "fp32",
        tile: TilePx = "auto",
        overlap_px: int | None = None,
        batch: int | None = None,
        memory_budget_bytes: int | None = None,
        self_ensemble: bool = False,
        strength: float = 1.0,
    ):
        """Loads the weights and moves them to the device.

        Args:
            weights: a bundled name, a `.safetensors`, an official `.pth`, a folder with one, or a
                model, which is moved to the device and put into evaluation mode.
            device: `auto`, `cpu`, `cuda`, `mps`, `xpu`.
            engine: what runs the network, a name from `list_engines`; `auto` is the one that was
                measured fastest on the device.
            precision: `fp32`, `bf16` or `fp16`.
            tile: side of a tile [px], `auto` from the memory budget, None for one tile.
            overlap_px: how far tiles overlap; by default a window of the coarsest stage.
            batch: tiles that go through the network together; by default 1 on a CPU, else 4.
            memory_budget_bytes: what a batch of tiles may take; by default a share of the device's.
            self_ensemble: average over the eight flips and quarter turns: 8 times slower, better.
            strength: 0 returns the input, 1 the restored image, between them a blend.

        Raises:
            CheckpointError: if the weights cannot be loaded.
            OptionError: if the device is not here or an option is out of its range.
            MissingExtraError: if the engine is not installed.
        """
        if not 0 <= strength <= 1:
            raise OptionError(f"strength {strength}: must lie in [0, 1]")
        if isinstance(tile, str) and tile != "auto":
            raise OptionError(f"tile {tile!r}: is neither a number of pixels, 'auto' nor None")
        if overlap_px is not None and overlap_px < 0:
            raise OptionError(f"overlap_px {overlap_px}: must not be negative")
        if batch is not None and batch < 1:
            raise OptionError(f"batch {batch}: must be at least 1")
        model = weights if isinstance(weights, AST) else load_model(weights)
        self.engine = create_engine(engine, model, device=device, precision=precision)
        multiple = model.config.size_multiple
        self.multiple = multiple
        self.overlap_px = multiple if overlap_px is None else overlap_px
        self.batch = batch or (1 if self.engine.device.type == "cpu" else 4)
        self.self_ensemble = self_ensemble
        self.strength = strength
        self.tile_px = tile
        if tile == "auto":
            budget = memory_budget_bytes or self.engine.free_bytes()
            self.tile_px = self._tile_for(budget)
        if isinstance(self.tile_px, int) and self.tile_px < self.smallest_tile_px:
            raise OptionError(
                f"tile {self.tile_px}: needs at least {self.smallest_tile_px} px for these weights"
                f" and an overlap of {self.overlap_px} px"
            )

    def __call__(self, image: Any) -> Any:
        """Restores an image in memory; the input is not changed.

        Args:
            image: a PIL image; an array (H, W), (H, W, 3) or (H, W, 4); or a tensor (3, H, W) or
                (B, 3, H, W). RGB, uint8 or uint16 in their full range, or floats in [0, 1].
                Alpha is kept as it is.

        Returns:
            The same kind, size, type and device.

        Raises:
            ImageError: for another shape, type or range.
        """
        return from_memory(image, self.restore_pixels)

    def restore_photo(self, photo: Photo, *, on_tile: OnTile | None = None) -> Photo:
        """Restores a photo that was read with `read_image`."""
        pixels = self.restore_pixels(photo.pixels, grey=photo.grey, on_tile=on_tile)
        return dataclasses.replace(photo, pixels=pixels)

    def process_photo(self, photo: Photo, *, on_tile: OnTile | None = None) -> Outcome:
        """As `restore_photo`."""
        return Outcome(self.restore_photo(photo, on_tile=on_tile))

    def restore_pixels(
        self, pixels: np.ndarray, *, grey: bool = False, on_tile: OnTile | None = None
    ) -> np.ndarray:
        """Restores (H, W, 3) RGB, uint8, uint16 or float32 in [0, 1]; the result has the same type.

        Args:
            pixels: the image.
            grey: whether its channels are equal, and shall stay so.
            on_tile: called with (tiles done, tiles in all).
        """
        out = np.empty_like(pixels)
        if isinstance(self.tile_px, str):
            raise FairweatherError("tile_px: is set once the budget is known")
        proxy_px = self.engine.config.proxy_px
        if proxy_px is None:
            self._restore_tiled(pixels, out=out, tile_px=self.tile_px, grey=grey, on_tile=on_tile)
            return out
        proxy = as_float(make_proxy(pixels, longest_px=proxy_px))
        restored = np.empty_like(proxy)
        self._restore_tiled(proxy, out=restored, tile_px=self.tile_px, grey=grey, on_tile=on_tile)
        apply_from_proxy(pixels, proxy=proxy, restored=restored, out=out, strength=self.strength)
        return out

    @property
    def smallest_tile_px(self) -> int:
        """Below this a tile would have no core between its overlaps."""
        overlap = -(-self.overlap_px // self.multiple) * self.multiple
        return max(self.multiple, 2 * overlap)

    def _tile_for(self, budget_bytes: int) -> int:
        bytes_per_px = activation_bytes_per_px(self.engine.config) * self.batch
        side = int((budget_bytes / bytes_per_px) ** 0.5) // self.multiple * self.multiple
        most = MOST_TILE_PX.get(self.engine.device.type, 1024)
        return max(self.smallest_tile_px, min(side, most))

    def _look(self, pixels: np.ndarray, *, tile_px: int | None) -> Context:
        """What is to be known of the whole image where no tile shows it; None for one tile."""
        engine = self.engine
        if not (isinstance(engine, TorchEngine) and engine.config.global_context):
            return None
        plan = plan_tiles(pixels.shape[:2], tile_px=tile_px, overlap_px=0, multiple=self.multiple)
        if len(plan) == 1:
            return None
        spans = [(row, column) for row in plan.rows for column in plan.columns]
        if len(spans) > MOST_LOOKS:
            spans = random.Random(0).sample(spans, MOST_LOOKS)
        parts = [pixels[row.start : row.stop, col.start : col.stop] for row, col in spans]
        try:
            said = torch.cat([engine.look(as_float(part)[None]) for part in parts])
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            engine.release()
            return self._look(pixels, tile_px=self._smaller_tile(max(parts[0].shape)))
        areas = torch.tensor([part.size for part in parts]).to(said).view(-1, 1, 1, 1)
        return (said * areas).sum(0, keepdim=True) / areas.sum()

    def _restore_tiled(
        self,
        pixels: np.ndarray,
        *,
        out: np.ndarray,
        tile_px: int | None,
        context: Context = None,
        grey: bool,
        on_tile: OnTile | None,
    ) -> None:
        if context is None:
            context = self._look(pixels, tile_px=tile_px)
        plan = plan_tiles(
            pixels.shape[:2], tile_px=tile_px, overlap_px=self.overlap_px, multiple=self.multiple
        )
        done = 0

        def restored(row: Span, columns: list[Span]) -> Iterator[np.ndarray]:
            nonlocal done
            rest = columns
            while rest:  # a batch may be smaller than the one before, if memory ran out
                chunk, rest = rest[: self.batch], rest[self.batch :]
                tiles = np.stack([as_float(cut_tile(pixels, row, column)) for column in chunk])
                result = self._restore_tiles(tiles, context)
                yield from result.mean(-1, keepdims=True).repeat(3, -1) if grey else result
                done += len(chunk)
                if on_tile is not None:
                    on_tile(done, len(plan))

        merge_tiles(plan, restored, out=out)

    def _restore_tiles(self, tiles: np.ndarray, context: Context) -> np.ndarray:
        """(B, H, W, 3) float32; when memory runs out, in halves: of the batch, then of the tile."""
        larger = max(tiles.shape[1:3])
        if not isinstance(self.tile_px, int) or larger <= self.tile_px:
            try:
                return self._run(tiles, context)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self.engine.release()
            if len(tiles) > 1:
                self.batch = max(1, len(tiles) // 2)
                halves = np.array_split(tiles, 2)
                return np.concatenate([self._restore_tiles(half, context) for half in halves])
            self.tile_px = self._smaller_tile(larger)
            log.warning("out of memory: going on with tiles of %d px", self.tile_px)
        out = np.empty_like(tiles)
        for tile, restored in zip(tiles, out, strict=True):
            self._restore_tiled(
                tile,
                out=restored,
                tile_px=self.tile_px,
                context=context,
                grey=False,
                on_tile=None,
            )
        return out

    def _smaller_tile(self, tile_px: int) -> int:
        smaller = max(tile_px // 2 // self.multiple * self.multiple, self.smallest_tile_px)
        if smaller >= tile_px:
            raise FairweatherError(
                f"not even a tile of {tile_px} px fits into the memory of {self.engine.device};"
                " close other programs or use --device cpu"
            )
        return smaller

    def _run(self, tiles: np.ndarray, context: Context) -> np.ndarray:
        run: Callable[[np.ndarray], np.ndarray] = self.engine
        if isinstance(self.engine, TorchEngine):
            run = functools.partial(self.engine, context=context)
        restored = self_ensemble(run, tiles) if self.self_ensemble else run(tiles)
        restored = restored.clip(0, 1)
        if self.strength < 1:
            restored = tiles + np.float32(self.strength) * (restored - tiles)
        return restored


def self_ensemble(engine: Callable[[np.ndarray], np.ndarray], tiles: np.ndarray) -> np.ndarray:
    """Mean over the eight flips and quarter turns of (B, H, W, 3)."""
    total = np.zeros_like(tiles)
    for turns in range(4):
        for flip in (1, -1):
            view = np.rot90(tiles, turns, axes=(1, 2))[:, :, ::flip]
            total += np.rot90(engine(view)[:, :, ::flip], -turns, axes=(1, 2))
    return total / 8


@functools.lru_cache(maxsize=2)
def cached_restorer(weights: Path, device: str, *, engine: str, changed_ns: int) -> Restorer:
    """Restorers of `restore`: a loop over files loads its weights once, and new ones if changed."""
    log.debug("loading %s of %d", weights, changed_ns)
    return Restorer(weights, device=device, engine=engine)


def restore(
    source: str | Path,
    target: str | Path,
    *,
    weights: str | Path = "rain",
    device: str = "auto",
    engine: str = "auto",
    overwrite: bool = False,
) -> Restored:
    """Restores a photograph file with bundled or given weights.

    Args:
        source: an image file.
        target: where to write the restored one; its suffix decides the format.
        weights: as for `Restorer`.
        device: as for `Restorer`.
        engine: as for `Restorer`.
        overwrite: whether a file at the target may be replaced.

    Raises:
        ImageError: if the source cannot be read or the target not be written.
        CheckpointError: if the weights cannot be loaded.
    """
    path = find_weights(weights)
    changed_ns = path.stat().st_mtime_ns
    restorer = cached_restorer(path, device, engine=engine, changed_ns=changed_ns)
    return restorer.restore_file(source, target, overwrite=overwrite)
