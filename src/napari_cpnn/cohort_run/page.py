"""The HTML page of a report, part by part, so that the pictures of a thousand slides are never in memory at once."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from napari_cpnn.cohort_run.folder import RunFolder
from napari_cpnn.cohort_run.page_style import SCRIPT, STYLE
from napari_cpnn.cohort_run.pictures import jpeg_of
from napari_cpnn.cohort_run.quality import COLUMNS
from napari_cpnn.cohort_run.tables import CohortTables
from napari_cpnn.decimals import fixed
from napari_cpnn.palette import type_colors
from napari_cpnn.texts import counted, shown

#: Slides with pictures, and their longer side in px.
_MOST_PICTURES, _PICTURE_PX = 400, 240
#: Decimals and heading of the columns of the quality control; shares are shown in per cent.
_HEADINGS = {
    "tissue_mm2": ("tissue, mm2", 1), "tissue_share": ("tissue, %", 0), "patches": ("patches", 0),
    "failed_share": ("unread, %", 1), "sharpness": ("focus", 2), "haematoxylin": ("haematoxylin", 3),
    "eosin": ("eosin", 3), "hue": ("hue, °", 1), "pen_share": ("pen, %", 1), "fold_share": ("folds, %", 1),
    "unlike_share": ("unlike training, %", 0),
}  # fmt: skip
_BAR = (560, 15)


def page_of(tables: CohortTables, out: Path, when: str) -> Iterator[str]:
    """Yield the page of a report.

    Parameters
    ----------
    tables
        The numbers.
    out
        Folder of the run, for its pictures.
    when
        Date and time that the page shows.
    """
    title = "Cohort report"
    yield f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
    yield f"<style>{STYLE}</style></head>\n<body><header><h1>{title}</h1>\n"
    yield _summary(tables, when)
    yield "</header>\n<main>\n"
    yield from _failures(tables)
    yield from _quality(tables)
    yield from _gallery(tables, out)
    yield from _composition(tables)
    yield from _groups(tables)
    yield f"</main>\n<script>{SCRIPT}</script></body></html>\n"


def _summary(tables: CohortTables, when: str) -> str:
    status = tables.slides["status"].value_counts()
    n_done, n_failed, n_waiting = (int(status.get(name, 0)) for name in ("done", "failed", "waiting"))
    patients = tables.slides["patient"].nunique()
    n_flagged = int((tables.slides["flags"].str.len() > 0).sum())
    words = [
        f"{len(tables.slides)} slides of {patients} {'patient' if patients == 1 else 'patients'}: {n_done} mapped",
        *([f"{n_failed} failed"] if n_failed else []),
        *([f"{n_waiting} not done yet"] if n_waiting else []),
        f"{n_flagged} with remarks",
    ]
    model, tissue = (_text(tables.run.get(key)) for key in ("model", "trained_on"))
    trained = f", trained on {tissue}" if tissue else ""
    software = _text(tables.run.get("software"))
    return (
        f"<p>{', '.join(words)}.</p><p class=small>Model: {model}{trained}. {software}, {when}. "
        "Research use only: compositions are predicted from the looks of the tissue, not measured.</p>\n"
    )


def _failures(tables: CohortTables) -> Iterator[str]:
    if not tables.failures:
        return
    yield f"<h2>Slides that failed ({len(tables.failures)})</h2>\n<p>The same command tries them again.</p>\n"
    yield from _table(["slide", "why"], ([_text(name), _text(why)] for name, why in tables.failures.items()))


def _quality(tables: CohortTables) -> Iterator[str]:
    done = tables.slides[tables.slides["status"] == "done"]
    yield "<h2 id=quality>Quality control</h2>\n"
    if done.empty:
        yield "<p>No slide is complete yet.</p>\n"
        return
    yield (
        "<p>Remarks leave no slide out. Focus: log ratio of the differences between neighbouring pixels and of all "
        "variation; higher is sharper. Stains: mean optical density. Click a heading to sort.</p>\n"
    )
    heads = ["slide", "patient", *(_HEADINGS[key][0] for key in COLUMNS), "remarks"]
    titles = ["", "", *COLUMNS.values(), ""]

    def rows() -> Iterator[list[str]]:
        for name, row in done.iterrows():
            numbers = [_number(row[key], key) for key in COLUMNS]
            yield [_text(name), _text(row["patient"]), *numbers, "<br>".join(map(_text, row["flags"]))]

    yield from _table(heads, rows(), titles)


def _gallery(tables: CohortTables, out: Path) -> Iterator[str]:
    names = list(tables.shares.index)
    if not names:
        return
    yield "<h2 id=gallery>Gallery</h2>\n"
    yield "<p>Tissue, and the dominant cell type of each patch; grey: unlike the training.</p>\n"
    yield _legend(tables)
    if len(names) > _MOST_PICTURES:
        yield f"<p>The first {_MOST_PICTURES} of {len(names)} slides; all pictures are in the folder slides.</p>\n"
    yield "<div class=gallery>\n"
    folder = RunFolder(out)
    for name in names[:_MOST_PICTURES]:
        files = folder.slide(str(name))
        pictures = "".join(_picture(path) for path in (files.thumbnail, files.dominant))
        marked = " class=marked" if tables.slides.loc[name, "flags"] else ""
        yield f"<figure{marked}>{pictures}<figcaption>{_text(name)}</figcaption></figure>\n"
    yield "</div>\n"


def _picture(path: Path) -> str:
    from PIL import Image

    try:
        with Image.open(path) as image:
            content = jpeg_of(np.asarray(image.convert("RGB")), _PICTURE_PX)
    except (OSError, ValueError):
        return "<span class=missing>no picture</span>"
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(content).decode()}">'


def _colors(tables: CohortTables) -> dict[str, str]:
    return type_colors(list(tables.shares.columns), tables.run.get("hierarchy") or None)


def _legend(tables: CohortTables) -> str:
    items = (f'<span><i style="background:{color}"></i>{_text(name)}</span>' for name, color in _colors(tables).items())
    return f"<p class=legend>{' '.join(items)}</p>\n"


def _composition(tables: CohortTables) -> Iterator[str]:
    if tables.shares.empty:
        return
    colors, level = _colors(tables), _percent(tables.run.get("settings", {}).get("interval", 0.95))
    yield "<h2 id=composition>Composition of the slides</h2>\n"
    yield (
        "<p>Mean share of each cell type over the mapped tissue, in %, ± standard deviation over its patches. Point "
        f"at a number for its {level} % interval, from blocks of tissue drawn anew: sampling within the slide, not the "
        "error of the model.</p>\n"
    )
    yield _legend(tables)

    def rows() -> Iterator[list[str]]:
        parts = zip(*(p.to_numpy() for p in (tables.shares, tables.sds, tables.lows, tables.highs)), strict=True)
        for (name, shares), numbers in zip(tables.shares.iterrows(), parts, strict=True):
            cells = [_share(*of_type) for of_type in zip(*numbers, strict=True)]
            yield [_text(name), _stack(shares, colors), *cells]

    yield from _table(["slide", "", *map(_text, tables.shares.columns)], rows())


def _share(mean: float, sd: float, low: float, high: float) -> str:
    if not math.isfinite(mean):
        return ""
    spread = f" <small>± {100 * sd:.1f}</small>" if math.isfinite(sd) else ""
    ends = f' title="{100 * low:.1f} to {100 * high:.1f}"' if math.isfinite(low) else ""
    return f'<span data-sort="{mean:.6f}"{ends}>{100 * mean:.1f}{spread}</span>'


def _stack(shares: pd.Series, colors: dict[str, str]) -> str:
    """Return a stacked bar of the shares as SVG."""
    width, height = _BAR[0] // 2, _BAR[1]
    at, parts = 0.0, []
    for name, share in shares.items():
        side = float(share) * width if math.isfinite(share) else 0.0
        parts.append(
            f'<rect x="{at:.1f}" width="{side:.1f}" height="{height}" fill="{colors[str(name)]}">'
            f"<title>{_text(name)}: {100 * share:.1f} %</title></rect>"
        )
        at += side
    return f'<svg width="{width}" height="{height}" role="img">{"".join(parts)}</svg>'


def _groups(tables: CohortTables) -> Iterator[str]:
    level = _percent(tables.run.get("settings", {}).get("interval", 0.95))
    for column, table in tables.groups.items():
        yield f"<h2>Composition by {_text(column)}</h2>\n"
        groups = list(dict.fromkeys(table["group"]))
        if len(groups) < 2:
            yield "<p>There are not two groups with mapped slides.</p>\n"
            continue
        test = "Welch's t test of two groups" if len(groups) == 2 else "test of Kruskal and Wallis"
        yield (
            "<p>Patients are the unit: the slides of a patient count as one, weighted by their mapped tissue. Mean in "
            f"% with its {level} % t interval over patients; p: {test}; q: adjusted over the "
            f"{table['type'].nunique()} cell types (Benjamini and Hochberg). Groups may differ in staining, scanner "
            f"and site, too.{_doubtful(tables.slides)}</p>\n"
        )
        sizes = table.groupby("group", sort=False)["patients"].max()
        heads = ["cell type", "", *(f"{_text(g)} ({counted(int(sizes[g]), 'patient')})" for g in groups)]
        difference = [f"{_text(groups[1])} less {_text(groups[0])}"] if len(groups) == 2 else []
        yield from _table([*heads, *difference, "p", "q"], _group_rows(table, groups))


def _doubtful(slides: pd.DataFrame) -> str:
    """Say how many slides are compared although the model does not know their tissue."""
    n = int((slides["unlike_share"] > 0.5).sum())
    if not n:
        return ""
    return (
        f" More than half of the tissue of {counted(n, 'slide')} is unlike the training; it counts here all the same."
    )


def _group_rows(table: pd.DataFrame, groups: Sequence[str]) -> Iterator[list[str]]:
    most = float(np.nanmax(table[["mean", "high"]].to_numpy())) if len(table) else 1.0
    for cell_type, part in table.groupby("type", sort=False):
        by_group = part.set_index("group")
        first = part.iloc[0]
        cells = [_interval(*by_group.loc[g, ["mean", "low", "high"]].astype(float)) for g in groups]
        if len(groups) == 2:
            cells.append(
                _interval(*first[["difference", "difference_low", "difference_high"]].astype(float), signed=True)
            )
        yield [_text(cell_type), _dots(by_group, groups, most), *cells, _p(first["p"]), _p(first["q"])]


def _interval(mean: float, low: float, high: float, *, signed: bool = False) -> str:
    if not math.isfinite(mean):
        return ""
    ends = f" <small>[{fixed(100 * low, 1)}, {fixed(100 * high, 1)}]</small>" if math.isfinite(low) else ""
    return f'<span data-sort="{mean:.6f}">{fixed(100 * mean, 1, signed=signed)}{ends}</span>'


def _dots(part: pd.DataFrame, groups: Sequence[str], most: float) -> str:
    """Return means with intervals, a line per group, as SVG on the scale of the whole table."""
    width, step = 200, 9
    scale, lines = (width - 8) / max(most, 1e-9), []
    for i, group in enumerate(groups):
        y = step * i + step / 2 + 1
        mean, low, high = np.asarray(part.loc[group, ["mean", "low", "high"]], dtype=np.float64).tolist()
        if math.isfinite(low):
            x0, x1 = (4 + scale * min(max(v, 0.0), most) for v in (low, high))
            lines.append(f'<line x1="{x0:.1f}" x2="{x1:.1f}" y1="{y}" y2="{y}" class="g{i % 6}"></line>')
        if math.isfinite(mean):
            text = f"<title>{_text(group)}</title>"
            lines.append(f'<circle cx="{4 + scale * mean:.1f}" cy="{y}" r="3" class="g{i % 6}">{text}</circle>')
    return f'<svg width="{width}" height="{step * len(groups) + 2}" role="img">{"".join(lines)}</svg>'


def _p(value: float) -> str:
    if not math.isfinite(value):
        return ""
    return f'<span data-sort="{value:.3e}">{"&lt; 0.001" if value < 0.001 else f"{value:.3f}"}</span>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], titles: Sequence[str] = ()) -> Iterator[str]:
    """Yield a table of cells that are HTML already."""
    tips = [f' title="{escape(tip, quote=True)}"' if tip else "" for tip in titles] or [""] * len(heads)
    cells = "".join(f"<th{tip}>{head}</th>" for head, tip in zip(heads, tips, strict=True))
    yield f"<div class=wide><table><thead><tr>{cells}</tr></thead><tbody>\n"
    for row in rows:
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n"
    yield "</tbody></table></div>\n"


def _number(value: Any, key: str) -> str:
    number = float(value)
    if not math.isfinite(number):
        return ""
    scaled = 100 * number if key.endswith("_share") else number
    text = f"{scaled:,.0f}" if key == "patches" else fixed(scaled, _HEADINGS[key][1])
    return f'<span data-sort="{number:.6g}">{text}</span>'


def _percent(share: Any) -> str:
    return f"{100 * float(share):g}"


def _text(value: object) -> str:
    return escape(shown("" if value is None else value, 500), quote=True)
