"""What tells of patients, people and computers stays out of all that is handed on.

A canary sits in every field that might carry such a thing: the tags of the slide, its label and macro pictures, the
names of donors, barcodes and notes of the tables, the folders, and the name of the user. What stays in the machine is
another matter: a run folder has to know its files (``job.json``, ``settings.json``, ``events.jsonl``, ``log.txt``, and
``resume.safetensors`` until the run is finished).
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from anndata import AnnData
from PIL import Image
from scipy import sparse

import napari_cpnn as nc
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.geometry import PatchSpec
from napari_cpnn.models import read_card
from napari_cpnn.settings import TrainingSettings
from napari_cpnn.training.jobs.job import CellsFile, SampleFiles, TrainingJob

CANARY = "CANARYBIRD"
LABEL = (3, 251, 7)  # a colour that is nowhere else
PATHS_MAY_BE_IN = {"job.json", "settings.json", "events.jsonl", "log.txt"}
ROWS, COLS = 14, 15
KINDS = ("svs", "ome.tif")
EXPORTS = ("a.h5ad", "a.zarr", "a.ome.zarr", "a.geojson", "a.csv", "a.png", "a.svg", "a.pdf")


def tissue(rows: int, cols: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    colors = rng.choice([[200, 90, 150], [110, 60, 160]], size=(rows, cols)).repeat(32, 0).repeat(32, 1)
    colors[:, :40] = colors[:40] = 244  # the glass
    return np.clip(colors + rng.normal(0, 6, colors.shape), 0, 255).astype(np.uint8)


def write_slide(path: Path, kind: str) -> Path:
    pixels = tissue(ROWS, COLS)
    label = np.full((64, 96, 3), LABEL, dtype=np.uint8)
    tags = [(code, 2, None, f"{CANARY} {code}", True) for code in (269, 270, 271, 272, 315, 316, 33432, 37510)]
    tags = [tag for tag in tags if tag[0] not in ((270,) if kind == "svs" else (270, 271, 272))]
    options = {"photometric": "rgb", "software": CANARY, "metadata": None}
    if kind == "svs":
        words = f"Aperio Image Library v11\r\n480x448|AppMag = 20|MPP = 0.5|User = {CANARY}|Filename = {CANARY}|"
        with tifffile.TiffWriter(path) as tif:
            tif.write(
                pixels,
                tile=(64, 64),
                compression="jpeg",
                description=f"{words}Title = {CANARY}",
                extratags=tags,
                **options,
            )
            tif.write(pixels[::4, ::4], description=words, **options)
            for name, kind_ in (("label", 1), ("macro", 9)):
                tif.write(label, subfiletype=kind_, description=f"Aperio Image Library\r\n{name} 96x64", **options)
        return path
    ome = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Experimenter ID="Experimenter:0" UserName="{CANARY}" Email="{CANARY}@x.org" LastName="{CANARY}"/>'
        f'<Image ID="Image:0" Name="{CANARY}"><Description>{CANARY}</Description><ExperimenterRef ID="Experimenter:0"/>'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="480" SizeY="448" SizeC="3" SizeZ="1" '
        'SizeT="1" PhysicalSizeX="0.5" PhysicalSizeXUnit="um" PhysicalSizeY="0.5" PhysicalSizeYUnit="um">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
    tifffile.imwrite(path, pixels, tile=(64, 64), description=ome.replace('"um"', '"\u00b5m"').encode(), **options)
    return path


def write_tables(folder: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(1)
    genes = pd.DataFrame(index=[f"GENE{i}" for i in range(400)])
    profiles = rng.dirichlet(np.ones(400), 2)

    def table(n: int, kind: np.ndarray, **more: object) -> AnnData:
        counts = sparse.csr_matrix(rng.poisson(20000 * profiles[kind]).astype(np.float32))
        obs = pd.DataFrame({"note": CANARY}, index=[f"{CANARY}-{i}" for i in range(n)])
        return AnnData(counts, obs=obs, var=genes.copy(), uns={"who": CANARY, "notes": {"name": CANARY}}, **more)

    y, x = np.mgrid[:ROWS, :COLS]
    spots = table(
        ROWS * COLS,
        rng.integers(0, 2, ROWS * COLS),
        obsm={"spatial": np.c_[x.ravel() * 32 + 16.0, y.ravel() * 32 + 16.0]},
    )
    cells = table(240, np.arange(240) % 2)
    cells.obs["celltype"] = np.array(["round", "long"])[np.arange(240) % 2]
    cells.obs["donor"] = [f"{CANARY} {i % 3}" for i in range(240)]
    for name, found in (("spots", spots), ("cells", cells)):
        found.write_h5ad(folder / f"{name}.h5ad")
    return folder / "spots.h5ad", folder / "cells.h5ad"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything that the package makes, from inputs full of canaries."""
    here = tmp_path_factory.mktemp(CANARY)
    out = tmp_path_factory.mktemp("out")
    settings = TrainingSettings(
        backbone="squeezenet", weights="none", patch=PatchSpec(32, 0.5), hidden=8, n_programs=2, max_epochs=1,
        batch_size=16, device="cpu", genes=str(here / "genes.txt"), min_spot_fraction=0.0,
    )  # fmt: skip
    (here / "genes.txt").write_text("\n".join(f"GENE{i}" for i in range(30)))
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", CpnnWarning)
        for name in ("USER", "LOGNAME", "USERNAME", "HOSTNAME"):
            patch.setenv(name, CANARY)
        patch.setenv("NAPARI_CPNN_CACHE", str(out / "cache"))
        spots, cells = write_tables(here)
        slides = {kind: write_slide(here / f"slide.{kind}", kind) for kind in KINDS}
        files = SampleFiles(slides["svs"], spots, mpp=0.5)
        job = TrainingJob((files,), CellsFile(cells, "celltype", "donor"), settings, out / "run")
        from napari_cpnn.training.jobs.job_run import run_job

        model = nc.load_model(run_job(job))
        for kind, path in slides.items():
            folder = out / kind
            folder.mkdir()
            with nc.open_slide(path) as slide:
                cmap = nc.predict_map(slide, model)
                cmap.save(folder / "map.zarr")
                for name in EXPORTS if kind == "svs" else EXPORTS[:3]:
                    nc.export_map(cmap, folder / name, ["GENE0"], slide, overwrite=True)
        yield out


def words_of(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and what is packed in it."""
    content = path.read_bytes()
    yield content
    if path.suffix == ".pdf":
        for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL):
            with_zlib = zlib.decompressobj()
            yield with_zlib.decompress(stream) if stream[:1] == b"x" else stream
    if path.suffix == ".png":
        with Image.open(path) as image:
            yield json.dumps({key: str(value) for key, value in image.info.items()}).encode()
    if path.suffix == ".parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table(path)
        yield f"{table.schema} {table.to_pydict()}".encode()
    if path.suffix == ".h5ad":
        found = io.StringIO()

        def visit(name: str, item: object) -> None:
            found.write(f"{name} {dict(item.attrs)} ")
            if isinstance(item, h5py.Dataset) and item.dtype.kind in "OSU":
                found.write(str(np.asarray(item[()]).tolist()))

        with h5py.File(path) as file:
            file.visititems(visit)
        yield found.getvalue().encode()


def arrays_in(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """All arrays of a Zarr folder, unpacked."""
    for found in (*path.rglob("zarr.json"), *path.rglob(".zarray")):
        if '"node_type": "group"' not in found.read_text():
            yield str(found.parent.relative_to(path)), np.asarray(zarr.open_array(found.parent, mode="r")[...])


def has_canary(content: bytes) -> bool:
    words = (CANARY.encode(), CANARY.encode("utf-16-le"), CANARY.encode("utf-16-be"), CANARY.lower().encode())
    return any(word in content for word in words)


def test_the_inputs_are_full_of_it(made: Path) -> None:
    here = next(p for p in made.parent.iterdir() if p.name.startswith(CANARY))
    for path in here.iterdir():
        if path.name != "genes.txt":
            assert any(has_canary(words) for words in words_of(path)), path


def test_no_file_that_is_handed_on_has_it(made: Path) -> None:
    looked_at = 0
    for path in made.rglob("*"):
        assert CANARY not in path.name
        if path.is_file() and not (path.parent.name == "run" and path.name in PATHS_MAY_BE_IN):
            looked_at += 1
            assert not any(has_canary(words) for words in words_of(path)), path.relative_to(made)
    assert looked_at > 50


def test_no_array_has_it_packed(made: Path) -> None:
    folders = [p for p in made.rglob("*.zarr") if (p / "zarr.json").exists() or (p / ".zgroup").exists()]
    assert len(folders) >= 3 * len(KINDS)
    for folder in folders:
        for name, values in arrays_in(folder):
            found = str(values.tolist()).encode() if values.dtype.kind in "OSUT" else values.tobytes()
            assert not has_canary(found), (folder.name, name)
            if values.ndim == 3 and values.dtype == np.uint8 and 3 in (values.shape[0], values.shape[-1]):
                pixels = values if values.shape[-1] == 3 else np.moveaxis(values, 0, -1)
                assert not (pixels.reshape(-1, 3) == LABEL).all(axis=1).any(), "the label is in the picture"


def test_no_picture_has_the_label(made: Path) -> None:
    for path in made.rglob("*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        assert not (pixels == LABEL).all(axis=1).any(), path


def test_what_a_slide_is_called_is_the_name_of_its_file_without_folders(made: Path) -> None:
    cmap = nc.CompositionMap.load(made / "svs" / "map.zarr")
    assert cmap.provenance["slide"] in ("slide", "slide.svs")
    card = read_card(made / "run" / "model.safetensors")
    assert [row["slide"] for row in card["provenance"]["training_data"]] == [cmap.provenance["slide"]]
    assert card["provenance"]["settings"]["genes"] == "genes.txt"
