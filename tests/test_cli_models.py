"""`fairweather models`, as a shell calls it."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Run
from torch.utils.flop_counter import FlopCounterMode

from fairweather.models import (
    PRESETS,
    Config,
    count_parameters,
    create_model,
    list_models,
    load_model,
    save_model,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_model(create_model("ast_n"), path, metadata={"task": "rain"})
    return path


def test_models_list(run: Run) -> None:
    entries = {entry["name"]: entry for entry in json.loads(run("models", "list", "--json").out)}
    assert set(PRESETS) <= set(entries)
    assert entries["ast_n"]["kind"] == "preset"
    table = run("models", "list")
    assert (table.status, table.err) == (0, "")
    assert [name for name in entries if name not in table.out] == []


def test_models_are_listed_without_pytorch() -> None:
    code = """
import sys
from fairweather.models import list_models
assert list_models()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_listed_costs_are_those_of_the_networks() -> None:
    counted: dict[Any, tuple[int, float]] = {}
    for entry in list_models():
        is_preset = entry.kind == "preset"
        config = PRESETS[entry.name] if is_preset else load_model(entry.name).config
        same = dataclasses.replace(
            config, proxy_px=None, proxy_radius_px=None, proxy_least_change=None, symmetries="all"
        )
        if same not in counted:
            counted[same] = count_costs(same)
        parameters, gmacs = counted[same]
        assert (entry.parameters, entry.gmacs) == (parameters, pytest.approx(gmacs, abs=1e-3))


def count_costs(config: Config) -> tuple[int, float]:
    with torch.device("meta"):
        model, image = create_model(config).eval(), torch.zeros(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return count_parameters(model), counter.get_total_flops() / 2e9


def test_models_info(run: Run, weights: Path, tmp_path: Path) -> None:
    facts = json.loads(run("models", "info", weights, "--json").out)
    assert facts["config"]["depths"] == list(PRESETS["ast_n"].depths)
    assert facts["parameters"] == sum(p.numel() for p in load_model(weights).parameters())
    assert facts["metadata"]["task"] == "rain"
    assert "rain" in run("models", "info", weights).out
    for name, content in (("none.pth", None), ("bad.pth", b"bad"), ("bad.safetensors", b"bad")):
        if content:
            (tmp_path / name).write_bytes(content)
        done = run("models", "info", tmp_path / name)
        assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
        assert str(tmp_path / name) in done.err


def test_models_convert_there_and_back(run: Run, weights: Path, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    assert run("models", "convert", weights, theirs, "--to", "official").status == 0
    assert run("models", "convert", theirs, ours).status == 0
    before, after = load_model(weights), load_model(ours)
    rate = before.config.stochastic_depth  # is for training, and in no official file
    assert before.config == dataclasses.replace(after.config, stochastic_depth=rate)
    state = after.state_dict()
    assert list(state) == list(before.state_dict())
    for name, tensor in before.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    names = set(torch.load(theirs, weights_only=True)["state_dict"])
    assert "input_proj.proj.0.weight" in names
    assert names.isdisjoint(state)

    copy = tmp_path / "copy.safetensors"
    assert run("models", "convert", weights, copy).status == 0
    assert json.loads(run("models", "info", copy, "--json").out)["metadata"]["task"] == "rain"
    content = copy.read_bytes()
    for arguments, status in (
        ((theirs, copy), 1),
        ((theirs, tmp_path / "a.pth"), 2),
        ((theirs, tmp_path / "a.safetensors", "--to", "official"), 2),
        ((theirs, tmp_path / "a.safetensors", "--to", "theirs"), 2),
        ((theirs, tmp_path / "none" / "a.safetensors"), 1),
        ((tmp_path / "none.pth", tmp_path / "a.safetensors"), 1),
    ):
        done = run("models", "convert", *arguments)
        assert (done.status, done.out) == (status, "")
        assert done.err
    assert copy.read_bytes() == content
    assert run("models", "convert", theirs, copy, "--overwrite").status == 0
    assert copy.read_bytes() != content
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "copy.safetensors", "ours.safetensors", "theirs.pth",
    ]  # fmt: skip
