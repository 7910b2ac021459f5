"""Weights between PyTorch and Keras; `test_keras_backends.py` runs this on every backend."""

import dataclasses
import functools
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import parity
import pytest
import torch
from parity import known_ast_t

import fairweather
from fairweather import models
from fairweather.errors import CheckpointError, OptionError
from fairweather.models import ASTConfig, save_model, save_official

# Keras 3.15 has not caught up with NumPy 2 where it saves its variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

SMALL = ASTConfig(
    embed_dim=8, depths=(1, 2, 1, 1, 2), heads=(1, 2, 4, 2, 2), window=4, mlp_ratio=1.5
)
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"feed_forward": "leff", "branches": "sparse", "encoder_attention": True},
    {"feed_forward": "mlp", "branches": "dense", "depths": (1, 1, 1), "heads": (1, 4, 2)},
)
random_model = functools.partial(parity.random_model, SMALL, std=0.2)


def assert_same(ours: models.AST, theirs: models.AST) -> None:
    left, right = ours.state_dict(), theirs.state_dict()
    assert list(left) == list(right)
    for name in left:
        assert torch.equal(left[name], right[name]), name


def check_there_and_back_gives_identical_tensors(fk: Any) -> None:
    from fairweather.keras.convert import ports_of

    sources = (fairweather.load_model("rain"), known_ast_t())
    for theirs in (*sources, *(random_model(**changes) for changes in VARIANTS)):
        model = fk.from_torch(theirs)
        back = fk.to_torch(model)
        assert back.config == theirs.config
        assert not back.training
        assert_same(back, theirs)
        ported = [id(port.variable) for port in ports_of(model)]
        assert sorted(ported) == sorted(id(variable) for variable in model.weights)


def check_each_layout_is_what_its_comment_says(fk: Any) -> None:
    theirs = random_model().state_dict()
    model = fk.from_torch(random_model())
    import keras

    def array(variable: Any) -> np.ndarray:
        return keras.ops.convert_to_numpy(variable)

    block = model.get_layer("bottleneck_0")
    upsample = theirs["upsample.0.weight"].permute(2, 3, 1, 0)
    depthwise = theirs["bottleneck.0.feed_forward.depthwise.weight"].permute(2, 3, 0, 1)
    expected = {
        "conv": (model.get_layer("input_conv").kernel, theirs["input_conv.weight"], (2, 3, 1, 0)),
        "dense": (block.attention.qkv.kernel, theirs["bottleneck.0.attention.qkv.weight"], (1, 0)),
    }
    for variable, tensor, axes in expected.values():
        np.testing.assert_array_equal(array(variable), tensor.permute(axes))
    np.testing.assert_array_equal(array(model.get_layer("upsample_0").kernel), upsample)
    np.testing.assert_array_equal(array(block.feed_forward.depthwise.kernel), depthwise)


def check_states_that_do_not_fit_are_refused_and_change_nothing(fk: Any) -> None:
    from fairweather.keras.convert import assign_state, state_of

    model = fk.from_torch(random_model())
    state = {name: tensor + 1 for name, tensor in state_of(model).items()}
    odd = dict(state)
    odd["bottleneck.0.gamma"] = odd.pop("bottleneck.0.attention_norm.weight")
    odd["input_conv.weight"] = torch.zeros(8, 4, 3, 3)
    with pytest.raises(CheckpointError, match=r"bottleneck\.0\.gamma is unknown") as caught:
        assign_state(model, odd)
    assert "bottleneck.0.attention_norm.weight is missing" in str(caught.value)
    assert "input_conv.weight is (8, 4, 3, 3) instead of (8, 3, 3, 3)" in str(caught.value)
    assert_same(fk.to_torch(model), random_model())
    assign_state(model, state)
    assert torch.equal(state_of(model)["input_conv.bias"], state["input_conv.bias"])


def check_every_kind_of_file_loads_in_one_call(fk: Any, tmp_path: Path) -> None:
    theirs = random_model(stochastic_depth=0.05, bottleneck_shift=True)
    model = fk.from_torch(theirs)
    save_official(theirs, tmp_path / "official.pth")
    save_model(theirs, tmp_path / "ours.safetensors")
    for name in ("model.keras", "model.weights.h5"):
        fk.save_model(model, tmp_path / name)
    for path in tmp_path.iterdir():
        loaded = fk.load_model(str(path))
        assert_same(fk.to_torch(loaded), theirs)
        if path.suffix != ".pth":
            assert loaded.config == theirs.config
        shifts = [
            fk.load_model(path, bottleneck_shift=shift).config.bottleneck_shift
            for shift in (False, True)
        ]
        assert shifts == [False, True]
    mixed = fk.load_model(tmp_path / "model.keras", dtype="mixed_bfloat16")
    assert mixed.get_layer("bottleneck_0").compute_dtype == "bfloat16"
    assert_same(fk.to_torch(mixed), theirs)
    assert len(list(tmp_path.iterdir())) == 4
    with pytest.raises(OptionError, match=r"\.keras or \.weights\.h5"):
        fk.save_model(model, tmp_path / "model.h5")


def check_broken_and_foreign_files_get_one_line(fk: Any, tmp_path: Path) -> None:
    import keras

    foreign = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    foreign.save(tmp_path / "foreign.keras")
    foreign.save_weights(tmp_path / "foreign.weights.h5")
    (tmp_path / "bad.keras").write_bytes(b"bad")
    (tmp_path / "bad.weights.h5").write_bytes(b"bad")
    with zipfile.ZipFile(tmp_path / "cut.keras", "w") as archive:
        config = {"config": dataclasses.asdict(SMALL)}
        archive.writestr("config.json", json.dumps({"class_name": "AST", "config": config}))
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 5
    for path in (*paths, tmp_path / "none.keras"):
        with pytest.raises(CheckpointError) as caught:
            fk.load_model(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def check_a_failed_save_leaves_the_old_file(
    fk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(fk.AST, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        fk.save_model(fk.create_model(SMALL), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def check_models_convert_there_and_back(
    fk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fairweather.cli import main

    def convert(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fairweather", "models", "convert", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        done = capsys.readouterr()
        return int(ended.value.code or 0), done.out, done.err

    theirs = fairweather.load_model("rain")
    source = "rain"
    for number, name in enumerate(("a.keras", "b.weights.h5", "c.keras")):
        status, out, _ = convert(source, tmp_path / name, "--to", "keras")
        assert status == 0
        assert "note: metadata is not in it" in out
        source = tmp_path / name
        back = tmp_path / f"{number}.safetensors"
        assert convert(source, back)[0] == 0
        assert_same(fairweather.load_model(back), theirs)
        assert fairweather.load_model(back).config == theirs.config
    assert convert(source, tmp_path / "official.pth", "--to", "official")[0] == 0
    assert_same(fairweather.load_model(tmp_path / "official.pth"), theirs)
    for words, status in (
        ((source, tmp_path / "a.keras", "--to", "keras"), 1),  # exists
        ((source, tmp_path / "d.safetensors", "--to", "keras"), 2),
        ((source, tmp_path / "d.h5", "--to", "keras"), 2),
        ((source, tmp_path / "d.keras"), 2),
        ((tmp_path / "none.keras", tmp_path / "d.safetensors"), 1),
        (("rain", tmp_path / "none" / "d.keras", "--to", "keras"), 1),
    ):
        found, out, err = convert(*words)
        assert (found, out) == (status, ""), words
        assert err
    assert convert(source, tmp_path / "a.keras", "--to", "keras", "--overwrite")[0] == 0


def check_the_command_describes_a_file_of_keras(fk: Any, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from fairweather.cli import app

    path = tmp_path / "small.keras"
    fk.save_model(fk.from_torch(random_model()), path)
    told = CliRunner().invoke(app, ["models", "info", str(path), "--json"])
    assert told.exit_code == 0, told.output
    assert json.loads(told.stdout)["config"]["embed_dim"] == SMALL.embed_dim


def check_a_file_that_asks_for_more_than_it_holds_is_refused(fk: Any, tmp_path: Path) -> None:
    import h5py

    fk.save_model(fk.from_torch(random_model()), tmp_path / "small.keras")
    fk.save_model(fk.from_torch(random_model()), tmp_path / "small.weights.h5")

    def refused(path: Path, words: str) -> None:
        with pytest.raises(CheckpointError, match=words) as caught:
            fk.load_model(path)
        assert str(path) in str(caught.value)

    def with_config(method: int = zipfile.ZIP_STORED, **fields: Any) -> Path:
        path = tmp_path / "changed.keras"
        config = {"config": dataclasses.asdict(SMALL) | fields}
        text = json.dumps({"class_name": "AST", "config": config})
        with (
            zipfile.ZipFile(tmp_path / "small.keras") as whole,
            zipfile.ZipFile(path, "w", method) as archive,
        ):
            archive.writestr("config.json", text)
            archive.writestr("model.weights.h5", whole.read("model.weights.h5"))
        return path

    assert fk.load_model(with_config()).config == SMALL
    refused(with_config(depths=[100_000, 2, 1, 1, 2]), "256 blocks")
    refused(with_config(embed_dim=3000), "asks for .* numbers")
    refused(with_config(window=200), "GiB of indices")
    refused(with_config(mlp_ratio=float("inf")), "must be finite")
    refused(with_config(zipfile.ZIP_DEFLATED, note="x" * 10**7), "would unpack to")

    def with_array(change: Any) -> Path:
        path = tmp_path / "changed.weights.h5"
        path.write_bytes((tmp_path / "small.weights.h5").read_bytes())
        with h5py.File(path, "a") as file:
            change(file)
        return path

    refused(with_array(lambda f: f.create_dataset("more", (10**9,))), "more than the file")
    refused(
        with_array(
            lambda f: f.create_dataset("more", (10**6,), compression="gzip", data=np.ones(10**6))
        ),
        "more than the file",
    )
    refused(with_array(lambda f: f.update({"x": h5py.ExternalLink("a", "b")})), "link to elsewhere")
    refused(
        with_array(lambda f: f.create_dataset("x", (4,), external=[("a", 0, 16)])), "no plain array"
    )

    def spoil(file: Any) -> None:
        found: list[Any] = []
        file.visititems(lambda _, one: found.append(one))
        for one in found:
            if isinstance(one, h5py.Dataset) and one.dtype.kind == "f":
                one[...] = np.nan

    refused(with_array(spoil), "not finite")
