import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from fairweather.imaging import WRITTEN_SUFFIXES, Metadata, Photo, read_image, write_image
from fairweather.imaging.metadata import NOTES_STAY, orientation_of, uprighted

MAKER_NOTE = b"Maker\x00 with offsets that only its maker knows"
THUMBNAIL = b"\xff\xd8 a picture of the rain \xff\xd9"
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" '
    b'dc:title="Regen in K\xc3\xb6ln"/></x:xmpmeta>'
)
IPTC = b"\x1c\x02\x78\x00\x04Rain"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY = SRGB[:16] + b"GRAY" + SRGB[20:]
LONG = b" " * 65500
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def exif_block(order: str, *, orientation: int = 6, kind: int = 3) -> bytes:
    """Lays out a camera's EXIF: directory, details with a maker note, GPS, thumbnail."""
    value = {1: "B3x", 3: "H2x", 4: "I"}[kind]

    def directory(entries: list[tuple[int, int, int, bytes]], following: int) -> bytes:
        packed = [struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries]
        return struct.pack(order + "H", len(packed)) + b"".join(packed) + long(following)

    def long(number: int) -> bytes:
        return struct.pack(order + "I", number)

    # Every directory below has a known length, so the offsets are written out.
    main, details, gps, second = 8, 62, 104, 122
    note = second + 30
    thumbnail = note + len(MAKER_NOTE)
    return b"".join(
        [
            b"Exif\x00\x00",
            {"<": b"II*\x00", ">": b"MM\x00*"}[order] + long(main),
            directory(
                [
                    (0x010F, 2, 4, b"Fai\x00"),
                    (0x0112, kind, 1, struct.pack(order + value, orientation)),
                    (0x8769, 4, 1, long(details)),
                    (0x8825, 4, 1, long(gps)),
                ],
                second,
            ),
            directory(
                [
                    (0x927C, 7, len(MAKER_NOTE), long(note)),
                    (0xA002, 4, 1, long(8)),
                    (0xA003, 3, 1, struct.pack(order + "H2x", 6)),
                ],
                0,
            ),
            directory([(0x0001, 2, 2, b"N\x00\x00\x00")], 0),
            directory([(0x0201, 4, 1, long(thumbnail)), (0x0202, 4, 1, long(len(THUMBNAIL)))], 0),
            MAKER_NOTE,
            THUMBNAIL,
        ]
    )


def parsed(exif: bytes | None) -> Image.Exif:
    block = Image.Exif()
    block.load(exif or b"")
    return block


def saved(path: Path, **options: Any) -> Path:
    Image.fromarray(PIXELS).save(path, **options)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4])
def test_exif_is_patched_where_it_lies(order: str, kind: int) -> None:
    before = exif_block(order, kind=kind)
    assert orientation_of(Metadata(exif=before)) == 6
    after = uprighted(Metadata(exif=before), height=8, width=6).exif
    assert after is not None
    assert len(after) == len(before)
    block = parsed(after)
    assert orientation_of(Metadata(exif=after)) == 1
    assert block[ExifTags.Base.Make] == "Fai"
    assert block.get_ifd(ExifTags.IFD.GPSInfo) == {1: "N"}
    assert block.get_ifd(ExifTags.IFD.IFD1) == {}
    details = block.get_ifd(ExifTags.IFD.Exif)
    assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (6, 8)
    assert details[ExifTags.Base.MakerNote] == MAKER_NOTE
    assert after.index(MAKER_NOTE) == before.index(MAKER_NOTE)
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 4


@pytest.mark.parametrize("length", [3, 7, 12, 20, 40, 61])
def test_broken_exif_is_told_and_left_out(tmp_path: Path, length: int) -> None:
    broken = exif_block("<")[: 6 + length]
    photo = read_image(saved(tmp_path / "a.webp", exif=broken, lossless=True))
    assert photo.metadata.exif is None
    assert photo.notes == ("the EXIF data are damaged and are left out",)
    # The orientation counts as long as it can be read: it comes 30 bytes after the beginning.
    upright = np.rot90(PIXELS, -1) if length > 34 else PIXELS
    np.testing.assert_array_equal(photo.pixels, upright)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_impossible_orientation_is_upright(tmp_path: Path, orientation: int) -> None:
    path = saved(tmp_path / "a.png", exif=exif_block("<", orientation=orientation))
    np.testing.assert_array_equal(read_image(path).pixels, PIXELS)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_travels_byte_for_byte(tmp_path: Path, suffix: str, order: str) -> None:
    photo = read_image(saved(tmp_path / "in.png", exif=exif_block(order)))
    assert photo.pixels.shape == (8, 6, 3)
    assert write_image(tmp_path / f"out{suffix}", photo, quality=95) == ()
    again = read_image(tmp_path / f"out{suffix}")
    assert again.metadata.exif == photo.metadata.exif
    assert again.pixels.shape == (8, 6, 3)
    assert parsed(again.metadata.exif).get_ifd(ExifTags.IFD.Exif)[0x927C] == MAKER_NOTE


@pytest.mark.parametrize("notes", [MAKER_NOTE, b"Nikon\0\x02 and offsets from its own start"])
def test_exif_travels_value_for_value_into_tiff_tags(tmp_path: Path, notes: bytes) -> None:
    """But for maker notes with offsets, which would point to anything in the new file."""
    block = exif_block(">").replace(MAKER_NOTE, notes.ljust(len(MAKER_NOTE)))
    photo = read_image(saved(tmp_path / "in.png", exif=block))
    told = write_image(tmp_path / "out.tif", photo)
    again = read_image(tmp_path / "out.tif")
    block = parsed(again.metadata.exif)
    details = block.get_ifd(ExifTags.IFD.Exif)
    assert again.pixels.shape == (8, 6, 3)
    assert block[ExifTags.Base.Make] == "Fai"
    assert block.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
    assert details[ExifTags.Base.ExifImageWidth] == 6
    if notes is MAKER_NOTE:
        assert 0x927C not in details
        assert told == (NOTES_STAY,)
    else:
        assert details[0x927C] == notes.ljust(len(MAKER_NOTE))
        assert told == ()


def test_maker_notes_that_stay_in_a_tiff_are_told(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.tif", exif=exif_block("<", orientation=1))
    assert MAKER_NOTE in (tmp_path / "a.tif").read_bytes()
    photo = read_image(tmp_path / "a.tif")
    assert photo.notes == (NOTES_STAY,)
    assert MAKER_NOTE not in (photo.metadata.exif or b"")


def test_width_and_height_follow_a_resized_photo(tmp_path: Path) -> None:
    exif = uprighted(Metadata(exif=exif_block("<")), height=8, width=6).exif
    write_image(tmp_path / "a.png", Photo(np.repeat(PIXELS, 2, 0), metadata=Metadata(exif=exif)))
    details = parsed(read_image(tmp_path / "a.png").metadata.exif).get_ifd(ExifTags.IFD.Exif)
    assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (
        8,
        12,
    )


def test_the_orientation_of_xmp_counts_where_exif_has_none(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.webp", xmp=XMP, lossless=True)
    photo = read_image(path)
    np.testing.assert_array_equal(photo.pixels, np.rot90(PIXELS, -1))
    assert photo.metadata.xmp == XMP.replace(b'"6"', b'"1"')


def test_old_imagemagick_exif_is_found(tmp_path: Path) -> None:
    info, block = PngInfo(), exif_block("<")
    info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    info.add_text("Title", "Rain")
    photo = read_image(saved(tmp_path / "a.png", pnginfo=info))
    np.testing.assert_array_equal(photo.pixels, np.rot90(PIXELS, -1))
    assert photo.metadata.text == (("Title", "Rain"),)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", sorted(WRITTEN_SUFFIXES - {".bmp", ".gif"}))
def test_profile_xmp_and_resolution_travel(tmp_path: Path, suffix: str, depth: type) -> None:
    upright = XMP.replace(b'"6"', b'"1"')
    metadata = Metadata(icc_profile=SRGB, xmp=upright, dpi=(300.0, 150.0))
    write_image(tmp_path / f"a{suffix}", Photo(PIXELS.astype(depth), metadata=metadata))
    again = read_image(tmp_path / f"a{suffix}").metadata
    assert again.icc_profile == SRGB
    assert again.xmp == upright
    if suffix in (".webp", ".avif", ".heic", ".heif", ".hif"):
        assert again.dpi is None
    else:
        assert again.dpi == pytest.approx((300, 150), abs=0.02)


def test_resolution_turns_with_the_photo(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", exif=exif_block("<"), dpi=(300, 150))
    assert read_image(path).metadata.dpi == pytest.approx((150, 300), abs=0.02)


def test_a_jpeg_without_resolution_gets_none(tmp_path: Path) -> None:
    assert read_image(saved(tmp_path / "a.jpg", exif=exif_block("<"))).metadata.dpi is None
    assert read_image(saved(tmp_path / "a.jpg", dpi=(72, 72))).metadata.dpi == (72, 72)


def test_iptc_and_comment_travel_between_jpegs(tmp_path: Path) -> None:
    metadata = Metadata(iptc=IPTC, comment=b"in the rain")
    assert write_image(tmp_path / "a.jpg", Photo(PIXELS, metadata=metadata)) == ()
    content = (tmp_path / "a.jpg").read_bytes()
    resource = b"8BIM\x04\x04\0\0\0\0\0\x09" + IPTC + b"\0"  # padded to an even length
    assert b"\xff\xed\0\x26Photoshop 3.0\0" + resource in content
    again = read_image(tmp_path / "a.jpg").metadata
    assert (again.iptc, again.comment) == (IPTC, b"in the rain")
    write_image(tmp_path / "a.tif", Photo(PIXELS, metadata=metadata.without("comment")))
    assert read_image(tmp_path / "a.tif").metadata.iptc == IPTC


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_png_text_and_colour_chunks_travel(tmp_path: Path, depth: type) -> None:
    info = PngInfo()
    info.add_text("Title", "Rain")
    info.add_itxt("Description", "雨の日", lang="ja")
    info.add(b"gAMA", struct.pack(">I", 100000))
    photo = read_image(saved(tmp_path / "in.png", pnginfo=info))
    out = Photo(photo.pixels.astype(depth), metadata=photo.metadata)
    assert write_image(tmp_path / "out.png", out) == ()
    again = read_image(tmp_path / "out.png").metadata
    assert again.text == (("Title", "Rain"), ("Description", "雨の日"))
    assert again.png_colour == ((b"gAMA", struct.pack(">I", 100000)),)


@pytest.mark.parametrize(
    ("suffix", "metadata", "note"),
    [
        (
            ".bmp",
            Metadata(exif=exif_block("<"), icc_profile=SRGB),
            "BMP cannot hold the EXIF data and colour profile (.png keeps it)",
        ),
        (".gif", Metadata(xmp=XMP), "GIF cannot hold the XMP data (.png keeps it)"),
        (".jpg", Metadata(text=(("A", "b"),)), "JPEG cannot hold the text (.png keeps it)"),
        (".png", Metadata(iptc=IPTC), "PNG cannot hold the IPTC data (.tif keeps it)"),
        (".png", Metadata(comment=b"rain"), "PNG cannot hold the comment (.jpg keeps it)"),
        (".jpg", Metadata(xmp=XMP + LONG), "JPEG cannot hold the XMP data (.png keeps it)"),
        (
            ".jpg",
            Metadata(exif=exif_block("<") + LONG),
            "JPEG cannot hold the EXIF data (.png keeps it)",
        ),
        (
            ".png",
            Metadata(icc_profile=GRAY),
            "the colour profile is not for RGB pixels and is left out",
        ),
        (".bmp", Metadata(dpi=(72, 72)), None),
    ],
)
def test_what_a_format_cannot_carry_is_told(
    tmp_path: Path, suffix: str, metadata: Metadata, note: str | None
) -> None:
    pixels = np.repeat(PIXELS[:, :1], 8, axis=1)  # few colours, for GIF
    notes = write_image(tmp_path / f"a{suffix}", Photo(pixels, metadata=metadata))
    assert notes == ((note,) if note else ())
    again = read_image(tmp_path / f"a{suffix}").metadata
    assert not any((again.exif, again.icc_profile, again.xmp, again.iptc, again.text))


def test_a_grey_profile_stays_with_grey_pixels(tmp_path: Path) -> None:
    grey = np.repeat(PIXELS[..., :1], 3, axis=-1)
    photo = Photo(grey, grey=True, metadata=Metadata(icc_profile=GRAY))
    for suffix in (".png", ".jpg", ".tif"):
        assert write_image(tmp_path / f"a{suffix}", photo) == ()
        assert read_image(tmp_path / f"a{suffix}").metadata.icc_profile == GRAY
    assert write_image(tmp_path / "a.webp", photo) == (
        "the colour profile is not for RGB pixels and is left out",
    )


@pytest.mark.parametrize(("mode", "profile"), [("L", SRGB), ("RGB", GRAY)])
def test_a_profile_that_misfits_is_left_out_when_read(
    tmp_path: Path, mode: str, profile: bytes
) -> None:
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "a.png", icc_profile=profile)
    photo = read_image(tmp_path / "a.png")
    assert photo.metadata.icc_profile is None
    assert len(photo.notes) == 1
    assert "colour profile" in photo.notes[0]


def test_two_readers_agree_on_the_files_written(tmp_path: Path) -> None:
    """Pillow, asked the ordinary way, finds the same EXIF in every format."""
    exif = uprighted(Metadata(exif=exif_block("<")), height=6, width=8).exif
    for suffix in WRITTEN_SUFFIXES - {".bmp", ".gif"}:
        write_image(tmp_path / f"a{suffix}", Photo(PIXELS, metadata=Metadata(exif=exif)))
        with Image.open(io.BytesIO((tmp_path / f"a{suffix}").read_bytes())) as image:
            assert image.getexif()[ExifTags.Base.Make] == "Fai"
            assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            assert image.getexif().get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
