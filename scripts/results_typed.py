"""How well typed expression is recovered, and whether its confidence is right: ``python scripts/results_typed.py``.

Three sources of bulk samples whose expression by type is known, printed as rows of a Markdown table:

* ``simulated``: the molecules of ``sample_tissue.cohort`` (no pictures), with prototypes that are right;
* ``breast``: real cells of one tumour (Wu et al. 2021, CID4465). Prototypes from one half of the cells; each sample
  mixes cells drawn from the other half, the minor types of a major type in proportions of its own, so that its
  expression varies;
* ``pancreas``: real cells of eight donors. Prototypes from all cells of half of the donors, samples from a donor of
  the others.

For real cells the data folder is ``$NAPARI_CPNN_DATA``.
"""

from __future__ import annotations

import argparse
import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import napari_cpnn as nc
from napari_cpnn.evaluation import pearson
from sample_tissue.cohort import draw_bulk, draw_patients
from sample_tissue.layout import CELL_TYPES

BINS = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.01])
TECHNICAL_SD = 0.1


def bulk_of(counts: np.ndarray, genes: list[str]) -> AnnData:
    matrix = sparse.csr_matrix(counts.astype(np.float32))
    obs = pd.DataFrame(index=[f"sample {i}" for i in range(len(counts))])
    return AnnData(matrix, obs=obs, var=pd.DataFrame(index=genes), layers={"counts": matrix})


def simulated(seed: int) -> tuple[AnnData, nc.Prototypes, np.ndarray, np.ndarray]:
    """Bulk, prototypes, true shares ``(S, C)`` and expression ``(S, C, G)``."""
    rng = np.random.default_rng([seed, 1])
    cells = np.stack([rng.multinomial(700, p) for p in rng.dirichlet([3, 1.2, 1.5, 3, 1.5, 1, 0.7, 0.7], 200)])
    truth = draw_bulk(draw_patients(100, seed), cells, seed)
    protos = nc.Prototypes(truth.prototypes, CELL_TYPES, truth.genes, np.full(len(CELL_TYPES), 100))
    return bulk_of(truth.counts, list(truth.genes)), protos, truth.shares, truth.expression


def mixed(
    cells: AnnData, major: str, groups: str, reference: np.ndarray, pools: list[np.ndarray], seed: int, n: int = 150
):
    """Samples of 40 cells or so of every type, from a pool of cells; proportions within types are drawn."""
    rng = np.random.default_rng([seed, 2])
    X, labels, inner = cells.layers["counts"].tocsr(), cells.obs[major].astype(str), cells.obs[groups].astype(str)
    protos = nc.estimate_prototypes(
        cells[reference].copy(), major, settings=nc.PrototypeSettings(method="mean", min_cells=8)
    )
    genes = list(protos.genes)
    X = X[:, [cells.var_names.get_loc(g) for g in genes]]
    counts, shares, expression = [], [], []
    for _ in range(n):
        pool = pools[rng.integers(len(pools))]
        weight = rng.dirichlet(np.full(len(protos.cell_types), 2.0))
        own = np.zeros((len(protos.cell_types), len(genes)))
        for c, name in enumerate(protos.cell_types):
            here = pool[(labels.iloc[pool] == name).to_numpy()]
            kinds = sorted(set(inner.iloc[here]))
            part = dict(zip(kinds, rng.dirichlet(np.full(len(kinds), 0.7)), strict=True))
            p = (
                np.array([part[k] for k in inner.iloc[here]])
                / inner.iloc[here].map(inner.iloc[here].value_counts()).to_numpy()
            )
            drawn = rng.choice(here, 40, p=p / p.sum())
            own[c] = np.asarray(X[drawn].sum(axis=0)).ravel()
        own /= own.sum(axis=1, keepdims=True)
        mean = weight @ own * rng.lognormal(0, TECHNICAL_SD, len(genes))
        counts.append(rng.poisson(1e6 * mean / mean.sum()))
        shares.append(weight)
        expression.append(own)
    return bulk_of(np.array(counts), genes), protos, np.array(shares), np.array(expression)


def breast(data: Path, seed: int):
    cells = nc.read_cells(data / "derived" / "wu2021_CID4465_counts.h5ad")
    counts = cells.obs["celltype_major"].value_counts()
    cells = cells[cells.obs["celltype_major"].isin(counts.index[counts >= 60])].copy()
    half = np.random.default_rng([seed, 3]).permutation(cells.n_obs)
    return mixed(cells, "celltype_major", "celltype_minor", np.sort(half[::2]), [np.sort(half[1::2])], seed)


def pancreas(data: Path, seed: int):
    cells = nc.read_cells(next((data / "scref-human-pancreas-8donors").rglob("*.h5ad")))
    column = "cell_type"
    counts = pd.crosstab(cells.obs[column], cells.obs["donor_id"])
    donors = sorted(counts.columns[(counts.sum() > 0)])
    kinds = [k for k in counts.index if (counts.loc[k, donors] >= 4).sum() >= 6]
    cells = cells[cells.obs[column].isin(kinds)].copy()
    counts = pd.crosstab(cells.obs[column], cells.obs["donor_id"])
    usable = [d for d in donors if d in counts and (counts[d] >= 3).all()]
    tested = usable[::2]
    held = cells.obs["donor_id"].isin(tested).to_numpy()
    pools = [np.flatnonzero((cells.obs["donor_id"] == d).to_numpy()) for d in tested]
    return mixed(cells, column, "donor_id", np.flatnonzero(~held), pools, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["simulated", "breast", "pancreas"])
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    data = Path(os.environ.get("NAPARI_CPNN_DATA", "."))
    rows, bins = {}, {}
    for name in args.only:
        bulk, protos, shares, truth = simulated(args.seed) if name == "simulated" else globals()[name](data, args.seed)
        typed = nc.deconvolve_typed(bulk, protos, technical_sd=TECHNICAL_SD)
        level = truth.mean(axis=0)
        usable = (level > 2e-5) & ((truth > 0).mean(axis=0) >= 0.9)
        own, true = np.log(typed.relative).swapaxes(0, 1), np.log(np.maximum(truth, 1e-7))
        counts = bulk.layers["counts"].toarray()
        of_bulk = np.log((counts + 0.5) / counts.sum(axis=1, keepdims=True))
        r = np.stack([pearson(own[:, c], true[:, c]) for c in range(len(level))])
        r_bulk = np.stack([pearson(of_bulk, true[:, c]) for c in range(len(level))])
        confidence = typed.confidence.to_numpy().T
        usable &= np.isfinite(r)
        error = np.abs(np.log(typed.profiles.to_numpy() + 1e-9) - np.log(np.maximum(level, 1e-9)))[usable].mean()
        start = np.abs(np.log(protos.profiles + 1e-9) - np.log(np.maximum(level, 1e-9)))[usable].mean()
        rows[name] = {
            "samples x types x genes": f"{len(shares)} x {len(level)} x {typed.confidence.shape[0]:,}",
            "r of shares": np.mean(
                [np.corrcoef(typed.shares.to_numpy()[:, c], shares[:, c])[0, 1] for c in range(len(level))]
            ),
            "profile error (prototypes' own)": f"{error:.2f} ({start:.2f})",
            "pairs": int(usable.sum()),
            "r, all": r[usable].mean(),
            "r, confidence > .5": r[usable & (confidence > 0.5)].mean(),
            "pairs > .5": int((usable & (confidence > 0.5)).sum()),
            "bulk's r, the same pairs": np.nanmean(r_bulk[usable & (confidence > 0.5)]),
        }
        which = np.digitize(confidence, BINS) - 1
        bins[name] = [
            f"{confidence[m].mean():.2f}: {r[m].mean():.2f} ({m.sum():,})"
            if (m := usable & (which == b)).sum() > 4
            else "–"
            for b in range(len(BINS) - 1)
        ]
    table = pd.DataFrame(rows).map(lambda x: f"{x:.3f}" if isinstance(x, float) else x)
    print(table.to_string())
    print("confidence: mean r over the pairs of a bin (pairs)")
    print(pd.DataFrame(bins, index=[f"{a:.1f} to {min(b, 1):.1f}" for a, b in itertools.pairwise(BINS)]).to_string())


if __name__ == "__main__":
    main()
