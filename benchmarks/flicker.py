"""How much restored clips flicker, frame by frame, shot by shot, and calmed; and what it costs."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import skimage.data
import typer
from skimage.registration import optical_flow_ilk
from skimage.transform import warp

from fairweather import Restorer
from fairweather.data import degrade_pixels
from fairweather.evaluation import PROTOCOLS, measure
from fairweather.imaging import Frame, resized
from fairweather.restoration import restore_frames
from laboratory.pages import RESULTS, machine_line

PAGE = RESULTS / "flicker.md"
HEIGHT, WIDTH = 240, 320
OBJECT_PX = 72
NOISE = 1.5  # standard deviation of a camera's, of 255
FALLING = ("rain", "snow")  # another frame, other streaks
STILL = 2  # by which a clean pixel may change and counts as still, of 255

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
Clip = list[np.ndarray]


def still_camera(frames: int) -> Clip:
    """A street corner: nothing moves but one thing that passes by."""
    ground = resized(np.ascontiguousarray(skimage.data.rocket()), (HEIGHT, WIDTH))
    thing = resized(
        np.ascontiguousarray(skimage.data.chelsea()[40:240, 120:320]), (OBJECT_PX, OBJECT_PX)
    )
    clip = []
    for step in range(frames):
        frame, left = ground.copy(), 8 + 7 * step
        shown = max(0, min(OBJECT_PX, WIDTH - left))
        frame[120 : 120 + OBJECT_PX, left : left + shown] = thing[:, :shown]
        clip.append(frame)
    return clip


def moving_camera(frames: int) -> Clip:
    """A walk: everything moves, by three pixels a frame."""
    photo = np.ascontiguousarray(skimage.data.chelsea())
    return [
        np.ascontiguousarray(photo[30 : 30 + HEIGHT, 3 * step : 3 * step + WIDTH])
        for step in range(frames)
    ]


def spoil(clean: Clip, *, task: str) -> Clip:
    """Degrade a clip as it would be: what falls is elsewhere in each frame, what hangs stays."""
    generator = np.random.default_rng(0)
    out = []
    for index, frame in enumerate(clean):
        degraded = degrade_pixels(frame, task=task, seed=index if task in FALLING else 0)
        noisy = degraded + generator.normal(0, NOISE, frame.shape)
        out.append(np.clip(noisy + 0.5, 0, 255).astype(np.uint8))
    return out


def flicker(clip: Clip, clean: Clip) -> float:
    """Return the standard deviation in time of what stands still, in grey levels."""
    spread = np.ptp(np.stack(clean).astype(np.int16), axis=0).max(-1)
    variance = np.var(np.stack(clip).astype(np.float32), axis=0).mean(-1)
    return float(np.sqrt(variance[spread <= STILL].mean())) if (spread <= STILL).any() else np.nan


def flows(clean: Clip) -> list[np.ndarray]:
    """Return where each frame's pixels were in the frame before it (Le Besnerais et al., 2005)."""
    grey = [frame.mean(-1) / 255 for frame in clean]
    places = np.stack(np.meshgrid(np.arange(HEIGHT), np.arange(WIDTH), indexing="ij")).astype(float)
    return [
        places + optical_flow_ilk(now, before, radius=9) for before, now in itertools.pairwise(grey)
    ]


def warping_error(clip: Clip, clean: Clip, moved: Sequence[np.ndarray]) -> float:
    """Return how far frames are from the one before, moved along; only where the clean ones agree.

    Root mean square in grey levels.
    """
    squares, count = 0.0, 0

    def differences(frames: Clip, index: int) -> np.ndarray:
        before = [warp(frames[index][..., c] / 255, moved[index], mode="edge") for c in range(3)]
        return (frames[index + 1] / 255 - np.stack(before, -1)) * 255

    for index in range(len(clip) - 1):
        seen = np.abs(differences(clean, index)).max(-1) < 4
        squares += float(np.square(differences(clip, index)[seen]).sum())
        count += int(seen.sum()) * 3
    return float(np.sqrt(squares / count))


def versions(restorer: Restorer, clip: Clip) -> dict[str, Clip]:
    """Restore a clip in three ways."""
    frames = [Frame(index, 1, pixels) for index, pixels in enumerate(clip)]

    def by_shots(*, calm: bool) -> Clip:
        return [frame.pixels for frame in restore_frames(restorer, frames, calm=calm)]

    ways: dict[str, Callable[[], Clip]] = {
        "spoilt": lambda: clip,
        "each frame by itself": lambda: [restorer.restore_pixels(pixels) for pixels in clip],
        "decided for a shot": lambda: by_shots(calm=False),
        "and calmed (`--calm`)": lambda: by_shots(calm=True),
    }
    return {name: way() for name, way in ways.items()}


@app.command()
def main(
    *,
    tasks: Annotated[str, typer.Option(help="Bundled weights.")] = "rain,snow,haze",
    frames: Annotated[int, typer.Option(help="Of each clip.")] = 24,
    page: Annotated[Path, typer.Option(help="Where to write.")] = PAGE,
) -> None:
    """Measure the flicker of restored synthetic clips, and write docs/results/flicker.md."""
    rows = []
    for task in tasks.split(","):
        restorer = Restorer(task, device="cpu")
        for name, make in (("still", still_camera), ("moving", moving_camera)):
            clean = make(frames)
            moved = flows(clean)
            for way, clip in versions(restorer, spoil(clean, task=task)).items():
                pairs = zip(clip, clean, strict=True)
                psnr_db = np.mean(
                    [measure(one, two, protocol=PROTOCOLS["plain"]).psnr_db for one, two in pairs]
                )
                of_still = flicker(clip, clean)
                cells = [task, name, way, f"{psnr_db:.2f}"]
                cells.append("" if np.isnan(of_still) else f"{of_still:.2f}")
                cells.append(f"{warping_error(clip, clean, moved):.2f}")
                rows.append("| " + " | ".join(cells) + " |")
                typer.echo(rows[-1])
    page.write_text(
        "# Flicker\n\n"
        f"`python benchmarks/flicker.py --tasks {tasks} --frames {frames}` writes this page. Clips"
        f" of {frames} frames of {WIDTH} × {HEIGHT} from photographs of scikit-image that had no"
        " part in choosing `--calm`, with rain and snow that are elsewhere in each frame, haze that"
        " stays, and a camera's noise. The camera stands still while one thing passes, or moves by"
        " three pixels a frame.\n\n"
        "PSNR is the mean of the frames against the clean ones. Flicker is the standard deviation"
        " in time of pixels that stand still; the warping error is how far a frame is from the one"
        " before it, moved along the clean clip's optical flow, where the clean frames agree; both"
        " in grey levels of 255.\n\n"
        f"{machine_line()}\n\n"
        "| weights | camera | | PSNR [dB] | flicker | warping error |\n"
        "|---|---|---|---:|---:|---:|\n" + "\n".join(rows) + "\n",
        "utf-8",
    )


if __name__ == "__main__":
    app()
