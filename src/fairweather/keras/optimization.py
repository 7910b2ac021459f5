"""The optimiser of a recipe's stage: AdamW as PyTorch computes it, warm-up, cosine and average."""

import math
from typing import Any

import keras

from fairweather.keras.layers import ops, register
from fairweather.training import Recipe, Stage, StageLength

# PyTorch's; Keras has 1e-7. Keras adds it before the bias correction, so in the first hundreds of
# steps it is still larger than PyTorch's, where a gradient is as small as that.
ADAM_EPSILON = 1e-8


@register
class CosineWithWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then cosines down to the final rate; `fairweather.training`'s own curve.

    Keras' `CosineDecay` starts its warm-up at another rate and does not restart.

    Args:
        learning_rate: where the warm-up ends.
        steps: length of the stage; from this step on the rate is the final one.
        warmup_steps: length of the warm-up, which begins at learning_rate / warmup_steps.
        final_learning_rate: where every cosine ends.
        cycles: cosines after the warm-up; above 1 it restarts.
        part: of each cosine that is gone through, as shares of its length.
    """

    def __init__(
        self,
        learning_rate: float,
        *,
        steps: int,
        warmup_steps: int = 0,
        final_learning_rate: float = 0.0,
        cycles: int = 1,
        part: tuple[float, float] = (0.0, 1.0),
    ):
        super().__init__()
        self.learning_rate = learning_rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.final_learning_rate = final_learning_rate
        self.cycles = cycles
        self.part = part

    def __call__(self, step: Any) -> Any:
        """The rate of a step, counted from 0."""
        step = ops.cast(step, "int32")
        span = max(1, self.steps - self.warmup_steps)
        elapsed = ops.maximum(step - self.warmup_steps, 0)
        # The remainder is taken of integers: rounding could skip the restart.
        progress = ops.cast(ops.mod(elapsed * self.cycles, span), "float32") / span
        progress = ops.where(elapsed < span, progress, 1.0)
        progress = self.part[0] + (self.part[1] - self.part[0]) * progress
        height = 0.5 * (self.learning_rate - self.final_learning_rate)
        falling = self.final_learning_rate + height * (1 + ops.cos(math.pi * progress))
        rising = ops.cast(step + 1, "float32") * (self.learning_rate / max(1, self.warmup_steps))
        return ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "final_learning_rate": self.final_learning_rate,
            "cycles": self.cycles,
            "part": self.part,
        }


def schedule_of(stage: Stage, *, length: StageLength) -> CosineWithWarmup:
    """The learning rates of a stage."""
    return CosineWithWarmup(
        stage.learning_rate,
        steps=length.steps,
        warmup_steps=length.warmup_steps,
        final_learning_rate=stage.final_learning_rate,
        cycles=stage.cycles,
        part=stage.cosine_part,
    )


def build_optimizer(recipe: Recipe, *, index: int, length: StageLength) -> Any:
    """A fresh optimiser for a stage, with the averaged weights if the recipe has them."""
    make = {"adamw": keras.optimizers.AdamW, "adam": keras.optimizers.Adam}[recipe.optimizer]
    return make(
        schedule_of(recipe.stages[index], length=length),
        epsilon=ADAM_EPSILON,
        weight_decay=recipe.weight_decay or None,
        global_clipnorm=recipe.gradient_clip_norm,
        use_ema=recipe.ema_decay is not None,
        ema_momentum=recipe.ema_decay or 0.0,
    )
