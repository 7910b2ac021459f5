"""Losses, metrics and learning rates beside PyTorch's; `test_keras_backends.py` runs this."""

from typing import Any

import numpy as np
import pytest
import torch

from fairweather.errors import RecipeError
from fairweather.training.losses import LOSSES
from fairweather.training.losses import ssim as torch_ssim
from fairweather.training.module import psnr_db as torch_psnr_db
from fairweather.training.schedules import cosine_with_warmup

# Keras 3.15 has not caught up with NumPy 2 where it makes tensors of arrays.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")


def images(*size: int, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Clean and restored, (count, H, W, 3) float32; the second leaves [0, 1] here and there."""
    random = np.random.default_rng(1)
    clean = random.random((count, *size, 3), dtype=np.float32)
    return clean, clean + random.normal(0, 0.2, clean.shape).astype(np.float32)


def to_torch(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(0, 3, 1, 2)


def number(value: Any) -> float:
    import keras

    return float(keras.ops.convert_to_numpy(value))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [(16, 16), (23, 37)])
def check_losses_are_those_of_pytorch(fk: Any, name: str, size: tuple[int, int]) -> None:
    clean, restored = images(*size)
    expected = LOSSES[name](to_torch(restored), to_torch(clean)).item()
    assert number(fk.WeightedLoss({name: 1.0})(clean, restored)) == pytest.approx(expected, 1e-5)


def check_charbonnier_is_the_weighted_loss_of_that_name(fk: Any) -> None:
    clean, restored = images(16, 24)
    expected = number(fk.WeightedLoss({"charbonnier": 1.0})(clean, restored))
    assert number(fk.Charbonnier()(clean, restored)) == pytest.approx(expected, 1e-6)
    both = number(fk.WeightedLoss({"charbonnier": 1.0, "edge": 0.5})(clean, restored))
    edge = number(fk.WeightedLoss({"edge": 1.0})(clean, restored))
    assert both == pytest.approx(expected + 0.5 * edge, 1e-5)


def check_a_loss_that_keras_lacks_is_refused(fk: Any) -> None:
    with pytest.raises(RecipeError, match="'perceptual': Keras has only charbonnier"):
        fk.WeightedLoss({"perceptual": 1.0})


def check_metrics_are_means_over_images(fk: Any) -> None:
    clean, restored = images(33, 20, count=3)
    psnr, ssim = fk.PSNR(), fk.SSIM()
    for part in (slice(0, 2), slice(2, 3)):
        for metric in (psnr, ssim):
            metric.update_state(clean[part], restored[part])
    pairs = [
        (to_torch(restored[i : i + 1]).clamp(0, 1), to_torch(clean[i : i + 1])) for i in (0, 1, 2)
    ]
    expected = np.mean([torch_psnr_db(*pair).item() for pair in pairs])
    assert number(psnr.result()) == pytest.approx(expected, abs=1e-4)
    expected = np.mean([1 - torch_ssim(*pair).item() for pair in pairs])
    assert number(ssim.result()) == pytest.approx(expected, abs=1e-5)


def check_identical_images(fk: Any) -> None:
    clean, _ = images(16, 16)
    psnr, ssim = fk.PSNR(), fk.SSIM()
    psnr.update_state(clean, clean)
    ssim.update_state(clean, clean)
    assert (number(psnr.result()), number(ssim.result())) == pytest.approx((100, 1))


@pytest.mark.parametrize(("warmup", "cycles"), [(0, 1), (5, 1), (3, 4)])
def check_learning_rates_are_those_of_pytorch(fk: Any, warmup: int, cycles: int) -> None:
    schedule = fk.CosineWithWarmup(
        2e-3, steps=40, warmup_steps=warmup, final_learning_rate=1e-5, cycles=cycles
    )
    again = type(schedule).from_config(schedule.get_config())
    for step in range(45):
        share = cosine_with_warmup(
            step, steps=40, warmup_steps=warmup, floor=1e-5 / 2e-3, cycles=cycles
        )
        assert number(schedule(step)) == pytest.approx(2e-3 * share, rel=1e-4), step
        assert number(again(step)) == number(schedule(step))


def check_keras_reads_them_back(fk: Any) -> None:
    import keras

    loss = keras.losses.deserialize(keras.losses.serialize(fk.WeightedLoss({"l1": 0.5})))
    assert (type(loss), loss.terms) == (fk.WeightedLoss, {"l1": 0.5})
    for metric in (fk.PSNR(), fk.SSIM(name="mine")):
        again = keras.metrics.deserialize(keras.metrics.serialize(metric))
        assert (type(again), again.name) == (type(metric), metric.name)
