"""The Restorer: read → tiles → engine → merge → write, for files and for images in memory."""

import copy
import dataclasses
import functools
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairweather.files import replacing
from fairweather.hardware import pick_device
from fairweather.imaging import (
    DEFAULT_MAX_PIXELS,
    Chroma,
    ClipOptions,
    Truncated,
    check_writable,
    is_clip,
    read_image,
    write_image,
    write_side_by_side,
)
from fairweather.models import Network, fingerprint, load_model
from fairweather.restoration.auto import Chooser
from fairweather.restoration.clips import restore_clip
from fairweather.restoration.decisions import Decisions
from fairweather.restoration.engine_choice import create_engine, pick_engine, pick_precision
from fairweather.restoration.engines import Engine
from fairweather.restoration.finishing import apply_finish
from fairweather.restoration.in_memory import from_memory
from fairweather.restoration.in_turn import restore_in_turn
from fairweather.restoration.options import (
    TilePx,
    check_changes,
    check_options,
    pick_tiles,
    refuse_existing,
)
from fairweather.restoration.outcome import Outcome, Restored
from fairweather.restoration.proxy import (
    FAST_PIXELS,
    decide_on_proxy,
    make_preview,
    run_fast,
    run_on_proxy,
)
from fairweather.restoration.scales import Levels
from fairweather.restoration.sequences import is_sequence, restore_sequence
from fairweather.restoration.shots import Settled
from fairweather.restoration.tiled import OnTile, TiledRun, ensemble_note

AUTO = "auto"  # instead of weights: those for the degradation that a photograph shows
BATCH = 4  # of tiles, but for a CPU


class Restorer:
    """Restore photographs with one set of weights, or each with those for its degradation.

    Calling it restores an image in memory, `restore_file` a file. The image stays in host memory as
    it is; tiles go through the network and are merged so that no seam shows. It keeps nothing of a
    call, so threads may share it.

    Attributes:
        engine: what runs the network; None with the weights `auto`.
        tile_px: side of a tile that a call begins with [px]; None for one tile.
        batch: tiles that a call begins with at a time.
    """

    def __init__(
        self,
        weights: str | Path | Network = "rain",
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
        levels: Levels = "auto",
        fast: bool = False,
        finish: str | None = None,
    ):
        """Load the weights and move them to the device.

        Args:
            weights: a bundled name, a `.safetensors`, an official `.pth`, a folder with one, or a
                model, which is moved to the device and put into evaluation mode. `auto` classifies
                each photograph and takes the bundled weights for its degradation, loaded when they
                are first needed, and does the same with the result, once; one that none of them
                is expected to improve comes back as it is.
            device: `auto`, `cpu`, `cuda`, `mps`, `xpu`.
            engine: what runs the network, a name from `list_engines`; `auto` is the one that was
                measured fastest.
            precision: `fp32`, `bf16`, `fp16`, or `auto`: bf16 where it is free, else fp32.
            tile: side of a tile [px], `auto` from the memory budget, None for one tile. A tile that
                is too small for the default overlap is enlarged to twice that.
            overlap_px: how far tiles overlap; by default as far as the network needs it.
            batch: tiles that go through the network together; by default 1 on a CPU, else 4.
            memory_budget_bytes: what tiles may take that are computed at once; by default a share
                of the device's.
            self_ensemble: average over the flips and quarter turns that the weights were trained
                with (`ASTConfig.symmetries`), 2 to 8: as many times slower, better.
            strength: 0 returns the input, 1 the restored image, between them a blend.
            levels: how often an image is halved to be restored coarse to fine, 0 to 3; `auto`
                chooses for each image. Not read by weights that restore a small version anyway.
            fast: restore a version of one megapixel and hand its change on to larger images: a
                preview, which leaves details that are finer than that as they are.
            finish: a last touch for the eye, one of `list_finishes`: `colour` takes back a cast,
                `smooth` evens out blotches, `contrast` raises local contrast.

        Raises:
            CheckpointError: if the weights cannot be loaded.
            OptionError: if the device is not here or an option is out of its range.
            MissingExtraError: if the engine is not installed.
        """
        check_options(tile=tile, overlap_px=overlap_px, batch=batch)
        check_changes(strength=strength, levels=levels, finish=finish)
        self.strength = strength
        self.levels: Levels = levels
        self.fast = fast
        self.finish = finish
        self.self_ensemble = self_ensemble
        self.engine: Engine | None = None
        self._choose: Chooser[Restorer] | None = None
        self._changes: dict[str, Any] = {}  # of `with_options`, for those that `auto` chooses
        on_cpu = pick_device(device).type == "cpu"
        self.batch = batch or (1 if on_cpu else BATCH)
        self.precision = precision
        self._asked = f"{engine} {precision} {tile} {overlap_px}"
        if weights == AUTO:
            self._on_cpu = on_cpu and pick_engine(engine) == "torch"
            self._choose = Chooser(
                functools.partial(
                    Restorer,
                    device=device,
                    engine=engine,
                    precision=precision,
                    tile=tile,
                    overlap_px=overlap_px,
                    batch=batch,
                    memory_budget_bytes=memory_budget_bytes,
                    self_ensemble=self_ensemble,
                    strength=strength,
                    levels=levels,
                    fast=fast,
                    finish=finish,
                )
            )
            return
        self.weights = "the model" if isinstance(weights, Network) else str(weights)
        model = weights if isinstance(weights, Network) else load_model(weights)
        self._fingerprint = functools.cache(functools.partial(fingerprint, model))
        self.precision = pick_precision(precision, weights, model, engine=engine, device=device)
        self.engine = create_engine(engine, model, device=device, precision=self.precision)
        self.tile_px, self.overlap_px = pick_tiles(
            tile,
            self.engine,
            batch=self.batch,
            overlap_px=overlap_px,
            budget_bytes=memory_budget_bytes,
        )

    def with_options(self, **changes: Any) -> "Restorer":
        """Return a Restorer with other options that shares the weights of this one.

        Args:
            changes: of `strength`, `levels`, `fast`, `finish` and `self_ensemble`.

        Raises:
            OptionError: if one is another, or out of its range.
        """
        check_changes(**changes)
        other = copy.copy(self)
        vars(other).update(changes)
        other._changes = {**self._changes, **changes}
        return other

    def __call__(self, image: Any) -> Any:
        """Restore an image in memory; the input is not changed.

        Args:
            image: a PIL image; an array (H, W), (H, W, 3) or (H, W, 4); or a tensor (3, H, W) or
                (B, 3, H, W). RGB, uint8 or uint16 in their full range, or floats in [0, 1].
                Alpha is kept as it is. A PIL image is turned upright as its EXIF orientation says;
                arrays and tensors must be upright.

        Returns:
            The same kind, size, type and device; a PIL image without an orientation.

        Raises:
            ImageError: for another shape, type or range.
            CheckpointError: if no bundled weights restore the degradation that `auto` finds.
        """
        return from_memory(image, self.restore_pixels)

    def restore_file(
        self,
        source: str | Path,
        target: str | Path,
        *,
        overwrite: bool = False,
        go_on: bool = False,
        compare: Path | None = None,
        quality: int | None = None,
        chroma: Chroma | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        truncated: Truncated = "refuse",
        clip: ClipOptions | None = None,
        on_tile: OnTile | None = None,
    ) -> Restored:
        """Restore a file; the target appears whole or not at all, in a folder made if need be.

        A photograph that `auto` leaves as it is becomes a copy, byte for byte unless the target's
        suffix asks for another format.

        Args:
            source: an image file, a clip (extra `video`), or numbered frames, `frame_%06d.png`.
            target: where to write; its suffix decides the format.
            overwrite: whether files at `target` and `compare` may be replaced.
            go_on: whether numbered frames that are there are kept, and only the others made.
            compare: where to write input and result side by side, if anywhere.
            quality: of JPEG, WebP, AVIF and HEIF, 1 to 100; see `write_image`.
            chroma: resolution of the colours in JPEG, AVIF and HEIC; the same.
            max_pixels: larger images are refused; reading one takes up to 24 bytes a pixel.
            truncated: whether a JPEG or PNG that is cut off is restored as far as it goes.
            clip: how a clip is written, and what to do with half-frames.
            on_tile: called with (tiles done, tiles in all), of all levels; with frames of a clip.

        Raises:
            ImageError: if the source cannot be read or the target not be written.
            CheckpointError: if no bundled weights restore the degradation that `auto` finds.
        """
        started = time.monotonic()
        source, target = Path(source), Path(target)
        refuse_existing(target, compare, overwrite=overwrite)
        options = clip or ClipOptions()
        coding = {"quality": quality, "chroma": chroma}
        reading = {"max_pixels": max_pixels, "truncated": truncated}
        if is_clip(source):
            made = restore_clip(
                self, source, target, overwrite=overwrite, options=options, on_frame=on_tile
            )
            return Restored.of_clip(source, target, made, started=started, precision=self.precision)
        if is_sequence(source):
            existing = "skip" if go_on else "overwrite" if overwrite else "refuse"
            way = {"calm": options.calm, "existing": existing, "on_frame": on_tile}
            made = restore_sequence(self, source, target, reading=reading, **way, **coding)
            return Restored.of_clip(source, target, made, started=started, precision=self.precision)
        check_writable(target)
        photo = read_image(source, **reading)
        target.parent.mkdir(parents=True, exist_ok=True)
        check_writable(target, shape=photo.pixels.shape)
        outcome = self._restore(photo.pixels, grey=photo.grey, on_tile=on_tile)
        notes = outcome.notes
        restored = dataclasses.replace(photo, pixels=outcome.pixels)
        if outcome.pixels is photo.pixels and target.suffix.lower() == source.suffix.lower():
            with source.open("rb") as file, replacing(target, overwrite=overwrite) as copy:
                shutil.copyfileobj(file, copy)
        else:
            written = write_image(target, restored, overwrite=overwrite, **coding)
            notes += (*photo.notes, *written)
        if compare is not None:
            write_side_by_side(compare, photo, restored)
        return Restored(
            source,
            target,
            compare,
            *photo.pixels.shape[:2],
            seconds=time.monotonic() - started,
            notes=notes,
            diagnosis=outcome.diagnosis,
            levels=outcome.levels,
            precision=outcome.precision,
        )

    def restore_pixels(
        self, pixels: np.ndarray, *, grey: bool = False, on_tile: OnTile | None = None
    ) -> np.ndarray:
        """Restore (H, W, 3) RGB, uint8, uint16 or float32 in [0, 1]; the result has the same type.

        Args:
            pixels: the image.
            grey: whether its channels are equal, and shall stay so.
            on_tile: called with (tiles done, tiles in all), of all levels.
        """
        restored = self._restore(pixels, grey=grey, on_tile=on_tile).pixels
        return pixels.copy() if restored is pixels else restored

    def settle(self, pixels: np.ndarray) -> Settled:
        """Decide how an image is restored, and return what restores others in the same way.

        Args:
            pixels: (H, W, 3) RGB, uint8, uint16 or float32 in [0, 1].

        Raises:
            CheckpointError: if no bundled weights restore the degradation that `auto` finds.
        """
        if self._choose is not None:
            restorer = self._choose(pixels)[0]
            if restorer is None:
                return Settled()
            return self._changed(restorer).settle(pixels)
        run = self._begin()
        if run.engine.config.proxy_px is not None:
            return Settled(self._restore_alike, decide_on_proxy(run, pixels))
        seen = make_preview(pixels) if self.fast else pixels
        return Settled(self._restore_alike, run.decide(seen, levels=self.levels))

    def _changed(self, restorer: "Restorer") -> "Restorer":
        return restorer.with_options(**self._changes) if self._changes else restorer

    def _restore_alike(
        self, images: Sequence[np.ndarray], decisions: Decisions, *, grey: bool
    ) -> list[np.ndarray]:
        run = self._begin()
        is_plain = not (self.fast or self.finish or self.self_ensemble or decisions.levels)
        if len(images) > 1 and is_plain and run.fits(images[0]):
            context = next(iter(decisions.contexts), None)
            way = {"context": context, "strength": self.strength, "grey": grey}
            return run.restore_together(images, **way)
        return [
            self._restore(pixels, grey=grey, on_tile=None, decisions=decisions).pixels
            for pixels in images
        ]

    def describe(self) -> str:
        """Return all that decides what it makes of an image, as text."""
        names = ("strength", "levels", "fast", "finish", "self_ensemble", "_asked")
        about: dict[str, Any] = {name: getattr(self, name) for name in names}
        about["weights"] = AUTO if self.engine is None else self._fingerprint()
        return json.dumps(about, sort_keys=True)

    def _restore(
        self,
        pixels: np.ndarray,
        *,
        grey: bool,
        on_tile: OnTile | None,
        decisions: Decisions | None = None,
    ) -> Outcome:
        if self._choose is not None:

            def restore(chosen: Restorer, seen: np.ndarray) -> Outcome:
                bare = self._changed(chosen).with_options(finish=None)
                return bare._restore(seen, grey=grey, on_tile=on_tile)

            return self._finish(pixels, restore_in_turn(self._choose, pixels, restore))
        assert self.engine is not None
        run = self._begin()
        way: dict[str, Any] = {"strength": self.strength, "grey": grey, "on_tile": on_tile}
        way["decisions"] = decisions
        coarse_to_fine = functools.partial(run.restore_coarse_to_fine, levels=self.levels, **way)
        if run.engine.config.proxy_px is not None:
            restored, levels = run_on_proxy(run, pixels, **way), 0
        elif self.fast and pixels[..., 0].size > FAST_PIXELS:
            restored, levels = run_fast(coarse_to_fine, pixels, grey=grey)
        else:
            restored, levels = coarse_to_fine(pixels)
        notes = ensemble_note(run.engine.config.symmetries) if self.self_ensemble else ()
        outcome = Outcome(restored, notes, levels=levels, precision=self.precision)
        return self._finish(pixels, outcome)

    def _finish(self, pixels: np.ndarray, outcome: Outcome) -> Outcome:
        if self.finish is None or outcome.pixels is pixels:
            return outcome
        return outcome._replace(pixels=apply_finish(pixels, outcome.pixels, name=self.finish))

    def _begin(self) -> TiledRun:
        """Return what one call needs, so that nothing that befalls it concerns another one."""
        assert self.engine is not None
        return TiledRun(
            self.engine,
            tile_px=self.tile_px,
            overlap_px=self.overlap_px,
            batch=self.batch,
            self_ensemble=self.self_ensemble,
            weights=self.weights,
        )

    def at_once(self) -> int:
        """Return how many threads should restore at the same time: as many as PyTorch has.

        On a GPU, or with an engine that has threads of its own, it is one.
        """
        if self.engine is not None:
            return self.engine.at_once()
        return torch.get_num_threads() if self._on_cpu else 1

    def together(self) -> int:
        """Return how many frames go through the network together: `batch`."""
        return self.batch
