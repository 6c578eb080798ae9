"""A small study on disk, to walk through the guide: ``python scripts/write_small_cohort.py --out study``.

The patients of ``scripts/simulate_cohort.py``, one small slide each, as a user has them: slides (TIFF), a manifest with
the response of each patient, bulk counts, and prototypes of the cell types. Some seconds a slide; slides that are there
already are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

import napari_cpnn as nc
from napari_cpnn.storage import write_csv
from sample_tissue.cohort import SIZE_PX, draw_bulk, draw_patients, draw_slide
from sample_tissue.layout import CELL_TYPES, MPP
from sample_tissue.render import Sprites


def write_cohort(out: Path, n_patients: int, seed: int, size_px: int = SIZE_PX) -> Path:
    """Write ``slides.csv``, ``bulk.csv``, ``prototypes.h5ad`` and the slides; return the manifest."""
    folder = out / "slides"
    folder.mkdir(parents=True, exist_ok=True)
    patients, cells = draw_patients(n_patients, seed), []
    sprites = Sprites.drawn(np.random.default_rng([seed, 1]).spawn(8)[:3])
    for i, patient in patients.iterrows():
        path, kept = folder / f"{patient['patient']}-1.tif", folder / f".{patient['patient']}-1.npy"
        if not (path.exists() and kept.exists()):
            image, counts = draw_slide(patient, 1000 * seed + int(i), sprites, size_px)
            per_cm = (1e4 / MPP, 1e4 / MPP)
            tifffile.imwrite(path, image, photometric="rgb", tile=(256, 256), resolution=per_cm, resolutionunit=3)
            np.save(kept, counts)
        cells.append(np.load(kept))
    truth = draw_bulk(patients, np.stack(cells), seed, n_slides=1)
    table = truth.slides[["slide", "patient"]].assign(
        slide=[f"slides/{name}.tif" for name in truth.slides["slide"]],
        sample=truth.slides["sample"],
        response=np.where(truth.slides["response"] == 1, "pCR", "residual"),
        age=truth.slides["age"],
    )
    write_csv(table.set_index("slide"), out / "slides.csv")
    samples = truth.slides["sample"].tolist()
    write_csv(pd.DataFrame(truth.counts, index=pd.Index(samples, name="sample"), columns=truth.genes), out / "bulk.csv")
    protos = nc.Prototypes(truth.prototypes, CELL_TYPES, truth.genes, np.full(len(CELL_TYPES), 100))
    protos.save(out / "prototypes.h5ad")
    return out / "slides.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--patients", type=int, default=40)
    parser.add_argument("--seed", type=int, default=7)
    args = parser.parse_args()
    path = write_cohort(args.out, args.patients, args.seed)
    print(f"{path}: {args.patients} slides of {args.patients} patients")


if __name__ == "__main__":
    main()
