"""How the two images of a pair lie over each other: orientation, and offset to a part of a pixel.

Both are told from edges whose strength is taken out (orientation correlation, Fitch et al., BMVC
2002): haze and shadow change how strong an edge is and hardly where it points, and rain, snow and
moiré add edges to one image only, which correlate with nothing in the other.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from skimage.filters import gaussian
from skimage.registration import phase_cross_correlation

WINDOW_PX = 160
WINDOWS_A_SIDE = 4
SMALLEST_WINDOW_PX = 48
OVERVIEW_PX = 256
SMALLEST_CORRELATION = 0.2  # two unrelated windows reach 0.1
AGREE_PX = 0.35
AGREE_SHARE = 0.25
FEWEST_WINDOWS = 3

ORIENTED_PX = 64
ORIENTED_REACH_PX = 4
CLEARLY_BETTER = 0.15

ORIENTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "": lambda image: image,
    "turned by 180°": lambda image: image[::-1, ::-1],
    "mirrored left to right": lambda image: image[:, ::-1],
    "mirrored top to bottom": lambda image: image[::-1],
    "turned by 90° clockwise": lambda image: image.T[:, ::-1],
    "turned by 90° counter-clockwise": lambda image: image.T[::-1],
    "mirrored along a diagonal": lambda image: image.T,
    "mirrored along the other diagonal": lambda image: image.T[::-1, ::-1],
}


@dataclass(frozen=True)
class Offset:
    """Where the degraded image lies against the clean one.

    Attributes:
        down_px: How far it lies too low; negative where too high.
        right_px: How far it lies too far to the right.
        windows: In how many parts of the image the offset was measured.
        agreeing: In how many of them it is this one, to `AGREE_PX` or a quarter of its length.
    """

    down_px: float
    right_px: float
    windows: int
    agreeing: int

    @property
    def length_px(self) -> float:
        """The distance from where it should lie [px]."""
        return float(np.hypot(self.down_px, self.right_px))

    @property
    def is_certain(self) -> bool:
        """Whether most of the windows agree, and enough of them."""
        return self.agreeing >= FEWEST_WINDOWS and 2 * self.agreeing > self.windows


def edges_of(grey: np.ndarray) -> np.ndarray:
    """Return edges of (H, W) in 0..255 as complex numbers: direction kept, strength evened out."""
    smooth = gaussian(grey.astype(np.float32), 1.0)
    down, right = np.gradient(smooth)
    squares = down**2 + right**2
    around = gaussian(squares, 8.0)
    return (right + 1j * down) / np.sqrt(squares + around + 0.25)


def overview_of(grey: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a (H, W) image at another (height, width), averaged, in float32."""
    image = Image.fromarray(np.ascontiguousarray(grey, np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def find_orientation(degraded: np.ndarray, clean: np.ndarray) -> tuple[str, float, float]:
    """Tell how a degraded image is turned or mirrored against its clean one, (H, W) in 0..255.

    The sizes are the same, or one is the other's transposed.

    Returns:
        A key of `ORIENTATIONS`, empty unless another fits clearly better; how well the images then
        correlate, and how well they do as they are, from 0 to 1.
    """
    small = [overview_of(image, _within(image.shape, ORIENTED_PX)) for image in (degraded, clean)]
    here = np.fft.fft2(_tapered(edges_of(small[0])))
    scores = {}
    for name, turn in ORIENTATIONS.items():
        turned = turn(small[1])
        if turned.shape == here.shape:
            scores[name] = _peak(here, np.fft.fft2(_tapered(edges_of(turned))))
    best = max(scores, key=lambda name: scores[name])
    as_is = scores.get("", 0.0)
    return best if scores[best] > as_is + CLEARLY_BETTER else "", scores[best], as_is


def _within(shape: tuple[int, ...], longest_px: int) -> tuple[int, int]:
    """Return the size of an image that is made smaller, where it has to be, to a longest side."""
    scale = min(1.0, longest_px / max(shape))
    return max(2, round(shape[0] * scale)), max(2, round(shape[1] * scale))


def _tapered(edges: np.ndarray) -> np.ndarray:
    """Fade edges out towards the border, where they would meet their own other end."""
    return (
        edges * np.outer(np.hanning(edges.shape[0] + 2), np.hanning(edges.shape[1] + 2))[1:-1, 1:-1]
    )


def _peak(one: np.ndarray, other: np.ndarray) -> float:
    """Return the best correlation of two spectra over small offsets, 0 to 1."""
    energy = np.sqrt((np.abs(one) ** 2).sum() * (np.abs(other) ** 2).sum()) / one.size
    if energy == 0:
        return 0.0
    surface = np.fft.ifft2(one * other.conj()).real / energy
    reach = range(-ORIENTED_REACH_PX, ORIENTED_REACH_PX + 1)
    return float(surface.take(reach, 0, mode="wrap").take(reach, 1, mode="wrap").max())


def find_offset(degraded: np.ndarray, clean: np.ndarray) -> Offset | None:
    """Measure the offset of a degraded image against its clean one, both (H, W) in 0..255.

    It is measured in windows that each hold enough edges common to both images.

    Returns:
        The offset that most windows agree on; None where nothing certain can be said.
    """
    if min(clean.shape) < SMALLEST_WINDOW_PX:
        return None
    size = _within(clean.shape, OVERVIEW_PX)
    small = [overview_of(image, size) for image in (degraded, clean)]
    found = _correlate(*(edges_of(image) for image in small))
    scale = max(clean.shape) / max(size)
    guesses = {(0, 0)}
    if found:
        guesses.add((round(found[0] * scale), round(found[1] * scale)))
    offsets = [_vote(degraded, clean, guess=guess) for guess in guesses]
    return max((o for o in offsets if o), key=lambda o: o.agreeing, default=None)


def _correlate(degraded: np.ndarray, clean: np.ndarray) -> tuple[float, float, float] | None:
    """Return the offset down and right, and how well the edges then correlate, 0 to 1."""
    tapered = _tapered(degraded), _tapered(clean)
    if min(float(np.abs(edges).mean()) for edges in tapered) < 0.01:
        return None
    shift, error, _ = phase_cross_correlation(
        tapered[0],
        tapered[1],
        upsample_factor=20,
        normalization=None,  # pyright: ignore[reportArgumentType]
    )
    return float(shift[0]), float(shift[1]), float(np.sqrt(max(0.0, 1 - float(error) ** 2)))


def _vote(degraded: np.ndarray, clean: np.ndarray, *, guess: tuple[int, int]) -> Offset | None:
    """Measure windows that are cut around a guess; return the offset that most agree on."""
    found = []
    for window, moved in _windows(clean.shape, guess=guess):
        offset = _correlate(edges_of(degraded[moved]), edges_of(clean[window]))
        if offset and offset[2] >= SMALLEST_CORRELATION:
            found.append(offset[:2])
    if len(found) < FEWEST_WINDOWS:
        return None
    offsets = np.array(found) + guess
    middle = np.median(offsets, axis=0)
    # A photographed screen is bent: a long offset is certain even where its length varies.
    tolerance_px = max(AGREE_PX, AGREE_SHARE * float(np.hypot(*middle)))
    near = np.hypot(*(offsets - middle).T) <= tolerance_px
    if near.any():
        middle = np.median(offsets[near], axis=0)
    return Offset(float(middle[0]), float(middle[1]), len(found), int(near.sum()))


def _windows(
    shape: tuple[int, ...], *, guess: tuple[int, int]
) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Return windows all over the clean image, with the same ones moved by the guess."""
    ranges = []
    for length, move in zip(shape, guess, strict=True):
        room = length - abs(move)
        side = min(WINDOW_PX, max(room // 2, SMALLEST_WINDOW_PX))
        if side > room:
            return []
        count = min(WINDOWS_A_SIDE, 1 + int(np.ceil(1.5 * (room - side) / side)))
        starts = np.linspace(max(0, -move), max(0, -move) + room - side, count).astype(int)
        ranges.append([(slice(s, s + side), slice(s + move, s + move + side)) for s in starts])
    return [((a, b), (c, d)) for a, c in ranges[0] for b, d in ranges[1]]
