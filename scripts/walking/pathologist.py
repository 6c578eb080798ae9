"""The pathologist: composition, nuclei, an explanation, two regions, a figure."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt

from walking.walk import C4, C4_MODEL, CONTROL, TISSUE, Walk, open_slide_by_menu, row_of, tour


def pathologist(walk: Walk, data: Path | None) -> None:
    """Browse the composition, zoom to nuclei, explain a place, compare two regions, export."""
    hand = walk.hand
    if data is None:
        tour(walk)
        walk.mapped()
    else:
        open_slide_by_menu(walk, data / C4["slide"])
        tour(walk)
        pixel_size(walk)
    explore = walk.dock("Explore")
    if data is not None:
        hand.choose(explore.model, C4_MODEL, "model-picker")
        hand.until(lambda: explore.state.map is not None, "a map", 120)
        hand.click(explore.whole)
    else:
        hand.click(explore.model)
        hand.pump(0.5)
        hand.picture(f"{len(hand.steps) + 1:02d}-model-picker")
        hand.press(Qt.Key.Key_Escape)
    walk.mapped()
    hand.step("model")
    browse(walk)
    nuclei(walk)
    explain_and_draw(walk)
    export(walk)


def pixel_size(walk: Walk) -> None:
    """Measure a known distance on the slide, then type what the scanner said."""
    hand, explore = walk.hand, walk.dock("Explore")
    box = explore.mpp_row
    hand.step("pixel-size-asked")
    hand.click(box.measure)
    hand.slide(0.35, 0.5)
    hand.slide(0.65, 0.5)
    hand.step("pixel-size-ruler")
    hand.click(box.measure)
    hand.write(box.mpp, "0.688", enter=False)
    hand.click(box.set)
    hand.until(lambda: explore.state.slide.mpp is not None, "the pixel size", 20)
    hand.step("pixel-size")


def browse(walk: Walk) -> None:
    """Dominant type, one type, a blend of two."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.click(explore.dominant)
    walk.mapped()
    hand.step("dominant")
    tree = explore.types.view
    hand.click(tree.viewport(), row_of(tree, 1))
    walk.mapped()
    hand.step("one-type")
    for row in (0, 1, 2):
        place = row_of(tree, row)
        place.setX(tree.visualRect(tree.model().index(row, 0)).left() + 8)
        hand.click(tree.viewport(), place)
    walk.mapped()
    hand.step("blend")


def nuclei(walk: Walk) -> None:
    """Zoom to cells: the map fades, H shows the tissue alone; a lens; back to the whole slide."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.click(explore.dominant)
    hand.wheel(*TISSUE, 9)
    walk.mapped()
    hand.step("10x")
    hand.wheel(*TISSUE, 6)
    walk.mapped()
    hand.step("nuclei")
    hand.hold(Qt.Key.Key_H)
    hand.step("peek")
    hand.release(Qt.Key.Key_H)
    hand.wheel(*TISSUE, -6)
    hand.move(0.3, 0.4)
    hand.press(Qt.Key.Key_G, widget=hand.canvas)
    hand.move(*TISSUE)
    walk.mapped()
    hand.step("lens")
    hand.press(Qt.Key.Key_G, widget=hand.canvas)
    hand.press(Qt.Key.Key_R, CONTROL, hand.canvas)
    walk.mapped()
    hand.step("whole-slide-again")


def explain_and_draw(walk: Walk) -> None:
    """Ask what makes a gene at a place; draw two regions; read and compare them."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.write(explore.gene, "ERBB2")
    walk.mapped()
    hand.step("gene")
    regions = walk.open("Regions", "Regions")
    hand.step("regions-dock")
    hand.tab(regions.tabs.tabBar(), "Explain")
    hand.slide(*TISSUE)
    hand.until(lambda: regions.controller.explanation is not None and regions.is_settled, "an explanation", 60)
    hand.step("explain")
    hand.click(regions.draw)
    for corners in (
        ((0.2, 0.35), (0.32, 0.3), (0.4, 0.45), (0.25, 0.5)),
        ((0.2, 0.55), (0.33, 0.55), (0.35, 0.65), (0.25, 0.7)),
    ):
        for corner in corners:
            hand.slide(*corner)
        hand.slide(*corners[-1], double=True)
        hand.pump(0.4)
    hand.click(regions.draw)
    hand.until(lambda: len(regions.controller.regions) == 2, "two regions", 20)
    hand.step("two-regions-drawn")
    hand.tab(regions.tabs.tabBar(), "Composition")
    if regions.map.isVisible():
        hand.click(regions.map)
    hand.until(lambda: not regions.controller.needs_mapping() and regions.is_settled, "regions are measured", 120)
    hand.step("regions-table")
    hand.tab(regions.tabs.tabBar(), "Compare")
    hand.until(lambda: regions.controller.comparison is not None and regions.is_settled, "regions are compared", 60)
    hand.pump(1)
    hand.step("regions-compared")
    hand.files(walk.out / "regions.geojson")
    hand.click(regions.write)
    hand.until((walk.out / "regions.geojson").exists, "the GeoJSON", 30)
    hand.step("geojson")


def export(walk: Walk) -> None:
    """Write the figure on screen."""
    hand, explore = walk.hand, walk.dock("Explore")
    hand.dock("Explore")
    hand.click(explore.export)
    hand.pump(0.5)
    dialog = explore.export.dialog
    hand.choose(dialog.kind, "Figure", "export-formats")
    hand.step("export-dialog")
    target = walk.out / "figure.png"
    hand.write(dialog.path, str(target), enter=False)
    hand.keys -= len(str(target))  # a name that a dialog would give
    hand.click(dialog.start)
    hand.until(lambda: target.exists() and not dialog.controller.running, "the figure", 120)
    hand.step("exported")
