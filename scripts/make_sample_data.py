"""Make the embedded sample: ``python scripts/make_sample_data.py [--out sample_data] [--seed 7]``.

One run writes ``slide.tiff``, ``truth.npz``, ``spots.h5ad``, ``cells.h5ad``, and, unless ``--no-model`` is given,
``prototypes.h5ad`` and ``model.safetensors``. ``--domain-only`` gives the model that is there a new out-of-domain
score and leaves its weights as they are, to the bit. The same arguments give the same files (the model: on the same
machine).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import h5py
from anndata import AnnData
from anndata.io import write_elem

from sample_tissue.layout import make_layout
from sample_tissue.molecules import make_biology, make_cells, make_spots
from sample_tissue.render import Painter, paint
from sample_tissue.slide_file import write_slide
from sample_tissue.truth import write_truth

REPO = Path(__file__).resolve().parents[1]


def write_table(path: Path, table: AnnData) -> None:
    """Write h5ad with byte shuffling, which `write_h5ad` does not offer and which halves sparse counts."""
    options = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with h5py.File(path, "w") as file:
        write_elem(file, "/", table, dataset_kwargs=options)


def make_tissue(out: Path, size_px: int, seed: int, quality: int, workers: int) -> None:
    """Slide, truth, spots and cells."""
    layout = make_layout(size_px, seed)
    painter = Painter(layout, seed)
    image = paint(painter, workers)
    write_slide(out / "slide.tiff", image, quality)
    biology = make_biology(seed)
    write_truth(out / "truth.npz", layout, biology, painter.pen)
    for name, table in (("spots", make_spots(layout, biology, image, seed)), ("cells", make_cells(biology, seed))):
        write_table(out / f"{name}.h5ad", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=REPO / "sample_data", help="folder to write to")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--size", type=int, default=12000, help="side of the slide in px of 0.5 um")
    parser.add_argument("--quality", type=int, default=46, help="JPEG quality of the slide")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    parser.add_argument("--no-model", action="store_true", help="stop before prototypes and model")
    parser.add_argument("--model-only", action="store_true", help="keep the tissue that is there")
    parser.add_argument("--domain-only", action="store_true", help="keep all, and the model's weights")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    if args.domain_only:
        from sample_tissue.model import add_domain

        add_domain(args.out)
        return
    if not args.model_only:
        make_tissue(args.out, args.size, args.seed, args.quality, args.workers)
        print(f"tissue: {time.perf_counter() - start:.0f} s")
    if not args.no_model:
        from sample_tissue.model import make_model

        make_model(args.out, args.seed)
        print(f"model: {time.perf_counter() - start:.0f} s in all")
    for path in sorted(args.out.iterdir()):
        print(f"{path.name:24s} {path.stat().st_size / 1e6:7.2f} MB")


if __name__ == "__main__":
    main()
