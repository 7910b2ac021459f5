"""The bundled weights on real images: figures are floors, printed with -s for the weights' card."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from skimage.metrics import peak_signal_noise_ratio

from fairweather import Restorer
from fairweather.data import add_rain
from fairweather.imaging import read_image

Pixels = np.ndarray


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer("rain", device="cpu")


def psnr_db(restored: Pixels, clean: Pixels) -> float:
    return float(peak_signal_noise_ratio(clean, restored, data_range=255))


def pair_gains(folder: Path, restore: Callable[[Pixels], Pixels]) -> np.ndarray:
    """PSNR of input and of result for each pair, RGB, over 8-bit files: (n, 2)."""
    rows = []
    for path in sorted((folder / "input").iterdir()):
        degraded = read_image(path).pixels
        clean = read_image(folder / "target" / path.name).pixels
        rows.append((psnr_db(degraded, clean), psnr_db(restore(degraded), clean)))
    return np.array(rows)


@pytest.mark.parametrize(("name", "floor_db"), [("Rain100L", 3.0), ("Rain100H", 6.0)])
def test_rain_is_removed_from_benchmark_pairs(
    restorer: Restorer, data: Path, name: str, floor_db: float
) -> None:
    rows = pair_gains(data / "dev" / "pairs" / "rain" / name, restorer)
    before, after = rows.mean(0)
    print(f"\n{name} ({len(rows)} pairs): {before:.2f} → {after:.2f} dB ({after - before:+.2f})")
    assert after - before >= floor_db


def test_clean_photographs_are_left_alone(restorer: Restorer, data: Path) -> None:
    paths = sorted((data / "dev" / "clean" / "Kodak24").iterdir())
    photos = [read_image(path).pixels for path in paths]
    identity_db = [psnr_db(restorer(photo), photo) for photo in photos]
    print(
        f"\nKodak ({len(photos)}): mean {np.mean(identity_db):.2f} dB, {np.round(identity_db, 2)}"
    )
    assert len(photos) == 8
    assert np.mean(identity_db) >= 36
    assert min(identity_db) >= 30


def test_tiles_leave_no_seam_in_a_real_photograph(restorer: Restorer, data: Path) -> None:
    folder = data / "dev" / "pairs" / "haze" / "REVIDE" / "input"
    photo = read_image(min(folder.iterdir())).pixels[:700, :900]
    whole = Restorer("rain", device="cpu", tile=None)(photo)
    tiled = Restorer("rain", device="cpu", tile=256)(photo)
    assert psnr_db(tiled, whole) >= 50
    assert not np.array_equal(whole, photo)


@pytest.mark.parametrize("photo", ["rocket", "astronaut", "coffee"])
def test_free_photographs_get_better_under_synthetic_rain(restorer: Restorer, photo: str) -> None:
    clean = getattr(skimage.data, photo)()[:256, 100:420]
    batch = torch.from_numpy(clean / np.float32(255)).permute(2, 0, 1)[None].expand(3, -1, -1, -1)
    rainy = add_rain(batch, generator=torch.Generator().manual_seed(11))
    degraded = (rainy.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    before = np.mean([psnr_db(image, clean) for image in degraded])
    after = np.mean([psnr_db(restorer(image), clean) for image in degraded])
    assert after - before >= 1.5
