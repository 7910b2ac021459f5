"""Train the classifier of degradations that `fairweather restore --task auto` uses."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from classifier_samples import Photographs, SampleBank, held_out_samples, load_photographs
from fairweather.cli import counting, run_command
from fairweather.errors import CheckpointError, OptionError
from fairweather.hardware import lowered
from fairweather.models import (
    CLASSES,
    DegradationClassifier,
    Views,
    count_parameters,
    save_classifier,
)
from fairweather.restoration import classifier_views

SHARES = (6, 3, 3, 3, 3, 3, 3)  # of each of CLASSES in a batch: most photographs are clean
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.05
CHECK_EVERY = 100
WARM_UP_STEPS = 30
EMA_DECAY = 0.98
WANTED_PRECISION = 0.95


class Precision(StrEnum):
    """What the training computes in."""

    fp32 = "fp32"
    bf16 = "bf16"


def main(
    *,
    data: Annotated[Path, typer.Option(help="A folder with clean/, pairs/ and layers/.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The .safetensors to write.")],
    steps: Annotated[int, typer.Option(help="How many batches of 24.", min=1)] = 4000,
    minutes: Annotated[
        float | None, typer.Option(help="End after so many minutes; then no seed repeats it.")
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="bf16 is faster on CPUs that have it.")
    ] = Precision.fp32,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that make the samples.", min=0)] = 2,
) -> None:
    """Train the classifier that `fairweather restore --task auto` uses."""
    if out.suffix != ".safetensors":
        raise typer.BadParameter(f"{out}: weights are written as .safetensors")
    try:
        with counting("batches", total=steps) as show:
            best = train_classifier(
                data,
                out,
                steps=steps,
                minutes=minutes,
                precision=precision.value,
                seed=seed,
                workers=workers,
                on_step=show,
            )
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written: {error.strerror or error}") from error
    typer.echo(
        f"{out}: of step {best.step}, with {best.accuracy:.1%} of the held-out photographs right"
        f" and a loss of {best.loss:.3f}; sure from {best.threshold:.0%}"
    )


@dataclass(frozen=True)
class HeldOut:
    """Views of photographs that are not trained on, and what is to be found in them."""

    views: list[Views]
    labels: Tensor


@dataclass(frozen=True)
class ClassifierTraining:
    """What a training reached.

    Attributes:
        step: after which the weights that were kept are the best.
        loss: cross-entropy of the held-out photographs there [nats].
        accuracy: share of them that is classified correctly.
        threshold: probability from which a degradation is taken for sure.
    """

    step: int
    loss: float
    accuracy: float
    threshold: float


def train_classifier(
    data: Path,
    target: Path,
    *,
    steps: int,
    minutes: float | None = None,
    precision: str = "fp32",
    seed: int = 0,
    workers: int = 2,
    on_step: Callable[[int, int, str], None] = lambda done, total, said: None,
) -> ClassifierTraining:
    """Train a classifier on synthetic degradation and a few real pairs.

    The target always holds the best weights so far, whole; before the first check there is none.

    Args:
        data: clean/ and pairs/, see `REAL`; every 25th scene is held out to choose the checkpoint.
        target: the `.safetensors` to write.
        steps: how many batches.
        minutes: after which it ends in any case, and as gently; no seed repeats that.
        precision: `fp32` or `bf16`.
        seed: of everything random; with it and as many workers a training can be repeated.
        workers: processes that make the samples; 0 makes them in this one.
        on_step: called with (steps done, steps in all, what to tell the user).

    Raises:
        DataError: if there is nothing to train on.
        OSError: if the target cannot be written.
    """
    if steps < 1:
        raise OptionError(f"steps {steps}: must be at least 1")
    started = time.monotonic()
    training, held_out = load_photographs(data)
    told = describe_training(training, seed=seed)
    kept = BestWeights(target, hold_out(held_out, seed=seed), told=told)
    torch.manual_seed(seed)
    net = DegradationClassifier().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    bank = SampleBank(training, shares=SHARES, seed=seed)
    for step, batch in enumerate(DataLoader(bank, batch_size=None, num_workers=workers), 1):
        done = step / steps
        if minutes is not None:
            done = max(done, (time.monotonic() - started) / (60 * minutes))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * learning_rate_share(done, warm=step / WARM_UP_STEPS)
        said = f"loss {train_step(net, optimizer, batch, precision=precision):.3f}"
        average.update_parameters(net)
        if step % CHECK_EVERY == 0 or done >= 1:
            found = kept.offer(average.module, step=step)
            said = f"held out: loss {found.loss:.3f}, {found.accuracy:.1%} right"
        on_step(step, steps, said)
        if done >= 1:
            break
    return kept.best


class BestWeights:
    """The best weights so far, on disk, and how good they are."""

    def __init__(self, target: Path, held_out: HeldOut, *, told: dict[str, str]):
        """Write nothing yet.

        Args:
            target: where they go.
            held_out: what tells which are the best.
            told: metadata of all of them.
        """
        self.target = target
        self.held_out = held_out
        self.told = told
        self.best = ClassifierTraining(step=0, loss=math.inf, accuracy=0, threshold=1)

    def offer(self, net: torch.nn.Module, *, step: int) -> ClassifierTraining:
        """Check weights, and write them if there were none better."""
        found = check(net, self.held_out, step=step)
        if found.loss < self.best.loss:
            self.best = found
            copy = DegradationClassifier()
            copy.load_state_dict(net.state_dict())
            save_classifier(copy, self.target, metadata=self.told | describe_result(found))
        return found


def learning_rate_share(done: float, *, warm: float) -> float:
    """Rise linearly, then fall with half a cosine to 0, where `done` is 1."""
    return min(1.0, warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def train_step(
    net: DegradationClassifier,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor, Tensor],
    *,
    precision: str,
) -> float:
    """Take a step; return the loss."""
    crops, whole, labels = batch
    net.train()
    with lowered("cpu", precision):
        logits = net(Views(crops, whole))
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=LABEL_SMOOTHING)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def hold_out(photographs: Photographs, *, seed: int) -> HeldOut:
    """See the held-out photographs as the classifier sees them."""
    known = list(held_out_samples(photographs, seed=seed))
    labels = [CLASSES.index(one.degradation) for one in known]
    return HeldOut([classifier_views(one.image) for one in known], torch.tensor(labels))


def check(net: torch.nn.Module, held_out: HeldOut, *, step: int) -> ClassifierTraining:
    """Measure a classifier on the held-out photographs."""
    net.eval()
    with torch.inference_mode():
        logits = torch.cat([net(views) for views in held_out.views])
    return ClassifierTraining(
        step=step,
        loss=F.cross_entropy(logits, held_out.labels).item(),
        accuracy=(logits.argmax(-1) == held_out.labels).double().mean().item(),
        threshold=choose_threshold(logits.double().softmax(-1), held_out.labels),
    )


def choose_threshold(probabilities: Tensor, labels: Tensor) -> float:
    """Return the lowest probability from which 95 % of the degradations found are the right ones.

    Args:
        probabilities: (N, len(CLASSES)) of held-out photographs.
        labels: (N,), what they have.

    Returns:
        A multiple of 0.05, from 0.3 to 0.95.
    """
    top, found = probabilities.max(-1)
    is_degradation = found != CLASSES.index("clean")
    for percent in range(30, 95, 5):
        acted = is_degradation & (top >= percent / 100)
        right = (found == labels)[acted].double().mean()
        if acted.any() and right >= WANTED_PRECISION:
            return percent / 100
    return 0.95


def describe_training(photographs: Photographs, *, seed: int) -> dict[str, str]:
    """Return what the weights' metadata says of how they came to be."""
    pairs = sum(map(len, photographs.pairs))
    return {
        "task": "degradation",
        "parameters": str(count_parameters(DegradationClassifier())),
        "training_data": f"synthetic degradation on {len(photographs.clean)} clean photographs, and"
        f" {pairs} real pairs",
        "seed": str(seed),
        "licence": "Apache-2.0",
    }


def describe_result(found: ClassifierTraining) -> dict[str, str]:
    """Return what it says of how good they are."""
    return {
        "threshold": f"{found.threshold:.2f}",
        "step": str(found.step),
        "held_out": f'{{"loss": {found.loss:.4f}, "accuracy": {found.accuracy:.4f}}}',
    }


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
