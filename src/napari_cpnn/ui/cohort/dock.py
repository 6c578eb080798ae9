"""The Cohort dock: the slides of a run over a cohort, as a gallery and a table, also while it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtWidgets import QProgressBar, QTabWidget
from superqt.utils import qdebounced

from napari_cpnn.ui.cohort.controller import CohortController
from napari_cpnn.ui.cohort.groups_page import GroupsPage
from napari_cpnn.ui.cohort.opening import SlideOpener
from napari_cpnn.ui.cohort.outcome_page import OutcomePage
from napari_cpnn.ui.cohort.slides_page import SlidesPage
from napari_cpnn.ui.cohort.typed_controller import TypedController
from napari_cpnn.ui.cohort.typed_page import TypedPage
from napari_cpnn.ui.frame import (
    Dock,
    TextLabel,
    add,
    button,
    every,
    frame_of,
    open_file,
    open_folder,
    spacer,
    stop_timer,
)

if TYPE_CHECKING:
    import napari

#: Interval between looks into the folder of a run that goes on; one that does not is looked at less often.
_LOOK_MS, _SELDOM = 1500, 6
_FRONT_MS = 150
_MANIFESTS = "Manifests (*.csv *.tsv *.txt *.xlsx *.h5ad);;All files (*)"


class CohortDock(Dock):
    """napari widget with the slides of a run, their comparison by groups, and a way into each slide."""

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__(napari_viewer, "cohort")
        self.controller = CohortController(self.background, self.notify, lambda: self.state.look.colormap)
        self.typed_controller = TypedController(self.controller, self.state, self._show_explore)
        self.opener = SlideOpener(
            napari_viewer, self.state, self.background, self.controller, self._show_explore, self.typed_controller
        )
        self._colormap = self.state.look.colormap
        self._looks = 0
        self._front_later = qdebounced(self._to_front, timeout=_FRONT_MS, parent=self)
        self.timer = every(_LOOK_MS, self._look, self)
        self._build()
        self._connect()
        self.accept_drops(self._dropped)
        self._status_changed()
        self.message.show_text(self.controller.message)
        self.timer.start()

    def _build(self) -> None:
        self.open_run = button("Open run ...", "the folder that napari-cpnn cohort run writes, also while it does")
        self.open_manifest = button("Manifest ...", "a table of the slides; its columns are added, such as outcomes")
        self.text = TextLabel()
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(8)
        self.slides = SlidesPage(self.controller)
        self.groups = GroupsPage(self.controller)
        self.typed = TypedPage(self.typed_controller, self.slides)
        self.outcome = OutcomePage(self.controller)
        self.tabs = QTabWidget()
        self.tabs.addTab(self.slides, "Slides")
        self.tabs.addTab(self.groups, "Groups")
        self.tabs.addTab(self.typed, "Cell types")
        self.tabs.addTab(self.outcome, "Outcome")
        first = self.first_row("Cohort", spacer(), self.open_run, self.open_manifest)
        add(self.column, first, self.text, self.bar, self.message)
        self.column.addWidget(self.tabs, 1)
        self.column.addStretch(0)
        self._content_changed()

    def _connect(self) -> None:
        controller = self.controller
        self.open_run.clicked.connect(lambda: open_folder(self, "Open the folder of a run", controller.open))
        self.open_manifest.clicked.connect(lambda: open_file(self, "Open a manifest", _MANIFESTS, controller.open))
        self.slides.wanted.connect(self.opener.open)
        controller.message_changed.connect(self.message.show_text)
        controller.status_changed.connect(self._status_changed)
        controller.opened.connect(self._status_changed)
        controller.tables_changed.connect(self._content_changed)
        self.listen(self.opener.mapper_changed, self.state.mapper_changed)
        self.listen(self._look_changed, self.state.look_changed)
        self.listen(self._slide_changed, self.state.slide_changed)

    def _dropped(self, paths: list[Path]) -> None:
        if paths and paths[0].suffix.lower() == ".safetensors":
            self.tabs.setCurrentWidget(self.typed)
            self.typed_controller.open(paths[0])
        elif paths:
            self.controller.open(paths[0])

    def _look(self) -> None:
        """Look whether the run has gone on, while the dock can be seen."""
        self._looks += 1
        status = self.controller.status
        going_on = status is not None and status.holder is not None
        if self.isVisible() and (going_on or self._looks % _SELDOM == 0):
            self.controller.look()

    def _status_changed(self) -> None:
        status = self.controller.status
        self.text.show_text(self.controller.text)
        going_on = status is not None and status.holder is not None
        self.bar.setVisible(going_on)
        if status is not None and going_on:
            self.bar.setRange(0, max(status.slides, 1))
            self.bar.setValue(status.done + len(status.failed))

    def _content_changed(self) -> None:
        """Show the tabs once there are slides; cell types need none but the one that is open."""
        has_slides = self.controller.slides is not None
        first = has_slides and not self.tabs.isTabVisible(self.tabs.indexOf(self.slides))
        for page, there in (
            (self.slides, has_slides),
            (self.groups, self.controller.tables is not None),
            (self.outcome, has_slides),
        ):
            self.tabs.setTabVisible(self.tabs.indexOf(page), there)
        if first and self.typed_controller.files is None:
            self.tabs.setCurrentWidget(self.slides)

    def _look_changed(self) -> None:
        """Take the colour map that Explore has."""
        if self.state.look.colormap != self._colormap:
            self._colormap = self.state.look.colormap
            self.controller.repaint()

    def _slide_changed(self) -> None:
        """Select the slide that is explored, if it is one of the cohort."""
        slide, slides = self.state.slide, self.controller.slides
        if slide is None or slides is None or slide.path is None:
            return
        names = slides.index[slides["path"].astype(str) == str(slide.path)]
        if len(names):
            self.slides.select(str(names[0]))

    def _show_explore(self) -> None:
        """Open Explore, if it is not open, and stay in front of it."""
        if not self.state.is_open("Explore"):
            self.open_explore()
            self._front_later()

    def _to_front(self) -> None:
        frame = frame_of(self)
        if frame is not None:
            frame.raise_()

    def _end(self, *, viewer_lives: bool) -> None:
        stop_timer(self.timer)
        self._front_later.cancel()
        self.opener.close(viewer_lives=viewer_lives)
        self.controller.close()
