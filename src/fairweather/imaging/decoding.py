"""Image file → samples as they lie in the file, whatever the format and pixel mode.

A format is told from the first bytes of the file, not from its name, and its parser is called
directly. Pillow's `Image.open` would try some forty formats (one of them starts Ghostscript) and
compare with `Image.MAX_IMAGE_PIXELS`, a global of the whole process that belongs to the host
program: changing it, even for a moment, would change it for the host's other threads.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal, cast

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ExifTags import Base as Tag

from fairweather.errors import ImageError
from fairweather.imaging import colour, containers, jpeg, pixels, png, tiff, xmp
from fairweather.imaging.extra_formats import read_extra
from fairweather.imaging.metadata import (
    Metadata,
    orientation_of,
    profile_fits,
    read_metadata,
    read_tiff_metadata,
    with_adobe_rgb,
)
from fairweather.imaging.signatures import HEAD_BYTES, format_of

try:
    from PIL import AvifImagePlugin
except ImportError:  # Pillow before 11.3
    AvifImagePlugin = None

READS_AVIF = AvifImagePlugin is not None and AvifImagePlugin.SUPPORTED

Truncated = Literal["refuse", "allow"]

_PARSERS: dict[str, Callable[[Any], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.jpeg_factory,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}
if AvifImagePlugin is not None and READS_AVIF:
    _PARSERS["AVIF"] = AvifImagePlugin.AvifImageFile
_PHOTO_MODES = {
    **dict.fromkeys(("1", "L"), "L"),
    **dict.fromkeys(("LA", "La"), "LA"),
    **dict.fromkeys(("P", "RGB", "RGBX", "YCbCr", "CMYK", "LAB"), "RGB"),
    **dict.fromkeys(("PA", "RGBA", "RGBa"), "RGBA"),
}
_LOSSLESS = {"PNG", "BMP", "GIF"}


@dataclass(frozen=True)
class Decoded:
    """An image file's content, before it is turned upright.

    Attributes:
        samples: (H, W, C) uint8 or uint16 with C 1 to 4: grey or RGB, with alpha last.
        orientation: The EXIF orientation, 1 to 8, in which the samples lie.
        metadata: All of it as in the file, but for a profile that does not fit the samples.
        notes: What the user should know.
    """

    samples: np.ndarray
    orientation: int
    metadata: Metadata
    notes: tuple[str, ...]


def decode(
    file: BinaryIO, *, path: object, max_pixels: int, truncated: Truncated = "refuse"
) -> Decoded:
    """Decode an image file, or its first frame.

    Args:
        file: The file, seekable.
        path: Its name for messages.
        max_pixels: An image with more is refused, from its header.
        truncated: Whether a JPEG or PNG file that is cut off is decoded as far as it goes.

    Raises:
        ImageError: The file is no image that is read here, too large, or not a photo.
        Exception: Of nearly any kind, as the parsers raise it on damaged files.
    """
    name = format_of(file.read(HEAD_BYTES), path=path)
    file.seek(0)
    directory = tiff.read_directory(file) if name == "TIFF" else None
    if directory is not None and tiff.is_raw(directory):
        name = "RAW"
    file.seek(0)
    if name in ("HEIF", "JXL", "RAW"):
        return _decode_extra(name, file, path=path, max_pixels=max_pixels, truncated=truncated)
    if directory is not None:
        return _decode_tiff(file, directory, path=path, max_pixels=max_pixels)
    if name not in _PARSERS:
        raise ImageError(f"'{path}' is {name}, which this Pillow cannot read; update Pillow")
    return _decode_with_pillow(name, file, path=path, max_pixels=max_pixels, truncated=truncated)


def _decode_with_pillow(
    name: str, file: BinaryIO, *, path: object, max_pixels: int, truncated: Truncated
) -> Decoded:
    if name == "JPEG":
        image, samples, notes = _decode_jpeg(
            file, path=path, max_pixels=max_pixels, truncated=truncated
        )
        metadata = read_metadata(image)
    elif name == "PNG":
        image, samples, notes, metadata = _decode_png(
            file, path=path, max_pixels=max_pixels, truncated=truncated
        )
    else:
        image = _PARSERS[name](file)
        _refuse_bomb(image.size, path=path, max_pixels=max_pixels)
        notes = _note_frames(_count_frames(image))
        samples, lost = _read_samples(image, path=path)
        notes, metadata = notes + lost, read_metadata(image)
    grey = samples.shape[-1] < 3
    if name == "AVIF":
        if containers.is_high_bit_depth_avif(file):
            notes += ("AVIF of more than 8 bits is restored with 8 bits",)
        metadata = with_code_points(metadata, containers.code_points_of(file), grey=grey)
    is_lossless = name in ("PNG", "BMP", "GIF") or (
        name == "WEBP" and containers.is_lossless_webp(file)
    )
    metadata = replace(metadata, is_lossless=is_lossless)
    if not grey:
        metadata = with_adobe_rgb(metadata)
    metadata, mismatch = _fit_profile(metadata, mode=image.mode, grey=grey)
    notes += xmp.note_announcements(metadata.xmp) + mismatch
    return Decoded(samples, orientation_of(metadata), metadata, notes)


def with_code_points(
    metadata: Metadata, code_points: tuple[int, int] | None, *, grey: bool
) -> Metadata:
    """Return metadata that tell the colour space of an nclx box, where there is no profile."""
    if code_points is None or metadata.icc_profile:
        return metadata
    chunks = ((b"cICP", bytes((*code_points, 0, 1))),)
    profile = colour.profile_of(chunks, grey=grey)
    if profile is None:  # HDR, which only PNG can tell
        return replace(metadata, png_colour=chunks)
    return replace(metadata, icc_profile=profile or None)


def _refuse_bomb(size: tuple[int, int], *, path: object, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"'{path}' is {width} × {height} = {width * height:,} pixels, more than the "
            f"{max_pixels:,} allowed; if you trust the file, `fairweather restore "
            f"--max-pixels {width * height}` (max_pixels={width * height}) restores it"
        )


def _count_frames(image: ImageFile.ImageFile) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except Exception:  # what follows the first frame may be broken: the first is still a photo
        return 1


def _note_frames(frames: int) -> tuple[str, ...]:
    return (f"only the first of {frames} frames is restored",) * (frames > 1)


def _decode_jpeg(
    file: BinaryIO, *, path: object, max_pixels: int, truncated: Truncated
) -> tuple[ImageFile.ImageFile, np.ndarray, tuple[str, ...]]:
    content = file.read()
    anatomy = jpeg.dissect(content)
    content = jpeg.ended(content, anatomy)
    image = _PARSERS["JPEG"](io.BytesIO(content))
    _refuse_bomb(image.size, path=path, max_pixels=max_pixels)
    if anatomy.scans > jpeg.MOST_SCANS:
        raise ImageError(
            f"'{path}' holds {anatomy.scans} scans, more than the {jpeg.MOST_SCANS} that a photo"
            " may have; save it again"
        )
    notes = _note_frames(_count_frames(image))
    if anatomy.cannot_be_whole(image.width * image.height):
        notes += _cut_off(path, row=0, height=image.height, truncated=truncated)
    with_noise = None if anatomy.is_arithmetic else jpeg.noisy_row_sums(content, anatomy)
    image.load()
    row = None if with_noise is None else jpeg.first_difference(jpeg.row_sums(image), with_noise)
    if row is not None:
        notes += _cut_off(path, row=row, height=image.height, truncated=truncated)
    elif not anatomy.is_ended:
        notes += ("the end marker of the file is missing; its pixels are whole",)
    samples, lost = _read_samples(image, path=path)
    return image, samples, notes + lost


def _cut_off(path: object, *, row: int, height: int, truncated: Truncated) -> tuple[str, ...]:
    """Refuse a file that is cut off, or return a note."""
    where = f"the pixels from row {row} of {height} on are missing"
    if truncated == "allow":
        return (f"the file is cut off: {where}",)
    raise ImageError(
        f"'{path}' is cut off: {where}; copy it again from where it came from;"
        ' `fairweather restore --truncated allow` (truncated="allow") restores what there is'
    )


def _decode_png(
    file: BinaryIO, *, path: object, max_pixels: int, truncated: Truncated
) -> tuple[ImageFile.ImageFile, np.ndarray, tuple[str, ...], Metadata]:
    parts = png.take_apart(file)
    image = PngImagePlugin.PngImageFile(parts.file)
    _refuse_bomb(image.size, path=path, max_pixels=max_pixels)
    notes = _note_frames(_count_frames(image)) + parts.notes

    def note_if_short() -> tuple[str, ...]:
        count = png.count_raw_bytes(file, parts)
        if count == parts.raw_bytes:
            return ()
        row = count // parts.row_bytes if parts.row_bytes else 0
        return _cut_off(path, row=row, height=image.height, truncated=truncated)

    if truncated == "allow" and (short := note_if_short()):
        parts = png.take_apart(png.completed(file, parts))
        image, notes = PngImagePlugin.PngImageFile(parts.file), notes + short
    elif parts.cannot_be_whole():
        note_if_short()
    if parts.depth == 16:
        samples, lost = png.read_deep(image, parts), ()
    else:
        top = 2**parts.depth - 1
        if top < 255 and parts.colour_type == png.GREY and "transparency" in image.info:
            # Pillow stretches grey to 0..255 and forgets the colour key, or stretches it already.
            image.info["transparency"] = min(image.info["transparency"], top) * (255 // top)
        samples, lost = _read_samples(image, path=path)
    if truncated == "refuse" and png.ends_in_zeros(image):
        note_if_short()
    metadata = read_metadata(image, text=parts.text)
    metadata = replace(metadata, icc_profile=parts.icc_profile, png_colour=parts.colour)
    return image, samples, notes + lost, metadata


def _decode_extra(
    name: str, file: BinaryIO, *, path: object, max_pixels: int, truncated: Truncated
) -> Decoded:
    def check_size(size: tuple[int, int]) -> None:
        _refuse_bomb(size, path=path, max_pixels=max_pixels)

    read = read_extra(name, file, path=path, check_size=check_size)
    if isinstance(read, bytes):
        return decode(io.BytesIO(read), path=path, max_pixels=max_pixels, truncated=truncated)
    grey = read.samples.shape[-1] < 3
    metadata = with_code_points(read.metadata, read.code_points, grey=grey)
    metadata, mismatch = _fit_profile(metadata, mode="RGB", grey=grey)
    notes = read.notes + xmp.note_announcements(metadata.xmp) + mismatch
    return Decoded(read.samples, 1, metadata, notes)  # every one of them is upright already


def _decode_tiff(
    file: BinaryIO,
    directory: TiffImagePlugin.ImageFileDirectory_v2,
    *,
    path: object,
    max_pixels: int,
) -> Decoded:
    tiff.refuse_floats(directory, path=path)
    largest = max(tiff.sizes_of(directory), key=math.prod)
    _refuse_bomb(largest, path=path, max_pixels=max_pixels)
    metadata, notes = read_tiff_metadata(file, directory)
    notes += _note_frames(tiff.count_pages(file)) + tiff.note_what_is_lost(directory)
    if tiff.is_deep(directory):
        samples, orientation = tiff.read_tiff(file, directory, path=path)
        mode = "I;16"
    else:
        file.seek(0)
        try:
            image = TiffImagePlugin.TiffImageFile(file)
        except SyntaxError as error:
            raise ImageError(
                f"'{path}' holds pixels of a kind that is not read ({error}); save it as 8-bit or "
                "16-bit RGB"
            ) from error
        samples, lost = _read_samples(image, path=path)
        notes += lost
        mode, orientation = image.mode, 1  # Pillow turns TIFF files itself
    metadata, mismatch = _fit_profile(metadata, mode=mode, grey=samples.shape[-1] < 3)
    notes += xmp.note_announcements(metadata.xmp) + mismatch
    return Decoded(samples, orientation, metadata, notes)


def _read_samples(
    image: ImageFile.ImageFile, *, path: object
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (H, W, C) samples of an image that Pillow decodes in full depth, and notes."""
    image.load()
    if image.mode in ("I", "I;16", "I;16B"):
        return _integers(image, path=path)
    mode = _PHOTO_MODES.get(image.mode)
    if mode is None:
        raise ImageError(f"'{path}' holds {image.mode} pixels, which are not read; save it as RGB")
    if image.mode == "P" and _has_grey_palette(image):
        mode = "L"
    if image.has_transparency_data and not mode.endswith("A"):
        mode += "A"
    convert, notes = _conversion(image, mode)
    samples = np.empty((image.height, image.width, len(mode)), np.uint8)
    # In bands, so that beside Pillow's copy and ours there is never a third.
    rows = max(1, pixels.BAND_PX // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        samples[top : top + rows] = np.asarray(convert(band)).reshape(-1, image.width, len(mode))
    return samples, notes


def _has_grey_palette(image: Image.Image) -> bool:
    colours = np.reshape(image.getpalette("RGB") or [], (-1, 3))
    return bool((colours == colours[:, :1]).all())


def _integers(image: ImageFile.ImageFile, *, path: object) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read grey TIFF of 12 bits or of more than 16, which Pillow holds as integers."""
    samples = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    if tags.get(Tag.BitsPerSample) == (12,):
        samples = samples << 4 | samples >> 8
        return samples[..., None].astype(np.uint16), ("12-bit grey is restored as 16-bit",)
    if samples.min() < 0 or samples.max() > 65535:
        raise ImageError(
            f"'{path}' holds integers outside 0 to 65535, whose white point is not known; "
            "save it as 16-bit TIFF"
        )
    return samples[..., None].astype(np.uint16), ()


def _conversion(
    image: Image.Image, mode: str
) -> tuple[Callable[[Image.Image], Image.Image], tuple[str, ...]]:
    """Return what turns a band of the image into `mode`, and notes."""
    if image.mode == mode and "transparency" not in image.info:
        return lambda band: band, ()
    notes: tuple[str, ...] = ()
    if image.mode in ("P", "PA") and mode.startswith("RGB"):
        notes = ("the palette is restored as RGB",)
    elif image.mode == "LAB":
        notes = ("CIELAB is restored as RGB (sRGB)",)
    elif image.mode == "CMYK":
        if transform := _cmyk_transform(image.info.get("icc_profile")):
            note = "CMYK is restored as RGB (sRGB), converted through the file's colour profile"
            return transform.apply, (note,)
        notes = ("CMYK is restored as RGB; without a colour profile the colours are approximate",)
    return lambda band: band.convert(mode), notes


def _cmyk_transform(icc_profile: bytes | None) -> ImageCms.ImageCmsTransform | None:
    """Build Photoshop's conversion to sRGB (relative colorimetric, black point compensated)."""
    if not icc_profile or icc_profile[16:20] != b"CMYK":
        return None
    try:
        return cast(
            ImageCms.ImageCmsTransform,
            ImageCms.buildTransform(
                io.BytesIO(icc_profile),
                ImageCms.createProfile("sRGB"),
                "CMYK",
                "RGB",
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            ),
        )
    except (ImageCms.PyCMSError, OSError, ImportError):
        return None


def _fit_profile(metadata: Metadata, *, mode: str, grey: bool) -> tuple[Metadata, tuple[str, ...]]:
    """Replace the profile of converted pixels by sRGB; drop one that does not fit the pixels."""
    profile = metadata.icc_profile
    if mode in ("CMYK", "LAB"):
        srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        return replace(metadata, icc_profile=srgb if profile or mode == "LAB" else None), ()
    if profile is None or profile_fits(profile, grey=grey):
        return metadata, ()
    kind = "grey" if grey else "RGB"
    return metadata.without("icc_profile"), (
        f"the colour profile is not for {kind} and is left out",
    )
