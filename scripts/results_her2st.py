"""First slice on real data: train on her2st B4, C2 and C3, look at C4. Writes its section of docs/results.md.

    python scripts/results_her2st.py --data ../shared/data

Patient C's section C4 is used for nothing but the final scores. Everything that is chosen is chosen on C3:

1. Each head is trained on B4 and C2 with C3 held out; the epoch with the best mean PCC on C3 gives its number of
   epochs (and the genes in the figure).
2. It is trained anew on B4, C2 and C3 for that many epochs, with nothing held out, and evaluated on C4 once.

The same patches, genes (shared by prototypes and all sections, detected in 10 % of the training spots), image network,
start weights, augmentation and schedule for all heads.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import napari_cpnn as nc
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.spots import estimate_mpp, expression
from napari_cpnn.training import predict_spots, summarise
from napari_cpnn.training.metrics import Summary, pearson

REPO = Path(__file__).resolve().parents[1]
IMAGES = {
    "B4": "B/B4/BT10737_D2_HE.jpg",
    "C2": "C/C2/5714_HE_BT_C2.jpg",
    "C3": "C/C3/5714_HE_BT_D1.jpg",
    "C4": "C/C4/5714_HE_BT_D2.jpg",
}
TRAINING, CHOICE, TEST = ("B4", "C2", "C3"), "C3", "C4"

#: Names of Wu et al.'s major types that the her2st authors call otherwise (README of the data).
HER2ST_NAMES = {"Plasmablasts": "Plasma Cells", "Cancer Epithelial": "Epithelial", "Normal Epithelial": "Epithelial"}

#: The types in the figure: the two most frequent ones of the section.
TYPES = ("Epithelial", "CAFs")

HEADS: dict[str, Callable[..., nc.TrainingSettings]] = {
    "plain head, MSE (ST-Net's)": lambda **kw: nc.TrainingSettings.plain(loss="mse", **kw),
    "plain head, PCC loss": lambda **kw: nc.TrainingSettings.plain(loss="pcc", **kw),
    "CPNN as in the paper": nc.TrainingSettings.paper,
    "CPNN, ours (programs + consistency)": nc.TrainingSettings,
}


@dataclass
class Study:
    """The data that all heads share."""

    samples: dict[str, tuple[nc.Slide, AnnData]]
    prototypes: nc.Prototypes
    major: dict[str, str]
    published: pd.DataFrame
    runs: Path

    def summed(self, shares: pd.DataFrame) -> pd.DataFrame:
        """Shares of minor types ``(spots, types)``, summed to the major types of her2st."""
        return shares.T.groupby(lambda minor: self.major[minor]).sum().T

    def correlation(self, shares: pd.DataFrame) -> pd.Series:
        """Pearson correlation with the published shares on C4, per major type."""
        ours = self.summed(shares)
        spots = [name for name in self.published.index if name in ours.index]
        types = [name for name in self.published.columns if name in ours.columns]
        return pd.Series(pearson(ours.loc[spots, types].to_numpy(), self.published.loc[spots, types].to_numpy()), types)


@dataclass
class Result:
    """What is reported of one head."""

    name: str
    epochs: int
    choice: Summary
    test: Summary
    types: pd.Series | None
    genes: list[str]
    model: nc.CPNN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder with her2st, derived, pretrained-imagenet")
    parser.add_argument("--backbone", default="squeezenet", choices=["squeezenet", "stnet"])
    parser.add_argument("--weights", help="file, imagenet or none; default: the file in DATA for squeezenet, else none")
    parser.add_argument("--max-epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "her2st", help="finished runs are found again")
    parser.add_argument("--docs", type=Path, default=REPO / "docs")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)

    study = read_study(args.data, args.runs)
    common = {"backbone": args.backbone, "weights": args.weights or start_weights(args), "seed": args.seed}
    results = [run_head(name, args.max_epochs, common, study) for name in HEADS]
    reference = study.correlation(nc.deconvolve(study.samples[TEST][1], study.prototypes))
    text = report(results, reference, args)
    print(text)
    write_section(args.docs / "results.md", text)
    (args.docs / "images").mkdir(parents=True, exist_ok=True)
    draw(results[-1], study, args.docs / "images" / picture_name(args))


def start_weights(args: argparse.Namespace) -> str:
    if args.backbone != "squeezenet":
        return "none"
    (path,) = (args.data / "pretrained-imagenet" / "squeezenet1.1").glob("*.h5")
    return str(path)


def read_study(data: Path, runs: Path) -> Study:
    cells = nc.read_cells(data / "derived" / "wu2021_CID4465_counts.h5ad")
    prototypes = nc.estimate_prototypes(cells, "celltype_minor", settings=nc.PrototypeSettings(min_cells=5))
    types = zip(cells.obs["celltype_minor"].astype(str), cells.obs["celltype_major"].astype(str), strict=True)
    with zipfile.ZipFile(data / "her2st" / "res" / "ST-deconv" / "props" / "major.zip") as archive:
        wanted = f"{TEST}-proportion.tsv"
        (member,) = [n for n in archive.namelist() if n.endswith(wanted) and not n.startswith("__MACOSX")]
        published = pd.read_csv(io.BytesIO(archive.read(member)), sep="\t", index_col=0)
    return Study(
        samples={name: read_section(data / "her2st" / "data", name) for name in IMAGES},
        prototypes=prototypes,
        major={minor: HER2ST_NAMES.get(major, major) for minor, major in types},
        published=published,
        runs=runs,
    )


def read_section(folder: Path, name: str) -> tuple[nc.Slide, AnnData]:
    positions = folder / "ST-spotfiles" / f"{name}_selection.tsv"
    spots = nc.read_spots(folder / "ST-cnts" / f"{name}.tsv.gz", positions=positions)
    slide = nc.open_slide(folder / "ST-imgs" / IMAGES[name], mpp=estimate_mpp(spots))
    slide.name = name
    return slide, spots


def run_head(name: str, max_epochs: int, common: dict[str, Any], study: Study) -> Result:
    """Choose the number of epochs on C3, train on all three sections, evaluate on C4."""
    folder = study.runs / f"{common['backbone']}-{list(HEADS).index(name)}-seed{common['seed']}"
    chosen = train(study, HEADS[name](max_epochs=max_epochs, validation=CHOICE, **common), folder / "choice")
    epochs = int(chosen.provenance["epoch"])
    model = train(study, HEADS[name](max_epochs=epochs, validation="none", **common), folder / "final")
    held_out = chosen.provenance["metrics"]["held_out"]
    return Result(
        name,
        epochs,
        {"pcc": held_out["pcc_mean"], "scc": held_out["scc_mean"], "n_genes": held_out["n_genes"]},
        summarise(nc.evaluate(model, *study.samples[TEST])),
        study.correlation(predict_spots(model, *study.samples[TEST])[0]) if model.cell_types else None,
        list(pd.Series(held_out["per_gene_pcc"]).nlargest(2).index),
        model,
    )


def train(study: Study, settings: nc.TrainingSettings, out: Path) -> nc.CPNN:
    """A run, or the finished run of the same settings."""
    done = out / "done"
    if done.exists() and json.loads((out / "settings.json").read_text()) == settings.to_dict():
        return nc.load_model(out / "model.safetensors")
    print(f"{out}", flush=True)
    model = nc.train([study.samples[name] for name in TRAINING], study.prototypes, settings, out=out)
    done.touch()
    return model


def report(results: list[Result], reference: pd.Series, args: argparse.Namespace) -> str:
    weights = "ImageNet start weights" if args.weights != "none" and args.backbone == "squeezenet" else "random start"
    setup = (
        f"`python scripts/results_her2st.py --backbone {args.backbone}`: {weights}, seed {args.seed}, prototypes of the"
        f" {len(results[-1].model.cell_types)} minor types of tumour CID4465 (Wu et al. 2021), mean over the"
        f" {results[-1].test['n_genes']} genes that all share, detected in 10 % of the training spots, not constant on"
        " C4. For each head the number of epochs was chosen on C3 by a model trained on B4 and C2; then it was trained"
        " anew on B4, C2 and C3. C4 was used for nothing but these scores."
    )
    lines = [
        f"## First slice: her2st B4, C2, C3 to C4 ({args.backbone})",
        "",
        setup,
        "",
        "| head and loss | epochs | C3 (choice): PCC / SCC | C4: PCC / SCC |",
        "|---|---|---|---|",
    ]
    for r in results:
        pairs = " | ".join(f"{s['pcc']:.3f} / {s['scc']:.3f}" for s in (r.choice, r.test))
        lines.append(f"| {r.name} | {r.epochs} | {pairs} |")
    types = list(reference.index)
    lines += [
        "",
        "Correlation over the spots of C4 of the weights, minor types summed, with the published stereoscope shares:",
        "",
        f"| | {' | '.join(types)} | mean |",
        "|---" * (len(types) + 2) + "|",
    ]
    rows = [(r.name, r.types) for r in results if r.types is not None]
    for name, values in [*rows, ("*for comparison: NNLS of the measured counts of C4*", reference)]:
        lines.append(f"| {name} | {' | '.join(f'{values[t]:.2f}' for t in types)} | {values[types].mean():.2f} |")
    lines += [
        "",
        f"![C4, measured and predicted by our model; genes: the two best on section C3](images/{picture_name(args)})",
        "",
    ]
    return "\n".join(lines)


def picture_name(args: argparse.Namespace) -> str:
    return f"her2st_C4_{args.backbone}.png"


def write_section(path: Path, text: str) -> None:
    """Replace our section of the page, or add it."""
    page = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    title = text.splitlines()[0]
    start = page.find(title)
    if start < 0:
        page = f"{page.rstrip()}\n\n{text}"
    else:
        end = page.find("\n## ", start)
        page = page[:start] + text + (page[end:] if end >= 0 else "")
    path.write_text(page, encoding="utf-8")


def draw(result: Result, study: Study, path: Path) -> None:
    """The section, two cell types and two genes: published or measured above, predicted below."""
    slide, spots = study.samples[TEST]
    weights, programs = predict_spots(result.model, slide, spots)
    predicted = result.model.decoder().expression(weights.to_numpy(), programs, result.genes)
    measured, ours = expression(spots, result.genes), study.summed(weights)
    columns = [(name, study.published[name].reindex(spots.obs_names), ours[name]) for name in TYPES]
    columns += [(name, measured[:, i], predicted[:, i]) for i, name in enumerate(result.genes)]
    picture = slide.thumbnail(1600)
    x, y = (spots.obsm["spatial"] * np.array(picture.shape[1::-1]) / np.array(slide.shape[1::-1])).T
    margin = 0.05 * max(np.ptp(x), np.ptp(y))
    window = {"xlim": (x.min() - margin, x.max() + margin), "ylim": (y.max() + margin, y.min() - margin)}
    figure = Figure(figsize=(13, 4.8), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 5)
    for axis in axes.ravel():
        axis.imshow(picture, alpha=0.45)
        axis.set(xticks=[], yticks=[], **window)
        axis.spines[:].set_visible(False)
    axes[0, 0].images[0].set_alpha(1)
    axes[0, 0].set_title("her2st C4, H&E", fontsize=10)
    axes[1, 0].remove()
    for column, (name, above, below) in zip(axes[:, 1:].T, columns, strict=True):
        kind = ("stereoscope", "predicted share") if name in TYPES else ("measured, log1p CP10k", "predicted")
        pair = [np.asarray(values, dtype=float) for values in (above, below)]
        for axis, values, what in zip(column, pair, kind, strict=True):
            low, high = np.nanquantile(values, [0.02, 0.98])
            dots = axis.scatter(x, y, c=values, s=24, cmap="viridis", vmin=low, vmax=high, linewidths=0)
            axis.set_title(f"{name}: {what}", fontsize=10)
            figure.colorbar(dots, ax=axis, shrink=0.7)
        r = pearson(pair[0][:, None], pair[1][:, None])[0]
        column[1].set_xlabel(f"r = {r:.2f}", fontsize=10)
    figure.savefig(path)


if __name__ == "__main__":
    main()
