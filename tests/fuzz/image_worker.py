"""Read and write damaged images until the time is up, and tell of each fault.

A process of its own, so that a crash or a hang ends it and not the tests.
Use: python image_worker.py SEED SECONDS FOLDER; the last image tried stays in FOLDER.
"""

import io
import random
import resource
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from mutation import MOST_CPU_SECONDS, MOST_MEMORY_BYTES, mutated
from PIL import Image, ImageCms
from skimage import data

from fairweather.errors import FairweatherError
from fairweather.imaging import WRITTEN_SUFFIXES, Metadata, Photo, read_image, write_image

PIXELS = np.ascontiguousarray(data.astronaut()[:48, :60])
DEEP = PIXELS.astype(np.uint16) * 257
MOST_PIXELS = 10_000_000


def metadata() -> Metadata:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return Metadata(
        exif=exif.tobytes(),
        icc_profile=profile,
        xmp=b'<x hdrgm:Version="1.0" tiff:Orientation="3"><hdrgm:a>1</hdrgm:a></x>',
        text=(("Comment", "rain " * 400),),
    )


def corpus(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Suffix and content of small files of every format and many kinds."""
    photos = {
        "rgb": Photo(PIXELS, metadata=metadata()),
        "alpha": Photo(PIXELS, alpha=np.ascontiguousarray(PIXELS[..., 0])),
        "grey": Photo(np.repeat(PIXELS[..., :1], 3, -1), grey=True),
        "deep": Photo(DEEP, alpha=np.ascontiguousarray(DEEP[..., 0]), metadata=metadata()),
    }
    for suffix in sorted(WRITTEN_SUFFIXES - {".jpeg", ".jpe", ".jfif", ".mpo", ".tiff", ".hif"}):
        for name, photo in photos.items():
            path = folder / f"{name}{suffix}"
            write_image(path, photo)
            yield suffix, path.read_bytes()
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("CMYK", "JPEG", {"progressive": True}),
        ("RGB", "JPEG", {"restart_marker_blocks": 3, "subsampling": 2}),
        ("P", "PNG", {"transparency": 3}),
        ("1", "PNG", {}),
        ("RGB", "WEBP", {"lossless": True}),
        ("LAB", "TIFF", {"compression": "tiff_lzw"}),
        ("YCbCr", "TIFF", {"compression": "jpeg"}),
        ("RGB", "TIFF", {"compression": "packbits"}),
        ("P", "GIF", {"transparency": 3}),
        ("P", "BMP", {}),
    ]
    if "JXL" in Image.SAVE:
        kinds += [("RGB", "JXL", {"lossless": True, "exif": metadata().exif}), ("L", "JXL", {})]
    for mode, form, options in kinds:
        file = io.BytesIO()
        Image.fromarray(PIXELS).convert(mode).save(file, form, **options)
        yield f".{form.lower()}", file.getvalue()
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    for form in ("PNG", "GIF", "WEBP", "TIFF", "MPO"):
        file = io.BytesIO()
        frames[0].save(file, form, save_all=True, append_images=frames[1:])
        yield f".{form.lower()}", file.getvalue()
    for compression in ("zlib", "lzma", None):
        for layout in ({"tile": (16, 32)}, {"rowsperstrip": 7}, {"planarconfig": "separate"}):
            samples = np.moveaxis(DEEP, 2, 0) if "planarconfig" in layout else DEEP
            options = {"photometric": "rgb", "compression": compression, **layout}
            tifffile.imwrite(folder / "a.tif", samples, **options)
            yield ".tif", (folder / "a.tif").read_bytes()
    bayer = [(50706, "B", 4, (1, 4, 0, 0), True), (33421, "H", 2, (2, 2), True)]
    bayer += [(33422, "B", 4, (0, 1, 1, 2), True), (50717, "I", 1, 4095, True)]
    tifffile.imwrite(folder / "a.dng", DEEP[..., 0] >> 4, photometric=32803, extratags=bayer)
    yield ".dng", (folder / "a.dng").read_bytes()


def with_checksums(content: bytes) -> bytes:
    """Correct the checksums of PNG chunks, so that damage comes as far as their readers."""
    data, at = bytearray(content), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


def fault_of(path: Path, *, rng: random.Random, read: list[Path]) -> str | None:
    """Read an image and write it as another; say what is wrong with how that went."""
    target = path.with_name(f"out{rng.choice(sorted(WRITTEN_SUFFIXES))}")
    started = time.process_time()
    try:
        photo = read_image(path, max_pixels=MOST_PIXELS, truncated=rng.choice(("refuse", "allow")))
        read.append(path)
        if photo.pixels[..., 0].size < 100_000:  # large ones take their time to encode
            path = target
            write_image(target, photo)
    except FairweatherError as error:
        text = str(error)
        if str(path) not in text or "\n" in text:
            return f"the message does not name the file: {text}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    if (took := time.process_time() - started) > MOST_CPU_SECONDS:
        return f"{took:.1f} s"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"{peak:,} bytes of memory" if peak > MOST_MEMORY_BYTES else None


def main() -> None:
    seed, seconds, folder = int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    warnings.simplefilter("ignore")
    rng = random.Random(seed)
    files = list(corpus(folder))
    count = faults = 0
    read: list[Path] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and faults < 10:
        suffix, content = rng.choice(files)
        content = mutated(content, rng.choice(files)[1], rng)
        if suffix == ".png" and rng.random() < 0.7:
            content = with_checksums(content)
        path = folder / f"tried{suffix}"
        path.write_bytes(content)
        count += 1
        if fault := fault_of(path, rng=rng, read=read):
            faults += 1
            kept = path.rename(folder / f"fault-{seed}-{count}{suffix}")
            print(f"{kept}: {fault}")
    print(f"{count} images, {len(read)} of them read, {faults} faults, seed {seed}")


if __name__ == "__main__":
    main()
