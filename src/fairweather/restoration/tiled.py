"""An array → the restored array: what the network must know of the whole, tiles, engine, merge."""

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Generator, Iterator, Sequence

import numpy as np

from fairweather.errors import CheckpointError, FairweatherError
from fairweather.hardware import is_out_of_memory, map_in_threads
from fairweather.imaging import Span, TilePlan, merge_tiles, plan_tiles, quantise
from fairweather.models import Symmetries, look_margin_px
from fairweather.restoration.decisions import Decisions
from fairweather.restoration.engines import Context, Engine
from fairweather.restoration.scales import (
    MOST_LEVELS,
    Levels,
    Source,
    choose_levels,
    find_change,
    make_versions,
)

log = logging.getLogger(__name__)

LOOK_TILES = 2  # to look takes less than a quarter of the memory that to restore takes
OnTile = Callable[[int, int], None]
# Quarter turns and flips of a self-ensemble's views.
VIEWS: dict[Symmetries, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "all": ((0, 1, 2, 3), (1, -1)),
    "flips": ((0, 2), (1, -1)),
    "horizontal_flip": ((0,), (1, -1)),
    "none": ((0,), (1,)),
}


class TiledRun:
    """One call of a Restorer: an engine, and the tiles that its memory takes.

    When memory runs out, this run goes on with smaller batches and tiles; no other run is touched.

    Attributes:
        tile_px: side of a tile [px]; None for one tile. It shrinks when memory runs out.
        batch: how many go through the network together; the same.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        tile_px: int | None,
        overlap_px: int,
        batch: int,
        self_ensemble: bool = False,
        weights: str = "the model",
    ):
        self.engine = engine
        self.multiple = engine.config.size_multiple
        self.tile_px = tile_px
        self.overlap_px = overlap_px
        self.batch = batch
        self.self_ensemble = self_ensemble
        self.weights = weights

    def restore(
        self,
        source: Source,
        *,
        out: np.ndarray,
        strength: float = 1.0,
        context: Context = None,
        grey: bool = False,
        on_tile: OnTile | None = None,
    ) -> None:
        """Restore an image in tiles and merge them.

        Args:
            source: (H, W, 3) RGB, uint8, uint16 or float32 in [0, 1].
            out: (H, W, 3) to write to, of any of these types.
            strength: 0 returns the pixels of the source, 1 the restored ones.
            context: what `look` said of the photograph that these are pixels of; by default they
                are the photograph.
            grey: whether the channels are equal, and shall stay so.
            on_tile: called with (tiles done, tiles in all).
        """
        context = self.look(source) if context is None else context
        plan = self.plan(source.pixels)
        workers = min(len(plan), self.engine.at_once())
        # Without padding, which has no say in what the network sees as a whole. The views of an
        # ensemble would each be padded elsewhere, and not as tiles are.
        if len(plan) == 1 and not self.self_ensemble:
            result = self._restore_tiles(source.whole()[None], context)[0]
            result = blend(Source(source.pixels).whole, result, strength=strength)
            quantise(result.mean(-1, keepdims=True) if grey else result, out=out)
            if on_tile is not None:
                on_tile(1, 1)
            return

        def restored(chunk: tuple[Span, list[Span]]) -> np.ndarray:
            row, columns = chunk
            result = self._restore_tiles(stack_tiles(source, row, columns), context)
            before = functools.partial(stack_tiles, Source(source.pixels), row, columns)
            result = blend(before, result, strength=strength)
            return result.mean(-1, keepdims=True).repeat(3, -1) if grey else result

        def tiles() -> Generator[np.ndarray, None, None]:
            done = 0
            for batch in map_in_threads(restored, self._batches(plan), workers=workers):
                done += len(batch)
                if on_tile is not None:
                    on_tile(done, len(plan))
                yield from batch

        with contextlib.closing(tiles()) as in_order:
            merge_tiles(plan, lambda _, columns: itertools.islice(in_order, len(columns)), out=out)

    def restore_together(
        self, images: Sequence[np.ndarray], *, context: Context, strength: float, grey: bool
    ) -> list[np.ndarray]:
        """Restore images of one size at a time, without tiles.

        Args:
            images: (H, W, 3) RGB each, uint8, uint16 or float32 in [0, 1].
            context: what `look` said, of all of them; None for each its own.
            strength: as for `restore`.
            grey: the same.
        """
        sources = [Source(pixels) for pixels in images]
        results = self._restore_tiles(np.stack([one.whole() for one in sources]), context)
        out = [np.empty_like(pixels) for pixels in images]
        for source, result, pixels in zip(sources, results, out, strict=True):
            blended = blend(source.whole, result, strength=strength)
            quantise(blended.mean(-1, keepdims=True) if grey else blended, out=pixels)
        return out

    def restore_coarse_to_fine(
        self,
        pixels: np.ndarray,
        *,
        levels: Levels = "auto",
        strength: float = 1.0,
        grey: bool = False,
        on_tile: OnTile | None = None,
        decisions: Decisions | None = None,
    ) -> tuple[np.ndarray, int]:
        """Restore halved versions of an image first, each with what the smaller one changed.

        Args:
            pixels: (H, W, 3) RGB, uint8, uint16 or float32 in [0, 1].
            levels: how often it is halved; `auto` chooses by what the image shows.
            strength: as for `restore`.
            grey: as for `restore`.
            on_tile: called with (tiles done, tiles in all), of all levels.
            decisions: of another image, which hold for this one instead of `levels`.

        Returns:
            The restored image, of the same size and type, and how many levels it took.
        """
        contexts: Iterator[Context] = iter(())
        if decisions is not None:
            levels, contexts = decisions.levels, iter(decisions.contexts)
        versions = make_versions(pixels, levels=MOST_LEVELS if levels == "auto" else levels)
        if levels == "auto":
            del versions[choose_levels(versions, self.restore_part) + 1 :]
        taken, done, change = len(versions) - 1, 0, None
        while True:
            source = Source(versions.pop(), change)
            restored = np.empty_like(source.pixels)
            tiles = len(self.plan(source.pixels))
            to_come = sum(len(self.plan(version)) for version in versions)
            self.restore(
                source,
                out=restored,
                strength=1.0 if versions else strength,
                context=next(contexts, None),
                grey=grey,
                on_tile=count_among_all(on_tile, before=done, after=to_come),
            )
            if not versions:
                return restored, taken
            change = find_change(source.pixels, restored)
            done += tiles

    def decide(self, pixels: np.ndarray, *, levels: Levels = "auto") -> Decisions:
        """Return what is decided for the whole of an image; see `restore_coarse_to_fine`."""
        versions = make_versions(pixels, levels=MOST_LEVELS if levels == "auto" else levels)
        if levels == "auto":
            del versions[choose_levels(versions, self.restore_part) + 1 :]
        taken, change, contexts = len(versions) - 1, None, []
        while versions and self.engine.config.global_context:
            source = Source(versions.pop(), change)
            contexts.append(self.look(source, always=True))
            if versions:
                restored = np.empty_like(source.pixels)
                self.restore(source, out=restored, context=contexts[-1])
                change = find_change(source.pixels, restored)
        return Decisions(taken, tuple(contexts))

    def fits(self, pixels: np.ndarray) -> bool:
        """Return whether an image is restored at its own size, in one tile."""
        return self.engine.config.proxy_px is None and len(self.plan(pixels)) == 1

    def plan(self, pixels: np.ndarray) -> TilePlan:
        """Return the tiles in which an image is restored."""
        return plan_tiles(
            pixels.shape[:2],
            tile_px=self.tile_px,
            overlap_px=self.overlap_px,
            multiple=self.multiple,
        )

    def _batches(self, plan: TilePlan) -> Iterator[tuple[Span, list[Span]]]:
        """Yield the tiles row by row, in batches that shrink if memory runs out meanwhile."""
        for row in plan.rows:
            rest = list(plan.columns)
            while rest:
                batch, rest = rest[: self.batch], rest[self.batch :]
                yield row, batch

    def restore_part(self, part: np.ndarray) -> np.ndarray:
        """Restore (h, w, 3) float32 by itself."""
        restored = np.empty_like(part)
        self.restore(Source(part), out=restored)
        return restored

    def look(self, source: Source, *, always: bool = False) -> Context:
        """Return what the network must know of the whole photograph, (1, 1, 1, C).

        None for a network without a global context, and for one tile, which shows the whole.

        Args:
            source: the photograph.
            always: whether one tile is looked at, too.
        """
        if not self.engine.config.global_context:
            return None
        whole_px = -(-max(source.pixels.shape[:2]) // self.multiple) * self.multiple
        side_px = self.tile_px or whole_px
        if whole_px <= side_px and not self.self_ensemble and not always:
            return None
        margin_px = look_margin_px(self.engine.config)
        smallest_px = 2 * margin_px // self.multiple * self.multiple + self.multiple
        tile_px = max(LOOK_TILES * side_px // self.multiple * self.multiple, smallest_px)
        while True:
            try:
                return look_at(source, self.engine, tile_px=tile_px, margin_px=margin_px)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self.engine.release()
            tile_px = self._halved(tile_px, smallest_px=smallest_px)

    def _restore_tiles(self, tiles: np.ndarray, context: Context) -> np.ndarray:
        """(B, H, W, 3) float32; when memory runs out, in halves: of the batch, then of the tile."""
        larger = max(tiles.shape[1:3])
        if self.tile_px is None or larger <= self.tile_px:
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
            least_px = min(self.overlap_px, self.multiple)  # seams may show, but it goes on
            smallest_px = smallest_tile_px(overlap_px=least_px, multiple=self.multiple)
            self.tile_px = self._halved(larger, smallest_px=smallest_px)
            self.overlap_px = min(self.overlap_px, self.tile_px // 2)
            log.warning("out of memory: going on with tiles of %d px", self.tile_px)
        out = np.empty_like(tiles)
        for tile, restored in zip(tiles, out, strict=True):
            self.restore(Source(tile), out=restored, context=context)
        return out

    def _halved(self, tile_px: int, *, smallest_px: int) -> int:
        smaller = max(tile_px // 2 // self.multiple * self.multiple, smallest_px)
        if smaller >= tile_px:
            raise FairweatherError(
                f"not even a tile of {tile_px} px fits into the memory of {self.engine.device};"
                " close other programs or use --device cpu"
            )
        return smaller

    def _run(self, tiles: np.ndarray, context: Context) -> np.ndarray:
        run = functools.partial(self.engine, context=context)
        if self.self_ensemble:
            restored = self_ensemble(run, tiles, symmetries=self.engine.config.symmetries)
        else:
            restored = run(tiles)
        refuse_nonfinite_result(restored, weights=self.weights)
        return restored.clip(0, 1)


def count_among_all(on_tile: OnTile | None, *, before: int, after: int) -> OnTile | None:
    """Count the tiles of one level among those of the levels before and after it, too."""
    if on_tile is None:
        return None
    return lambda done, total: on_tile(before + done, before + total + after)


def smallest_tile_px(*, overlap_px: int, multiple: int) -> int:
    """Return the side below which a tile would have no core between its overlaps [px]."""
    overlap = -(-overlap_px // multiple) * multiple
    return max(multiple, 2 * overlap)


def look_at(source: Source, engine: Engine, *, tile_px: int, margin_px: int) -> np.ndarray:
    """Return the context of an image, the mean of what its places say, (1, 1, 1, C).

    A place counts in the one tile that shows it with all that it depends on, so the context is
    that of the whole, however large a tile is: any multiple of what the network pads to.
    """
    place, multiple = engine.config.place_px, engine.config.size_multiple
    size = source.pixels.shape[:2]
    padded = [-(-length // multiple) * multiple for length in size]
    rows, columns = (look_spans(side, tile_px=tile_px, margin_px=margin_px) for side in padded)
    channels = engine.config.channels[engine.config.levels]
    places = np.empty((*(side // place for side in padded), channels), np.float32)
    spans = list(itertools.product(rows, columns))

    def look(tile: tuple[Span, Span]) -> np.ndarray:
        return engine.look(source.tile(*tile)[None])[0]

    workers = min(len(spans), engine.at_once())
    for tile, said in zip(spans, map_in_threads(look, spans, workers=workers), strict=True):
        skips = [(margin_px if span.start else 0) // place for span in tile]
        to = [
            slice(span.start // place + skip, span.stop // place)
            for span, skip in zip(tile, skips, strict=True)
        ]
        places[to[0], to[1]] = said[skips[0] :, skips[1] :]
    height, width = (-(-length // place) for length in size)
    mean = places[:height, :width].mean((0, 1), dtype=np.float64)
    return np.asarray(mean, np.float32)[None, None, None]


def look_spans(padded: int, *, tile_px: int, margin_px: int) -> list[Span]:
    """Return tiles along an axis; each overwrites the last margin of the one before it."""
    tile = min(tile_px, padded)
    starts = [*range(0, padded - tile, tile_px - 2 * margin_px), padded - tile]
    return [Span(start, start + tile, np.ones(tile, np.float32)) for start in starts]


def stack_tiles(source: Source, row: Span, columns: list[Span]) -> np.ndarray:
    """Return the tiles of some columns, (B, h, w, 3)."""
    return np.stack([source.tile(row, column) for column in columns])


def blend(before: Callable[[], np.ndarray], restored: np.ndarray, *, strength: float) -> np.ndarray:
    """Return what lies between an image and its restored version."""
    if strength == 1:
        return restored
    pixels = before()
    return pixels + np.float32(strength) * (restored - pixels)


def refuse_nonfinite_result(restored: np.ndarray, *, weights: str) -> None:
    """Raise a CheckpointError for NaN or infinity, which would be written as black or white."""
    if not np.isfinite(restored).all():
        raise CheckpointError(
            f"{weights}: the network's result is not finite (NaN or infinity), so nothing was"
            " written; with a lower --precision choose fp32, and else other weights"
        )


def ensemble_note(symmetries: Symmetries) -> tuple[str, ...]:
    """Say how many views a self-ensemble takes, where it is not all eight."""
    quarters, flips = VIEWS[symmetries]
    count = len(quarters) * len(flips)
    if count == 8:
        return ()
    taken = f"{count} views are averaged" if count > 1 else "--self-ensemble changes nothing"
    return (f"{taken}: these weights were not trained with the degradation turned otherwise",)


def self_ensemble(
    run: Callable[[np.ndarray], np.ndarray], tiles: np.ndarray, *, symmetries: Symmetries = "all"
) -> np.ndarray:
    """Return the mean over the flips and quarter turns of (B, H, W, 3) that a training showed."""
    quarters, flips = VIEWS[symmetries]
    total = np.zeros_like(tiles)
    for turns in quarters:
        for flip in flips:
            view = np.rot90(tiles, turns, axes=(1, 2))[:, :, ::flip]
            total += np.rot90(run(view)[:, :, ::flip], -turns, axes=(1, 2))
    return total / (len(quarters) * len(flips))
