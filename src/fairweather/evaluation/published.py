"""Published figures to put beside ours, and why the two may not be compared."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fairweather.evaluation.protocols import MetricProtocol


@dataclass(frozen=True)
class PublishedFigure:
    """A figure of the literature.

    Attributes:
        model: whose it is.
        protocol: the name of the protocol that it was scored under.
        inference: how the model was run, as `INFERENCES`; empty if that is not known.
        images: how many the test set has.
        training: what the model was trained on.
        source: where it was published, and whether it was read there.
    """

    model: str
    psnr_db: float
    ssim: float | None
    protocol: str
    inference: str
    images: int
    training: str
    source: str

    @property
    def figures(self) -> dict[str, float]:
        """Those that are known, by name."""
        ssim = {} if self.ssim is None else {"ssim": self.ssim}
        return {"psnr_db": self.psnr_db, **ssim}


# The paper's tables were not at hand: its figures are as others quote them.
AST_PAPER = "Zhou et al., CVPR 2024; quoted second-hand"
FSNET = "Cui et al., TPAMI 2023, table in the authors' repository"

# By the name of the test set in lower case, without what is neither letter nor digit.
PUBLISHED: dict[str, PublishedFigure] = {
    "spad": PublishedFigure("AST-B", 49.51, 0.9942, "spad", "square_pad_128", 1000,
                            "SPA-Data", AST_PAPER),
    "agan": PublishedFigure("AST-B", 32.32, 0.935, "agan", "tiles_384_80", 58,
                            "AGAN raindrops", AST_PAPER),
    "densehaze": PublishedFigure("AST-B", 17.12, 0.55, "dense_haze", "tiles_1152_384", 5,
                                 "Dense-Haze", AST_PAPER),
    "rain100l": PublishedFigure("Restormer", 39.10, 0.9787, "rain13k", "", 100, "Rain13K",
                                "MMagic's model zoo, which scored the released weights of"
                                " Zamir et al., CVPR 2022"),
    "rain100h": PublishedFigure("Restormer", 31.48, None, "rain13k", "", 100, "Rain13K",
                                "Zamir et al., CVPR 2022, the authors' repository"),
    "sotsindoor": PublishedFigure("FSNet", 42.45, 0.997, "reside", "", 500, "RESIDE ITS", FSNET),
    "sotsoutdoor": PublishedFigure("FSNet", 40.40, 0.997, "reside", "", 500, "RESIDE OTS", FSNET),
}  # fmt: skip


def published_key(names: Iterable[str]) -> str:
    """Return the key of the first name that the table has; empty if it has none."""
    keys = ("".join(letter for letter in name.lower() if letter.isalnum()) for name in names)
    return next((key for key in keys if key in PUBLISHED), "")


def why_not_comparable(
    figure: PublishedFigure,
    *,
    protocol: MetricProtocol,
    inference: str | None,
    ensemble: bool = False,
    images: int,
    training: Sequence[str],
) -> list[str]:
    """List every difference between how a published figure was made and how ours was.

    Args:
        figure: the published one.
        protocol: what ours was scored under.
        inference: how our model was run; None for results from elsewhere.
        ensemble: whether ours is the mean over flips and quarter turns.
        images: how many images ours is the mean of.
        training: what each of our weights was trained on.
    """
    reasons = []
    if images != figure.images:
        reasons.append(f"ours is the mean of {images} images, theirs of {figure.images}")
    if protocol.name != figure.protocol:
        reasons.append(f"ours is scored under '{protocol.name}', theirs under '{figure.protocol}'")
    if inference is None:
        reasons.append("how the images were restored is not known")
        if not protocol.rounded:
            reasons.append("ours is of files of 8 bits, theirs of what the model gave")
    elif figure.inference and inference != figure.inference:
        reasons.append(f"ours was run as '{inference}', theirs as '{figure.inference}'")
    if ensemble:
        reasons.append("ours is averaged over several views of each image, theirs is not")
    for data in training:
        ours = data or "data that the file does not name"
        reasons.append(f"theirs was trained on {figure.training}, ours on {ours}")
    return list(dict.fromkeys(reasons))
