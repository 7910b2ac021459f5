"""Measure small public networks beside the bundled weights on the same pairs, and write the page.

python benchmarks/public_networks.py DATA --prenet PReNet --gcanet GCANet

`PReNet` and `GCANet` are checkouts of https://github.com/csdwren/PReNet and of
https://github.com/cddlyf/GCANet, which hold the authors' weights. DATA holds the test sets as in
the cards of the weights. All networks restore whole images, on one thread, in fp32, in turns.
Takes about ten minutes.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor

from fairweather import Restorer, load_model
from fairweather.data import Pair, find_layout_pairs, read_bytes
from fairweather.errors import OptionError
from fairweather.evaluation import PROTOCOLS, measure
from laboratory.official import import_file
from laboratory.pages import RESULTS, line_of, machine_line

SETS = {
    "Rain100L": ("dev/pairs/rain/Rain100L", "folders"),
    "Rain100H": ("dev/pairs/rain/Rain100H", "folders"),
    "SOTS-indoor": ("dev/pairs/haze/SOTS-indoor", "sots"),
    "REVIDE": ("dev/pairs/haze/REVIDE", "folders"),
}
RAIN, HAZE = ("Rain100L", "Rain100H"), ("SOTS-indoor", "REVIDE")
UNUSED = ("cv2", "torchvision")  # imported by the networks' files, and not used there
PAGE = """# Small public networks

Written by `python benchmarks/public_networks.py`; do not edit it.

What somebody without a GPU could use instead, on the same pairs, in one run: PSNR [dB] and SSIM of
RGB in 8 bits (protocol `plain`), means over the set, and processor seconds for an image on one
thread in fp32 (medians). The networks are PReNet (Ren et al., CVPR 2019,
https://github.com/csdwren/PReNet) and GCANet (Chen et al., WACV 2019,
https://github.com/cddlyf/GCANet), each from a checkout with its authors' weights and forward pass.

{machine}

| test set | images | network | trained on | parameters | PSNR | SSIM | seconds |
|---|---:|---|---|---:|---:|---:|---:|
{rows}

{verdict}

The training halves of Rain100L and Rain100H are made as their test halves are, and the rooms of
RESIDE's training set are shown as those of SOTS-indoor are. Weights that have seen them are at home
there; ours have seen none of Rain100, and 40 rooms of RESIDE.
"""


@dataclass(frozen=True)
class Contestant:
    """A network and what it was trained on; `restore` takes and gives (H, W, 3) uint8."""

    name: str
    trained_on: str
    parameters: int
    sets: Sequence[str]
    restore: Callable[[np.ndarray], np.ndarray]


def file_of(checkout: Path, name: str, *, repository: str) -> Path:
    """Return a file of a checkout.

    Raises:
        OptionError: if it is not there.
    """
    if not (checkout / name).is_file():
        raise OptionError(f"{checkout / name}: no such file; give a checkout of {repository}")
    return checkout / name


def load_weights(network: Any, file: Path) -> Any:
    """Put the authors' weights into a network; return it in evaluation mode."""
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.eval()


def count(network: Any) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def to_tensor(image: np.ndarray) -> Tensor:
    """Return (1, 3, H, W) float32 in 0..255."""
    return torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))


def to_image(tensor: Tensor) -> np.ndarray:
    """Return (H, W, 3) uint8 of (1, 3, H, W) in 0..255."""
    return tensor[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def prenets(checkout: Path) -> list[Contestant]:
    """Return PReNet with the weights of both of its training sets."""
    module = import_file(file_of(checkout, "networks.py", repository="PReNet"), unused=UNUSED)

    def restoring(network: Any) -> Callable[[np.ndarray], np.ndarray]:
        return lambda image: to_image(network(to_tensor(image) / 255)[0] * 255)

    found = []
    for trained_on, half in (("Rain100L", "RainTrainL"), ("Rain100H", "RainTrainH")):
        network = module.PReNet(recurrent_iter=6, use_GPU=False)
        file = checkout / "logs" / trained_on / "PReNet6" / "net_latest.pth"
        network = load_weights(network, file)
        found.append(Contestant("PReNet", half, count(network), RAIN, restoring(network)))
    return found


def gcanet(checkout: Path) -> Contestant:
    """Return GCANet for haze."""
    module = import_file(file_of(checkout, "GCANet.py", repository="GCANet"))
    file = checkout / "models" / "wacv_gcanet_dehaze.pth"
    network = load_weights(module.GCANet(in_c=4, out_c=3), file)
    edge_compute = import_file(checkout / "utils.py").edge_compute

    def restore(image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        tensor = torch.nn.functional.pad(  # the authors resize to multiples of 4
            to_tensor(image), (0, -width % 4, 0, -height % 4), mode="replicate"
        )
        edges = edge_compute(tensor[0])[None]
        restored = network(torch.cat((tensor, edges), 1) - 128) + tensor
        return to_image(restored[..., :height, :width])

    return Contestant("GCANet", "RESIDE ITS", count(network), HAZE, restore)


def ours() -> list[Contestant]:
    """Return the bundled weights for rain and haze."""
    found = []
    for task, sets in (("rain", RAIN), ("haze", HAZE)):
        restorer = Restorer(task, device="cpu", tile=None)
        parameters = count(load_model(task))
        found.append(Contestant(f"`{task}`", "see its card", parameters, sets, restorer))
    return found


class Row(NamedTuple):
    """What a network reached on a set: means of the scores, and the median of the seconds."""

    network: str
    trained_on: str
    parameters: int | None
    psnr_db: float
    ssim: float
    seconds: float | None


def run(contestants: Sequence[Contestant], pairs: Sequence[Pair]) -> list[Row]:
    """Restore a set with all contestants in turns; the first row is that of the input."""
    scores: list[list[tuple[float, float, float]]] = [[] for _ in contestants]
    untouched = []
    for pair in pairs:
        degraded, clean = read_bytes(pair.degraded), read_bytes(pair.clean)
        untouched.append(score(degraded, clean))
        for one, reached in zip(contestants, scores, strict=True):
            start = time.process_time()
            restored = one.restore(degraded)
            seconds = time.process_time() - start
            reached.append((*score(restored, clean), seconds))
    psnr_db, ssim = zip(*untouched, strict=True)
    rows = [Row("input", "", None, statistics.mean(psnr_db), statistics.mean(ssim), None)]
    for one, reached in zip(contestants, scores, strict=True):
        psnr_db, ssim, seconds = zip(*reached, strict=True)
        means = statistics.mean(psnr_db), statistics.mean(ssim)
        rows.append(
            Row(one.name, one.trained_on, one.parameters, *means, statistics.median(seconds))
        )
    return rows


def score(restored: np.ndarray, clean: np.ndarray) -> tuple[float, float]:
    """Return PSNR [dB] and SSIM."""
    measured = measure(restored, clean, protocol=PROTOCOLS["plain"])
    return measured.psnr_db, measured.ssim


def lines_of(name: str, images: int, rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of a set in the table."""
    for row in rows:
        first = row.network == "input"
        yield line_of(
            name if first else "",
            str(images) if first else "",
            row.network,
            row.trained_on,
            "" if row.parameters is None else f"{row.parameters / 1e6:.2f} M",
            f"{row.psnr_db:.2f}",
            f"{row.ssim:.4f}",
            "" if row.seconds is None else f"{row.seconds:.2f}",
        )


def verdict(name: str, rows: Sequence[Row]) -> str:
    """Say which network is ahead on a set."""
    best = max(rows[1:], key=lambda row: row.psnr_db)
    (ours,) = (row for row in rows if row.network.startswith("`"))
    if best is ours:
        return f"- {name}: {ours.network} is ahead."
    ahead_db = best.psnr_db - ours.psnr_db
    trained_on = f"{best.network}, trained on {best.trained_on}"
    return f"- {name}: {trained_on}, is {ahead_db:.2f} dB ahead of {ours.network}."


def main(
    data: Annotated[Path, typer.Argument(help="Folder that holds dev/pairs/.")],
    prenet: Annotated[Path, typer.Option(help="A checkout of csdwren/PReNet.")],
    gcanet_checkout: Annotated[Path, typer.Option("--gcanet", help="A checkout of cddlyf/GCANet.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The page.")] = RESULTS
    / "public-networks.md",
) -> None:
    """Measure all networks and write the page."""
    torch.set_num_threads(1)
    contestants = [*prenets(prenet), gcanet(gcanet_checkout), *ours()]
    lines: list[str] = []
    verdicts = []
    with torch.inference_mode():
        for name, (folder, layout) in SETS.items():
            pairs = find_layout_pairs(data / folder, layout, split="all")
            rows = run([one for one in contestants if name in one.sets], pairs)
            lines += lines_of(name, len(pairs), rows)
            verdicts.append(verdict(name, rows))
            print("\n".join([*lines, *verdicts]), flush=True)
    told = {"rows": "\n".join(lines), "verdict": "\n".join(verdicts)}
    out.write_text(PAGE.format(machine=machine_line(), **told), encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
