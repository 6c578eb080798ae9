"""Controls of what a map shows of a gene or type, and at what scale."""

from __future__ import annotations

import dataclasses

from qtpy.QtGui import QStandardItemModel
from qtpy.QtWidgets import QComboBox, QGridLayout, QLabel, QWidget

from napari_cpnn.painting import FDR_CHOICES, Measure, Outline, knows_interval, scale_of
from napari_cpnn.settings import MAX_SCALE_UM
from napari_cpnn.ui.explore.gene_places import GenePlaces
from napari_cpnn.ui.explore.look_box import combo
from napari_cpnn.ui.frame import DecimalBox, TextLabel, plain
from napari_cpnn.ui.viewer import ExploreState, Shown

#: What can be shown, by its text; another one needs an entry here and a condition in :func:`has_measure`.
_MEASURES: dict[Measure, str] = {"value": "value", "interval": "interval width", "domain": "out-of-domain score"}
_SCALES = {"trusted": "auto: trusted", "patches": "single patches", "fixed": "fixed"}
_FIRST_UM = 500.0
_OUTLINES: dict[Outline, str] = {"none": "none", "high": "high", "low": "low (dashed)"}
_OUTLINE_TIP = (
    "places where the mean of the gene over a neighbourhood is above (high) or below (low) the median of the section;\n"
    "exports contain them, too"
)


def has_measure(state: ExploreState, shown: Shown | None, measure: Measure) -> bool:
    """Return whether something can be shown in place of the value of a quantity."""
    model = state.model
    if shown is None or model is None:
        return measure == "value"
    if measure == "interval":
        return knows_interval(model, shown)
    return measure == "value" or model.domain is not None


def with_measure(state: ExploreState, shown: Shown) -> Shown:
    """Return a gene or type as it is to be shown: its interval, while intervals are on screen and it has one."""
    now = state.shown
    keep = now is not None and now.measure == "interval" and has_measure(state, shown, "interval")
    return dataclasses.replace(shown, measure="interval") if keep else shown


class MeasureBox(QWidget):
    """Form that edits the measure of ``state.shown``, and the scale and outline of ``state.look``."""

    def __init__(self, state: ExploreState, places: GenePlaces, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state, self._places = state, places
        self.measure = combo(
            _MEASURES,
            "what the map shows of the gene or type\n"
            "interval width: distance of the ends between which nine of ten measured spots lie\n"
            "out-of-domain score: 0.5 is typical of the training tissue, above 0.95 is unlike it",
        )
        self.scale: QComboBox = combo(
            _SCALES,
            "the size of what is averaged\n"
            "auto: the finest scale at which this gene or type can be trusted; single patches where there is none\n"
            "single patches: one value per patch of the model\n"
            "fixed: the mean of the tissue patches in a disc of this diameter",
        )
        self.scale_um = DecimalBox()
        self.scale_um.setToolTip("diameter in µm of the discs over which the map is averaged")
        self.scale_um.setRange(0.0, MAX_SCALE_UM)
        self.scale_um.setDecimals(0)
        self.scale_um.setSingleStep(100)
        self.scale_um.setSuffix(" µm")
        self.outline: QComboBox = combo(_OUTLINES, _OUTLINE_TIP)
        self.fdr: QComboBox = combo(
            {fdr: f"FDR {100 * fdr:.0f} %" for fdr in FDR_CHOICES},
            "false discovery rate: the share of outlined places that may be wrong, as measured on held-out sections",
        )
        self.outline_note = TextLabel()
        self.outline_note.hide()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(6)
        grid.addWidget(QLabel("Map of"), 0, 0)
        grid.addWidget(self.measure, 0, 1, 1, 2)
        grid.addWidget(QLabel("Scale"), 1, 0)
        grid.addWidget(self.scale, 1, 1)
        grid.addWidget(self.scale_um, 1, 2)
        grid.addWidget(QLabel("Outline"), 2, 0)
        grid.addWidget(self.outline, 2, 1)
        grid.addWidget(self.fdr, 2, 2)
        grid.addWidget(self.outline_note, 3, 0, 1, 3)
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(2, 1)
        self.measure.activated.connect(self._measure_chosen)
        self.scale.activated.connect(self._scale_chosen)
        self.scale_um.editingFinished.connect(self._scale_edited)
        self.outline.activated.connect(self._outline_chosen)
        self.fdr.activated.connect(lambda i: state.choose_look(fdr=self.fdr.itemData(i)))
        places.changed.connect(self.update_outline)
        for changed in (state.look_changed, state.shown_changed, state.mapper_changed, state.model_changed):
            changed.connect(self.update_choices)
        self.update_choices()
        self.update_outline()

    def update_choices(self) -> None:
        """Show what is measured and at what scale, and which choices there are."""
        shown, scale = self._state.shown, self._state.look.scale_um
        self.measure.setCurrentIndex(0 if shown is None else list(_MEASURES).index(shown.measure))
        _enable(self.measure, [has_measure(self._state, shown, measure) for measure in _MEASURES])
        mode = "trusted" if scale is None else "fixed" if scale else "patches"
        self.scale.setCurrentIndex(list(_SCALES).index(mode))
        self.scale.setEnabled(shown is not None and shown.measure == "value" and shown.has_range)
        self.scale_um.setVisible(mode == "fixed")
        self.scale_um.setEnabled(self.scale.isEnabled())
        if scale and not self.scale_um.hasFocus():
            self.scale_um.setValue(scale)

    def update_outline(self) -> None:
        """Show what is outlined, which choices there are, and why there are no others."""
        look, places = self._state.look, self._places
        reasons = {side: places.reason(side) for side in ("high", "low")}
        offered = [True, *(not reason for reason in reasons.values())]
        self.outline.setCurrentIndex(list(_OUTLINES).index(look.outline))
        _enable(self.outline, offered)
        self.outline.setEnabled(not places.is_foreign and (look.outline != "none" or any(offered[1:])))
        self.outline.setToolTip(plain("\n".join([_OUTLINE_TIP, *dict.fromkeys(filter(None, reasons.values()))])))
        self.fdr.setCurrentIndex(FDR_CHOICES.index(look.fdr))
        self.fdr.setEnabled(places.is_asked and not places.is_foreign)
        self.outline_note.show_text(places.note)

    def _outline_chosen(self, index: int) -> None:
        side = self.outline.itemData(index)
        if side == "none" or not self._places.reason(side):
            self._state.choose_look(outline=side)
        else:
            self.update_outline()

    def _measure_chosen(self, index: int) -> None:
        measure, shown = self.measure.itemData(index), self._state.shown
        if shown is not None and has_measure(self._state, shown, measure):
            self._state.choose_shown(dataclasses.replace(shown, measure=measure))

    def _scale_chosen(self, index: int) -> None:
        mode, cmap, shown = self.scale.itemData(index), self._state.map, self._state.shown
        # A fixed scale starts as the one on screen.
        now = 0.0 if cmap is None or shown is None else scale_of(cmap, shown, self._state.look.scale_um)
        scales: dict[str, float | None] = {"trusted": None, "patches": 0.0, "fixed": now or _FIRST_UM}
        self._state.choose_look(scale_um=scales[mode])

    def _scale_edited(self) -> None:
        if self.scale_um.value() > 0:
            self._state.choose_look(scale_um=self.scale_um.value())


def _enable(box: QComboBox, offered: list[bool]) -> None:
    """Enable the items of a combo box that can be chosen."""
    model = box.model()
    for i, on in enumerate(offered):
        if isinstance(model, QStandardItemModel) and (item := model.item(i)) is not None:
            item.setEnabled(on)
