"""Recovery of known profiles from simulated cells with batch effects: writes a figure, prints its table.

    python scripts/results_prototypes.py --data ../shared/data

Two sources of truth. Simulated: eight types, negative binomial counts of 2,000 genes; each of six batches has its own
mix of types, depth (log-normal, sigma 0.4) and share of ambient RNA (uniform up to a maximum), which adds the batch's
average profile to every cell. Drawn: real cells of Wu et al. whose counts are thinned to the depth of their batch and
get Poisson ambient RNA; the truth are the mean profiles of the cells drawn from. Compared are the negative binomial
regression and the mean profile, by the Kullback-Leibler divergence of the truth from the estimate (nats per count),
averaged over types. Everything is seeded.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import napari_cpnn as nc
from napari_cpnn.errors import CpnnWarning

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO / "benchmarks"))
from prototype_regression import drawn_cells  # noqa: E402

N_TYPES, N_BATCHES, N_GENES = 8, 6, 2000
AMBIENT, N_CELLS, SEEDS = (0.0, 0.1, 0.2, 0.4), (500, 2000, 8000), (0, 1, 2)
SETTINGS = nc.PrototypeSettings(min_genes=1, max_mito=1.0, min_cells=1, min_cells_per_type=1, device="cpu")
METHODS = {"mean": "mean profile", "nb": "NB regression"}
COLORS = {"mean": "#999999", "nb": "#0072B2"}


@dataclass
class Truth:
    """Cells, and the profiles ``(C, G)`` and batch scales behind them."""

    cells: ad.AnnData
    profiles: pd.DataFrame
    scales: dict[str, float]


def simulate(n_cells: int, ambient: float, seed: int) -> Truth:
    rng = np.random.default_rng(seed)
    common = rng.gamma(0.4, size=N_GENES) + 1e-3
    T = common * np.exp(rng.normal(0, 1, (N_TYPES, N_GENES)) * (rng.random((N_TYPES, N_GENES)) < 0.4))
    T /= T.sum(axis=1, keepdims=True)
    rates = 2000 * np.exp(rng.normal(0, 0.3, (N_TYPES, 1))) * T
    mix = 0.98 * rng.dirichlet(np.full(N_TYPES, 0.5), N_BATCHES) + 0.02 / N_TYPES
    scale, share = np.exp(rng.normal(0, 0.4, N_BATCHES)), rng.uniform(0, ambient, N_BATCHES)
    batch = rng.integers(N_BATCHES, size=n_cells)
    kind = np.array([rng.choice(N_TYPES, p=mix[d]) for d in batch])
    mean = scale[batch, None] * (rates[kind] + (share[:, None] * (mix @ rates))[batch])
    theta = rng.gamma(3, 0.7, N_GENES) + 0.2
    counts = rng.poisson(rng.gamma(theta, mean / theta)).astype(np.int32)
    obs = pd.DataFrame({"celltype": [f"type {c}" for c in kind], "batch": [f"batch {d}" for d in batch]})
    obs.index = [f"cell {i}" for i in range(n_cells)]
    genes = [f"gene {i}" for i in range(N_GENES)]
    cells = ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=genes))
    profiles = pd.DataFrame(T, index=[f"type {c}" for c in range(N_TYPES)], columns=genes)
    return Truth(cells, profiles, {f"batch {d}": float(s) for d, s in enumerate(scale)})


def draw(data: Path) -> Truth:
    source = ad.read_h5ad(data / "derived" / "wu2021_CID4465_counts.h5ad")
    source = source[:, source.X.getnnz(axis=0) >= 20].copy()
    sums = pd.DataFrame.sparse.from_spmatrix(source.X, columns=source.var_names).astype(np.float64)
    profiles = sums.groupby(source.obs["celltype_major"].astype(str).to_numpy()).sum()
    return Truth(drawn_cells(source, "celltype_major", 20_000), profiles.div(profiles.sum(axis=1), axis=0), {})


def estimates(truth: Truth) -> dict[str, nc.Prototypes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CpnnWarning)
        return {
            m: nc.estimate_prototypes(truth.cells, batch="batch", settings=SETTINGS.replace(method=m)) for m in METHODS
        }


def divergence(truth: Truth, found: nc.Prototypes) -> pd.Series:
    """Nats per count, by type; a gene that the estimate has not seen counts as one in a hundred million."""
    estimate = pd.DataFrame(1e-8, index=list(found.cell_types), columns=truth.profiles.columns)
    estimate[list(found.genes)] = np.maximum(found.profiles.astype(np.float64), 1e-8)
    true = truth.profiles.loc[estimate.index].to_numpy()
    ratio = np.where(true > 0, true, 1) / np.where(true > 0, estimate.to_numpy(), 1)
    return pd.Series((true * np.log(ratio)).sum(axis=1), index=estimate.index)


def table_of_simulations() -> pd.DataFrame:
    rows = []
    for ambient in AMBIENT:
        for n_cells in N_CELLS:
            for seed in SEEDS:
                truth = simulate(n_cells, ambient, seed)
                kl = {method: divergence(truth, found) for method, found in estimates(truth).items()}
                better = int((kl["nb"] < kl["mean"]).sum())
                rows.append((ambient, n_cells, seed, kl["mean"].mean(), kl["nb"].mean(), better, len(kl["nb"])))
    return pd.DataFrame(rows, columns=["ambient", "cells", "seed", "mean", "nb", "better", "types"])


def print_tables(simulated: pd.DataFrame, drawn: pd.DataFrame | None) -> None:
    print("| ambient RNA up to | cells | mean profile | NB regression | types where the regression is nearer |")
    print("| --- | --- | --- | --- | --- |")
    for (ambient, n_cells), part in simulated.groupby(["ambient", "cells"]):
        better = f"{part['better'].sum()} of {part['types'].sum()}"
        print(f"| {ambient:.0%} | {n_cells} | {part['mean'].mean():.4f} | {part['nb'].mean():.4f} | {better} |")
    if drawn is not None:
        print("\n| drawn from real cells | mean profile | NB regression |\n| --- | --- | --- |")
        for name, row in drawn.iterrows():
            print(f"| {name} | {row['mean']:.4f} | {row['nb']:.4f} |")
        print(f"| mean of {len(drawn)} types | {drawn['mean'].mean():.4f} | {drawn['nb'].mean():.4f} |")


def figure(simulated: pd.DataFrame, drawn: pd.DataFrame | None) -> Figure:
    fig = Figure(figsize=(13, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(fig)
    axes = fig.subplots(1, 4 if drawn is not None else 3)
    truth = simulate(N_CELLS[1], AMBIENT[-1], 0)
    found = estimates(truth)
    _profiles(axes[0], truth, found)
    for method, label in METHODS.items():
        part = simulated[simulated["cells"] == N_CELLS[-1]].groupby("ambient")[method]
        error = [part.mean() - part.min(), part.max() - part.mean()]
        axes[1].errorbar(part.mean().index, part.mean(), error, color=COLORS[method], marker="o", ms=4, label=label)
    axes[1].set(xlabel="ambient RNA, up to", ylabel="divergence from the truth, nats", title=f"{N_CELLS[-1]} cells")
    axes[1].set_ylim(bottom=0)
    axes[1].legend(frameon=False)
    scales = found["nb"].provenance["fit"]["batch_scales"]
    true = np.array([truth.scales[name] for name in sorted(truth.scales)])  # in the order of the codes
    ours = np.array(list(scales.values()))
    axes[2].loglog(true / true.mean(), ours / ours.mean(), "o", color=COLORS["nb"])
    axes[2].axline((1, 1), (2, 2), color="0.6", lw=1)
    axes[2].set(xlabel="true depth of the batch", ylabel="found", title="batch scales")
    if drawn is not None:
        y = np.arange(len(drawn))
        for offset, method in ((0.2, "mean"), (-0.2, "nb")):
            axes[3].barh(y + offset, drawn[method], 0.38, color=COLORS[method])
        axes[3].set_yticks(y, drawn.index)
        axes[3].set(xlabel="divergence from the truth, nats", title="drawn from real cells")
    return fig


def _profiles(ax: Axes, truth: Truth, found: dict[str, nc.Prototypes]) -> None:
    """True against estimated expression of the type that the mean gets most wrong."""
    worst = str(divergence(truth, found["mean"]).idxmax())
    for method in METHODS:
        estimate = found[method].to_frame().loc[worst]
        true = truth.profiles.loc[worst, estimate.index]
        shown = estimate > 0
        ax.loglog(true[shown] * 1e4, estimate[shown] * 1e4, ".", ms=2, alpha=0.5, color=COLORS[method])
    ax.axline((1, 1), (2, 2), color="0.3", lw=1)
    n = int(found["nb"].n_cells[found["nb"].cell_types.index(worst)])
    ax.set(
        xlabel="true counts per 10,000", ylabel="estimated", title=f"{worst}, {n} cells, ambient to {AMBIENT[-1]:.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, help="folder with the shared data sets, for the cells drawn from real ones"
    )
    parser.add_argument("--figure", type=Path, default=REPO / "docs" / "images" / "prototype_recovery.png")
    args = parser.parse_args()
    simulated = table_of_simulations()
    drawn = None
    if args.data:
        truth = draw(args.data)
        drawn = pd.DataFrame({method: divergence(truth, found) for method, found in estimates(truth).items()})
    print_tables(simulated, drawn)
    figure(simulated, drawn).savefig(args.figure)
    print(f"\nwrote {args.figure}")


if __name__ == "__main__":
    main()
