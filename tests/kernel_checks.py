"""The GPU kernels against their formulas; run by test_fast_kernels.py in a process of its own.

With TRITON_INTERPRET=1, which has to be set before Triton is imported, in its interpreter on the
CPU; otherwise on a CUDA device.
"""

import os
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from parity import random_model, relative_error
from torch import Tensor, nn
from triton_interpreter import repair_bfloat16

from fairweather.models import ASTConfig, ast, gpu_kernels, plain_kernels
from fairweather.models.fast import cuda, dispatch
from fairweather.models.fast import cuda_attention as attention
from fairweather.models.fast import cuda_feed_forward as feed_forward
from fairweather.models.windows import shift_masks

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HALVES = (torch.bfloat16, torch.float16)
if INTERPRETED:
    repair_bfloat16()
torch.backends.cudnn.allow_tf32 = False  # its default would be 1e-3 from float32


class Attention(NamedTuple):
    """One call of the attention."""

    window: int
    shift: int
    heads: int
    size: int
    branches: str
    batch: int
    rows: int
    columns: int

    @property
    def options(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("heads", "window", "shift", "branches")}


class FeedForward(NamedTuple):
    """One call of the feed-forward network's middle."""

    hidden: int
    batch: int
    height: int
    width: int


ATTENTIONS = (
    Attention(8, 0, 2, 16, "both", 1, 2, 2),
    Attention(8, 4, 1, 32, "both", 2, 1, 2),
    Attention(8, 4, 2, 10, "dense", 1, 2, 1),
    Attention(8, 3, 1, 16, "sparse", 1, 1, 1),
    Attention(4, 2, 3, 16, "both", 1, 3, 2),
    Attention(4, 1, 1, 5, "sparse", 2, 1, 2),
    Attention(2, 1, 2, 32, "both", 1, 2, 3),
    Attention(7, 3, 1, 8, "both", 1, 1, 2),
)
FEED_FORWARDS = (
    FeedForward(20, 1, 9, 5),
    FeedForward(64, 1, 3, 7),
    FeedForward(40, 2, 4, 7),
    FeedForward(5, 1, 1, 1),
)


def random_attention(seed: int) -> Attention:
    draw = random.Random(seed)
    window = draw.choice((4, 8))
    return Attention(
        window,
        draw.randrange(window),
        draw.randint(1, 3),
        draw.choice((4, 10, 16, 24, 32)),
        draw.choice(("both", "dense", "sparse")),
        draw.randint(1, 2),
        draw.randint(1, 3),
        draw.randint(1, 3),
    )


def random_feed_forward(seed: int) -> FeedForward:
    draw = random.Random(seed)
    sides = draw.randint(1, 9), draw.randint(1, 20)
    return FeedForward(draw.choice((8, 20, 33, 64)), 1, *sides)


def numbers(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def attention_inputs(case: Attention) -> list[Tensor]:
    height, width = case.rows * case.window, case.columns * case.window
    qkv = numbers(case.batch, height, width, 3 * case.heads * case.size, seed=1)
    bias = numbers(case.heads, case.window**2, case.window**2, seed=2)
    share = [torch.tensor(0.37, dtype=torch.float64)] if case.branches == "both" else []
    return [1.5 * qkv, bias, *share]


def feed_forward_inputs(case: FeedForward) -> list[Tensor]:
    expanded = numbers(case.batch, case.height, case.width, 2 * case.hidden, seed=1)
    return [2 * expanded, numbers(case.hidden, 1, 3, 3, seed=2), numbers(case.hidden, seed=3)]


def values_and_gradients(
    function: Callable[..., Tensor], inputs: list[Tensor], *, dtype: torch.dtype, device: str
) -> list[Tensor]:
    """The output, then the gradient of every input, for one random gradient of the output."""
    leaves = [value.to(device, dtype, copy=True).requires_grad_() for value in inputs]
    output = function(*leaves)
    output.backward(numbers(*output.shape, seed=9).to(device, dtype))
    gradients = [leaf.grad for leaf in leaves]
    assert all(gradient is not None for gradient in gradients)
    return [value.detach().cpu().double() for value in (output, *gradients)]  # type: ignore[union-attr]


def plain_attention(qkv: Tensor, bias: Tensor, share: Tensor | None, **options: Any) -> Tensor:
    """The formula, of what the projection gives."""
    shift = options["shift"]
    masks = shift_masks(options["window"], shift).to(qkv) if shift else None
    return ast.window_attention.formula(qkv, nn.Identity(), bias, share, masks, **options)


def plain_gelu_depthwise(expanded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The formula, of what the projection gives."""
    local, gate = expanded.chunk(2, -1)
    local = F.gelu(local).permute(0, 3, 1, 2)
    local = F.conv2d(local, weight, bias, padding=1, groups=len(bias)).permute(0, 2, 3, 1)
    return F.gelu(local) * F.gelu(gate)


def attend(function: Callable[..., Tensor], case: Attention) -> Callable[..., Tensor]:
    return lambda qkv, bias, share=None: function(qkv, bias, share, **case.options)


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [relative_error(one, other) for one, other in zip(found, expected, strict=True)]


def check(
    fused: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: list[Tensor], dtype: Any
) -> None:
    """Float32 within 1e-5 of float64; half precision within 1.5 times the formula's error."""
    inputs = [value.to(dtype) for value in inputs]
    exact = values_and_gradients(plain, inputs, dtype=torch.float64, device="cpu")
    found = values_and_gradients(fused, inputs, dtype=dtype, device=DEVICE)
    ours = errors(found, exact)
    if dtype == torch.float32:
        assert max(ours) < 1e-5, ours
        return
    theirs = errors(values_and_gradients(plain, inputs, dtype=dtype, device=DEVICE), exact)
    for our, their, value in zip(ours, theirs, exact, strict=True):
        # A single number may come out right by chance: it only has to be as good as its type.
        floor = torch.finfo(dtype).eps if value.numel() == 1 else 0
        assert our <= max(1.5 * their, floor), (ours, theirs)


@pytest.fixture(autouse=True)
def short_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several strips in a small image; the interpreter takes long for each row."""
    if INTERPRETED:
        monkeypatch.setattr(feed_forward, "FORWARD_ROWS", 4)
        monkeypatch.setattr(feed_forward, "BACKWARD_ROWS", 2)
        monkeypatch.setattr(feed_forward, "TILE", 256)
    monkeypatch.setattr(attention, "FORWARD_PROGRAMS", 4)
    monkeypatch.setattr(attention, "BACKWARD_PROGRAMS", 3)


@pytest.mark.parametrize("case", [*ATTENTIONS, *map(random_attention, range(12))], ids=str)
def test_attention_in_float32(case: Attention) -> None:
    fused, plain = attention.fused_window_attention, plain_attention
    check(attend(fused, case), attend(plain, case), attention_inputs(case), torch.float32)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", ATTENTIONS, ids=str)
def test_attention_in_half_precision(case: Attention, dtype: torch.dtype) -> None:
    fused, plain = attention.fused_window_attention, plain_attention
    check(attend(fused, case), attend(plain, case), attention_inputs(case), dtype)


@pytest.mark.parametrize("case", [*FEED_FORWARDS, *map(random_feed_forward, range(3))], ids=str)
def test_feed_forward_in_float32(case: FeedForward) -> None:
    fused, plain = feed_forward.fused_gelu_depthwise, plain_gelu_depthwise
    check(fused, plain, feed_forward_inputs(case), torch.float32)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", FEED_FORWARDS[1:3], ids=str)
def test_feed_forward_in_half_precision(case: FeedForward, dtype: torch.dtype) -> None:
    fused, plain = feed_forward.fused_gelu_depthwise, plain_gelu_depthwise
    check(fused, plain, feed_forward_inputs(case), dtype)


def test_gelu_and_its_slope_far_out() -> None:
    """A filter that only passes the middle on: the output is GELU of GELU."""
    x = torch.linspace(-40, 40, 16 * 80).view(1, 4, 4, 80).to(DEVICE)
    weight = torch.zeros(40, 1, 3, 3, device=DEVICE)
    weight[:, :, 1, 1] = 1
    inputs = [x, weight, torch.zeros(40, device=DEVICE)]
    check(feed_forward.fused_gelu_depthwise, plain_gelu_depthwise, inputs, torch.float32)


def test_gradients_are_the_same_bit_for_bit_in_each_run() -> None:
    for function, inputs in (
        (attend(attention.fused_window_attention, ATTENTIONS[0]), attention_inputs(ATTENTIONS[0])),
        (feed_forward.fused_gelu_depthwise, feed_forward_inputs(FeedForward(8, 1, 3, 2))),
    ):
        once, twice = (
            values_and_gradients(function, inputs, dtype=torch.float32, device=DEVICE)
            for _ in range(2)
        )
        assert all(torch.equal(one, other) for one, other in zip(once, twice, strict=True))


def test_parameters_stay_in_float32_under_autocast() -> None:
    case = Attention(4, 2, 1, 16, "both", 1, 2, 1)
    inputs = feed_forward_inputs(FeedForward(5, 1, 1, 2))
    for function, (first, *parameters) in (
        (attend(attention.fused_window_attention, case), attention_inputs(case)),
        (feed_forward.fused_gelu_depthwise, inputs),
    ):
        leaves = [first.bfloat16(), *(value.float() for value in parameters)]
        leaves = [leaf.to(DEVICE).requires_grad_() for leaf in leaves]
        output = function(*leaves)
        output.float().square().sum().backward()
        assert output.dtype == torch.bfloat16
        assert [leaf.grad.dtype for leaf in leaves] == [leaf.dtype for leaf in leaves]


def test_tensors_that_do_not_lie_in_order() -> None:
    case = Attention(4, 2, 1, 16, "both", 1, 2, 1)
    qkv, bias, share = (value.float().to(DEVICE) for value in attention_inputs(case))
    fused = attend(attention.fused_window_attention, case)
    assert torch.equal(
        fused(qkv.transpose(1, 2).contiguous().transpose(1, 2), bias, share),
        fused(qkv, bias, share),
    )


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels also where there is no GPU."""
    monkeypatch.setitem(dispatch.ROOMS, "cpu", "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


@pytest.mark.usefixtures("everywhere")
def test_whole_model_and_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ASTConfig(embed_dim=4, depths=(1, 1, 2), heads=(1, 1, 1), window=4, mlp_ratio=2)
    model = random_model(config, std=0.3).to(DEVICE)
    image = torch.rand(1, 3, 8, 7, generator=torch.Generator().manual_seed(1)).to(DEVICE)

    def run() -> list[Tensor]:
        model.zero_grad()
        output = model(image)
        output.square().mean().backward()
        found = (output.detach(), *(p.grad for p in model.parameters()))
        return [value.cpu() for value in found]  # type: ignore[union-attr]

    calls: list[str] = []
    for name, kernel in cuda.KERNELS.items():
        run_kernel = kernel.run
        monkeypatch.setitem(
            cuda.KERNELS,
            name,
            kernel._replace(
                run=lambda *args, name=name, run=run_kernel, **options: (
                    calls.append(name) or run(*args, **options)
                )
            ),
        )
    with plain_kernels():
        plain = run()
    assert not calls
    with gpu_kernels():
        assert max(errors(run(), plain)) < 1e-5
    assert set(calls) == {"window_attention", "gated_depthwise"}
