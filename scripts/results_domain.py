"""Does the out-of-domain score tell tissue that the model does not know? Prints tables and draws a figure.

    python scripts/results_domain.py --data ../shared/data

A model is trained on her2st C2 and calibrated on C3, so that section C4 of the same patient is new to both. Then come
patches that are less and less like it: another patient (B4), another scanner and scale (A1), another organ (CMU-1),
the rim of the tissue, glass, and the patches of C4 spoiled in several ways. The spots of C4 keep their measured
expression when their patches are spoiled, so that it can be seen whether a higher score goes with a larger error.
"""

from __future__ import annotations

import argparse
import io
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage
from scipy.stats import mannwhitneyu, spearmanr

import napari_cpnn as nc
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.evaluation import pearson
from napari_cpnn.geometry import Grid, spatial_to_um
from napari_cpnn.models import Prediction
from napari_cpnn.prediction import Predictor
from napari_cpnn.slides import PatchReader, find_tissue, read_patches
from napari_cpnn.spots import estimate_mpp, expression
from napari_cpnn.training.fit import Axes

REPO = Path(__file__).resolve().parents[1]
IMAGES = {
    "B4": "B/B4/BT10737_D2_HE.jpg",
    "C2": "C/C2/5714_HE_BT_C2.jpg",
    "C3": "C/C3/5714_HE_BT_D1.jpg",
    "C4": "C/C4/5714_HE_BT_D2.jpg",
}
PATCH = nc.PatchSpec(160, 0.7)

#: Pixel size of the only picture of A1 there is, and its share of the scan that the spots refer to.
A1_MPP, A1_SCALE = 3.2, 2000 / 6954

#: Felt-tip inks.
INKS = np.array([[30, 60, 160], [20, 120, 60], [20, 20, 30], [180, 30, 40]], dtype=np.float32)

Patches = np.ndarray  # (N, S, S, 3) uint8


@dataclass
class Kind:
    """Patches of one kind, and the measured expression of their spots where there is some."""

    patches: Patches
    measured: np.ndarray | None = None


def blurred(sigma: float) -> Callable[[Patches], Patches]:
    return lambda p: ndimage.gaussian_filter(p.astype(np.float32), (0, sigma, sigma, 0)).clip(0, 255).astype(np.uint8)


def inked(patches: Patches) -> Patches:
    ink = INKS[np.random.default_rng(0).integers(0, len(INKS), len(patches))][:, None, None, :]
    return (0.3 * patches * ink / 255 + 0.7 * ink).astype(np.uint8)


def noisy(patches: Patches) -> Patches:
    noise = np.random.default_rng(0).normal(0, 40, patches.shape)
    return (patches + noise).clip(0, 255).astype(np.uint8)


def compressed(patches: Patches) -> Patches:
    def again(patch: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(patch).save(file, "JPEG", quality=8)
        return np.asarray(Image.open(file))

    return np.stack([again(patch) for patch in patches])


#: What is done to the patches of C4.
SPOILED: dict[str, Callable[[Patches], Patches]] = {
    "C4, slightly out of focus (1 um)": blurred(1.5),
    "C4, out of focus (2 um)": blurred(3),
    "C4, far out of focus (4 um)": blurred(6),
    "C4, too dark (0.6 x)": lambda p: (0.6 * p).astype(np.uint8),
    "C4, red and green exchanged": lambda p: p[..., [1, 0, 2]],
    "C4, grey": lambda p: np.repeat(p.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8),
    "C4, JPEG quality 8": compressed,
    "C4, noise (40 of 255)": noisy,
    "C4, inverted": lambda p: 255 - p,
    "C4, under pen": inked,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=default, help="folder with her2st, wsi-samples, ...")
    parser.add_argument("--max-epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=REPO / "runs" / "domain", help="a finished model is found again")
    parser.add_argument("--image", type=Path, default=REPO / "docs" / "images" / "out_of_domain.png")
    parser.add_argument("--no-image", action="store_true", help="tables only; mapping slides takes minutes")
    args = parser.parse_args()
    warnings.simplefilter("ignore", CpnnWarning)
    model = trained(args)
    predictor = Predictor(model, "cpu", "float32")
    samples = {name: section(args.data, name) for name in IMAGES}
    kinds = patch_kinds(args.data, samples, model.genes)
    predictions = {name: predict(predictor, kind.patches) for name, kind in kinds.items()}
    print(report(kinds, predictions, model))
    print(error_report(kinds, predictions, samples, model))
    features = {name: in_chunks(predictor.features, kind.patches) for name, kind in kinds.items()}
    known = {name: in_chunks(predictor.features, spot_patches(*samples[name])) for name in ("C2", "C3")}
    print(alternatives(known, features))
    print(precision_report(model, kinds["C4, new section"].patches))
    if not args.no_image:
        draw(model, args, samples)


def trained(args: argparse.Namespace) -> nc.CPNN:
    out = args.runs / f"seed{args.seed}-epochs{args.max_epochs}"
    if (out / "done").exists():
        return nc.load_model(out / "model.safetensors")
    (weights,) = (args.data / "pretrained-imagenet" / "squeezenet1.1").glob("*.h5")
    cells = nc.read_cells(args.data / "derived" / "wu2021_CID4465_counts.h5ad")
    prototypes = nc.estimate_prototypes(cells, "celltype_major", settings=nc.PrototypeSettings(min_cells=5))
    settings = nc.TrainingSettings(
        backbone="squeezenet", weights=str(weights), patch=PATCH, max_epochs=args.max_epochs, seed=args.seed,
        validation="C3", device="cpu",
    )  # fmt: skip
    model = nc.train([section(args.data, name) for name in ("C2", "C3")], prototypes, settings, out=out)
    (out / "done").touch()
    return model


def section(data: Path, name: str) -> tuple[nc.Slide, AnnData]:
    folder = data / "her2st" / "data"
    positions = folder / "ST-spotfiles" / f"{name}_selection.tsv"
    spots = nc.read_spots(folder / "ST-cnts" / f"{name}.tsv.gz", positions=positions)
    slide = nc.open_slide(folder / "ST-imgs" / IMAGES[name], mpp=estimate_mpp(spots))
    slide.name = name
    return slide, spots


def spot_patches(slide: nc.Slide, spots: AnnData) -> Patches:
    return read_patches(slide, spatial_to_um(spots.obsm["spatial"], slide.require_mappable()), PATCH)


def grid_patches(slide: nc.Slide, least: float, most: float, step: int = 1) -> Patches:
    """Patches of the map whose share of tissue is in a range."""
    grid = Grid.over(slide.shape[:2], slide.require_mappable(), PATCH.size_um)
    coverage = find_tissue(slide).coverage(grid)
    cells = np.argwhere((coverage >= least) & (coverage <= most))[::step]
    return PatchReader(slide, PATCH).read(grid.centers_um(cells))[0]


def patch_kinds(data: Path, samples: dict[str, tuple[nc.Slide, AnnData]], genes: tuple[str, ...]) -> dict[str, Kind]:
    c4, b4 = (Kind(spot_patches(*samples[name]), measured(samples[name][1], genes)) for name in ("C4", "B4"))
    kinds = {"C4, new section": c4, "B4, another patient": b4}
    kinds["A1, another scanner, 3.2 um/px"] = Kind(a1_patches(data))
    cmu = nc.open_slide(data / "wsi-samples" / "aperio-cmu" / "CMU-1-Small-Region.svs")
    kinds["CMU-1, another organ"] = Kind(grid_patches(cmu, 0.7, 1.0))
    kinds["C4, rim (30 to 70 % tissue)"] = Kind(grid_patches(samples["C4"][0], 0.3, 0.7))
    kinds["C4, glass"] = Kind(grid_patches(samples["C4"][0], 0.0, 0.0, step=8))
    for name, spoil in SPOILED.items():
        kinds[name] = Kind(spoil(c4.patches), c4.measured)
    return kinds


def measured(spots: AnnData, genes: tuple[str, ...]) -> np.ndarray:
    """Expression ``(spots, genes)``, NaN for genes that this section does not have."""
    found = [gene for gene in genes if gene in spots.var_names]
    return pd.DataFrame(expression(spots, found), columns=found).reindex(columns=list(genes)).to_numpy()


def a1_patches(data: Path) -> Patches:
    picture = np.asarray(Image.open(data / "her2st" / "app" / "www" / "imgs" / "A1_HE_image_dark.png").convert("RGB"))
    table = pd.read_csv(data / "her2st" / "data" / "ST-spotfiles" / "A1_selection.tsv", sep="\t")
    centers = table[["pixel_y", "pixel_x"]].to_numpy() * A1_SCALE * A1_MPP
    return PatchReader(nc.Slide.from_arrays([picture], A1_MPP, name="A1"), PATCH).read(centers)[0]


def in_chunks(function: Callable[[Patches], np.ndarray], patches: Patches) -> np.ndarray:
    return np.concatenate([function(patches[i : i + 64]) for i in range(0, len(patches), 64)])


def predict(predictor: Predictor, patches: Patches) -> Prediction[np.ndarray]:
    parts = [predictor.predict(patches[i : i + 64]) for i in range(0, len(patches), 64)]
    return Prediction(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def auroc(usual: np.ndarray, unusual: np.ndarray) -> float:
    """Chance that an unusual patch has the higher value, ties counted half."""
    return float(mannwhitneyu(unusual, usual).statistic / (len(usual) * len(unusual)))


def gene_pcc(model: nc.CPNN, prediction: Prediction[np.ndarray], truth: np.ndarray) -> float:
    return float(np.nanmean(pearson(decoded(model, prediction), truth)))


def decoded(model: nc.CPNN, prediction: Prediction[np.ndarray]) -> np.ndarray:
    return model.decoder().expression(prediction.weights, prediction.programs, model.genes)


def report(kinds: dict[str, Kind], predictions: dict[str, Prediction[np.ndarray]], model: nc.CPNN) -> str:
    usual, *_ = (p.out_of_domain for p in predictions.values())
    lines = [
        "| patches | n | median score | above 0.95 | AUROC against C4 | gene PCC |",
        "|---|---|---|---|---|---|",
    ]
    for name, prediction in predictions.items():
        score, truth = prediction.out_of_domain, kinds[name].measured
        pcc = "" if truth is None else f"{gene_pcc(model, prediction, truth):.3f}"
        lines.append(
            f"| {name} | {len(score)} | {np.median(score):.2f} | {100 * (score > 0.95).mean():.0f} % "
            f"| {auroc(usual, score):.2f} | {pcc} |"
        )
    return "\n".join(lines) + "\n"


def error_report(
    kinds: dict[str, Kind],
    predictions: dict[str, Prediction[np.ndarray]],
    samples: dict[str, tuple[nc.Slide, AnnData]],
    model: nc.CPNN,
) -> str:
    """Spearman correlation of score and error, over spots of one section and over kinds of patches."""
    lines = []
    for name, sample in (("C4, new section", "C4"), ("B4, another patient", "B4")):
        error = spot_error(decoded(model, predictions[name]), kinds[name].measured)
        depth = np.log(np.asarray(samples[sample][1].layers["counts"].sum(axis=1)).ravel() + 1.0)
        score = predictions[name].out_of_domain
        plain, given = spearmanr(score, error).statistic, partial_rank_correlation(score, error, depth)
        lines.append(f"spots of {sample}: score and error {plain:.2f}, given log total counts {given:.2f}")
    names = [name for name in predictions if name in SPOILED or name.startswith("C4, new")]
    clean = predictions[names[0]]
    truth, exact = kinds[names[0]].measured, decoded(model, clean)
    shift = {name: np.abs(predictions[name].weights - clean.weights).sum(axis=1) / 2 for name in names[1:]}
    worse = {name: spot_error(decoded(model, predictions[name]), truth) - spot_error(exact, truth) for name in shift}
    scores = np.concatenate([predictions[name].out_of_domain for name in shift])
    grown, moved = (spearmanr(scores, np.concatenate(list(v.values()))).statistic for v in (worse, shift))
    medians = [np.median(predictions[name].out_of_domain) for name in names]
    fallen = spearmanr(medians, [gene_pcc(model, predictions[name], truth) for name in names]).statistic
    lines.append(f"{len(scores)} spoiled patches of C4: score and growth of the error {grown:.2f}")
    lines.append(f"{len(scores)} spoiled patches of C4: score and share of the composition that moved {moved:.2f}")
    lines.append(f"{len(names)} kinds of patches of C4: median score and gene PCC {fallen:.2f}")
    return "\n".join(lines) + "\n"


def spot_error(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean squared error of each spot over the genes, each in units of its standard deviation over the spots."""
    return np.nanmean(((predicted - truth) / (truth.std(axis=0) + 1e-3)) ** 2, axis=1)


def partial_rank_correlation(a: np.ndarray, b: np.ndarray, given: np.ndarray) -> float:
    ranks = pd.DataFrame({"a": a, "b": b, "given": given}).rank().to_numpy()
    design = np.c_[np.ones(len(ranks)), ranks[:, 2]]
    rest = ranks[:, :2] - design @ np.linalg.lstsq(design, ranks[:, :2], rcond=None)[0]
    return float(np.corrcoef(rest.T)[0, 1])


def alternatives(known: dict[str, np.ndarray], features: dict[str, np.ndarray]) -> str:
    """Other distances in the same features: fitted to C2; AUROC against C4."""
    train, held_out = known["C2"].astype(np.float64), known["C3"].astype(np.float64)
    distances: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        f"combined index, {n} axes": combined(train, held_out, n) for n in (2, 4, 8, 16, 32, 64)
    }
    distances["Mahalanobis, Ledoit-Wolf"] = ledoit_wolf(train)
    distances["5 nearest training patches"] = nearest(train)
    distances["Euclidean to the mean"] = lambda h: np.linalg.norm(h - train.mean(axis=0), axis=1)
    usual, *others = features
    lines = ["| distance | C4 farther than 95 % of C3 | mean AUROC | lowest AUROC |", "|---|---|---|---|"]
    for name, distance in distances.items():
        reference = distance(features[usual].astype(np.float64))
        share = (np.searchsorted(np.sort(distance(held_out)), reference) > 0.95 * len(held_out)).mean()
        rocs = {other: auroc(reference, distance(features[other].astype(np.float64))) for other in others}
        lowest = min(rocs, key=lambda other: rocs[other])
        lines.append(
            f"| {name} | {100 * share:.0f} % | {np.mean(list(rocs.values())):.3f} | {rocs[lowest]:.2f} ({lowest}) |"
        )
    return "\n".join(lines) + "\n"


def combined(train: np.ndarray, held_out: np.ndarray, n_axes: int) -> Callable[[np.ndarray], np.ndarray]:
    axes = Axes.of(train, n_axes)
    means = axes.parts(held_out).mean(axis=0)
    return lambda h: np.sqrt((axes.parts(h) / means).sum(axis=1) / 2)


def nearest(train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda h: np.sort(np.linalg.norm(h[:, None] - train[None], axis=2), axis=1)[:, :5].mean(axis=1)


def ledoit_wolf(train: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Ledoit and Wolf 2004: the covariance shrunk towards a multiple of the identity."""
    n, p = train.shape
    center = train.mean(axis=0)
    z = train - center
    sample = z.T @ z / n
    mu = np.trace(sample) / p
    distance = ((sample - mu * np.eye(p)) ** 2).sum()
    noise = min(distance, ((z**2).sum(axis=1) ** 2).sum() / n**2 - (sample**2).sum() / n)
    inverse = np.linalg.inv(sample + noise / distance * (mu * np.eye(p) - sample))
    return lambda h: np.sqrt(np.einsum("ij,jk,ik->i", h - center, inverse, h - center))


def precision_report(model: nc.CPNN, patches: Patches) -> str:
    exact, rough = (predict(Predictor(model, "cpu", p), patches).out_of_domain for p in ("float32", "bfloat16"))
    away = np.abs(exact - rough)
    return f"bfloat16 against float32, scores of C4: mean difference {away.mean():.4f}, largest {away.max():.4f}\n"


def draw(model: nc.CPNN, args: argparse.Namespace, samples: dict[str, tuple[nc.Slide, AnnData]]) -> None:
    """Slides above, their scores below."""
    cmu = nc.open_slide(args.data / "wsi-samples" / "aperio-cmu" / "CMU-1-Small-Region.svs")
    slides = {
        "her2st C4\nsame patient, new section": samples["C4"][0],
        "her2st C4\nits right half out of focus": half_blurred(samples["C4"][0]),
        "her2st B4\nanother patient": samples["B4"][0],
        "CMU-1\nanother organ": cmu,
    }
    figure = Figure(figsize=(12, 6.3), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(slides))
    steps = BoundaryNorm([0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1], 256)
    settings = nc.MappingSettings(device="cpu", cache_dir=str(args.runs / "maps"))
    for (title, slide), (above, below) in zip(slides.items(), axes.T, strict=True):
        cmap = nc.predict_map(slide, model, settings=settings)
        score = cmap.out_of_domain.astype(np.float32)
        picture, (height, width) = slide.thumbnail(2000), slide_size_um(slide)
        (y0, x0), (h, w) = cmap.grid.origin_um, np.array(score.shape) * cmap.grid.stride_um
        above.imshow(picture, extent=(0, width, height, 0))
        above.set_title(title, fontsize=11)
        below.imshow(picture.mean(axis=-1), extent=(0, width, height, 0), cmap="gray", vmin=0, vmax=255, alpha=0.5)
        drawn = below.imshow(score, extent=(x0, x0 + w, y0 + h, y0), cmap="YlOrRd", norm=steps, interpolation="nearest")
        far = float((score[np.isfinite(score)] > 0.95).mean())
        below.set_title(f"median {np.nanmedian(score):.2f}; {100 * far:.0f} % above 0.95", fontsize=11)
        rows, cols = (np.flatnonzero(cmap.tissue.any(axis=axis)) for axis in (1, 0))
        side = max(np.ptp(rows), np.ptp(cols)) * 0.55 * cmap.grid.stride_um
        y, x = (np.mean([i[0], i[-1] + 1]) * cmap.grid.stride_um for i in (rows, cols))
        for axis in (above, below):
            axis.set(xlim=(x - side, x + side), ylim=(y + side, y - side), xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    bar = figure.colorbar(drawn, ax=axes, shrink=0.6, spacing="uniform")
    bar.set_label("out-of-domain score")
    args.image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(args.image)


def slide_size_um(slide: nc.Slide) -> tuple[float, float]:
    mpp = slide.require_mappable()
    return slide.shape[0] * mpp[0], slide.shape[1] * mpp[1]


def half_blurred(slide: nc.Slide) -> nc.Slide:
    """C4 with what lies right of the middle of its tissue blurred by 3.5 um."""
    pixels = np.asarray(slide.levels[0]).copy()
    right = pixels[:, round(0.43 * pixels.shape[1]) :]
    for channel in range(3):
        right[..., channel] = ndimage.gaussian_filter(right[..., channel].astype(np.float32), 5)
    return nc.Slide.from_arrays([pixels], slide.mpp, name="C4 half blurred")


if __name__ == "__main__":
    main()
