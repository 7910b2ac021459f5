"""Tell the degradation of a photograph: a small classifier of crops and of the whole.

Streaks, flakes and moiré vanish where a photograph is scaled down, and haze and shadow need all of
it. So one trunk sees crops as they are, another the whole photograph, small; a linear layer decides
on what both found.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairweather.errors import CheckpointError
from fairweather.models.bundled import CLASSIFIER_WEIGHTS
from fairweather.models.checkpoint import Metadata, read_state, write_safetensors

CLASSES = ("clean", "rain", "raindrop", "haze", "snow", "shadow", "moire")
VIEW_PX = 96
CHANNELS = (16, 32, 48, 64, 96)


@dataclass(frozen=True)
class Views:
    """What the classifier sees of photographs, float32 in [0, 1], RGB.

    Attributes:
        crops: (B, N, 3, VIEW_PX, VIEW_PX), parts of each photograph at its own scale.
        whole: (B, 3, VIEW_PX, VIEW_PX), each photograph scaled down.
    """

    crops: Tensor
    whole: Tensor


class DegradationClassifier(nn.Module):
    """Views of photographs → logits of `CLASSES`."""

    def __init__(self) -> None:
        super().__init__()
        self.crop_trunk = make_trunk()
        self.whole_trunk = make_trunk()
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(6 * CHANNELS[-1], len(CLASSES))

    def forward(self, views: Views) -> Tensor:
        """Logits (B, len(CLASSES)); any number of crops, the same for all of a batch."""
        batch, count = views.crops.shape[:2]
        seen = spread(self.crop_trunk(prepared(views.crops.flatten(0, 1)))).view(batch, count, -1)
        whole = spread(self.whole_trunk(prepared(views.whole)))
        # A streak may be in one crop only, so the mean alone would drown it.
        features = torch.cat((seen.mean(1), seen.amax(1), whole), -1)
        return self.head(self.dropout(features))


def make_trunk() -> nn.Sequential:
    """Build five convolutions, (B, 5, H, W) → (B, 96, H / 16, W / 16)."""
    layers: list[nn.Module] = []
    inputs = 5
    for number, outputs in enumerate(CHANNELS):
        kernel = 5 if number == 0 else 3
        stride = 1 if number == len(CHANNELS) - 1 else 2
        layers += [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
        inputs = outputs
    return nn.Sequential(*layers)


def prepared(images: Tensor) -> Tensor:
    """Stack RGB in [0, 1], its darkest channel and its fine detail: (B, 3, H, W) → (B, 5, H, W).

    Haze lifts the darkest channel (He et al., "Single Image Haze Removal Using Dark Channel Prior",
    CVPR 2009); streaks, flakes and moiré are fine detail, which is faint beside the image itself.
    The memory format is the one in which convolutions are fastest on CPUs.
    """
    darkest = images.amin(1, keepdim=True)
    grey = images.mean(1, keepdim=True)
    detail = grey - F.avg_pool2d(F.pad(grey, (2, 2, 2, 2), mode="reflect"), 5, stride=1)
    inputs = torch.cat(((images - 0.5) * 4, (darkest - 0.35) * 4, detail * 12), 1)
    return inputs.contiguous(memory_format=torch.channels_last)


def spread(features: Tensor) -> Tensor:
    """Return mean and maximum of each channel: (B, C, H, W) → (B, 2 C)."""
    return torch.cat((features.mean((-2, -1)), features.amax((-2, -1))), -1)


def save_classifier(
    net: DegradationClassifier, path: str | Path, *, metadata: Mapping[str, str]
) -> None:
    """Write a classifier as `.safetensors`, in one move.

    Args:
        net: the classifier.
        path: where to; a file of that name is replaced.
        metadata: what else the file shall say; `threshold` is what `load_classifier` gives back.
    """
    state = {
        name: tensor
        for name, tensor in net.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    about = {"architecture": "classifier", "classes": ",".join(CLASSES), **metadata}
    write_safetensors(state, path, about=about)


def load_classifier(
    path: str | Path = CLASSIFIER_WEIGHTS,
) -> tuple[DegradationClassifier, Metadata]:
    """Load a classifier that `save_classifier` wrote, by default the bundled one.

    Returns:
        The classifier on the CPU in evaluation mode, and its metadata.

    Raises:
        CheckpointError: if there is no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        what = "is not bundled yet" if path == CLASSIFIER_WEIGHTS else "is no file"
        raise CheckpointError(
            f"{path}: {what}; choose the weights with --task or --weights, or train a classifier"
            " with scripts/train_classifier.py of the repository"
        )
    state, metadata = read_state(path)
    if metadata.get("classes") != ",".join(CLASSES):
        raise CheckpointError(f"{path}: is no classifier of {', '.join(CLASSES)}")
    net = DegradationClassifier()
    missing, unknown = net.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or unknown:
        names = ", ".join([*missing, *unknown][:3])
        raise CheckpointError(f"{path}: does not fit the classifier: {names}")
    return net.to(memory_format=torch.channels_last).eval(), metadata  # type: ignore[call-overload]
