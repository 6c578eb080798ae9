"""Many bins as one picture: pixels at their places, the colours of points, chosen by mouse, borrowed and given back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData
from napari.components import ViewerModel
from napari.layers import Image, Points
from qtpy.QtCore import QPoint, QRectF, Qt
from qtpy.QtGui import QImage, QPainter
from tests.ui.conftest import GENES, MPP
from tests.ui.mouse import move_mouse, place_on_canvas

from napari_cpnn.geometry import LayerFrame, spatial_to_um
from napari_cpnn.painting import spot_colors
from napari_cpnn.spots import bins as bins_module
from napari_cpnn.spots import bins_of
from napari_cpnn.ui.compare import spots_controller
from napari_cpnn.ui.compare.spots_layer import SpotsLayer
from napari_cpnn.ui.layers import BINS_KEY, SPOTS_KEY, has_table, is_slide_layer, picture_in, spots_of_layer
from napari_cpnn.ui.layers.spot_tables import drawing_of, is_ours

SIDE = 16.0
SLIDE = (MPP, MPP)


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch):
    monkeypatch.setattr(bins_module, "MANY_BINS", 100)


def binned(rows: int = 24, cols: int = 30, turn: float = 4.0, step: tuple[float, float] = (220.0, 300.0)) -> AnnData:
    """Bins of 16 um on a turned and mirrored lattice over the tissue of the small slide; a quarter is missing."""
    rng = np.random.default_rng(2)
    at = np.sort(rng.permutation(rows * cols)[: 3 * rows * cols // 4])
    row, col = np.divmod(at, cols)
    angle = np.deg2rad(turn)
    down = SIDE * np.array([-np.cos(angle), np.sin(angle)])
    right = SIDE * np.array([np.sin(angle), np.cos(angle)])
    um = np.outer(row - rows, down) + np.outer(col, right) + step
    obs = pd.DataFrame({"array_row": row, "array_col": col}, index=[f"b{i}" for i in at])
    counts = sp.csr_matrix(rng.poisson(3.0, (len(at), len(GENES))).astype(np.int32))
    table = AnnData(counts.astype(np.float32), obs=obs, var=pd.DataFrame(index=list(GENES)))
    table.obsm["spatial"] = um[:, ::-1] / MPP
    table.layers["counts"] = counts
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": SIDE / MPP}
    table.uns["spatial"] = {"hd": {"images": {}, "scalefactors": factors}}
    return table


def um_of(table: AnnData) -> np.ndarray:
    return spatial_to_um(table.obsm["spatial"], SLIDE)


def bins_in(table: AnnData):
    found = bins_of(table, SLIDE, SIDE)
    assert found is not None
    return found


@pytest.fixture
def viewer():
    return ViewerModel()


def add_slide(viewer, **keywords):
    frame = {"scale": SLIDE, "translate": (0.25, 0.25), "units": ("um", "um")} | keywords
    return viewer.add_image(np.zeros((1536, 2048, 3), np.uint8), rgb=True, **frame)


def draw(spots: SpotsLayer, slide, table: AnnData, *, as_bins: bool = True, mpp=SLIDE) -> None:
    um = spatial_to_um(table.obsm["spatial"], mpp)
    spots.place(slide, mpp, um, SIDE, None, bins_of(table, mpp, SIDE) if as_bins else None)


def pixels_of(layer: Image, world: np.ndarray) -> np.ndarray:
    """The colours of a layer at places of the world, by the layer's own transform."""
    at = np.array([np.rint(layer.world_to_data(point)).astype(int) for point in world])
    return layer.data[tuple(at.T)]


def turned(deg: float) -> np.ndarray:
    a = np.deg2rad(deg)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])


@pytest.mark.parametrize(
    "slide_at",
    [{}, {"translate": (500.0, -90.0), "rotate": turned(20)}, {"units": ("pixel", "pixel"), "scale": (1, 1)}],
)
def test_bins_lie_where_points_lie_and_have_their_colours(viewer, slide_at):
    slide, table = add_slide(viewer, **slide_at), binned()
    discs, bins = SpotsLayer(viewer), SpotsLayer(viewer)
    draw(discs, slide, table, as_bins=False)
    draw(bins, slide, table)
    assert isinstance(discs.layer, Points)
    assert isinstance(bins.layer, Image)
    assert bins.layer.units == slide.units
    assert bins.layer.interpolation2d == "nearest"
    # The centre of its pixel is where the disc of a bin lies, and the next pixel a side away.
    at = np.stack([bins.layer.world_to_data(point) for point in discs.layer.data])
    np.testing.assert_allclose(at, np.rint(at), atol=1e-4)
    assert len(np.unique(np.rint(at), axis=0)) == table.n_obs
    step = np.subtract(bins.layer.data_to_world((0, 1)), bins.layer.data_to_world((0, 0)))
    assert np.linalg.norm(step) == pytest.approx(float(discs.layer.size[0]), rel=1e-4)
    # Before there are colours only places are shown; everything else is clear.
    assert (bins.layer.data[..., 3] > 0).sum() == table.n_obs
    np.testing.assert_allclose(pixels_of(bins.layer, discs.layer.data) / 255, discs.layer.face_color, atol=1 / 255)
    rng = np.random.default_rng(3)
    values = np.where(rng.random(table.n_obs) < 0.1, np.nan, rng.normal(size=table.n_obs)).astype(np.float32)
    for colormap in ("viridis", "difference"):
        rgba = spot_colors(values, (-1.0, 1.0), colormap)
        for one in (discs, bins):
            one.paint(rgba, "Spots: ERBB2 measured")
        np.testing.assert_allclose(pixels_of(bins.layer, discs.layer.data) / 255, discs.layer.face_color, atol=1 / 255)
    assert (bins.layer.data[..., 3] > 0).sum() == np.isfinite(values).sum()
    assert bins.layer.name.startswith("Spots: ERBB2 measured")
    bins.forget_colors()
    assert (bins.layer.data[..., 3] > 0).sum() == table.n_obs
    discs.close()
    bins.close()
    assert list(viewer.layers) == [slide]


def test_another_gene_changes_the_picture_in_place(viewer):
    slide, table = add_slide(viewer), binned()
    spots = SpotsLayer(viewer)
    draw(spots, slide, table)
    before, layer, told = spots.layer.data, spots.layer, []
    layer.events.set_data.connect(told.append)
    spots.paint(np.full((table.n_obs, 4), 0.5, dtype=np.float32), "x")
    assert spots.layer.data is before
    assert len(told) == 1  # one upload
    spots.paint(np.zeros((table.n_obs - 1, 4), dtype=np.float32), "of other spots")
    assert before[..., 0].max() == 128
    assert layer.name == "x"


def test_chosen_bins_are_orange_and_the_others_faint_whatever_is_painted(viewer):
    slide, table = add_slide(viewer), binned()
    spots = SpotsLayer(viewer)
    draw(spots, slide, table)
    world, chosen = um_of(table), np.array([5, 17, 80])
    others = np.setdiff1d(np.arange(table.n_obs), chosen)
    blue = np.tile(np.float32([0, 0, 1, 0.9]), (table.n_obs, 1))
    blue[others[0], 3] = 0  # without a value
    for act in (lambda: spots.mark(chosen), lambda: spots.paint(blue, "x"), lambda: spots.paint(blue, "again")):
        act()
        found = pixels_of(spots.layer, world).astype(int)
        assert (found[chosen, 3] == 255).all()
        assert (found[chosen, 0] > 150).all()
        assert (found[others, 3] < 90).all()
    assert found[others[0], 3] == 0
    assert (found[others, :3] == [0, 0, 255]).all()
    spots.mark(np.empty(0, dtype=np.intp))
    np.testing.assert_array_equal(pixels_of(spots.layer, world)[chosen], [[0, 0, 255, 230]] * 3)


def test_a_picture_of_bins_is_not_taken_for_a_slide(viewer):
    spots, slide = SpotsLayer(viewer), add_slide(viewer)
    draw(spots, slide, binned())
    assert not is_slide_layer(spots.layer)
    assert {SPOTS_KEY, BINS_KEY} <= set(spots.layer.metadata)
    assert not has_table(spots.layer)
    slide.visible = False
    assert picture_in(viewer) is None


def test_bins_take_turns_with_spots_and_follow_the_slide(viewer):
    slide, table, spots = add_slide(viewer), binned(), SpotsLayer(viewer)
    draw(spots, slide, table)
    first = spots.layer
    draw(spots, slide, table)
    assert spots.layer is first
    # Other bins, then spots, then bins again.
    draw(spots, slide, binned(rows=14, cols=20, turn=-2.0))
    assert spots.layer is first
    assert first.data.shape == (14, 20, 4)
    spots.place(slide, SLIDE, um_of(table)[:30], 55.0)
    assert isinstance(spots.layer, Points)
    assert [layer for layer in viewer.layers if layer is not slide] == [spots.layer]
    draw(spots, slide, table)
    assert isinstance(spots.layer, Image)
    # A layer that is added later goes below them, and the slide stays the active layer.
    viewer.add_image(np.zeros((9, 9)))
    assert viewer.layers[-1] is spots.layer
    # A slide of another pixel size: the bins are as many pixels of it as before.
    coarse = viewer.add_image(np.zeros((700, 900, 3), np.uint8), rgb=True, scale=(1.1, 1.1), translate=(0.55, 0.55))
    scaled = table.copy()
    scaled.uns["spatial"]["hd"]["scalefactors"]["spot_diameter_fullres"] = SIDE / 1.1
    scaled.obsm["spatial"] = um_of(table)[:, ::-1] / 1.1
    draw(spots, coarse, scaled, mpp=(1.1, 1.1))
    np.testing.assert_allclose(
        [coarse.world_to_data(spots.layer.data_to_world(divmod(int(p), 30))) for p in bins_in(table).pixels],
        scaled.obsm["spatial"][:, ::-1] - 0.5,
        atol=1e-3,
    )
    # Bins that have been moved stay the same pixels at other places.
    moved = table.copy()
    moved.obsm["spatial"] = table.obsm["spatial"] @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + [900.0, 40.0]
    draw(spots, slide, moved)
    np.testing.assert_allclose(
        [spots.layer.data_to_world(divmod(int(p), 30)) for p in bins_in(moved).pixels], um_of(moved), atol=1e-3
    )
    # The user turns the layer by napari's own handles: it goes back to its place.
    for as_bins in (True, False, True):
        spots.layer.rotate, spots.layer.translate = 30.0, (50.0, 9.0)
        draw(spots, slide, moved, as_bins=as_bins)
        first_bin = divmod(int(bins_in(moved).pixels[0]), 30) if as_bins else spots.layer.data[0]
        np.testing.assert_allclose(spots.layer.data_to_world(first_bin), um_of(moved)[0], atol=1e-3)
        spots.layer.rotate = 30.0
        draw(spots, slide, moved, as_bins=as_bins)
        np.testing.assert_allclose(spots.layer.data_to_world(first_bin), um_of(moved)[0], atol=1e-3)
    # The user removes the layer: it comes back with the next spots. Without a slide there is none.
    viewer.layers.remove(spots.layer)
    draw(spots, slide, table)
    assert spots.layer in viewer.layers
    spots.place(None)
    assert spots.layer is None


def test_what_our_reader_makes_of_bins_is_borrowed_and_given_back(viewer):
    slide, table = add_slide(viewer), binned()
    data, keywords, kind = drawing_of(table, Path("outs"), "Colon, 16 µm bins", (slide, SLIDE))
    assert kind == "image"
    layer = viewer.add_image(data, **keywords)
    assert has_table(layer)
    assert is_ours(layer)
    assert spots_of_layer(layer, slide, SLIDE) is table
    channel = Image(layer.data[..., 0], metadata=layer.metadata)  # as of napari's own "Split RGB"
    assert not has_table(channel)
    plain = layer.data.copy()
    spots = SpotsLayer(viewer)
    spots.borrow(layer)
    draw(spots, slide, table)
    assert spots.layer is layer
    spots.paint(np.tile(np.float32([1, 0, 0, 1]), (table.n_obs, 1)), "Spots: ERBB2 measured")
    assert layer.name == "Colon, 16 µm bins: ERBB2 measured"
    assert spots.name_of(layer) == "Colon, 16 µm bins"
    spots.mark(np.array([3]))
    spots.borrow(None)
    assert layer.name == "Colon, 16 µm bins"
    assert layer in viewer.layers
    np.testing.assert_array_equal(layer.data, plain)
    # Bent by a thin plate they lie on no lattice: they are discs in a layer of ours, and the picture is hidden.
    spots.borrow(layer)
    bent = table.copy()
    bent.obsm["spatial"] = bent.obsm["spatial"] + 2e-4 * (bent.obsm["spatial"] - 800) ** 2
    draw(spots, slide, bent)
    assert isinstance(spots.layer, Points)
    assert not layer.visible
    spots.close()
    assert layer in viewer.layers


def test_without_a_slide_bins_lie_in_micrometres_or_pixels():
    table = binned()
    frame = LayerFrame.of_slide(SLIDE)
    for mpp, expected in ((SLIDE, frame.um_to_world(um_of(table))), (None, table.obsm["spatial"][:, ::-1] - 0.5)):
        data, keywords, kind = drawing_of(table, Path("outs"), "bins", (None, mpp))
        assert kind == "image"
        layer = Image(data, **keywords)
        found = [layer.data_to_world(divmod(int(p), 30)) for p in layer.metadata[BINS_KEY].pixels]
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_figures_and_panels_draw_bins_as_squares_at_their_places(viewer):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from napari_cpnn.export import measured_spots
    from napari_cpnn.export.figure_marks import draw_marks
    from napari_cpnn.geometry import Rect
    from napari_cpnn.slides import Slide
    from napari_cpnn.ui.export import marks_on_screen
    from napari_cpnn.ui.panels.drawing import Content, draw_content
    from napari_cpnn.ui.panels.panel import Painted
    from napari_cpnn.ui.panels.place import Place
    from napari_cpnn.ui.panels.tissue import image_of

    layer, table, spots = add_slide(viewer), binned(), SpotsLayer(viewer)
    values = np.random.default_rng(4).normal(size=table.n_obs).astype(np.float32)
    draw(spots, layer, table)
    spots.paint(spot_colors(values, (-1, 1), "viridis"), "Spots: ERBB2 measured")
    # What is on screen is what a script draws.
    slide = Slide.from_arrays([np.zeros((1536, 2048, 3), np.uint8)], SLIDE)
    by_script = measured_spots(table, slide, values, (-1, 1), "viridis", "ERBB2 measured")
    marks = marks_on_screen(viewer, layer, SLIDE)
    on_screen = marks.spots[-1]
    assert marks.note == "Squares: ERBB2 measured."
    np.testing.assert_allclose(on_screen.centers_um, by_script.centers_um, atol=0.01)
    np.testing.assert_allclose(on_screen.colors, by_script.colors, atol=1 / 255)
    np.testing.assert_allclose(on_screen.bins.affine, by_script.bins.affine, atol=0.01)
    np.testing.assert_allclose(on_screen.diameters_um, SIDE, rtol=1e-3)
    moved = on_screen.moved(10.0, -4.0)
    np.testing.assert_allclose(moved.bins.centers_um(), moved.centers_um, atol=0.01)
    # The pixel of a figure, and of a panel, at the centre of each bin has its colour over white.
    rect = Rect(0.0, 0.0, 700.0, 1000.0)
    figure = Figure(figsize=(10, 7), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1000), ylim=(700, 0))
    axes.axis("off")
    draw_marks(axes, marks, rect, 8)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3]
    expected = on_screen.colors[:, :3] * on_screen.colors[:, 3:] + 1 - on_screen.colors[:, 3:]
    at = np.floor(on_screen.centers_um).astype(int)
    inside = (at >= 0).all(axis=1) & (at < [700, 1000]).all(axis=1)
    assert inside.mean() > 0.9
    np.testing.assert_allclose(drawn[tuple(at[inside].T)] / 255, expected[inside], atol=0.02)
    gaps = np.ones((700, 1000), dtype=bool)
    for y, x in at:
        gaps[max(0, y - 12) : y + 13, max(0, x - 12) : x + 13] = False
    assert gaps.mean() > 0.1
    assert (drawn[gaps] == 255).all()
    opaque = on_screen.colors.copy()
    opaque[:, :3] *= opaque[:, 3:]
    rgba = on_screen.bins.picture(np.rint(opaque * 255).astype(np.uint8))
    panel = QImage(1000, 700, QImage.Format.Format_RGB32)
    panel.fill(Qt.GlobalColor.white)
    painter = QPainter(panel)
    place = Place(QRectF(0, 0, 1000, 700), (350.0, 500.0), 1.0)
    painted = Painted(rgba=rgba, bins=on_screen.bins, centers_um=on_screen.centers_um, colors=on_screen.colors)
    draw_content(painter, place, Content(None, painted, image_of(rgba), 1.0), 1.0)
    painter.end()
    found = np.array([panel.pixelColor(int(x), int(y)).getRgbF()[:3] for y, x in at[inside]])
    np.testing.assert_allclose(found, expected[inside], atol=0.02)


def test_bins_are_chosen_by_mouse_and_shown_in_the_dock(explore, wait, slide_path, model, tmp_path, qtbot, monkeypatch):
    from napari_cpnn.ui.compare.dock import Compare

    table = binned(rows=12, cols=14, step=(420.0, 500.0))
    table.write_h5ad(tmp_path / "bins.h5ad")
    other = explore(slide_path, show=True)
    wait(lambda: other.state.slide is not None)
    other.state.set_model(model)
    viewer = other.session.viewer
    dock = Compare(viewer)
    viewer.window.add_dock_widget(dock, name="Compare")
    try:
        viewer.open(str(tmp_path / "bins.h5ad"), plugin="napari-cpnn")
        wait(lambda: dock.controller.comparison.scores is not None)
        layer = dock.spots_layer.layer
        assert isinstance(getattr(layer, "__wrapped__", layer), Image)
        assert other.state.layer != layer
        assert other.state.slide.shape[:2] == (1536, 2048)  # it is no slide that was opened
        gene = dock.controller.comparison.gene
        assert layer.name == f"bins: {gene} measured"
        values = dock.controller.comparison.values("measured")
        expected = spot_colors(values, dock.controller.comparison.limits("measured"), other.state.look.colormap)
        um, world = um_of(table), um_of(table)
        np.testing.assert_allclose(pixels_of(layer, world) / 255, expected, atol=1 / 255)
        # The colour bar is that of the spots, and does not change their colours.
        dock.quantities["difference"].click()
        bar = dock.spots_key
        low, high = dock.controller.comparison.limits("difference")
        assert bar.title == f"spots: {gene} difference · log1p CP10k"
        drawn = getattr(layer, "__wrapped__", layer)._overlays["napari_cpnn_spots_bar"]
        assert drawn.visible
        source = getattr(getattr(layer, "__wrapped__", layer), drawn.colormanager_attribute)
        assert tuple(source.contrast_limits) == pytest.approx((low, high))
        assert tuple(layer.contrast_limits) == (0, 255)
        dock.quantities["measured"].click()
        assert (bar.title, drawn.visible) == ("", False)
        # A box around some bins, by the mouse on the canvas.
        dock.pick.setChecked(True)
        assert viewer.layers.selection.active == layer
        native = getattr(viewer, "__wrapped__", viewer).window._qt_viewer.canvas.native
        viewer.scene.camera.center, viewer.scene.camera.zoom = (400.0, 560.0), 1.0
        corner, opposite = np.array([380.0, 540.0]), np.array([480.0, 650.0])
        inside = np.flatnonzero(((um > corner + 2) & (um < opposite - 2)).all(axis=1))
        near = np.flatnonzero(((um > corner - 2) & (um < opposite + 2)).all(axis=1))
        start, end = place_on_canvas(viewer, corner, qtbot), place_on_canvas(viewer, opposite, qtbot)
        before = tuple(viewer.scene.camera.center)
        press(qtbot, native, start)
        move_mouse(native, (start + end) / 2, Qt.MouseButton.LeftButton)
        overlay = viewer.canvas.overlays["napari_cpnn_box_of_bins"]
        assert overlay.visible
        move_mouse(native, end, Qt.MouseButton.LeftButton)
        qtbot.mouseRelease(native, Qt.MouseButton.LeftButton, pos=end)
        assert not overlay.visible
        assert tuple(viewer.scene.camera.center) == before
        chosen = dock.controller.comparison.rows()[dock.scatter.rows]
        assert set(inside) <= set(chosen) <= set(near)
        assert dock.chosen.text() == f"{len(chosen)} of {table.n_obs} spots selected"
        assert (pixels_of(layer, world)[:, 3] == 255).sum() >= len(chosen)
        # A click takes one bin; with Shift another is added, and the same again is taken away; beside them, none.
        one, two = inside[0], inside[-1]
        shift = Qt.KeyboardModifier.ShiftModifier
        for row, modifier, expected_rows in (
            (one, Qt.KeyboardModifier.NoModifier, {one}),
            (two, shift, {one, two}),
            (two, shift, {one}),
        ):
            at = place_on_canvas(viewer, um[row], qtbot)
            qtbot.mouseClick(native, Qt.MouseButton.LeftButton, modifier, pos=at)
            assert set(dock.controller.comparison.rows()[dock.scatter.rows]) == expected_rows
        qtbot.mouseClick(
            native, Qt.MouseButton.LeftButton, pos=place_on_canvas(viewer, np.array([150.0, 250.0]), qtbot)
        )
        assert len(dock.scatter.rows) == 0
        # Without the button the mouse moves the view again.
        dock.pick.setChecked(False)
        assert layer.mouse_pan
        press(qtbot, native, start)
        move_mouse(native, end, Qt.MouseButton.LeftButton)
        qtbot.mouseRelease(native, Qt.MouseButton.LeftButton, pos=end)
        assert tuple(viewer.scene.camera.center) != before
        assert len(dock.scatter.rows) == 0
        viewer.dims.ndisplay = 3  # drawn there, too
        viewer.dims.ndisplay = 2
        viewer.layers.remove(layer)
        wait(lambda: dock.controller.spots.table is None)
        # Of very many the places are found beside the event loop.
        monkeypatch.setattr(spots_controller, "_MANY", 100)
        dock.controller.spots.use(table)
        assert dock.spots_layer.layer is None
        wait(lambda: dock.spots_layer.layer is not None and dock.controller.comparison.scores is not None)
        assert dock.spots_layer.layer.name == f"Spots: {dock.controller.comparison.gene} measured"
        expected = dock.controller.comparison.values("measured"), dock.controller.comparison.limits("measured")
        expected = spot_colors(*expected, other.state.look.colormap)
        np.testing.assert_allclose(pixels_of(dock.spots_layer.layer, world) / 255, expected, atol=1 / 255)
    finally:
        dock.shut_down()
        dock.background.close(wait=True)


def press(qtbot, native, at: QPoint) -> None:
    move_mouse(native, at)
    qtbot.mousePress(native, Qt.MouseButton.LeftButton, pos=at)
