"""Deconvolution of bulk blood against fractions of cells measured by flow cytometry.

Writes its section of docs/results.md.

    python scripts/results_bulk.py --data ../shared/data

Bulk and fractions are those of the package omnideconv (PBMC of two donors, four samples each), the reference are the
lymphoid cells of spacexr (11 types of 30 cells). Neither was made from the other.
"""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import napari_cpnn as nc
from her2st_study import report
from napari_cpnn.errors import CpnnWarning, SpotsError
from napari_cpnn.prototypes import r_objects

REPO = Path(__file__).resolve().parents[1]

#: Measured population of each type of the reference; the others are not in blood, or were not measured.
POPULATIONS = {
    "T_CD4": "T", "T_CD8": "T", "B": "B", "B_Plasma": "B", "NK": "NK", "ILC": "NK", "Monocytes": "Mono",
    "Macrophages": "Mono", "DC": "DC",
}  # fmt: skip


def read_reference(data: Path) -> ad.AnnData:
    """Cells of spacexr's lymphoid reference with their measured population."""
    path = data / "scref-human-lymphoid-rctd" / "inst/extdata/Reference/Visium_Lymph_Ref/ref_downsampled.rds"
    found = r_objects(path, SpotsError)[""]
    n_genes, n_cells = (int(n) for n in found.counts.Dim)
    parts = (np.asarray(found.counts.x), np.asarray(found.counts.i), np.asarray(found.counts.p))
    counts = sp.csr_matrix(parts, shape=(n_cells, n_genes)).astype(np.int32)
    genes, names = ([str(one) for one in some] for some in found.counts.Dimnames)
    obs = pd.DataFrame({"fine": [str(one) for one in found.cell_types]}, index=names)
    obs["population"] = obs["fine"].map(POPULATIONS)
    cells = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=genes), layers={"counts": counts.copy()})
    return cells[obs["population"].notna().to_numpy()].copy()


def tables(data: Path) -> dict[str, pd.DataFrame]:
    """Measured fractions, and estimates by method, ``(samples, populations)``, rows sum to 1."""
    folder = data / "bulk" / "omnideconv" / "data"
    bulk = nc.read_bulk(folder / "bulk.RData", values="tpm")
    measured = r_objects(folder / "RefData.RData", SpotsError)["RefData"]
    measured = measured.loc[bulk.obs_names]
    cells = read_reference(data)
    result = {"measured": measured.div(measured.sum(axis=1), axis=0)}
    settings = nc.PrototypeSettings(min_cells=3, min_genes=0, min_cells_per_type=5)
    protos = nc.estimate_prototypes(cells, "fine", settings=settings)
    content = nc.rna_content(cells, "fine")
    for name, how in (
        ("nb", nc.DeconvolutionSettings.bulk()),
        ("nnls", nc.DeconvolutionSettings.bulk(method="nnls")),
    ):
        shares = nc.deconvolve(bulk, protos, how)
        for kind, values in (("RNA", shares), ("cells", nc.cell_shares(shares, content))):
            grouped = values.T.groupby(values.columns.map(POPULATIONS)).sum().T
            result[f"{name}, shares of {kind}"] = grouped[measured.columns]
    return result


def scores(found: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Error and correlation of each method, over all samples and populations, and within each population."""
    truth, rows = found["measured"], {}
    for name, table in found.items():
        if name != "measured":
            within = [np.corrcoef(table[c], truth[c])[0, 1] for c in truth]
            rows[name] = {
                "mean absolute error": float((table - truth).abs().to_numpy().mean()),
                "r, all": float(np.corrcoef(table.to_numpy().ravel(), truth.to_numpy().ravel())[0, 1]),
                **{f"r, {c}": r for c, r in zip(truth, within, strict=True)},
                "mean r": float(np.nanmean(within)),
            }
    return pd.DataFrame(rows).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    parser.add_argument("--figure", type=Path, help="picture of estimated against measured fractions")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    found = tables(args.data)
    table = scores(found)
    print(table.round(3).to_string())
    print({name: one.mean().round(3).to_dict() for name, one in found.items()})
    if args.figure:
        draw(found, args.figure)
    report.write_section(args.docs / "results.md", section(table, found))


def draw(found: dict[str, pd.DataFrame], path: Path) -> None:
    """Estimated against measured fractions of all samples, one panel per method."""
    import matplotlib.pyplot as plt

    truth = found["measured"]
    figure, axes = plt.subplots(1, 4, figsize=(11, 3), sharex=True, sharey=True, layout="constrained")
    for axis, (name, table) in zip(axes, list(found.items())[1:], strict=True):
        for column in truth:
            axis.plot(100 * truth[column], 100 * table[column], "o", markersize=4, label=column)
        axis.plot([0, 70], [0, 70], color="0.6", linewidth=0.8)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("measured, % of cells")
    axes[0].set_ylabel("estimated, %")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def section(table: pd.DataFrame, found: dict[str, pd.DataFrame]) -> str:
    """The section of docs/results.md."""
    head = "| | " + " | ".join(table.columns) + " |\n|" + "---|" * (len(table.columns) + 1)
    rows = "\n".join(
        f"| {n} | " + " | ".join(f"{v:.3f}" for v in r) + " |"
        for n, r in zip(table.index, table.to_numpy(), strict=True)
    )
    means = "\n".join(f"| {n} | " + " | ".join(f"{v:.3f}" for v in one.mean()) + " |" for n, one in found.items())
    populations = list(found["measured"].columns)
    return f"""## Bulk blood against flow cytometry

PBMC of two donors, eight samples, fractions of cells measured by flow cytometry (omnideconv); 270 cells of lymphoid
tissue as reference (spacexr). `python scripts/results_bulk.py`

{head}
{rows}

Mean share of each population:

| | {" | ".join(populations)} |
|{"---|" * (len(populations) + 1)}
{means}

The bulk is in transcripts per million, rounded to counts of a million; the reference is lymphoid tissue, not blood, 30
cells a type. Correlations within a population are over eight samples of two donors. Plain NNLS has the smaller error
here, since the negative binomial model gives monocytes too much; within a population both follow the samples alike.
Dividing by the RNA content of each type lowers the error of both.
"""


if __name__ == "__main__":
    main()
