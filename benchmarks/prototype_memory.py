"""Memory and time of prototypes from a reference that is left on disk.

    python benchmarks/prototype_memory.py --cells 300000 --genes 20000

Writes an .h5ad of simulated cells (25 types, 20 batches) in chunks to a scratch folder, and estimates prototypes from
it in a child process, whose peak of resident memory is what the system says it was (Linux only).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import write_elem

from common import print_table, scratch

N_TYPES, N_BATCHES, CHUNK = 25, 20, 10_000

CHILD = """
import json, sys, time
import torch
torch.set_num_threads(int(sys.argv[3]))
import napari_cpnn as nc
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
start = time.perf_counter()
cells = nc.read_cells(sys.argv[1], backed=True)
protos = nc.estimate_prototypes(cells, "celltype", "batch", nc.PrototypeSettings(method=sys.argv[2], device="cpu"))
print(json.dumps({"seconds": time.perf_counter() - start, "genes": len(protos.genes),
                  "fit": protos.provenance["fit"], "before": before,
                  "peak": peak()}))
"""


def write_cells(path: Path, n_cells: int, n_genes: int, depth: float, seed: int = 0) -> int:
    """An ``.h5ad`` with CSR counts in X, written chunk by chunk; returns the number of stored counts."""
    rng = np.random.default_rng(seed)
    profiles = rng.gamma(0.3, size=n_genes) * np.exp(rng.normal(0, 1, (N_TYPES, n_genes)))
    profiles /= profiles.sum(axis=1, keepdims=True)
    kind, batch = rng.integers(N_TYPES, size=n_cells), rng.integers(N_BATCHES, size=n_cells)
    scale = np.exp(rng.normal(0, 0.4, N_BATCHES))
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"], file.attrs["encoding-version"] = "anndata", "0.1.0"
        obs = pd.DataFrame({"celltype": [f"type {i}" for i in kind], "batch": [f"batch {i}" for i in batch]})
        write_elem(file, "obs", obs.astype("category").set_index(pd.Index([f"cell {i}" for i in range(n_cells)])))
        write_elem(file, "var", pd.DataFrame(index=[f"gene {i}" for i in range(n_genes)]))
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["encoding-version"] = "csr_matrix", "0.1.0"
        group.attrs["shape"] = (n_cells, n_genes)
        for name, kind_of in (("data", np.float32), ("indices", np.int32)):
            group.create_dataset(name, shape=(0,), maxshape=(None,), dtype=kind_of, chunks=(2**20,))
        indptr, stored = [np.zeros(1, np.int64)], 0
        for start in range(0, n_cells, CHUNK):
            rows = slice(start, min(start + CHUNK, n_cells))
            counts = _chunk(rng, profiles, kind[rows], depth * scale[batch[rows]])
            group["data"].resize((stored + counts.nnz,))
            group["indices"].resize((stored + counts.nnz,))
            group["data"][stored:], group["indices"][stored:] = counts.data, counts.indices
            indptr.append(counts.indptr[1:].astype(np.int64) + stored)
            stored += counts.nnz
        group.create_dataset("indptr", data=np.concatenate(indptr))
    return stored


def _chunk(rng: np.random.Generator, profiles: np.ndarray, kind: np.ndarray, depth: np.ndarray) -> sp.csr_matrix:
    """Multinomial cells: as many draws from the profile of the type as the cell has counts."""
    totals = rng.poisson(depth * rng.gamma(4, 0.25, len(kind)))
    rows, genes = np.repeat(np.arange(len(kind)), totals), np.empty(totals.sum(), dtype=np.int64)
    of = kind[rows]
    for c in range(len(profiles)):
        mine = np.flatnonzero(of == c)
        genes[mine] = np.searchsorted(np.cumsum(profiles[c])[:-1], rng.random(len(mine)))
    ones = np.ones(len(rows), dtype=np.float32)
    counts = sp.csr_matrix((ones, (rows, genes)), shape=(len(kind), profiles.shape[1]))
    counts.sum_duplicates()
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=300_000)
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--depth", type=float, default=3000.0, help="mean counts of a cell")
    parser.add_argument("--methods", nargs="+", default=["mean", "nb"])
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    rows = []
    with scratch() as folder:
        path = Path(folder) / "cells.h5ad"
        stored = write_cells(path, args.cells, args.genes, args.depth)
        print(f"{stored:,} counts, {path.stat().st_size / 2**30:.1f} GiB on disk", flush=True)
        for method in args.methods:
            command = [sys.executable, "-c", CHILD, str(path), method, str(args.threads)]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                sys.exit(run.stderr[-3000:])
            report = json.loads(run.stdout.splitlines()[-1])
            fit = report["fit"]
            steps = f"{fit['iterations']} steps, {'' if fit['converged'] else 'not '}converged" if fit else ""
            memory = f"{report['peak'] / 2**20:.2f} GiB ({report['before'] / 2**20:.2f} after import)"
            rows.append([method, f"{args.cells} x {report['genes']}", f"{report['seconds']:.0f} s", memory, steps])
    print_table("Prototypes from disk", ["method", "cells x genes", "time", "peak of memory", "fit"], rows)


if __name__ == "__main__":
    main()
