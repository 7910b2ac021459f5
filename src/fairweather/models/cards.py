"""What the card beside a weights file records of a lower precision: PSNR in it and in fp32."""

import re
from dataclasses import dataclass
from pathlib import Path

from fairweather.files import write_text
from fairweather.models.checkpoint import find_weights
from fairweather.models.sources import sha256_of

HEADING = "## Precision"
SHOWN_DIGITS = 12  # of the SHA-256, so that a record of other weights does not count
ABOUT = (
    "What computing in a lower precision costs, as `fairweather models precision` measured it on a"
    " CPU. `--precision auto` takes bf16, where a CPU has it, if no row loses more than 0.01 dB."
)
HEAD = ("images", "in", "PSNR in it", "in fp32", "loss", "weights")
ROW = re.compile(
    r"\| (?P<images>[^|]+) \| (?P<precision>\w+) \| (?P<lower>[-.\d]+) dB \| (?P<fp32>[-.\d]+) dB"
    r" \| [-.\d]+ dB \| `(?P<sha256>[0-9a-f]+)` \|"
)


@dataclass(frozen=True)
class PrecisionRecord:
    """What a precision was measured to cost on a set of images.

    Attributes:
        images: the name of the set.
        precision: `bf16` or `fp16`.
        lower_db: mean PSNR of what was restored in it [dB].
        fp32_db: mean PSNR of what was restored in fp32 [dB].
    """

    images: str
    precision: str
    lower_db: float
    fp32_db: float

    @property
    def loss_db(self) -> float:
        """By how much the PSNR falls [dB]; below 0 where it rises."""
        return self.fp32_db - self.lower_db

    def row(self, sha256: str) -> str:
        """Return the row of a card's table."""
        cells = (
            self.images,
            self.precision,
            f"{self.lower_db:.4f} dB",
            f"{self.fp32_db:.4f} dB",
            f"{self.loss_db:.4f} dB",
            f"`{sha256}`",
        )
        return f"| {' | '.join(cells)} |"


def read_precision_records(weights: str | Path) -> list[PrecisionRecord]:
    """Return what the card NAME.md beside a weights file records of it; nothing without a card."""
    file = find_weights(weights)
    card = file.with_suffix(".md")
    if not card.is_file():
        return []
    sha256 = shown_sha256(file)
    return [
        PrecisionRecord(
            found["images"], found["precision"], float(found["lower"]), float(found["fp32"])
        )
        for found in ROW.finditer(_section(card.read_text("utf-8")))
        if found["sha256"] == sha256
    ]


def write_precision_records(weights: str | Path, records: list[PrecisionRecord]) -> Path:
    """Add records to the card NAME.md, in place of older ones of the same images and precision.

    Records of other weights are dropped. A card that is not there yet is made.

    Returns:
        The card.

    Raises:
        DataError: if it cannot be written; the old one is then still there.
    """
    file = find_weights(weights)
    card, sha256 = file.with_suffix(".md"), shown_sha256(file)
    known = {(one.images, one.precision): one for one in read_precision_records(file)}
    known |= {(one.images, one.precision): one for one in records}
    text = card.read_text("utf-8") if card.is_file() else f"# {card.stem}\n"
    lines = [
        *(f"| {' | '.join(cells)} |" for cells in (HEAD, ("---",) * len(HEAD))),
        *(known[key].row(sha256) for key in sorted(known)),
    ]
    section = "\n".join((HEADING, "", ABOUT, "", *lines)) + "\n"
    old = _section(text)
    text = text.replace(old, section + "\n", 1) if old else f"{text.rstrip()}\n\n{section}"
    write_text(card, text.rstrip() + "\n")
    return card


def shown_sha256(file: Path) -> str:
    """Return the digits of a weights file's SHA-256 that a card shows."""
    return sha256_of(file)[:SHOWN_DIGITS]


def _section(text: str) -> str:
    """Return the section of a card that records precisions, up to the next heading."""
    found = re.search(rf"^{HEADING}$.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found.group() if found else ""
