"""Figures in words: what they are called and how many decimals they have."""

import math

# Title, unit and decimals of each figure.
KNOWN: dict[str, tuple[str, str, int]] = {
    "psnr_db": ("PSNR", "dB", 2),
    "ssim": ("SSIM", "", 4),
    "gain_db": ("gain", "dB", 2),
    "rgb_psnr_db": ("PSNR of RGB", "dB", 2),
    "rgb_ssim": ("SSIM of RGB", "", 4),
    "lab_mae": ("MAE in CIELAB", "", 2),
    "lab_rmse": ("RMSE in CIELAB", "", 2),
    "blur": ("blur", "", 3),
    "entropy_bits": ("entropy", "bits", 2),
    "change_levels": ("change", "of 255", 2),
    "cast_ab": ("colour cast", "a*b*", 2),
}
REGIONS = {"_shadow": "in the shadow", "_outside": "outside of it"}


def label(name: str, *, unit: bool = True) -> str:
    """Return a figure's heading, as in "PSNR [dB]"; without its unit if asked."""
    title, unit_text, _ = _known(name)
    return f"{title} [{unit_text}]" if unit and unit_text else title


def figure_text(
    name: str, value: float | None, *, unit: bool = False, of: int | None = None
) -> str:
    """Return a figure with its decimals.

    Args:
        name: of the figure.
        value: the figure; None, which stands for infinity in JSON, is shown as ∞, and NaN as –.
        unit: whether to add its unit.
        of: over how many images it is the mean, where that is not all.
    """
    if of is not None:
        return f"{figure_text(name, value, unit=unit)} (of {of})"
    if value is None or math.isinf(value):
        return "∞"
    if math.isnan(value):
        return "–"
    _, unit_text, decimals = _known(name)
    rounded = round(value, decimals) + 0.0  # not -0.00
    text = f"{rounded:{'+' if name == 'gain_db' and rounded else ''}.{decimals}f}"
    return f"{text} {unit_text}".strip() if unit else text


def _known(name: str) -> tuple[str, str, int]:
    for suffix, region in REGIONS.items():
        if name.endswith(suffix):
            title, unit, decimals = _known(name.removesuffix(suffix))
            return f"{title} {region}", unit, decimals
    return KNOWN.get(name, (name.replace("_", " "), "", 4))
