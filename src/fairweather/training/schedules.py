"""How long a stage is, and how the learning rate changes over it."""

import math
from dataclasses import dataclass

import torch

from fairweather.training.recipe import Stage


def cosine_with_warmup(
    step: int,
    *,
    steps: int,
    warmup_steps: int,
    floor: float,
    cycles: int = 1,
    part: tuple[float, float] = (0.0, 1.0),
) -> float:
    """Share of the base learning rate at a step: linear up, then cosines down to the floor.

    Warm restarts as in SGDR (Loshchilov and Hutter, ICLR 2017, eq. 5), with cycles of one length.

    Args:
        step: from 0.
        steps: length of the stage; from this step on the rate is the floor.
        warmup_steps: length of the line up to the full rate, before the first cycle.
        floor: share of the base rate where every cosine ends, in [0, 1].
        cycles: cosines after the warm-up, at least 1. All but the last stop one step short of
            the floor, for the next step has the full rate again.
        part: of each cosine that is gone through, as shares of its length.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    span = max(1, steps - warmup_steps)
    elapsed = step - warmup_steps
    # The remainder is taken of integers: rounding could skip the restart.
    progress = elapsed * cycles % span / span if elapsed < span else 1.0
    progress = part[0] + (part[1] - part[0]) * progress
    return floor + (1 - floor) * 0.5 * (1 + torch.tensor(progress * torch.pi).cos().item())


@dataclass(frozen=True)
class StageLength:
    """A stage counted in steps, which for epochs depends on how many images there are."""

    steps: int
    warmup_steps: int
    validate_every_steps: int


def length_of(stage: Stage, *, images: int, validate_every_steps: int | None = None) -> StageLength:
    """Counts a stage in steps.

    Args:
        stage: in steps or epochs.
        images: how many images or pairs are trained on; an epoch is as many crops.
        validate_every_steps: the recipe's; None validates after every epoch.
    """
    epoch = math.ceil(images / stage.batch)
    steps = stage.steps or (stage.epochs or 1) * epoch
    warmup_steps = stage.warmup_steps + stage.warmup_epochs * epoch
    return StageLength(
        steps=steps,
        warmup_steps=min(warmup_steps, steps - 1),
        validate_every_steps=min(validate_every_steps or epoch, steps),
    )
