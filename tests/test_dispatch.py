"""How an operation finds a backend, and that whole models compute the same with it."""

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from kernel_cases import DEVICE, errors
from parity import random_model
from torch import Tensor

from fairweather.models import ASTConfig, gpu_kernels, list_kernel_checks, plain_kernels
from fairweather.models.fast import dispatch
from fairweather.models.fast.dispatch import operation


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


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels also where there is no GPU."""
    monkeypatch.setitem(dispatch.ROOMS, "cpu", "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


@pytest.mark.usefixtures("everywhere")
def check_a_whole_model_and_its_gradients() -> None:
    config = ASTConfig(embed_dim=4, depths=(1, 1, 2), heads=(1, 1, 1), window=4, mlp_ratio=2)
    model = random_model(config, std=0.3).to(DEVICE)
    image = torch.rand(1, 3, 8, 7, generator=torch.Generator().manual_seed(1)).to(DEVICE)

    def run() -> list[Tensor]:
        model.zero_grad()
        output = model(image)
        output.square().mean().backward()
        found = (output.detach(), *(p.grad for p in model.parameters()))
        return [value.cpu() for value in found]  # type: ignore[union-attr]

    with plain_kernels():
        plain = run()
    assert list_kernel_checks() == []
    with gpu_kernels():
        assert max(errors(run(), plain)) < 1e-5
    checks = list_kernel_checks()
    assert {check["operation"] for check in checks} == {"window_attention", "gated_depthwise"}
    assert {check["fault"] for check in checks} == {None}
