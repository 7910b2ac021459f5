"""Losses against loops, and the schedule of the learning rate at the steps that matter."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairweather.training.losses import LOSSES, charbonnier, cosine_with_warmup


def images(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 5, 7)])
def test_charbonnier_is_what_a_loop_computes(shape: tuple[int, ...]) -> None:
    restored, clean = images(0, *shape), images(1, *shape)
    terms = [
        math.sqrt((a - b) ** 2 + 0.001**2)
        for a, b in zip(restored.flatten().tolist(), clean.flatten().tolist(), strict=True)
    ]
    expected = sum(terms) / len(terms)
    assert charbonnier(restored, clean).item() == pytest.approx(expected, rel=1e-6)


def test_charbonnier_of_equal_images_is_epsilon() -> None:
    clean = images(0, 2, 3, 4, 4)
    assert charbonnier(clean, clean).item() == pytest.approx(1e-3, rel=1e-5)


def test_charbonnier_has_a_gradient_where_nothing_differs() -> None:
    clean = images(0, 1, 3, 4, 4)
    restored = clean.clone().requires_grad_()
    charbonnier(restored, clean).backward()
    assert restored.grad is not None
    assert torch.equal(restored.grad, torch.zeros_like(clean))


def test_charbonnier_has_the_right_gradient() -> None:
    restored = images(0, 1, 3, 2, 2).double().requires_grad_()
    clean = images(1, 1, 3, 2, 2).double()
    assert torch.autograd.gradcheck(lambda image: charbonnier(image, clean), restored)


def test_l1_is_what_a_loop_computes() -> None:
    restored, clean = images(0, 2, 3, 5, 7), images(1, 2, 3, 5, 7)
    differences = [
        abs(a - b)
        for a, b in zip(restored.flatten().tolist(), clean.flatten().tolist(), strict=True)
    ]
    expected = sum(differences) / len(differences)
    assert LOSSES["l1"](restored, clean).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_is_one_number_that_grows_with_the_difference(name: str) -> None:
    clean = torch.full((2, 3, 4, 4), 0.5)
    values = [LOSSES[name](clean + by, clean) for by in (0.0, 0.1, 0.2, 0.4)]
    assert all(value.shape == () for value in values)
    assert values == sorted(values)
    assert LOSSES[name](clean - 0.2, clean) == pytest.approx(values[2].item())


def test_the_warm_up_is_a_line_to_the_full_rate() -> None:
    rates = [cosine_with_warmup(step, steps=100, warmup_steps=4, floor=0.1) for step in range(5)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert cosine_with_warmup(0, steps=10, warmup_steps=0, floor=0.0) == 1


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("warmup_steps", [0, 20])
def test_the_cosine_falls_to_the_floor(warmup_steps: int, floor: float) -> None:
    def rate(step: int) -> float:
        return cosine_with_warmup(step, steps=120, warmup_steps=warmup_steps, floor=floor)

    span = 120 - warmup_steps
    for tenth in range(11):
        step = warmup_steps + tenth * span // 10
        progress = (step - warmup_steps) / span
        expected = floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2
        assert rate(step) == pytest.approx(expected, abs=1e-6)
    assert rate(120) == pytest.approx(floor, abs=1e-7)
    assert rate(1000) == rate(120)  # a step too many does not rise again


@settings(deadline=None)
@given(steps=st.integers(1, 500), data=st.data(), floor=st.floats(0, 1, allow_subnormal=False))
def test_the_rate_is_never_negative_and_rises_only_to_warm_up(
    steps: int, data: st.DataObject, floor: float
) -> None:
    warmup_steps = data.draw(st.integers(0, steps - 1))
    rates = [
        cosine_with_warmup(step, steps=steps, warmup_steps=warmup_steps, floor=floor)
        for step in range(steps + 1)
    ]
    assert all(0 <= rate <= 1 + 1e-6 for rate in rates)
    up, down = rates[: warmup_steps + 1], rates[warmup_steps:]
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)
    assert min(down) >= floor - 1e-6
