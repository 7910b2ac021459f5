"""Decoded images, mapped from disk or kept in memory: decoding costs far more than cropping."""

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import platformdirs
from PIL import Image

from fairweather.data.pairs import Pair, read_bytes
from fairweather.errors import DataError
from fairweather.files import replacing

log = logging.getLogger(__name__)

MAX_DEFAULT_LIMIT_BYTES = 64 << 30
BLOCK_BYTES = 4096
HEADER_BYTES = 128  # of a .npy file


def default_cache_folder() -> Path:
    """Return where this user's decoded images lie; the folder may be deleted at any time."""
    return Path(platformdirs.user_cache_dir("fairweather")) / "decoded"


class ImageCache:
    """Images as bytes, decoded once.

    In a folder each image is one .npy file, told by the path, size and time of what was decoded, so
    that a changed file is decoded anew. Reading maps the file: only the pages that a crop touches
    are read, and all processes share them. No map is kept, so that neither descriptors nor maps run
    out with any number of images: to map anew takes 0.1 ms, to decode a quarter megapixel 3 ms.

    What cannot be stored, because the limit is reached or the disk is full or read-only, is decoded
    each time; the log says so once. The processes that share a folder share its limit.
    """

    def __init__(
        self, folder: Path | None, *, limit_bytes: int | None = None, resize_px: int | None = None
    ):
        """Prepare a cache; nothing is read or written yet.

        Args:
            folder: where decoded images lie; None keeps them in the memory of this process.
            limit_bytes: what the folder may hold, what lies there already included; by default
                64 GiB, or half of what the disk has for it if that is less. 0 stores nothing.
            resize_px: every image is resized to resize_px × resize_px, whatever its proportions, by
                Pillow's bicubic filter, which is antialiased.
        """
        self.folder = folder
        self.limit_bytes = limit_bytes
        self.resize_px = resize_px
        self._decoded: dict[Path, np.ndarray] = {}
        self._stores = limit_bytes != 0

    def read(self, path: Path) -> np.ndarray:
        """Return an image file as (H, W, 3) uint8 RGB, to be read only.

        Raises:
            ImageError: The file is no image that can be read.
            DataError: There is no such file.
        """
        if self.folder is None:
            if path not in self._decoded:
                self._decoded[path] = self._decode(path)
            return self._decoded[path]
        name = self._name(path)
        stored = map_image(self.folder / name)
        if stored is not None:
            return stored
        pixels = self._decode(path)
        if self._stores:
            self._store(pixels, name=name, folder=self.folder)
        return pixels

    def _decode(self, path: Path) -> np.ndarray:
        pixels = read_bytes(path)
        if self.resize_px is None:
            return pixels
        size = self.resize_px, self.resize_px
        return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))

    def _name(self, path: Path) -> str:
        try:
            facts = path.stat()
        except OSError as error:
            raise DataError(f"'{path}' cannot be read: {error.strerror}") from error
        key = (os.path.realpath(path), facts.st_size, facts.st_mtime_ns, self.resize_px)
        digest = hashlib.blake2b(os.fsencode("\0".join(map(str, key))), digest_size=16).hexdigest()
        return f"{digest[:2]}/{digest}.npy"

    def _store(self, pixels: np.ndarray, *, name: str, folder: Path) -> None:
        file = folder / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            if not self._claim(HEADER_BYTES + pixels.nbytes, folder=folder):
                self._stop(f"has reached its limit of {self.limit_bytes:,} bytes")
                return
            with replacing(file) as stream:
                np.save(stream, np.ascontiguousarray(pixels))
        except OSError as error:
            if map_image(file) is None:  # else another process stored it at the same time
                self._stop(f"cannot be written: {error.strerror or error}")

    def _claim(self, size_bytes: int, *, folder: Path) -> bool:
        """Count an image against the limit, if it fits.

        The count is the length of a file, to which every process appends a byte for each block.
        """
        ledger = folder / "blocks"
        if not ledger.exists():
            held = sum(count_blocks(file.stat().st_size) for file in folder.glob("*/*.npy"))
            with suppress(FileExistsError), replacing(ledger, overwrite=False) as stream:
                stream.write(bytes(held))
        with ledger.open("ab") as stream:
            used_bytes = stream.tell() * BLOCK_BYTES
            if self.limit_bytes is None:
                free_bytes = shutil.disk_usage(folder).free
                self.limit_bytes = min(MAX_DEFAULT_LIMIT_BYTES, (free_bytes + used_bytes) // 2)
            blocks = count_blocks(size_bytes)
            fits = used_bytes + blocks * BLOCK_BYTES <= self.limit_bytes
            stream.write(bytes(blocks if fits else 0))
        return fits

    def _stop(self, reason: str) -> None:
        self._stores = False
        log.warning(
            "the cache '%s' %s: further images are decoded each time, which is slower; choose"
            " another folder or make room there",
            self.folder,
            reason,
        )


def map_image(file: Path) -> np.ndarray | None:
    """Map the (H, W, 3) uint8 array in a .npy file; return None if there is none that is whole."""
    try:
        pixels = np.lib.format.open_memmap(file, mode="r")
    except FileNotFoundError:
        return None
    except Exception as error:  # broken in any of the many ways in which a file can be
        log.debug("'%s' is decoded anew: %s", file, error)
        return None
    is_image = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    return pixels if is_image else None


def count_blocks(size_bytes: int) -> int:
    """Return how many blocks of the disk a file takes."""
    return -(-size_bytes // BLOCK_BYTES)


class PairCache:
    """Both images of each pair, through a cache of images."""

    def __init__(self, pairs: Sequence[Pair], *, images: ImageCache | None = None):
        """Prepare pairs that are decoded when they are asked for, and kept in memory by default."""
        self.pairs = list(pairs)
        self.images = ImageCache(None) if images is None else images

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the degraded and the clean image, (H, W, 3) uint8 each, to be read only.

        Raises:
            DataError: The two images are not of one size.
        """
        pair = self.pairs[index]
        clean = self.images.read(pair.clean)
        degraded = clean if pair.is_synthetic else self.images.read(pair.degraded)
        if degraded.shape != clean.shape:
            sizes = [f"{a.shape[0]}×{a.shape[1]}" for a in (degraded, clean)]
            raise DataError(
                f"pair '{pair.degraded.name}': degraded is {sizes[0]} but clean is {sizes[1]};"
                " is one of them rotated or resized?"
            )
        return degraded, clean
