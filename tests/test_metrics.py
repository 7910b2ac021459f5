"""Every figure against an independent one: the official scripts' numbers, loops, torchmetrics.

The pairs in fixtures/parity/metrics are crops of the photographs that scikit-image ships, astronaut
(NASA, public domain) and coffee (CC0), with made-up degradation.
"""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from imports import PACKAGE, attributes_read
from parity import FIXTURES
from PIL import Image, ImageCms
from scipy.ndimage import correlate1d
from skimage.color import rgb2lab, xyz2lab
from torchmetrics.functional import image as torch_image

from fairweather.errors import ImageError, OptionError
from fairweather.evaluation import PROTOCOLS, describe_protocol, measure, measure_alone
from fairweather.evaluation.metrics import WINDOW_PX, _resized, prepare_image
from fairweather.evaluation.protocols import MetricProtocol, Source, SsimVariant
from fairweather.imaging import read_image

PAIRS = json.loads((FIXTURES / "metrics" / "expected.json").read_text())
NAMES = [pair["name"] for pair in PAIRS]
SHAPES = [(11, 11), (16, 24), (37, 23)]


def fixture(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The degraded and the clean image, uint8."""
    folder = FIXTURES / "metrics"
    paths = folder / "input" / name, folder / "target" / f"{name.split('_')[0]}.png"
    restored, clean = (read_image(path).pixels for path in paths)
    return restored, clean


def as_floats(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def random_pair(shape: tuple[int, int], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(sum(shape))
    clean = random.random((*shape, 3)) * 0.8
    restored = np.clip(clean + 0.1 * random.standard_normal(clean.shape), 0, 1)
    if dtype == "uint8":
        return np.rint(restored * 255).astype(np.uint8), np.rint(clean * 255).astype(np.uint8)
    return restored.astype(np.float32), clean.astype(np.float32)


def naive_psnr(x: np.ndarray, y: np.ndarray, peak: float) -> float:
    return 10 * math.log10(peak**2 / np.mean((x - y) ** 2))


GAUSSIAN = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
GAUSSIAN /= GAUSSIAN.sum()
UNIFORM = np.full(7, 1 / 7)


def naive_ssim(
    x: np.ndarray, y: np.ndarray, peak: float, *, taps: np.ndarray = GAUSSIAN, crop: bool = False
) -> float:
    """Wang et al. (2004), over all axes; the uniform window goes with sample covariance."""

    def mean(values: np.ndarray) -> np.ndarray:
        for axis in range(values.ndim):
            values = correlate1d(values, taps, axis=axis, mode="nearest")
        edge = len(taps) // 2 if crop else 0
        return values[edge : len(values) - edge, edge : values.shape[1] - edge]

    scale = 49 / 48 if taps is UNIFORM else 1
    mean_x, mean_y = mean(x), mean(y)
    variance_x = scale * (mean(x * x) - mean_x**2)
    variance_y = scale * (mean(y * y) - mean_y**2)
    covariance = scale * (mean(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(likeness / (mean_x**2 + mean_y**2 + c1) / (variance_x + variance_y + c2)))


def naive_luma(image: np.ndarray) -> np.ndarray:
    """BT.601, from 8-bit values."""
    return 16 + image.astype(float) @ np.array([65.481, 128.553, 24.966]) / 255


def valid_ssim(x: np.ndarray, y: np.ndarray, peak: float, taps: np.ndarray = GAUSSIAN) -> float:
    """Inside the border, of luma or averaged over channels."""
    planes = zip(np.atleast_3d(x).T, np.atleast_3d(y).T, strict=True)
    return float(np.mean([naive_ssim(a, b, peak, taps=taps, crop=True) for a, b in planes]))


def to_bytes(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else np.rint(image.astype(float) * 255).astype(np.uint8)


def to_unit(image: np.ndarray) -> np.ndarray:
    return image / 255 if image.dtype == np.uint8 else image.astype(float)


def naive(name: str, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """PSNR and SSIM under a named protocol, written apart from the table of protocols."""
    eight = [to_bytes(image).astype(float) for image in (x, y)]
    unit = [to_unit(image) for image in (x, y)]
    lumas = [naive_luma(image) for image in eight]
    match name:
        case "spad" | "rain13k":
            lumas = [np.rint(luma) for luma in lumas]
            return naive_psnr(*lumas, 255), valid_ssim(*lumas, 255)
        case "allweather":
            return naive_psnr(*lumas, 255), valid_ssim(*lumas, 255)
        case "agan" | "dense_haze":
            return naive_psnr(*unit, 1), valid_ssim(*unit, 1, UNIFORM)
        case "plain" | "snow100k":
            return naive_psnr(*eight, 255), valid_ssim(*eight, 255)
        case "reside" | "uhdm" | "low_light" | "did_mdn":
            # reside: too small here to be shrunk; did_mdn: what TensorFlow documents, 11 × 11,
            # σ 1.5, no padding, biased covariance, mean of channels
            return naive_psnr(*unit, 1), valid_ssim(*unit, 1)
        case "tip2018" | "gopro":
            return naive_psnr(*eight, 255), naive_ssim(*eight, 255)
        case "istd":
            small = [
                np.stack([naive_imresize(plane / 255) for plane in image.transpose(2, 0, 1)], -1)
                for image in eight
            ]
            return naive_psnr(*small, 1), naive_ssim(*small, 1)
    raise AssertionError(f"write a reference for '{name}'")


def naive_imresize(plane: np.ndarray, size: int = 256) -> np.ndarray:
    """Bicubic with antialiasing and mirrored edges, from MathWorks' description of imresize."""

    def weights(length: int) -> np.ndarray:
        scale = size / length
        shrink = min(scale, 1)
        matrix = np.zeros((size, length))
        for out in range(size):
            centre = (out + 0.5) / scale - 0.5
            reach = math.ceil(2 / shrink) + 1
            taps = np.arange(math.floor(centre) - reach, math.floor(centre) + reach + 2)
            d = np.abs(shrink * (centre - taps))
            near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            kernel = np.where(d <= 1, near, np.where(d <= 2, far, 0))
            mirrored = np.concatenate([np.arange(length), np.arange(length)[::-1]])
            np.add.at(matrix[out], mirrored[taps % (2 * length)], kernel / kernel.sum())
        return matrix

    return weights(plane.shape[0]) @ plane @ weights(plane.shape[1]).T


@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
@pytest.mark.parametrize(
    ("name", "psnr", "ssim", "within"),
    [
        ("spad", "y_psnr_db", "y_ssim", 1e-8),  # the authors' MATLAB script
        ("rain13k", "y_psnr_db", "y_ssim", 1e-8),
        ("agan", "rgb_psnr_db", "rgb_ssim", 1e-6),  # the authors' Python scripts
        ("dense_haze", "rgb_psnr_db", "rgb_ssim", 1e-6),
        ("uhdm", "rgb_psnr_db", "rgb_ssim_gaussian", 1e-6),
        ("did_mdn", "rgb_psnr_db", "rgb_ssim_gaussian", 1e-6),
        ("plain", "rgb_psnr_db", "rgb_ssim_gaussian", 3e-6),  # float64; the fixture is of float32
    ],
)
def test_official_figures(
    pair: dict[str, Any], name: str, psnr: str, ssim: str, within: float
) -> None:
    restored, clean = fixture(pair["name"])
    found = measure(as_floats(restored), as_floats(clean), protocol=PROTOCOLS[name])
    assert found.psnr_db == pytest.approx(pair[psnr], abs=within)
    assert found.ssim == pytest.approx(pair[ssim], abs=within)
    assert measure(restored, clean, protocol=PROTOCOLS[name]) == found


def test_spad_gives_rgb_beside_luma() -> None:
    restored, clean = map(as_floats, fixture(NAMES[0]))
    also = measure(restored, clean, protocol=PROTOCOLS["spad"]).also
    rgb = measure(restored, clean, protocol=PROTOCOLS["agan"])
    assert also == {"rgb_psnr_db": rgb.psnr_db, "rgb_ssim": rgb.ssim}


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_against_loops(name: str, shape: tuple[int, int], dtype: str) -> None:
    restored, clean = random_pair(shape, dtype)
    found = measure(restored, clean, protocol=PROTOCOLS[name])
    psnr_db, ssim = naive(name, restored, clean)
    assert found.psnr_db == pytest.approx(psnr_db, abs=1e-4)
    assert found.ssim == pytest.approx(ssim, abs=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_torchmetrics(shape: tuple[int, int], dtype: str) -> None:
    restored, clean = random_pair(shape, dtype)
    x, y = (torch.from_numpy(to_unit(image)).permute(2, 0, 1)[None] for image in (restored, clean))
    found = measure(restored, clean, protocol=PROTOCOLS["did_mdn"])
    psnr_db = torch_image.peak_signal_noise_ratio(x, y, data_range=1.0)
    _, everywhere = torch_image.structural_similarity_index_measure(
        x, y, data_range=1.0, return_full_image=True
    )  # torchmetrics averages over reflected borders too
    assert found.psnr_db == pytest.approx(float(psnr_db), abs=1e-4)
    assert found.ssim == pytest.approx(float(everywhere[..., 5:-5, 5:-5].mean()), abs=1e-4)


def test_rounding_changes_the_figure() -> None:
    clean = np.full((16, 16, 3), 100 / 255, np.float32)
    restored = clean + np.float32(0.4 / 255)
    assert measure(restored, clean, protocol=PROTOCOLS["plain"]).psnr_db == math.inf
    unrounded = measure(restored, clean, protocol=PROTOCOLS["uhdm"])
    assert unrounded.psnr_db == pytest.approx(20 * math.log10(255 / 0.4), abs=1e-3)


@pytest.mark.parametrize(("shape", "ratio"), [((384, 400), 2), ((640, 701), 2), ((641, 700), 3)])
def test_reside_shrinks_for_ssim_alone(shape: tuple[int, int], ratio: int) -> None:
    """384 / 256 = 1.5 rounds up to even, 2.5 rounds down to even, as Python does."""
    restored, clean = random_pair(shape, "float32")
    found = measure(restored, clean, protocol=PROTOCOLS["reside"])
    assert found.psnr_db == pytest.approx(naive_psnr(restored, clean.astype(float), 1), abs=1e-4)
    small = []
    for image in (restored, clean):
        size = [length // ratio for length in shape]
        rows, columns = (
            [slice(i * length // n, -(-(i + 1) * length // n)) for i in range(n)]
            for n, length in zip(size, shape, strict=True)
        )
        rows_done = np.stack([image[row].mean(0, dtype=float) for row in rows])
        small.append(np.stack([rows_done[:, column].mean(1) for column in columns], axis=1))
    assert small[0].shape == (shape[0] // ratio, shape[1] // ratio, 3)
    assert found.ssim == pytest.approx(valid_ssim(*small, 1), abs=1e-5)


@pytest.mark.parametrize("shape", [(480, 640), (256, 256), (300, 256), (100, 700), (11, 900)])
def test_resizing_as_matlab_describes_it(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(1).random(shape)
    np.testing.assert_allclose(_resized(plane), naive_imresize(plane), atol=2e-6)


def lab_d50(image: np.ndarray) -> np.ndarray:
    """sRGB in 8 bits → CIELAB under D50, by the colorants of the ICC's sRGB profile."""
    v = image / 255
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    colorants = np.array([
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ])  # fmt: skip
    return xyz2lab(linear @ colorants.T, illuminant="D50")


def test_errors_inside_and_outside_of_a_shadow() -> None:
    restored, clean = random_pair((256, 256), "uint8")  # a size at which nothing is resized
    mask = np.zeros((256, 256), bool)
    mask[40:120, 60:200] = True
    also = measure(restored, clean, protocol=PROTOCOLS["istd"], mask=mask).also
    difference = lab_d50(restored) - lab_d50(clean)
    for region, inside in (("", mask | True), ("_shadow", mask), ("_outside", ~mask)):
        error = difference[inside]
        assert also[f"lab_mae{region}"] == pytest.approx(np.abs(error).sum(1).mean(), rel=1e-4)
        root = math.sqrt((error**2).sum(1).mean())
        assert also[f"lab_rmse{region}"] == pytest.approx(root, rel=1e-4)
        if region:  # PSNR and SSIM are of images that are black elsewhere
            black = [image * inside[..., None] for image in (restored, clean)]
            whole = measure(black[0], black[1], protocol=PROTOCOLS["istd"])
            assert also[f"psnr_db{region}"] == pytest.approx(whole.psnr_db)
            assert also[f"ssim{region}"] == pytest.approx(whole.ssim)
    daylight = np.abs(rgb2lab(restored) - rgb2lab(clean)).sum(-1).mean()  # D65
    assert also["lab_mae"] == pytest.approx(daylight, rel=0.03)


def test_lab_is_that_of_the_srgb_profile() -> None:
    """LittleCMS rounds to 8 bits: one level of L is 0.39, one of a and b is 1."""
    image = fixture(NAMES[0])[1]
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    converted = ImageCms.applyTransform(Image.fromarray(image), transform)
    assert converted is not None
    codes = np.asarray(converted).astype(float)
    theirs = np.dstack([codes[..., 0] * 100 / 255, (codes[..., 1:] + 128) % 256 - 128])
    assert np.abs(lab_d50(image) - theirs).max() < 1.2
    assert np.abs(rgb2lab(image) - theirs).max() > 2  # D65 is another space


def test_a_resized_mask_holds_every_touched_pixel() -> None:
    restored, clean = random_pair((512, 512), "uint8")
    restored[100:200, 100:200] = clean[100:200, 100:200]
    mask = np.zeros((512, 512), bool)
    mask[110:190, 110:190] = True
    also = measure(restored, clean, protocol=PROTOCOLS["istd"], mask=mask).also
    assert also["lab_mae_shadow"] == pytest.approx(0, abs=1e-4)
    assert also["lab_mae_outside"] > also["lab_mae"]
    empty = measure(restored, clean, protocol=PROTOCOLS["istd"], mask=mask & False).also
    assert empty["lab_mae_outside"] == pytest.approx(also["lab_mae"])
    assert [key for key in empty if "shadow" in key] == []


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_identical_images(name: str, dtype: str) -> None:
    clean = random_pair((16, 24), dtype)[1]
    found = measure(clean, clean.copy(), protocol=PROTOCOLS[name])
    assert found.psnr_db == math.inf
    assert found.ssim == pytest.approx(1)
    assert found.figures == {"psnr_db": math.inf, "ssim": found.ssim, **found.also}


GOOD = np.zeros((16, 16, 3), np.uint8)


@pytest.mark.parametrize(
    ("restored", "clean", "message"),
    [
        (GOOD, GOOD[:15], r"restored image is \(16, 16, 3\) uint8 but the clean one is \(15, 16"),
        (GOOD, GOOD.astype(np.float32), "uint8 but the clean one is .* float32"),
        (GOOD[..., 0], GOOD[..., 0], r"restored image is \(16, 16\) uint8 but must be \(H, W, 3\)"),
        (GOOD, GOOD.astype(np.float64), "clean image is .* float64 but must be"),
        (GOOD.astype(np.uint16), GOOD, "restored image is .* uint16"),
        (GOOD[:0], GOOD[:0], r"restored image is \(0, 16, 3\)"),
        (GOOD[:10], GOOD[:10], "image is 10×16 px; the window of SSIM needs 11 px"),
        (GOOD + np.float32(255), GOOD + np.float32(0), "restored image has values from 255 to 255"),
        (GOOD + np.float32(0), GOOD - np.float32(0.1), "clean image has values from -0.1"),
        (GOOD + np.float32("nan"), GOOD + np.float32(0), "values from nan"),
    ],
)
def test_images_that_cannot_be_scored(restored: Any, clean: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        measure(restored, clean, protocol=PROTOCOLS["plain"])


def test_the_uniform_window_is_smaller() -> None:
    assert measure(GOOD[:7], GOOD[:7], protocol=PROTOCOLS["agan"]).ssim == 1
    with pytest.raises(ImageError, match="needs 7 px"):
        measure(GOOD[:6], GOOD[:6], protocol=PROTOCOLS["agan"])


def test_wrong_masks() -> None:
    mask = np.zeros((16, 16), bool)
    with pytest.raises(OptionError, match="'spad' uses no mask"):
        measure(GOOD, GOOD, protocol=PROTOCOLS["spad"], mask=mask)
    for wrong in (mask[:15], mask.astype(np.uint8), mask[..., None]):
        with pytest.raises(ImageError, match=r"the mask is .* but must be \(16, 16\) bool"):
            measure(GOOD, GOOD, protocol=PROTOCOLS["istd"], mask=wrong)


def test_tip2018_gives_the_middle_to_the_model() -> None:
    image = np.zeros((60, 121, 3), np.uint8)
    image[10:50, 20:100] = 200  # rows 60/6 to 300/6, columns 121 // 6 to 605 // 6
    prepared = prepare_image(image, protocol=PROTOCOLS["tip2018"])
    assert (prepared.shape, prepared.dtype) == ((256, 256, 3), np.uint8)
    assert (prepared == 200).all()
    assert prepare_image(image, protocol=PROTOCOLS["spad"]) is image
    with pytest.raises(ImageError, match="float32; protocol 'tip2018' prepares uint8"):
        prepare_image(as_floats(image), protocol=PROTOCOLS["tip2018"])


def test_blur_and_haze_show_without_a_clean_image() -> None:
    clean = fixture(NAMES[0])[1]
    blurred = np.asarray(Image.fromarray(clean).reduce(4).resize(clean.shape[1::-1]))
    grey = (clean // 4 + 180).astype(np.uint8)
    assert measure_alone(blurred)["blur"] > measure_alone(clean)["blur"] + 0.1
    assert measure_alone(grey)["entropy_bits"] < measure_alone(clean)["entropy_bits"] - 1
    assert measure_alone(as_floats(clean)) == pytest.approx(measure_alone(clean), abs=1e-4)
    assert measure_alone(GOOD) == {"blur": 1, "entropy_bits": 0}
    with pytest.raises(ImageError, match="image is 10×16 px; the window of the blur measure"):
        measure_alone(GOOD[:10])


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_protocol_says_where_each_fact_is_from(name: str) -> None:
    protocol = PROTOCOLS[name]
    facts = {field.name for field in dataclasses.fields(protocol)}
    facts -= {"name", "title", "sources", "elsewhere"}
    assert {fact for source in protocol.sources for fact in source.says} == facts
    assert protocol.name == name
    assert protocol.ssim.window in WINDOW_PX
    assert json.loads(json.dumps(dataclasses.asdict(protocol)))["ssim"]["covariance"]


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_descriptions_are_one_paragraph(name: str) -> None:
    text = describe_protocol(PROTOCOLS[name])
    assert "\n" not in text
    assert "  " not in text
    assert ".." not in text
    assert PROTOCOLS[name].title in text


def test_descriptions_say_what_differs() -> None:
    texts = {name: describe_protocol(protocol) for name, protocol in PROTOCOLS.items()}
    assert "black square whose side is a multiple of 128" in texts["spad"]
    assert "the luma (Y of BT.601, rounded" in texts["spad"]
    assert "papers call it RMSE" in texts["istd"]
    assert "resized to 256 × 256" in texts["istd"]
    assert "pooled to about 256 px" in texts["reside"]
    assert "uniform 7 and sample covariance" in texts["agan"]


def test_protocols_that_make_no_sense() -> None:
    with pytest.raises(OptionError, match="use luma_float"):
        dataclasses.replace(PROTOCOLS["spad"], rounded=False)
    with pytest.raises(OptionError, match="need the colour rgb"):
        dataclasses.replace(PROTOCOLS["istd"], colour="luma_float")


MODELS = {"protocol": MetricProtocol, "variant": SsimVariant, "source": Source}


@pytest.mark.parametrize(
    ("owner", "field"),
    [(owner, field.name) for owner, model in MODELS.items() for field in dataclasses.fields(model)],
)
def test_every_field_is_read(owner: str, field: str) -> None:
    rooms = (
        PACKAGE / f"evaluation/{room}.py" for room in ("metrics", "protocols", "protocol_text")
    )
    found = attributes_read(rooms, owner)
    assert field in found, f"nothing reads {owner}.{field}"
    assert "no_such_field" not in found
