"""Scores in regions of a slide, and on slides that were compared before. No Qt here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cpnn.ui.frame import Tasks

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_cpnn.regions import Region
    from napari_cpnn.ui.compare.comparison import Comparison


class RegionScores:
    """Scores of all genes for each region of the slide, and for each slide that the model was compared on."""

    changed = Signal()

    def __init__(self, comparison: Comparison, tasks: Tasks) -> None:
        self._comparison, self._tasks = comparison, tasks
        self._regions: dict[str, pd.DataFrame] = {}
        self._slides: dict[str, pd.DataFrame] = {}

    def score(self, regions: Sequence[Region]) -> None:
        """Score every gene in some regions; without any, drop the scores of regions."""
        compared, spots = self._comparison.compared, self._comparison.spots
        if compared is None or spots is None or not regions:
            self._tasks.forget("regions")
            self._set_regions({})
            return
        table: AnnData = spots

        def work() -> dict[str, pd.DataFrame]:
            from napari_cpnn.evaluation import score_regions

            return score_regions(compared, table, regions)

        self._tasks.run("regions", f"Scoring {len(regions)} regions ...", work, self._set_regions)

    def add_slide(self, scores: pd.DataFrame) -> None:
        """Keep the scores of a slide."""
        self._slides[str(scores.attrs.get("slide"))] = scores

    def clear(self, *, slides: bool) -> None:
        """Drop the scores of regions, and those of slides too after a change of the model."""
        self._regions = {}
        if slides:
            self._slides = {}

    def table(self) -> pd.DataFrame | None:
        """Summarise the scores on the whole slide, in its regions and on other slides; see ``score_summary``."""
        scores = self._comparison.scores
        if scores is None:
            return None
        from napari_cpnn.evaluation import score_summary

        name = str(scores.attrs.get("slide", "this slide"))
        others = {other: table for other, table in self._slides.items() if other != name}
        return score_summary({f"All spots of {name}": scores, **self._regions, **others}, self._comparison.gene)

    def _set_regions(self, tables: dict[str, pd.DataFrame]) -> None:
        self._regions = tables
        self.changed.emit()
