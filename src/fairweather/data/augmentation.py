"""Random crops of pairs; all that is drawn is drawn for both images of a pair alike."""

import io
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageFilter
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.utils.data import Dataset

from fairweather.data.cache import ImageCache, PairCache
from fairweather.data.pairs import Pair
from fairweather.errors import DataError

Orientation = Literal["all", "flips", "horizontal_flip", "none"]
Crops = tuple[np.ndarray, np.ndarray]


class Augmentation(BaseModel):
    """What is varied in the training crops, beside their place."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    orientation: Orientation = "all"
    """all eight flips and quarter turns; the four flips; left-right; none"""
    largest_downscale: float = Field(default=1.0, ge=1, le=4)
    """crops are cut up to this many times larger, log-uniformly, and scaled down"""
    largest_upscale: float = Field(default=1.0, ge=1, le=4)
    """crops are cut up to this many times smaller, log-uniformly, and scaled up: views as smooth as
    those of larger photographs"""
    exposure_jitter_stops: float = Field(default=0.0, ge=0, le=3)
    """both images are multiplied by 2^u, u uniform in ± this many stops"""
    colour_jitter: float = Field(default=0.0, ge=0, lt=1)
    """each channel of both images is multiplied by a gain in 1 ± this"""
    contrast_jitter: float = Field(default=0.0, ge=0, lt=1)
    """both images are drawn towards one grey by a share of 0 to this"""
    gamma_jitter: float = Field(default=0.0, ge=0, lt=4)
    """both images are raised to a power from 1 / (1 + this) to 1 + this: light and dark photographs
    whose blacks stay black"""
    camera_probability: float = Field(default=0.0, ge=0, le=1)
    """share of crops of which both images are enlarged up to four times, sharpened and compressed,
    as cameras do it; before synthetic degradation is drawn"""
    mixup_probability: float = Field(default=0.0, ge=0, le=1)
    """share of batches whose crops are blended with one another"""
    mixup_alpha: float = Field(default=1.2, gt=0, le=100)
    """MixUp's shares are drawn from Beta(alpha, alpha)"""


ORIENTATION_ONLY = Augmentation()


class RandomCrops(Dataset[dict[str, Tensor]]):
    """Crops number 0, 1, 2 …: the pair, the place and the turn follow from the seed and the number.

    So no sampler has to shuffle, and a resumed run goes on with just the crops it would have had.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        *,
        crop_px: int,
        length: int,
        seed: int | tuple[int, ...],
        real_fraction: float = 0.0,
        layer_fraction: float = 0.0,
        each_once: bool = False,
        augmentation: Augmentation = ORIENTATION_ONLY,
        images: ImageCache | None = None,
    ):
        """Prepare a stream of `length` crops of crop_px × crop_px.

        Args:
            pairs: what to crop from; synthetic ones and real ones.
            crop_px: side of a crop; smaller images are reflected outwards.
            length: how many crops there are.
            seed: of everything random; numbers from 0.
            real_fraction: share of crops taken from real pairs where there are other kinds too.
            layer_fraction: share of the others whose pairs have a `degrade`, where there are any.
            each_once: take all pairs in turn, in an order that is drawn for each epoch of as many
                crops as pairs; the fractions count for nothing then. By default each crop draws
                its pair by itself.
            augmentation: what is varied; MixUp is not done here, see `mix_up`.
            images: where decoded images are kept; None keeps them in the memory of this process.
        """
        self.cache = PairCache(pairs, images=images)
        self.kinds: tuple[list[int], ...] = ([], [], [])
        for index, pair in enumerate(pairs):
            kind = 2 if not pair.is_synthetic else 1 if pair.degrade else 0
            self.kinds[kind].append(index)
        self.crop_px = crop_px
        self.length = length
        self.seed = seed
        self.real_fraction = real_fraction
        self.layer_fraction = layer_fraction
        self.each_once = each_once
        self._order: tuple[int, np.ndarray] | None = None  # of an epoch
        self.augmentation = augmentation
        if not pairs:
            raise DataError("there is nothing to crop from: no pairs and no clean images")

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return one crop.

        Returns:
            `degraded` and `clean` (3, crop_px, crop_px) uint8, which share memory where the
            training step has to degrade one, which is `synthetic`; `index` of the pair in `pairs`
            and the `number` asked for, so that a bad batch can be traced.
        """
        # Drawn in this order since the first weights were trained; what is new is drawn last.
        seed = (self.seed,) if isinstance(self.seed, int) else self.seed
        random = np.random.default_rng((*seed, number))
        index = self._in_turn(number, seed=seed) if self.each_once else self._choose(random)
        pair = self.cache.pairs[index]
        crops = random_crop(
            self.cache[index],
            crop_px=self.crop_px,
            random=random,
            largest_downscale=self.augmentation.largest_downscale,
            largest_upscale=self.augmentation.largest_upscale,
        )
        crops = random_orientation(crops, random=random, orientation=self.augmentation.orientation)
        crops = random_jitter(crops, random=random, augmentation=self.augmentation)
        if pair.degrade:
            crops = pair.degrade(crops[1], random), crops[1]
        if random.random() < self.augmentation.camera_probability:
            crops = random_camera(crops, random=random)
        degraded, clean = crops
        return {
            "degraded": torch.from_numpy(degraded).permute(2, 0, 1),
            "clean": torch.from_numpy(clean).permute(2, 0, 1),
            "synthetic": torch.tensor(pair.is_synthetic and pair.degrade is None),
            "index": torch.tensor(index),
            "number": torch.tensor(number),
        }

    def _in_turn(self, number: int, *, seed: tuple[int, ...]) -> int:
        epoch, place = divmod(number, len(self.cache))
        if self._order is None or self._order[0] != epoch:
            # The 1 keeps it apart from the generators of crops.
            random = np.random.default_rng((*seed, epoch, 1))
            self._order = epoch, random.permutation(len(self.cache))
        return int(self._order[1][place])

    def _choose(self, random: np.random.Generator) -> int:
        synthetic, layered, real = self.kinds
        takes_real = random.random() < self.real_fraction and real
        if takes_real or not (synthetic or layered):
            choices = real
        elif layered and (random.random() < self.layer_fraction or not synthetic):
            choices = layered
        else:
            choices = synthetic
        return choices[random.integers(len(choices))]


def random_crop(
    images: Crops,
    *,
    crop_px: int,
    random: np.random.Generator,
    largest_downscale: float = 1.0,
    largest_upscale: float = 1.0,
) -> Crops:
    """Cut the same square out of both images, copied; every offset can be drawn, the last ones too.

    Args:
        images: (H, W, 3) uint8 both.
        crop_px: side of what is returned; smaller images are reflected outwards.
        random: where offsets and scale are drawn from.
        largest_downscale: the square is up to this many times larger, as far as the image reaches,
            and is scaled down.
        largest_upscale: or it is up to this many times smaller, and is scaled up.
    """
    height, width = images[0].shape[:2]
    side_px = crop_px
    if largest_downscale > 1 or largest_upscale > 1:
        reach = max(1.0, min(largest_downscale, min(height, width) / crop_px))
        scale = (reach * largest_upscale) ** random.random() / largest_upscale
        side_px = max(1, round(crop_px * scale))
    missing = max(0, side_px - height), max(0, side_px - width)
    pad = [(0, missing[0]), (0, missing[1]), (0, 0)]
    top = random.integers(max(height, side_px) - side_px + 1)
    left = random.integers(max(width, side_px) - side_px + 1)

    def cut(image: np.ndarray) -> np.ndarray:
        whole = np.pad(image, pad, mode="reflect") if any(missing) else image
        square = whole[top : top + side_px, left : left + side_px]
        if side_px == crop_px:
            return np.array(square)
        scaled = Image.fromarray(square).resize((crop_px, crop_px), Image.Resampling.BICUBIC)
        return np.array(scaled)

    return alike(images, cut)


def random_orientation(
    images: Crops, *, random: np.random.Generator, orientation: Orientation = "all"
) -> Crops:
    """Flip and turn both images alike, by quarters."""
    turns, upside_down, mirrored = 0, False, False
    if orientation == "all":
        turns, mirrored = int(random.integers(4)), random.random() < 0.5
    elif orientation == "flips":
        upside_down, mirrored = random.random() < 0.5, random.random() < 0.5
    elif orientation == "horizontal_flip":
        mirrored = random.random() < 0.5

    def turn(image: np.ndarray) -> np.ndarray:
        turned = np.rot90(image, turns)
        turned = turned[::-1] if upside_down else turned
        return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)

    return alike(images, turn)


def random_jitter(
    images: Crops, *, random: np.random.Generator, augmentation: Augmentation
) -> Crops:
    """Change gamma, exposure, gain of each channel and contrast of both images alike, uint8.

    The gains are of the bytes, not of linear light. Bytes are rounded, and bright ones clipped.
    """
    stops, colour = augmentation.exposure_jitter_stops, augmentation.colour_jitter
    contrast, gamma = augmentation.contrast_jitter, augmentation.gamma_jitter
    if stops == 0 and colour == 0 and contrast == 0 and gamma == 0:
        return images
    gains = 2 ** random.uniform(-stops, stops) * random.uniform(1 - colour, 1 + colour, size=3)
    levels = np.arange(256.0)
    if gamma:
        levels = 255 * (levels / 255) ** ((1 + gamma) ** random.uniform(-1, 1))
    values = np.outer(gains, levels)
    if contrast:
        share, grey = random.uniform(0, contrast), random.uniform(0, 255)
        values = values + share * (grey - values)
    tables = np.rint(values).clip(0, 255).astype(np.uint8)

    def multiply(image: np.ndarray) -> np.ndarray:
        return np.stack([tables[c].take(image[..., c]) for c in range(3)], axis=-1)

    return alike(images, multiply)


def random_camera(images: Crops, *, random: np.random.Generator) -> Crops:
    """Both images as a camera might have made them: enlarged, sharpened and compressed alike.

    Half of them are enlarged, 2 to 4 times; all are sharpened more or less, and JPEG of quality 60
    to 95.
    """
    side_px = images[0].shape[0]
    enlarged = 2 ** random.uniform(1, 2) if random.random() < 0.5 else 1.0
    cut_px = max(1, round(side_px / enlarged))
    top, left = random.integers(side_px - cut_px + 1, size=2)
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    resampling = filters[random.integers(len(filters))]
    radius_px, percent = random.uniform(0.5, 2), int(random.integers(120))
    quality = int(random.integers(60, 96))

    def develop(image: np.ndarray) -> np.ndarray:
        photo = Image.fromarray(image[top : top + cut_px, left : left + cut_px])
        if cut_px < side_px:
            photo = photo.resize((side_px, side_px), resampling)
        photo = photo.filter(ImageFilter.UnsharpMask(radius_px, percent, 0))
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=quality)
        return np.array(Image.open(file))

    return alike(images, develop)


def alike(images: Crops, change: Callable[[np.ndarray], np.ndarray]) -> Crops:
    """Change both images alike; an image that is its own partner is changed once."""
    degraded = change(images[0])
    return degraded, degraded if images[1] is images[0] else change(images[1])


def mix_up(
    degraded: Tensor, clean: Tensor, *, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Mix pairs as the official training does (`MixUp_AUG`; MixUp, Zhang et al., ICLR 2018).

    Each crop of (B, 3, H, W) floats on any device is blended with a crop of the batch, its own
    perhaps: λ · crop + (1 − λ) · partner, with one λ from Beta(alpha, alpha) and one partner for
    both images of a pair. The generator is the CPU's, so that every device draws the same.
    """
    count = len(degraded)
    partners = torch.randperm(count, generator=generator)
    # torch's Beta takes no generator.
    seed = int(torch.randint(2**62, (), generator=generator))
    drawn = np.random.default_rng(seed).beta(alpha, alpha, size=(count, 1, 1, 1))
    shares = torch.from_numpy(drawn).to(degraded)
    partners = partners.to(degraded.device)

    def blend(images: Tensor) -> Tensor:
        return shares * images + (1 - shares) * images[partners]

    return blend(degraded), blend(clean)
