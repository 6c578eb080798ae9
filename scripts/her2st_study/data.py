"""Sections of her2st, published shares, and prototypes of the cells of Wu et al."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pandas as pd
from anndata import AnnData

import napari_cpnn as nc
from napari_cpnn.spots import estimate_mpp

IMAGES = {
    "B4": "B/B4/BT10737_D2_HE.jpg",
    "C2": "C/C2/5714_HE_BT_C2.jpg",
    "C3": "C/C3/5714_HE_BT_D1.jpg",
    "C4": "C/C4/5714_HE_BT_D2.jpg",
}

#: Names of Wu et al.'s major types that the her2st authors call otherwise (README of the data).
HER2ST_NAMES = {"Plasmablasts": "Plasma Cells", "Cancer Epithelial": "Epithelial", "Normal Epithelial": "Epithelial"}

TIERS = ("celltype_major", "celltype_minor", "celltype_subset")


def read_section(data: Path, name: str) -> tuple[nc.Slide, AnnData]:
    """A section with an image in full resolution, its patient in ``obs["patient"]``."""
    folder = data / "her2st" / "data"
    positions = folder / "ST-spotfiles" / f"{name}_selection.tsv"
    spots = nc.read_spots(folder / "ST-cnts" / f"{name}.tsv.gz", positions=positions)
    spots.obs["patient"] = name[0]
    slide = nc.open_slide(folder / "ST-imgs" / IMAGES[name], mpp=estimate_mpp(spots))
    slide.name = name
    return slide, spots


def published_shares(data: Path, name: str, tier: str = "major") -> pd.DataFrame:
    """Stereoscope's shares of a section, ``(spots, cell types)``."""
    with zipfile.ZipFile(data / "her2st" / "res" / "ST-deconv" / "props" / f"{tier}.zip") as archive:
        wanted = f"{name}-proportion.tsv"
        (member,) = [n for n in archive.namelist() if n.endswith(wanted) and not n.startswith("__MACOSX")]
        return pd.read_csv(io.BytesIO(archive.read(member)), sep="\t", index_col=0)


def read_prototypes(data: Path, method: str = "mean") -> tuple[dict[str, nc.Prototypes], dict[str, dict[str, str]]]:
    """Prototypes of tumour CID4465 at each tier, and for each tier the major type, in her2st's words, of its types."""
    cells = nc.read_cells(data / "derived" / "wu2021_CID4465_counts.h5ad")
    settings = nc.PrototypeSettings(method=method, min_cells=5)
    prototypes = nc.estimate_prototypes(cells, list(TIERS), settings=settings)
    major = cells.obs["celltype_major"].astype(str)
    names = {
        tier: {fine: HER2ST_NAMES.get(m, m) for fine, m in zip(cells.obs[tier].astype(str), major, strict=True)}
        for tier in TIERS
    }
    return prototypes, names


def start_weights(data: Path) -> str:
    """The file of SqueezeNet's ImageNet weights."""
    (path,) = (data / "pretrained-imagenet" / "squeezenet1.1").glob("*.h5")
    return str(path)
