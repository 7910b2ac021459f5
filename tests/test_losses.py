"""Losses against numpy, scikit-image and loops; their sum; and the backbone that is not trained."""

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from fairweather.errors import RecipeError
from fairweather.training.losses import (
    LOSS_NAMES,
    LOSSES,
    WeightedLoss,
    charbonnier,
    laplacian,
    load_backbone,
)

SIZES = [(2, 3, 16, 16), (1, 3, 11, 14), (3, 3, 23, 12)]


class TwoStages(nn.Module):
    """A backbone of two smooth stages, with what trains in batch norm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.second = nn.Conv2d(4, 5, 3, stride=2)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, image: Tensor) -> list[Tensor]:
        early = self.drop(self.norm(self.first(image).tanh()))
        return [early, self.second(early).tanh()]


class Trained(nn.Module):
    """What is trained: a network, and beside it the loss."""

    def __init__(self, loss: WeightedLoss) -> None:
        super().__init__()
        self.model = nn.Conv2d(3, 3, 1)
        self.loss = loss


def images(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def loss_of(name: str) -> WeightedLoss:
    return WeightedLoss({name: 1.0}, backbone=TwoStages() if name == "perceptual" else None)


def gradient(loss: Callable[[Tensor, Tensor], Tensor], restored: Tensor, clean: Tensor) -> Tensor:
    restored = restored.clone().requires_grad_()
    loss(restored, clean).backward()
    assert restored.grad is not None
    return restored.grad


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(RecipeError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 5, 7)])
def test_charbonnier_is_what_a_loop_computes(shape: tuple[int, ...]) -> None:
    restored, clean = images(0, *shape), images(1, *shape)
    terms = [
        math.sqrt((a - b) ** 2 + 0.001**2)
        for a, b in zip(restored.flatten().tolist(), clean.flatten().tolist(), strict=True)
    ]
    expected = sum(terms) / len(terms)
    assert charbonnier(restored, clean).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["charbonnier", "edge", "lattice"])
def test_charbonnier_of_equal_images_is_epsilon(name: str) -> None:
    clean = images(0, 2, 3, 16, 16)
    assert LOSSES[name](clean, clean).item() == pytest.approx(1e-3, rel=1e-5)


@pytest.mark.parametrize(("name", "power"), [("l1", 1), ("mse", 2)])
def test_l1_and_mse_are_what_a_loop_computes(name: str, power: int) -> None:
    restored, clean = images(0, 2, 3, 5, 7), images(1, 2, 3, 5, 7)
    differences = [
        abs(a - b) ** power
        for a, b in zip(restored.flatten().tolist(), clean.flatten().tolist(), strict=True)
    ]
    expected = sum(differences) / len(differences)
    assert LOSSES[name](restored, clean).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ssim_is_that_of_scikit_image_with_the_border(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    clean = images(0, *shape).to(dtype)
    restored = (clean + 0.2 * images(1, *shape)).to(dtype)

    def with_border(image: Tensor) -> np.ndarray:
        # scikit-image leaves out 5 px at each border; of these images it leaves out what is added.
        channels_last = image.double().permute(1, 2, 0).numpy()
        return np.pad(channels_last, ((5, 5), (5, 5), (0, 0)), mode="reflect")

    similarities = [
        structural_similarity(
            with_border(ours),
            with_border(theirs),
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1.0,
        )
        for ours, theirs in zip(restored, clean, strict=True)
    ]
    loss = LOSSES["ssim"](restored, clean)
    assert loss.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert loss.item() == pytest.approx(1 - np.mean(similarities), abs=tolerance)


def test_psnr_is_the_mean_over_images_of_what_lacks_to_40_db() -> None:
    clean = images(0, 2, 3, 8, 8)
    restored = clean + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    expected = (10 * math.log10(101) + 10 * math.log10(2)) / 2  # of 20 and 40 dB
    assert LOSSES["psnr"](restored, clean).item() == pytest.approx(expected, rel=1e-4)
    assert LOSSES["psnr"](clean, clean).item() == 0


def test_ssim_trains_the_corners() -> None:
    clean = images(0, 1, 3, 16, 16)
    steepness = gradient(LOSSES["ssim"], images(1, 1, 3, 16, 16), clean).abs().mean((0, 1))
    assert steepness[0, 0] > 0.1 * steepness.mean()


@pytest.mark.parametrize(("height", "width"), [(10, 64), (64, 10), (4, 4)])
def test_ssim_says_that_a_crop_is_smaller_than_its_window(height: int, width: int) -> None:
    crop = images(0, 1, 3, height, width)
    message = message_of(lambda: LOSSES["ssim"](crop, crop))
    assert "'ssim'" in message
    assert f"{height}×{width} px" in message
    assert "crop_px" in message


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), *SIZES])
def test_frequency_is_what_numpy_computes(shape: tuple[int, ...]) -> None:
    restored, clean = images(0, *shape).double(), images(1, *shape).double()
    height, width = shape[-2:]
    spectrum = np.fft.fft2(restored.numpy()) - np.fft.fft2(clean.numpy())
    half = spectrum[..., : width // 2 + 1] / math.sqrt(height * width)
    expected = (np.abs(half.real).mean() + np.abs(half.imag).mean()) / 2
    assert LOSSES["frequency"](restored, clean).item() == pytest.approx(expected, rel=1e-12)


def test_frequency_is_near_the_official_one_by_the_scale_of_its_transform() -> None:
    restored, clean = images(0, 4, 3, 64, 64), images(1, 4, 3, 64, 64)
    official = F.l1_loss(
        torch.view_as_real(torch.fft.fft2(restored)), torch.view_as_real(torch.fft.fft2(clean))
    )
    expected = official.item() / 64
    assert LOSSES["frequency"](restored, clean).item() == pytest.approx(expected, rel=0.02)


def test_the_laplacian_is_what_a_loop_computes() -> None:
    batch = images(0, 2, 3, 5, 7).double()
    expected = torch.zeros_like(batch)
    for y in range(5):
        for x in range(7):
            for dy, dx in [(-1, 0), (1, 0), (0, -1), (0, 1)]:
                neighbour = batch[..., min(max(y + dy, 0), 4), min(max(x + dx, 0), 6)]
                expected[..., y, x] += neighbour - batch[..., y, x]
    torch.testing.assert_close(laplacian(batch), expected, rtol=0, atol=1e-14)


def test_edge_is_the_charbonnier_of_the_laplacians() -> None:
    restored, clean = images(0, 2, 3, 5, 7).double(), images(1, 2, 3, 5, 7).double()
    difference = (laplacian(restored) - laplacian(clean)).numpy()
    expected = np.sqrt(difference**2 + 1e-6).mean()
    assert LOSSES["edge"](restored, clean).item() == pytest.approx(expected, rel=1e-12)


def test_edge_sees_no_change_of_brightness() -> None:
    clean = images(0, 1, 3, 8, 8).double()
    assert LOSSES["edge"](clean + 0.3, clean).item() == pytest.approx(1e-3)


@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_lattice_is_what_the_cells_have_in_common(period: int) -> None:
    clean = images(0, 2, 3, 70, 50).double()
    cell = images(1, 1, 1, period, period).double()
    cell -= cell.mean()
    repeated = cell.repeat(1, 1, 70 // period + 1, 50 // period + 1)[..., :70, :50]
    expected = (cell.square().mean() + 1e-6).sqrt().item()
    assert LOSSES["lattice"](clean + 0.2 + repeated, clean).item() == pytest.approx(expected)


def test_lattice_hardly_sees_an_error_that_does_not_repeat() -> None:
    error = images(0, 1, 3, 256, 256) - 0.5
    share = LOSSES["lattice"](error, torch.zeros_like(error)) / error.square().mean().sqrt()
    assert share == pytest.approx(1 / 16, rel=0.05)  # of 256 cells


def test_lattice_refuses_crops_without_a_cell() -> None:
    crop = images(0, 1, 3, 15, 40)
    assert "15×40" in message_of(lambda: LOSSES["lattice"](crop, crop))


def test_perceptual_is_the_mean_distance_of_the_features() -> None:
    backbone = TwoStages().double()
    restored, clean = images(0, 2, 3, 9, 9).double(), images(1, 2, 3, 9, 9).double()
    loss = WeightedLoss({"perceptual": 1.0}, backbone=backbone)(restored, clean)
    pairs = zip(backbone(restored), backbone(clean), strict=True)
    distances = [(ours - theirs).abs().mean().item() for ours, theirs in pairs]
    assert loss.item() == pytest.approx(sum(distances) / 2, rel=1e-12)


def test_a_backbone_may_be_a_function_of_one_feature() -> None:
    loss = WeightedLoss({"perceptual": 1.0}, backbone=lambda image: image.mean((-2, -1)))
    restored, clean = images(0, 2, 3, 9, 9), images(1, 2, 3, 9, 9)
    expected = (restored.mean((-2, -1)) - clean.mean((-2, -1))).abs().mean()
    torch.testing.assert_close(loss(restored, clean), expected)


@pytest.mark.parametrize("output", [{"relu1": torch.zeros(1)}, [], 3, ["relu1"], None])
def test_what_is_no_feature_is_refused(output: object) -> None:
    loss = WeightedLoss({"perceptual": 1.0}, backbone=lambda _: output)  # type: ignore[arg-type,return-value]
    message = message_of(lambda: loss(images(0, 1, 3, 4, 4), images(1, 1, 3, 4, 4)))
    assert "'perceptual'" in message
    assert str(output)[:70] in message


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_a_loss_is_one_number_that_grows_with_the_difference(name: str) -> None:
    clean, noise = images(0, 2, 3, 16, 16), images(1, 2, 3, 16, 16) - 0.5
    none, little, more, most = (
        loss_of(name)(clean + by * noise, clean) for by in (0.0, 0.1, 0.2, 0.4)
    )
    assert none.shape == most.shape == ()
    assert none.dtype == most.dtype == torch.float32
    assert none <= 0.0011
    assert none < little < more < most


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_a_loss_has_the_right_gradient(name: str) -> None:
    restored, clean = images(0, 1, 3, 16, 17).double(), images(1, 1, 3, 16, 17).double()
    loss = loss_of(name).double()
    assert torch.autograd.gradcheck(lambda image: loss(image, clean), restored.requires_grad_())


@pytest.mark.parametrize("level", [None, 0.0, 1.0])
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_the_gradient_is_finite_where_nothing_differs(name: str, level: float | None) -> None:
    clean = images(0, 2, 3, 16, 16) if level is None else torch.full((2, 3, 16, 16), level)
    assert gradient(loss_of(name), clean, clean).abs().max() < 1e-4


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_halves(name: str) -> None:
    restored, clean = images(0, 4, 3, 16, 16).double(), images(1, 4, 3, 16, 16).double()
    loss = loss_of(name).double()
    halves = [loss(restored[half], clean[half]) for half in (slice(0, 2), slice(2, 4))]
    assert loss(restored, clean).item() == pytest.approx(sum(halves).item() / 2, rel=1e-12)


@pytest.mark.parametrize("name", LOSS_NAMES)
def test_autocast_changes_no_loss(name: str) -> None:
    restored, clean = images(0, 2, 3, 16, 16), images(1, 2, 3, 16, 16)
    loss = loss_of(name)
    with torch.autocast("cpu", torch.bfloat16):
        cast, cast_gradient = loss(restored, clean), gradient(loss, restored, clean)
    assert torch.equal(cast, loss(restored, clean))
    assert torch.equal(cast_gradient, gradient(loss, restored, clean))


@pytest.mark.parametrize("name", LOSS_NAMES)
@pytest.mark.parametrize("clean_dtype", [torch.float32, torch.bfloat16])
def test_a_bfloat16_image_has_the_loss_of_its_values(name: str, clean_dtype: torch.dtype) -> None:
    restored, clean = images(0, 2, 3, 16, 16).bfloat16(), images(1, 2, 3, 16, 16).to(clean_dtype)
    loss = loss_of(name)
    assert torch.equal(loss(restored, clean), loss(restored.float(), clean.float()))
    half_gradient = gradient(loss, restored, clean)
    assert half_gradient.dtype == torch.bfloat16
    assert torch.equal(half_gradient, gradient(loss, restored.float(), clean.float()).bfloat16())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSS_NAMES)
def test_a_gpu_gives_the_same_loss(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    restored, clean = images(0, 2, 3, 40, 27).to(dtype), images(1, 2, 3, 40, 27)
    on_cpu = loss_of(name)(restored, clean)
    with torch.autocast("cuda", torch.bfloat16):
        on_gpu = loss_of(name).cuda()(restored.cuda(), clean.cuda())
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_one_term_of_weight_1_is_the_bare_loss_to_the_bit(name: str) -> None:
    restored, clean = images(0, 2, 3, 16, 16), images(1, 2, 3, 16, 16)
    loss = WeightedLoss({name: 1.0})
    assert torch.equal(loss(restored, clean), LOSSES[name](restored, clean))
    bare = gradient(LOSSES[name], restored, clean)
    assert torch.equal(gradient(loss, restored, clean), bare)


def test_the_sum_is_weighted() -> None:
    restored, clean = images(0, 2, 3, 16, 16).double(), images(1, 2, 3, 16, 16).double()
    weights = {name: 0.5 + number for number, name in enumerate(LOSS_NAMES)}
    total = WeightedLoss(weights, backbone=TwoStages()).double()(restored, clean)
    expected = sum(
        weight * loss_of(name).double()(restored, clean).item() for name, weight in weights.items()
    )
    assert total.shape == ()
    assert total.item() == pytest.approx(expected, rel=1e-12)


def test_every_name_but_that_of_the_perceptual_loss_is_a_function() -> None:
    assert (*LOSSES, "perceptual") == LOSS_NAMES


def test_the_backbone_is_no_part_of_what_is_trained() -> None:
    trained = Trained(loss_of("perceptual"))
    assert {name for name, _ in trained.named_parameters()} == {"model.weight", "model.bias"}
    assert set(trained.state_dict()) == {"model.weight", "model.bias"}
    assert list(trained.buffers()) == []
    trained.load_state_dict(trained.state_dict(), strict=True)
    averaged = torch.optim.swa_utils.AveragedModel(trained, use_buffers=True)
    averaged.update_parameters(trained)
    assert set(averaged.module.state_dict()) == {"model.weight", "model.bias"}


def test_the_backbone_goes_where_the_trained_module_goes() -> None:
    backbone = TwoStages()
    trained = Trained(WeightedLoss({"perceptual": 1.0}, backbone=backbone))
    trained.double()
    assert backbone.first.weight.dtype == torch.float64
    assert backbone.norm.running_mean is not None
    assert backbone.norm.running_mean.dtype == torch.float64
    trained.to("meta")
    assert backbone.first.weight.is_meta


def test_a_copy_of_the_loss_has_a_backbone_of_its_own() -> None:
    loss = loss_of("perceptual")
    restored, clean = images(0, 2, 3, 16, 16), images(1, 2, 3, 16, 16)
    value = loss(restored, clean)
    copy.deepcopy(loss).to("meta")
    assert torch.equal(loss(restored, clean), value)


def test_the_backbone_stays_frozen_while_the_rest_trains() -> None:
    backbone = TwoStages()
    assert backbone.training
    trained = Trained(WeightedLoss({"perceptual": 1.0}, backbone=backbone)).train().requires_grad_()
    before = copy.deepcopy(backbone.state_dict())
    assert not any(module.training for module in backbone.modules())
    clean = images(1, 2, 3, 16, 16).requires_grad_()
    trained.loss(trained.model(images(0, 2, 3, 16, 16)), clean).backward()
    assert trained.model.weight.grad is not None
    assert trained.model.weight.grad.abs().min() > 0
    assert clean.grad is None
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert all(torch.equal(before[name], now) for name, now in backbone.state_dict().items())


@pytest.fixture
def backbones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with backbones, good and bad."""
    source = """
import torch

class Backbones:
    first = staticmethod(lambda: torch.nn.Conv2d(3, 4, 3))

Backbone = torch.nn.Identity
nothing = lambda: None
CONSTANT = 3
"""
    (tmp_path / "backbones_of_a_test.py").write_text(source, encoding="utf-8")
    (tmp_path / "broken_of_a_test.py").write_text("import is_not_there", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "backbones_of_a_test"


def test_a_backbone_is_imported_and_called(backbones: str) -> None:
    assert isinstance(load_backbone(f"{backbones}:Backbone"), nn.Identity)
    assert isinstance(load_backbone(f"{backbones}:Backbones.first"), nn.Conv2d)
    assert isinstance(load_backbone("torch.nn:Identity"), nn.Identity)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("backbones_of_a_test", "is of type module"),
        ("backbones_of_a_test:", "is of type module"),
        (":Backbone", "package.module:callable"),
        (".backbones_of_a_test:Backbone", "package.module:callable"),
        ("is_not_there:Backbone", "PYTHONPATH"),
        ("backbones_of_a_test.deeper:Backbone", "is not a package"),
        ("broken_of_a_test:Backbone", "No module named 'is_not_there'"),
        ("backbones_of_a_test:Missing", "has no attribute 'Missing'"),
        ("backbones_of_a_test:CONSTANT", "is of type int"),
        ("backbones_of_a_test:nothing", "made a NoneType"),
    ],
)
@pytest.mark.usefixtures("backbones")
def test_a_backbone_that_cannot_be_had_is_explained(target: str, told: str) -> None:
    message = message_of(functools.partial(load_backbone, target))
    assert repr(target) in message
    assert told in message
