"""Checkpoints of any origin: what fits loads from any wrapping; none gets more than it holds."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import random_model
from safetensors.torch import save_file
from torch import Tensor

from fairweather.errors import CheckpointError
from fairweather.models import (
    AST,
    ASTConfig,
    expected_state,
    load_model,
    read_state,
    save_model,
    save_official,
    to_official,
)

SMALL = ASTConfig(embed_dim=4, depths=(1, 2, 1), heads=(1, 2, 2), window=4, mlp_ratio=1.5)
State = dict[str, Tensor]


def a_model(**changes: object) -> AST:
    return random_model(SMALL, std=0.2, **changes)


def under(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPINGS: dict[str, Callable[[State], dict[str, Any]]] = {
    "model_state_dict": lambda s: {"model_state_dict": s, "epoch": 1},
    "averaged": lambda s: {"n_averaged": torch.tensor(5), **under(s, "module.")},
    "bare average": lambda s: {"n_averaged": torch.tensor(5), **s},
    "lightning": lambda s: {"state_dict": under(s, "net.")},
    "with a loss": lambda s: {"state_dict": {**under(s, "model."), "loss.vgg.mean": torch.ones(3)}},
    "state_dict_ema": lambda s: {"state_dict_ema": s},
    "net_g": lambda s: {"net_g": s, "net_d": {"conv.weight": torch.ones(2)}},
    "deep": lambda s: {"nets": {"restorer": {"weights": under(s, "module._orig_mod.")}}},
    "keys of other kinds": lambda s: {"state_dict": {**s, 3: torch.ones(1)}},
}


@pytest.mark.parametrize("naming", ["ours", "official"])
@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_state_dict_is_found_under_any_wrapper(
    tmp_path: Path, wrapping: str, naming: str
) -> None:
    model = a_model()
    state = model.state_dict() if naming == "ours" else to_official(model.state_dict())
    torch.save(WRAPPINGS[wrapping](state), tmp_path / "x.pth")
    loaded = load_model(tmp_path / "x.pth").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in model.state_dict().items())


def test_safetensors_are_unwrapped_in_the_same_way(tmp_path: Path) -> None:
    model = a_model()
    state = {k: v.clone() for k, v in under(to_official(model.state_dict()), "module.").items()}
    save_file(state, tmp_path / "x.safetensors")
    loaded = load_model(tmp_path / "x.safetensors")
    assert torch.equal(loaded.output_conv.weight, model.output_conv.weight)


def test_the_average_is_taken_where_both_are_there(tmp_path: Path) -> None:
    model, average = a_model(), a_model()
    average.output_conv.weight.data += 1
    for content in (
        {"state_dict": model.state_dict(), "state_dict_ema": average.state_dict()},
        {**under(model.state_dict(), "model."), **under(average.state_dict(), "model_ema.")},
    ):
        torch.save(content, tmp_path / "x.pth")
        loaded = load_model(tmp_path / "x.pth")
        assert torch.equal(loaded.output_conv.weight, average.output_conv.weight)


def test_the_error_names_what_it_looked_at(tmp_path: Path) -> None:
    torch.save({"params": {"conv.weight": torch.ones(1)}, "iter": 3}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"looked at params, and the first keys .*conv\.wei"):
        load_model(tmp_path / "x.pth")
    broken = a_model().state_dict()
    del broken["output_conv.bias"]
    torch.save({"net_g": under(broken, "module.")}, tmp_path / "x.pth")
    with pytest.raises(
        CheckpointError, match=r"output_conv\.bias is missing.*looked at net_g \(module\.\*\)"
    ):
        load_model(tmp_path / "x.pth")


def with_config(path: Path, **fields: Any) -> None:
    """Write a small network whose config says something else."""
    model = a_model()
    config = {"embed_dim": 4, "depths": [1, 2, 1], "heads": [1, 2, 2], "window": 4}
    text = json.dumps({**config, "mlp_ratio": 1.5, **fields})
    save_model(model, path, metadata={"config": text})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": [100_000, 2, 1]}, "256 blocks"),
        ({"depths": [1, 200, 1]}, "asks for 202 blocks"),
        ({"depths": [1] * 4001, "heads": [1] * 4001}, "at most 17"),
        ({"embed_dim": 3000}, r"is \(8,\) instead of \(6000,\)"),
        ({"embed_dim": 10**30, "heads": [1, 1, 1]}, "is not an AST checkpoint"),
        ({"window": 200}, "GiB of indices"),
        ({"mlp_ratio": float("inf")}, "must be finite"),
        ({"mlp_ratio": 1e300}, "is not an AST checkpoint"),
        ({"mlp_ratio": "much"}, "its config is none of an AST"),
        ({"depths": 1.5}, "its config is none of an AST"),
        ({"window": 4.5}, "must be whole numbers"),
        ({"global_context": "yes"}, "must be true or false"),
        ({"symmetries": "most"}, "symmetries 'most'"),
        ({"a_new_field": 1}, "a_new_field"),
    ],
)
def test_a_config_is_compared_with_the_tensors_first(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with_config(tmp_path / "x.safetensors", **fields)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / "x.safetensors")
    assert "x.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "not JSON", "[]", '{"window": ' + "9" * 5000 + "}"]
)
def test_a_config_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    save_model(a_model(), tmp_path / "x.safetensors", metadata={"config": text})
    with pytest.raises(CheckpointError, match="its config is none of an AST"):
        load_model(tmp_path / "x.safetensors")


def spoilt(state: State, change: Callable[[Tensor], Tensor]) -> State:
    return {**state, "output_conv.bias": change(state["output_conv.bias"])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.expand(3).new_zeros(1).expand(3), None),
        (lambda t: torch.zeros(1).expand(10**12), "repeat what they hold"),
        (lambda t: t.to("meta"), "no dense tensor"),
        (lambda t: t.to_sparse(), "no dense tensor"),
        (lambda t: t.to(torch.int8), "holds torch.int8"),
        (lambda t: t.bool(), "holds torch.bool"),
        (lambda t: t[0], "instead of"),
        (lambda t: t * float("nan"), r"not finite .* output_conv\.bias"),
        (lambda t: t.double() + 1e300, "not finite"),  # in float32, which is what is loaded
    ],
)
def test_tensors_are_plain_finite_numbers_of_the_file(
    tmp_path: Path, change: Callable[[Tensor], Tensor], message: str | None
) -> None:
    torch.save(spoilt(a_model().state_dict(), change), tmp_path / "x.pth")
    if message is None:
        assert load_model(tmp_path / "x.pth").output_conv.bias.tolist() == [0, 0, 0]
        return
    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path / "x.pth")


def test_a_pickle_that_holds_itself_or_no_names_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {"epoch": 1}
    content["state_dict"] = content
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_model(tmp_path / "x.pth")
    torch.save([torch.ones(3)], tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="holds no state dict, but a list"):
        load_model(tmp_path / "x.pth")


def test_an_archive_that_unpacks_to_more_than_itself_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"input_conv.weight": torch.zeros(1 << 22)}}, tmp_path / "x.pth")
    with (
        zipfile.ZipFile(tmp_path / "x.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(CheckpointError, match="would unpack to 16,7"):
        load_model(tmp_path / "bomb.pth")


def test_spoilt_weights_are_neither_saved_nor_converted(tmp_path: Path) -> None:
    model = a_model()
    model.input_conv.weight.data[0] = float("inf")
    for save, name in ((save_model, "x.safetensors"), (save_official, "x.pth")):
        with pytest.raises(CheckpointError, match=r"input_conv\.weight"):
            save(model, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    torch.save({"weight": torch.full((2,), float("nan"))}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="not finite"):
        read_state(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"feed_forward": "leff", "encoder_attention": True, "branches": "dense"},
        {"feed_forward": "mlp", "global_context": True, "depths": (3, 1, 2)},
        {"window": 7},
        {"fold": 2},
    ],
)
def test_shapes_are_known_without_building(changes: dict[str, object]) -> None:
    model = a_model(**changes)
    shapes = {name: tensor.shape for name, tensor in expected_state(model.config).items()}
    assert shapes == {name: tensor.shape for name, tensor in model.state_dict().items()}
