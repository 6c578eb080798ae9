"""Prototypes by negative binomial regression, beside cell2location's reference regression on the same cells.

    python benchmarks/prototype_regression.py --data ../shared/data --cell2location /path/to/its/env/bin/python

Two references: real cells of Wu et al. (one tumour, one batch), and 20,000 cells drawn from them with a depth and an
ambient background per batch. Both methods run in this one call, on the CPU and with the same number of threads.
cell2location needs an environment of its own (cell2location 0.1.5, pyro-ppl 1.9.1); it is trained with its own
defaults, for its own default number of epochs unless --epochs is given, in which case the time for the default is
extrapolated, which is said. Its profiles are its posterior medians. Times are CPU seconds, which other work on the
machine changes less than it changes the time that passes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import napari_cpnn as nc
from common import print_table, scratch
from napari_cpnn.errors import CpnnWarning

#: Runs in cell2location's environment: cells, epochs ("default" or a number) and where the profiles go.
CHILD = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import anndata, numpy, scvi, torch
from cell2location.models import RegressionModel
cells, epochs, out, threads = anndata.read_h5ad(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
torch.set_num_threads(threads)
scvi.settings.seed = 0
default = int(min(round(20000 / cells.n_obs * 400), 1000))
epochs = default if epochs == "default" else int(epochs)
batch = "batch" if cells.obs["batch"].nunique() > 1 else None
RegressionModel.setup_anndata(cells, batch_key=batch, labels_key="celltype")
start = time.process_time()
model = RegressionModel(cells)
model.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=False)
seconds = time.process_time() - start
medians = model.module.guide.quantiles([0.5])
rates = numpy.asarray(medians["per_cluster_mu_fg"][0].detach())
numpy.savez(out, rates=rates, types=numpy.array(model.factor_names_.tolist() if hasattr(model.factor_names_, "tolist")
            else list(model.factor_names_), dtype=str))
loss = model.history["elbo_train"].iloc[:, 0].astype(float)
print("RESULT" + json.dumps({"epochs": epochs, "default": default, "seconds": seconds,
      "last_loss": float(loss.iloc[-1]), "loss_before": float(loss.iloc[-max(2, len(loss) // 10)])}))
"""


def drawn_cells(source: ad.AnnData, label: str, n_cells: int, n_batches: int = 6, seed: int = 0) -> ad.AnnData:
    """Cells drawn from real ones: per batch a mix of types, a depth (counts are thinned) and an ambient background."""
    rng = np.random.default_rng(seed)
    X, labels = sp.csr_matrix(source.X), source.obs[label].to_numpy().astype(str)
    types = np.unique(labels)
    mix = 0.9 * rng.dirichlet(np.full(len(types), 2.0), n_batches) + 0.1 / len(types)
    depth = np.exp(rng.normal(0, 0.4, n_batches))
    depth /= depth.max()
    ambient = rng.uniform(0.02, 0.25, n_batches)
    batch = rng.integers(n_batches, size=n_cells)
    kind = np.array([rng.choice(len(types), p=mix[d]) for d in batch])
    picked = np.empty(n_cells, dtype=int)
    for i, name in enumerate(types):
        picked[kind == i] = rng.choice(np.flatnonzero(labels == name), (kind == i).sum())
    counts = X[picked].astype(np.int64)
    row = np.repeat(np.arange(n_cells), np.diff(counts.indptr))
    counts.data = rng.binomial(counts.data, depth[batch[row]])
    means = np.stack([np.asarray(X[labels == name].mean(axis=0)).ravel() for name in types])
    for d in range(n_batches):
        cells, level = np.flatnonzero(batch == d), mix[d] @ means
        n = rng.poisson(ambient[d] * depth[d] * level.sum(), len(cells))
        gene = rng.choice(len(level), size=n.sum(), p=level / level.sum())
        counts = counts + sp.csr_matrix((np.ones(n.sum(), np.int64), (np.repeat(cells, n), gene)), shape=counts.shape)
    obs = pd.DataFrame({"celltype": types[kind], "batch": [f"batch {d}" for d in batch]})
    obs.index = [f"cell {i}" for i in range(n_cells)]
    return ad.AnnData(sp.csr_matrix(counts, dtype=np.int32), obs=obs, var=source.var.copy())


def compare(name: str, cells: ad.AnnData, args: argparse.Namespace, folder: Path) -> list[object]:
    """One row of the table."""
    settings = nc.PrototypeSettings(method="nb", min_genes=1, max_mito=1.0, min_cells=1, device="cpu")
    start = time.process_time()
    ours = nc.estimate_prototypes(cells, "celltype", "batch", settings)
    seconds = time.process_time() - start
    mean = nc.estimate_prototypes(cells, "celltype", "batch", settings.replace(method="mean"))
    path, out = folder / "cells.h5ad", folder / "profiles.npz"
    cells.write_h5ad(path)
    command = [args.cell2location, "-c", CHILD, str(path), args.epochs, str(out), str(args.threads)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(run.stderr[-3000:])
    report = json.loads(run.stdout.split("RESULT")[1])
    with np.load(out) as data:
        theirs = pd.DataFrame(data["rates"], index=data["types"], columns=cells.var_names)
    theirs = theirs.loc[list(ours.cell_types), list(ours.genes)].to_numpy(np.float64)
    theirs /= theirs.sum(axis=1, keepdims=True)
    whole = report["seconds"] * report["default"] / report["epochs"]
    seen = mean.profiles > 0
    agree = np.array([_correlation(np.log(a), np.log(b)) for a, b in zip(ours.profiles, theirs, strict=True)])
    pairs = zip(ours.profiles, theirs, seen, strict=True)
    agree_seen = np.array([_correlation(np.log(a[s]), np.log(b[s])) for a, b, s in pairs])
    by_type = dict(zip(ours.cell_types, agree.round(4).tolist(), strict=True))
    print(name, f"{seconds:.1f} s", report, by_type, flush=True)
    return [
        name,
        f"{cells.n_obs} x {cells.n_vars}",
        f"{seconds:.1f} s",
        f"{report['seconds']:.0f} s for {report['epochs']} epochs",
        f"{whole:.0f} s for {report['default']}" + ("" if report["epochs"] == report["default"] else ", extrapolated"),
        f"{report['seconds'] / seconds:.0f}, {whole / seconds:.0f}",
        f"{agree.min():.4f} to {agree.max():.4f}",
        f"{agree_seen.min():.4f} to {agree_seen.max():.4f}",
    ]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the shared data sets")
    parser.add_argument("--cell2location", required=True, help="python of an environment with cell2location")
    parser.add_argument("--epochs", default="default", help="epochs of cell2location: default or a number")
    parser.add_argument("--genes", type=int, default=0, help="only this many genes, drawn at random (0: all)")
    parser.add_argument("--cells", type=int, default=20_000, help="cells of the drawn reference")
    parser.add_argument("--only", choices=["real", "drawn"], help="one of the two references")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore", CpnnWarning)
    source = ad.read_h5ad(args.data / "derived" / "wu2021_CID4465_counts.h5ad")
    real = source.copy()
    real.obs["celltype"], real.obs["batch"] = real.obs["celltype_major"].astype(str), "all"
    rows = []
    for name, cells in (("real", real), ("drawn", drawn_cells(source, "celltype_major", args.cells))):
        if args.only not in (None, name):
            continue
        enough = cells.X.getnnz(axis=0) >= max(5, cells.n_obs // 100)
        genes = np.flatnonzero(enough)
        if args.genes and len(genes) > args.genes:
            genes = np.sort(np.random.default_rng(0).choice(genes, args.genes, replace=False))
        with scratch() as folder:
            rows.append(compare(name, cells[:, genes].copy(), args, Path(folder)))
    header = ["cells", "cells x genes", "ours", "cell2location", "its default", "times faster: as run, at its default"]
    print_table(
        "Regression of prototypes, beside cell2location 0.1.5",
        [*header, "r of log profiles, all genes", "genes that the type has counts of"],
        rows,
    )


if __name__ == "__main__":
    main()
