"""Single cells learnt from spots: ``python scripts/results_cells.py``. Writes its sections of docs/results.md.

    python scripts/results_cells.py                      # all of it, about two hours of one core
    python scripts/results_cells.py --only sample        # or her2st, simulation, speed, morphology

Nuclei are found once and stay in runs/cells, features of crops in the user's cache. Epochs of the cells of her2st are
chosen inside the training sections of each fold.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import napari_cpnn as nc
from cells_study.her2st import SECTIONS, Cells, Tested, cross_test
from cells_study.sample import CELL_TYPES, Sample, recalls, simulate
from her2st_study.report import markdown, write_section
from napari_cpnn.errors import CpnnWarning

REPO = Path(__file__).resolve().parents[1]
PARTS = ("her2st", "sample", "simulation", "speed")
#: Crops around a nucleus: as sCellST's, and larger ones that see its neighbours, too.
CROPS = {"12 um": nc.PatchSpec(64, 12 / 64), "32 um": nc.PatchSpec(64, 0.5), "64 um": nc.PatchSpec(64, 1.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument(
        "--runs", type=Path, default=REPO / "runs" / "cells", help="nuclei and finished folds stay here"
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    torch.set_num_threads(1)
    makers = {"her2st": her2st, "sample": sample, "simulation": simulation, "speed": speed}
    for name in args.only:
        write_section(args.docs / "results.md", makers[name](args))


def her2st(args: argparse.Namespace) -> str:
    cells = Cells(args.data, args.runs)
    rows = []
    for encoder in ("squeezenet", "nic"):
        rows.append(_row(f"patches, {encoder}", cells.patch_model(encoder, args.seeds)))
        variants = {
            f"cells, {encoder}, {crop}, {head}": cells.settings(encoder, patch, **change)
            for crop, patch in CROPS.items()
            for head, change in HEADS.items()
            if crop == "12 um" or head == "cpnn"
        }
        rows += [_row(name, tested) for name, tested in cross_test(cells, variants, args.seeds).items()]
    header = ["model", *(f"{name}: PCC" for name in SECTIONS), "mean PCC / SCC", "PCC given depth", "composition"]
    return "\n".join(["## Cells on her2st", "", "TEXT", "", markdown(header, rows)])


HEADS = {
    "cpnn": {},
    "mlp, counts": {"head": "mlp"},
    "mlp as sCellST trains it": {"head": "mlp", "loss": "mse"},
}


def _row(name: str, tested: dict[str, list[Tested]]) -> list[str]:
    every = [one for of in tested.values() for one in of]
    means = [f"{np.mean([one.pcc for one in tested[section]]):.3f}" for section in SECTIONS]
    pcc, scc, given, composition = (
        float(np.mean([getattr(one, key) for one in every])) for key in ("pcc", "scc", "pcc_given_depth", "composition")
    )
    share = "" if np.isnan(composition) else f"{composition:.2f}"
    return [name, *means, f"{pcc:.3f} / {scc:.3f}", f"{given:.3f}", share]


def sample(args: argparse.Namespace) -> str:
    known = Sample(args.runs)
    protos = nc.Prototypes.load(nc.sample_folder() / "prototypes.h5ad")
    train = known.spots[known.is_train].copy()
    rows = []
    matched, types = known.matched(known.nuclei.centers_um)
    for name, settings in {
        "he-small": nc.CellSettings(),
        "he-small, purity .1": nc.CellSettings(purity_weight=0.1),
        "he-small+colour": nc.CellSettings(encoder="he-small+colour"),
        "colour": nc.CellSettings(encoder="colour"),
    }.items():
        model = nc.train_cells([(known.slide, train)], protos, settings.replace(device="cpu"), [known.nuclei])
        cells = nc.predict_cells(known.slide, model, known.nuclei.subset(matched), progress=False, keep=True)
        found = recalls(cells.dominant(), cells.cell_types, types[matched])
        rows.append([name, f"{found.mean():.3f}", *(f"{found[kind]:.2f}" for kind in CELL_TYPES)])
        print(rows[-1], flush=True)
    return "\n".join(
        ["## Cells of the sample slide", "", "TEXT", "", markdown(["encoder", "balanced accuracy", *CELL_TYPES], rows)]
    )


def simulation(args: argparse.Namespace) -> str:
    known = Sample(args.runs)
    drawn = simulate(args.data, known)
    settings = nc.CellSettings(device="cpu")
    train = drawn.spots[known.is_train].copy()
    model = nc.train_cells([(known.slide, train)], drawn.prototypes, settings, [drawn.nuclei])
    test = known.clear(drawn.nuclei.centers_um)
    cells = nc.predict_cells(known.slide, model, drawn.nuclei.subset(test), progress=False, keep=True)
    return str(cells)


def speed(args: argparse.Namespace) -> str:
    known = Sample(args.runs)
    start = time.process_time()
    return str(start)


if __name__ == "__main__":
    main()
