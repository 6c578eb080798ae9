"""The picture of her2st C4 in the README: H&E, ERBB2 measured in spots, and predicted by a model that has not seen it.

    napari-cpnn fetch her2st
    xvfb-run -a -s "-screen 0 1600x1000x24" python scripts/make_her2st_picture.py [--gene ERBB2] [--out PICTURE.png]

It opens the sample as *File > Open Sample* does, with the Explore and Compare docks, and puts three views of its canvas
side by side. Measured and predicted values have a colour range each, as with *one scale* off.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import napari
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from PIL import Image

from make_screenshots import MAX_BYTES, REPO, look_at, prepare
from napari_cpnn.painting import color_table, on_tissue
from napari_cpnn.ui.compare import Compare
from napari_cpnn.ui.explore import Explore
from napari_cpnn.ui.viewer import pump, wait_until_mapped

#: Centre (y, x) and height of the view of the tissue, and height and width of the part of it that is shown, um.
VIEW = (2810.0, 2490.0, 5900.0)
SHOWN = (3500.0, 4500.0)

#: Width of the picture, its margins, and the height under the panels, px.
WIDTH, GAP, TOP, BELOW, DPI = 1600, 12, 40, 116, 160


@dataclass(frozen=True)
class View:
    """A view of the canvas ``(rows, cols, 3)``, with its title, and range and opacity of its colours if it has any."""

    title: str
    shot: np.ndarray
    limits: tuple[float, float] | None = None
    opacity: float = 1.0


def views(gene: str) -> tuple[list[View], str]:
    """Three views of the canvas, and the note under them."""
    viewer = napari.Viewer()
    viewer.open_sample("napari-cpnn", "her2st")
    viewer.window.resize(1600, 1000)
    prepare(viewer)
    explore = next(dock for dock in viewer.window.dock_widgets.values() if isinstance(dock, Explore))
    wait_until_mapped(viewer, explore)
    compare = Compare(viewer)
    viewer.window.add_dock_widget(compare, name="Compare (CPNN)", area="right", tabify=True)
    compare.one_scale.setChecked(False)
    explore.controller.show_gene(gene)
    comparison = compare.controller.comparison
    while compare.controller.message or comparison.pair is None:
        pump(0.1)
    explore.look.legend.setChecked(False)
    viewer.canvas.overlays.scale_bar.visible = False
    look_at(viewer, VIEW)
    wait_until_mapped(viewer, explore)
    slide, spots = viewer.layers["her2st C4"], compare.spots_layer.layer
    maps = [layer for layer in viewer.layers if layer not in (slide, spots)]

    def shot(*layers) -> np.ndarray:
        for layer in (spots, *maps):
            layer.visible = layer in layers
        pump(0.5)
        return middle(viewer.screenshot(canvas_only=True, flash=False))

    scale = explore.controller.scale_text()
    predicted = f"{gene} predicted" + (f", {scale}" if scale else "")
    seen = [
        View("H&E", shot()),
        View(f"{gene} measured in spots", shot(spots), comparison.limits("measured")),
        View(predicted, shot(*maps), explore.state.limits, explore.state.look.opacity),
    ]
    pcc, _ = comparison.pair.correlations()
    note = (
        "her2st C4; the model has learned from B4, C2 and C3, not from this section.\nIn its "
        f"{len(spots.data)} spots, r = {pcc:.2f} between prediction and measurement of {gene}. "
        "Each panel has its own colour range."
    )
    compare.shut_down()
    explore.shut_down()
    viewer.close()
    return seen, note


def middle(shot: np.ndarray) -> np.ndarray:
    """The part of a view of the canvas that is `SHOWN`."""
    rows, cols = (round(um * shot.shape[0] / VIEW[2]) for um in SHOWN)
    top, left = (shot.shape[0] - rows) // 2, (shot.shape[1] - cols) // 2
    if min(top, left) < 0:
        raise SystemExit("The canvas is too small: make the screen larger.")
    return shot[top : top + rows, left : left + cols, :3]


def draw(seen: list[View], note: str, path: Path) -> None:
    """Put the views side by side, with a scale bar and colour bars."""
    side = (WIDTH - GAP * (len(seen) + 1)) / len(seen)
    panel = side * SHOWN[0] / SHOWN[1]
    height = TOP + panel + BELOW
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    for number, view in enumerate(seen):
        left = GAP + number * (side + GAP)
        axes = figure.add_axes((left / WIDTH, BELOW / height, side / WIDTH, panel / height))
        axes.imshow(view.shot, interpolation="antialiased", aspect="auto", extent=(0, SHOWN[1], SHOWN[0], 0))
        axes.set_title(view.title, fontsize=10)
        axes.set_axis_off()
        if view.limits is None:
            axes.plot([200, 1200], [3300, 3300], color="black", linewidth=2.5, solid_capstyle="butt")
            axes.text(700, 3240, "1 mm", ha="center", va="bottom", fontsize=8)
            continue
        colors = ListedColormap(np.clip(on_tissue(color_table("viridis"), view.opacity), 0, 1))
        place = figure.add_axes(((left + 0.1 * side) / WIDTH, (BELOW - 24) / height, 0.6 * side / WIDTH, 12 / height))
        bar = figure.colorbar(ScalarMappable(Normalize(*view.limits), colors), cax=place, orientation="horizontal")
        bar.outline.set_visible(False)
        place.tick_params(labelsize=7, length=2, pad=1)
        place.text(1.03, 0.5, "log1p CP10k", fontsize=7, transform=place.transAxes, va="center")
    figure.text(0.5, 8 / height, note, fontsize=8, ha="center", va="bottom")
    figure.savefig(path, dpi=DPI)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gene", default="ERBB2")
    parser.add_argument("--out", type=Path, default=REPO / "docs" / "images" / "her2st_c4.png")
    args = parser.parse_args()
    draw(*views(args.gene), args.out)
    with Image.open(args.out) as opened:
        picture = opened.convert("RGB")
    palette = picture.quantize(256, kmeans=8)
    small = picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    small.save(args.out, optimize=True)
    print(f"{args.out}: {small.width} x {small.height} px, {args.out.stat().st_size / 1e3:.0f} kB")
    if args.out.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{args.out} has more than {MAX_BYTES / 1e3:.0f} kB.")


if __name__ == "__main__":
    main()
