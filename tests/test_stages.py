"""What a recipe says about how it is computed: in parts, with less memory, in other numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from tiny_images import pairs_in
from tiny_runs import (
    ALONE,
    STAGES,
    assert_close,
    logged,
    make_recipe,
    of_pairs,
    read_logs,
    save,
    train,
    weights_in,
    write_images,
)
from torch import Tensor
from torch._dynamo.backends.debugging import aot_eager

from fairweather.data import read_bytes
from fairweather.errors import CheckpointError, DataError, RecipeError
from fairweather.models import AST, create_model, load_model
from fairweather.training import Recipe

pytestmark = ALONE


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("data"), pairs=8)


class Optimisers(Callback):
    """Keeps the optimiser of every stage."""

    def __init__(self) -> None:
        self.seen: list[torch.optim.Optimizer] = []

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.seen += trainer.optimizers


def trained(recipe: Recipe, *callbacks: Callback, data: Path, run: Path) -> dict[str, Tensor]:
    """The weights after the last step."""
    train(recipe, data=data, run=run, callbacks=callbacks)
    return weights_in(sorted(run.glob("stage-*"))[-1] / "last.ckpt")


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_is_the_batch(data: Path, tmp_path: Path, parts: int) -> None:
    """Clipped too: the norm is of the whole batch's gradient, not of each part's."""

    def recipe(accumulate: int) -> Recipe:
        stage = {"crop_px": 16, "batch": 4, "steps": 6, "learning_rate": 1e-3}
        return of_pairs(
            stages=[stage | {"accumulate": accumulate}],
            validate_every_steps=3,
            gradient_clip_norm=0.01,
        )

    expected = trained(recipe(1), data=data, run=tmp_path / "whole")
    assert_close(trained(recipe(parts), data=data, run=tmp_path / "parts"), expected, atol=1e-9)
    in_parts, whole = (read_logs(tmp_path / run)[0] for run in ("parts", "whole"))
    for column, steps in (("val_psnr_db", [2, 5]), ("lr", range(6))):
        assert in_parts[column] == pytest.approx(whole[column], rel=0, abs=1e-9)
        assert list(whole[column]) == list(steps)
    assert list(in_parts["train_loss"]) == list(range(6))


def test_the_last_weights_are_measured_where_no_interval_ends(data: Path, tmp_path: Path) -> None:
    """Else a run would end with weights that could not be kept, however good they are."""
    stages = [
        {"crop_px": 16, "batch": 6, "accumulate": 2, "epochs": 4, "learning_rate": 1e-3},
        {"crop_px": 16, "batch": 12, "epochs": 2, "learning_rate": 1e-3},
    ]
    recipe = make_recipe(stages=stages, validate_every_steps=3)
    train(recipe, data=data, run=tmp_path)
    columns, starts = read_logs(tmp_path)
    assert starts == [0, 8]
    assert list(columns["val_psnr_db"]) == [2, 5, 7, 9]
    assert list(columns["train_loss"]) == list(range(10))


def gradients(*, checkpointing: bool, stochastic_depth: float) -> tuple[dict[str, Tensor], int]:
    """Of each parameter, and how many bytes were kept for them."""
    recipe = make_recipe(
        architecture={**make_recipe().architecture, "depths": [2, 2, 2]}
        | {"stochastic_depth": stochastic_depth}
    )
    torch.manual_seed(0)
    model = create_model(recipe.config, init="official").double().train()
    model.activation_checkpointing = checkpointing
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        restored = model(torch.rand(2, 3, 32, 48, dtype=torch.float64))
    restored.square().mean().backward()
    named = model.named_parameters()
    return {name: p.grad for name, p in named if p.grad is not None}, sum(sizes.values())


@pytest.mark.parametrize("stochastic_depth", [0.0, 0.5])
def test_activations_that_are_computed_again_give_the_same_gradients(
    stochastic_depth: float,
) -> None:
    expected, kept = gradients(checkpointing=False, stochastic_depth=stochastic_depth)
    again, less = gradients(checkpointing=True, stochastic_depth=stochastic_depth)
    assert_close(again, expected, atol=0)
    assert again["input_conv.weight"].abs().max() > 0
    assert less < kept / 2


def test_activation_checkpointing_changes_no_run(data: Path, tmp_path: Path) -> None:
    plain, less = (
        trained(of_pairs(activation_checkpointing=less), data=data, run=tmp_path / str(less))
        for less in (False, True)
    )
    assert_close(less, plain, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)]
)
def test_the_optimiser_is_the_one_asked_for(
    data: Path, tmp_path: Path, name: str, kind: type[torch.optim.Optimizer]
) -> None:
    """A fresh one for each stage, with the stage's rate."""
    optimisers = Optimisers()
    stages = [{**STAGES[0], "steps": 2}, {**STAGES[0], "steps": 1, "learning_rate": 5e-4}]
    recipe = make_recipe(optimizer=name, weight_decay=0.25, stages=stages)
    trained(recipe, optimisers, data=data, run=tmp_path)
    assert [type(optimiser) for optimiser in optimisers.seen] == [kind, kind]
    assert [o.defaults["weight_decay"] for o in optimisers.seen] == [0.25, 0.25]
    assert [o.param_groups[0]["initial_lr"] for o in optimisers.seen] == [1e-3, 5e-4]


def test_a_run_starts_from_the_weights_it_is_given(data: Path, tmp_path: Path) -> None:
    """A rate of next to nothing, so that the first validation is of the weights themselves."""
    recipe = make_recipe(seed=1)
    weights = train(recipe, data=data, run=tmp_path / "first")
    still = make_recipe(
        stages=[{**STAGES[0], "steps": 2, "learning_rate": 1e-12, "final_learning_rate": 0}],
        seed=1,
    )
    scores = []
    for start, run in ((weights, tmp_path / "theirs"), (None, tmp_path / "untrained")):
        train(still, data=data, run=run, weights=start)
        scores.append(logged(run, 0, "val_psnr_db")[-1])
    (best,) = {max(logged(tmp_path / "first", 1, "val_psnr_db"))}
    assert scores[0] == pytest.approx(best, abs=1e-4)
    assert abs(scores[1] - best) > 0.01
    model, theirs = (
        load_model(path).state_dict()
        for path in (tmp_path / "theirs" / "model.safetensors", weights)
    )
    assert_close(model, theirs, atol=1e-9)


def test_weights_of_another_architecture_are_refused(data: Path, tmp_path: Path) -> None:
    weights = train(make_recipe(stages=[{**STAGES[0], "steps": 1}]), data=data, run=tmp_path / "a")
    for changes, told in (
        ({"embed_dim": 8}, "input_conv.weight is (4, 3, 3, 3) instead of (8, 3, 3, 3)"),
        ({"bottleneck_shift": True}, "bottleneck_shift is False instead of True"),
    ):
        other = make_recipe(architecture=make_recipe().architecture | changes)
        with pytest.raises(CheckpointError, match="is not of the recipe's architecture") as caught:
            train(other, data=data, run=tmp_path / "b", weights=weights)
        assert str(caught.value).startswith(f"{weights}: ")
        assert told in str(caught.value)
    with pytest.raises(CheckpointError, match="missing"):
        train(other, data=data, run=tmp_path / "b", weights=tmp_path / "missing.safetensors")
    assert not (tmp_path / "b").exists()


def test_a_step_in_bfloat16(data: Path, tmp_path: Path) -> None:
    """The weights stay float32, and come out near to those of a step in float32."""
    recipes = [
        make_recipe(stages=[{**STAGES[0], "steps": 2}], precision=precision, ema_decay=None)
        for precision in ("bf16-mixed", "32-true")
    ]
    mixed, plain = (
        trained(recipe, data=data, run=tmp_path / recipe.precision) for recipe in recipes
    )
    assert {tensor.dtype for tensor in mixed.values()} == {torch.float32}
    assert_close(mixed, plain, atol=4.1e-3)  # Adam's first steps are of the size of the rate
    assert any(not torch.equal(mixed[name], tensor) for name, tensor in plain.items())
    losses = [logged(tmp_path / p, 0, "train_loss") for p in ("bf16-mixed", "32-true")]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0] != losses[1]


def test_float16_needs_a_gpu(data: Path, tmp_path: Path) -> None:
    """Lightning would silently take bfloat16, whose gradients nobody scales or checks."""
    with pytest.raises(RecipeError, match="16-mixed needs a GPU; choose bf16-mixed"):
        train(make_recipe(precision="16-mixed"), data=data, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own, while it compiles
def test_a_compiled_network_trains_the_same(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the C++ compiler, which would take minutes for a network however small."""
    compiled_graphs: list[int] = []

    def compile_quickly(model: AST) -> None:
        def backend(graph: Any, inputs: Any) -> Any:
            compiled_graphs.append(len(graph.graph.nodes))
            return aot_eager(graph, inputs)

        torch.nn.Module.compile(model, backend=backend)

    monkeypatch.setattr(AST, "compile", compile_quickly)
    stages = [{"crop_px": 16, "batch": 1, "steps": 2, "learning_rate": 1e-3}]
    expected, compiled = (
        trained(
            of_pairs(stages=stages, compile=compile, validation_crop_px=16),
            data=data,
            run=tmp_path / str(compile),
        )
        for compile in (False, True)
    )
    assert len(compiled_graphs) >= 2  # one to train, one to validate
    assert min(compiled_graphs) > 100  # the whole network in one graph
    assert_close(compiled, expected, atol=1e-9)
    assert isinstance(load_model(tmp_path / "True/model.safetensors"), AST)


def broken(root: Path) -> Path:
    """Two of eight pairs are broken: one is cut off, one lies on its side."""
    write_images(root, clean=1, pairs=8)
    pairs = pairs_in(root / "pairs")
    content = pairs[1].degraded.read_bytes()
    pairs[1].degraded.write_bytes(content[: len(content) // 2])
    save(pairs[2].degraded, np.zeros((64, 48, 3), np.uint8))
    save(pairs[2].clean, np.zeros((48, 64, 3), np.uint8))
    return root


def test_broken_pairs_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    root = broken(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        train(of_pairs(), data=root, run=tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("2 of the pairs looked at cannot be trained on:\n")
    assert "input/2.png" in message
    assert "'input/3.png': degraded is 64×48 but clean is 48×64" in message
    assert "--unchecked" in message
    assert not (tmp_path / "run").exists()


def test_unchecked_pairs_are_trained_on(data: Path, tmp_path: Path) -> None:
    """A pair that is upside down is refused; without the check it is trained on all the same."""
    root = write_images(tmp_path / "data", clean=0, pairs=8)
    pair = pairs_in(root / "pairs")[1]
    save(pair.degraded, read_bytes(pair.degraded)[::-1])
    with pytest.raises(DataError, match=r"1 of the pairs .*\n.*input/1\.png"):
        train(of_pairs(), data=root, run=tmp_path / "run")
    path = train(of_pairs(), data=root, run=tmp_path / "run", unchecked=True)
    assert path.exists()
