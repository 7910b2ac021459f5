"""The parts of a training stage: which images it sees, how they are degraded, how it steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import first_stage

from fairweather.data import Pair
from fairweather.errors import DataError, RecipeError
from fairweather.models import create_model
from fairweather.training import Recipe, split_pairs
from fairweather.training.data_module import RestorationData
from fairweather.training.module import RestorationModule
from fairweather.training.run import freeze

STAGE = {"crop_px": 16, "batch": 2, "steps": 6, "learning_rate": 1e-3}


def make_recipe(**changes: Any) -> Recipe:
    tree: dict[str, Any] = {
        "name": "tiny",
        "task": "rain",
        "description": "A recipe for tests.",
        "preset": "ast_n",
        "data": {"clean": ["clean"]},
        "stages": [STAGE],
    }
    return Recipe.model_validate(tree | changes)


def make_data(
    root: Path, recipe: Recipe, *, world_size: int = 1, workers: int = 0
) -> RestorationData:
    stage = first_stage(recipe, split=split_pairs(recipe, root), workers=workers)
    return RestorationData(stage, world_size=world_size)


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def numbered(root: Path, folder: str, numbers: range) -> None:
    """Images of one brightness each, so that a crop tells where it is from."""
    for number in numbers:
        save(root / folder / f"{number:02}.png", np.full((24, 24, 3), 10 * number, np.uint8))


def numbers_in(loader: Any) -> set[int]:
    return {int(image[0, 0, 0]) // 10 for batch in loader for image in batch["clean"].unbind(0)}


def tiny_data(root: Path, **data: Any) -> RestorationData:
    stage = {**STAGE, "batch": 4, "steps": 60}
    return make_data(root, make_recipe(data={"clean": ["clean"], **data}, stages=[stage]))


def test_held_out_images_are_never_trained_on(tmp_path: Path) -> None:
    numbered(tmp_path, "clean", range(9))
    for side in ("input", "target"):
        numbered(tmp_path, f"pairs/{side}", range(9, 16))
    data = tiny_data(tmp_path, pairs=["pairs"], real_fraction=0.5, held_out_every=4)
    assert numbers_in(data.val_dataloader()) == {0, 4, 8, 12}
    assert numbers_in(data.train_dataloader()) == set(range(16)) - {0, 4, 8, 12}


def test_held_out_images_are_not_trained_on_by_way_of_another_folder(tmp_path: Path) -> None:
    numbered(tmp_path, "clean", range(4))
    numbered(tmp_path, "clean/more", range(4, 8))
    data = tiny_data(tmp_path, clean=["clean", "clean/more"], held_out_every=5)
    held_out = numbers_in(data.val_dataloader())
    assert held_out
    assert not held_out & numbers_in(data.train_dataloader())


def test_layers_of_rain_stay_on_their_side(tmp_path: Path) -> None:
    numbered(tmp_path, "clean", range(4))
    numbered(tmp_path, "layers", range(9))
    for side in ("input", "target"):
        numbered(tmp_path, f"pairs/{side}", range(9, 13))
    layers = {"layers": ["layers"], "layers_of_pairs": True, "held_out_every": 4}
    data = {"clean": ["clean"], "pairs": ["pairs"], "real_fraction": 0.5, **layers}
    training, held_out = split_pairs(make_recipe(data=data), tmp_path)
    sources = []
    for pairs in (training, held_out):
        layered = [pair for pair in pairs if pair.degrade]
        (bank,) = {getattr(pair.degrade, "__self__") for pair in layered}  # noqa: B009
        assert {pair.clean for pair in layered} == {
            pair.clean for pair in pairs if pair.is_synthetic
        }
        files = [source for source in bank.sources if isinstance(source, Path)]
        rainy = [source for source in bank.sources if not isinstance(source, Path)]
        assert rainy == [pair for pair in pairs if not pair.is_synthetic]
        sources.append({path.stem for path in files})
    assert sources == [{"01", "02", "03", "05", "06", "07"}, {"00", "04", "08"}]


def test_held_out_layers_are_the_same_at_every_validation(tmp_path: Path) -> None:
    numbered(tmp_path, "clean", range(4))
    streaks = np.zeros((64, 64, 3), np.uint8)
    streaks[:, ::8] = 90
    for number in range(3):
        save(tmp_path / f"layers/{number}.png", streaks)
    data = tiny_data(tmp_path, layers=["layers"], held_out_every=2)
    first, again = (list(data.val_dataloader()) for _ in range(2))
    kinds = [batch["synthetic"].item() for batch in first]
    assert kinds == [True, True, False, False]
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one["degraded"], two["degraded"])
        assert torch.equal(one["degraded"], one["clean"]) is one["synthetic"].item()


def test_one_image_is_not_enough(tmp_path: Path) -> None:
    numbered(tmp_path, "clean", range(1, 2))
    with pytest.raises(DataError, match="one image is not enough"):
        split_pairs(make_recipe(data={"clean": ["clean"]}), tmp_path)


def test_a_held_out_pair_of_two_sizes_is_named(tmp_path: Path) -> None:
    for side, size in (("input", (80, 70)), ("target", (60, 70))):
        for number in range(2):
            save(tmp_path / f"pairs/{side}/{number}.png", np.zeros((*size, 3), np.uint8))
    data = make_data(tmp_path, make_recipe(data={"pairs": ["pairs"], "held_out_every": 2}))
    with pytest.raises(DataError, match=r"0\.png.* 80×70 .* 60×70"):
        next(iter(data.val_dataloader()))


def test_held_out_images_are_cut_in_the_middle_where_they_are_larger(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:40, :20].astype(np.uint8)
    for number in range(2):
        save(tmp_path / f"clean/{number}.png", np.stack([rows, columns, rows], -1))
    data = make_data(tmp_path, make_recipe(validation_crop_px=32))
    (batch,) = data.val_dataloader()
    assert batch["clean"].shape == (1, 3, 32, 20)
    assert batch["clean"][0, 0, :, 0].tolist() == list(range(4, 36))
    assert torch.equal(batch["degraded"], batch["clean"])
    assert batch["synthetic"].tolist() == [True]


def test_a_batch_divides_among_the_devices(tmp_path: Path) -> None:
    numbered(tmp_path, "clean", range(2))
    with pytest.raises(DataError, match="batch 2 does not divide among 3 devices"):
        make_data(tmp_path, make_recipe(), world_size=3)


@pytest.mark.filterwarnings(  # Python 3.12 and later, of the loading process
    "ignore:.*multi-threaded, use of fork:DeprecationWarning"
)
def test_loading_processes_and_resuming_change_no_crop(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(5):
        save(tmp_path / f"clean/{number}.png", random.integers(0, 256, (24, 40, 3), np.uint8))
    recipe = make_recipe()
    one, other = (make_data(tmp_path, recipe, workers=workers) for workers in (0, 1))
    expected = list(one.train_dataloader())
    assert len(expected) == recipe.stages[0].steps
    loader = other.train_dataloader()
    stream = iter(loader)
    first = [next(stream) for _ in range(4)]
    resumed = other.train_dataloader()
    resumed.load_state_dict(loader.state_dict())
    for batch, expected_batch in zip([*first, *resumed], expected, strict=True):
        assert all(torch.equal(batch[key], expected_batch[key]) for key in expected_batch)


def a_module(**changes: Any) -> RestorationModule:
    pair = Pair(Path("a.png"), Path("a.png"))
    stage = first_stage(make_recipe(**changes), split=([pair] * 8, [pair]))
    return RestorationModule(create_model("ast_n"), stage=stage)


def test_frozen_parts_keep_their_weights_and_nothing_else_does() -> None:
    module = a_module(stages=[{**STAGE, "frozen": ["encoder.1", "input_conv.weight"]}])
    frozen = {
        name for name, parameter in module.model.named_parameters() if not parameter.requires_grad
    }
    assert frozen == {
        name
        for name in module.model.state_dict()
        if name.startswith("encoder.1.") or name == "input_conv.weight"
    }
    before = {name: one.clone() for name, one in module.model.named_parameters()}
    configured: Any = module.configure_optimizers()
    torch.stack([one.sum() for one in module.model.parameters()]).sum().backward()
    configured["optimizer"].step()
    configured["lr_scheduler"]["scheduler"].step()
    same = {name for name, one in module.model.named_parameters() if torch.equal(one, before[name])}
    assert same == frozen
    freeze(module.model, ())  # as the next stage does
    assert all(one.requires_grad for one in module.model.parameters())


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (("context.gate",), "'context.gate'; there are input_conv, encoder, downsample"),
        (("",), "leave nothing to train"),
    ],
)
def test_what_cannot_be_frozen_is_named(parts: tuple[str, ...], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        freeze(create_model("ast_n"), parts)


def test_the_optimiser_follows_the_recipe() -> None:
    stage = {**STAGE, "warmup_steps": 2, "final_learning_rate": 1e-5}
    module = a_module(weight_decay=0.125, stages=[stage])
    configured: Any = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["weight_decay"] == 0.125
    rates = []
    for _ in range(module.stage_run.length.steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == pytest.approx([0.5e-3, 1e-3, 1e-3])
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-5)
