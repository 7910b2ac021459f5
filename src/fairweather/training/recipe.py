"""What an experiment is: a frozen, validated piece of data."""

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    model_validator,
)

from fairweather.data import DEGRADATIONS, WEATHERS, Augmentation, list_layouts, ranges_of
from fairweather.errors import OptionError
from fairweather.models import PRESETS, Config, symmetries_of
from fairweather.training.losses import LOSS_NAMES


def _one_of(names: Iterable[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"{name!r} is none of {', '.join(names)}")
        return name

    return AfterValidator(check)


def _is_file_name(name: str) -> str:
    if (
        re.search(r'[\\/:*?"<>|\x00-\x1f\x7f]', name)
        or name.startswith(".")
        or name != name.strip()
    ):
        raise ValueError(f"{name!r} is no name of a file; runs lie in a folder of that name")
    return name


Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """Frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PublishedFigure(Strict):
    """A figure that somebody published for this experiment, and under which conditions."""

    model: str = Field(description="whose figure it is")
    psnr_db: float
    ssim: float | None = None
    test_set: str
    protocol: str = Field(description="colour, rounding and tiling behind the figure")
    source: str = Field(description="where it was published")


class Cost(Strict):
    """How long an experiment takes."""

    hours: float = Field(gt=0)
    machine: str
    basis: str = Field(description="whether that was measured, or what it was estimated from")


class PairFolder(Strict):
    """Pairs on disk."""

    folder: str = Field(description="relative to the data root of the command line")
    layout: Annotated[str, _one_of(list_layouts())] = Field(
        "folders", description="see `fairweather data layouts`"
    )
    split: str = Field(
        default_factory=lambda data: "all" if data.get("layout") == "folders" else "train",
        description="by default `train`, or all of plain folders",
    )

    def __str__(self) -> str:
        told = self.layout == "folders" and self.split == "all"
        return self.folder if told else f"{self.folder} ({self.layout}, {self.split})"


def _as_pair_folder(value: Any) -> Any:
    return {"folder": value} if isinstance(value, str) else value


class DataSpec(Strict):
    """What is trained on; folders are relative to the data root given on the command line."""

    clean: tuple[str, ...] = Field((), description="folders of clean images, degraded on the fly")
    pairs: tuple[Annotated[PairFolder, BeforeValidator(_as_pair_folder)], ...] = Field(
        (), description="pairs; a name alone is a folder that holds input/ and target/"
    )
    real_fraction: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of crops from the pairs; needed where there are clean images too",
    )
    identity_fraction: float = Field(
        0.0, ge=0, lt=1, description="share of synthetic crops left clean, to learn to do no harm"
    )
    layers: tuple[str, ...] = Field(
        (),
        description="folders of grey images of rain streaks, added to clean images for some of the"
        " crops of task rain",
    )
    layers_of_pairs: bool = Field(
        False, description="add what the rain of the pairs added to the layers"
    )
    layer_fraction: float = Field(
        0.5, ge=0, le=1, description="share of the crops of clean images that get the layers' rain"
    )
    each_once: bool = Field(
        False,
        description="use every image or pair exactly once in each epoch of as many crops, in an"
        " order drawn anew, instead of drawing one for each crop",
    )
    weather_shares: dict[Annotated[str, _one_of(WEATHERS)], Weight] | None = Field(
        None,
        min_length=1,
        description="how often each weather comes among the synthetic crops of task weather, as in"
        " {rain: 1, snow: 2}; by default all as often",
    )
    ranges: dict[str, FiniteFloat | tuple[FiniteFloat, FiniteFloat]] | None = Field(
        None,
        min_length=1,
        description="from what the parameters of the synthetic degradation are drawn, where not"
        " from the defaults, as in {radius_px: [3, 60]} of task raindrop",
    )
    held_out_every: int = Field(
        25,
        ge=2,
        description="every n-th scene is held out of the training to choose the best checkpoint",
    )
    held_out_at_most: int = Field(200, ge=1, description="pairs to validate on")
    resize_px: int | None = Field(
        None, ge=16, description="squeeze every image to a square of this side before cropping"
    )

    @model_validator(mode="after")
    def _has_images(self) -> "DataSpec":
        if not (self.clean or self.pairs):
            raise ValueError("names neither clean folders nor pairs")
        if self.clean and self.pairs and self.real_fraction is None:
            raise ValueError(
                "names clean folders and pairs; say with real_fraction how many crops are of pairs"
            )
        if self.each_once and (self.layers or (self.clean and self.pairs)):
            raise ValueError(
                "each_once goes with clean folders or with pairs, not with both or with layers,"
                " which come in shares"
            )
        return self


class Stage(Strict):
    """One leg of a progressive training: crops, batch and rate of its own, a fresh optimiser."""

    crop_px: int = Field(ge=16, le=2**14, description="side of a training crop")
    batch: int = Field(ge=1, le=2**16, description="crops in a step, over all devices together")
    accumulate: int = Field(
        1, ge=1, description="parts that a device's batch is computed in, to save memory"
    )
    steps: int | None = Field(None, ge=1, le=10**9, description="length; either this or epochs")
    epochs: int | None = Field(
        None, ge=1, le=10**9, description="one epoch is as many crops as images"
    )
    learning_rate: float = Field(gt=0)
    final_learning_rate: float = Field(1e-6, ge=0, description="where the cosine ends")
    warmup_steps: int = Field(0, ge=0, description="of a linear warm-up")
    warmup_epochs: int = Field(0, ge=0, description="the same in epochs; the two are added")
    cycles: int = Field(1, ge=1, description="of the cosine; above 1 it restarts")
    cosine_part: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = (
        Field(
            (0.0, 1.0),
            description="where on the cosine from learning_rate to final_learning_rate the stage"
            " begins and ends, for one that spans several stages",
        )
    )
    identity_fraction: float | None = Field(
        None, ge=0, lt=1, description="in this stage instead of that of data"
    )
    frozen: tuple[str, ...] = Field(
        (),
        description="parts that keep their weights, told by how the names of their parameters"
        " begin, as in [context.gate]",
    )

    @property
    def rates(self) -> tuple[float, float]:
        """Behind the warm-up and at the end; they differ from the cosine's in a part of it."""
        height = self.learning_rate - self.final_learning_rate
        first, last = (
            self.final_learning_rate + height * (1 + math.cos(math.pi * at)) / 2
            for at in self.cosine_part
        )
        return first, last

    @model_validator(mode="after")
    def _is_consistent(self) -> "Stage":
        if (self.steps is None) is (self.epochs is None):
            raise ValueError("give either steps or epochs")
        for unit, whole, warmup in (
            ("steps", self.steps, self.warmup_steps),
            ("epochs", self.epochs, self.warmup_epochs),
        ):
            if whole is None and unit == "epochs" and warmup:
                raise ValueError("a stage counted in steps has warmup_steps, not warmup_epochs")
            if whole is not None and warmup >= whole:
                raise ValueError(f"warmup_{unit} {warmup} must be under {unit} {whole}; set both")
        if self.cosine_part[0] >= self.cosine_part[1]:
            raise ValueError(f"cosine_part {[*self.cosine_part]}: must end after it begins")
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"final_learning_rate {self.final_learning_rate:g} is above learning_rate"
                f" {self.learning_rate:g}"
            )
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} does not divide into {self.accumulate} parts")
        return self


def _as_loss_terms(value: Any) -> Any:
    return {value: 1.0} if isinstance(value, str) else value


class Recipe(Strict):
    """An experiment: model, data, stages and what they must reach."""

    name: Annotated[str, AfterValidator(_is_file_name)] = Field(min_length=1, max_length=100)
    task: str
    description: str
    published: PublishedFigure | None = None
    cost: Cost | None = None
    preset: Annotated[str, _one_of(PRESETS)] = Field(
        description="architecture, see `fairweather models list`"
    )
    architecture: dict[str, Any] = Field(
        default_factory=dict, description="what differs from the preset, as in {window: 4}"
    )
    data: DataSpec
    augmentation: Augmentation = Augmentation()
    stages: tuple[Stage, ...] = Field(min_length=1)
    loss: Annotated[
        dict[Annotated[str, _one_of(LOSS_NAMES)], Weight], BeforeValidator(_as_loss_terms)
    ] = Field(
        default_factory=lambda: {"charbonnier": 1.0},
        min_length=1,
        description="a name, or names with weights, as in {charbonnier: 1, edge: 0.05}",
    )
    perceptual_backbone: str | None = Field(
        None,
        description="package.module:function that makes the network of the perceptual loss; needs"
        " --allow-code",
    )
    optimizer: Literal["adamw", "adam"] = "adamw"
    weight_decay: float = Field(0.02, ge=0)
    gradient_clip_norm: float | None = Field(1.0, gt=0)
    ema_decay: float | None = Field(
        0.999, ge=0, lt=1, description="of the averaged weights that are kept; null keeps the last"
    )
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = "32-true"
    compile: bool = Field(False, description="torch.compile the network")
    activation_checkpointing: bool = Field(
        False, description="compute activations again in the backward pass instead of keeping them"
    )
    early_stopping_validations: int | None = Field(
        None, ge=1, description="end a stage after so many validations without a better one"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    validate_every_steps: int | None = Field(
        None, ge=1, description="by default once an epoch, that is as many crops as images"
    )
    validation_crop_px: int = Field(256, ge=16)

    @model_validator(mode="after")
    def _is_consistent(self) -> "Recipe":
        try:
            _ = self.config
        except (OptionError, TypeError, OverflowError) as error:
            raise ValueError(f"architecture: {error}") from error
        if self.data.clean and self.task not in DEGRADATIONS:
            raise ValueError(
                f"task {self.task!r}: has no synthetic degradation ({', '.join(DEGRADATIONS)})"
            )
        if self.data.layers and not (self.data.clean and self.task == "rain"):
            raise ValueError("data.layers are added to clean images of task rain")
        if self.data.weather_shares and self.task != "weather":
            raise ValueError(f"data.weather_shares are for task weather, not for {self.task}")
        if self.data.ranges and not self.data.clean:
            raise ValueError("data.ranges are of what is laid over clean images; name data.clean")
        if self.data.ranges:
            try:
                ranges_of(self.task, self.data.ranges)
            except OptionError as error:
                raise ValueError(f"data.ranges: {error}") from error
        if ("perceptual" in self.loss) is (self.perceptual_backbone is None):
            raise ValueError("the perceptual loss and perceptual_backbone belong together")
        return self

    @property
    def config(self) -> Config:
        """The network's config: the preset with the recipe's changes."""
        symmetries = symmetries_of(self.model_dump(include={"augmentation", "data"}))
        return dataclasses.replace(
            PRESETS[self.preset], **{"symmetries": symmetries, **self.architecture}
        )
