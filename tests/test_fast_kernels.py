"""The fused GPU kernels and their formulas: that they agree, compile, and who gets which."""

import copy
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch

from fairweather.models import ast, gpu_kernels, list_kernel_checks, plain_kernels
from fairweather.models.fast import cuda, dispatch
from fairweather.models.fast.dispatch import operation
from fairweather.models.fast.self_check import SelfCheck, relative_errors

needs_triton = pytest.mark.skipif(
    not cuda.TRITON_INSTALLED,
    reason="NOT TESTED: the fused GPU kernels; Triton is not installed",
)


def run_checks(**environment: str) -> str:
    """Runs kernel_checks.py in a process of its own, and returns its last line."""
    tests = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "kernel_checks.py"]
    done = subprocess.run(
        command, cwd=tests, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout.splitlines()[-1]


@needs_triton
@pytest.mark.slow
def test_kernels_in_tritons_interpreter() -> None:
    if importlib.metadata.version("triton").startswith("3.6."):
        pytest.skip("NOT TESTED: kernels on a CPU; Triton 3.6 cannot interpret with NumPy 2.4")
    assert re.search(r"\d\d passed", run_checks(TRITON_INTERPRET="1"))


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT TESTED: kernels on a GPU")
def test_kernels_on_a_gpu() -> None:
    assert re.search(r"\d\d passed", run_checks(TRITON_INTERPRET="0"))


def compile_kernel(kernel: Any, settings: dict[str, Any], kind: str) -> str:
    """Compiles a kernel for compute capability 9.0; returns what it takes of a multiprocessor."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    numbers = {"windows": "i32", "per_program": "i32", "height": "i32", "width": "i32"}
    wide = ("weight", "bias", "share", "parts", "bias_parts", "share_parts")
    types = {
        **dict.fromkeys(kernel.arg_names, f"*{kind}"),
        **dict.fromkeys(wide, "*fp32"),
        **numbers,
        "scale": "fp32",
        **dict.fromkeys(settings, "constexpr"),
    }
    signature = {name: types[name] for name in kernel.arg_names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if types[name].startswith("*")
    }
    constants = {name: value for name, value in settings.items() if name in signature}
    options = {name: value for name, value in settings.items() if name not in signature}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return read_resources(compiled.asm["cubin"])


def read_resources(binary: bytes) -> str:
    """The line of cuobjdump, which comes with Triton: registers, stack, shared memory."""
    import triton

    path = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.cubin"
    path.write_bytes(binary)
    tool = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
    command = [tool, "--dump-resource-usage", path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_kernels_compile_for_a_gpu_and_fit_its_registers(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("NOT TESTED: kernels for a GPU; TRITON_INTERPRET=1 leaves nothing to compile")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from fairweather.models.fast import cuda_attention as attention
    from fairweather.models.fast import cuda_feed_forward as feed_forward

    kind = {torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]
    windows = attention.launch_settings(
        dtype, channels=256, heads=8, window=8, shift=4, branches="both"
    )
    strips = feed_forward.launch_settings(128, rows=feed_forward.FORWARD_ROWS)
    for kernel, settings in (
        (attention.attention_forward, windows),
        (attention.attention_backward, windows),
        (feed_forward.gelu_depthwise_forward, strips),
        (feed_forward.gelu_depthwise_backward_gate, strips),
        (feed_forward.gelu_depthwise_backward_filters, strips),
    ):
        usage = compile_kernel(kernel, settings, kind)
        assert re.search(r"REG:\d+ STACK:0 ", usage), usage  # a stack holds what was spilled


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
    return cuda.find(ast.window_attention, (x, None, None, None, None), options, asked=asked)


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


@operation
def double_it(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    return times * layer(x).square()


def test_the_switch_reaches_the_room_and_plain_kernels_passes_it_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []
    room: Any = ModuleType("fairweather.models.fast.made_up")
    room.find = lambda operation, args, options, *, asked: seen(asked) or (lambda *a, **o: -1)
    monkeypatch.setitem(sys.modules, room.__name__, room)
    monkeypatch.setitem(dispatch.ROOMS, "cpu", "made_up")

    def seen(value: bool) -> None:
        asked.append(value)

    arguments: Any = torch.ones(1, 2), torch.nn.Linear(2, 2)
    assert double_it(*arguments, times=2.0) == -1
    with gpu_kernels():
        assert double_it(*arguments, times=2.0) == -1
    with plain_kernels():
        assert isinstance(double_it(*arguments, times=2.0), torch.Tensor)
    compiled = torch.compile(double_it.__call__, backend="eager", fullgraph=True)
    assert isinstance(compiled(*arguments, times=2.0), torch.Tensor)
    assert asked == [False, True]


# The self-check, with kernels that are plain functions.


def right(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    y = layer(x)
    return (times * y) * y


def wrong(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    return right(x, layer, times=1.01 * times)


class WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * 1.1


def wrong_backward(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    return WrongBackward.apply(right(x, layer, times=times))  # type: ignore[no-any-return]


def not_a_number(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    return right(x, layer, times=float("nan"))


def raising(x: torch.Tensor, layer: torch.nn.Linear, *, times: float) -> torch.Tensor:
    raise RuntimeError("out of shared memory\nand more")


def check(kernel: Any, *, dtype: torch.dtype, checker: SelfCheck) -> bool:
    layer = torch.nn.Linear(8, 8)
    return checker.passes(
        (kernel.__name__, dtype),
        kernel=kernel,
        formula=double_it.formula,
        sample=lambda: (cuda.random_tensor((2, 5, 5, 8), seed=1), copy.deepcopy(layer).double()),
        like=(torch.zeros(1, 1, 1, 8, dtype=dtype), layer.to(dtype)),
        options={"times": 2.0},
    )


DTYPES = [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_right_kernel_passes(dtype: torch.dtype, context: Any) -> None:
    state = torch.get_rng_state()
    with context():
        checker = SelfCheck()
        torch.set_rng_state(state)
        assert check(right, dtype=dtype, checker=checker)


def test_the_comparisons_of_a_process_can_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = SelfCheck()
    monkeypatch.setattr(cuda, "CHECK", checker)
    layer = ast.FeatureRefinement(8, 12)
    args = torch.zeros(1, 4, 4, 8), layer.expand, layer.depthwise
    for sizes, kernel in (((8, 12), ast.gated_depthwise.formula), ((8, 16), raising)):
        key = ("gated_depthwise", "cuda:0", torch.float32, None, "ieee", *sizes)
        sample = lambda: cuda.sample_gate(*args)  # noqa: E731
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checker.passes(
                key,
                kernel=kernel,
                formula=ast.gated_depthwise.formula,
                sample=sample,
                like=args,
                options={},
            )
    right_one, failed = list_kernel_checks()
    assert (right_one["operation"], right_one["dtype"]) == ("gated_depthwise", "float32")
    assert right_one["sizes"] == [8, 12]
    assert right_one["fault"] is None
    assert right_one["kernel_errors"] == right_one["plain_errors"]
    assert 0 < max(right_one["plain_errors"]) < 1e-5
    assert failed["fault"].startswith("gated_depthwise failed with TypeError")
    assert failed["kernel_errors"] == []


@pytest.mark.parametrize("dtype", [torch.float32], ids=str)
@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (wrong, r"double_it is \d\.\de-0[23] from float64, plain PyTorch \d\.\de-0[78]"),
        (wrong_backward, r"double_it is \d\.\de-0[12] from float64"),
        (not_a_number, "double_it is nan from float64"),
        (raising, "double_it failed with RuntimeError: out of shared memory\\. The network"),
    ],
)
def test_a_wrong_kernel_is_refused_with_one_warning(
    kernel: Any, said: str, dtype: torch.dtype
) -> None:
    checker = SelfCheck()
    with pytest.warns(RuntimeWarning, match=said) as warned:
        assert not check(kernel, dtype=dtype, checker=checker)
    assert len(warned) == 1
    assert not check(kernel, dtype=dtype, checker=checker)  # warnings are errors: no second one
    assert not check(raising, dtype=torch.bfloat16, checker=checker)
    assert check(right, dtype=dtype, checker=checker)


def test_a_check_that_runs_out_of_memory_says_nothing_about_the_kernel() -> None:
    def full(*_: object, **__: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("full")

    checker = SelfCheck()
    with pytest.raises(torch.OutOfMemoryError):
        check(full, dtype=torch.float32, checker=checker)
    full.__name__ = "right"
    assert check(right, dtype=torch.float32, checker=checker)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shifts", [False, True])
def test_the_samples_fit_the_operations_and_leave_the_random_state_alone(
    dtype: torch.dtype, shifts: bool
) -> None:
    """The formulas beside themselves: as right as can be, in every dtype."""
    layer = ast.WindowAttention(16, 2, window=4, shifts=shifts, branches="both").to(dtype)
    refinement = ast.FeatureRefinement(16, 24).to(dtype)
    x = torch.zeros(1, 8, 8, 16, dtype=dtype)
    options = {"heads": 2, "window": 4, "shift": layer.shift, "branches": "both"}
    bias, share, masks = layer.position_bias(), layer.dense_share(), layer.masks()
    state = torch.get_rng_state()
    for name, formula, args, extra in (
        ("window_attention", ast.window_attention.formula,
         (x, layer.qkv, bias, share, masks), options),
        ("gated_depthwise", ast.gated_depthwise.formula,
         (x, refinement.expand, refinement.depthwise), {}),
    ):  # fmt: skip
        sample = cuda.KERNELS[name].sample(*args, **extra)
        errors = relative_errors(formula, formula, sample, like=args, options=extra)
        assert len(errors) == 6  # the output, and the gradient of each leaf
        assert all(0 < ours == plain <= allowed for ours, plain, allowed in errors)
        assert max(ours for ours, _, _ in errors) < 40 * torch.finfo(dtype).eps
    assert torch.equal(torch.get_rng_state(), state)


def test_importing_fairweather_leaves_triton_alone() -> None:
    code = "import sys, fairweather; sys.exit('triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
