"""The crops of a recipe's stage for `fit`: the very batches that PyTorch would train on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from fairweather.data import ImageCache, Pair
from fairweather.training import (
    HeldOutCrops,
    Recipe,
    degrade_crops,
    degrade_held_out,
    length_of,
    seed_of,
    split_pairs,
    training_crops,
)

Images = tuple[np.ndarray, np.ndarray]


class TrainingBatches(keras.utils.PyDataset):
    """Batch i → (degraded, clean), two of (B, crop_px, crop_px, 3) float32 in [0, 1].

    Each follows from the recipe's seed, the stage and the batch's number alone, so that a stopped
    run goes on with the batches that it would have had.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        pairs: Sequence[Pair],
        batches: int,
        index: int = 0,
        begin: int = 0,
        cache: Path | None = None,
        workers: int = 1,
    ):
        """A stream that decodes images when they are asked for.

        Args:
            recipe: what is trained on, and how it is degraded and augmented.
            pairs: what to crop from.
            batches: how many there are in the stage.
            index: the stage's number.
            begin: how many of them to skip.
            cache: folder of decoded images; None keeps them in memory.
            workers: loading threads.
        """
        super().__init__(workers=workers)
        self.recipe = recipe
        self.stage = recipe.stages[index]
        self.index = index
        self.batches = batches
        self.begin = begin
        self.pairs = list(pairs)
        images = ImageCache(cache, resize_px=recipe.data.resize_px)
        self.crops = training_crops(
            recipe, index=index, pairs=self.pairs, batches=batches, images=images
        )

    def __len__(self) -> int:
        return self.batches - self.begin

    def __getitem__(self, index: int) -> Images:
        batch = self.read(self.begin + index)
        seed = seed_of(batch, recipe=self.recipe, index=self.index)
        with torch.no_grad():
            return to_numpy(degrade_crops(batch, recipe=self.recipe, index=self.index, seed=seed))

    def read(self, number: int) -> dict[str, Tensor]:
        """The bytes of batch `number` of the stage, not yet degraded."""
        first = number * self.stage.batch
        return default_collate([self.crops[first + crop] for crop in range(self.stage.batch)])

    def pairs_of(self, number: int) -> list[Pair]:
        """Return the pairs that batch `number` of the stage was cropped from."""
        return [self.pairs[index] for index in self.read(number)["index"].tolist()]


class HeldOutImages(keras.utils.PyDataset):
    """Image i → (degraded, clean), two of (1, H, W, 3): the centre of every held-out image.

    The degradation of clean images is the same at every validation.
    """

    def __init__(self, recipe: Recipe, *, pairs: Sequence[Pair], cache: Path | None = None):
        """Images that are decoded when they are asked for.

        Args:
            recipe: its task, seed and `validation_crop_px`.
            pairs: what is held out.
            cache: folder of decoded images; None keeps them in memory.
        """
        super().__init__()
        self.recipe = recipe
        images = ImageCache(cache, resize_px=recipe.data.resize_px)
        self.crops = HeldOutCrops(pairs, crop_px=recipe.validation_crop_px, images=images)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> Images:
        batch = default_collate([self.crops[index]])
        with torch.no_grad():
            return to_numpy(degrade_held_out(batch, recipe=self.recipe))


def to_numpy(images: tuple[Tensor, Tensor]) -> Images:
    """Two of (B, 3, H, W) → two of (B, H, W, 3), float32."""
    degraded, clean = (np.ascontiguousarray(i.permute(0, 2, 3, 1).numpy()) for i in images)
    return degraded, clean


def load_data(
    recipe: Recipe,
    data: Path,
    *,
    batches: int | None = None,
    index: int = 0,
    cache: Path | None = None,
) -> tuple[Any, Any]:
    """What a stage of a recipe trains and validates on, for `model.fit`.

    Args:
        recipe: names the folders, the layouts and the degradation; see `fairweather.training`.
        data: the folder that the recipe's folders are relative to.
        batches: how many training batches; None takes the length of the stage.
        index: the stage's number.
        cache: folder of decoded images; None keeps them in memory.

    Returns:
        The training batches and the held-out images, each (degraded, clean): `tf.data.Dataset`s on
        TensorFlow, `keras.utils.PyDataset`s elsewhere.

    Raises:
        DataError: if a folder is missing or empty, or a file cannot be read.
    """
    pairs, held_out = split_pairs(recipe, data)
    batches = batches or length_of(recipe.stages[index], images=len(pairs)).steps
    training = TrainingBatches(recipe, pairs=pairs, batches=batches, index=index, cache=cache)
    return for_backend(training), for_backend(HeldOutImages(recipe, pairs=held_out, cache=cache))


def for_backend(images: "TrainingBatches | HeldOutImages") -> Any:
    """The data set as the backend takes it best: `tf.data` on TensorFlow, else as it is."""
    return to_tf_data(images) if keras.backend.backend() == "tensorflow" else images


def to_tf_data(images: "TrainingBatches | HeldOutImages") -> Any:
    """The same batches as a `tf.data.Dataset`, made ahead of the step that needs them."""
    import tensorflow as tf

    def make(number: Any) -> tuple[Any, Any]:
        both = tf.numpy_function(lambda i: images[int(i)], [number], [tf.float32, tf.float32])
        # Sizes differ between held-out images.
        return tuple(tf.ensure_shape(one, (None, None, None, 3)) for one in both)

    return tf.data.Dataset.range(len(images)).map(make).prefetch(2)
