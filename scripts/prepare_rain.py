"""Lay out the data of `rain_layers_n`, without photographs that are shown twice.

Photographs stay where they are; the folder that is made holds links to them. Needs the sets under
TRAIN (`clean/SET`, `pairs/rain/Rain13K-sample/{input,target}`) and MORE (`clean/SET`,
`rain/{Rain800,GT-RAIN}/{input,target}`, `layers/rain/Garg06`).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

THUMBNAIL_PX = 24
ONE_SCENE, ONE_PHOTOGRAPH = 0.985, 0.975  # correlation of thumbnails from which they are one
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
PAIRS = ("Rain13K-sample", "Rain800", "GT-RAIN")

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


def thumbnail(path: Path) -> np.ndarray:
    """Return a photograph as few grey values of mean 0 and deviation 1."""
    with Image.open(path) as image:
        if image.format == "JPEG":
            image.draft("L", (4 * THUMBNAIL_PX, 4 * THUMBNAIL_PX))
        small = image.convert("L").resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    values = np.asarray(small, np.float32)
    values = values - values.mean()
    return (values / (values.std() + 1e-3)).ravel()


def size_of(path: Path) -> tuple[int, int]:
    """Return the (width, height) of a photograph."""
    with Image.open(path) as image:
        return image.size


def photographs(folder: Path) -> list[Path]:
    """Return the photographs in a folder and all below."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def find_pairs(places: list[Path]) -> Iterator[tuple[str, Path, Path]]:
    """Yield the set, the input and the target of each pair."""
    for name in PAIRS:
        folder = next((place / name for place in places if (place / name).is_dir()), None)
        if folder is None:
            raise SystemExit(f"{name}: is in none of {', '.join(map(str, places))}")
        for path in photographs(folder / "input"):
            targets = list((folder / "target").glob(f"{path.stem}.*"))
            if len(targets) == 1:
                yield name, path, targets[0]


def link(path: Path, target: Path) -> None:
    """Make a link, in place of one that is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target.absolute())


@app.command()
def main(
    train: Annotated[Path, typer.Argument(help="Folder with clean/ and pairs/.")],
    more: Annotated[Path, typer.Argument(help="Folder with clean/, rain/ and layers/.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
) -> None:
    """Lay out the data of the recipe `rain_layers_n`."""
    pairs = list(find_pairs([train / "pairs" / "rain", more / "rain"]))
    thumbnails = np.stack([thumbnail(target) for _, _, target in pairs])
    alike = thumbnails @ thumbnails.T / thumbnails.shape[1]
    sizes = [size_of(target) for _, _, target in pairs]
    # The first target of a scene stands for all, so that a scene is held out as a whole.
    first = list(range(len(pairs)))
    for index in range(len(pairs)):
        for earlier in range(index):
            if alike[index, earlier] > ONE_SCENE and sizes[index] == sizes[earlier]:
                first[index] = first[earlier]
                break
    for index, (name, path, _) in enumerate(pairs):
        target = pairs[first[index]][2]
        for side, shown in (("input", path), ("target", target)):
            link(out / "pairs" / "rain" / name / side / f"{path.stem}{shown.suffix}", shown)
    kept = left_out = 0
    folders = [train / "clean" / name for name in ("BSDS500", "Urban100", "Sun-Hays80")]
    for folder in [*folders, *sorted((more / "clean").iterdir())]:
        for path in photographs(folder):
            if (thumbnails @ thumbnail(path) / thumbnails.shape[1]).max() > ONE_PHOTOGRAPH:
                left_out += 1  # a pair shows it, perhaps a held-out one
                continue
            link(out / "clean" / folder.name / path.relative_to(folder), path)
            kept += 1
    link(out / "layers" / "rain" / "Garg06", more / "layers" / "rain" / "Garg06")
    typer.echo(f"{len(pairs)} pairs of {len(set(first))} scenes")
    typer.echo(f"{kept} clean photographs; {left_out} left out, which pairs show")


if __name__ == "__main__":
    app()
