"""XMP packets that say of the restored file only what holds.

They are patched as text, since a packet may hold anything that some program once wrote.
"""

import re

_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))([1-8])(?=["<])')
_SIZE = re.compile(rb'((?:tiff:Image(?:Width|Length)|exif:Pixel[XY]Dimension)(?:="|>))\d+(?=["<])')
# What XMP announces that is not in the restored file, and what the user is told about it.
_ANNOUNCED = {
    rb"(?:hdrgm|HDRGainMap):\w+": (
        "the HDR gain map is not restored: the result is the standard picture"
    ),
    rb"(?:GCamera|MicroVideo):(?:MotionPhoto|MicroVideo)\w*": (
        "the video of the motion photo is left out"
    ),
    rb"xmpNote:HasExtendedXMP": "the extended XMP data are left out",
    rb"(?:Container:Directory|xmp:Thumbnails)": None,
}


def orientation_of(packet: bytes | None) -> int | None:
    """Return the orientation that a packet tells, if any."""
    match = _ORIENTATION.search(packet or b"")
    return int(match[2]) if match else None


def made_true(packet: bytes | None, *, height: int, width: int) -> bytes | None:
    """Return an XMP packet that says of the restored file only what holds."""
    if not packet:
        return None
    packet = _ORIENTATION.sub(rb"\g<1>1", packet)

    def resize(match: re.Match[bytes]) -> bytes:
        is_width = b"Width" in match[1] or b"PixelX" in match[1]
        return match[1] + str(width if is_width else height).encode()

    packet = _SIZE.sub(resize, packet)
    for name in _ANNOUNCED:
        packet = re.sub(rb"\s" + name + rb"""\s*=\s*(?:"[^"]*"|'[^']*')""", b"", packet)
        packet = _without_elements(packet, name)
    return packet


def _without_elements(packet: bytes, name: bytes) -> bytes:
    """Return a packet without the elements of a name, in time that its length bounds."""
    last_end = {match[1]: match.end() for match in re.finditer(rb"</(" + name + rb")\s*>", packet)}
    kept, at = [], 0
    for match in re.finditer(rb"<(" + name + rb")(?:\s[^<>]*)?>", packet):
        if match.start() < at:
            continue
        end = match.end()
        if not match[0].endswith(b"/>"):
            if last_end.get(match[1], 0) <= end:
                continue
            end = packet.index(b">", packet.index(b"</" + match[1], end)) + 1
        kept.append(packet[at : match.start()])
        at = end
    return b"".join([*kept, packet[at:]])


def note_announcements(packet: bytes | None) -> tuple[str, ...]:
    """Return notes about what a packet announces and the restored file does not hold."""
    found = (note for name, note in _ANNOUNCED.items() if note and re.search(name, packet or b""))
    return tuple(found)
