"""`fairweather restore --sample`."""

from pathlib import Path

from fairweather.cli.console import out_console

SAMPLE_SEED = 1  # looks like rain; not chosen by how well it is restored


def restore_sample(*, device: str, engine: str) -> None:
    """Lay synthetic rain over a photograph of scikit-image, restore it, and say how well."""
    import skimage.data

    from fairweather.data import degrade_pixels
    from fairweather.evaluation import PROTOCOLS, measure
    from fairweather.hardware import keep_freed_memory
    from fairweather.imaging import Photo, write_image, write_side_by_side
    from fairweather.restoration import Restorer

    keep_freed_memory()
    folder = Path("sample")
    folder.mkdir(exist_ok=True)
    clean = skimage.data.rocket()
    rainy = degrade_pixels(clean, task="rain", seed=SAMPLE_SEED)
    restored = Restorer("rain", device=device, engine=engine)(rainy)
    photos = {"rainy": Photo(rainy), "restored": Photo(restored), "clean": Photo(clean)}
    for name, photo in photos.items():
        write_image(folder / f"{name}.png", photo)
    compare = folder / "compare.png"
    write_side_by_side(compare, *photos.values())
    for moment, image in (("before", rainy), ("after", restored)):
        figures = measure(image, clean, protocol=PROTOCOLS["plain"])
        out_console.print(f"PSNR {moment}: {figures.psnr_db:.2f} dB")
    out_console.print(f"rainy, restored and clean side by side: {compare}")
