"""The report of a run: one HTML page that needs no network, and the same numbers as tables."""

from __future__ import annotations

import time
from pathlib import Path

from napari_cpnn.cohort_run.page import page_of
from napari_cpnn.cohort_run.tables import slide_tables, write_tables
from napari_cpnn.errors import CohortError
from napari_cpnn.storage import whole_file


def write_cohort_report(out: str | Path) -> list[Path]:
    """Write ``report.html`` and its numbers into the folder of a run, which may go on meanwhile.

    Parameters
    ----------
    out
        Folder of a run over a cohort.

    Returns
    -------
    list of Path
        The page; ``slides.csv``, ``composition.csv``, ``groups.csv`` (where the manifest has groups), ``failures.csv``;
        ``cohort.h5ad``; the tables as Parquet where pyarrow is installed; and custom content of MultiQC.

    Raises
    ------
    CohortError
        If there is no run in the folder, or it cannot be written.

    Examples
    --------
    >>> from napari_cpnn.cohort_run import write_cohort_report
    >>> write_cohort_report("nowhere")
    Traceback (most recent call last):
    ...
    napari_cpnn.errors.CohortError: nowhere is no folder of a run over a cohort; it has no run.json.
    """
    out = Path(out)
    tables = slide_tables(out)
    written = write_tables(tables, out)
    page = out / "report.html"
    with whole_file(page, CohortError) as temporary, temporary.open("w", encoding="utf-8") as file:
        for part in page_of(tables, out, time.strftime("%Y-%m-%d %H:%M")):
            file.write(part)
    return [page, *written]
