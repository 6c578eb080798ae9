"""Report of a cross-validation from its folder: comparison of heads, and a figure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd
from anndata import AnnData

from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import read_table, write_table
from napari_cpnn.settings import EvaluationSettings
from napari_cpnn.slides import Slide
from napari_cpnn.studies.comparison import HeldOutSlide, compare_heads
from napari_cpnn.studies.evaluation_figure import MappedSlide, draw_cross_validation, median_slide
from napari_cpnn.studies.fold_folder import FoldFolder


def held_out_slides(out: str | Path) -> Iterator[HeldOutSlide]:
    """Yield the tested slides of a cross-validation with the predictions of all heads.

    Parameters
    ----------
    out
        Output folder of :func:`~napari_cpnn.cross_validate`.

    Raises
    ------
    TrainingError
        If there is no cross-validation, or one of its files is damaged.

    Examples
    --------
    >>> from napari_cpnn.studies import held_out_slides
    >>> settings = nc.TrainingSettings(
    ...     backbone="squeezenet", weights="none", patch=nc.PatchSpec(32, 2.0), max_epochs=1, validation="none"
    ... )
    >>> other = nc.Slide.from_arrays([255 - level for level in slide.levels], slide.mpp, name="other")
    >>> samples = [(slide, spots[::16].copy()), (other, spots[8::16].copy())]
    >>> scores = nc.cross_validate(samples, protos, settings, groups=["1", "2"], out="runs/folds", progress=False)
    >>> [held_out.slide for held_out in held_out_slides("runs/folds")]
    ['slide', 'other']
    """
    folders = _folders(Path(out))
    tested = read_table(Path(out) / "folds.csv")
    if missing := {"head", "fold", "slide", "not_tested"} - {*tested.columns}:
        path = Path(out) / "folds.csv"
        raise TrainingError(f"{path} is damaged: it has no column {min(missing)}; run the cross-validation again.")
    for (fold, slide), rows in tested.groupby(["fold", "slide"], sort=False):
        heads = [str(head) for head in rows.loc[rows["not_tested"].isna(), "head"]]
        if heads:
            tables = {head: _predictions(folders, head, str(fold), str(slide)) for head in heads}
            yield HeldOutSlide(str(fold), str(slide), tables)


def _folders(out: Path) -> dict[tuple[str, str], FoldFolder]:
    return {(folder.head, folder.fold): folder for folder in FoldFolder.all_in(out)}


def _predictions(folders: Mapping[tuple[str, str], FoldFolder], head: str, fold: str, slide: str) -> AnnData:
    folder = folders.get((head, fold))
    compared = folder.read_predictions(slide) if folder else None
    if compared is None:
        raise TrainingError(f"There are no predictions of {head} for {slide}; run the cross-validation again.")
    return compared


def write_report(
    out: str | Path, slides: Mapping[str, Slide] | None = None, settings: EvaluationSettings | None = None
) -> pd.DataFrame | None:
    """Write ``comparison.csv`` and ``report.png`` into the folder of a cross-validation.

    Parameters
    ----------
    out
        Output folder of the cross-validation.
    slides
        Slides by name in the table of scores, to show tissue on the maps.
    settings
        As for :func:`~napari_cpnn.studies.comparison.compare_heads`.

    Returns
    -------
    DataFrame or None
        Result of :func:`~napari_cpnn.studies.comparison.compare_heads`, with the first head as reference; None for a
        single head, for which no ``comparison.csv`` is written.
    """
    out = Path(out)
    scores = read_table(out / "scores.csv")
    heads = list(dict.fromkeys(scores["head"]))
    comparison = None
    if len(heads) > 1 and scores["pcc"].notna().any():
        comparison = compare_heads(held_out_slides(out), heads[0], settings)
        write_table(comparison, out / "comparison.csv")
    draw_cross_validation(scores, _to_draw(out, scores, slides or {}), out / "report.png")
    return comparison


def _to_draw(out: Path, scores: pd.DataFrame, slides: Mapping[str, Slide]) -> MappedSlide | None:
    """Slide to show on the maps: the best head by mean PCC, on its median slide."""
    means = scores.groupby("head", sort=False)["pcc"].mean().dropna()
    if means.empty:
        return None
    head = str(means.idxmax())
    label = median_slide(scores, head)
    fold = str(scores.loc[scores["slide"] == label, "fold"].iloc[0])
    return MappedSlide(label, slides.get(label), head, _predictions(_folders(out), head, fold, label))
