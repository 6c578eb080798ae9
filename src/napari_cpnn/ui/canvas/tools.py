"""Row of tools on the canvas: lens, overview and measuring, with the keys of the canvas."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QCompleter, QMainWindow, QWidget

from napari_cpnn.painting import Shown, knows_interval
from napari_cpnn.ui.canvas import commands
from napari_cpnn.ui.canvas.keys import CanvasKeys, help_text
from napari_cpnn.ui.canvas.lens import Lens
from napari_cpnn.ui.canvas.measuring import Measuring, Tool
from napari_cpnn.ui.canvas.overview import Overview, canvas_of
from napari_cpnn.ui.canvas.peek import Peek
from napari_cpnn.ui.canvas.stepping import neighbour
from napari_cpnn.ui.frame import (
    Background,
    TextLabel,
    add,
    button,
    find_gene,
    plain,
    row,
    slim_combo,
    spacer,
    stack,
    tool_button,
    unknown_gene_text,
)
from napari_cpnn.ui.viewer import ExploreState

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_cpnn.mapping import Viewport

_STYLES = ("wash", "contours", "patches")
_ALONE, _DOMINANT = "H&E alone", "dominant type"
_WHEEL = "Shift and the wheel change its size"


class CanvasTools(QWidget):
    """Switches for what lies on the canvas, and what its keys do (:class:`~napari_cpnn.ui.canvas.keys.Actions`).

    Parameters
    ----------
    viewer, state, background
        As of a dock.
    hide_map, is_map
        As for :class:`~napari_cpnn.ui.canvas.peek.Peek`.
    types, genes
        Return the names of cell types and genes in the order of their lists.
    toggle_live
        Pauses or resumes mapping.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        state: ExploreState,
        background: Background,
        *,
        hide_map: Callable[[bool], None],
        is_map: Callable[[Layer], bool],
        types: Callable[[], Sequence[str]],
        genes: Callable[[], Sequence[str]],
        toggle_live: Callable[[], None],
    ) -> None:
        super().__init__()
        self._viewer, self._state, self._background = viewer, state, background
        self._types, self._genes, self.toggle_live = types, genes, toggle_live
        self._view: Viewport | None = None
        self._ended = False
        self.held = Peek(viewer, hide_map, is_map)
        self.lens_shown: Lens = Lens(viewer, state, background)
        self.measuring = Measuring(viewer, state)
        self.minimap: Overview | None = None
        self._build()
        self._keys = CanvasKeys(viewer, self)
        commands.offer(viewer, self)
        self.lens.toggled.connect(self.lens_shown.set_on)
        self.lens_shown.on_changed.connect(lambda on: self.lens.setChecked(on))  # noqa: PLW0108 -- psygnal asks for a signature
        self.inside.activated.connect(self._inside_chosen)
        entry = self.inside.lineEdit()
        if entry is not None:
            entry.editingFinished.connect(self._inside_chosen)
        self.overview.toggled.connect(self._overview_toggled)
        self.distance.clicked.connect(lambda on: self._measure("distance" if on else None))
        self.area.clicked.connect(lambda on: self._measure("area" if on else None))
        state.model_changed.connect(self._fill_inside)
        state.slide_changed.connect(self._slide_changed)
        viewer.layers.selection.events.active.connect(self._mode_changed)
        _application().focusChanged.connect(self._focus_changed)
        self._fill_inside()
        self._slide_changed()

    def _build(self) -> None:
        self.lens = button(
            "Lens", plain("a circle around the pointer that shows something else\n" + _WHEEL), checkable=True
        )
        self.inside = slim_combo(
            "what the lens shows: H&E alone, the dominant type, or a cell type or gene; type a name"
        )
        self.inside.setEditable(True)
        self.inside.setInsertPolicy(self.inside.InsertPolicy.NoInsert)
        completer = self.inside.completer()
        if completer is not None:
            completer.setFilterMode(Qt.MatchFlag.MatchContains)
            completer.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)
        self.overview = button("Overview", "the whole slide in a corner, with the view", checkable=True)
        self.overview.setChecked(True)
        self.distance = button("Distance", "draw lines: their lengths in µm", checkable=True)
        self.area = button("Area", "click around some tissue, double-click to end: its area in mm²", checkable=True)
        self.note = TextLabel()
        self.note.hide()
        self.keys = tool_button("⌨", plain(f"keys, with the pointer over the slide:\n{help_text()}"))
        self.keys.setAccessibleName("keys")
        lens = row(self.lens, self.inside)
        lens.setStretch(1, 1)
        add(stack(inside=self), lens, self.note, row(self.overview, self.distance, self.area, spacer(), self.keys))

    # -- the view ------------------------------------------------------------------------------------------

    def set_view(self, view: Viewport | None) -> None:
        """Follow the view."""
        self._view = view
        if self.minimap is None and not self._ended:
            self._add_overview()
        if self.minimap is not None:
            self.minimap.set_view(view)
        self.lens_shown.set_view(view)

    def _add_overview(self) -> None:
        """Add the overview to the canvas; there is none before this widget is in napari's window."""
        parent: QWidget | None = self
        while parent is not None and not isinstance(parent, QMainWindow):
            parent = parent.parentWidget()
        canvas = None if parent is None else canvas_of(parent)
        if canvas is not None:
            self.minimap = Overview(self._viewer, self._state, self._background, canvas)
            self.minimap.set_picture_wanted(self.overview.isChecked())

    def _overview_toggled(self, on: bool) -> None:
        if self.minimap is not None:
            self.minimap.set_picture_wanted(on)

    # -- actions of keys -----------------------------------------------------------------------------------

    def peek(self, on: bool) -> None:
        """Show H&E alone while a key is held."""
        self.held.set_on(on)

    def change_opacity(self, by: float) -> None:
        """Change the opacity of the map, between 0 and 1."""
        opacity = round(min(max(self._state.look.opacity + by, 0.0), 1.0), 3)
        self._state.choose_look(opacity=opacity)

    def step(self, by: int) -> None:
        """Show the next or the previous gene, or cell type, of its list."""
        shown = neighbour(self._state.shown, self._types(), self._genes(), by)
        model = self._state.model
        if shown is None or model is None:
            return
        if shown.measure == "interval" and not knows_interval(model, shown):
            shown = dataclasses.replace(shown, measure="value")
        self._state.choose_shown(shown)

    def toggle_legend(self) -> None:
        """Show or hide the legend on the canvas."""
        self._state.choose_look(legend=not self._state.look.legend)

    def next_style(self) -> None:
        """Draw the map as a wash, as contours, or as outlines of patches."""
        at = _STYLES.index(self._state.look.style)
        self._state.choose_look(style=_STYLES[(at + 1) % len(_STYLES)])

    def toggle_lens(self) -> None:
        """Switch the lens on or off."""
        self.lens.toggle()

    # -- lens and measuring --------------------------------------------------------------------------------

    def _fill_inside(self) -> None:
        model, chosen = self._state.model, self.inside.currentText()
        names = [] if model is None else [*model.cell_types, *sorted(model.genes, key=str.upper)]
        first = [_ALONE, *([_DOMINANT] if model is not None and model.cell_types else [])]
        self.inside.clear()
        self.inside.addItems([*first, *names])
        self.inside.setCurrentIndex(max(self.inside.findText(chosen), 0))
        self._inside_chosen()

    def _inside_chosen(self, _index: int = 0) -> None:
        text = self.inside.currentText().strip()
        shown = self._named(text)
        if shown is None and text != _ALONE:
            self.note.show_text(unknown_gene_text(text) if text else "Choose what the lens shows, or type a name.")
            return
        self.note.show_text("")
        self.lens_shown.set_shown(shown)

    def _named(self, text: str) -> Shown | None:
        model = self._state.model
        if model is None or text == _ALONE:
            return None
        if text == _DOMINANT and model.cell_types:
            return Shown("dominant")
        if text in model.cell_types:
            return Shown("type", (text,))
        gene = find_gene(text, model.genes)
        return None if gene is None else Shown("gene", (gene,))

    def _measure(self, tool: Tool | None) -> None:
        self.measuring.start(tool)
        self._mode_changed()

    def _mode_changed(self, _event: Any = None) -> None:
        for box, tool in ((self.distance, "distance"), (self.area, "area")):
            box.setChecked(self.measuring.tool == tool)

    def _slide_changed(self) -> None:
        slide = self._state.slide
        known = slide is not None and slide.mpp is not None
        for box in (self.lens, self.distance, self.area):
            box.setEnabled(known)
        if not known:
            self.lens_shown.set_on(False)
            self.set_view(None)

    # -- the end -------------------------------------------------------------------------------------------

    def _focus_changed(self, *_widgets: Any) -> None:
        """End a peek when the key is released in another window, which napari does not notice."""
        self.held.set_on(False)

    def end(self, *, viewer_lives: bool) -> None:
        """Remove everything from the canvas; measurements stay."""
        if self._ended:
            return
        self._ended = True
        with suppress(TypeError, RuntimeError, AttributeError):  # Qt may have deleted this widget, or the program ends
            _application().focusChanged.disconnect(self._focus_changed)
        self._viewer.layers.selection.events.active.disconnect(self._mode_changed)
        self._state.model_changed.disconnect(self._fill_inside, missing_ok=True)
        self._state.slide_changed.disconnect(self._slide_changed, missing_ok=True)
        if viewer_lives:
            self.held.set_on(False)
            self._keys.stop()
        commands.offer(self._viewer, None)
        self.lens_shown.stop(viewer_lives=viewer_lives)
        self.measuring.stop(viewer_lives=viewer_lives)
        if viewer_lives and self.minimap is not None:
            self.minimap.end()
        self.minimap = None


def _application() -> Any:
    return QApplication.instance()
