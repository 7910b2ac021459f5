"""Colour spaces told by code points or chromaticities → ICC profiles, which all formats know.

PNG tells them in chunks (cICP, cHRM, gAMA), AVIF and HEIF in a box (nclx), TIFF in tags, and
cameras Adobe RGB in EXIF. Profiles are made of a matrix and a curve, as in ICC.1:2022, 8.3.
"""

import struct
from collections.abc import Sequence

import numpy as np

Chunks = Sequence[tuple[bytes, bytes]]

SRGB = b""  # what stands for the space that every reader takes where none is told

_D65, _D50_XYZ = (0.3127, 0.3290), np.array([0.9642, 1.0, 0.8249])
# Chromaticities of white, red, green and blue by code point (ITU-T H.273, table 2).
_PRIMARIES = {
    1: (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
    22: (*_D65, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077),
}
_ADOBE_RGB = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), (563 / 256, 1, 0, 0, 0)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO_CURVE = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
# g, a, b, c, d by code point (table 3): linear light is (a x + b)^g from d on, and c x below.
_CURVES = {
    **dict.fromkeys((1, 6, 14, 15), _VIDEO_CURVE),
    4: (2.2, 1, 0, 0, 0),
    5: (2.8, 1, 0, 0, 0),
    8: (1.0, 1, 0, 0, 0),
    13: _SRGB_CURVE,
}
_UNSPECIFIED = 2
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def profile_of(chunks: Chunks, *, grey: bool) -> bytes | None:
    """Return the ICC profile of the colour space that PNG chunks tell.

    Args:
        chunks: Name and data of cICP, sRGB, cHRM and gAMA chunks, in any order.
        grey: Whether the pixels are grey, so that only the curve counts.

    Returns:
        The profile, `SRGB`, or None for what no such profile can tell (HDR) or is damaged.
    """
    told = dict(chunks)
    try:
        if b"cICP" in told:
            primaries, curve = told[b"cICP"][:2]
            if _UNSPECIFIED in (primaries, curve) or (primaries == 1 and curve in (1, 6, 13)):
                return SRGB
            return make_profile(_PRIMARIES[primaries], _CURVES[curve], grey=grey)
        if b"sRGB" in told:
            return SRGB
        points, curve = _PRIMARIES[1], _SRGB_CURVE
        if b"cHRM" in told:
            points = tuple(value / 100_000 for value in struct.unpack(">8I", told[b"cHRM"]))
        if b"gAMA" in told:
            gamma = 100_000 / struct.unpack(">I", told[b"gAMA"])[0]
            curve = _SRGB_CURVE if abs(gamma - 2.2) < 0.1 else (gamma, 1, 0, 0, 0)
        if curve == _SRGB_CURVE and (grey or np.allclose(points, _PRIMARIES[1], atol=0.002)):
            return SRGB
        return make_profile(points, curve, grey=grey)
    except (KeyError, ValueError, ZeroDivisionError, struct.error, np.linalg.LinAlgError):
        return None


def adobe_rgb() -> bytes:
    """Return a profile of Adobe RGB (1998), which cameras tell of in EXIF alone."""
    return make_profile(*_ADOBE_RGB, grey=False)


def make_profile(points: Sequence[float], curve: Sequence[float], *, grey: bool) -> bytes:
    """Build an ICC profile from chromaticities (white, red, green, blue) and a parametric curve."""
    white, *primaries = (_xyz(*points[i : i + 2]) for i in range(0, 8, 2))
    adapted = np.diag((_BRADFORD @ _D50_XYZ) / (_BRADFORD @ white))
    adaptation = np.linalg.inv(_BRADFORD) @ adapted @ _BRADFORD
    columns = np.column_stack(primaries)
    matrix = adaptation @ (columns * np.linalg.solve(columns, white))
    trc = b"para" + struct.pack(">IHH", 0, 3, 0) + _fixed(curve)
    tags = {
        b"desc": _text("Colour space of the source"),
        b"cprt": _text("CC0"),
        b"wtpt": b"XYZ \0\0\0\0" + _fixed(_D50_XYZ),
        b"chad": b"sf32\0\0\0\0" + _fixed(adaptation.ravel()),
    }
    if grey:
        tags[b"kTRC"] = trc
    else:
        for name, column in zip((b"r", b"g", b"b"), matrix.T, strict=True):
            tags |= {name + b"XYZ": b"XYZ \0\0\0\0" + _fixed(column), name + b"TRC": trc}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4s24xI12s48x",
        start + len(body), b"", 0x04300000, b"mntr", b"GRAY" if grey else b"RGB ", b"XYZ ",
        struct.pack(">6H", 2026, 1, 1, 0, 0, 0), b"acsp", 0, _fixed(_D50_XYZ),
    )  # fmt: skip
    return header + struct.pack(">I", len(tags)) + table + body


def _xyz(x: float, y: float) -> np.ndarray:
    return np.array([x / y, 1, (1 - x - y) / y])


def _fixed(values: Sequence[float] | np.ndarray) -> bytes:
    values = np.asarray(values, float)
    if not (np.abs(values) < 32768).all():
        raise ValueError("no profile holds such numbers")
    return np.rint(values * 65536).astype(">i4").tobytes()


def _text(words: str) -> bytes:
    text = words.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(text), 28) + text
