"""What training minimises: losses of (restored, clean), and their weighted sum.

Every loss takes two float tensors of (B, 3, H, W), RGB in [0, 1], and returns a scalar that is a
mean over the batch, so that devices with equal shares of a batch average to the loss of the whole.
`restored` may exceed [0, 1] and is not clamped, for a clamp would stop its gradient there.
"""

import functools
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairweather.errors import RecipeError

Loss = Callable[[Tensor, Tensor], Tensor]
Backbone = Callable[[Tensor], Tensor | Sequence[Tensor]]

CHARBONNIER_EPSILON = 1e-3
SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5
LEAST_MSE = 1e-4  # 40 dB
LATTICE_PX = 16
HIGHEST_PSNR_DB = 100.0  # of images without a difference, whose own would be infinite


def in_full_precision(loss: Loss) -> Loss:
    """Computes a loss in the dtype of `clean`, at least float32, and outside of any autocast."""

    @functools.wraps(loss)
    def precise(restored: Tensor, clean: Tensor) -> Tensor:
        dtype = torch.promote_types(clean.dtype, torch.float32)
        with torch.autocast(clean.device.type, enabled=False):
            return loss(restored.to(dtype), clean.to(dtype))

    return precise


@in_full_precision
def charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean of √(difference² + ε²) with ε = 1e-3, the official training loss."""
    return ((restored - clean).square() + CHARBONNIER_EPSILON**2).sqrt().mean()


@in_full_precision
def l1(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean of |difference|."""
    return F.l1_loss(restored, clean)


@in_full_precision
def mse(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean of difference²."""
    return F.mse_loss(restored, clean)


@in_full_precision
def psnr(restored: Tensor, clean: Tensor) -> Tensor:
    """How many dB of PSNR each image is below 40 dB, roughly, and the mean of that.

    10·log10(1 + MSE / 1e-4) of each image, the PSNR loss of HINet (Chen et al., CVPRW 2021) with a
    floor, so that an image without degradation is left alone instead of outweighing all others.
    """
    squares = (restored - clean).square().mean((1, 2, 3))
    return 10 / math.log(10) * (squares / LEAST_MSE).log1p().mean()


@in_full_precision
def ssim(restored: Tensor, clean: Tensor) -> Tensor:
    """1 − SSIM (Wang et al., IEEE TIP 2004) with their Gaussian window, 11 × 11 and σ 1.5 px.

    The mean is over every pixel, with reflection at the border, so that the border is trained
    too. Wang's code and scikit-image average only where the window lies inside of the image.

    Raises:
        RecipeError: if a side is shorter than the window.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    height, width = clean.shape[-2:]
    if min(height, width) < SSIM_WINDOW_PX:
        raise RecipeError(
            f"loss term 'ssim': crops of {height}×{width} px are smaller than its window of"
            f" {SSIM_WINDOW_PX} px; raise crop_px, or leave the term out"
        )
    # The map, because the mean that comes with it leaves out the border in torchmetrics 1.4.0.
    _, similarity = structural_similarity_index_measure(
        restored,
        clean,
        sigma=SSIM_SIGMA_PX,
        kernel_size=SSIM_WINDOW_PX,
        data_range=1.0,
        return_full_image=True,
    )
    return 1 - similarity.mean()


@in_full_precision
def frequency(restored: Tensor, clean: Tensor) -> Tensor:
    """Mean |real| and |imaginary| part of the 2-D spectrum of the difference.

    The frequency term of MIMO-UNet (Cho et al., ICCV 2021, L_MSFR) at full resolution only. The
    transform is orthonormal, so that the value does not grow with the crop.
    """
    # Official: not normalised, √(H·W) times this: weight 0.1 there is 25.6 here at 256 × 256. Both
    # halves of the spectrum, which mirror each other up to the columns in their middle.
    spectrum = torch.fft.rfft2(restored - clean, norm="ortho")
    return torch.view_as_real(spectrum).abs().mean()


@in_full_precision
def edge(restored: Tensor, clean: Tensor) -> Tensor:
    """Charbonnier of the Laplacians, as L_edge of MPRNet (Zamir et al., CVPR 2021)."""
    # Official: one level of a Laplacian pyramid (the image less a blurred copy of half its
    # resolution). The plain Laplacian has no gain to choose, and weighs the finest detail more.
    return charbonnier(laplacian(restored), laplacian(clean))


def laplacian(images: Tensor) -> Tensor:
    """Sum of the 4 neighbours less 4 times the pixel; the border repeats the outermost pixel.

    Args:
        images: (B, 3, H, W), any range.

    Returns:
        (B, 3, H, W).
    """
    down, right = images.diff(dim=-2), images.diff(dim=-1)
    return (
        F.pad(down, (0, 0, 0, 1))
        - F.pad(down, (0, 0, 1, 0))
        + F.pad(right, (0, 1))
        - F.pad(right, (1, 0))
    )


@in_full_precision
def lattice(restored: Tensor, clean: Tensor) -> Tensor:
    """Root mean square of what the difference repeats every 16 px, or every 8, 4 or 2 px.

    A transposed convolution gives each pixel of a cell its own weights, so that smooth surfaces
    come out as checkerboards (Odena et al., "Deconvolution and Checkerboard Artifacts", 2016). Four
    of them make cells of 16 px. The error of a picture does not repeat, so its mean over all cells
    is small, and that of a checkerboard is not.

    Raises:
        RecipeError: if a side is shorter than a cell.
    """
    rows, columns = (length // LATTICE_PX for length in clean.shape[-2:])
    if not (rows and columns):
        height, width = clean.shape[-2:]
        raise RecipeError(
            f"loss term 'lattice': crops of {height}×{width} px are smaller than its cells of"
            f" {LATTICE_PX} px; raise crop_px, or leave the term out"
        )
    difference = (restored - clean)[..., : rows * LATTICE_PX, : columns * LATTICE_PX]
    cells = difference.unflatten(-1, (columns, LATTICE_PX)).unflatten(-3, (rows, LATTICE_PX))
    cell = cells.mean((-4, -2))
    repeated = cell - cell.mean((-2, -1), keepdim=True)
    return (repeated.square().mean((1, 2, 3)) + CHARBONNIER_EPSILON**2).sqrt().mean()


LOSSES: dict[str, Loss] = {
    "charbonnier": charbonnier,
    "l1": l1,
    "mse": mse,
    "psnr": psnr,
    "ssim": ssim,
    "frequency": frequency,
    "edge": edge,
    "lattice": lattice,
}
LOSS_NAMES = (*LOSSES, "perceptual")


class Perceptual(nn.Module):
    """Mean L1 distance of features (Johnson et al., ECCV 2016, with L1), gradient to `restored`.

    Several features count the same, whatever their sizes. A backbone that is a module is frozen
    in place and set to eval mode. It follows `.to()`, but has no part in `parameters()`,
    `state_dict()` or `train()`: no optimiser, average or checkpoint of what is trained holds it.

    Args:
        backbone: (B, 3, H, W), RGB in [0, 1] → features, a tensor or a sequence of them. Any
            normalisation is its own.
    """

    def __init__(self, backbone: Backbone):
        super().__init__()
        if isinstance(backbone, nn.Module):
            backbone.eval().requires_grad_(False)
        self._unregistered = (backbone,)  # as an attribute it would become a submodule

    @property
    def backbone(self) -> Backbone:
        """What makes the features."""
        return self._unregistered[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002
        """Torch's way to every tensor, taken by `.to()` of this module and of those around it."""
        if isinstance(self.backbone, nn.Module):
            self.backbone._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        return in_full_precision(self._distance)(restored, clean)

    def _distance(self, restored: Tensor, clean: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self._features(clean)
        pairs = zip(self._features(restored), wanted, strict=True)
        return torch.stack([F.l1_loss(ours, theirs) for ours, theirs in pairs]).mean()

    def _features(self, images: Tensor) -> Sequence[Tensor]:
        output = self.backbone(images)
        features = (output,) if isinstance(output, Tensor) else output
        is_sequence = isinstance(features, Sequence) and len(features) > 0
        if not is_sequence or not all(isinstance(feature, Tensor) for feature in features):
            raise RecipeError(
                "loss term 'perceptual': the backbone must return a tensor or a sequence of"
                f" tensors, not {output!r:.80}"
            )
        return features


class WeightedLoss(nn.Module):
    """Σ weight · loss, with an empty state dict and no parameters.

    One term of weight 1 is the bare loss to the bit.

    Args:
        terms: weights by name, as a recipe has them.
        backbone: makes the features of `perceptual`; see `Perceptual` and `load_backbone`.
    """

    def __init__(self, terms: Mapping[str, float], *, backbone: Backbone | None = None):
        super().__init__()
        self.terms = dict(terms)
        self.losses = dict(LOSSES)
        if backbone is not None:
            # Also registered, so that the backbone follows `.to()`.
            self.perceptual = self.losses["perceptual"] = Perceptual(backbone)

    def forward(self, restored: Tensor, clean: Tensor) -> Tensor:
        """Two of (B, 3, H, W) in [0, 1] → a scalar."""
        terms = [weight * self.losses[name](restored, clean) for name, weight in self.terms.items()]
        return torch.stack(terms).sum()


def load_backbone(target: str) -> Backbone:
    """Imports and calls what makes the backbone of `perceptual`; nothing is downloaded here.

    Args:
        target: `package.module:callable`, called without arguments.

    Returns:
        What it made, as a rule an nn.Module.

    Raises:
        RecipeError: if there is no such module or callable, or it makes nothing callable.
    """
    try:
        make = pkgutil.resolve_name(target)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(
            f"backbone {target!r}: cannot be imported ({error}); write it as"
            " package.module:callable, and if it is your own, put its folder on PYTHONPATH"
        ) from error
    if not callable(make):
        raise RecipeError(f"backbone {target!r}: is of type {type(make).__name__}; name a callable")
    backbone = make()
    if not callable(backbone):
        raise RecipeError(
            f"backbone {target!r}: made a {type(backbone).__name__}; it must return an nn.Module or"
            " another callable"
        )
    return cast(Backbone, backbone)
