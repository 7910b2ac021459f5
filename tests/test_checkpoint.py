"""Loading and saving weights: ours, official ones in every wrapping, unsafe and foreign ones."""

import dataclasses
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from parity import known_state, official_state_dicts, random_model
from torch import Tensor

from fairweather.errors import CheckpointError
from fairweather.models import (
    AST,
    PRESETS,
    ASTConfig,
    create_model,
    find_weights,
    from_official,
    infer_config,
    list_weights,
    load_model,
    read_metadata,
    save_model,
    save_official,
    symmetries_of,
    to_official,
)

SMALL = ASTConfig(
    embed_dim=8, depths=(1, 2, 1, 1, 2), heads=(1, 2, 4, 2, 2), window=4, mlp_ratio=1.5
)


def a_model(**changes: object) -> AST:
    return random_model(SMALL, std=0.2, **changes)


def assert_same(ours: AST, theirs: AST) -> None:
    left, right = ours.state_dict(), theirs.state_dict()
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


@pytest.mark.parametrize("wrapper", [None, "state_dict", "params", "params_ema"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_official_checkpoints_load_in_every_wrapping(
    tmp_path: Path, wrapper: str | None, prefix: str
) -> None:
    model = a_model()
    state = {f"{prefix}{name}": value for name, value in to_official(model.state_dict()).items()}
    content = {wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}} if wrapper else state
    torch.save(content, tmp_path / "model_best.pth")
    loaded = load_model(tmp_path / "model_best.pth")
    assert_same(loaded, model)
    assert not loaded.training


def test_official_presets_are_told_from_their_keys() -> None:
    for variant, preset in (("ast_t_frfn", "ast_t"), ("ast_b_leff", "ast_b")):
        shapes = official_state_dicts()[variant]
        state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        config = infer_config(from_official(state))
        feed_forward = variant.rpartition("_")[2]
        assert config == dataclasses.replace(PRESETS[preset], feed_forward=feed_forward)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"feed_forward": "leff"},
        {"feed_forward": "mlp", "mlp_ratio": 2.5},
        {"branches": "dense"},
        {"encoder_attention": True},
        {"window": 8},
        {"depths": (1,) * 3, "heads": (1, 4, 2)},
    ],
)
def test_architecture_is_told_from_official_names(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    model = a_model(**changes)
    save_official(model, tmp_path / "model.pth")
    loaded = load_model(tmp_path / "model.pth")
    assert_same(loaded, model)
    image = torch.rand(1, 3, 20, 30)
    with torch.no_grad():
        assert torch.equal(loaded(image), model(image))


def test_bottleneck_shift_is_chosen_by_the_caller_or_by_our_file(tmp_path: Path) -> None:
    model = a_model(depths=(1, 1, 2, 1, 1), bottleneck_shift=True)
    save_official(model, tmp_path / "official.pth")
    save_model(model, tmp_path / "ours.safetensors")
    shifts = {
        (name, asked): load_model(tmp_path / name, bottleneck_shift=asked).config.bottleneck_shift
        for name in ("official.pth", "ours.safetensors")
        for asked in (None, False, True)
    }
    assert shifts == {
        ("official.pth", None): False,
        ("official.pth", False): False,
        ("official.pth", True): True,
        ("ours.safetensors", None): True,
        ("ours.safetensors", False): False,
        ("ours.safetensors", True): True,
    }


def test_a_global_context_is_told_from_names_but_no_official_file_has_one(tmp_path: Path) -> None:
    model = a_model(global_context=True)
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    assert load_model(tmp_path / "plain.pth").config.global_context
    with pytest.raises(CheckpointError, match="global_context"):
        save_official(model, tmp_path / "official.pth")
    assert not (tmp_path / "official.pth").exists()


def test_a_fold_is_told_from_shapes_but_no_official_file_has_one(tmp_path: Path) -> None:
    model = a_model(fold=2)
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    assert load_model(tmp_path / "plain.pth").config.fold == 2
    with pytest.raises(CheckpointError, match="fold"):
        save_official(model, tmp_path / "official.pth")
    assert not (tmp_path / "official.pth").exists()


def test_key_table_works_both_ways() -> None:
    official = known_state("ast_t_frfn")
    back = to_official(from_official(official))
    without_index = {k: v for k, v in back.items() if not k.endswith("relative_position_index")}
    assert without_index.keys() == official.keys()
    for name, value in official.items():
        assert torch.equal(without_index[name], value), name
    assert set(back) == set(official_state_dicts()["ast_t_frfn"])


def test_our_files_keep_config_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = a_model(branches="sparse", stochastic_depth=0.05)
    save_model(model, path, metadata={"task": "rain", "licence": "Apache-2.0"})
    loaded = load_model(path)
    assert loaded.config == model.config  # sparse-only and stochastic depth are in no key
    assert_same(loaded, model)
    metadata = read_metadata(path)
    assert metadata["task"] == "rain"
    assert json.loads(metadata["config"])["branches"] == "sparse"


def test_half_precision_files_load_as_float32(tmp_path: Path) -> None:
    model = a_model().half()
    save_model(model, tmp_path / "half.safetensors")
    loaded = load_model(tmp_path / "half.safetensors")
    assert all(parameter.dtype == torch.float32 for parameter in loaded.parameters())
    assert_same(loaded, model.float())


def test_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_model(a_model(), path)
    before = path.read_bytes()

    def fail(*args: object) -> bytes:
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_model(a_model(window=8), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("layout", ["zip", "legacy", "pickle"])
def test_checkpoint_that_would_run_code_is_refused_and_does_not_run_it(
    tmp_path: Path, layout: str
) -> None:
    trap, path = tmp_path / "executed", tmp_path / "model.pth"

    class Touch:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(trap), "w")  # type: ignore[return-value]

    content = {"state_dict": a_model().state_dict(), "extra": Touch()}
    if layout == "pickle":
        path.write_bytes(pickle.dumps({"extra": Touch()}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(CheckpointError, match="could run code"):
        load_model(path)
    assert not trap.exists()


def other_network() -> dict[str, Tensor]:
    return {"conv_first.weight": torch.zeros(4, 3, 3, 3), "body.0.weight": torch.zeros(4)}


def test_checkpoint_of_another_network_names_its_first_keys(tmp_path: Path) -> None:
    torch.save({"params": other_network()}, tmp_path / "esrgan.pth")
    with pytest.raises(CheckpointError, match=r"conv_first\.weight, body\.0\.weight"):
        load_model(tmp_path / "esrgan.pth")


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = to_official(a_model().state_dict())
    del state["conv.blocks.0.norm1.weight"]
    state["conv.blocks.0.gamma"] = torch.ones(1)
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(CheckpointError, match=r"bottleneck\.0\.gamma is unknown") as caught:
        load_model(tmp_path / "odd.pth")
    assert "bottleneck.0.attention_norm.weight is missing" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pth", b"", "is not a PyTorch checkpoint"),
        (
            "text.pth",
            b"hello, this is no checkpoint",
            "it is another kind of file",
        ),
        ("cut.safetensors", b"\x40\x00\x00\x00\x00\x00\x00\x00{", "is not a safetensors file"),
    ],
)
def test_broken_files_get_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_file_without_a_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_model(tmp_path / "epoch.pth")


def test_weights_are_found_by_folder_and_missing_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: is no file"):
        find_weights("nowhere")
    with pytest.raises(CheckpointError, match="holds none"):
        find_weights(tmp_path)
    save_model(a_model(), tmp_path / "model.safetensors")
    assert find_weights(tmp_path) == tmp_path / "model.safetensors"
    save_official(a_model(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth, model\.safetensors"):
        find_weights(tmp_path)


def test_a_run_that_is_not_finished_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "stage-0").mkdir()
    with pytest.raises(CheckpointError, match=r"not finished; .* wait for its first checkpoint"):
        find_weights(tmp_path)
    best = tmp_path / "stage-0/best.ckpt"
    torch.save({"state_dict": a_model().state_dict()}, best)
    with pytest.raises(CheckpointError, match=f"not finished; .* give {re.escape(str(best))}"):
        find_weights(tmp_path)
    assert load_model(best)


@pytest.mark.parametrize("name", ["rain.keras", "rain.weights.h5"])
def test_weights_of_keras_are_converted_first(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(
        CheckpointError, match=f"Keras port.* models convert .*{name} .*safetensors"
    ):
        load_model(tmp_path / name)


@pytest.mark.parametrize(
    ("clean", "orientation", "expected"),
    [
        ([], "all", "all"),
        ([], "flips", "flips"),
        (["photos"], "all", "horizontal_flip"),  # turned before they are degraded
        (["photos"], "none", "none"),
    ],
)
def test_symmetries_follow_from_the_recipe(
    tmp_path: Path, clean: list[str], orientation: str, expected: str
) -> None:
    recipe = {"data": {"clean": clean}, "augmentation": {"orientation": orientation}}
    assert symmetries_of(recipe) == expected
    config = json.dumps({"embed_dim": 8, "depths": [1] * 3, "heads": [1, 2, 2], "window": 4})
    model = random_model(ASTConfig(**json.loads(config)), std=0.2)
    told = {"config": config, "recipe": json.dumps(recipe)}
    save_model(model, tmp_path / "older.safetensors", metadata=told)
    assert load_model(tmp_path / "older.safetensors").config.symmetries == expected


def test_symmetries_of_weights_that_do_not_tell(tmp_path: Path) -> None:
    assert {load_model(name).config.symmetries for name in list_weights()} == {"horizontal_flip"}
    save_official(a_model(), tmp_path / "official.pth")
    assert load_model(tmp_path / "official.pth").config.symmetries == "all"
    save_model(load_model(tmp_path / "official.pth"), tmp_path / "ours.safetensors")
    assert load_model(tmp_path / "ours.safetensors").config.symmetries == "all"


def test_every_bundled_weights_file_loads_and_says_what_it_is() -> None:
    assert "rain" in list_weights()
    for name in list_weights():
        model, metadata = load_model(name), read_metadata(name)
        assert model.output_conv.weight.abs().sum() > 0
        assert {"task", "training_data", "licence", "figures", "fairweather_version"} <= set(
            metadata
        )


def test_unknown_presets_and_initialisations_are_refused() -> None:
    with pytest.raises(ValueError, match="ast_x"):
        create_model("ast_x")
    with pytest.raises(ValueError, match="xavier"):
        create_model("ast_n", init="xavier")
