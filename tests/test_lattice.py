"""No grid of a network in smooth surfaces: the measure of it, and all bundled weights."""

import numpy as np
import pytest

from fairweather import Restorer
from fairweather.models import list_weights
from lattice import ALLOWED, SIDE_PX, gradients, growth, lattice, lattice_of

SMOOTH = {"haze": "haze", "shadow": "shadow", "weather": "haze"}  # degradations without texture
# What is left to be mended by training; the test fails as soon as one of them is.
RED = {"shadow", "weather"}


def planted(picture: np.ndarray, *, period: int, levels: float) -> np.ndarray:
    """A random cell of so many grey levels, repeated over a picture."""
    height, width = picture.shape[:2]
    cell = np.random.default_rng(1).normal(size=(period, period))
    cell = (cell - cell.mean()) / cell.std()
    repeats = -(-height // period), -(-width // period)
    return picture + levels / 255 * np.tile(cell, repeats)[:height, :width, None]


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    return gradients(SIDE_PX)


def test_smooth_pictures_hold_none(pictures: dict[str, np.ndarray]) -> None:
    assert max(lattice(picture, 128) for picture in pictures.values()) < 0.01


@pytest.mark.parametrize(
    ("period", "name"),
    [(4, "sky"), (8, "wall"), (16, "fog"), (32, "sky"), (64, "wall"), (128, "fog")],
)
@pytest.mark.parametrize("levels", [0.05, 0.3])
def test_a_planted_lattice_is_found(
    period: int, name: str, levels: float, pictures: dict[str, np.ndarray]
) -> None:
    """Each period in one of the pictures, since a picture takes a third of a second."""
    found = growth(pictures[name], planted(pictures[name], period=period, levels=levels))
    assert found == pytest.approx(levels, rel=0.15)


@pytest.mark.parametrize("period", [11, 23, 100])
def test_what_repeats_elsewhere_is_no_lattice(period: int, pictures: dict[str, np.ndarray]) -> None:
    picture = pictures["sky"]
    assert growth(picture, planted(picture, period=period, levels=0.3)) < ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("weights", sorted(list_weights()))
def test_no_weights_paint_their_grid(weights: str, request: pytest.FixtureRequest) -> None:
    if weights in RED:
        request.applymarker(pytest.mark.xfail(reason="paints its grid into a wall", strict=True))
    restorer = Restorer(weights, device="cpu")
    assert restorer.engine is not None
    if weights in SMOOTH:
        found = lattice_of(restorer, SMOOTH[weights])
    else:
        side_px = restorer.engine.config.proxy_px or SIDE_PX
        found = {name: growth(x, restorer(x)) for name, x in gradients(side_px).items()}
    assert max(found.values()) <= ALLOWED, found
