"""Folder of a benchmark: tables and the page."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from napari_cpnn.errors import TrainingError
from napari_cpnn.evaluation import write_table
from napari_cpnn.storage import restored, staged
from napari_cpnn.studies.benchmarking.page import html_page
from napari_cpnn.studies.benchmarking.result import BenchmarkResult
from napari_cpnn.untrusted import to_path


def write_benchmark(result: BenchmarkResult, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the tables and the page of a benchmark into a new folder, which appears when it is complete.

    Parameters
    ----------
    result
        As from :func:`~napari_cpnn.benchmark`.
    out
        Folder for ``scores.parquet`` (``.csv`` without pyarrow), ``summary.csv``, ``differences.csv``,
        ``sections.csv`` and ``benchmark.html``.
    overwrite
        Whether to replace the folder of an earlier benchmark; other folders are never replaced.

    Raises
    ------
    TrainingError
        If the folder exists already or cannot be written.
    """
    folder, page = require_new(out, overwrite=overwrite), html_page(result)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with staged(folder) as unfinished:
            unfinished.mkdir()
            ending = "parquet" if importlib.util.find_spec("pyarrow") else "csv"
            write_table(result.scores, unfinished / f"scores.{ending}")
            for name in ("summary", "differences", "sections"):
                write_table(getattr(result, name), unfinished / f"{name}.csv", digits=7)
            (unfinished / "benchmark.html").write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise TrainingError(f"{folder} could not be written: {error.strerror or error}.") from error
    return folder


def require_new(out: str | Path, *, overwrite: bool = False) -> Path:
    """Path of an output folder that does not exist yet, or is that of a benchmark and may be replaced."""
    folder = restored(to_path(out, TrainingError))
    if folder.exists() and overwrite:
        if not (folder / "benchmark.html").is_file():
            raise TrainingError(f"{folder} is not the folder of a benchmark, so it is not replaced; choose another.")
    elif folder.exists():
        raise TrainingError(f"{folder} exists already; choose another name or delete it.")
    return folder
