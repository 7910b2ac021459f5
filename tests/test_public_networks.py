"""The comparison with small public networks, on checkouts that hold networks which do nothing."""

from pathlib import Path

import pytest
import torch
from command import Run
from tiny_sets import write_set

from fairweather.errors import OptionError

NETWORK = """
import cv2
import torch

class {name}(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return {result}
"""
EDGES = "def edge_compute(x): return x[:1]\n"


@pytest.fixture
def checkouts(tmp_path: Path) -> tuple[Path, Path]:
    """PReNet gives its input back, GCANet a residual of nothing."""
    prenet, gcanet = tmp_path / "PReNet", tmp_path / "GCANet"
    for folder in (prenet / "logs/Rain100L/PReNet6", prenet / "logs/Rain100H/PReNet6"):
        folder.mkdir(parents=True)
        torch.save({"scale": torch.ones(1)}, folder / "net_latest.pth")
    (prenet / "networks.py").write_text(NETWORK.format(name="PReNet", result="(x, [x])"))
    (gcanet / "models").mkdir(parents=True)
    torch.save({"scale": torch.ones(1)}, gcanet / "models/wacv_gcanet_dehaze.pth")
    (gcanet / "GCANet.py").write_text(NETWORK.format(name="GCANet", result="0 * x[:, :3]"))
    (gcanet / "utils.py").write_text(EDGES)
    return prenet, gcanet


def test_each_network_has_a_row_and_the_best_is_named(
    checkouts: tuple[Path, Path], tmp_path: Path, run_script: Run
) -> None:
    for name in ("rain/Rain100L", "rain/Rain100H", "haze/REVIDE"):
        write_set(tmp_path / "DATA/dev/pairs" / name, count=2)
    sots = tmp_path / "DATA/dev/pairs/haze/SOTS-indoor"
    write_set(sots, count=1, sides=("hazy", "clear"))
    (sots / "hazy/1.png").rename(sots / "hazy/1_1.png")
    prenet, gcanet = checkouts
    page = tmp_path / "page.md"
    words = [tmp_path / "DATA", "--prenet", prenet, "--gcanet", gcanet, "-o", page]
    done = run_script("benchmarks/public_networks.py", *words)
    assert done.status == 0, done
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.read_text("utf-8").splitlines()
    ]
    (first,) = (number for number, row in enumerate(rows) if row[0] == "Rain100L")
    untouched, *networks = rows[first : first + 4]
    assert [row[2] for row in networks] == ["PReNet", "PReNet", "`rain`"]
    assert networks[0][5:7] == networks[1][5:7] == untouched[5:7]  # PSNR and SSIM
    assert sum(row[0].startswith("- ") for row in rows) == 4


def test_what_is_no_checkout_is_named(tmp_path: Path, run_script: Run) -> None:
    words = [tmp_path, "--prenet", tmp_path, "--gcanet", tmp_path, "-o", tmp_path / "page.md"]
    with pytest.raises(OptionError, match="give a checkout of PReNet"):
        run_script("benchmarks/public_networks.py", *words)
    assert not (tmp_path / "page.md").exists()
