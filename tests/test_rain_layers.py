"""Rain from a bank: one grey layer, as large, as turned and as bright as asked."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fairweather.data import Pair, RainLayers, RandomCrops, split_layers
from fairweather.data.degradations.rain_layers import (
    LayerRanges,
    draw_lines,
    layer_of_pair,
    place,
)
from fairweather.data.degradations.randomness import Dice
from fairweather.errors import DataError

# One layer of the bank as it lies there, its streaks 100 grey levels bright.
PLAIN = LayerRanges(
    heavy_probability=0.0,
    light_count=(1, 1),
    light_brightness=(100.0, 100.0),
    scale=(1.0, 1.0),
    scale_spread=1.0,
    angle_deg=(0.0, 0.0),
    angle_spread_deg=0.0,
)
LINES = replace(PLAIN, heavy_probability=1.0, heavy_count=(1, 1), line_probability=1.0)
GREY = np.full((64, 96, 3), (90, 100, 110), np.uint8)


def dice(seed: int = 0) -> Dice:
    return Dice(torch.Generator().manual_seed(seed), torch.device("cpu"))


def streaks(*, every: int = 16, width: int = 4, level: int = 60) -> np.ndarray:
    """Vertical bars: (128, 128) uint8."""
    layer = np.zeros((128, 128), np.uint8)
    for left in range(8, 128, every):
        layer[:, left : left + width] = level
    return layer


def save_layer(folder: Path, layer: np.ndarray, *, name: str = "1-4") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    Image.fromarray(layer).save(path)
    return path


def degrade(bank: RainLayers, clean: np.ndarray, *, seed: int) -> np.ndarray:
    return bank.degrade(clean, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [(16, 16), (17, 90), (224, 224)])
def test_one_grey_layer_is_added_and_clipped(
    tmp_path: Path, size: tuple[int, int], seed: int
) -> None:
    bank = RainLayers([save_layer(tmp_path, streaks())])
    clean = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    before = clean.copy()
    rainy = degrade(bank, clean, seed=seed)
    assert rainy.shape == clean.shape
    assert rainy.dtype == np.uint8
    assert np.array_equal(clean, before)
    layer = (rainy.astype(int) - clean).max(-1)  # of the channel that clips least
    assert layer.min() >= 0
    assert np.array_equal(rainy, np.minimum(clean.astype(int) + layer[..., None], 255))


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    paths = [save_layer(tmp_path, streaks(every=8 * n), name=str(n)) for n in (1, 2, 3)]
    first, again, other = (degrade(RainLayers(paths), GREY, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("level", [30, 60, 240])
def test_layers_of_any_brightness_become_as_bright_as_asked(tmp_path: Path, level: int) -> None:
    bank = RainLayers([save_layer(tmp_path, streaks(level=level))], ranges=PLAIN)
    rain = degrade(bank, GREY, seed=0).astype(int) - GREY
    assert rain.max() == 100
    assert (rain > 8).mean() == pytest.approx(0.25, abs=0.08)


def test_a_nearly_empty_layer_is_not_amplified_to_noise(tmp_path: Path) -> None:
    bank = RainLayers([save_layer(tmp_path, np.full((64, 64), 3, np.uint8))], ranges=PLAIN)
    rain = degrade(bank, GREY, seed=0).astype(int) - GREY
    assert 0 < rain.max() <= 13


def test_heavy_rain_is_brighter_and_denser_than_light_rain(tmp_path: Path) -> None:
    path = save_layer(tmp_path, streaks())
    covered, added = [], []
    for heavy in (0.0, 1.0):
        bank = RainLayers([path], ranges=LayerRanges(heavy_probability=heavy))
        rain = torch.stack(
            [bank.draw(torch.Generator().manual_seed(n), size=(64, 64)) for n in range(40)]
        )
        covered.append((rain > 8 / 255).float().mean().item())
        added.append(rain.mean().item())
    assert covered[1] > 1.5 * covered[0]
    assert added[1] > 2 * added[0]


@pytest.mark.parametrize(("scale", "width_px"), [(0.5, 2), (1.0, 4), (4.0, 16)])
def test_a_layer_is_enlarged(scale: float, width_px: int) -> None:
    layer = torch.from_numpy(streaks(every=64, width=4))
    widths = []
    for seed in range(20):
        row = place(dice(seed), layer, size=(8, 512), scale=scale, angle_deg=0.0)[4] > 30
        edges = row.int().diff().nonzero().flatten().tolist()
        widths += [b - a for a, b in itertools.pairwise(edges) if row[a + 1] and a > 0]
    assert np.median(widths) == pytest.approx(width_px, abs=1)


@pytest.mark.parametrize("angle_deg", [-30.0, 0.0, 20.0])
def test_a_layer_is_turned(angle_deg: float) -> None:
    layer = torch.from_numpy(streaks(every=64, width=8)).clone()
    placed = torch.stack(
        [
            place(dice(seed), layer, size=(96, 96), scale=1.0, angle_deg=angle_deg)
            for seed in range(20)
        ]
    )
    down, right = (placed.diff(dim=axis).square().sum() for axis in (1, 2))
    assert (down / right).sqrt().atan().rad2deg().item() == pytest.approx(abs(angle_deg), abs=4)


def test_drawn_lines_have_hard_edges_and_cover_what_they_should() -> None:
    ranges = replace(
        LINES, line_length_px=(40.0, 40.0), line_width_px=(3.0, 3.0), line_coverage=(0.1, 0.1)
    )
    lines = torch.stack(
        [draw_lines(dice(n), ranges, size=(128, 128), angle_deg=0.0) for n in range(10)]
    )
    assert lines.mean().item() == pytest.approx(0.7 * 0.1, rel=0.15)  # 0.4 to 1 bright
    bright = lines[lines > 0.1]
    assert 0.4 <= bright.quantile(0.5).item() <= 1
    # Along a line nothing changes but at its ends; across it two pixels take the whole rise.
    assert (lines.diff(dim=1).abs() > 0.05).sum() < 0.3 * (lines.diff(dim=2).abs() > 0.05).sum()


def test_the_rain_of_a_pair_is_found_without_its_lifted_contrast() -> None:
    random = np.random.default_rng(0)
    clean = np.asarray(
        Image.fromarray(random.integers(0, 180, (8, 8, 3), dtype=np.uint8)).resize((128, 128))
    )
    rain = streaks()
    rainy = (clean + 10 + rain[..., None]).astype(np.uint8)
    layer = layer_of_pair(rainy, clean)
    inside = layer[32:96, 32:96][rain[32:96, 32:96] > 0]
    assert 20 <= inside.min() <= inside.max() <= 60
    assert layer[32:96, 32:96][rain[32:96, 32:96] == 0].max() == 0
    assert layer_of_pair(clean, rainy).max() == 0  # what is darker is no rain


def test_a_bank_takes_pairs_too(tmp_path: Path) -> None:
    clean = np.full((128, 128, 3), 50, np.uint8)
    pair = Pair(
        save_layer(tmp_path, clean + streaks()[..., None], name="rainy"),
        save_layer(tmp_path, clean, name="clean"),
    )
    rain = degrade(RainLayers([pair], ranges=PLAIN), GREY, seed=0).astype(int) - GREY
    assert rain.max() == pytest.approx(100, abs=15)


def test_a_bank_without_layers_is_an_error() -> None:
    with pytest.raises(DataError, match="no layers of rain"):
        RainLayers([])


def test_views_of_the_same_streaks_stay_on_one_side() -> None:
    paths = [Path(f"{streak}-{view}.png") for streak in range(20) for view in (4, 6)]
    training, held_out = split_layers(paths, held_out_every=5)
    assert {path.stem.split("-")[0] for path in held_out} == {"0", "5", "10", "15"}
    assert len(held_out) == 8
    assert sorted([*training, *held_out]) == sorted(paths)
    assert split_layers([Path("a.png"), Path("b.png")], held_out_every=2) == (
        [Path("b.png")],
        [Path("a.png")],
    )


def save_real_pair(folder: Path) -> Pair:
    clean = np.random.default_rng(0).integers(0, 200, (32, 32, 3), dtype=np.uint8)
    return Pair(
        save_layer(folder, clean // 2, name="degraded"), save_layer(folder, clean, name="clean")
    )


def arrays(crop: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    return crop["degraded"].numpy(), crop["clean"].numpy()


def brighten(clean: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Stands for rain from a bank of layers."""
    return np.minimum(clean.astype(int) + random.integers(20, 40), 255).astype(np.uint8)


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0.0), (0.6, 0.3), (1.0, 0.5)])
def test_pairs_that_degrade_get_their_share_of_the_clean_crops(
    tmp_path: Path, fraction: float, expected: float
) -> None:
    real = save_real_pair(tmp_path)
    clean = Pair(real.clean, real.clean)
    pairs = [clean, real, replace(clean, degrade=brighten)]
    crops = RandomCrops(
        pairs, crop_px=16, length=400, seed=0, real_fraction=0.5, layer_fraction=fraction
    )
    drawn = [crops[number] for number in range(400)]
    layered = [crop for crop in drawn if crop["index"] == 2]
    assert len(layered) / 400 == pytest.approx(expected, abs=0.08)
    for crop in layered:
        degraded, before = arrays(crop)
        assert not crop["synthetic"]  # the training step leaves it as it is
        assert 1 <= len(np.unique(degraded.astype(int) - before)) <= 21
        assert (degraded > before).any()


def test_the_share_of_layers_moves_no_crop_of_a_recipe_without_them(tmp_path: Path) -> None:
    real = save_real_pair(tmp_path)
    pairs = [Pair(real.clean, real.clean), real]
    plain, other = (
        RandomCrops(pairs, crop_px=16, length=20, seed=0, real_fraction=0.5, layer_fraction=share)
        for share in (0.0, 1.0)
    )
    for number in range(20):
        for one, two in zip(arrays(plain[number]), arrays(other[number]), strict=True):
            assert np.array_equal(one, two)
