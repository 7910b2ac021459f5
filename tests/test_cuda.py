"""Which calls the GPU kernels take, and that they are off until a GPU has measured them."""

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from fairweather.models import (
    AST,
    ASTConfig,
    create_model,
    gated_depthwise,
    list_kernel_checks,
    window_attention,
)
from fairweather.models.fast import cuda


class OnGPU(NamedTuple):
    """Stands for a tensor on a GPU."""

    dtype: torch.dtype = torch.float32
    shape: tuple[int, ...] = (1, 8, 8, 64)
    device: torch.device = torch.device("cuda:0")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU of compute capability 9.0 with Triton, on which every kernel passes the check."""
    monkeypatch.setattr(cuda, "TRITON_INSTALLED", True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(cuda.CHECK, "passes", lambda key, **_: True)
    monkeypatch.delenv("FAIRWEATHER_KERNELS", raising=False)


def found(x: Any, *, asked: bool = False, window: int = 8) -> Any:
    options = {"heads": 2, "window": window, "shift": 0, "branches": "both"}
    return cuda.find(window_attention, (x, None, None, None, None), options, asked=asked)


@pytest.mark.parametrize(
    ("x", "window", "expected"),
    [
        (OnGPU(), 8, True),
        (OnGPU(torch.bfloat16), 8, True),
        (OnGPU(torch.float64), 8, False),
        (OnGPU(shape=(1, 8, 8, 66)), 8, False),
        (OnGPU(), 16, False),
    ],
)
@pytest.mark.usefixtures("gpu")
def test_what_the_kernels_take(x: OnGPU, window: int, expected: bool) -> None:
    assert (found(x, asked=True, window=window) is not None) is expected


@pytest.mark.usefixtures("gpu")
def test_old_gpus_and_other_tritons_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(OnGPU(), asked=True) is cuda.run_attention
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert found(OnGPU(), asked=True) is None
    monkeypatch.undo()
    monkeypatch.setattr(cuda, "TRITON_INSTALLED", False)
    assert found(OnGPU(), asked=True) is None


@pytest.mark.usefixtures("gpu")
def test_unmeasured_kernels_are_opt_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(OnGPU()) is None
    monkeypatch.setenv("FAIRWEATHER_KERNELS", "0")
    assert found(OnGPU()) is None
    monkeypatch.setenv("FAIRWEATHER_KERNELS", "1")
    assert found(OnGPU()) is cuda.run_attention
    monkeypatch.delenv("FAIRWEATHER_KERNELS")
    monkeypatch.setattr(cuda, "MEASURED", frozenset({(9, 0)}))
    assert found(OnGPU()) is cuda.run_attention


def test_the_kernels_are_on_only_where_a_committed_file_measured_them() -> None:
    folder = Path(__file__).parents[1] / "docs" / "results" / "speed"
    files = [json.loads(path.read_text("utf-8")) for path in folder.glob("gpu-*.json")]
    measured = {tuple(one["capability"]) for one in files if one["kernels_agree"]}
    assert measured >= cuda.MEASURED


def a_block(dtype: torch.dtype = torch.float32, *, shifted: bool = False) -> Any:
    """A block with attention, of 16 channels, 2 heads and windows of 4."""
    config = ASTConfig(embed_dim=8, depths=(1, 2, 1), heads=(1, 2, 2), window=4, mlp_ratio=1.5,
                       bottleneck_shift=True)  # fmt: skip
    model = create_model(config).to(dtype)
    assert isinstance(model, AST)
    return model.bottleneck[int(shifted)]


def raising(*_: Any) -> torch.Tensor:
    raise RuntimeError("out of shared memory")


def test_the_comparisons_of_a_process_can_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = type(cuda.CHECK)()
    monkeypatch.setattr(cuda, "CHECK", checker)
    layer = a_block().feed_forward
    args = torch.zeros(1, 4, 4, 16), layer.expand, layer.depthwise
    for sizes, kernel in (((16, 24), gated_depthwise.formula), ((16, 32), raising)):
        key = ("gated_depthwise", "cuda:0", torch.float32, None, "ieee", *sizes)
        sample = lambda: cuda.sample_gate(*args)  # noqa: E731
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checker.passes(
                key,
                kernel=kernel,
                formula=gated_depthwise.formula,
                sample=sample,
                like=args,
                options={},
            )
    right_one, failed = list_kernel_checks()
    assert (right_one["operation"], right_one["dtype"]) == ("gated_depthwise", "float32")
    assert right_one["sizes"] == [16, 24]
    assert right_one["fault"] is None
    assert right_one["kernel_errors"] == right_one["plain_errors"]
    assert 0 < max(right_one["plain_errors"]) < 1e-5
    assert failed["fault"].startswith("gated_depthwise failed with RuntimeError")
    assert failed["kernel_errors"] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shifted", [False, True])
def test_the_samples_fit_the_operations_and_leave_the_random_state_alone(
    dtype: torch.dtype, shifted: bool
) -> None:
    """The formulas beside themselves: as right as can be, in every dtype."""
    block = a_block(dtype, shifted=shifted)
    layer, refinement = block.attention, block.feed_forward
    x = torch.zeros(1, 8, 8, 16, dtype=dtype)
    options = {"heads": 2, "window": 4, "shift": layer.shift, "branches": "both"}
    bias, share, masks = layer.position_bias(), layer.dense_share(), layer.shift_masks
    state = torch.get_rng_state()
    for operation, args, extra in (
        (window_attention, (x, layer.qkv, bias, share, masks), options),
        (gated_depthwise, (x, refinement.expand, refinement.depthwise), {}),
    ):
        checker, sample = type(cuda.CHECK)(), cuda.KERNELS[operation.name].sample
        assert checker.passes(
            operation.name,
            kernel=operation.formula,
            formula=operation.formula,
            sample=lambda sample=sample, args=args, extra=extra: sample(*args, **extra),
            like=args,
            options=extra,
        )
        errors = checker.verdicts[operation.name].errors
        assert len(errors) == 6  # the output, and the gradient of each leaf
        assert all(0 < ours == plain <= allowed for ours, plain, allowed in errors)
        assert max(ours for ours, _, _ in errors) < 40 * torch.finfo(dtype).eps
    assert torch.equal(torch.get_rng_state(), state)
