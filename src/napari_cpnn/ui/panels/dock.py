"""The Panels dock: up to nine linked views of the same place instead of one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QListWidget, QMainWindow

from napari_cpnn.errors import CpnnError
from napari_cpnn.ui.frame import (
    Dock,
    TextLabel,
    add,
    bold_label,
    button,
    every,
    line,
    row,
    save_file,
    spacer,
    stop_timer,
)
from napari_cpnn.ui.layers import has_table, spots_of_layer
from napari_cpnn.ui.panels import presets
from napari_cpnn.ui.panels.add_box import AddBox
from napari_cpnn.ui.panels.canvas import PanelCanvas
from napari_cpnn.ui.panels.centre import Centre
from napari_cpnn.ui.panels.controller import PanelsController
from napari_cpnn.ui.panels.link import ViewLink
from napari_cpnn.ui.panels.outlines import OutlinesOnScreen
from napari_cpnn.ui.panels.panel import PanelSpec, Source
from napari_cpnn.ui.panels.readout import readout
from napari_cpnn.ui.viewer import read_preferences

if TYPE_CHECKING:
    import napari
    from anndata import AnnData

    from napari_cpnn.settings import MappingSettings

UPDATE_MS = 120
"""Interval between looks at whether maps have changed."""

_FIGURES = "Figures (*.png *.pdf *.svg)"


class Panels(Dock):
    """napari widget that puts panels in the place of the single view, with the list of them and presets.

    Maps of further models have the given settings, or by default the user's preferences.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, settings: MappingSettings | None = None) -> None:
        super().__init__(napari_viewer, "panels")
        self._settings = settings
        self.controller = PanelsController(
            self.state, self.background, self.notify, self._mapping_settings, self._spots
        )
        self.link = ViewLink(napari_viewer, self.state, self._view_moved)
        self.outlines = OutlinesOnScreen(napari_viewer, self.state, self._redraw)
        self.canvas = PanelCanvas(self.controller, self.link, self.outlines, self.background)
        self._centre: Centre | None = None
        self._build()
        self._connect()
        self._fill()
        self._panels_changed()
        self._updates = every(UPDATE_MS, self._update, self)
        self._updates.start()

    @property
    def is_settled(self) -> bool:
        """True when all panels show all that is in view."""
        return self.controller.is_settled and self.canvas.is_settled

    @property
    def are_shown(self) -> bool:
        """Whether the panels are in the place of the single view."""
        return self._centre is not None

    def _mapping_settings(self) -> MappingSettings:
        return read_preferences(self.notify).mapping if self._settings is None else self._settings

    def _spots(self) -> AnnData | None:
        """Return the spots of the Compare dock, or of a layer."""
        if self.state.measured is not None:
            return self.state.measured
        layer, slide = self.state.layer, self.state.slide
        for one in reversed(self.viewer.layers):
            if has_table(one) and slide is not None:
                try:
                    return spots_of_layer(one, layer, slide.mpp)
                except CpnnError:
                    continue
        return None

    # -- layout --------------------------------------------------------------------------------------------

    def _build(self) -> None:
        self.side_by_side = button("Side by side", "the panels, or the single view with its layers", checkable=True)
        self.presets: dict[str, Any] = {}
        grid = QGridLayout()
        texts = {
            "H&&E | overlay": (
                "the tissue alone, and what Explore shows",
                lambda: presets.tissue_overlay(self.controller),
            ),
            "Top 4 types": (
                "the four cell types with the largest share in view",
                lambda: presets.top_types(self.controller),
            ),
            "Measured | predicted": ("the gene below, or that of Explore, at the spots and on the map", self._measured),
            "Model A | model B": ("what Explore shows, and the same by the model chosen below", self._two_models),
            "Before | after": (
                "what Explore shows, by the model before fine-tuning (or the one shown before) and by this one",
                lambda: presets.before_after(self.controller),
            ),
            "Two slides": ("what Explore shows, on its slide and on the slide chosen below", self._two_slides),
        }
        for k, (text, (tip, make)) in enumerate(texts.items()):
            one = self.presets[text.replace("&&", "&")] = button(text, tip)
            one.clicked.connect(partial(self._preset, text.replace("&&", "&"), make))
            grid.addWidget(one, k // 2, k % 2)
        self.add_box = AddBox(self.viewer, self.controller)
        self.list = QListWidget()
        self.list.setToolTip("the panels, from the top left, row by row; Delete removes the chosen one")
        self.list.setMinimumHeight(110)
        self.remove = button("Remove", "remove the chosen panel")
        self.clear = button("Remove all", "remove all panels, and show the single view")
        self.export = button("Export figure ...", "all panels as one figure: PNG, PDF or SVG")
        self.notes, self.readout = TextLabel(), TextLabel()
        self.readout.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        add(self.column, self.first_row("Panels", self.side_by_side, spacer()), self.message, grid)
        add(self.column, line(), self.add_box, line(), self.list)
        add(self.column, row(self.remove, self.clear, spacer(), self.export))
        add(self.column, self.notes, line(), bold_label("Under the pointer"), self.readout)
        self.column.addStretch(1)

    def _connect(self) -> None:
        controller, state, layers = self.controller, self.state, self.viewer.layers.events
        self.listen(self._layers_changed, layers.inserted, layers.removed, layers.renamed)
        self.listen(self._fill, state.slide_changed, state.model_changed)
        self.listen(self.add_box.fill_signatures, state.shown_changed)
        self.listen(self._panels_changed, controller.changed)
        controller.tasks.message_changed.connect(self.message.show_text)
        self.message.show_text(controller.tasks.message)
        self.side_by_side.clicked.connect(self._toggle)
        self.list.currentRowChanged.connect(lambda _: self._enable())
        self.remove.clicked.connect(lambda: self._remove(self.list.currentRow()))
        self.clear.clicked.connect(lambda: controller.choose((), "no panels"))
        self.export.clicked.connect(self._export)
        self.canvas.remove_wanted.connect(self._remove)
        self.canvas.opened.connect(self._open)
        self.canvas.pointed.connect(self._pointed)

    def keyPressEvent(self, event: Any) -> None:  # noqa: N802 (Qt's name)
        if event.key() == Qt.Key.Key_Delete and self.list.hasFocus():
            self._remove(self.list.currentRow())
        else:
            super().keyPressEvent(event)

    def _end(self, *, viewer_lives: bool) -> None:
        """Put the single view back and stop all further maps."""
        stop_timer(self._updates)
        self.link.stop()
        self.canvas.stop()
        if viewer_lives:
            self.outlines.stop()
            self._show_single()
            self.canvas.deleteLater()
        self._centre = None  # it knows the widgets of the window, which must not outlive it
        self.controller.close()

    # -- choices -------------------------------------------------------------------------------------------

    def _layers_changed(self, event: Any) -> None:
        if event.type == "removed":
            self.controller.layer_removed(event.value)
        self._fill()

    def _fill(self) -> None:
        self.add_box.fill()
        self._enable()

    def _preset(self, text: str, make: Any, _checked: bool = False) -> None:
        try:
            panels = make()
        except CpnnError as error:
            self.controller.tasks.fail(error)
            return
        self.controller.choose(panels, f"panels {text}")

    def _measured(self) -> list[PanelSpec]:
        shown, typed = self.state.shown, self.add_box.gene.text().strip()
        gene = self.controller.gene(typed) if typed else "" if shown is None else shown.gene
        return presets.measured_predicted(self.controller, gene)

    def _two_models(self) -> list[PanelSpec]:
        return presets.two_models(self.controller, self.add_box.chosen_model())

    def _two_slides(self) -> list[PanelSpec]:
        return presets.two_slides(self.controller, self.add_box.chosen_slide())

    def _remove(self, number: int) -> None:
        if 0 <= number < len(self.controller.panels):
            self.controller.remove(number)

    def _open(self, number: int) -> None:
        """Show a panel alone: leave the panels, and show in the single view what this one shows."""
        spec = self.controller.panels[number]
        if spec.kind == "map" and spec.shown is not None and spec.source == Source():
            self.state.choose_shown(spec.shown)
        self._show_single()
        self._enable()

    def _export(self) -> None:
        from napari_cpnn.ui.export import marks_on_screen

        layer, slide = self.state.layer, self.state.slide
        marks = (
            None
            if layer is None or slide is None or slide.mpp is None
            else marks_on_screen(self.viewer, layer, slide.mpp)
        )
        start = "panels.png" if slide is None or slide.path is None else str(slide.path.with_name("panels.png"))

        def write(name: str) -> None:
            path = Path(name) if Path(name).suffix else Path(f"{name}.png")
            self.controller.export(path, marks, overwrite=True)

        save_file(self, "Export the panels", start, _FIGURES, write)

    # -- panels or single view -----------------------------------------------------------------------------

    def _toggle(self, on: bool) -> None:
        if on and not self.controller.panels:
            self._preset("H&E | overlay", lambda: presets.tissue_overlay(self.controller))
        elif on:
            self._show_side_by_side()
        else:
            self._show_single()
        self._enable()

    def _show_side_by_side(self) -> None:
        window = self._main_window()
        if self._centre is None and window is not None:
            self._centre = Centre(window, self.canvas)
            self.canvas.setFocus()
        self.canvas.arrange()

    def _show_single(self) -> None:
        centre, self._centre = self._centre, None
        if centre is not None:
            centre.leave()

    def _main_window(self) -> QMainWindow | None:
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QMainWindow):
            parent = parent.parentWidget()
        return parent

    def _panels_changed(self) -> None:
        chosen = self.list.currentRow()
        self.list.clear()
        self.list.addItems(self.controller.titles())
        self.list.setCurrentRow(min(chosen, self.list.count() - 1))
        if self.controller.panels:
            self._show_side_by_side()
        else:
            self._show_single()
        self._enable()

    def _enable(self) -> None:
        some = bool(self.controller.panels)
        for one in (self.clear, self.export):
            one.setEnabled(some)
        self.remove.setEnabled(some and self.list.currentRow() >= 0)
        self.side_by_side.setChecked(self.are_shown)
        self.presets["Two slides"].setEnabled(self.add_box.slide.count() > 1)
        self.presets["Model A | model B"].setEnabled(self.add_box.model.count() > 1)

    # -- updates -------------------------------------------------------------------------------------------

    def _view_moved(self) -> None:
        if self.are_shown:
            self.canvas.follow()

    def _redraw(self) -> None:
        self.canvas.update()

    def _update(self) -> None:
        controller, explore = self.controller, self.state.docks.get("Explore")
        controller.sources.set_live(explore is None or explore.has_ended or explore.controller.live)
        if self.are_shown:
            controller.update()
            self.outlines.update()
            self.canvas.follow_if_new()
        else:
            controller.tasks.update()
        for k, title in enumerate(controller.titles()):
            item = self.list.item(k)
            if item is not None and item.text() != title:  # the name of a model that was loaded meanwhile
                item.setText(title)
        text = " ".join(note for note in (controller.scale_note, controller.style_note, controller.cost_note) if note)
        if text != self.notes.text():
            self.notes.show_text(text)

    def _pointed(self, um: tuple[float, float] | None) -> None:
        self.readout.setText("\n".join(readout(self.controller, um)) or "move the mouse over a panel")
