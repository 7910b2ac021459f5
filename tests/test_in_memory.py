from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from skimage import data

from fairweather.errors import ImageError
from fairweather.models import create_model
from fairweather.restoration import Restorer
from fairweather.restoration.in_memory import from_memory

PHOTO = np.ascontiguousarray(data.astronaut()[20:60, 180:232])
ALPHA = np.random.default_rng(0).integers(0, 256, PHOTO.shape[:2], dtype=np.uint8)
GREY = PHOTO[..., 1]
DEEP = PHOTO.astype(np.uint16) * 257 - PHOTO


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.manual_seed(0)
    network = create_model("ast_n", init="official").eval()
    with torch.no_grad():
        network.output_conv.weight *= 0.4
    return Restorer(network, device="cpu")


def negative(pixels: np.ndarray, *, grey: bool = False) -> np.ndarray:
    """Stands in for a network: its result is known exactly."""
    assert pixels.shape[2] == 3
    assert not grey or np.ptp(pixels, axis=-1).max() == 0
    integer = np.issubdtype(pixels.dtype, np.integer)
    return (np.iinfo(pixels.dtype).max if integer else pixels.dtype.type(1)) - pixels


def assert_changed(restored: np.ndarray, image: np.ndarray) -> None:
    top = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1
    assert np.abs(restored.astype(float) - image).mean() > 0.01 * top


ARRAYS = {
    "(H, W)": GREY,
    "(H, W, 3)": PHOTO,
    "(H, W, 4)": np.dstack((PHOTO, ALPHA)),
}


@pytest.mark.parametrize("shape", ARRAYS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_arrays_come_back_as_they_are(restorer: Restorer, shape: str, dtype: type) -> None:
    image = ARRAYS[shape]
    if dtype == np.uint16:
        image = image.astype(np.uint16) * 257
    elif dtype != np.uint8:
        image = (image / 255).astype(dtype)
    before = image.copy()
    restored = restorer(image)
    np.testing.assert_array_equal(image, before)
    assert isinstance(restored, np.ndarray)
    assert (restored.shape, restored.dtype) == (image.shape, dtype)
    assert not np.shares_memory(restored, image)
    assert_changed(restored[..., :3], image[..., :3])
    if shape == "(H, W, 4)":
        np.testing.assert_array_equal(restored[..., 3], image[..., 3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64])
def test_what_arrays_hold(dtype: type) -> None:
    top = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    image = (np.dstack((PHOTO, ALPHA)) / 255 * top).astype(dtype)
    step = {np.float16: 1e-3}.get(dtype, 1e-6) * (top == 1)
    expected = (top - image.astype(float))[..., :3]
    np.testing.assert_allclose(from_memory(image, negative)[..., :3], expected, atol=step)
    np.testing.assert_array_equal(from_memory(image, negative)[..., 3], image[..., 3])
    np.testing.assert_allclose(from_memory(image[..., :3], negative), expected, atol=step)
    grey = from_memory(image[..., 1], negative)
    np.testing.assert_allclose(grey, expected[..., 1], atol=step)


@pytest.mark.parametrize("shape", [(3, 40, 52), (1, 3, 40, 52), (2, 3, 40, 52)])
@pytest.mark.parametrize(
    "dtype",
    [torch.uint8, torch.uint16, torch.float32, torch.float64, torch.bfloat16, torch.float16],
)
def test_tensors_come_back_as_they_are(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    values = torch.from_numpy(np.stack((PHOTO, PHOTO[::-1]))).permute(0, 3, 1, 2)
    image = {torch.uint8: values, torch.uint16: values.to(torch.int32) * 257}.get(
        dtype, values.double() / 255
    )
    image = image.to(dtype)[: shape[0] if len(shape) == 4 else 1].reshape(shape)
    before = image.clone()
    restored = from_memory(image, negative)
    assert isinstance(restored, torch.Tensor)
    assert (restored.shape, restored.dtype, restored.device) == (shape, dtype, image.device)
    assert torch.equal(image, before)
    assert restored.is_contiguous()
    top = torch.iinfo(dtype).max if not dtype.is_floating_point else 1
    step = {torch.bfloat16: 4e-3, torch.float16: 1e-3}.get(dtype, 1e-6) * (top == 1)
    expected = top - image.double()
    torch.testing.assert_close(restored.double(), expected, atol=step, rtol=0)


def test_a_batch_is_its_images(restorer: Restorer) -> None:
    batch = torch.from_numpy(np.stack((PHOTO, PHOTO[::-1]))).permute(0, 3, 1, 2)
    restored = restorer(batch)
    for one, image in zip(restored, (PHOTO, PHOTO[::-1]), strict=True):
        np.testing.assert_array_equal(one.permute(1, 2, 0).numpy(), restorer(image))


def test_tensors_of_every_make(restorer: Restorer) -> None:
    plain = torch.from_numpy(PHOTO).permute(2, 0, 1).float().div(255).contiguous()
    expected = restorer(plain)
    assert (expected - plain).abs().mean() > 0.01
    doubled = plain.repeat_interleave(2, -1)
    variants = {
        "channels last": plain.permute(1, 2, 0).contiguous().permute(2, 0, 1),
        "strided": doubled[..., ::2],
        "transposed": plain.mT.contiguous().mT,
        "parameter": plain.clone().requires_grad_(),
        "of a graph": plain.clone().requires_grad_() * 1,
    }
    for name, image in variants.items():
        restored = restorer(image)
        torch.testing.assert_close(restored, expected, rtol=0, atol=0, msg=name)
        assert not restored.requires_grad
        assert not restored.is_inference()
    assert variants["parameter"].requires_grad
    assert variants["parameter"].grad is None
    with torch.inference_mode():
        assert torch.equal(restorer(plain.clone()), expected)


def test_arrays_of_every_make(restorer: Restorer) -> None:
    expected = restorer(PHOTO)
    frozen = PHOTO.copy()
    frozen.flags.writeable = False
    for image in (frozen, np.asfortranarray(PHOTO), PHOTO[:, ::-1].copy()[:, ::-1]):
        np.testing.assert_array_equal(restorer(image), expected)
    as_bgr = PHOTO[..., ::-1].copy()
    np.testing.assert_array_equal(restorer(as_bgr[..., ::-1]), expected)


def palette(*, transparent: bool) -> Image.Image:
    image = Image.fromarray(PHOTO).quantize(64)
    if transparent:
        image.info["transparency"] = 3
    return image


PICTURES = {
    "1": (Image.fromarray(GREY).convert("1"), "L"),
    "L": (Image.fromarray(GREY), "L"),
    "LA": (Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(ALPHA))), "LA"),
    "RGB": (Image.fromarray(PHOTO), "RGB"),
    "RGBA": (Image.fromarray(np.dstack((PHOTO, ALPHA))), "RGBA"),
    "P": (palette(transparent=False), "RGB"),
    "P with transparency": (palette(transparent=True), "RGBA"),
    "CMYK": (Image.fromarray(PHOTO).convert("CMYK"), "RGB"),
    "YCbCr": (Image.fromarray(PHOTO).convert("YCbCr"), "RGB"),
    "HSV": (Image.fromarray(PHOTO).convert("HSV"), "RGB"),
    "LAB": (Image.fromarray(PHOTO).convert("LAB"), "RGB"),
    "I;16": (Image.fromarray(DEEP[..., 1]), "I;16"),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_come_back_as_they_are(restorer: Restorer, kind: str) -> None:
    image, mode = PICTURES[kind]
    assert image.mode == kind.split()[0]
    before = (image.mode, image.tobytes(), dict(image.info))
    restored = restorer(image)
    assert (image.mode, image.tobytes(), dict(image.info)) == before
    assert (restored.mode, restored.size) == (mode, image.size)
    negated = from_memory(image, negative)
    assert (negated.mode, negated.size) == (mode, image.size)
    plain = np.asarray(image.convert(mode)).astype(int)
    top, colours = (65535 if mode == "I;16" else 255), {"LA": 1, "RGBA": 3}.get(mode)
    values = np.asarray(negated).astype(int)
    if colours is None:
        np.testing.assert_array_equal(values, top - plain)
    else:
        np.testing.assert_array_equal(values[..., :colours], top - plain[..., :colours])
        np.testing.assert_array_equal(values[..., colours], plain[..., colours])
        np.testing.assert_array_equal(np.asarray(restored)[..., colours], plain[..., colours])
        assert 0 < (plain[..., colours] < 255).sum() < plain[..., colours].size
    difference = np.abs(np.asarray(restored).astype(int)[..., :colours] - plain[..., :colours])
    assert difference.mean() > 0.005 * top


WIDE = {
    "I;16": DEEP[..., 1].astype("<u2"),
    "I;16L": DEEP[..., 1].astype("<u2"),
    "I;16B": DEEP[..., 1].astype(">u2"),
    "I": DEEP[..., 1].astype(np.int32),
    "F": PHOTO[..., 1].astype(np.float32) / 255,
}


@pytest.mark.parametrize("mode", WIDE)
def test_wide_pictures_keep_mode_and_values(mode: str) -> None:
    values = WIDE[mode]
    image = Image.frombytes(mode, values.shape[::-1], values.tobytes())
    restored = from_memory(image, negative)
    assert (restored.mode, restored.size) == (mode, image.size)
    top = 1 if mode == "F" else 65535
    negated = np.frombuffer(restored.tobytes(), values.dtype).reshape(values.shape)
    np.testing.assert_allclose(negated, top - values.astype(float), atol=1e-6)


@pytest.mark.parametrize("mode", ["RGBX", "RGBa", "La"])
def test_rare_pictures_become_plain_ones(mode: str) -> None:
    plain = {"RGBX": "RGB", "RGBa": "RGBA", "La": "LA"}[mode]
    image = PICTURES[plain][0].convert(mode)
    restored = from_memory(image, negative)
    assert restored.mode == plain
    values, expected = np.asarray(restored), np.asarray(image.convert(plain))
    colours = 1 if plain == "LA" else 3
    np.testing.assert_array_equal(values[..., :colours], 255 - expected[..., :colours])


@pytest.mark.parametrize("dtype", ["u2", "f4", "f8"])
def test_arrays_of_either_byte_order(restorer: Restorer, dtype: str) -> None:
    image = (DEEP if dtype == "u2" else PHOTO / 255).astype("=" + dtype)
    for native in (image, image[..., 0], np.dstack((image, image[..., 0]))):
        expected = restorer(native)
        for order in "<>":
            restored = restorer(native.astype(order + dtype))
            assert restored.dtype == np.dtype(order + dtype)
            np.testing.assert_array_equal(restored, expected)


def test_a_picture_gives_what_its_array_gives(restorer: Restorer) -> None:
    for array in (PHOTO, GREY, np.dstack((PHOTO, ALPHA)), DEEP[..., 1]):
        picture = restorer(Image.fromarray(array))
        np.testing.assert_array_equal(np.asarray(picture), restorer(array))


@pytest.mark.parametrize("kind", ["JPEG", "LA"])
def test_a_picture_keeps_its_info(kind: str) -> None:
    image = PICTURES["LA" if kind == "LA" else "RGB"][0].copy()
    image.info.update(exif=b"Exif\x00\x00MM", dpi=(300, 300), icc_profile=b"profile")
    restored = from_memory(image, negative)
    assert restored.info == image.info


def test_a_picture_loses_a_profile_of_other_channels() -> None:
    image = PICTURES["CMYK"][0].copy()
    image.info.update(dpi=(300, 300), icc_profile=b"a profile of four inks")
    assert from_memory(image, negative).info == {"dpi": (300, 300)}
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    flat = PICTURES["P"][0].copy()
    flat.info["icc_profile"] = srgb
    assert from_memory(flat, negative).info["icc_profile"] == srgb


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_becomes_alpha(mode: str) -> None:
    """As for files: the colour changes, so it cannot go on to stand for transparency."""
    image = Image.fromarray(GREY if mode == "L" else PHOTO)
    key = image.getpixel((3, 4))
    image.info["transparency"] = key
    restored = from_memory(image, negative)
    assert restored.mode == mode + "A"
    assert "transparency" not in restored.info
    alpha = np.asarray(restored)[..., -1]
    keyed = np.asarray(image) == key
    np.testing.assert_array_equal(alpha == 0, keyed if mode == "L" else keyed.all(-1))
    assert image.info["transparency"] == key


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (64, 64)])
def test_small_pictures(restorer: Restorer, size: tuple[int, int]) -> None:
    assert restorer(Image.new("RGB", size, "grey")).size == size


def test_floats_are_bytes_without_the_rounding(restorer: Restorer) -> None:
    in_bytes = restorer(PHOTO) / 255
    for dtype, step in ((np.float32, 1e-6), (np.float64, 1e-6), (np.float16, 2e-3)):
        floats = restorer((PHOTO / 255).astype(dtype)).clip(0, 1)
        np.testing.assert_allclose(floats, in_bytes, rtol=0, atol=0.5 / 255 + step)
    tensor = torch.from_numpy(PHOTO).permute(2, 0, 1)
    restored = restorer(tensor.float() / 255).permute(1, 2, 0).clip(0, 1)
    np.testing.assert_allclose(restored, in_bytes, rtol=0, atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(restorer(tensor).permute(1, 2, 0), restorer(PHOTO))


def test_16_bits_are_8_bits_with_less_rounding(restorer: Restorer) -> None:
    deep = restorer(PHOTO.astype(np.uint16) * 257)
    np.testing.assert_allclose(deep / 257, restorer(PHOTO), rtol=0, atol=0.51)
    assert len(np.unique(deep % 257)) > 100


def test_grey_gives_grey(restorer: Restorer) -> None:
    threefold = restorer(np.repeat(GREY[..., None], 3, -1) / np.float32(255))
    grey = restorer(GREY / np.float32(255))
    np.testing.assert_allclose(grey, threefold.mean(-1), rtol=0, atol=1e-6)


WRONG = {
    "two channels": (np.zeros((4, 5, 2), np.uint8), r"\(4, 5, 2\)"),
    "one channel": (np.zeros((4, 5, 1), np.uint8), r"\(4, 5, 1\)"),
    "five channels": (np.zeros((4, 5, 5), np.uint8), r"\(4, 5, 5\)"),
    "channels first": (np.zeros((3, 40, 50), np.uint8), r"\(3, 40, 50\)"),
    "a batch of arrays": (np.zeros((2, 4, 5, 3), np.uint8), r"\(2, 4, 5, 3\)"),
    "one axis": (np.zeros(5, np.uint8), "shape"),
    "no axis": (np.zeros((), np.uint8), r"\(\)"),
    "no rows": (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
    "no columns": (np.zeros((4, 0), np.uint8), r"\(4, 0"),
    "int32": (np.zeros((4, 5, 3), np.int32), "int32"),
    "int64": (np.full((4, 5, 3), 200), "int64"),
    "bool": (np.ones((4, 5), bool), "bool"),
    "complex": (np.ones((4, 5), complex), "complex"),
    "floats of 0..255": (np.full((4, 5, 3), 200.0), r"200.*\[0, 1\].*divide by 255"),
    "below 0": (np.full((4, 5, 3), -0.01, np.float32), r"-0\.01"),
    "NaN": (np.where(np.eye(4), np.nan, 0.5), "nan"),
    "NaN in alpha": (np.dstack((np.full((4, 4, 3), 0.5), np.where(np.eye(4), np.nan, 1))), "nan"),
    "infinity": (np.where(np.eye(4), np.inf, 0.5).astype(np.float32), "inf"),
    "a tensor of two channels": (torch.zeros(2, 4, 5), r"\(2, 4, 5\)"),
    "a tensor of four channels": (torch.zeros(4, 4, 5), r"\(4, 4, 5\)"),
    "a tensor with channels last": (torch.zeros(4, 5, 3), r"\(4, 5, 3\)"),
    "a grey tensor": (torch.zeros(4, 5), r"\(4, 5\)"),
    "a batch of four channels": (torch.zeros(1, 4, 4, 5), r"\(4, 4, 5\)"),
    "five axes": (torch.zeros(1, 1, 3, 4, 5), r"\(1, 1, 3, 4, 5\)"),
    "no images": (torch.zeros(0, 3, 4, 5), "no images"),
    "an empty tensor": (torch.zeros(3, 0, 5), "shape"),
    "an int32 tensor": (torch.zeros(3, 4, 5, dtype=torch.int32), "int32"),
    "a tensor of 0..255": (torch.full((3, 4, 5), 255.0), "divide by 255"),
    "a tensor with NaN": (torch.full((1, 3, 4, 5), torch.nan, dtype=torch.bfloat16), "nan"),
    "a PIL image of floats": (Image.new("F", (5, 4), 200), r"\[0, 1\].*divide by 255.*65535"),
    "a PIL image of bytes as integers": (Image.new("I", (5, 4), 255), r'"L" .* 255.*"I;16"'),
    "a PIL image of integers": (Image.new("I", (5, 4), 65536), r'mode I .*65536.*"I;16"'),
    "a PIL image of signed integers": (Image.new("I", (5, 4), -1), "mode I run from -1"),
    "an empty PIL image": (Image.new("RGB", (0, 4)), "shape"),
    "a list": ([[0, 1], [1, 0]], "list"),
    "a path": ("photo.jpg", "str"),
    "nothing": (None, "NoneType"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_image_is_refused(what: str) -> None:
    image, words = WRONG[what]

    def never(pixels: np.ndarray, *, grey: bool = False) -> Any:
        raise AssertionError("must not be reached")

    with pytest.raises(ImageError, match=words) as caught:
        from_memory(image, never)
    assert "\n" not in str(caught.value)


def test_the_restorer_refuses_too(restorer: Restorer) -> None:
    with pytest.raises(ImageError, match="divide by 255"):
        restorer(PHOTO.astype(np.float32))
