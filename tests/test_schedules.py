"""How long a stage is, and the learning rate at the steps that matter."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairweather.training import Stage
from fairweather.training.schedules import StageLength, cosine_with_warmup, length_of


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
    assert rate(120) == floor
    assert rate(1000) == rate(120)  # a step too many does not rise again


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


@pytest.mark.parametrize("cycles", [1, 2, 3, 7, 49])  # 1 / 49 * 49 < 1
def test_every_cycle_is_the_cosine_of_a_stage_of_its_length(cycles: int) -> None:
    length, warmup_steps = 30, 5
    steps = warmup_steps + cycles * length
    one = [cosine_with_warmup(step, steps=length, warmup_steps=0, floor=0.1) for step in range(30)]
    rates = [
        cosine_with_warmup(step, steps=steps, warmup_steps=warmup_steps, floor=0.1, cycles=cycles)
        for step in range(warmup_steps, steps)
    ]
    assert rates == one * cycles
    assert one[0] == 1
    assert one[-1] == pytest.approx(0.1, abs=0.003)


@given(
    cycles=st.integers(1, 12),
    length=st.integers(2, 60),
    spare=st.integers(0, 11),
    warmup_steps=st.integers(0, 20),
    floor=st.floats(0, 0.9, allow_subnormal=False),
)
def test_the_rate_restarts_once_a_cycle_and_ends_at_the_floor(
    cycles: int, length: int, spare: int, warmup_steps: int, floor: float
) -> None:
    steps = warmup_steps + cycles * length + spare % cycles  # that cycles need not divide

    def rate(step: int) -> float:
        return cosine_with_warmup(
            step, steps=steps, warmup_steps=warmup_steps, floor=floor, cycles=cycles
        )

    rates = [rate(step) for step in range(warmup_steps, steps + 1)]
    restarts = [step for step, (now, after) in enumerate(pairwise(rates), 1) if after > now]
    span = steps - warmup_steps
    assert restarts == [math.ceil(cycle * span / cycles) for cycle in range(1, cycles)]
    assert all(floor - 1e-6 <= share <= 1 + 1e-6 for share in rates)
    assert rates[0] == pytest.approx(1)
    assert rates[-1] == rate(steps + 1) == floor


def make_stage(**changes: int) -> Stage:
    return Stage.model_validate({"crop_px": 16, "batch": 4, "learning_rate": 1e-3, **changes})


@pytest.mark.parametrize(
    ("stage", "images", "every", "expected"),
    [
        ({"steps": 100, "warmup_steps": 7}, 40, 20, (100, 7, 20)),
        ({"steps": 100}, 40, None, (100, 0, 10)),  # validated once an epoch
        ({"steps": 8}, 40, None, (8, 0, 8)),  # which may be longer than the stage
        ({"steps": 8}, 40, 1000, (8, 0, 8)),
        ({"epochs": 3}, 40, None, (30, 0, 10)),
        ({"epochs": 3}, 41, None, (33, 0, 11)),  # every image is shown
        ({"epochs": 3, "warmup_epochs": 2, "warmup_steps": 5}, 40, 6, (30, 25, 6)),
        ({"epochs": 1, "warmup_steps": 500}, 40, None, (10, 9, 10)),  # one step has the full rate
        ({"epochs": 5}, 3, None, (5, 0, 1)),  # fewer images than a batch
        ({"epochs": 3, "accumulate": 4}, 40, None, (30, 0, 10)),  # parts are no steps
    ],
)
def test_a_stage_is_counted_in_steps(
    stage: dict[str, int], images: int, every: int | None, expected: tuple[int, int, int]
) -> None:
    length = length_of(make_stage(**stage), images=images, validate_every_steps=every)
    assert length == StageLength(*expected)


@given(images=st.integers(1, 10_000), batch=st.integers(1, 64), epochs=st.integers(1, 50))
def test_an_epoch_is_as_many_crops_as_images(images: int, batch: int, epochs: int) -> None:
    stage = make_stage(batch=batch, epochs=epochs)
    length = length_of(stage, images=images, validate_every_steps=None)
    assert 0 <= length.steps * batch - epochs * images < epochs * batch
    assert length.steps == epochs * length.validate_every_steps


def test_parts_of_a_cosine_are_that_cosine() -> None:
    whole = [cosine_with_warmup(step, steps=40, warmup_steps=0, floor=0.1) for step in range(41)]
    parts = [
        cosine_with_warmup(step, steps=steps, warmup_steps=0, floor=0.1, part=part)
        for steps, part in ((10, (0, 0.25)), (30, (0.25, 1)))
        for step in range(steps)
    ]
    assert parts == pytest.approx(whole[:-1])
