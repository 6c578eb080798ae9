"""Tables of all slides of a run, from what their workers have written; as CSV, h5ad, Parquet and for MultiQC."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_cpnn.cohort_run.folder import RunFolder, write_json
from napari_cpnn.cohort_run.quality import COLUMNS
from napari_cpnn.cohort_run.statistics import compare_groups, patient_means
from napari_cpnn.errors import CohortError
from napari_cpnn.storage import whole_file, write_csv, write_h5ad
from napari_cpnn.texts import shown

#: Quantities that are compared with those of the other slides, and from which deviation they are marked.
_COMPARED, _FAR, _LEAST_SLIDES = ("sharpness", "haematoxylin", "eosin", "hue"), 3.5, 5
#: Scale of the median absolute deviation of a normal distribution.
_MAD = 1.4826


@dataclass(frozen=True, eq=False)
class CohortTables:
    """What a run has found.

    Attributes
    ----------
    run
        Model, settings and software.
    slides
        One row per slide of the manifest: its columns, ``status`` (done, failed, waiting), the quality control, and
        ``flags``.
    shares, sds, lows, highs
        Complete slides x cell types: means over the mapped tissue, deviation over its patches, and intervals by blocks
        of tissue.
    groups
        By column of the manifest, the comparison of its groups (:func:`compare_groups`).
    failures
        Sentence by slide.

    Examples
    --------
    >>> import pandas as pd
    >>> from napari_cpnn.cohort_run import CohortTables
    >>> slides = pd.DataFrame({"patient": ["P1"]}, index=["a"])
    >>> share = pd.DataFrame({"T-cells": [0.25]}, index=["a"])
    >>> tables = CohortTables({}, slides, share, share * 0, share, share)
    >>> tables.composition()[["slide", "patient", "type", "mean"]].values.tolist()
    [['a', 'P1', 'T-cells', 0.25]]
    """

    run: dict[str, Any]
    slides: pd.DataFrame
    shares: pd.DataFrame
    sds: pd.DataFrame
    lows: pd.DataFrame
    highs: pd.DataFrame
    groups: dict[str, pd.DataFrame] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def composition(self) -> pd.DataFrame:
        """Return ``slide``, ``patient``, ``type``, ``mean``, ``sd``, ``low``, ``high``, a row per slide and type."""
        parts = {"mean": self.shares, "sd": self.sds, "low": self.lows, "high": self.highs}
        columns = {name: part.to_numpy().ravel() for name, part in parts.items()}
        n_slides, n_types = self.shares.shape
        names, types = np.repeat(self.shares.index, n_types), np.tile(self.shares.columns, n_slides)
        patients = self.slides["patient"].reindex(names).to_numpy()
        return pd.DataFrame({"slide": names, "patient": patients, "type": types, **columns})


def slide_tables(out: str | Path) -> CohortTables:
    """Read what the run in a folder has found so far.

    Raises
    ------
    CohortError
        If there is no run in the folder.

    Examples
    --------
    >>> from napari_cpnn.cohort_run import slide_tables
    >>> slide_tables("nowhere")
    Traceback (most recent call last):
    ...
    napari_cpnn.errors.CohortError: nowhere is no folder of a run over a cohort; it has no run.json.
    """
    folder = RunFolder(out)
    run = folder.read_run()
    rows, failures, facts = [], {}, {}
    for given in run["slides"]:
        slide = {_column(key): value for key, value in given.items()}
        name, files = str(slide["name"]), folder.slide(str(slide["name"]))
        found = files.read()
        if found is not None:
            rows.append({**slide, "status": "done", **_numbers(found.get("quality")), "flags": _flags(found)})
            facts[name] = found.get("composition") or {}
            continue
        why = files.why_failed()
        rows.append({**slide, "status": "waiting" if why is None else "failed", "flags": []})
        if why is not None:
            failures[name] = shown(why.get("sentence"), 500)
    slides = pd.DataFrame(rows).set_index("name").rename_axis("slide")
    slides = slides.reindex(columns=[*slides.columns.difference([*COLUMNS, "flags"], sort=False), *COLUMNS, "flags"])
    remarks = dict(zip(slides.index, slides["flags"], strict=True))
    for name, text in _unusual(slides):
        remarks[name].append(text)
    types = [str(name) for name in run.get("cell_types", [])]
    means, sds, lows, highs = (_part(facts, types, key) for key in ("mean", "sd", "low", "high"))
    tables = CohortTables(run, slides, means, sds, lows, highs, failures=failures)
    tables.groups.update({column: _compared(tables, column) for column in map(_column, run.get("groups", []))})
    return tables


def _column(name: str) -> str:
    """Return the name of a column of the manifest in the table of slides, where some names are taken."""
    return f"{name} (manifest)" if name in (*COLUMNS, "status", "flags") else str(name)


def _numbers(values: Any) -> dict[str, float]:
    found = values if isinstance(values, dict) else {}
    return {key: float(found[key]) if isinstance(found.get(key), (int, float)) else math.nan for key in COLUMNS}


def _flags(found: dict[str, Any]) -> list[str]:
    flags = found.get("flags")
    return [shown(flag, 300) for flag in flags] if isinstance(flags, list) else []


def _part(facts: dict[str, dict[str, Any]], types: list[str], key: str) -> pd.DataFrame:
    values = [
        [math.nan if (v := (of.get(t) or {}).get(key)) is None else float(v) for t in types] for of in facts.values()
    ]
    return pd.DataFrame(np.reshape(values, (len(facts), len(types))), pd.Index(list(facts), dtype=object), types)


def _unusual(slides: pd.DataFrame) -> list[tuple[str, str]]:
    """Find slides that are far from the others of the cohort, by medians and median absolute deviations."""
    found: list[tuple[str, str]] = []
    for key in _COMPARED:
        values = slides[key].dropna()
        if len(values) < _LEAST_SLIDES:
            continue
        spread = _MAD * float((values - values.median()).abs().median())
        if spread > 0:
            away = (values - values.median()) / spread
            text = "Its {} is far {} that of the other slides ({:.1f} deviations)."
            found += [
                (str(name), text.format(key, "above" if z > 0 else "below", abs(z)))
                for name, z in away[away.abs() > _FAR].items()
            ]
    return found


def _compared(tables: CohortTables, column: str) -> pd.DataFrame:
    done = tables.slides.loc[tables.shares.index]
    means = patient_means(tables.shares, done["patient"], done["patches"])
    groups = done.dropna(subset=[column]).groupby("patient", sort=False)[column].first().astype(str)
    coverage = float(tables.run.get("settings", {}).get("interval", 0.95))
    return compare_groups(means, groups, coverage)


def flat_slides(tables: CohortTables) -> pd.DataFrame:
    """Return the table of slides with flags as one text and a column ``share TYPE`` per cell type."""
    flags = tables.slides["flags"].map(" ".join)
    shares = tables.shares.reindex(tables.slides.index).add_prefix("share ")
    return pd.concat([tables.slides.assign(flags=flags), shares], axis=1)


def write_tables(tables: CohortTables, out: Path) -> list[Path]:
    """Write the numbers of a report; return the files."""
    slides, composition = flat_slides(tables), tables.composition()
    groups = pd.concat(tables.groups, names=["column"]) if tables.groups else None
    failures = pd.DataFrame({"slide": list(tables.failures), "why": list(tables.failures.values())})
    written = [out / "slides.csv", out / "composition.csv", out / "failures.csv"]
    write_csv(slides, written[0], CohortError)
    write_csv(composition, written[1], CohortError, index=False)
    write_csv(failures, written[2], CohortError, index=False)
    if groups is not None:
        written.append(out / "groups.csv")
        write_csv(groups.reset_index(level=0), written[-1], CohortError, index=False)
    if len(tables.shares):
        written.append(out / "cohort.h5ad")
        _write_h5ad(tables, slides, written[-1])
    written += _write_parquet({"slides": slides.reset_index(), "composition": composition}, out)
    return [*written, *_write_multiqc(tables, out / "multiqc")]


def _write_h5ad(tables: CohortTables, slides: pd.DataFrame, path: Path) -> None:
    """Write slides x cell types, with the manifest and the quality control as ``obs``."""
    from anndata import AnnData

    obs = slides.loc[tables.shares.index, [c for c in slides.columns if not c.startswith("share ")]].copy()
    for column in obs.select_dtypes(include=object):
        missing = obs[column].isna()
        obs[column] = ["" if no else str(value) for value, no in zip(obs[column], missing, strict=True)]
    obs.columns = [str(column).replace("/", "|") for column in obs.columns]
    obs.index = obs.index.astype(str)
    var = pd.DataFrame(index=pd.Index([name.replace("/", "|") for name in tables.shares.columns], dtype=object))
    table = AnnData(tables.shares.to_numpy(np.float32), obs=obs.rename_axis(None), var=var)
    for name, part in (("sd", tables.sds), ("low", tables.lows), ("high", tables.highs)):
        table.layers[name] = part.to_numpy(np.float32)
    facts = ("model", "fingerprint", "trained_on", "software")
    table.uns["napari_cpnn"] = {key: str(tables.run.get(key, "")) for key in facts}
    with whole_file(path, CohortError) as temporary:
        write_h5ad(table, temporary)


def _write_parquet(tables: dict[str, pd.DataFrame], out: Path) -> list[Path]:
    if find_spec("pyarrow") is None:  # through which pandas writes
        return []
    written = []
    for name, table in tables.items():
        path = out / f"{name}.parquet"
        with whole_file(path, CohortError) as temporary:
            table.to_parquet(temporary, index=False)
        written.append(path)
    return written


def _write_multiqc(tables: CohortTables, out: Path) -> list[Path]:
    """Write custom content of MultiQC: the quality control as a table, the composition as a bar graph."""
    done = tables.slides[tables.slides["status"] == "done"]
    quality = {
        str(name): {key: float(row[key]) for key in COLUMNS if math.isfinite(row[key])} for name, row in done.iterrows()
    }
    shares = {str(name): {t: float(v) for t, v in row.items()} for name, row in tables.shares.iterrows()}
    parts: dict[str, dict[str, Any]] = {
        "quality": {
            "section_name": "H&E slides: quality control",
            "description": "Tissue, focus, stains, pen, folds, and tissue unlike that of the training.",
            "plot_type": "table",
            "pconfig": {"id": "napari_cpnn_quality_table", "title": "H&E slides: quality control"},
            "headers": {key: {"title": key.replace("_", " "), "description": text} for key, text in COLUMNS.items()},
            "data": quality,
        },
        "composition": {
            "section_name": "H&E slides: cell types",
            "description": f"Predicted composition of the mapped tissue ({shown(tables.run.get('model'), 80)}).",
            "plot_type": "bargraph",
            "pconfig": {"id": "napari_cpnn_composition_plot", "title": "H&E slides: cell types", "ylab": "share"},
            "data": shares,
        },
    }
    written = []
    for name, content in parts.items():
        path = out / f"napari_cpnn_{name}_mqc.json"
        write_json(path, {"id": f"napari_cpnn_{name}", "parent_id": "napari_cpnn", **content})
        written.append(path)
    return written
