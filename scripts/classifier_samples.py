"""Photographs with a known degradation, and the views of them that the classifier trains on."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from fairweather.data import (
    DEGRADATIONS,
    Augmentation,
    Pair,
    RainLayers,
    degrade_pixels,
    find_images,
    find_layout_pairs,
    random_jitter,
    ranges_of,
    read_bytes,
    split_layers,
)
from fairweather.errors import DataError
from fairweather.imaging import as_bytes, resized
from fairweather.models import CLASSES, VIEW_PX
from fairweather.restoration import mirrored

# Folder below pairs/, layout, degradation, and the share of its samples that come from there.
REAL = (
    ("rain/Rain13K-sample", "folders", "rain", 0.04),
    ("rain/Rain800", "folders", "rain", 0.2),
    ("rain/GT-RAIN", "folders", "rain", 0.04),
    ("haze/SOTS-indoor", "sots", "haze", 0.3),
    ("moire/UHDM-700px", "folders", "moire", 0.15),
    ("moire/UHDM-700px-more", "folders", "moire", 0.35),
    ("shadow/WaterFilling-doc", "folders", "shadow", 0.1),
)
REAL_CLEAN_SHARE = 0.5
LAYERS, LAYER_SHARE = "layers/rain", 0.35  # of the samples of rain, where there are layers
FAR_DROPS = {"radius_px": (3.0, 56.0), "softness": (0.15, 2.0), "opacity": (0.25, 1.0)}
FAR_DROP_SHARE = 0.4  # of the samples of drops
HELD_OUT_EVERY = 25
MOST_OF_A_SCENE = 20  # pairs
LONGEST_PX = 720  # of what is kept in memory
SHORT_SIDE_PX = (160, 320)
JITTER = Augmentation(exposure_jitter_stops=0.6, colour_jitter=0.08, contrast_jitter=0.2)
GREY_SHARE = 0.05
JPEG_SHARE = 0.85
JPEG_QUALITY = (70, 100)
HELD_OUT_JPEG = 90
MOST_PAIRS = 12  # of a real set, that are held out
LARGE_SHARE = 0.25  # of samples that are seen at two scales, as large photographs are
FIRST_GROUPS = 8


@dataclass(frozen=True)
class Photographs:
    """What samples are made of; images are (H, W, 3) uint8.

    Attributes:
        clean: photographs to degradation.
        pairs: (degraded, clean) of each real set of `REAL`.
        layers: rain to lay over photographs, beside synthetic rain; None if there is none.
    """

    clean: list[np.ndarray]
    pairs: list[list[tuple[np.ndarray, np.ndarray]]]
    layers: RainLayers | None = None


def load_photographs(data: Path) -> tuple[Photographs, Photographs]:
    """Read what there is to train on, and every 25th scene of it, which is held out.

    Args:
        data: a folder with clean/, pairs/ and layers/; sets that are not there are left out.

    Raises:
        DataError: if there are too few clean photographs to hold one out.
    """
    scenes: list[list[Pair]] = [[Pair(path, path)] for path in find_images(data / "clean")]
    clean = len(scenes)
    if clean < 2:
        raise DataError(f"{data / 'clean'}: one photograph is not enough to train and to check")
    ends = [clean]
    for folder, layout, _, _ in REAL:
        if (data / "pairs" / folder).is_dir():
            by_scene: dict[Path, list[Pair]] = {}
            for pair in find_layout_pairs(data / "pairs" / folder, layout, split="all"):
                by_scene.setdefault(pair.clean, []).append(pair)
            scenes += by_scene.values()
        ends.append(len(scenes))
    layers: list[RainLayers | None] = [None, None]
    if (data / LAYERS).is_dir():
        parts = split_layers(find_images(data / LAYERS), held_out_every=HELD_OUT_EVERY)
        layers = [RainLayers(part) if part else None for part in parts]
    training = Photographs([], [[] for _ in REAL], layers[0])
    held_out = Photographs([], [[] for _ in REAL], layers[1])
    for number, scene in enumerate(scenes):
        part = held_out if number % HELD_OUT_EVERY == 0 else training
        target = read_small(scene[0].clean)
        if number < clean:
            part.clean.append(target)
        else:
            own = part.pairs[sum(number >= end for end in ends) - 1]
            own += [(read_small(pair.degraded), target) for pair in scene[:MOST_OF_A_SCENE]]
    return training, held_out


def read_small(path: Path) -> np.ndarray:
    """Read an image file, scaled down to `LONGEST_PX` if it is larger."""
    pixels = read_bytes(path)
    scale = LONGEST_PX / max(pixels.shape[:2])
    return rescaled(pixels, scale) if scale < 1 else pixels


def rescaled(image: np.ndarray, scale: float) -> np.ndarray:
    """Scale an image."""
    return resized(image, (round(image.shape[0] * scale), round(image.shape[1] * scale)))


def make_group(photographs: Photographs, *, random: np.random.Generator) -> list[np.ndarray]:
    """Make one part of a photograph under each of `CLASSES`, or real pairs in their place.

    All of them are of one scene, so that nobody can learn by heart which photograph has what.

    Returns:
        (H, W, 3) uint8 for each of `CLASSES`.
    """
    image = photographs.clean[random.integers(len(photographs.clean))]
    part = random_part(image, random=random, least=0.4)
    group = [part]
    for degradation in CLASSES[1:]:
        group.append(degraded_part(part, degradation, photographs.layers, random=random))
    for (_, _, degradation, share), pairs in zip(REAL, photographs.pairs, strict=True):
        if pairs and random.random() < share:
            seed = int(random.integers(2**31))
            # Moiré lives in the pixels, so that real pairs are scaled less than clean photographs.
            degraded, clean = (
                random_part(side, random=np.random.default_rng(seed), least=0.7)
                for side in pairs[random.integers(len(pairs))]
            )
            group[CLASSES.index(degradation)] = degraded
            if random.random() < REAL_CLEAN_SHARE:
                group[0] = clean
    return group


def degraded_part(
    part: np.ndarray, degradation: str, layers: RainLayers | None, *, random: np.random.Generator
) -> np.ndarray:
    """Degrade a part of a photograph, (H, W, 3) uint8, in one of the ways there are."""
    seed = int(random.integers(2**31))
    if degradation == "rain" and layers is not None and random.random() < LAYER_SHARE:
        return layers.degrade(part, random)
    if degradation == "raindrop" and random.random() < FAR_DROP_SHARE:
        batch = torch.from_numpy(part / np.float32(255)).permute(2, 0, 1)[None]
        ranges = ranges_of("raindrop", FAR_DROPS)
        dice = torch.Generator().manual_seed(seed)
        drops = DEGRADATIONS["raindrop"](batch, generator=dice, ranges=ranges)
        return as_bytes(drops[0].permute(1, 2, 0).numpy())
    return degrade_pixels(part, task=degradation, seed=seed)


def random_part(image: np.ndarray, *, random: np.random.Generator, least: float) -> np.ndarray:
    """Cut most of an image out, at a random scale of at least `least` and at most 1.3."""
    height, width = image.shape[:2]
    rows, columns = (round(side * random.uniform(0.6, 1)) for side in (height, width))
    top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
    part = image[top : top + rows, left : left + columns]
    scale = min(max(random.uniform(*SHORT_SIDE_PX) / min(rows, columns), least), 1.3)
    size = (max(16, round(rows * scale)), max(16, round(columns * scale)))
    return resized(part, size)


@dataclass(frozen=True)
class Known:
    """A held-out photograph, (H, W, 3) uint8, what it shows and how it looks without that."""

    image: np.ndarray
    degradation: str
    clean: np.ndarray


def held_out_samples(photographs: Photographs, *, seed: int) -> Iterator[Known]:
    """Put every degradation on each held-out photograph; add both sides of the real pairs."""
    random = np.random.default_rng((seed, 1))
    images: list[tuple[np.ndarray, str, np.ndarray]] = []
    for photograph in photographs.clean:
        only = Photographs([photograph], [[] for _ in REAL], photographs.layers)
        group = make_group(only, random=random)
        images += [(image, shown, group[0]) for image, shown in zip(group, CLASSES, strict=True)]
    for (_, _, degradation, _), pairs in zip(REAL, photographs.pairs, strict=True):
        for degraded, clean in pairs[:MOST_PAIRS]:
            images += [(degraded, degradation, clean), (clean, "clean", clean)]
    for image, degradation, clean in images:
        jpeg = as_jpeg(image, quality=HELD_OUT_JPEG)
        yield Known(jpeg, degradation, jpeg if degradation == "clean" else clean)


@dataclass(frozen=True)
class Sample:
    """A photograph with a known degradation, as if from a file that someone else made.

    Attributes:
        scales: it, and what a large photograph is also seen at, (H, W, 3) uint8.
        whole: it as a whole, (VIEW_PX, VIEW_PX, 3) uint8.
    """

    scales: list[np.ndarray]
    whole: np.ndarray


def finish_sample(image: np.ndarray, *, random: np.random.Generator) -> Sample:
    """Vary what must not tell the degradation: scale, light, colour, JPEG quality."""
    if random.random() < 0.5:
        image = rescaled(image, math.exp(random.uniform(math.log(0.7), math.log(1.6))))
    image, _ = random_jitter((image, image), random=random, augmentation=JITTER)
    if random.random() < GREY_SHARE:
        image = np.asarray(Image.fromarray(image).convert("L").convert("RGB"))
    if random.random() < JPEG_SHARE:
        image = as_jpeg(image, quality=int(random.integers(*JPEG_QUALITY, endpoint=True)))
    scales = [mirrored(image)]
    if random.random() < LARGE_SHARE:
        scales.append(mirrored(rescaled(image, random.uniform(0.4, 0.8))))
    return Sample(scales, resized(image, (VIEW_PX, VIEW_PX)))


def random_views(sample: Sample, *, random: np.random.Generator, crops: int) -> np.ndarray:
    """Take crops from anywhere and the whole, mirrored or not: (crops + 1, VIEW_PX, VIEW_PX, 3)."""
    views = []
    for number in range(crops):
        image = sample.scales[number % len(sample.scales)]
        top, left = (int(random.integers(side - VIEW_PX + 1)) for side in image.shape[:2])
        views.append(image[top : top + VIEW_PX, left : left + VIEW_PX])
    views = np.stack([*views, sample.whole])
    return views[:, :, ::-1] if random.random() < 0.5 else views


def as_jpeg(image: np.ndarray, *, quality: int) -> np.ndarray:
    """Return what is left of an image after JPEG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as again:
        return np.asarray(again.convert("RGB"))


class SampleBank(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Batches without end, from the latest samples of each degradation: views are cheap.

    Every batch makes a new sample of each degradation, which takes the place of the oldest.
    """

    def __init__(
        self, photographs: Photographs, *, shares: Sequence[int], seed: int, kept: int = 96
    ):
        """Draw nothing yet.

        Args:
            photographs: what samples are made of.
            shares: how many photographs of each of `CLASSES` a batch has.
            seed: of everything random.
            kept: how many samples of each.
        """
        self.photographs = photographs
        self.labels = [number for number, share in enumerate(shares) for _ in range(share)]
        self.seed = seed
        self.kept = kept

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield crops and whole photographs of `Views`, and the numbers of their degradations."""
        torch.set_num_threads(1)
        worker = get_worker_info()
        random = np.random.default_rng((self.seed, worker.id if worker else 0))
        samples: list[list[Sample]] = [[] for _ in CLASSES]
        while True:
            for _ in range(1 if samples[0] else FIRST_GROUPS):
                group = make_group(self.photographs, random=random)
                for known, image in zip(samples, group, strict=True):
                    known.append(finish_sample(image, random=random))
                    del known[: -self.kept]
            crops = int(random.integers(3, 7))
            views = [
                random_views(known[random.integers(len(known))], random=random, crops=crops)
                for known in (samples[number] for number in self.labels)
            ]
            images = torch.from_numpy(np.stack(views)).permute(0, 1, 4, 2, 3).float() / 255
            yield images[:, :-1], images[:, -1], torch.tensor(self.labels)
