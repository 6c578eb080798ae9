"""The moving picture of the README, made by driving the plugin.

    xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/make_gif.py [--slide C4.jpg --mpp 0.686 0.690 --model MODEL]

A map appears and sharpens, a gene is chosen, the view moves and the map follows, the dominant cell types are shown.
Without ``--slide`` the sample is shown. What is shown is the order of things; waiting is left out.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from PIL import Image

from make_screenshots import OWN, REPO, look_at, prepare, run_apart, wait_for
from napari_cpnn.models import model_file
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.settings import MappingSettings
from napari_cpnn.ui.explore import Explore
from napari_cpnn.ui.viewer import pump, save_screenshot, start_viewer, wait_until_mapped

WIDTH = 860
MAX_BYTES = 5_000_000
SAMPLED = 6
#: Milliseconds of a frame while something moves, and while there is something to look at.
MOVING, LOOKING = 120, 1400


class Film:
    """Frames of the window, each with the time for which it is shown."""

    def __init__(self, viewer) -> None:
        self.viewer = viewer
        self.frames: list[Image.Image] = []
        self.times: list[int] = []

    def take(self, milliseconds: int = MOVING) -> None:
        with tempfile.TemporaryDirectory() as folder:
            raw = Path(folder) / "raw.png"
            save_screenshot(self.viewer, raw)
            picture = Image.open(raw).convert("RGB")
        size = (WIDTH, round(picture.height * WIDTH / picture.width))
        self.frames.append(picture.resize(size, Image.Resampling.LANCZOS))
        self.times.append(milliseconds)

    def save(self, path: Path) -> None:
        """One palette for all frames, so that what does not change stays the same to the bit and is stored once."""
        chosen = self.frames[:: max(1, len(self.frames) // SAMPLED)]
        sheet = Image.new("RGB", (WIDTH, sum(f.height for f in chosen)))
        for number, frame in enumerate(chosen):
            sheet.paste(frame, (0, number * frame.height))
        palette = sheet.quantize(256)
        frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=self.times, loop=0, optimize=True)
        size = path.stat().st_size
        print(f"{path}: {len(frames)} frames, {sum(self.times) / 1000:.1f} s, {size / 1e6:.1f} MB")
        if size > MAX_BYTES:
            raise SystemExit(f"{path} has more than {MAX_BYTES / 1e6:g} MB: show less.")


def move(film: Film, start: tuple[float, float, float], end: tuple[float, float, float], steps: int) -> None:
    """Move the view from one centre (y, x) and height in um to another."""
    for step in range(1, steps + 1):
        share = step / steps
        share = share * share * (3 - 2 * share)
        height = start[2] * (end[2] / start[2]) ** share
        # The centre goes with the height, so that the end stays in view.
        along = 1 - (height - end[2]) / (start[2] - end[2]) if start[2] != end[2] else share
        y, x = (a + along * (b - a) for a, b in zip(start[:2], end[:2], strict=True))
        look_at(film.viewer, (y, x, height))
        pump(0.15)
        film.take()


def record(film: Film, dock: Explore, first: str, gene: str, whole: tuple[float, float, float]) -> None:
    pump(0.5)
    film.take(700)
    wait_for(lambda: dock.state.mapper is not None and dock.state.shown is not None)
    dock.controller.show_first(gene=None, cell_type=first)
    seen = 0.0
    while True:
        progress = dock.state.mapper.progress()
        share = progress.done / max(progress.wanted, 1)
        if share >= seen:
            dock.session.overlays.paint_now()
            pump(0.2)
            film.take(250)
            seen = share + 0.08
        if progress.done >= progress.wanted > 0:
            break
        pump(0.05)
    settle(film, dock)
    film.take(LOOKING)
    dock.controller.show_gene(gene)
    settle(film, dock)
    film.take(LOOKING)
    height = whole[2]
    close = (whole[0] - 0.1 * height, whole[1] + 0.05 * height, 0.35 * height)
    move(film, whole, close, 7)
    settle(film, dock)
    film.take(LOOKING)
    dock.controller.show_dominant()
    settle(film, dock)
    film.take(LOOKING)
    move(film, close, whole, 5)
    settle(film, dock)
    film.take(LOOKING)


def settle(film: Film, dock: Explore) -> None:
    pump(0.3)
    wait_until_mapped(film.viewer, dock)
    pump(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sample = sample_folder()
    parser.add_argument("--slide", type=Path, default=sample / SAMPLE_FILES["slide"])
    parser.add_argument("--model", default=str(sample / SAMPLE_FILES["model"]))
    parser.add_argument("--mpp", type=float, nargs="+", metavar="UM", help="pixel size, or pixel sizes y x")
    parser.add_argument("--stride", type=float, default=56.0, metavar="UM", help="distance between patches")
    parser.add_argument("--at", type=float, nargs=3, metavar=("Y", "X", "HEIGHT"), help="centre and height of view, um")
    parser.add_argument("--cell-type", default="Cancer Epithelial")
    parser.add_argument("--gene", default="ERBB2")
    parser.add_argument("--out", type=Path, default=REPO / "docs" / "_static" / "tour.gif")
    args = parser.parse_args()
    if OWN not in os.environ:
        raise SystemExit(run_apart())
    mpp = None if args.mpp is None else (args.mpp[0], args.mpp[-1])
    with tempfile.TemporaryDirectory() as cache:
        settings = MappingSettings(cache_dir=Path(cache), stride_um=args.stride)
        viewer, dock = start_viewer(args.slide, model_path=model_file(args.model), mpp=mpp, settings=settings)
        window = viewer.window._qt_viewer  # noqa: SLF001 -- there is no public way
        for part in (window.dockLayerControls, window.dockLayerList):
            part.hide()
        prepare(viewer)
        height = viewer.canvas.size[0] / viewer.scene.camera.zoom
        centre = viewer.scene.camera.center
        whole = tuple(args.at) if args.at else (float(centre[1]), float(centre[2]), height)
        look_at(viewer, whole)
        film = Film(viewer)
        record(film, dock, args.cell_type, args.gene, whole)
        film.save(args.out)
        viewer.close()


if __name__ == "__main__":
    main()
