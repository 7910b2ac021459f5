"""MixUp: which crops are blended, and with which shares."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairweather.data import mix_up


def mixed(count: int, *, seed: int, alpha: float = 1.2) -> tuple[torch.Tensor, torch.Tensor]:
    """The share of every crop of a batch in every blended one, (B, B), degraded and clean.

    Each crop is black but for a pixel of its own, and the degraded image is half as bright.
    """
    clean = torch.eye(count, dtype=torch.float64).view(count, 1, 1, count).expand(-1, 3, 2, -1)
    random = torch.Generator().manual_seed(seed)
    degraded, blended = mix_up(clean / 2, clean, alpha=alpha, generator=random)
    assert blended.shape == clean.shape
    assert torch.equal(blended, blended[:, :1, :1].expand_as(blended))
    return degraded[:, 0, 0], blended[:, 0, 0]


@given(count=st.integers(1, 9), seed=st.integers(0, 999), alpha=st.floats(0.1, 50))
def test_mix_up_blends_two_crops_and_both_images_alike(count: int, seed: int, alpha: float) -> None:
    degraded, clean = mixed(count, seed=seed, alpha=alpha)
    assert torch.allclose(degraded, clean / 2)
    assert torch.allclose(clean.sum(1), torch.ones(count, dtype=torch.float64))
    assert ((clean >= 0) & (clean <= 1)).all()
    assert ((clean > 0).sum(1) <= 2).all()
    partners = [[j for j in range(count) if j != i and row[j] > 0] for i, row in enumerate(clean)]
    flat = [j for some in partners for j in some]
    assert len(set(flat)) == len(flat)  # a permutation
    assert torch.equal(mixed(count, seed=seed, alpha=alpha)[1], clean)


def test_the_shares_of_mix_up_are_of_the_beta_distribution() -> None:
    shares, partners = [], set()
    for seed in range(800):
        clean = mixed(4, seed=seed)[1]
        for i, row in enumerate(clean):
            if (row > 0).sum() == 2:
                shares.append(float(row[i]))
                partners.add((i, *(j for j in range(4) if j != i and row[j] > 0)))
    assert len(partners) == 12
    assert abs(np.mean(shares) - 0.5) < 0.02
    assert abs(np.var(shares) - 1 / (4 * (2 * 1.2 + 1))) < 0.005


def test_mix_up_keeps_the_dtype() -> None:
    images = torch.rand(3, 3, 4, 4)
    for blended in mix_up(images, images, alpha=1.2, generator=torch.Generator().manual_seed(0)):
        assert (blended.dtype, blended.shape) == (torch.float32, images.shape)
