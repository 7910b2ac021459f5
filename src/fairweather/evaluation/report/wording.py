"""Figures in words: what they are called and how many decimals they have, in HTML and Markdown."""

import html
import math

from fairweather.evaluation.report.rows import Row
from fairweather.evaluation.results import columns_of
from fairweather.evaluation.weights import INPUT

# Label, unit and decimals of each figure.
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


def label(name: str) -> str:
    """As a heading: "PSNR [dB]"."""
    title, unit, _ = _known(name)
    return f"{title} [{unit}]" if unit else title


def figure_text(
    name: str, value: float | None, *, unit: bool = False, of: int | None = None
) -> str:
    """A figure with its decimals; ∞ for None, which stands for it in JSON; – if it is not known.

    Args:
        name: of the figure.
        value: the figure.
        unit: whether its unit is said.
        of: of how many images it is the mean, where that is not all.
    """
    if of is not None:
        return f"{figure_text(name, value, unit=unit)} (of {of})"
    if value is None or math.isinf(value):
        return "∞"
    if math.isnan(value):
        return "–"
    _, words, decimals = _known(name)
    sign = "+" if name == "gain_db" and round(value, decimals) > 0 else ""
    number = f"{value:.{decimals}f}"
    number = number.lstrip("-") if float(number) == 0 else number
    return f"{sign}{number} {words}".strip() if unit else f"{sign}{number}"


def _known(name: str) -> tuple[str, str, int]:
    for suffix, region in REGIONS.items():
        if name.endswith(suffix):
            title, unit, decimals = _known(name.removesuffix(suffix))
            return f"{title} {region}", unit, decimals
    return KNOWN.get(name, (name.replace("_", " "), "", 4))


def coloured_gain(value: float) -> str:
    """A gain as HTML, green or red."""
    text = figure_text("gain_db", value)
    if not math.isfinite(value) or float(text) == 0:
        return text
    return f'<span class="{"better" if value > 0 else "worse"}">{text}</span>'


def figures_line(row: Row) -> str:
    """As HTML: input 25.10 dB / 0.8312; rain 31.22 dB / 0.9120 (+6.12 dB)."""
    parts = []
    for column, figures in columns_of(row):
        name = html.escape(column)
        if "psnr_db" in figures:
            psnr = figure_text("psnr_db", figures["psnr_db"], unit=True)
            text = f"{name} {psnr} / {figure_text('ssim', figures['ssim'])}"
            gain = row.gain_db(column) if column != INPUT else math.nan
            text += f" ({coloured_gain(gain)}&nbsp;dB)" if math.isfinite(gain) else ""
        else:
            shown = (
                f"{_known(key)[0]} {figure_text(key, value, unit=True)}"
                for key, value in figures.items()
            )
            text = f"{name}: {', '.join(shown)}"
        parts.append(text)
    return "; ".join(parts)
