"""What a step trains on: which crops are degraded, and that a seed tells how."""

from pathlib import Path

import pytest
import torch
from tiny_runs import make_recipe, of_pairs, write_images
from torch import Tensor

from fairweather.data import DEGRADATIONS, WEATHERS, ImageCache
from fairweather.training import (
    degrade_crops,
    degrade_held_out,
    seed_of,
    split_pairs,
    training_crops,
)


def a_batch(size: int, *, synthetic: list[bool]) -> dict[str, Tensor]:
    clean = torch.randint(0, 256, (size, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    clean = clean.to(torch.uint8)
    kinds = torch.tensor(synthetic)
    degraded = torch.where(kinds.view(-1, 1, 1, 1), clean, clean // 2)
    return {"degraded": degraded, "clean": clean, "synthetic": kinds}


def dimmed(clean: Tensor, *, generator: torch.Generator) -> Tensor:
    """Degradation that, unlike rain, surely changes each image."""
    return clean * torch.rand(len(clean), 1, 1, 1, generator=generator) / 2


def failing(clean: Tensor, *, generator: torch.Generator) -> Tensor:
    raise AssertionError("not in the shares")


def test_only_synthetic_crops_are_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEGRADATIONS, "rain", dimmed)
    recipe = make_recipe(data={"clean": ["clean"], "identity_fraction": 0.0})
    batch = a_batch(4, synthetic=[True, False, True, False])
    degraded, clean = degrade_crops(batch, recipe=recipe, index=0, seed=1)
    assert torch.equal(clean, batch["clean"].float() / 255)
    for index, synthetic in enumerate(batch["synthetic"].tolist()):
        untouched = torch.equal(degraded[index], batch["degraded"][index].float() / 255)
        assert untouched is not synthetic
    assert torch.equal(degraded, degrade_crops(batch, recipe=recipe, index=0, seed=1)[0])
    assert not torch.equal(degraded, degrade_crops(batch, recipe=recipe, index=0, seed=2)[0])


def test_some_crops_stay_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEGRADATIONS, "rain", dimmed)
    recipe = make_recipe(data={"clean": ["clean"], "identity_fraction": 0.25})
    batch = a_batch(400, synthetic=[True] * 400)
    degraded, clean = degrade_crops(batch, recipe=recipe, index=0, seed=1)
    untouched = (degraded == clean).flatten(1).all(1).float().mean().item()
    assert untouched == pytest.approx(0.25, abs=0.09)  # four standard deviations


def test_weathers_come_in_the_recipes_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in WEATHERS:
        monkeypatch.setitem(WEATHERS, task, dimmed if task == "snow" else failing)
    shares = {"clean": ["clean"], "weather_shares": {"snow": 2.0}}
    recipe = make_recipe(task="weather", data=shares)
    degraded, clean = degrade_crops(
        a_batch(4, synthetic=[True] * 4), recipe=recipe, index=0, seed=1
    )
    assert (degraded != clean).flatten(1).any(1).all()


def test_a_recipe_may_draw_a_degradation_from_other_ranges() -> None:
    flat = {"layers": [1, 1], "opacity": [0.0, 0.0]}
    recipe = make_recipe(task="raindrop", data={"clean": ["clean"], "ranges": flat})
    batch = a_batch(4, synthetic=[True] * 4)
    degraded, clean = degrade_crops(batch, recipe=recipe, index=0, seed=1)
    assert torch.equal(degraded, clean)
    one = {**a_batch(1, synthetic=[True]), "number": torch.tensor([0])}
    degraded, clean = degrade_held_out(one, recipe=recipe)
    assert torch.equal(degraded, clean)


def test_a_stage_may_leave_more_crops_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEGRADATIONS, "rain", dimmed)
    recipe = make_recipe(data={"clean": ["clean"], "identity_fraction": 0.0})
    stage = recipe.stages[0].model_copy(update={"identity_fraction": 0.9})
    recipe = recipe.model_copy(update={"stages": (recipe.stages[0], stage)})
    batch = a_batch(400, synthetic=[True] * 400)
    untouched = [
        (degraded == clean).flatten(1).all(1).float().mean().item()
        for degraded, clean in (
            degrade_crops(batch, recipe=recipe, index=index, seed=1) for index in (0, 1)
        )
    ]
    assert untouched == [0, pytest.approx(0.9, abs=0.06)]


def test_a_held_out_image_has_the_same_degradation_at_every_validation() -> None:
    recipe = make_recipe()
    batch = a_batch(1, synthetic=[True]) | {"number": torch.tensor([4])}
    degraded, clean = degrade_held_out(batch, recipe=recipe)
    torch.rand(3)
    again, _ = degrade_held_out(batch, recipe=recipe)
    other, _ = degrade_held_out(batch | {"number": torch.tensor([5])}, recipe=recipe)
    assert torch.equal(degraded, again)
    assert not torch.equal(degraded, other)
    assert torch.equal(clean, batch["clean"].float() / 255)


def test_every_stage_and_step_has_a_seed_of_its_own() -> None:
    recipe = make_recipe()
    batches = [{"number": torch.tensor([number])} for number in range(20)]
    seeds = {seed_of(batch, recipe=recipe, index=index) for batch in batches for index in (0, 1)}
    assert len(seeds) == 40


def test_each_pair_comes_once_an_epoch_if_the_recipe_says_so(tmp_path: Path) -> None:
    """In another order each time, whichever process or worker asks for which crop."""
    data = {"pairs": ["pairs"], "held_out_every": 3, "each_once": True}
    recipe = of_pairs(data=data)
    pairs, _ = split_pairs(recipe, write_images(tmp_path, clean=0, pairs=12))
    count = len(pairs)
    crops = training_crops(recipe, index=0, pairs=pairs, batches=3 * count, images=ImageCache(None))
    assert (count, len(crops)) == (8, 4 * 3 * count)
    drawn = {number: int(crops[number]["index"]) for number in reversed(range(len(crops)))}
    epochs = [
        tuple(drawn[number] for number in range(begin, begin + count))
        for begin in range(0, len(crops), count)
    ]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert len(set(epochs)) == len(epochs)
