"""Small valid inputs, one folder per format, made by code: what the mutations begin with."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp
import tifffile
from PIL import Image

REPO = Path(__file__).resolve().parents[2]
GENES = [f"GENE{i}" for i in range(12)]
TYPES = ["Pink", "Purple", "Blue"]
N = 16
"""Spots, cells."""


@dataclass(frozen=True)
class Seed:
    """A valid input.

    Attributes
    ----------
    door
        Name in :data:`fuzz.doors.DOORS`.
    opened
        What the door is given, relative to the folder of the input.
    parts
        Patterns of the files that are changed; all by default.
    """

    door: str
    opened: str
    parts: tuple[str, ...] = ("**/*",)


Maker = Callable[[Path], Seed]


def barcodes() -> list[str]:
    return [f"{'ACGT'[i % 4]}{'ACGT'[i // 4 % 4]}AA-1" for i in range(N)]


def counts() -> sp.csr_matrix:
    return sp.csr_matrix(
        np.random.default_rng(0).poisson(2.0, (N, len(GENES))).astype(np.int32) + np.eye(N, 12, dtype=np.int32)
    )


def picture(height: int = 96, width: int = 128) -> np.ndarray:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1))


def svs(folder: Path) -> Seed:
    """As Aperio writes: JPEG tiles, a thumbnail, a reduced level, a label and facts in the description."""
    facts = "Aperio Image Library v12\n128x96 [0,0 128x96] (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.4990|Left = 1.5"
    with tifffile.TiffWriter(folder / "s.svs") as file:
        tiled = {"photometric": "rgb", "compression": "jpeg", "tile": (64, 64), "metadata": None}
        file.write(picture(), description=facts, **tiled)
        file.write(picture()[::4, ::4], description=facts, photometric="rgb", metadata=None, rowsperstrip=24)
        file.write(picture()[::2, ::2], description=facts, **tiled)
        file.write(picture(48, 48), description="label 48x48", photometric="rgb", metadata=None, subfiletype=1)
    return Seed("slide", "s.svs")


def tiff(folder: Path) -> Seed:
    with tifffile.TiffWriter(folder / "s.tif") as file:
        options = {"photometric": "rgb", "tile": (32, 48), "metadata": None, "resolutionunit": "CENTIMETER"}
        file.write(picture(), compression="zlib", resolution=(20000, 20000), **options)
        file.write(picture()[::2, ::2], compression="lzw", subfiletype=1, resolution=(10000, 10000), **options)
    return Seed("slide", "s.tif")


def bigtiff(folder: Path) -> Seed:
    with tifffile.TiffWriter(folder / "s.btf", bigtiff=True, byteorder=">") as file:
        pixels = np.dstack([picture(), np.full((96, 128), 200, np.uint8)])
        file.write(pixels, photometric="rgb", extrasamples=["unassalpha"], rowsperstrip=16, metadata=None)
    return Seed("slide", "s.btf")


def ome_tiff(folder: Path) -> Seed:
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}
    with tifffile.TiffWriter(folder / "s.ome.tif", ome=True) as file:
        options = {"photometric": "rgb", "tile": (64, 64), "compression": "zlib"}
        file.write(picture(), subifds=1, metadata={"axes": "YXS", **sizes}, **options)
        file.write(picture()[::2, ::2], subfiletype=1, **options)
    return Seed("slide", "s.ome.tif")


def png(folder: Path) -> Seed:
    Image.fromarray(picture()).save(folder / "s.png", dpi=(25400, 25400))
    return Seed("slide", "s.png")


def jpeg(folder: Path) -> Seed:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture()).save(folder / "s.jpg", exif=exif, dpi=(300, 300))
    return Seed("slide", "s.jpg")


def dicom(folder: Path) -> Seed:
    """The small slide of OpenSlide's own tests, read in place; :class:`FileNotFoundError` where it is absent."""
    data = Path(os.environ.get("NAPARI_CPNN_DATA", REPO.parent / "shared" / "data"))
    for name in ("boxes_0.dcm", "boxes_1.dcm"):
        shutil.copyfile(data / "wsi-samples" / "openslide-python-fixtures" / name, folder / name)
    return Seed("slide", "boxes_0.dcm")


def spots_h5ad(folder: Path) -> Seed:
    from anndata import AnnData

    table = AnnData(counts().astype(np.float32), obs=pd.DataFrame(index=barcodes()), var=pd.DataFrame(index=GENES))
    table.layers["counts"] = counts()
    table.obs["in_tissue"] = 1
    table.obs["array_row"], table.obs["array_col"] = np.divmod(np.arange(N), 4)
    table.var["gene_ids"] = [f"ENSG{i:011d}" for i in range(len(GENES))]
    row, col = np.divmod(np.arange(N), 4)
    table.obsm["spatial"] = np.c_[col * 100.0 + 50, row * 100.0 + 50]
    factors = {"tissue_hires_scalef": 0.1, "spot_diameter_fullres": 55.0}
    table.uns["spatial"] = {"lib": {"images": {"hires": picture(40, 40)}, "scalefactors": factors}}
    table.write_h5ad(folder / "spots.h5ad")
    return Seed("spots", "spots.h5ad")


def cells_h5ad(folder: Path) -> Seed:
    from anndata import AnnData

    obs = pd.DataFrame({"celltype": pd.Categorical([TYPES[i % 3] for i in range(N)])}, index=barcodes())
    obs["patient"] = [f"p{i % 2}" for i in range(N)]
    AnnData(counts(), obs=obs, var=pd.DataFrame({"symbol": GENES}, index=GENES)).write_h5ad(folder / "cells.h5ad")
    return Seed("cells", "cells.h5ad")


def tenx_h5(folder: Path, name: str = "filtered_feature_bc_matrix.h5") -> Seed:
    import h5py

    csc = sp.csc_matrix(counts().T)
    with h5py.File(folder / name, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array(barcodes(), dtype="S18")
        group["data"], group["indices"], group["indptr"] = csc.data, csc.indices, csc.indptr
        group["shape"] = np.array(csc.shape, dtype=np.int32)
        features = group.create_group("features")
        for key, values in (("id", GENES), ("name", GENES), ("feature_type", ["Gene Expression"] * len(GENES))):
            features[key] = np.array(values, dtype="S20")
    return Seed("cells", name)


def tenx_mtx(folder: Path) -> Seed:
    matrix = folder / "m"
    matrix.mkdir()
    _zipped(matrix / "barcodes.tsv.gz", "\n".join(barcodes()) + "\n")
    _zipped(matrix / "features.tsv.gz", "".join(f"{g}\t{g}\tGene Expression\n" for g in GENES))
    with (matrix / "matrix.mtx").open("wb") as file:
        scipy.io.mmwrite(file, sp.coo_matrix(counts().T), field="integer")
    (matrix / "metadata.csv").write_text(
        "cell,celltype\n" + "".join(f"{b},{TYPES[i % 3]}\n" for i, b in enumerate(barcodes()))
    )
    return Seed("cells", "m")


def space_ranger(folder: Path) -> Seed:
    outs = folder / "outs"
    (outs / "spatial").mkdir(parents=True)
    tenx_h5(outs)
    lines = ["barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"]
    lines += [f"{b},1,{i // 4},{2 * (i % 4)},{100 * (i // 4)},{100 * (i % 4)}" for i, b in enumerate(barcodes())]
    (outs / "spatial" / "tissue_positions.csv").write_text("\n".join(lines) + "\n")
    factors = {"tissue_hires_scalef": 0.1, "tissue_lowres_scalef": 0.03, "spot_diameter_fullres": 65.0}
    (outs / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    Image.fromarray(picture(24, 24)).save(outs / "spatial" / "tissue_hires_image.png")
    return Seed("spots", "outs", ("outs/spatial/*",))


def space_ranger_hd(folder: Path) -> Seed:
    """Positions as parquet, the matrix as a folder."""
    space_ranger(folder)
    spatial = folder / "outs" / "spatial"
    table = pd.read_csv(spatial / "tissue_positions.csv")
    (spatial / "tissue_positions.csv").unlink()
    table.to_parquet(spatial / "tissue_positions.parquet")
    (folder / "outs" / "filtered_feature_bc_matrix.h5").unlink()
    tenx_mtx(folder)
    (folder / "m" / "metadata.csv").unlink()
    (folder / "m").rename(folder / "outs" / "filtered_feature_bc_matrix")
    return Seed("spots", "outs", ("outs/spatial/*.parquet", "outs/filtered_feature_bc_matrix/*"))


def spatialdata_zarr(folder: Path) -> Seed:
    import spatialdata
    from anndata import AnnData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity

    points = np.stack(np.divmod(np.arange(N), 4), axis=1) * 20.0 + 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ShapesModel.parse(points, geometry=0, radius=7.0, transformations={"global": Identity()})
        obs = pd.DataFrame({"region": pd.Categorical(["spots"] * N), "spot_id": np.arange(N)}, index=barcodes())
        table = AnnData(counts().astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES))
        parsed = TableModel.parse(table, region="spots", region_key="region", instance_key="spot_id")
        image = Image2DModel.parse(picture(96, 96).transpose(2, 0, 1), transformations={"global": Identity()})
        data = spatialdata.SpatialData(images={"im": image}, shapes={"spots": shapes}, tables={"table": parsed})
        data.write(folder / "s.zarr")
    return Seed("spots", "s.zarr")


def legacy(folder: Path) -> Seed:
    names = [f"{2 + i % 4}x{3 + i // 4}" for i in range(N)]
    table = pd.DataFrame(counts().toarray(), index=names, columns=GENES)
    _zipped(folder / "counts.tsv.gz", table.to_csv(sep="\t"))
    lines = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    lines += [
        f"{2 + i % 4}\t{3 + i // 4}\t{2 + i % 4}.01\t{3 + i // 4}.02\t{100 * (i % 4)}.5\t{100 * (i // 4)}.25\t1"
        for i in range(N)
    ]
    (folder / "positions.tsv").write_text("\n".join(lines) + "\n")
    return Seed("legacy", ".")


def prototypes_h5ad(folder: Path) -> Seed:
    from napari_cpnn.prototypes import Prototypes

    profiles = np.random.default_rng(0).dirichlet(np.ones(len(GENES)), len(TYPES)).astype(np.float32)
    ids = tuple(f"ENSG{i:011d}" for i in range(len(GENES)))
    theta = np.full(len(GENES), 2.0, np.float32)
    Prototypes(profiles, tuple(TYPES), tuple(GENES), np.array([5, 6, 7]), {"source": "x"}, theta, ids).save(
        folder / "p.h5ad"
    )
    return Seed("prototypes", "p.h5ad")


def model(folder: Path) -> Seed:
    from napari_cpnn.models import build_model, save_model

    save_model(
        build_model(training_settings(), GENES, TYPES, _profiles(), np.ones(len(GENES))), folder / "m.safetensors"
    )
    return Seed("model", "m.safetensors")


def saved_map(folder: Path) -> Seed:
    from map_world import make_world

    make_world().cmap.save(folder / "map.zarr")
    return Seed("map", "map.zarr")


def geojson(folder: Path) -> Seed:
    ring = [[0, 0], [100, 0], [100, 80], [0, 80], [0, 0]]
    hole = [[10, 10], [20, 10], [20, 20], [10, 10]]
    named = {"objectType": "annotation", "name": "r1", "classification": {"name": "T", "color": [1, 2, 3]}}
    geometries = [
        {"type": "Polygon", "coordinates": [ring, hole]},
        {"type": "MultiPolygon", "coordinates": [[ring], [[[200, 200], [250, 200], [250, 260], [200, 200]]]]},
        {"type": "GeometryCollection", "geometries": [{"type": "Polygon", "coordinates": [hole]}]},
        {"type": "Point", "coordinates": [1, 2]},
    ]
    features = [{"type": "Feature", "id": str(i), "geometry": g, "properties": named} for i, g in enumerate(geometries)]
    (folder / "r.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return Seed("regions", "r.geojson")


def _outlines() -> list[list[list[float]]]:
    ring = np.array([[0.5, 0], [8, 0.5], [9, 5], [4, 9], [0, 6], [0.5, 0]])
    return [(np.array([20, 7]) * i + ring).tolist() for i in range(4)]


def nuclei_geojson(folder: Path) -> Seed:
    named = [{"objectType": "detection", "classification": {"name": name}} for name in "TIIT"]
    shapes = [{"type": "Polygon", "coordinates": [ring]} for ring in _outlines()]
    features = [{"type": "Feature", "geometry": g, "properties": p} for g, p in zip(shapes, named, strict=True)]
    (folder / "n.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return Seed("nuclei", "n.geojson")


def nuclei_cellvit(folder: Path) -> Seed:
    cells = [
        {"centroid": ring[2], "contour": ring[:-1], "type": i, "type_prob": 0.9} for i, ring in enumerate(_outlines())
    ]
    (folder / "n.json").write_text(json.dumps({"type_map": {"1": "Neoplastic", "2": "Immune"}, "cells": cells}))
    return Seed("nuclei", "n.json")


def nuclei_csv(folder: Path) -> Seed:
    rows = [f"c{i},{x},{y}" for i, ring in enumerate(_outlines()) for x, y in ring]
    (folder / "n.csv").write_text("\n".join(["cell_id,vertex_x,vertex_y", *rows]) + "\n")
    return Seed("nuclei", "n.csv")


def nuclei_parquet(folder: Path) -> Seed:
    rows = [(f"c{i}", x, y) for i, ring in enumerate(_outlines()) for x, y in ring]
    pd.DataFrame(rows, columns=["cell_id", "vertex_x", "vertex_y"]).to_parquet(folder / "n.parquet")
    return Seed("nuclei", "n.parquet")


def nuclei_zarr(folder: Path) -> Seed:
    from napari_cpnn.nuclei import Nuclei, Outlines

    outlines = Outlines.of(_outlines())
    Nuclei(outlines.centroids_um(), outlines, [0, 1, -1, 0], ("T", "I"), "seed").save(folder / "n.zarr")
    return Seed("nuclei", "n.zarr")


def cell_map(folder: Path) -> Seed:
    from napari_cpnn.cells import CellMap
    from napari_cpnn.models import Decoder
    from napari_cpnn.nuclei import Nuclei, Outlines

    rng, outlines = np.random.default_rng(0), Outlines.of(_outlines())
    n, genes, types = len(outlines), ("A", "B", "C"), ("T cells", "Tumour")
    profiles = rng.dirichlet(np.ones(3), 2).astype(np.float32)
    ones, programs = np.ones(3, np.float32), rng.normal(size=(2, 3)).astype(np.float32)
    decoder = Decoder(genes, types, profiles, ones, ones, programs, "count")
    nuclei = Nuclei(outlines.centroids_um(), outlines, [0, 1, -1, 0][:n], ("T", "I"), "seed")
    facts = {"slide": "s", "mpp": [0.5, 0.5], "hierarchy": {"T cells": "Immune"}}
    CellMap(nuclei, decoder, rng.dirichlet(np.ones(2), n), rng.normal(size=(n, 2)), facts, rng.random(n)).save(
        folder / "c.zarr"
    )
    return Seed("cell-map", "c.zarr")


def affine_text(folder: Path) -> Seed:
    (folder / "a.txt").write_text("AffineTransform2D([[1.01, 0.02, 30.5], [-0.02, 0.99, -12.0], [0, 0, 1]])\n")
    return Seed("affine", "a.txt")


def affine_json(folder: Path) -> Seed:
    (folder / "a.json").write_text(json.dumps({"name": "x", "matrix": [[1.01, 0.02, 30.5], [-0.02, 0.99, -12.0]]}))
    return Seed("affine", "a.json")


def run_folder(folder: Path) -> Seed:
    """A run that was killed after two epochs."""
    import torch

    from napari_cpnn.models import build_model, save_model
    from napari_cpnn.training.fit.resume import RunState
    from napari_cpnn.training.jobs.job import SampleFiles, TrainingJob

    run = folder / "run"
    run.mkdir()
    settings = training_settings()
    job = TrainingJob((SampleFiles(folder / "a.tif", folder / "a.h5ad", name="a"),), folder / "p.h5ad", settings, run)
    # Paths of the moment would make each run of the tests another one.
    plain = {**job.to_dict(), "samples": [{"slide": "a.tif", "spots": "a.h5ad", "moved": [[1, 0, 3], [0, 1, 9]]}]}
    (run / "job.json").write_text(json.dumps({**plain, "prototypes": "p.h5ad", "out": "run"}, indent=2))
    (run / "settings.json").write_text(json.dumps(settings.to_dict(), indent=2))
    events = [{"event": "preparing", "text": "Opening a"}, {"event": "epoch", "epoch": 1, "row": {"loss": 3.0}}]
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (run / "log.txt").write_text("napari-cpnn: a note\n")
    columns = "epoch,loss,expression_loss,prototype_loss,composition_loss,held_out_pcc,held_out_scc,seconds\n"
    (run / "metrics.csv").write_text(
        columns + "1,3.0,0.92,0.0001,2.08,0.1,0.1,0.27\n2,2.9,0.82,0.0003,2.07,nan,nan,0.15\n"
    )
    row = {"epoch": 1, "loss": 3.0, "held_out_pcc": 0.1, "seconds": 0.2}
    state = RunState(1, 0.1, 1, [row], settings.to_dict(), "abc", {"a": torch.ones(3)})
    (run / "resume.safetensors").write_bytes(state.to_bytes())
    save_model(build_model(settings, GENES, TYPES, _profiles(), np.ones(len(GENES))), run / "model.safetensors")
    return Seed("run", "run", ("run/*.json", "run/*.jsonl", "run/*.csv", "run/*.txt", "run/resume.safetensors"))


def training_settings():
    from napari_cpnn.geometry import PatchSpec
    from napari_cpnn.settings import TrainingSettings

    return TrainingSettings(backbone="squeezenet", weights="none", n_programs=2, hidden=8, patch=PatchSpec(32, 1.0))


def _profiles() -> np.ndarray:
    return np.random.default_rng(1).dirichlet(np.ones(len(GENES)), len(TYPES))


def _zipped(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


FORMATS: dict[str, Maker] = {
    "svs": svs,
    "tiff": tiff,
    "bigtiff": bigtiff,
    "ome-tiff": ome_tiff,
    "png": png,
    "jpeg": jpeg,
    "dicom": dicom,
    "spots-h5ad": spots_h5ad,
    "cells-h5ad": cells_h5ad,
    "10x-h5": tenx_h5,
    "10x-mtx": tenx_mtx,
    "space-ranger": space_ranger,
    "space-ranger-hd": space_ranger_hd,
    "spatialdata": spatialdata_zarr,
    "legacy-st": legacy,
    "prototypes": prototypes_h5ad,
    "model": model,
    "map": saved_map,
    "geojson": geojson,
    "nuclei-geojson": nuclei_geojson,
    "nuclei-cellvit": nuclei_cellvit,
    "nuclei-csv": nuclei_csv,
    "nuclei-parquet": nuclei_parquet,
    "nuclei-zarr": nuclei_zarr,
    "cell-map": cell_map,
    "affine-text": affine_text,
    "affine-json": affine_json,
    "run-folder": run_folder,
}
