"""Single cells learnt from spots: ``python scripts/results_cells.py``. Writes its sections of docs/results.md.

    python scripts/results_cells.py                      # all of it, about an hour of one core
    python scripts/results_cells.py --only sample        # or her2st, simulation

Nuclei and finished folds stay in runs/cells, features of crops in the user's cache.
"""

from __future__ import annotations

import argparse
import itertools
import os
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import napari_cpnn as nc
from cells_study.her2st import EPOCHS, N_GENES, SECTIONS, Cells, Tested, cross_test
from cells_study.sample import CELL_TYPES, Sample, recalls, simulate
from her2st_study.report import markdown, write_section
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.evaluation import pearson

REPO = Path(__file__).resolve().parents[1]
PARTS = ("her2st", "sample", "simulation")
ENCODERS = ("squeezenet", "nic")
#: Crops around a nucleus: sCellST's 12 um, and one that sees its neighbours, too.
CROPS = {"12 um": nc.PatchSpec(64, 12 / 64), "32 um": nc.PatchSpec(64, 0.5)}
#: A radius of the spots of her2st that takes in cells around them, too.
WIDER_UM = 75.0
#: Genes by the share of their variance between types.
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "cells", help="nuclei and folds stay here")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=1, help="of her2st")
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, help="of her2st")
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    torch.set_num_threads(1)
    makers = {"her2st": her2st, "sample": sample, "simulation": simulation}
    for name in args.only:
        text = makers[name](args)
        print(text, flush=True)
        write_section(args.docs / "results.md", text)


def her2st(args: argparse.Namespace) -> str:
    cells = Cells(args.data, args.runs)
    rows = []
    for encoder in args.encoders:
        crop, larger = CROPS
        variants = {
            f"cells, {encoder}, {name}": cells.settings(
                encoder, CROPS[crop] if crop in name else CROPS[larger], **change
            )
            for name, change in {
                f"{crop}, CPNN": {},
                f"{larger}, CPNN": {},
                f"{crop}, network, mean of counts": {"head": "mlp"},
                f"{crop}, network, as sCellST trains it": {"head": "mlp", "loss": "mse"},
                f"{crop}, CPNN, cells within {WIDER_UM:g} um": {"radius_um": WIDER_UM},
                f"{larger}, CPNN, cells within {WIDER_UM:g} um": {"radius_um": WIDER_UM},
            }.items()
        }
        tested = cross_test(cells, variants, args.seeds)
        genes = {name: list(of[0].per_gene.index) for name, of in next(iter(tested.values())).items()}
        patches = cells.patch_model(encoder, args.seeds, genes)
        rows.append(_row(f"patches, {encoder}", patches))
        rows += [_row(name, of) for name, of in tested.items()]
    header = ["model", *(f"{name}: PCC" for name in SECTIONS), "mean PCC / SCC", "PCC given depth", "composition"]
    n_spots = ", ".join(f"{name} {tested[0].n_spots}" for name, tested in patches.items())
    n_nuclei = ", ".join(f"{name} {len(nuclei):,}" for name, nuclei in cells.nuclei.items())
    return section(
        "Cells on her2st",
        f"`python scripts/results_cells.py --only her2st`: sections of patient C, each tested by models trained on the "
        f"other two, on its spots with a nucleus ({n_spots}); seeds: {args.seeds}. Nuclei within 100 um of a spot: "
        f"{n_nuclei}; a spot is the mean of those within 50 um. Frozen encoders; the patch model sees 224 px at 1.0 "
        "um/px and averages eight symmetries, a cell its crop. Prototypes of the 25 minor types of CID4465; scores "
        f"over the {N_GENES:,} genes that vary most within the training sections. Cells: {EPOCHS} epochs, fixed "
        "beforehand; the patch model 10, and all genes, as in *Heads on her2st*. "
        "Composition: mean correlation with stereoscope's shares, of the patch's weights or of the mean of the spot's "
        "cells.",
        markdown(header, rows),
    )


def section(title: str, *parts: str) -> str:
    """A section of the page; paragraphs are wrapped, tables stay as they are."""
    wrapped = [part.strip() if part.startswith("|") else textwrap.fill(part, 140) for part in parts]
    return "\n\n".join([f"## {title}", *wrapped]) + "\n"


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
    seen, types = known.matched(known.nuclei.centers_um)
    mine = known.nuclei.subset(seen)
    rows = []
    for name, settings in {
        "he-small (the default)": nc.CellSettings(),
        "he-small, negative binomial loss": nc.CellSettings(loss="nb"),
        "he-small, no free mixture": nc.CellSettings(free_mixture=0.0),
        "he-small+colour": nc.CellSettings(encoder="he-small+colour"),
        "colour": nc.CellSettings(encoder="colour"),
    }.items():
        samples = [(known.slide, train)]
        model = nc.train_cells(samples, protos, settings.replace(device="cpu"), [known.left()])
        start = time.process_time()
        cells = nc.predict_cells(known.slide, model, mine, progress=False, device="cpu")
        rate = len(mine) / (time.process_time() - start)
        found = recalls(cells.dominant(), cells.cell_types, types[seen])
        rows.append([name, f"{found.mean():.3f}", *(f"{found[kind]:.2f}" for kind in CELL_TYPES), f"{rate:,.0f}"])
        about = model.provenance["cells"]
    return section(
        "Cells of the packaged sample",
        f"`python scripts/results_cells.py --only sample`: trained on the {about['n_spots']} spots of the left half "
        f"that have a nucleus ({about['n_cells']:,} found nuclei; {about['n_spots_without_nuclei']} spots have none), "
        "of which a contiguous quarter decides when training ends; the labels are the counts of spots alone. Tested on "
        f"the right half, outside of fold and ink: the {len(mine):,} found nuclei that lie within 3 um of a painted "
        "one, whose type the generator knows. Balanced accuracy is the mean recall of the eight types; the last "
        "column is cells per second of one core, from pixels to types.",
        markdown(["model", "balanced accuracy", *CELL_TYPES, "cells / s"], rows),
    )


def simulation(args: argparse.Namespace) -> str:
    known = Sample(args.runs)
    drawn = simulate(args.data, known)
    train = drawn.spots[known.is_train].copy()
    left = drawn.nuclei.subset(known.is_left(drawn.nuclei.centers_um))
    model = nc.train_cells([(known.slide, train)], drawn.prototypes, nc.CellSettings(device="cpu"), [left])
    test = known.clear(drawn.nuclei.centers_um)
    cells = nc.predict_cells(known.slide, model, drawn.nuclei.subset(test), progress=False)
    names, types = np.array(cells.cell_types)[cells.dominant()], drawn.types[test]
    recall = {kind: float((names[types == kind] == kind).mean()) for kind in CELL_TYPES}
    genes = list(model.genes)
    measured = drawn.expression[test][:, [drawn.genes.index(gene) for gene in genes]]
    predicted = cells.decoder.expression(cells.weights, cells.programs, genes)
    pcc, of_type = pearson(predicted, measured), pearson(_means_of(measured, types), measured)
    within = [pearson(predicted[types == kind], measured[types == kind]) for kind in CELL_TYPES]
    between = np.array([model.provenance["between_types"].get(gene, np.nan) for gene in genes])
    rows = []
    for low, high in itertools.pairwise(SHARES):
        some = (between >= low) & ((between < high) | (high == 1.0)) & np.isfinite(pcc)
        inside = np.nanmean([one[some] for one in within])
        numbers = (f"{value[some].mean():.3f}" for value in (pcc, of_type))
        rows.append([f"{low:g} to {high:g}", f"{int(some.sum()):,}", *numbers, f"{inside:.3f}"])
    header = ["variance between types", "genes", "PCC", "PCC of the true type's mean", "PCC within a type"]
    return section(
        "Simulated cells: what is learnt of a gene",
        "`python scripts/results_cells.py --only simulation`, in the manner of sCellST's simulation: every nucleus of "
        "the packaged slide is given a real cell of its type (tumour CID4465), every spot the sum of the cells inside "
        "it; prototypes are of the other half of the cells. Trained on the spots of the left half, tested on the "
        f"{int(test.sum()):,} cells of the right half. Recall of the types, mean {np.mean(list(recall.values())):.2f}:",
        markdown(list(recall), [[f"{value:.2f}" for value in recall.values()]]),
        "Genes by the share of their variance over cells that lies between types (`variance_between_types` of the "
        "prototypes, kept in the model's card), and the mean PCC over cells with the cell that each nucleus was given "
        f"(log1p CP10k); {len(genes):,} genes, mean PCC {np.nanmean(pcc):.3f}, of the true type's mean "
        f"{np.nanmean(of_type):.3f}:",
        markdown(header, rows),
    )


def _means_of(values: np.ndarray, types: np.ndarray) -> np.ndarray:
    """The mean of each cell's type: the best that knowing the type alone can do."""
    out = np.empty_like(values)
    for kind in np.unique(types):
        out[types == kind] = values[types == kind].mean(axis=0)
    return out


if __name__ == "__main__":
    main()
