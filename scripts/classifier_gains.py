"""Measure what the bundled weights do for each degradation, and write it into the classifier.

`--task auto` takes the weights from which most is to be expected: what the classifier finds, times
these gains. They are measured on the photographs that the training of the classifier held out.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from classifier_samples import Known, held_out_samples, load_photographs
from fairweather import Restorer
from fairweather.cli import counting, run_command
from fairweather.models import CLASSES, list_weights, load_classifier, save_classifier
from fairweather.restoration import classifier_views, diagnose, probabilities

MOST_DB = 3.0  # that one photograph counts, better or worse
UNSEEN_DB = 45.0  # from which on nobody sees what has changed in a clean photograph
HARM_DB = 5.0  # below that, for which it counts 1 dB of loss


def main(
    weights: Annotated[Path, typer.Argument(help="The classifier's .safetensors.")],
    *,
    data: Annotated[Path, typer.Option(help="The folder that it was trained with.")],
) -> None:
    """Measure what the bundled weights do for each degradation; write it into the classifier."""
    net, metadata = load_classifier(weights)
    known = list(held_out_samples(load_photographs(data)[1], seed=int(metadata["seed"])))
    worth: dict[str, np.ndarray] = {}
    with counting("weights", total=len(list_weights())) as show:
        for number, name in enumerate(list_weights(), 1):
            restorer = Restorer(name, device="cpu")
            worth[name] = np.array([worth_of(restorer, one) for one in known])
            show(number, len(list_weights()), name)
    shown = np.array([one.degradation for one in known])
    gains = {
        name: {each: round(float(values[shown == each].mean()), 3) for each in CLASSES}
        for name, values in worth.items()
    }
    save_classifier(net, weights, metadata=metadata | {"gains": json.dumps(gains)})
    threshold = float(metadata["threshold"])
    chosen = [
        diagnose(
            probabilities(net, classifier_views(one.image)), threshold=threshold, gains=gains
        ).weights
        for one in known
    ]
    reached = np.array([worth[name][i] if name else 0.0 for i, name in enumerate(chosen)])
    typer.echo("| photographs | number | " + " | ".join(gains) + " | chosen | by choice |")
    typer.echo("|---|" + "---:|" * (len(gains) + 3))
    for each in CLASSES:
        here = shown == each
        acted = sum(name is not None for name, one in zip(chosen, here, strict=True) if one)
        cells = [f"{gains[name][each]:+.2f}" for name in gains]
        cells = [each, str(here.sum()), *cells, str(acted), f"{reached[here].mean():+.2f}"]
        typer.echo(f"| {' | '.join(cells)} |")


def worth_of(restorer: Restorer, one: Known) -> float:
    """Return what weights are worth for a photograph [dB], within ±`MOST_DB`.

    For a degraded one that is the gain in PSNR. For a clean one it is nothing if it comes back as
    it was, and the less the more it changes.
    """
    restored = restorer(one.image)
    if one.degradation == "clean":
        worth = min(0.0, (psnr(restored, one.clean) - UNSEEN_DB) / HARM_DB)
    else:
        worth = psnr(restored, one.clean) - psnr(one.image, one.clean)
    return float(np.clip(worth, -MOST_DB, MOST_DB))


def psnr(image: np.ndarray, clean: np.ndarray) -> float:
    """Return the PSNR of uint8 images [dB], at most 100."""
    error = np.square(image.astype(np.float64) - clean).mean()
    return float(10 * np.log10(255**2 / max(error, 255**2 * 1e-10)))


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
