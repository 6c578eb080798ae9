"""Gene sets that can be shown, and the choice of their genes for the model. No Qt here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cpnn.counts import GeneSet, builtin_gene_sets, gene_list, load_aliases, read_gene_sets
from napari_cpnn.errors import CpnnError, MappingError
from napari_cpnn.mapping import GeneChoice, choose_genes, gene_sets_of, marker_sets, require_some, rule_text
from napari_cpnn.ui.frame import Tasks
from napari_cpnn.ui.viewer import ExploreState, Shown

if TYPE_CHECKING:
    from napari_cpnn.ui.frame import Background

#: Choices of the genes that count: those with a trusted scale, from a held-out correlation on, or all.
LIMITS: dict[float | None, str] = {
    None: "trusted genes", 0.1: "PCC from 0.1", 0.2: "PCC from 0.2", 0.3: "PCC from 0.3", 0.4: "PCC from 0.4",
    -1.0: "all genes",
}  # fmt: skip


@dataclass(frozen=True)
class ChosenSet:
    """A gene set with the genes that count for the present model."""

    gene_set: GeneSet
    choices: tuple[GeneChoice, ...]
    rule: str

    @property
    def text(self) -> str:
        """Number of genes and their mean score, on one line."""
        used = [choice for choice in self.choices if not choice.reason]
        scores = [choice.held_out_pcc for choice in used if not math.isnan(choice.held_out_pcc)]
        score = f" · mean held-out PCC {sum(scores) / len(scores):.2f}" if scores else ""
        return f"{len(used)} of {len(self.choices)} genes{score}"


class Signatures:
    """Sets of genes of the Explore dock: built-in, markers of the model's cell types, from files, and pasted.

    Attributes
    ----------
    chosen
        The set on screen; None if something else is shown.
    message
        Why a set cannot be shown; else empty.
    """

    changed = Signal()
    sets_changed = Signal()

    def __init__(self, state: ExploreState, background: Background, notify: Callable[[CpnnError], None]) -> None:
        self._state = state
        self._tasks = Tasks(background, notify)
        self.chosen: ChosenSet | None = None
        self.message = ""
        self._markers: tuple[GeneSet, ...] = ()
        self._first = ""  # what is to be shown when there is a model
        state.model_changed.connect(self._model_changed)
        state.shown_changed.connect(self._shown_changed)
        # The table of aliases is read before the first synonym is typed.
        self._tasks.run("aliases", "", load_aliases, lambda _: None)

    @property
    def least_pcc(self) -> float | None:
        """Least held-out correlation of the genes that count; ``None``: those with a trusted scale."""
        return self._state.least_pcc

    @property
    def sets(self) -> list[GeneSet]:
        """All sets, those that the user added first."""
        return [*self._state.gene_sets, *builtin_gene_sets(), *self._markers]

    def find(self, name: str) -> GeneSet | None:
        """Return the set of a name."""
        return next((one for one in self.sets if one.name == name), None)

    @property
    def is_choosing(self) -> bool:
        """True while the genes of a set are being chosen, or the first set waits for a model."""
        return bool(self._first) or any(map(self._tasks.is_running, ("first", "choose")))

    @property
    def is_shown(self) -> bool:
        """True while a signature is on screen."""
        return self._state.shown is not None and self._state.shown.kind == "signature"

    @property
    def problem(self) -> CpnnError | None:
        """Why the last set is not shown."""
        return self._tasks.problem or (MappingError(self.message) if self.message else None)

    def show_first(self, text: str) -> None:
        """Show sets as soon as a model is loaded; ``text`` as for :func:`~napari_cpnn.mapping.gene_sets_of`."""
        self._first = text
        if self._state.model is not None:
            self._show_first()

    def choose(self, name: str) -> None:
        """Show a set; its genes are chosen in the background."""
        gene_set, model, least = self.find(name), self._state.model, self.least_pcc
        if gene_set is None or model is None:
            return
        self.message = ""
        trust, genes = model.trust, model.genes
        least = None if trust is None else least

        def ready(choices: tuple[GeneChoice, ...]) -> None:
            self.chosen = ChosenSet(gene_set, choices, rule_text(trust, least))
            try:
                used = [choice.gene for choice in require_some(gene_set, choices)]
            except CpnnError as error:
                self.message = str(error)
                self.changed.emit()
                return
            self._state.choose_shown(Shown("signature", (gene_set.name, *used)))
            self.changed.emit()

        self._tasks.run("choose", "", lambda: choose_genes(gene_set, genes, trust, least), ready)

    def set_least_pcc(self, least: float | None) -> None:
        """Change which genes count, also in the set on screen."""
        self._state.least_pcc = least
        if self.chosen is not None:
            self.choose(self.chosen.gene_set.name)

    def add_file(self, path: Path) -> None:
        """Add the sets of a file, and show the first."""
        self._tasks.run("file", "", lambda: read_gene_sets(path), self._add)

    def add_list(self, text: str, name: str = "pasted genes") -> None:
        """Add a pasted list of genes, and show it."""
        one = gene_list(text, name)
        if one.genes:
            self._add([one])
        else:
            self.message = "The list has no gene; paste names on lines of their own, or separated by commas."
            self.changed.emit()

    def close(self) -> None:
        """Ignore the results of running tasks."""
        self._tasks.close()
        self._state.model_changed.disconnect(self._model_changed, missing_ok=True)
        self._state.shown_changed.disconnect(self._shown_changed, missing_ok=True)

    def _show_first(self) -> None:
        text, self._first, model = self._first, "", self._state.model
        if text and model is not None:
            self._tasks.run("first", "", lambda: gene_sets_of(model.decoder(), text), self._add)

    def _add(self, sets: Sequence[GeneSet]) -> None:
        new = [one for one in sets if self.find(one.name) != one]
        names = {one.name for one in new}
        self._state.gene_sets = [*new, *(one for one in self._state.gene_sets if one.name not in names)]
        self.sets_changed.emit()
        self.choose(sets[0].name)

    def _model_changed(self) -> None:
        model = self._state.model
        self._markers = ()
        self._tasks.forget("choose")
        if model is not None:
            self._tasks.run("markers", "", lambda: marker_sets(model.decoder()), self._markers_found)
            if self.chosen is not None:
                self.choose(self.chosen.gene_set.name)
            self._show_first()
        self.sets_changed.emit()

    def _markers_found(self, markers: tuple[GeneSet, ...]) -> None:
        self._markers = markers
        self.sets_changed.emit()
        if self.is_shown and self.chosen is None:
            self._shown_changed()

    def _shown_changed(self) -> None:
        shown = self._state.shown
        name = shown.name if shown is not None and shown.kind == "signature" else ""
        if self._tasks.is_running("choose") or (self.chosen is not None and self.chosen.gene_set.name == name):
            return
        self.chosen, self.message = None, ""
        gene_set, model = self.find(name), self._state.model
        if gene_set is not None and model is not None:  # undone, or of the last time the slide was open
            trust, genes = model.trust, model.genes
            least = None if trust is None else self.least_pcc

            def ready(choices: tuple[GeneChoice, ...]) -> None:
                self.chosen = ChosenSet(gene_set, choices, rule_text(trust, least))
                self.changed.emit()

            self._tasks.run("known", "", lambda: choose_genes(gene_set, genes, trust, least), ready)
        self.changed.emit()
