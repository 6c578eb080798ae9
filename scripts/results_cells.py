"""Single cells learnt from spots: ``python scripts/results_cells.py``. Writes its sections of docs/results.md.

    python scripts/results_cells.py                      # all of it, about an hour of one core
    python scripts/results_cells.py --only sample        # or another of PARTS

Nuclei and finished folds stay in runs/cells, features of crops in the user's cache.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import napari_cpnn as nc
from cells_study.content import content_section
from cells_study.embedding import embedding_section
from cells_study.her2st import EPOCHS, N_GENES, SECTIONS, Cells, cross_test
from cells_study.lost_type import TRIAL_HEADER, Lost, lost_trials, lost_words, trial_rows
from cells_study.nuclei_input import INPUTS, Fold, Inputs, cpnn_scores, gain, measured_spots, ridge_scores
from cells_study.page import Runs, minus, over_seeds, points, section, short, spread, within
from cells_study.sample import CELL_TYPES, Sample, recalls, simulate
from her2st_study.report import markdown, write_section
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.evaluation import pearson

REPO = Path(__file__).resolve().parents[1]
PARTS = ("her2st", "sample", "simulation", "seeds", "nuclei-input", "embedding", "rna-content")
ENCODERS = ("squeezenet",)
#: Crops around a nucleus: sCellST's 12 um, and one that sees its neighbours, too.
CROPS = {"12 um": nc.PatchSpec(64, 12 / 64), "32 um": nc.PatchSpec(64, 0.5)}
#: A radius of the spots of her2st that takes in cells around them, too.
WIDER_UM = 75.0
#: What the table of her2st does not tell.
UNMEASURED = "Not measured: other encoders on these folds, and across patients."
#: Balanced accuracy that was aimed at on the packaged sample.
AIM = 0.8
#: The type that is not found among simulated cells.
LOST = "B-cells"
#: Genes by the share of their variance between types.
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "cells", help="nuclei and folds stay here")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=3, help="of her2st, seeds, nuclei-input and rna-content")
    parser.add_argument("--encoders", nargs="+", default=ENCODERS, help="of her2st")
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    torch.set_num_threads(1)
    of_parts = (her2st, sample, simulation, seeds, nuclei_input, embedding, rna_content)
    makers = dict(zip(PARTS, of_parts, strict=True))
    for name in args.only:
        text = makers[name](args)
        print(text, flush=True)
        write_section(args.docs / "results.md", text)


def her2st(args: argparse.Namespace) -> str:
    cells = Cells(args.data, args.runs)
    rows, said = [], []
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
        seeds = {name: args.seeds if settings.radius_um == WIDER_UM else 1 for name, settings in variants.items()}
        tested = cross_test(cells, variants, seeds)
        genes = {name: list(of[0].per_gene.index) for name, of in next(iter(tested.values())).items()}
        patches = cells.patch_model(encoder, args.seeds, genes)
        rows.append(_row(f"patches, {encoder}", patches))
        rows += [_row(name, of) for name, of in tested.items()]
        said += _compared(patches, tested)
    header = ["model", *(f"{name}: PCC" for name in SECTIONS), "mean PCC / SCC", "PCC given depth", "composition"]
    n_spots = ", ".join(f"{name} {tested[0].n_spots}" for name, tested in patches.items())
    n_nuclei = ", ".join(f"{name} {len(nuclei):,}" for name, nuclei in cells.nuclei.items())
    return section(
        "Cells on her2st",
        f"`python scripts/results_cells.py --only her2st --seeds {args.seeds}`: sections of patient C, each tested by "
        f"models trained on the other two, on its spots with a nucleus ({n_spots}). ± is the standard deviation over "
        f"{args.seeds} seeds of training; rows without it have one seed. Nuclei within 100 um of a spot: {n_nuclei}; "
        "a spot is the mean of those within 50 um. Frozen encoders; the patch model sees 224 px at 1.0 um/px and "
        "averages eight symmetries, a cell its crop. Prototypes of the 25 minor types of CID4465; scores over the "
        f"{N_GENES:,} genes that vary most within the training sections. Cells: {EPOCHS} epochs, fixed beforehand; the "
        "patch model 10, and all genes, as in *Heads on her2st*. Composition: mean correlation with stereoscope's "
        "shares, of the patch's weights or of the mean of the spot's cells.",
        markdown(header, rows),
        points(*said),
    )


def _compared(patches: Runs, tested: dict[str, Runs]) -> list[str]:
    """What the table says of cells beside patches and of the heads."""
    wide = f", cells within {WIDER_UM:g} um"
    wider = {crop: next(of for name, of in tested.items() if f"{crop}, CPNN{wide}" in name) for crop in CROPS}
    disc, network, published = (
        short(over_seeds(next(of for name, of in tested.items() if name.endswith(end)), "pcc").mean(), 3)
        for end in (f"{next(iter(CROPS))}, CPNN", "mean of counts", "as sCellST trains it")
    )
    pcc = {crop: over_seeds(of, "pcc") for crop, of in wider.items()}
    behind = over_seeds(patches, "pcc").mean() - max(one.mean() for one in pcc.values())
    crops = " and ".join(f"{spread(one, 3)} (crops of {crop})" for crop, one in pcc.items())
    beside = (
        f"**Cells beside the patch model.** Where a spot takes in the cells within {WIDER_UM:g} um of its centre: "
        f"{crops} against {spread(over_seeds(patches, 'pcc'), 3)}; with those of its own disc of 50 um {disc}. The "
        f"rows of {WIDER_UM:g} um were added after a trial between C2 and C3 alone, in which C4 took no part. At most "
        f".01 behind was aimed at: {'met' if behind <= 0.01 else 'missed'}."
    )
    heads = (
        f"Beside sCellST's network: CPNN {disc}, the network {network} with the same loss and mean of counts, and "
        f"{published} as sCellST trains it, with squared errors and means of logarithms, on the same frozen features "
        f"and without its own embedding, at {EPOCHS} epochs where it has up to 400."
    )
    of_seeds = [
        f"{words} over the seeds: {_beside(patches, wider, key, digits, sections)}"
        for words, key, digits, sections in (
            ("PCC", "pcc", 4, SECTIONS),
            ("Composition", "composition", 3, SECTIONS),
            ("Composition of C4 alone", "composition", 3, ("C4",)),
        )
    ]
    return [beside, heads, *of_seeds, UNMEASURED]


def _beside(patches: Runs, wider: dict[str, Runs], key: str, digits: int, sections: Sequence[str]) -> str:
    """Patches against the cells of each crop, and whether they differ by more than the seeds."""
    one = over_seeds(patches, key, sections)
    found = []
    for crop, of in wider.items():
        other = over_seeds(of, key, sections)
        apart = minus(other.mean() - one.mean(), digits)
        found.append(f"cells of {crop} {spread(other, digits)} (difference {apart}, {within(one, other)})")
    return f"patches {spread(one, digits)}; {'; '.join(found)}."


def seeds(args: argparse.Namespace) -> str:
    cells = Cells(args.data, args.runs)
    encoder, crop = args.encoders[0], next(iter(CROPS))
    name = f"cells, {encoder}, {crop}, CPNN, cells within {WIDER_UM:g} um"
    variants = {name: cells.settings(encoder, CROPS[crop], radius_um=WIDER_UM)}
    tested = cross_test(cells, variants, {name: args.seeds})[name]
    patches = cells.patch_model(
        encoder, args.seeds, {section: list(of[0].per_gene.index) for section, of in tested.items()}
    )
    places = {**{section: (section,) for section in SECTIONS}, "mean": SECTIONS}
    rows, said = [], []
    for place, sections in places.items():
        for title, of in ((f"patches, {encoder}", patches), (name, tested)):
            scores = (spread(over_seeds(of, key, sections), 3, brief=False) for key in ("pcc", "scc", "composition"))
            rows.append([title, place, *scores])
        if place in ("C4", "mean"):
            where = "of C4" if place == "C4" else "of all sections"
            said += [
                f"{words} {where}: {_beside(patches, {crop: tested}, key, 3, sections)}"
                for words, key in (("PCC", "pcc"), ("Composition", "composition"))
            ]
    n_nuclei = ", ".join(f"{section} {len(nuclei):,}" for section, nuclei in cells.nuclei.items())
    return section(
        "Seeds of cells and of patches on her2st",
        f"`python scripts/results_cells.py --only seeds`: rows of *Cells on her2st* with {args.seeds} seeds of "
        f"training (mean ± standard deviation); nuclei by the present detector, within 100 um of a spot: {n_nuclei}.",
        markdown(["model", "section", "PCC", "SCC", "composition"], rows),
        points(*said),
    )


def nuclei_input(args: argparse.Namespace) -> str:
    cells = Cells(args.data, args.runs)
    encoder = args.encoders[0]
    inputs = Inputs(cells, encoder)
    settings = cells.settings("colour", nc.PatchSpec(16, 0.75))  # of the folds; its features are not used
    runs: dict[tuple[str, str], Runs] = {}
    inside: dict[tuple[str, str], list[float]] = {}
    predicted: dict[str, dict[str, np.ndarray]] = {}
    measured = {}
    for test in SECTIONS:
        fold = Fold(cells, inputs, test, cells.read(settings, [name for name in SECTIONS if name != test], test))
        measured[test] = measured_spots(fold)
        for what in INPUTS:
            one, value, predicted.setdefault(what, {})[test] = ridge_scores(fold, what)
            several, other = cpnn_scores(fold, settings, what, args.seeds)
            for head, tested, chosen in (("ridge", [one], value), ("CPNN", several, other)):
                runs.setdefault((head, what), {})[test] = tested
                inside.setdefault((head, what), []).append(chosen)
    without, with_ = (predicted[what] for what in (INPUTS[0], INPUTS[2]))
    more = gain({name: (measured[name], with_[name], without[name]) for name in SECTIONS})
    rows = [
        [*_row(f"{head}, {what}", runs[head, what]), f"{np.mean(inside[head, what]):.3f}"]
        for head in ("ridge", "CPNN")
        for what in INPUTS
    ]
    gains = {head: np.mean(inside[head, INPUTS[2]]) - np.mean(inside[head, INPUTS[0]]) for head in ("ridge", "CPNN")}
    header = ["head, input", *(f"{name}: PCC" for name in SECTIONS), "mean PCC / SCC", "PCC given depth", "composition"]
    n, n_features = inputs.nuclei[SECTIONS[0]].shape[1], inputs.patches[SECTIONS[0]].shape[1]
    return section(
        "Nuclei as input of the patch model",
        "`python scripts/results_cells.py --only nuclei-input`: folds, spots, genes and patches (224 px at 1.0 um/px, "
        f"frozen {encoder}, mean over eight symmetries) of *Cells on her2st*; a spot is one vector. Nuclei: {n} "
        "numbers, the number of nuclei within 50 and 100 um of the centre of the spot, and mean and deviation of their "
        "area, eccentricity, roundness, haematoxylin inside and distance to the nearest, each with deviation 1 over "
        "the training spots, beside the features of the patch. Ridge regression, and the head of the cells (CPNN; ± "
        f"over {args.seeds} seeds). Penalty and weight of the nuclei were chosen by testing each training "
        "section with the other; the last column is the PCC there, of counts per 10,000 of these genes.",
        markdown([*header, "PCC inside training"], rows),
        points(
            f"Nuclei beside the patch change the PCC of the ridge by {minus(more[0], 3)} (95 % interval over spots "
            f"{minus(more[1], 3)} to {minus(more[2], 3)}), and inside the training sections by "
            f"{minus(gains['ridge'], 3)}; of CPNN inside by {minus(gains['CPNN'], 3)}.",
            "They are no input of the models: the head that these have, CPNN, gains next to nothing, and no head gains "
            f"given depth. Alone, these few numbers with names come close to the {n_features} features of the patch.",
        ),
    )


def embedding(args: argparse.Namespace) -> str:
    return embedding_section(Cells(args.data, args.runs), args.encoders[0], WIDER_UM)


def rna_content(args: argparse.Namespace) -> str:
    cells, crop = Cells(args.data, args.runs), next(iter(CROPS.values()))
    return content_section(cells, args.encoders[0], crop, WIDER_UM, args.seeds)


def _row(name: str, tested: Runs) -> list[str]:
    def cell(key: str, digits: int, sections: Sequence[str] = SECTIONS) -> str:
        values = over_seeds(tested, key, sections)
        return "" if np.isnan(values).any() else spread(values, digits, brief=False)

    of_sections = [cell("pcc", 3, (section,)) for section in SECTIONS]
    both = f"{cell('pcc', 3)} / {cell('scc', 3)}"
    return [name, *of_sections, both, cell("pcc_given_depth", 3), cell("composition", 2)]


def sample(args: argparse.Namespace) -> str:
    known = Sample(args.runs)
    protos = nc.Prototypes.load(nc.sample_folder() / "prototypes.h5ad")
    train = known.spots[known.is_train].copy()
    seen, types = known.matched(known.nuclei.centers_um)
    mine = known.nuclei.subset(seen)
    rows, recall = [], {}
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
        found = recall[name] = recalls(cells.dominant(), cells.cell_types, types[seen])
        rows.append([name, f"{found.mean():.3f}", *(f"{found[kind]:.2f}" for kind in CELL_TYPES), f"{rate:,.0f}"])
        about = model.provenance["cells"]
    default, colour = recall["he-small (the default)"], recall["colour"]
    least = str(default.idxmin())
    n_least = int((types[seen] == CELL_TYPES.index(least)).sum())
    n_others = int((known.clear(known.nuclei.centers_um) & ~seen).sum())
    return section(
        "Cells of the packaged sample",
        f"`python scripts/results_cells.py --only sample`: trained on the {about['n_spots']} spots of the left half "
        f"that have a nucleus ({about['n_cells']:,} found nuclei; {about['n_spots_without_nuclei']} spots have none), "
        "of which a contiguous quarter decides when training ends; the labels are the counts of spots alone. Tested on "
        f"the right half, outside of fold and ink: the {len(mine):,} found nuclei that lie within 3 um of a painted "
        "one, whose type the generator knows. Balanced accuracy is the mean recall of the eight types; the last "
        "column is cells per second of one core, from pixels to types.",
        markdown(["model", "balanced accuracy", *CELL_TYPES, "cells / s"], rows),
        points(
            f"{short(AIM)} was aimed at; the default has {short(default.mean(), 3)}, from {about['n_spots']} spots. "
            f"Colour alone reaches {short(colour.mean(), 3)} on this drawn tissue, whose types have their own stains, "
            "so that the number says that the learning from sums works, not how well types are told in real tissue.",
            f"{least} cells are found least (recall {short(default[least])}; {n_least:,} of the tested cells).",
            f"A test of false positives this is not: {n_others:,} more nuclei found there are no painted ones, and "
            "have a type, too.",
        ),
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
    lost = Lost(known, drawn, LOST)
    trials = lost_trials(lost, args.runs / "lost")
    return section(
        "Simulated cells: what is learnt of a gene",
        "`python scripts/results_cells.py --only simulation`, in the manner of sCellST's simulation: every nucleus of "
        "the packaged slide is given a real cell of its type (tumour CID4465), every spot the sum of the cells inside "
        "it; prototypes are of the other half of the cells. Trained on the spots of the left half, tested on the "
        f"{int(test.sum()):,} cells of the right half. Recall of the types, mean {np.mean(list(recall.values())):.2f}:",
        markdown(list(recall), [[f"{value:.2f}" for value in recall.values()]]),
        f"{LOST}, with one thing changed at a time. Share: mean over the training spots of the share of RNA that the "
        f"weights are pulled to (true: {lost.true_share:.2f}), and its PCC with the true one:",
        markdown(TRIAL_HEADER, trial_rows(trials)),
        "Genes by the share of their variance over cells that lies between types (`variance_between_types` of the "
        "prototypes, kept in the model's card), and the mean PCC over cells with the cell that each nucleus was given "
        f"(log1p CP10k); {len(genes):,} genes, mean PCC {np.nanmean(pcc):.3f}, of the true type's mean "
        f"{np.nanmean(of_type):.3f}:",
        markdown(header, rows),
        points(
            "Within a type nothing can be learnt here, since the cell is drawn at random among those of its type; the "
            "last column shows that nothing is made up either. What a cell shows of a gene is what its type has of it, "
            f"and even the mean of the *true* type has a PCC of only {short(np.nanmean(of_type))} with the cell that "
            "is there.",
            "Genes with little variance between types are told less, but the order is loose. Maps mark genes below "
            f".1, {np.mean(between[np.isfinite(between)] < 0.1):.0%} of these.",
            *lost_words(lost, trials),
        ),
    )


def _means_of(values: np.ndarray, types: np.ndarray) -> np.ndarray:
    """The mean of each cell's type: the best that knowing the type alone can do."""
    out = np.empty_like(values)
    for kind in np.unique(types):
        out[types == kind] = values[types == kind].mean(axis=0)
    return out


if __name__ == "__main__":
    main()
