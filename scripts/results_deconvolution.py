"""Deconvolution against known and published shares. Writes its section of docs/results.md and a figure.

    python scripts/results_deconvolution.py --data ../shared/data

Three methods: the negative binomial model, weighted non-negative least squares, and plain ones (counts divided by
their total, all genes alike). Two kinds of spots: drawn from real cells, where the truth is known, and measured ones of
her2st beside the shares that its authors published (stereoscope, with a reference of other patients).
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.optimize import nnls

import napari_cpnn as nc
from her2st_study.data import published_shares, read_prototypes
from her2st_study.drawn_spots import SCENARIOS, Drawn, draw
from her2st_study.report import markdown, write_section
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.spots import expression

REPO = Path(__file__).resolve().parents[1]
TITLE = "## Deconvolution of measured spots"
PICTURE = "deconvolution_her2st.png"
HEADER = (
    "`python scripts/results_deconvolution.py`: the negative binomial model (NB, the default) beside weighted (the"
    " method `nnls`) and plain non-negative least squares."
)
#: The choices of the method were made looking at the first four; A1 was deconvolved once, at the end.
SEEN, UNSEEN = ("B4", "C2", "C3", "C4"), ("A1",)
SEEDS = (0, 1, 2)
#: Textbook markers, by the names of the major types of the prototypes.
MARKERS = {
    "B-cells": ("MS4A1", "CD79A", "BANK1"),
    "CAFs": ("COL1A1", "LUM", "DCN"),
    "Cancer Epithelial": ("EPCAM", "KRT8", "CDH1"),
    "Endothelial": ("PECAM1", "VWF", "PLVAP"),
    "Myeloid": ("CD68", "C1QA", "LYZ"),
    "PVL": ("RGS5", "ACTA2", "NOTCH3"),
    "Plasmablasts": ("MZB1", "JCHAIN", "IGKC"),
    "T-cells": ("CD3D", "TRAC", "CD2"),
}
MAPPED = ("Epithelial", "Plasma Cells", "Endothelial")
COLORS = {"stereoscope": "#000000", "NB": "#0072B2", "weighted NNLS": "#E69F00", "plain NNLS": "#999999"}

Method = Callable[[AnnData, nc.Prototypes], pd.DataFrame]


def plain_nnls(spots: AnnData, protos: nc.Prototypes) -> pd.DataFrame:
    """Shares by least squares on counts divided by their total, over all shared genes."""
    genes = [g for g in protos.genes if g in set(spots.var_names)]
    Y = spots[:, genes].layers["counts"].toarray().astype(float)
    T = protos.select(genes).profiles.astype(float).T
    W = np.array([nnls(T, y / max(y.sum(), 1))[0] for y in Y])
    totals = W.sum(axis=1, keepdims=True)
    shares = np.divide(W, totals, out=np.full_like(W, np.nan), where=totals > 0)
    return pd.DataFrame(shares, index=spots.obs_names, columns=list(protos.cell_types))


METHODS: dict[str, Method] = {
    "NB": nc.deconvolve,
    "weighted NNLS": lambda spots, protos: nc.deconvolve(spots, protos, nc.DeconvolutionSettings("nnls")),
    "plain NNLS": plain_nnls,
}


@dataclass(frozen=True)
class Agreement:
    """Of shares with others, over the major types: correlation of each, and mean shares of both."""

    r: pd.Series
    mean: pd.Series
    reference: pd.Series

    @classmethod
    def of(cls, shares: pd.DataFrame, reference: pd.DataFrame, major: dict[str, str]) -> Agreement:
        ours = summed(shares, major).reindex(reference.index).dropna()
        theirs = reference.loc[ours.index]
        ours = ours.reindex(columns=theirs.columns, fill_value=0.0)
        return cls(ours.corrwith(theirs), ours.mean(), theirs.mean())

    @property
    def error(self) -> float:
        return float((self.mean - self.reference).abs().mean())


def summed(shares: pd.DataFrame, major: dict[str, str]) -> pd.DataFrame:
    return shares.T.groupby(lambda fine: major[str(fine)]).sum(min_count=1).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder with her2st and derived")
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    warnings.simplefilter("ignore", RuntimeWarning)  # a type that is nowhere correlates with nothing

    sections = {name: read_spots(args.data, name) for name in (*SEEN, *UNSEEN)}
    published = {name: published_shares(args.data, name).rename(columns=str.strip) for name in sections}
    prototypes, majors = {}, {}
    for method in ("mean", "nb"):
        found, majors = read_prototypes(args.data, method)
        prototypes |= {(tier, method): protos for tier, protos in found.items()}
    minor = prototypes["celltype_minor", "mean"]
    shares = {
        name: {section: method(spots, minor) for section, spots in sections.items()} for name, method in METHODS.items()
    }
    major = majors["celltype_minor"]
    agreements = {
        name: {s: Agreement.of(table, published[s], major) for s, table in tables.items()}
        for name, tables in shares.items()
    }
    text = "\n".join(
        [
            TITLE,
            "",
            HEADER,
            "",
            drawn_section(args.data, major),
            her2st_section(agreements),
            references_section(sections, published, prototypes, majors),
            markers_section(args.data, prototypes["celltype_major", "mean"]),
            smaller_section(sections["C4"], minor),
            f"![Mean shares and correlations on her2st, and three types on C4](images/{PICTURE})",
            "",
        ]
    )
    print(text)
    write_section(args.docs / "results.md", text)
    draw_figure(agreements, shares, sections["C4"], published["C4"], major, args.docs / "images" / PICTURE)


def read_spots(data: Path, name: str) -> AnnData:
    folder = data / "her2st" / "data"
    positions = folder / "ST-spotfiles" / f"{name}_selection.tsv"
    return nc.read_spots(folder / "ST-cnts" / f"{name}.tsv.gz", positions=positions)


def drawn_section(data: Path, major: dict[str, str]) -> str:
    """Spots whose truth is known."""
    cells = nc.read_cells(data / "derived" / "wu2021_CID4465_counts.h5ad")
    rows = []
    for title, scenario in SCENARIOS.items():
        worlds = [draw(cells, scenario, seed) for seed in SEEDS]
        for name, method in METHODS.items():
            scores = np.mean([drawn_scores(method(w.spots, w.prototypes), w, major) for w in worlds], axis=0)
            inside = f"{np.mean([coverage(w) for w in worlds]):.0%}" if name == "NB" else ""
            rows.append([title, name, *(f"{x:.3f}" for x in scores), inside])
    first, shallow, far = SCENARIOS.values()
    return (
        "**Known truth.** Spots of 150 mixtures each, drawn from one half of the cells of tumour CID4465,"
        f" deconvolved with the 25 minor types of the other half; mean of {len(SEEDS)} draws. Each gene is detected"
        f" otherwise than in the cells (log-normal, sigma {first.platform:g}; far reference {far.platform:g}),"
        f" expressed otherwise in each type (sigma {first.other_patient:g}; {far.other_patient:g}), and"
        f" {first.ambient:.0%} ({far.ambient:.0%}) of the counts are ambient; median depth {first.depth:g} (shallow:"
        f" {shallow.depth:g})."
        " Error: mean absolute error of a share. Within 2 sd: how often the true share of a minor type that is there"
        " lies so near.\n\n"
        + markdown(["spots", "method", "r, major", "error, major", "r, minor", "error, minor", "within 2 sd"], rows)
    )


def drawn_scores(shares: pd.DataFrame, world: Drawn, major: dict[str, str]) -> list[float]:
    """Mean correlation over the types that vary, and mean absolute error, at the major and the minor tier."""
    scores = []
    for ours, truth in ((summed(shares, major), summed(world.truth, major)), (shares, world.truth)):
        varies = truth.std() > 0.01
        scores += [
            float(ours.loc[:, varies].corrwith(truth.loc[:, varies]).mean()),
            float((ours - truth).abs().mean(axis=None)),
        ]
    return scores


def coverage(world: Drawn) -> float:
    found = nc.deconvolve_with_uncertainty(world.spots, world.prototypes)
    there = world.truth.to_numpy() > 0
    return float(((found.shares - world.truth).abs() < 2 * found.share_sd).to_numpy()[there].mean())


def her2st_section(agreements: dict[str, dict[str, Agreement]]) -> str:
    types = list(next(iter(agreements["NB"].values())).r.index)
    correlations, means = [], []
    for name, by_section in agreements.items():
        for group, sections in ((", ".join(SEEN), SEEN), (", ".join(UNSEEN), UNSEEN)):
            r = pd.DataFrame([by_section[s].r for s in sections])
            correlations.append([name, group, *(f"{r[t].mean():.2f}" for t in types), f"{r.mean(axis=1).mean():.3f}"])
    for group, sections in ((", ".join(SEEN), SEEN), (", ".join(UNSEEN), UNSEEN)):
        reference = pd.DataFrame([agreements["NB"][s].reference for s in sections]).mean()
        means.append(["*stereoscope*", group, *(f"{reference[t]:.1%}" for t in types), ""])
        for name, by_section in agreements.items():
            mean = pd.DataFrame([by_section[s].mean for s in sections]).mean()
            error = np.mean([by_section[s].error for s in sections])
            means.append([name, group, *(f"{mean[t]:.1%}" for t in types), f"{error:.3f}"])
    sections = [
        [name, *(f"{by_section[s].r.mean():.3f} / {by_section[s].error:.3f}" for s in (*SEEN, *UNSEEN))]
        for name, by_section in agreements.items()
    ]
    return (
        "**her2st beside stereoscope.** Prototypes: mean profiles of the 25 minor types of tumour CID4465, a"
        " triple-negative tumour of another study; minor types summed. Correlation over the spots of a section, mean"
        " over sections:\n\n"
        + markdown(["method", "sections", *types, "mean"], correlations)
        + "\nMean shares, and their mean absolute difference from stereoscope's:\n\n"
        + markdown(["method", "sections", *types, "difference"], means)
        + "\nPer section, mean correlation / difference of mean shares:\n\n"
        + markdown(["method", *SEEN, *UNSEEN], sections)
    )


def references_section(
    sections: dict[str, AnnData],
    published: dict[str, pd.DataFrame],
    prototypes: dict[tuple[str, str], nc.Prototypes],
    majors: dict[str, dict[str, str]],
) -> str:
    rows = []
    for tier in ("celltype_major", "celltype_minor"):
        for estimator in ("mean", "nb"):
            row = [tier.removeprefix("celltype_"), estimator]
            for method in METHODS.values():
                found = [
                    Agreement.of(method(sections[s], prototypes[tier, estimator]), published[s], majors[tier])
                    for s in SEEN
                ]
                row.append(f"{np.mean([a.r.mean() for a in found]):.3f} / {np.mean([a.error for a in found]):.3f}")
            rows.append(row)
    return f"Other prototypes, {', '.join(SEEN)}, mean correlation / difference of mean shares:\n\n" + markdown(
        ["tier", "prototypes", *METHODS], rows
    )


def markers_section(data: Path, protos: nc.Prototypes) -> str:
    """Another technology and patient, without shares to compare with, and not looked at before."""
    spots = nc.read_spots(data / "visium-human-breast-10x-subset")
    genes = [g for markers in MARKERS.values() for g in markers]
    measured = pd.DataFrame(expression(spots, genes), index=spots.obs_names, columns=genes)
    rows = []
    for name, method in METHODS.items():
        shares = method(spots, protos)
        r = {t: np.mean([shares[t].corr(measured[g]) for g in markers]) for t, markers in MARKERS.items()}
        rows.append([name, *(f"{x:.2f}" for x in r.values()), f"{np.mean(list(r.values())):.3f}"])
        rows.append(["mean share", *(f"{shares[t].mean():.1%}" for t in MARKERS), ""])
    text = "; ".join(f"{t}: {', '.join(markers)}" for t, markers in MARKERS.items())
    return (
        f"**Visium** ({spots.n_obs} spots of a breast cancer, 10x Genomics; major types, looked at when the method was"
        f" done): mean correlation of shares with the measured expression of textbook markers ({text}).\n\n"
        + markdown(["method", *MARKERS, "mean"], rows)
    )


def smaller_section(spots: AnnData, protos: nc.Prototypes) -> str:
    start = time.process_time()
    whole = nc.deconvolve_with_uncertainty(spots, protos)
    seconds = time.process_time() - start
    half = np.random.default_rng(0).permutation(spots.n_obs) % 2 == 0
    parts = pd.concat([nc.deconvolve(spots[half], protos), nc.deconvolve(spots[~half], protos)]).loc[spots.obs_names]
    difference = float((parts - whole.shares).abs().mean(axis=None))
    r = float(parts.corrwith(whole.shares).mean())
    return (
        f"C4 deconvolved in two random halves differs from C4 as a whole by {difference:.4f} in a minor share on"
        f" average; the mean correlation per type is {r:.3f}. C4 took {seconds:.1f} s of processor time and"
        f" {whole.iterations} rounds.\n"
    )


def draw_figure(
    agreements: dict[str, dict[str, Agreement]],
    shares: dict[str, dict[str, pd.DataFrame]],
    spots: AnnData,
    published: pd.DataFrame,
    major: dict[str, str],
    path: Path,
) -> None:
    """Bars of mean shares and correlations above, maps of C4 below."""
    figure = Figure(figsize=(12, 9), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.7])
    left, right = top.subplots(1, 2)
    means = {"stereoscope": pd.DataFrame([agreements["NB"][s].reference for s in SEEN]).mean()}
    means |= {name: pd.DataFrame([by[s].mean for s in SEEN]).mean() for name, by in agreements.items()}
    bars(left, means, f"mean share, {', '.join(SEEN)}")
    bars(
        right,
        {name: pd.DataFrame([by[s].r for s in SEEN]).mean() for name, by in agreements.items()},
        "correlation with stereoscope over spots",
    )
    left.legend(fontsize=8, frameon=False)
    tables = {"stereoscope": published, **{name: summed(by["C4"], major) for name, by in shares.items()}}
    x, y = spots.obsm["spatial"].T
    axes = bottom.subplots(len(MAPPED), len(tables))
    for row, name in zip(axes, MAPPED, strict=True):
        top_value = np.nanquantile(np.concatenate([t[name].to_numpy() for t in tables.values()]), 0.99)
        for axis, (title, table) in zip(row, tables.items(), strict=True):
            values = table[name].reindex(spots.obs_names)
            dots = axis.scatter(x, -y, c=values, s=22, cmap="viridis", vmin=0, vmax=top_value, linewidths=0)
            r = "" if title == "stereoscope" else f", r = {agreements[title]['C4'].r[name]:.2f}"
            axis.set_title(f"{title}{r}", fontsize=9)
            axis.set(xticks=[], yticks=[], aspect="equal")
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(f"{name}, C4", fontsize=10)
        figure.colorbar(dots, ax=list(row), shrink=0.8, label="share")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def bars(axis: object, values: dict[str, pd.Series], title: str) -> None:
    types = list(next(iter(values.values())).index)
    width = 0.8 / len(values)
    for i, (name, series) in enumerate(values.items()):
        places = np.arange(len(types)) + (i - (len(values) - 1) / 2) * width
        axis.bar(places, series[types], width, color=COLORS[name], label=name)
    axis.set_xticks(range(len(types)), types, rotation=35, ha="right", fontsize=9)
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
