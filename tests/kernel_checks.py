"""The GPU kernels against their plain twins; run by test_kernels.py in a process of its own.

With TRITON_INTERPRET=1, which has to be set before Triton is imported, in its interpreter on the
CPU; otherwise on a CUDA device.
"""

import os
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from parity import random_model, relative_error
from torch import Tensor
from triton_interpreter import repair_bfloat16

from fairweather.models import AST, ASTConfig, ast
from fairweather.models.fast import cuda_attention as attention
from fairweather.models.fast import cuda_feed_forward as feed_forward
from fairweather.models.fast import dispatch as kernels

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
    gated: bool
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
    FeedForward(20, True, 1, 9, 5),
    FeedForward(64, True, 1, 3, 7),
    FeedForward(40, False, 1, 4, 7),
    FeedForward(5, True, 1, 1, 1),
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
    return FeedForward(draw.choice((8, 20, 33, 64)), draw.random() < 0.6, 1, *sides)


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
    channels = case.hidden * (2 if case.gated else 1)
    expanded = numbers(case.batch, case.height, case.width, channels, seed=1)
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


def attend(function: Callable[..., Tensor], case: Attention) -> Callable[..., Tensor]:
    return lambda qkv, bias, share=None: function(qkv, bias, share, **case.options)


def errors(found: list[Tensor], expected: list[Tensor]) -> list[float]:
    return [relative_error(one, other) for one, other in zip(found, expected, strict=True)]


def check(
    fused: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: list[Tensor], dtype: Any
) -> None:
    """Float32 within 1e-5 of float64; half precision within 1.5 times the plain twin's error."""
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
    fused, plain = attention.fused_window_attention, kernels.plain_window_attention
    check(attend(fused, case), attend(plain, case), attention_inputs(case), torch.float32)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", ATTENTIONS, ids=str)
def test_attention_in_half_precision(case: Attention, dtype: torch.dtype) -> None:
    fused, plain = attention.fused_window_attention, kernels.plain_window_attention
    check(attend(fused, case), attend(plain, case), attention_inputs(case), dtype)


@pytest.mark.parametrize("case", [*FEED_FORWARDS, *map(random_feed_forward, range(3))], ids=str)
def test_feed_forward_in_float32(case: FeedForward) -> None:
    fused, plain = feed_forward.fused_gelu_depthwise, kernels.plain_gelu_depthwise
    check(fused, plain, feed_forward_inputs(case), torch.float32)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("case", FEED_FORWARDS[1:3], ids=str)
def test_feed_forward_in_half_precision(case: FeedForward, dtype: torch.dtype) -> None:
    fused, plain = feed_forward.fused_gelu_depthwise, kernels.plain_gelu_depthwise
    check(fused, plain, feed_forward_inputs(case), dtype)


def test_gelu_and_its_slope_far_out() -> None:
    """A filter that only passes the middle on: the output is GELU of GELU."""
    x = torch.linspace(-40, 40, 16 * 40).view(1, 4, 4, 40).to(DEVICE)
    weight = torch.zeros(40, 1, 3, 3, device=DEVICE)
    weight[:, :, 1, 1] = 1
    inputs = [x, weight, torch.zeros(40, device=DEVICE)]
    check(feed_forward.fused_gelu_depthwise, kernels.plain_gelu_depthwise, inputs, torch.float32)


def test_gradients_are_the_same_bit_for_bit_in_each_run() -> None:
    for function, inputs in (
        (attend(attention.fused_window_attention, ATTENTIONS[0]), attention_inputs(ATTENTIONS[0])),
        (feed_forward.fused_gelu_depthwise, feed_forward_inputs(FeedForward(8, True, 1, 3, 2))),
    ):
        once, twice = (
            values_and_gradients(function, inputs, dtype=torch.float32, device=DEVICE)
            for _ in range(2)
        )
        assert all(torch.equal(one, other) for one, other in zip(once, twice, strict=True))


def test_parameters_stay_in_float32_under_autocast() -> None:
    case = Attention(4, 2, 1, 16, "both", 1, 2, 1)
    inputs = feed_forward_inputs(FeedForward(5, True, 1, 1, 2))
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


def test_the_operators_keep_pytorchs_rules() -> None:
    """Schema, shapes without data, autograd, and what torch.compile makes of them."""
    case = Attention(2, 1, 1, 4, "both", 1, 1, 2)
    leaves = [value.float().to(DEVICE).requires_grad_() for value in attention_inputs(case)]
    torch.library.opcheck(attention.fused_window_attention, tuple(leaves), case.options)
    inputs = feed_forward_inputs(FeedForward(4, True, 1, 2, 2))
    leaves = [value.float().to(DEVICE).requires_grad_() for value in inputs]
    torch.library.opcheck(feed_forward.fused_gelu_depthwise, tuple(leaves))


def fuse_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels also where there is no GPU."""
    monkeypatch.setattr(ast, "fuses", lambda x: True)
    monkeypatch.setattr(ast, "fuses_windows", lambda x, **options: True)
    monkeypatch.setattr(kernels, "fuses", lambda x: True)


def small_model(feed_forward: str) -> AST:
    depths = (1, 1, 2 if feed_forward == "frfn" else 1)
    sizes: dict[str, Any] = {"embed_dim": 4, "depths": depths, "heads": (1, 1, 1), "window": 4}
    config = ASTConfig(**sizes, mlp_ratio=2, feed_forward=feed_forward)  # type: ignore[arg-type]
    return random_model(config, std=0.3).to(DEVICE)


@pytest.mark.parametrize("kind", ["frfn", "leff"])
def test_whole_model_and_its_gradients(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(kind)
    image = torch.rand(1, 3, 8, 7, generator=torch.Generator().manual_seed(1)).to(DEVICE)

    def run() -> list[Tensor]:
        model.zero_grad()
        output = model(image)
        output.square().mean().backward()
        found = (output.detach(), *(p.grad for p in model.parameters()))
        return [value.cpu() for value in found]  # type: ignore[union-attr]

    with kernels.plain_kernels():
        plain = run()
    fuse_everywhere(monkeypatch)
    assert max(errors(run(), plain)) < 1e-5


def test_compiled_attention_has_no_graph_break(monkeypatch: pytest.MonkeyPatch) -> None:
    fuse_everywhere(monkeypatch)
    layer = ast.WindowAttention(8, 2, window=2, shifts=True, branches="both").to(DEVICE)
    x = torch.rand(1, 4, 2, 8, device=DEVICE)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))
