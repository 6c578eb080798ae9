"""The pictures of README and docs, made by driving the plugin.

    xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/make_screenshots.py              # all of the sample
    ... make_screenshots.py --only gene
    ... make_screenshots.py --slide C4.jpg --mpp 0.686 0.690 --model M.safetensors --gene ERBB2 --out c4_gene.png

With ``--slide`` it makes one picture of any slide, of a gene, a cell type, or else the dominant types. Settings and
caches are of the run alone, so that nothing that this computer remembers of a slide is in a picture.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cohort_scene import COHORT_SCENES, cohort_pictures
from napari_cpnn.export import to_figure
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.mapping import predict_map
from napari_cpnn.models import load_model
from napari_cpnn.registration import Moving
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.settings import FigureSettings, MappingSettings
from napari_cpnn.slides import open_slide
from napari_cpnn.spots import read_spots
from napari_cpnn.training.jobs import SampleFiles
from napari_cpnn.ui.align import Align
from napari_cpnn.ui.cells import CellShown
from napari_cpnn.ui.compare import Compare
from napari_cpnn.ui.explore import Explore
from napari_cpnn.ui.finetune import FineTune
from napari_cpnn.ui.frame import show_dock
from napari_cpnn.ui.prototypes import PrototypesDock
from napari_cpnn.ui.regions import Regions
from napari_cpnn.ui.viewer import pump, save_screenshot, start_viewer, wait_until_mapped

REPO = Path(__file__).resolve().parents[1]
WINDOW = (1500, 900)
WIDTH = 1400
MAX_BYTES = 600_000


def look_at(viewer, view: tuple[float, float, float]) -> None:
    """Show a view: centre (y, x) and height in um of the slide."""
    y, x, height = view
    viewer.scene.camera.center = (0.0, y, x)
    viewer.scene.camera.zoom = viewer.canvas.size[0] / height


CLOSE = (2400.0, 1450.0, 1900.0)  # centre (y, x) and height of a view of the sample, um

CELLS_VIEW = (2400.0, 1450.0, 240.0)

SPOTS_VIEW = (2000.0, 1600.0, 2900.0)

#: Name of the picture, view (None: all of it), and what to do in the dock.
SCENES: dict[str, tuple[tuple[float, float, float] | None, Callable[[Explore], None]]] = {
    "explore": (CLOSE, lambda dock: dock.controller.show_type("Cancer Epithelial")),
    "gene": (CLOSE, lambda dock: dock.controller.show_gene("ERBB2")),
    "dominant": (None, lambda dock: dock.controller.show_dominant()),
    "blend": (CLOSE, lambda dock: dock.types.check(["Cancer Epithelial", "T-cells", "CAFs"])),
}

#: Pictures of the Regions dock, and corners (y, x) of what is drawn, um.
REGION_SCENES = ("regions", "explain")
OUTLINES = {
    "Tumour": [(1400.0, 950.0), (1300.0, 1800.0), (2350.0, 2050.0), (2900.0, 1500.0), (2300.0, 1000.0)],
    "Stroma": [(2950.0, 850.0), (2900.0, 1950.0), (3750.0, 2100.0), (3650.0, 900.0)],
}


#: Set where the script runs with settings and caches of its own.
OWN = "NAPARI_CPNN_SCREENSHOTS"

#: All pictures of the window, and those that are made without it.
ON_SCREEN = ("coarse", *SCENES, "compare", "align", *REGION_SCENES, "cells", "prototypes", "finetune", *COHORT_SCENES)
APART = ("figure", "preferences")

#: Panels of the figure, and its resolution; a paper has 300.
FIGURE = ("dominant", "ERBB2", "ERBB2 from Cancer Epithelial")
FIGURE_DPI = 160


def save_small(viewer, path: Path) -> None:
    """Screenshot of the window, scaled to `WIDTH` and with a palette, so that the repository stays light."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.png"
        save_screenshot(viewer, raw)
        picture = Image.open(raw).convert("RGB")
    height, width = (viewer.canvas.size[0] / picture.height, viewer.canvas.size[1] / picture.width)
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(palette=_palette(picture, (height, width)), dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {picture.width} x {picture.height} px, {size / 1e3:.0f} kB")
    if size > MAX_BYTES:
        raise SystemExit(f"{path} has more than {MAX_BYTES / 1e3:.0f} kB: look at a simpler view.")


def _palette(picture: Image.Image, canvas: tuple[float, float]) -> Image.Image:
    """Colours for tissue and, apart from them, for the dock, whose few pixels of each cell type would get none."""
    height, width = picture.height, picture.width
    left = round((1 - canvas[1]) * width * 0.5)
    tissue = picture.crop((left, 0, left + round(canvas[1] * width), round(canvas[0] * height)))
    dock = picture.crop((left + round(canvas[1] * width), 0, width, height))
    # The most frequent colours of the dock are its greys, the most distant ones those of the cell types.
    common, rare = dock.quantize(40), dock.quantize(48, method=Image.Quantize.MAXCOVERAGE)
    parts = [(tissue.quantize(168), 168), (common, 40), (rare, 48)]
    colours = [value for part, n in parts for value in part.getpalette()[: 3 * n]]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    return palette


def sample_pictures(names: list[str], folder: Path, slide: Path, model: Path) -> None:
    with tempfile.TemporaryDirectory() as cache:
        viewer, dock = start_viewer(slide, model_path=model, settings=MappingSettings(cache_dir=Path(cache)))
        prepare(viewer)
        if "coarse" in names:
            half_way(dock)
            save_small(viewer, folder / "coarse.png")
        for name in names:
            if name in SCENES:
                view, act = SCENES[name]
                viewer.reset_view()
                if view is not None:
                    look_at(viewer, view)
                act(dock)
                pump(0.3)
                wait_until_mapped(viewer, dock)
                save_small(viewer, folder / f"{name}.png")
        if set(names) & set(REGION_SCENES):
            region_pictures(viewer, dock, [name for name in names if name in REGION_SCENES], folder)
        docks = {
            "cells": cells_picture,
            "prototypes": prototypes_picture,
            "compare": compare_picture,
            "align": align_picture,
            "finetune": fine_tune_picture,
        }
        for name, draw in docks.items():
            if name in names:
                draw(viewer, dock, folder)
        if set(names) & set(COHORT_SCENES):
            cohort_pictures(
                viewer, dock, {name: folder / f"{name}.png" for name in names if name in COHORT_SCENES}, save_small
            )
        viewer.close()


def cells_picture(viewer, explore: Explore, folder: Path) -> None:
    """Nuclei of a view, found by the detector, with their areas, counts and gallery."""
    dock = show_dock(viewer, "Cells")
    look_at(viewer, CELLS_VIEW)
    pump(0.5)
    dock.find_view.click()
    wait_for(lambda: dock.controller.content is not None and dock.is_settled)
    dock.controller.show(CellShown("area"))
    wait_for(lambda: dock.controller.shown.kind == "area" and dock.is_settled)
    pump(0.5)
    explore.session.legend.finish()
    pump(0.2)
    save_small(viewer, folder / "cells.png")
    dock.controller.set_content(None)


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Let the window work until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("The picture was not ready in time.")
        pump(0.1)


def region_pictures(viewer, dock: Explore, names: list[str], folder: Path) -> None:
    """Two regions, what is in one of them, and which cell types make a gene there."""
    regions = Regions(viewer)
    viewer.window.add_dock_widget(regions, name="Regions (CPNN)", area="right", tabify=True)
    viewer.reset_view()
    wait_until_mapped(viewer, dock)
    dock.controller.show_gene("ERBB2")
    regions.draw.click()
    regions.layer.add([list(corners) for corners in OUTLINES.values()], shape_type="polygon")
    regions.layer.features = {"name": list(OUTLINES)}
    regions.draw.click()
    for name in names:
        if name == "explain":
            regions.tabs.setCurrentWidget(regions.explanation)
            regions.controller.explain("Tumour")
            regions.controller.show_contribution("Cancer Epithelial")
        pump(1.0)
        while not regions.is_settled:
            pump(0.1)
        pump(3.0)
        dock.session.overlays.paint_now()
        save_small(viewer, folder / f"{name}.png")
    layer = regions.layer
    regions.shut_down()
    viewer.layers.remove(layer)  # not in the pictures of other docks


def prototypes_picture(viewer, explore: Explore, folder: Path) -> None:
    """Prototypes of the sample's single cells, and the heat map of their markers."""
    dock = PrototypesDock(viewer)
    viewer.window.add_dock_widget(dock, name="Prototypes (CPNN)", area="right", tabify=True)
    controller = dock.controller
    viewer.reset_view()
    explore.controller.show_dominant()
    wait_until_mapped(viewer, explore)
    controller.open(sample_folder() / SAMPLE_FILES["cells"])
    while controller.reference is None:
        pump(0.1)
    controller.change("method", "nb")
    dock.run.click()
    while controller.result is None:
        pump(0.1)
    dock.tabs.setCurrentIndex(1)
    pump(1.0)
    save_small(viewer, folder / "prototypes.png")
    dock.shut_down()


def compare_picture(viewer, explore: Explore, folder: Path) -> None:
    """Measured spots over the map of the same gene, some of them selected in the chart."""
    dock = Compare(viewer)
    viewer.window.add_dock_widget(dock, name="Compare (CPNN)", area="right", tabify=True)
    wait_until_mapped(viewer, explore)
    look_at(viewer, SPOTS_VIEW)
    explore.controller.show_gene("ERBB2")
    dock.spots.open(sample_folder() / SAMPLE_FILES["spots"])
    while dock.controller.message or dock.controller.comparison.scores is None:
        pump(0.1)
    pair = dock.controller.comparison.pair
    top = float(np.quantile(pair.measured, 0.9))
    dock.scatter.lasso(np.array([(top, -1.0), (9.0, -1.0), (9.0, 9.0), (top, 9.0)]))
    wait_until_mapped(viewer, explore)
    while not dock.scatter.is_settled:
        pump(0.1)
    pump(1.0)
    save_small(viewer, folder / "compare.png")
    dock.shut_down()


def align_picture(viewer, explore: Explore, folder: Path) -> None:
    """Spots of a turned picture, laid on the slide by three landmarks."""
    viewer.reset_view()
    wait_until_mapped(viewer, explore)
    explore.state.choose_look(legend=False)
    for layer in viewer.layers:
        layer.visible = layer is explore.state.layer  # the H&E alone
    dock = Align(viewer)
    viewer.window.add_dock_widget(dock, name="Align (CPNN)", area="right", tabify=True)
    spots = read_spots(sample_folder() / SAMPLE_FILES["spots"])
    here = spots.obsm["spatial"][:, ::-1] * explore.state.slide.mpp
    spots.obsm["spatial"] = np.c_[9000 - here[:, 0], here[:, 1]]
    spots.uns.pop("spatial", None)
    dock.controller.use(Moving.of_spots(spots, "spots of a photograph"))
    there = dock.controller.spots_um()
    for i in (3, 190, 380):
        dock.controller.click("moving", there[i])
        dock.controller.click("fixed", here[i] + (20.0 * (i == 190), 0.0))
    pump(1.0)
    save_small(viewer, folder / "align.png")
    dock.shut_down()
    explore.state.choose_look(legend=True)


def fine_tune_picture(viewer, explore: Explore, folder: Path) -> None:
    """A run from the sample's model, after some epochs."""
    dock = FineTune(viewer)
    viewer.window.add_dock_widget(dock, name="Fine-tune (CPNN)", area="right", tabify=True)
    sample, controller = sample_folder(), dock.controller
    viewer.reset_view()
    explore.controller.show_dominant()
    wait_until_mapped(viewer, explore)
    controller.add_sample(SampleFiles(sample / SAMPLE_FILES["slide"], sample / SAMPLE_FILES["spots"]))
    controller.choose_reference(sample / SAMPLE_FILES["prototypes"])
    controller.choose_start(sample / SAMPLE_FILES["model"])
    while controller.message:
        pump(0.1)
    # Small patches and few genes: a picture, and no good model.
    for name, value in {"patch": PatchSpec(64, 1.0), "genes": "variable", "n_genes": 50, "max_epochs": 20}.items():
        controller.change(name, value)
    with tempfile.TemporaryDirectory() as runs:
        controller.choose_out(Path(runs) / "run-1")
        dock.train.click()
        while not controller.run.running or controller.run.status.epoch < 6:
            pump(0.2)
            if controller.run.status is not None and controller.run.status.error:
                raise SystemExit(controller.run.status.error)
        save_small(viewer, folder / "finetune.png")
        dock.stop.click()
        while controller.run.running:
            pump(0.2)
    dock.shut_down()


def figure_picture(folder: Path, slide_path: Path, model_path: Path) -> None:
    """A figure of three panels, as the export writes it."""
    path = folder / "figure.png"
    with open_slide(slide_path) as slide:
        cmap = predict_map(slide, load_model(model_path))
        to_figure(cmap, path, FIGURE, slide, FigureSettings(dpi=FIGURE_DPI), overwrite=True)
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    # Bars and legends are a few pixels of many colours, and get no fewer than the tissue.
    keys = picture.crop((0, round(0.76 * picture.height), picture.width, round(0.93 * picture.height)))
    sheet = Image.new("RGB", (picture.width, picture.height + 6 * keys.height))
    sheet.paste(picture, (0, 0))
    for number in range(6):
        sheet.paste(keys, (0, picture.height + number * keys.height))
    small = picture.quantize(palette=sheet.quantize(256), dither=Image.Dither.FLOYDSTEINBERG)
    small.save(path, optimize=True)
    print(f"{path}: {small.width} x {small.height} px, {path.stat().st_size / 1e3:.0f} kB")


def preferences_picture(folder: Path) -> None:
    """Our page of napari's preferences, as it is at first."""
    import napari
    from napari._qt.dialogs.preferences_dialog import PreferencesDialog
    from qtpy.QtCore import Qt
    from qtpy.QtWidgets import QApplication, QListWidget, QMainWindow

    viewer = napari.Viewer()
    window = next(w for w in QApplication.topLevelWidgets() if isinstance(w, QMainWindow))
    dialog = PreferencesDialog(parent=window)
    pages = dialog.findChild(QListWidget)
    pages.setCurrentItem(pages.findItems("CPNN", Qt.MatchFlag.MatchExactly)[0])
    dialog.resize(900, 560)
    dialog.show()
    pump(0.5)
    dialog.grab().save(str(folder / "preferences.png"))
    dialog.close()
    viewer.close()
    with Image.open(folder / "preferences.png") as picture:
        picture.convert("RGB").quantize(64).save(folder / "preferences.png", optimize=True)


def prepare(viewer) -> None:
    viewer.window.resize(*WINDOW)
    pump(0.5)
    viewer.reset_view()


def half_way(dock: Explore) -> None:
    """Wait for the moment at which coarse and finished places are side by side."""
    while dock.state.mapper is None or dock.state.shown is None:
        pump(0.02)
    dock.controller.show_type("Cancer Epithelial")
    while dock.state.mapper.progress().done < 0.45 * max(dock.state.mapper.progress().wanted, 1):
        pump(0.02)
    pump(0.6)


def one_picture(args: argparse.Namespace) -> None:
    mpp = None if args.mpp is None else (args.mpp[0], args.mpp[-1])
    viewer, dock = start_viewer(args.slide, model_path=args.model, mpp=mpp)
    prepare(viewer)
    dock.controller.show_first(gene=args.gene, cell_type=args.cell_type)
    if args.at is not None:
        look_at(viewer, (args.at[0], args.at[1], args.at[2]))
    wait_until_mapped(viewer, dock)
    save_small(viewer, args.out)
    viewer.close()


def run_apart() -> int:
    """Run the script again with settings and caches of its own, which napari reads when it is imported."""
    with tempfile.TemporaryDirectory() as own:
        folders = {
            "NAPARI_CPNN_CACHE": f"{own}/cache",
            "NAPARI_CONFIG": f"{own}/config/settings.yaml",
            "XDG_CONFIG_HOME": f"{own}/config",
        }
        return subprocess.run(
            [sys.executable, *sys.argv], env={**os.environ, **folders, OWN: "1"}, check=False
        ).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*ON_SCREEN, *APART],
        help="of the sample's pictures, these",
    )
    parser.add_argument("--folder", type=Path, default=REPO / "docs" / "images", help="of the sample's pictures")
    parser.add_argument("--slide", type=Path, help="one picture of this slide")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--mpp", type=float, nargs="+", metavar="UM", help="pixel size, or pixel sizes y x")
    parser.add_argument("--gene")
    parser.add_argument("--cell-type")
    parser.add_argument("--at", type=float, nargs=3, metavar=("Y", "X", "HEIGHT"), help="centre and height of view, um")
    parser.add_argument("--out", type=Path, help="where the one picture goes")
    args = parser.parse_args()
    if OWN not in os.environ:
        raise SystemExit(run_apart())
    if args.slide is not None:
        if args.model is None or args.out is None:
            parser.error("--slide needs --model and --out")
        one_picture(args)
        return
    sample = sample_folder()
    slide, model = sample / SAMPLE_FILES["slide"], args.model or sample / SAMPLE_FILES["model"]
    names = args.only or [*ON_SCREEN, *APART]
    if set(names) & set(ON_SCREEN):
        sample_pictures(names, args.folder, slide, model)
    if "figure" in names:
        figure_picture(args.folder, slide, model)
    if "preferences" in names:
        preferences_picture(args.folder)


if __name__ == "__main__":
    main()
