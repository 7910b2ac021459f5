import logging
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

import fairweather as fw
from fairweather.errors import CheckpointError, FairweatherError, ImageError, OptionError
from fairweather.imaging import read_image
from fairweather.models import AST, PRESETS, ASTConfig, create_model, save_model, save_official
from fairweather.restoration import Restorer, once

PHOTO = np.ascontiguousarray(data.astronaut()[:300, :260])


@pytest.fixture(scope="module")
def model() -> AST:
    """A network that changes a photo by 15 of 255 on average and looks far around itself."""
    return changing_model(PRESETS["ast_n"])


def changing_model(config: ASTConfig) -> AST:
    torch.manual_seed(0)
    network = create_model(config, init="official").eval()
    with torch.no_grad():
        network.output_conv.weight *= 0.4
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight *= 1.6
    return network


@pytest.fixture(scope="module")
def whole(model: AST) -> np.ndarray:
    """The photo, restored in one tile."""
    return Restorer(model, device="cpu", tile=None)(PHOTO)


def call(model: AST, image: np.ndarray) -> np.ndarray:
    """(H, W, 3) through the network itself."""
    with torch.inference_mode():
        batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
        return model(batch)[0].permute(1, 2, 0).numpy()


def assert_alike(image: np.ndarray, other: np.ndarray) -> None:
    """No seam: nowhere more than 2 levels of 255 apart, and above 50 dB."""
    assert np.abs(image.astype(int) - other).max() <= 2
    assert np.array_equal(image, other) or peak_signal_noise_ratio(image, other) > 50


class ScarceMemory:
    """An engine that runs out of memory for more than so many pixels, in every thread or in one."""

    def __init__(
        self,
        engine: Any,
        *,
        most_px: int,
        error: Exception | None = None,
        thread: threading.Thread | None = None,
        threads: int = 1,
    ):
        self.thread = thread
        self.threads = threads
        self.engine, self.most_px = engine, most_px
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.device, self.config = engine.device, engine.config
        self.refused: list[tuple[int, ...]] = []
        self.accepted: list[tuple[int, ...]] = []
        self.releases = 0

    def __call__(self, tiles: np.ndarray, context: np.ndarray | None = None) -> np.ndarray:
        self.take(tiles)
        return self.engine(tiles, context)

    def at_once(self) -> int:
        return self.threads

    def look(self, image: np.ndarray) -> np.ndarray:
        self.take(image)
        return self.engine.look(image)

    def take(self, tiles: np.ndarray) -> None:
        batch, height, width, _ = tiles.shape
        concerned = self.thread in (None, threading.current_thread())
        if concerned and batch * height * width > self.most_px:
            self.refused.append(tiles.shape[:3])
            raise self.error
        self.accepted.append(tiles.shape[:3])

    def release(self) -> None:
        self.releases += 1


def test_one_tile_is_a_direct_call_of_the_model(model: AST, whole: np.ndarray) -> None:
    image = PHOTO / np.float32(255)
    direct = call(model, image)
    in_floats = Restorer(model, device="cpu", tile=None)(image)
    np.testing.assert_allclose(in_floats, direct.clip(0, 1), rtol=0, atol=1e-6)
    assert direct.min() < 0  # so that clipping is seen
    assert np.abs(whole - direct.clip(0, 1) * 255).max() < 0.501  # rounded
    assert np.abs(whole.astype(int) - PHOTO).mean() > 5  # so that the tests here can fail


def test_tiles_show_no_seams(model: AST, whole: np.ndarray) -> None:
    tiled = Restorer(model, device="cpu", tile=128)(PHOTO)
    assert tiled.dtype == np.uint8
    assert tiled.shape == PHOTO.shape
    assert_alike(tiled, whole)


def test_tiles_pasted_side_by_side_would_show(model: AST, whole: np.ndarray) -> None:
    pasted = Restorer(model, device="cpu", tile=128, overlap_px=0)(PHOTO)
    assert peak_signal_noise_ratio(pasted, whole) < 50
    assert np.abs(pasted.astype(int) - whole).max() > 2


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_a_batch_of_tiles_gives_what_single_tiles_give(model: AST, batch: int) -> None:
    image = PHOTO[:100]
    single = Restorer(model, device="cpu", tile=128, batch=1)(image / np.float64(255))
    together = Restorer(model, device="cpu", tile=128, batch=batch)(image / np.float64(255))
    np.testing.assert_allclose(together, single, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (64, 64)])
def test_any_size(model: AST, size: tuple[int, int]) -> None:
    image = PHOTO[: size[0], : size[1]]
    expected = call(model, image / np.float32(255)).clip(0, 1) * 255
    assert np.abs(Restorer(model, device="cpu")(image) - expected).max() < 0.501


def test_the_tile_follows_from_the_budget(model: AST) -> None:
    sides = [
        Restorer(model, device="cpu", memory_budget_bytes=budget).tile_px
        for budget in (1, 40 << 20, 90 << 20, 1 << 40)
    ]
    assert sides[0] == 128  # two overlaps
    assert sides[-1] == 512
    assert sides == sorted(sides)
    assert all(isinstance(side, int) and side % 64 == 0 for side in sides)


def test_out_of_memory_halves_the_tile(
    model: AST, whole: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    restore = Restorer(model, device="cpu", tile=256, batch=1)
    restore.engine = engine = ScarceMemory(restore.engine, most_px=128 * 128)
    done: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        out = restore.restore_pixels(PHOTO, on_tile=lambda *count: done.append(count))
    assert_alike(out, whole)
    assert restore.tile_px == 256  # the shared object stays as it is
    assert "128 px" in caplog.text
    assert engine.releases == len(engine.refused) > 0
    assert {shape[1:] for shape in engine.accepted} == {(128, 128)}
    assert done == [(count, 4) for count in range(1, 5)]
    assert len(engine.refused) == 1  # the other tiles begin with what fits


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_in_one_tile_for_all(model: AST, error: Exception) -> None:
    restore = Restorer(model, device="cpu", tile=None)
    image = PHOTO[:60, 60:]
    expected = restore(image)
    restore.engine = engine = ScarceMemory(restore.engine, most_px=64 * 128, error=error)
    assert_alike(restore(image), expected)
    assert {shape[1:] for shape in engine.accepted} == {(64, 128)}
    assert restore.tile_px is None


@pytest.mark.parametrize(("batch", "most"), [(2, 1), (4, 2), (4, 1), (3, 1)])
def test_out_of_memory_halves_the_batch_first(
    model: AST, whole: np.ndarray, batch: int, most: int
) -> None:
    restore = Restorer(model, device="cpu", tile=128, batch=batch)
    restore.engine = engine = ScarceMemory(restore.engine, most_px=most * 128 * 128)
    assert_alike(restore(PHOTO), whole)
    assert {shape[1:] for shape in engine.accepted} == {(128, 128)}
    assert max(shape[0] for shape in engine.accepted) == most
    assert restore.batch == batch
    assert sum(shape[0] for shape in engine.accepted) == 16


def test_out_of_memory_tries_the_smallest_tile(model: AST) -> None:
    image = PHOTO[:190, :190]
    expected = Restorer(model, device="cpu", tile=None)(image)
    restore = Restorer(model, device="cpu", tile=192)
    restore.engine = engine = ScarceMemory(restore.engine, most_px=128 * 128)
    assert_alike(restore(image), expected)
    assert {shape[1:] for shape in engine.accepted} == {(128, 128)}


def test_a_thread_that_runs_out_of_memory_is_alone_with_it(model: AST, whole: np.ndarray) -> None:
    restore = Restorer(model, device="cpu", tile=256, batch=2)
    results: dict[int, np.ndarray] = {}

    def work(number: int) -> None:
        results[number] = restore(PHOTO)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    restore.engine = engine = ScarceMemory(restore.engine, most_px=128 * 128, thread=threads[3])
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engine.refused
    assert sorted(results) == list(range(8))
    for result in results.values():
        assert_alike(result, whole)
    shapes = Counter(shape for shape in engine.accepted)
    assert shapes[2, 256, 256] == 2 * 7  # two rows of two tiles in each of the others
    assert sum(count for shape, count in shapes.items() if shape[1:] == (128, 128)) == 4 * 9
    assert (restore.tile_px, restore.batch) == (256, 2)


def test_memory_for_no_tile_at_all(model: AST) -> None:
    restore = Restorer(model, device="cpu", tile=256, batch=2)
    restore.engine = ScarceMemory(restore.engine, most_px=127 * 127)
    with pytest.raises(FairweatherError, match="not even a tile of 128 px fits"):
        restore(PHOTO)


def test_other_errors_are_not_taken_for_scarce_memory(model: AST) -> None:
    restore = Restorer(model, device="cpu", tile=256)
    failure = RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED")
    restore.engine = engine = ScarceMemory(restore.engine, most_px=0, error=failure)
    with pytest.raises(RuntimeError, match="cuDNN"):
        restore(PHOTO)
    assert len(engine.refused) == 1


@pytest.mark.parametrize("batch", [1, 3])
def test_tiles_are_counted(model: AST, batch: int) -> None:
    done: list[tuple[int, int]] = []
    restore = Restorer(model, device="cpu", tile=128, batch=batch)
    restore.restore_pixels(PHOTO[:190], on_tile=lambda *count: done.append(count))
    steps = {1: range(1, 9), 3: (3, 4, 7, 8)}[batch]
    assert done == [(count, 8) for count in steps]


@pytest.mark.parametrize("tile", [None, 128])
def test_strength_0_is_the_input(model: AST, tile: int | None) -> None:
    restore = Restorer(model, device="cpu", tile=tile, strength=0)
    image = PHOTO[:150, :150]
    deep = image.astype(np.uint16) * 257 - image
    np.testing.assert_array_equal(restore(image), image)
    np.testing.assert_array_equal(restore(deep), deep)
    floats = (image / 255).astype(np.float32)
    np.testing.assert_allclose(restore(floats), floats, rtol=0, atol=0 if tile is None else 2e-7)


def test_strength_blends(model: AST) -> None:
    image = (PHOTO[:150, :150] / 255).astype(np.float32)
    full = Restorer(model, device="cpu", tile=None)(image)
    for strength in (0.25, 0.5):
        blend = Restorer(model, device="cpu", tile=None, strength=strength)(image)
        expected = (1 - strength) * image + strength * full
        np.testing.assert_allclose(blend, expected, rtol=0, atol=1e-6)


def test_self_ensemble_is_the_mean_over_eight_views(model: AST) -> None:
    image = (PHOTO[100:164, 60:188] / 255).astype(np.float32)
    views = []
    for mirrored in (False, True):
        upright = image[:, ::-1] if mirrored else image
        for quarter in range(4):
            restored = np.rot90(call(model, np.rot90(upright, quarter)), -quarter)
            views.append(restored[:, ::-1] if mirrored else restored)
    assert len(views) == 8
    expected = np.mean(views, axis=0).clip(0, 1)
    out = Restorer(model, device="cpu", tile=None, self_ensemble=True)(image)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-6)
    assert np.abs(expected - views[0]).max() > 1e-3


def test_self_ensemble_in_tiles(model: AST) -> None:
    image = PHOTO[:60, :190]
    tiled = Restorer(model, device="cpu", tile=128, batch=2, self_ensemble=True)(image)
    assert_alike(tiled, Restorer(model, device="cpu", tile=None, self_ensemble=True)(image))


@pytest.mark.parametrize("tile", [None, 128])
def test_grey_stays_grey(model: AST, tile: int | None) -> None:
    grey = np.repeat(PHOTO[:150, :150, :1], 3, -1) / np.float32(255)
    restore = Restorer(model, device="cpu", tile=tile)
    coloured = restore.restore_pixels(grey)
    out = restore.restore_pixels(grey, grey=True)
    assert np.ptp(coloured, axis=-1).max() > 0.01
    assert np.ptp(out, axis=-1).max() == 0
    np.testing.assert_allclose(out[..., 0], coloured.mean(-1), rtol=0, atol=1e-6)


def test_half_precision_is_close(model: AST) -> None:
    image = PHOTO[:64, :64] / np.float32(255)
    full = Restorer(model, device="cpu")(image)
    half = Restorer(model, device="cpu", precision="bf16")(image)
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.02


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strength": -0.1}, "strength -0.1"),
        ({"strength": 1.01}, "strength 1.01"),
        ({"strength": float("nan")}, "strength nan"),
        ({"device": "abacus"}, "abacus"),
        ({"device": "meta"}, "meta"),
        ({"precision": "int8"}, "int8"),
        ({"tile": 127}, "128"),
        ({"tile": 0}, "tile 0"),
        ({"tile": -128}, "tile -128"),
        ({"tile": 128, "overlap_px": 65}, "256"),
        ({"tile": "large"}, "large"),
        ({"overlap_px": -64}, "overlap"),
        ({"batch": 0}, "batch 0"),
        ({"batch": -1}, "batch -1"),
    ],
)
def test_options_out_of_range_are_refused(model: AST, options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        Restorer(model, **{"device": "cpu", **options})
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_device_that_is_not_here_is_refused(model: AST) -> None:
    with pytest.raises(OptionError, match=r"cuda.*it has cpu"):
        Restorer(model, device="cuda")


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="fog"):
        Restorer("fog")
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        Restorer(tmp_path / "a.safetensors")


@pytest.mark.parametrize("kind", ["safetensors", "pth", "folder"])
def test_weights_from_a_file_or_folder(model: AST, tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("weights.pth" if kind == "pth" else "weights.safetensors")
    (save_official if kind == "pth" else save_model)(model, path)
    image = PHOTO[:40, :50]
    loaded = Restorer(tmp_path if kind == "folder" else str(path), device="cpu")
    np.testing.assert_array_equal(loaded(image), Restorer(model, device="cpu")(image))


def test_a_file_is_restored(model: AST, tmp_path: Path) -> None:
    image = PHOTO[:80, :120]
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(image).save(source)
    before = source.read_bytes()
    done: list[tuple[int, int]] = []
    restore = Restorer(model, device="cpu")
    record = restore.restore_file(
        source,
        str(target),
        compare=tmp_path / "c.jpg",
        on_tile=lambda *count: done.append(count),
    )
    np.testing.assert_array_equal(read_image(target).pixels, restore(image))
    assert source.read_bytes() == before
    assert (record.source, record.target) == (source, target)
    assert (record.height, record.width, record.notes) == (80, 120, ())
    assert 0 < record.seconds < 600
    assert done == [(1, 1)]
    with Image.open(tmp_path / "c.jpg") as compare:
        assert compare.size == (120 + 8 + 120, 80)
        left = np.asarray(compare).astype(int)[:, :120]
    assert np.abs(left - image).mean() < 4
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png", "c.jpg"}


def test_no_file_is_overwritten_unless_asked(model: AST, tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(PHOTO[:30, :30]).save(source)
    target.write_bytes(b"mine")
    restore = Restorer(model, device="cpu")
    before = source.read_bytes()
    done: list[tuple[int, int]] = []
    for taken in (target, source):
        with pytest.raises(ImageError, match="exists already") as caught:
            restore.restore_file(source, taken, on_tile=lambda *count: done.append(count))
        assert str(taken) in str(caught.value)
    assert done == []  # refused before the work, not after it
    assert target.read_bytes() == b"mine"
    assert source.read_bytes() == before
    restore.restore_file(source, target, overwrite=True)
    np.testing.assert_array_equal(read_image(target).pixels, restore(PHOTO[:30, :30]))


def test_a_target_that_appears_meanwhile_is_kept(model: AST, tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(PHOTO[:30, :30]).save(source)
    with pytest.raises(ImageError, match="exists already"):
        Restorer(model, device="cpu").restore_file(
            source, target, on_tile=lambda *count: target.write_bytes(b"theirs") and None
        )
    assert target.read_bytes() == b"theirs"


def test_what_cannot_be_restored_leaves_no_target(model: AST, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(PHOTO[:30, :30]).save(source)
    restore = Restorer(model, device="cpu")
    with pytest.raises(ImageError, match="900"):
        restore.restore_file(source, tmp_path / "b.png", max_pixels=899)
    with pytest.raises(ImageError, match=r"\.txt"):
        restore.restore_file(source, tmp_path / "b.txt")
    with pytest.raises(ImageError, match="does not exist"):
        restore.restore_file(tmp_path / "none.png", tmp_path / "b.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_restore_in_one_line(model: AST, tmp_path: Path) -> None:
    weights, source = tmp_path / "w.safetensors", tmp_path / "a.png"
    save_model(model, weights)
    Image.fromarray(PHOTO[:30, :30]).save(source)
    once.cached_restorer.cache_clear()
    try:
        record = fw.restore(source, tmp_path / "b.png", weights=weights, device="cpu")
        fw.restore(str(source), str(tmp_path / "c.png"), weights=str(weights), device="cpu")
        assert once.cached_restorer.cache_info().misses == 1
        with pytest.raises(ImageError, match="exists already"):
            fw.restore(source, tmp_path / "b.png", weights=weights, device="cpu")
    finally:
        once.cached_restorer.cache_clear()
    assert record.target == tmp_path / "b.png"
    expected = Restorer(model, device="cpu")(PHOTO[:30, :30])
    for name in ("b.png", "c.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name).pixels, expected)
