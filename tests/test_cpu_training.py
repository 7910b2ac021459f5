"""Training attention on a CPU piece by piece, beside the plain way."""

from typing import Any

import pytest
import torch
from parity import random_model

from fairweather.models import ASTConfig, plain_kernels
from fairweather.models.fast import cpu_training

SMALL = ASTConfig(embed_dim=8, depths=(1, 2, 2), heads=(1, 2, 4), window=4, mlp_ratio=1.5)
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"branches": "dense", "encoder_attention": True},
    {"branches": "sparse", "bottleneck_shift": True},
    {"window": 8, "global_context": True, "feed_forward": "leff"},
)

Gradients = dict[str, torch.Tensor]


def step_of(model: torch.nn.Module, x: torch.Tensor, *, plain: bool = False) -> Gradients:
    """Return what a step gives: the residual and the gradients of the image and the parameters."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    if plain:
        with plain_kernels():
            residual = model(x) - x
            residual.square().sum().backward()
    else:
        residual = model(x) - x
        residual.square().sum().backward()
    assert x.grad is not None
    parameters = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    return {"residual": residual.detach(), "image": x.grad, **parameters}


def error_of(ours: Gradients, expected: Gradients) -> float:
    """Return the largest relative error of a tensor, in the Euclidean norm."""
    assert ours.keys() == expected.keys()
    errors = [(ours[name] - expected[name]).norm() / expected[name].norm() for name in expected]
    return float(torch.stack(errors).max())


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("windows", [1, 5])
def test_steps_are_those_of_the_plain_way(
    changes: dict[str, Any], windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_training, "WINDOWS_IN_PIECE", windows)  # pieces of one row and of two
    model = random_model(SMALL, std=0.2, **changes)
    x = torch.rand(2, 3, 37, 53)
    expected = step_of(model, x, plain=True)
    forward = cpu_training.AttentionInPieces.forward
    used = []
    monkeypatch.setattr(
        cpu_training.AttentionInPieces,
        "forward",
        staticmethod(lambda *args: used.append(1) or forward(*args)),
    )
    assert error_of(step_of(model, x), expected) < 2e-5
    assert used


def test_bf16_is_as_precise_as_the_plain_way() -> None:
    model = random_model(SMALL, std=0.2)
    x = torch.rand(2, 3, 64, 64)
    exact = step_of(model, x, plain=True)
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = step_of(model, x), step_of(model, x, plain=True)
    assert 0 < error_of(ours, exact) < 1.3 * error_of(plain, exact)


def test_double_precision_stays_plain() -> None:
    model = random_model(SMALL, std=0.2).double()
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    expected = step_of(model, x, plain=True)
    assert error_of(step_of(model, x), expected) == 0


def test_activation_checkpointing_changes_nothing() -> None:
    model = random_model(SMALL, std=0.2)
    x = torch.rand(1, 3, 32, 32)
    expected = step_of(model, x)
    model.activation_checkpointing = True
    assert error_of(step_of(model, x), expected) == 0
