"""XMP packets that tell of a restored file what holds of it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from fairweather.imaging import read_image, write_image
from fairweather.imaging.xmp import made_true

PIXELS = np.ascontiguousarray(data.astronaut()[:40, :56])
GAIN_MAP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description rdf:about=""
 xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0" hdrgm:GainMapMax='2.5'
 dc:title="Rain"><hdrgm:OffsetSDR><rdf:Seq><rdf:li>0.1</rdf:li></rdf:Seq></hdrgm:OffsetSDR>
<Container:Directory><rdf:Seq><rdf:li><Container:Item Item:Semantic="GainMap"/></rdf:li></rdf:Seq>
</Container:Directory><dc:creator>me</dc:creator></rdf:Description></x:xmpmeta>"""
MOTION = '<x GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1" dc:title="Rain"/>'
EXTENDED = '<x xmpNote:HasExtendedXMP="0123456789ABCDEF" dc:title="Rain"/>'
SIZES = (
    '<x tiff:ImageWidth="4000" exif:PixelYDimension="3000"><tiff:ImageLength>3000'
    "</tiff:ImageLength><xmp:Thumbnails><rdf:Alt>rain</rdf:Alt></xmp:Thumbnails></x>"
)


@pytest.mark.parametrize(
    ("packet", "note", "gone"),
    [
        (GAIN_MAP, "gain map is not restored", [b"hdrgm:Version", b"OffsetSDR", b"Container"]),
        (MOTION, "video of the motion photo", [b"MotionPhoto"]),
        (EXTENDED, "extended XMP data are left out", [b"HasExtendedXMP"]),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_nothing_is_announced_that_is_not_there(
    tmp_path: Path, packet: str, note: str, gone: list[bytes], suffix: str
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", xmp=packet.encode())
    photo = read_image(tmp_path / "a.jpg")
    assert len(photo.notes) == 1
    assert note in photo.notes[0]
    write_image(tmp_path / f"b{suffix}", photo)
    again = read_image(tmp_path / f"b{suffix}")
    assert again.notes == ()
    packet_again = again.metadata.xmp or b""
    assert b'dc:title="Rain"' in packet_again
    assert [name for name in gone if name in packet_again] == []
    if packet is GAIN_MAP:
        assert b"<dc:creator>me</dc:creator></rdf:Description></x:xmpmeta>" in packet_again


def test_sizes_and_thumbnails_are_those_of_the_file() -> None:
    assert made_true(SIZES.encode(), height=20, width=30) == (
        b'<x tiff:ImageWidth="30" exif:PixelYDimension="20"><tiff:ImageLength>20'
        b"</tiff:ImageLength></x>"
    )


def test_broken_packets_stay_as_they_are() -> None:
    broken = b"".join(b"<hdrgm:a%d x " % number for number in range(50_000))
    broken += b"<hdrgm:b>" * 50_000 + b"</hdrgm:c>" * 50_000
    assert made_true(broken, height=1, width=1) == broken
