"""The official code beside ours: what is measured is what is said, in processes of their own."""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run
from speed_example import EXAMPLE

from fairweather.benchmark import Entry, Raced, Round, race
from fairweather.errors import FairweatherError, MissingExtraError, OptionError
from fairweather.models import AST, ASTConfig, save_model
from laboratory.jobs import MATRIX, Job
from laboratory.official import STAND_INS, import_file, load_official
from laboratory.setting import Setting
from laboratory.subject import draw_image, least_bytes, load_of, take_subject
from laboratory.summary import Load, compared_s, summary_of
from laboratory.works import build
from restoring import benchmark_restoring, installed_engines
from speed_page import write_speed_page
from training_step import benchmark_training

TINY = ASTConfig(embed_dim=4, depths=(1,) * 9, heads=(1,) * 9, window=2, mlp_ratio=1)

# Stands for the official model.py: the same imports and constructor, and our network inside.
FAKE_OFFICIAL = """
import torch
from nowhere.models.layers import DropPath, to_2tuple, trunc_normal_
import numpy as np
from fairweather import models

class AST(torch.nn.Module):
    def __init__(self, img_size, embed_dim, depths, num_heads, win_size, mlp_ratio,
                 drop_path_rate, token_projection, token_mlp):
        super().__init__()
        assert token_projection == "linear"
        assert to_2tuple(3) == (3, 3)
        self.inner = models.AST(models.ASTConfig(
            embed_dim=embed_dim, depths=depths, heads=num_heads, window=win_size,
            mlp_ratio=mlp_ratio, feed_forward=token_mlp, stochastic_depth=drop_path_rate,
            bottleneck_shift=img_size // 2 ** (len(depths) // 2) > win_size,
        ))
    def load_state_dict(self, state):
        self.inner.load_state_dict(models.from_official(state))
    def forward(self, image):
        assert image.shape[-2] == image.shape[-1]
        return self.inner(image)
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "tiny.safetensors"
    save_model(AST(TINY), path)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "official"
    folder.mkdir()
    (folder / "model.py").write_text(FAKE_OFFICIAL, encoding="utf-8")
    return folder


@pytest.fixture
def clean_modules() -> Any:
    before = dict(sys.modules)
    yield
    for name in set(sys.modules) - set(before):
        if name.startswith("nowhere"):
            del sys.modules[name]


@pytest.mark.slow  # six processes
def test_restoring_with_the_official_code(
    run_script: Run, weights: Path, checkout: Path, tmp_path: Path
) -> None:
    call = ["benchmarks/restoring.py", "--model", weights, "--engine=plain", "--engine=torch"]
    call += ["--size", "24x40", "--rounds", "2", "--device", "cpu", "--official", checkout]
    path = tmp_path / "result.json"
    done = run_script(*call, "--json", path)
    assert (done.status, done.err) == (0, "")
    text = path.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    tree = json.loads(text)
    assert tree["command"] == (
        "python benchmarks/restoring.py --model tiny.safetensors --engine plain --engine torch"
        " --size 24x40 --batch 1 --device cpu --precision fp32 --threads 1 --rounds 2"
        " --official joshyZhou/AST"
    )
    assert tree["command"] in done.out.replace("\n", " ")
    assert tree["machine"]["cores"] == os.cpu_count()
    assert tree["versions"]["torch"] == torch.__version__
    assert tree["model"]["weights"].startswith("sha256 ")
    (run,) = tree["runs"]
    assert run["official_shape"] == [1, 64, 64]
    assert run["official_checked_at"] == [64, 64]
    assert run["faults"] == []
    found = {one["name"]: one for one in run["contestants"]}
    assert list(found) == [
        "torch, plain", "torch", "official, as shipped", "official, tuned",
    ]  # fmt: skip
    for name, one in found.items():
        assert len(one["processor_s"]["rounds"]) == len(one["wall_s"]["rounds"]) == 2
        assert one["wall_s"]["median"] >= one["wall_s"]["best"] > 0
        assert one["peak_bytes"] >= one["loaded_bytes"] > 0
        assert one["largest_difference"] < 1e-5
        assert set(one["faster_than"]) == set(found) - {name}
        assert one["share_of_matrix_ceiling"] > 0
        assert one["share_of_copy_ceiling"] > 0
        assert re.search(rf"^ *{re.escape(name)} +[0-9.]+ ", done.out, re.MULTILINE)
    assert run["largest_change"] > 1e-3
    assert run["ceiling"]["matrix_routine"] in ("torch.mm", "oneDNN")
    write_speed_page([path], tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert tree["command"] in page
    assert "[result.json](speed/result.json)" in page
    assert "Triton kernels for GPUs are not measured" in page


@pytest.mark.slow  # five processes
def test_training_steps(weights: Path, checkout: Path) -> None:
    turns: list[str] = []
    tree = benchmark_training(
        str(weights),
        batch=2,
        crop_px=32,
        checkpointing=True,
        setting=Setting("cpu", rounds=1, official=checkout, allocators=("tuned",)),
        on_turn=lambda name, done, total: turns.append(f"{name} {done}/{total}"),
    )
    (run,) = tree["runs"]
    names = ["torch", "torch, checkpointing", "official, tuned"]
    assert [one["name"] for one in run["contestants"]] == names
    assert max(one["largest_difference"] for one in run["contestants"]) < 1e-5
    assert run["load"]["megapixels"] == pytest.approx(2 * 32 * 32 / 1e6)
    assert turns[0] == "torch 0/15"
    assert turns[-1] == "copy 14/15"
    with pytest.raises(OptionError, match="crop 24: the official code trains on multiples of 32"):
        benchmark_training(str(weights), crop_px=24, setting=Setting("cpu", official=checkout))


def test_the_training_command(
    run_script: Run, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = json.loads(json.dumps(EXAMPLE["runs"][0])) | {"faults": []}
    monkeypatch.setattr("laboratory.setting.race", lambda *_, **__: ({}, tree["faults"]))
    monkeypatch.setattr("laboratory.setting.summary_of", lambda *_, **__: tree)
    path = tmp_path / "a.json"
    call = ["benchmarks/training_step.py", "--model", weights, "--batch", "3", "--crop", "32"]
    call += ["--device", "cpu", "--checkpointing", "--json"]
    done = run_script(*call, path)
    assert done.status == 0
    assert json.loads(path.read_text("utf-8"))["command"] == (
        "python benchmarks/training_step.py --model tiny.safetensors --batch 3 --crop 32"
        " --checkpointing --device cpu --precision fp32 --threads 1 --rounds 5"
    )
    tree["faults"] = ["torch: its process ended"]
    failed = run_script(*call, path)
    assert failed.status == 1
    assert "failed: torch: its process ended" in failed.err
    assert run_script(*call, tmp_path / "no" / "a").status == 1


@pytest.mark.slow  # two processes
def test_what_cannot_start_says_why(weights: Path, checkout: Path, tmp_path: Path) -> None:
    def start(job: Job) -> None:
        race([Entry(job.name, build, job)], rounds=1, on_turn=lambda name, done, total: None)

    draw_image(tmp_path / "in.npy", (1, 32, 32))
    shared = {"weights": str(weights), "image": str(tmp_path / "in.npy")}
    with pytest.raises(OptionError, match="fast: engine 'fast'"):
        start(Job("fast", "engine", engine="fast", **shared))
    source = FAKE_OFFICIAL.replace("import numpy as np", "import surely_not_installed")
    (checkout / "model.py").write_text(source, encoding="utf-8")
    with pytest.raises(MissingExtraError, match="pip install surely_not_installed"):
        start(Job("official", "official", checkout=str(checkout), **shared))


def test_figures_are_paired() -> None:
    def raced(name: str, seconds: list[float], **fields: Any) -> Raced:
        job = Job(name, **({"role": "engine"} | fields))
        rounds = [Round(2 * each, each, 7, 0) for each in seconds]
        return Raced(Entry(name, build, job), "", 5, rounds=rounds)

    all_of_them = {
        "slow": raced("slow", [4.0, 9.0, 2.0]),
        "fast": raced("fast", [2.0, 3.0, 2.0]),
        MATRIX: raced(MATRIX, [1.0, 1.0, 1.0], role="matrix"),
    }
    possible = 2 * 2048**3 * 4 / 1e9
    tree = summary_of(all_of_them, load=Load(possible, 1.0, 6.0), differences={"fast": 0.5})
    slow, fast = tree["contestants"]
    assert fast["faster_than"] == {"slow": 2.0}
    assert slow["faster_than"] == {"fast": 0.5}
    assert fast["faster_by_the_clock_than"] == {"slow": 2.0}
    assert slow["processor_s"] == {"median": 4.0, "best": 2.0, "rounds": [4.0, 9.0, 2.0]}
    assert slow["megapixels_per_s"] == 6 / 8
    assert fast["share_of_matrix_ceiling"] == pytest.approx(1 / 2)
    assert "share_of_copy_ceiling" not in fast
    assert (slow["largest_difference"], fast["largest_difference"]) == (None, 0.5)
    assert compared_s(raced("slow", [4.0, 9.0], device="cuda")) == [8.0, 18.0]


def test_environments_are_not_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    shipped = Job("a", "official", allocator="shipped", threads=2).environment()
    assert not [name for name in shipped if name.startswith("MALLOC_")]
    assert shipped["OMP_NUM_THREADS"] == "2"
    tuned = Job("a", "official", allocator="tuned").environment()
    assert tuned["MALLOC_MMAP_THRESHOLD_"] == "4294967296"
    assert tuned["MALLOC_TRIM_THRESHOLD_"] == "8589934592"


def test_stand_ins(checkout: Path, clean_modules: None) -> None:
    module = import_file(checkout / "model.py")
    assert {name: vars(module)[name] for name in STAND_INS} == STAND_INS
    torch.manual_seed(0)
    drop = module.DropPath(0.25)
    ones = torch.ones(4000, 2, 1)
    dropped = drop(ones)
    assert set(dropped.flatten().tolist()) == {0.0, (torch.ones(()) / 0.75).item()}
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(ones), ones)


def test_the_official_code_takes_our_weights(checkout: Path, clean_modules: None) -> None:
    model = AST(dataclasses.replace(TINY, bottleneck_shift=True))
    network: Any = load_official(checkout, model)
    assert network.inner.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(network.inner.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("class Other: pass", "defines no AST"),
        ("def", "is no Python"),
        (
            "import torch\nclass AST(torch.nn.Module):\n def __init__(self, **_):"
            "  super().__init__()",
            "does not take these weights",
        ),
    ],
)
def test_other_checkouts_are_refused(checkout: Path, source: str, message: str) -> None:
    (checkout / "model.py").write_text(source, encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        load_official(checkout, AST(TINY))


def test_wrong_calls_are_refused(run_script: Run, tmp_path: Path, checkout: Path) -> None:
    for options, message in (
        ({"precision": "int4"}, "precision 'int4'"),
        ({"rounds": 0}, "rounds 0"),
        ({"device": "abacus"}, "device 'abacus'"),
        ({"official": tmp_path}, "holds no model.py"),
    ):
        with pytest.raises(OptionError, match=message):
            Setting(**options)
    with pytest.raises(FairweatherError, match="nowhere"):
        benchmark_restoring("nowhere")
    with pytest.raises(OptionError, match="only networks of 4 levels"):
        load_official(checkout, AST(ASTConfig(embed_dim=4, depths=(1,) * 3, heads=(1,) * 3)))
    assert run_script("benchmarks/restoring.py", "--size", "256").status == 2


def test_subjects_and_loads(tmp_path: Path, weights: Path) -> None:
    state = torch.random.get_rng_state()
    subject = take_subject("ast_n", folder=tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert subject.facts == {
        "name": "ast_n", "weights": "drawn with seed 0", "parameters": 578_006,
    }  # fmt: skip
    assert subject.model.output_conv.weight.abs().max() > 0
    again = take_subject("ast_n", folder=tmp_path).model.state_dict()
    assert all(torch.equal(again[name], one) for name, one in subject.model.state_dict().items())
    load = load_of(subject.model, shape=(1, 256, 256))
    assert load.gflop / 2 == pytest.approx(3.24, abs=0.01)
    assert load_of(subject.model, shape=(1, 250, 200)).gflop == load.gflop
    training = load_of(subject.model, shape=(2, 256, 256), trains=True)
    assert training.gflop == pytest.approx(6 * load.gflop)
    model = AST(ASTConfig(embed_dim=4, depths=(1, 2, 1), heads=(1, 1, 1), window=2))
    parameters = sum(one.numel() for one in model.parameters())
    features = 2 * (4 * 4 * 8 + 2 * 8 * 2 * 4 + 8 * 4 * 8)
    assert least_bytes(model, shape=(1, 4, 8)) == 4 * (parameters + features)


def test_images_are_always_the_same(tmp_path: Path) -> None:
    for name in "ab":
        draw_image(tmp_path / f"{name}.npy", (2, 9, 7))
    one, other = (np.load(tmp_path / f"{name}.npy") for name in "ab")
    assert one.shape == (2, 9, 7, 3)
    assert one.dtype == np.float32
    assert 0 <= one.min() < 0.4 < 0.6 < one.max() <= 1
    assert np.array_equal(one, other)


def test_slow_engines_are_measured_when_asked_for() -> None:
    assert installed_engines()[:2] == ("plain", "torch")
    assert "compiled" not in installed_engines()
