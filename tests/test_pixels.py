import numpy as np
import pytest

from fairweather.imaging import as_bytes, as_float, quantise, resized

EVERY = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def test_rounding_to_8_bits_is_exact() -> None:
    np.testing.assert_array_equal(as_bytes(EVERY), np.rint(EVERY / 257))
    assert as_bytes(EVERY).dtype == np.uint8


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_floats_are_rounded_to_the_integers_that_they_came_from(dtype: type) -> None:
    integers = EVERY[: np.iinfo(dtype).max // 256 + 1].astype(dtype)
    assert as_float(integers).dtype == np.float32
    again = np.empty_like(integers)
    quantise(as_float(integers), out=again)
    np.testing.assert_array_equal(again, integers)
    np.testing.assert_array_equal(as_bytes(as_float(integers)), as_bytes(integers))


def test_bytes_are_not_copied() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    assert as_bytes(pixels) is pixels


def test_what_is_out_of_range_is_clipped() -> None:
    out = np.empty(3, np.uint8)
    quantise(np.array([-0.5, 0.5, 1.5], np.float32), out=out)
    assert out.tolist() == [0, 128, 255]


@pytest.mark.parametrize("size", [(5, 9), (0, 3)])
def test_resizing_gives_the_size_asked_for(size: tuple[int, int]) -> None:
    grey = np.full((40, 30, 3), 100, np.uint8)
    small = resized(grey, size)
    assert small.shape == (max(1, size[0]), size[1], 3)
    assert (small == 100).all()


@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_bands_meet_without_a_seam(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((53, 41, 3)) * (65535 if dtype == np.uint16 else 1)
    whole = as_bytes(values.astype(dtype))
    monkeypatch.setattr("fairweather.imaging.pixels.BAND_PX", 41 * 5)
    np.testing.assert_array_equal(as_bytes(values.astype(dtype)), whole)
