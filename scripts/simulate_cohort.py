"""Typed expression, composition and outcome on a simulated cohort: ``python scripts/simulate_cohort.py --out FOLDER``.

200 small slides of 100 patients, drawn by the sample's tissue generator (``sample_tissue.cohort``), with bulk samples,
composition, expression of each type and outcome known. Slides are drawn once (a quarter of an hour on two cores) and
features of their tiles kept in the folder; both heads are then trained and tested by nested cross-validation by
patient. Nothing is chosen on the results: settings are the defaults. Tables are printed, and written beside the
features.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

import napari_cpnn as nc
from napari_cpnn.settings import TypedSettings
from napari_cpnn.studies import HeldOutTyped, auc, feature_sets, nested_typed, outcome_study
from napari_cpnn.training.bags import Bags
from napari_cpnn.training.bags.typed import TypedLabels
from sample_tissue.cohort import LOG_ODDS, N_SLIDES, STATES, Truth, draw_bulk
from sample_tissue.cohort_files import make_slides
from sample_tissue.layout import CAF, CELL_TYPES

HEADS = ("bag-linear", "typed")


def read(out: Path, n_patients: int, seed: int, workers: int) -> tuple[Truth, Bags, TypedLabels]:
    """Draw what is missing; bags of features, labels by deconvolution of the bulk, and the truth."""
    patients = make_slides(out, n_patients, seed, workers)
    files = [np.load(out / f"{i:04d}.npz") for i in range(n_patients * N_SLIDES)]
    truth = draw_bulk(patients, np.stack([file["cells"] for file in files]), seed)
    names, who = truth.slides["slide"].tolist(), truth.slides["patient"].tolist()
    bags = Bags.of([file["features"] for file in files], names, who, [file["centers"] for file in files])
    matrix = sparse.csr_matrix(truth.counts.astype(np.float32))
    obs, var = pd.DataFrame(index=names), pd.DataFrame(index=list(truth.genes))
    bulk = AnnData(matrix, obs=obs, var=var, layers={"counts": matrix})
    protos = nc.Prototypes(truth.prototypes, CELL_TYPES, truth.genes, np.full(len(CELL_TYPES), 100))
    path = out / "typed.h5ad"
    if not path.exists():
        nc.deconvolve_typed(bulk, protos).save(path)
    return truth, bags, TypedLabels.of(nc.TypedExpression.load(path), bulk)


def precision_at(score: np.ndarray, positive: np.ndarray, recall: float = 0.5) -> float:
    """Share of true ones among the best that hold this share of them."""
    order = np.argsort(-np.nan_to_num(score, nan=-np.inf), kind="stable")
    hits = np.cumsum(positive[order])
    n = int(np.flatnonzero(hits >= recall * positive.sum())[0]) + 1
    return float(hits[n - 1] / n)


def expression_rows(held: HeldOutTyped, truth: Truth) -> dict[str, object]:
    """Scores of planted and other genes against the labels and the truth, and precision of the ways to rank pairs."""
    planted, rows = truth.planted.ravel(), {}
    for name, measured in (("labels", None), ("truth", np.log1p(1e4 * truth.expression))):
        scores = held.scores(measured=measured)
        for column in ("r", "r_given_bulk", "specific_r"):
            rows[f"{name}: {column}, planted"] = scores[column][planted].mean()
            rows[f"{name}: {column}, interferon"] = scores[column][np.tile(truth.interferon, len(CELL_TYPES))].mean()
        for column in ("r", "r_given_bulk", "specific_r", "specificity", "expected_r"):
            rows[f"{name}: precision at recall .5 by {column}"] = precision_at(scores[column].to_numpy(), planted)
        for kind in STATES:
            mine = (scores["cell_type"] == CELL_TYPES[kind]).to_numpy() & planted
            rows[f"{name}: r, planted in {CELL_TYPES[kind]}"] = scores["r"][mine].mean()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for features and tables")
    parser.add_argument("--patients", type=int, default=100)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--heads", nargs="+", default=HEADS, choices=HEADS)
    args = parser.parse_args()
    start = time.perf_counter()
    truth, bags, labels = read(args.out, args.patients, args.seed, args.workers)
    print(f"{len(bags)} slides, {len(bags.features)} tiles: {time.perf_counter() - start:.0f} s")
    y = truth.slides["response"].to_numpy()
    state = truth.slides[f"state {CELL_TYPES[CAF]}"].to_numpy()
    first = np.arange(0, len(y), N_SLIDES)
    known = auc(state[first], y[first])
    rng = np.random.default_rng(0)
    many = rng.standard_normal(20_000)
    whole = auc(many, rng.uniform(size=len(many)) < 1 / (1 + np.exp(-LOG_ODDS * many)))
    print(f"outcome: AUC of the true state {known.value:.3f} in these patients, {whole.value:.3f} in 20,000")
    table, outcomes = {}, []
    for head in args.heads:
        start = time.perf_counter()
        held = nested_typed(bags, labels, TypedSettings(head=head))
        rows = {"seconds, nested cross-validation": time.perf_counter() - start}
        r = [np.corrcoef(held.shares[:, c], truth.shares[:, c])[0, 1] for c in range(len(CELL_TYPES))]
        rows |= {f"r of shares, {name}": value for name, value in zip(CELL_TYPES, r, strict=True)}
        rows |= {
            "r of shares, mean of types": np.mean(r),
            "r of shares, slides x types": np.corrcoef(held.shares.ravel(), truth.shares.ravel())[0, 1],
        }
        table[head] = rows | expression_rows(held, truth)
        np.savez_compressed(args.out / f"held_out_{head}.npz", expression=held.expression, shares=held.shares)
        sets = feature_sets(held.expression, held.shares, CELL_TYPES, truth.slides[["age"]])
        study = outcome_study(sets, truth.slides["patient"].tolist(), y.tolist())
        outcomes.append(study.table.assign(head=head))
    result = pd.DataFrame(table)
    print(result.map("{:.3f}".format).to_string())
    result.to_csv(args.out / "typed.csv")
    auc_table = pd.concat(outcomes)
    print(auc_table[["head", "auc", "low", "high", "n_positive", "n_negative"]].round(3).to_string())
    auc_table.to_csv(args.out / "outcome.csv")


if __name__ == "__main__":
    main()
