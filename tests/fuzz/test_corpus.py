"""Files on which the package once failed: each gives a sentence or a result, in time and within memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cases import CASES
from fuzz import seeds
from fuzz.judge import Judge

CORPUS = CASES / "fuzz"


def _as_it_is(path: Path, _folder: Path) -> Path:
    """One place for all files of the same content: what hangs HDF5 takes seconds, and is remembered by its place."""
    content = path.read_bytes()
    return next(one for one in _files() if one.suffix == path.suffix and _is(one, content))


def _is(path: Path, content: bytes) -> bool:
    return path.stat().st_size == len(content) and path.read_bytes() == content


def _part_of_a_run(path: Path, folder: Path) -> Path:
    """A file of a run folder, among good ones."""
    seeds.run_folder(folder)
    name = "metrics.csv" if path.suffix == ".csv" else "job.json"
    shutil.copyfile(path, folder / "run" / name)
    return folder / "run"


def _part_of_space_ranger(path: Path, folder: Path) -> Path:
    seeds.space_ranger(folder)
    outs = folder / "outs"
    places = {
        ".png": outs / "spatial" / "tissue_hires_image.png",
        ".json": outs / "spatial" / "scalefactors_json.json",
        ".h5": outs / "filtered_feature_bc_matrix.h5",
    }
    shutil.copyfile(path, places[path.suffix])
    if path.suffix == ".h5":  # of which the barcodes are these
        lines = [f"{b},1,{i},{i},{100 * i},{100 * i}" for i, b in enumerate(("AA-1", "CC-1", "GG-1", "TT-1"))]
        header = "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres"
        (outs / "spatial" / "tissue_positions.csv").write_text("\n".join([header, *lines]) + "\n")
    return outs


def _card_of_a_map(path: Path, folder: Path) -> Path:
    """A map of the grid, types and genes that the card of the corpus has."""
    from map_world import make_decoder
    from napari_cpnn.geometry import Grid
    from napari_cpnn.mapping import CompositionMap

    decoder = make_decoder([f"t{i}" for i in range(8)], [f"g{i}" for i in range(60)])
    cmap = CompositionMap(Grid((10, 10), 112.0), decoder, provenance={"mpp": (0.5, 0.5)})
    cmap.fill(np.arange(100), np.full((100, 8), 1 / 8), np.zeros((100, 2)))
    cmap.save(folder / "map.zarr")
    shutil.copyfile(path, folder / "map.zarr" / "zarr.json")
    return folder / "map.zarr"


def _zarr_folder(path: Path, folder: Path) -> Path:
    """What is in place is read-only, and has no ending."""
    for file in path.rglob("*"):
        if file.is_file():
            target = folder / "s.zarr" / file.relative_to(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return folder / "s.zarr"


Arrangement = Callable[[Path, Path], Path]

#: Folder of the corpus -> the doors that such files come to, and what stands around them.
DOORS: dict[str, tuple[tuple[str, ...], Arrangement]] = {
    "fuzz_dicom": (("slide",), _as_it_is),
    "fuzz_geojson": (("regions",), _as_it_is),
    "fuzz_h5ad": (("spots",), _as_it_is),
    "fuzz_h5adcells": (("cells",), _as_it_is),
    "fuzz_ometiff": (("slide",), _as_it_is),
    "fuzz_png": (("slide",), _as_it_is),
    "fuzz_prototypes": (("prototypes",), _as_it_is),
    "fuzz_run": (("run",), _part_of_a_run),
    "fuzz_spaceranger": (("spots",), _part_of_space_ranger),
    "fuzz_spatialdata": (("spots",), _zarr_folder),
    "fuzz_svs": (("slide",), _as_it_is),
    "fuzz_tenx": (("cells",), _as_it_is),
    "fuzz_tiff": (("slide",), _as_it_is),
    "fuzz_zarr": (("map",), _card_of_a_map),
}


def _files() -> list[Path]:
    return sorted(path for folder in CORPUS.glob("*") if folder.is_dir() for path in folder.iterdir())


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge() as one:
        yield one


def test_the_corpus_is_there() -> None:
    if not CORPUS.is_dir():
        pytest.skip(f"there is no corpus at {CORPUS}; set NAPARI_CPNN_CASES")
    assert {path.parent.name for path in _files()} <= set(DOORS)


def _cases() -> list[object]:
    """Of files that hang a library, seconds each, the first of a kind; `make test-slow` opens all."""
    later = [path.name.startswith("hang") and not path.name.startswith("hang1") for path in _files()]
    return [pytest.param(p, marks=pytest.mark.slow if slow else []) for p, slow in zip(_files(), later, strict=True)]


@pytest.mark.parametrize("path", _cases(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_file_of_the_corpus_gives_a_sentence_or_a_result(path: Path, judge: Judge, tmp_path: Path) -> None:
    doors, arrange = DOORS[path.parent.name]
    inside = tmp_path / "input"
    inside.mkdir()
    opened = arrange(path, inside)
    for door in doors:
        verdict = judge.judge(door, opened)
        assert not verdict.fault, f"{door}: {verdict}"
