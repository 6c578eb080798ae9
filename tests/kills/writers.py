"""Everything that the package writes, in two versions that can be told apart, for tests that kill it meanwhile."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

VERSIONS = (0, 1)
GENES = tuple(f"GENE{i}" for i in range(30))
TYPES = ("Pink", "Purple", "Blue")
SHAPE = (90, 70)


@dataclass(frozen=True)
class Writer:
    """One thing that is written.

    Attributes
    ----------
    name
        Of the file or folder, in a folder of its own.
    write
        ``write(path, version)``, over what is there.
    read
        The version that is there, by the package's own reader; it raises when that is not one of them, whole.
    tidied_by_age
        Whether what a kill leaves goes when it has lain there for a while: in caches, which others use meanwhile.
    begins_anew
        Whether the test itself takes away what is there, so that nothing may be there at the moment of a kill.
    """

    name: str
    write: Callable[[Path, int], object]
    read: Callable[[Path], int]
    begins_anew: bool = False
    tidied_by_age: bool = False


@cache
def _map(version: int) -> Any:
    """A map whose every value says its version."""
    from map_world import make_decoder
    from napari_cpnn.geometry import Grid
    from napari_cpnn.mapping import CompositionMap

    facts = {"mpp": (0.5, 0.5), "slide": f"version {version}", "slide_identity": "x"}
    cmap = CompositionMap(Grid(SHAPE, 16.0), make_decoder(TYPES, GENES, seed=version), provenance=facts)
    n = cmap.grid.n_cells
    weights = np.full((n, 3), 0.25) + 0.25 * np.eye(3)[version]
    cmap.fill(np.arange(n), weights, np.full((n, 2), float(version)), np.full(n, 0.5))
    return cmap


@cache
def _model(version: int) -> Any:
    import torch

    from napari_cpnn.geometry import PatchSpec
    from napari_cpnn.models import build_model
    from napari_cpnn.settings import TrainingSettings

    torch.manual_seed(version)
    profiles = np.random.default_rng(version).dirichlet(np.ones(len(GENES)), 3)
    settings = TrainingSettings(backbone="squeezenet", weights="none", n_programs=2, hidden=8, patch=PatchSpec(32, 1.0))
    model = build_model(settings, GENES, TYPES, profiles, np.ones(len(GENES)))
    model.provenance["version"] = str(version)
    return model


def _write_model(path: Path, version: int) -> None:
    from napari_cpnn.models import save_model

    save_model(_model(version), path)


def _read_model(path: Path) -> int:
    from napari_cpnn.models import load_model

    model = load_model(path)  # which compares the fingerprint of all tensors
    return int(model.provenance["version"])


def _write_map(path: Path, version: int) -> None:
    _map(version).save(path)


def _read_map(path: Path) -> int:
    from napari_cpnn.mapping import CompositionMap

    found = CompositionMap.load(path)
    version = int(found.provenance["slide"].split()[1])
    expected = _map(version)
    np.testing.assert_array_equal(found.weights, expected.weights)
    np.testing.assert_array_equal(found.programs, expected.programs)
    np.testing.assert_array_equal(found.decoder.prototypes, expected.decoder.prototypes)
    return version


def _export(path: Path, version: int) -> None:
    from napari_cpnn.export import export_map

    export_map(_map(version), path, [*GENES[:2]], overwrite=True)


def _export_all(path: Path, version: int) -> None:
    from napari_cpnn.export import export_map

    export_map(_map(version), path, overwrite=True)


def _read_h5ad(path: Path) -> int:
    import anndata

    table = anndata.read_h5ad(path)
    assert table.shape == (SHAPE[0] * SHAPE[1], len(GENES))
    return _version_of(np.asarray(table.obsm["programs"]))


def _read_spatialdata(path: Path) -> int:
    import spatialdata

    data = spatialdata.read_zarr(path)
    assert data.shapes
    return _version_of(np.asarray(next(iter(data.tables.values())).obsm["programs"]))


def _read_ome_zarr(path: Path) -> int:
    import zarr

    group = zarr.open_group(str(path), mode="r")
    level: Any = group["0"]
    _version_of(_shares(np.asarray(level[0])))
    return _version_of(_shares(np.asarray(level[0])))


def _read_csv(path: Path) -> int:
    import pandas as pd

    table = pd.read_csv(path)
    assert len(table) == SHAPE[0] * SHAPE[1]
    column = next(name for name in table.columns if name.endswith(TYPES[0]))
    return _version_of(_shares(table[column].to_numpy()))


def _read_geojson(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    json.loads(text)
    return next(v for v in VERSIONS if text == _rendered("m.geojson", v).decode())


def _read_figure(path: Path) -> int:
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image)
    for version in VERSIONS:
        if pixels.tobytes() == _rendered("m.png", version):
            return version
    raise AssertionError("the figure is neither of the two")


@cache
def _rendered(name: str, version: int) -> bytes:
    """What an export without disturbance gives."""
    import tempfile

    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        _export(path, version)
        if path.suffix != ".png":
            return path.read_bytes()
        with Image.open(path) as image:
            return np.asarray(image).tobytes()


def _write_prototypes(path: Path, version: int) -> None:
    from napari_cpnn.prototypes import Prototypes

    profiles = np.random.default_rng(version).dirichlet(np.ones(len(GENES)), 3)
    Prototypes(profiles, TYPES, GENES, np.full(3, 10 + version), {"version": version}).save(path)


def _read_prototypes(path: Path) -> int:
    from napari_cpnn.prototypes import Prototypes

    found = Prototypes.load(path)
    version = int(found.provenance["version"])
    assert (found.n_cells == 10 + version).all()
    return version


def _write_regions(path: Path, version: int) -> None:
    from napari_cpnn.regions import Region, write_regions

    square = np.array([[0.0, 0], [0, 10], [10, 10], [10, 0]])
    write_regions([Region.from_vertices(f"r{i} {version}", square * (i + 1)) for i in range(200)], path, (0.5, 0.5))


def _read_regions(path: Path) -> int:
    from napari_cpnn.regions import read_regions

    names = [region.name.split()[1] for region in read_regions(path, (0.5, 0.5))]
    assert len(names) == 200
    assert len(set(names)) == 1
    return int(names[0])


def _write_table(path: Path, version: int) -> None:
    import pandas as pd

    from napari_cpnn.storage.files import write_csv

    write_csv(pd.DataFrame(np.full((500, 20), version)), path)


def _read_table(path: Path) -> int:
    import pandas as pd

    table = pd.read_csv(path, index_col=0)
    assert table.shape == (500, 20)
    return _version_of(table.to_numpy())


def _write_map_cache(path: Path, version: int) -> None:
    """The disk copy of a live map: tidied, opened, half of its cells computed, closed."""
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.mapping.cache import prune
    from napari_cpnn.mapping.store import MapStore

    prune(path.parent, 2**40)

    whole = _map(0)
    live = CompositionMap(whole.grid, whole.decoder, provenance=whole.provenance)
    store = MapStore(live, path)
    n = live.grid.n_cells
    cells = np.arange(version, n, 2)
    live.fill(cells, np.full((len(cells), 3), 0.25) + 0.25 * np.eye(3)[0], np.zeros((len(cells), 2)))
    store.close()
    assert store.problem is None


def _read_map_cache(path: Path) -> int:
    """Whatever is there, is right; more need not be."""
    from napari_cpnn.mapping import CompositionMap
    from napari_cpnn.mapping.store import MapStore

    whole = _map(0)
    live = CompositionMap(whole.grid, whole.decoder, provenance=whole.provenance)
    store = MapStore(live, path)
    store.close()
    assert store.problem is None
    done = live.state == 2
    np.testing.assert_array_equal(live.weights[done], whole.weights[done])
    return 0


def _write_features(path: Path, version: int) -> None:
    from napari_cpnn.prediction.feature_store import _NAMES, FeatureStore
    from napari_cpnn.storage import prune_kept

    prune_kept(path.parent, 2**40, _NAMES)
    store = FeatureStore(8, path)
    keys = np.arange(version, 4000, 2) + 10_000 * len(store)
    store.add(keys, np.repeat(keys % 97, 8).reshape(-1, 8).astype(np.float16))
    store.flush()
    assert store.problem is None


def _read_features(path: Path) -> int:
    from napari_cpnn.prediction.feature_store import FeatureStore

    store = FeatureStore(8, path)
    keys = np.fromiter(store._row, dtype=np.int64)
    np.testing.assert_array_equal(store.get(keys)[:, 0], (keys % 97).astype(np.float16))
    return 0


def _cut(path: Path, version: int) -> None:
    from napari_cpnn.geometry import PatchSpec
    from napari_cpnn.slides import read_patches
    from napari_cpnn.training.data.patch_cache import PatchCache

    slide = _slide(version)
    centers = np.stack(np.divmod(np.arange(600), 30), axis=1) * 8.0 + 20
    chunks, ok = PatchCache(str(path), path.with_name("scratch")).read(slide, centers, PatchSpec(16, 1.0))
    assert ok.all()
    np.testing.assert_array_equal(np.concatenate(chunks), read_patches(slide, centers, PatchSpec(16, 1.0)))


@cache
def _slide(version: int) -> Any:
    from napari_cpnn.slides import Slide

    pixels = np.random.default_rng(version).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    return Slide.from_arrays([pixels], 1.0, name=f"s{version}")


def _cut_again(path: Path, version: int) -> None:
    """As if it were never there: the patches of the other slide go."""
    for folder in path.glob("*"):
        shutil.rmtree(folder)
    _cut(path, version)


def _read_patches(path: Path) -> int:
    """They are cut again where they are not there, and compared with the slide."""
    for version in VERSIONS:
        _cut(path, version)
    return 0


def _train(path: Path, version: int) -> None:
    """A short run on the packaged sample, from where it has come to; a finished one is begun anew."""
    from napari_cpnn.training.jobs.job_run import run_job

    if (path / "curves.png").exists() and not (path / "resume.safetensors").exists():
        shutil.rmtree(path)
    run_job(_job(path).replace(resume=(path / "settings.json").exists()))
    assert _read_run(path) == 0
    assert not (path / "resume.safetensors").exists(), f"the run of version {version} is not finished"


def _job(path: Path) -> Any:
    import anndata

    from napari_cpnn.geometry import PatchSpec
    from napari_cpnn.samples import SAMPLE_FILES, sample_folder
    from napari_cpnn.settings import TrainingSettings
    from napari_cpnn.training.jobs.job import SampleFiles, TrainingJob

    inputs, sample = path.with_name("scratch"), sample_folder()
    if not inputs.exists():
        made = inputs.with_name(f"scratch-{os.getpid()}")
        made.mkdir()
        spots = anndata.read_h5ad(sample / SAMPLE_FILES["spots"])
        spots[::4].write_h5ad(made / "spots.h5ad")
        (made / "genes.txt").write_text("\n".join(spots.var_names[:20]) + "\n")
        made.rename(inputs)
    settings = TrainingSettings(
        backbone="squeezenet", weights="none", patch=PatchSpec(32, 2.0), hidden=16, n_programs=2, max_epochs=2,
        batch_size=32, patience=500, genes=str(inputs / "genes.txt"), device="cpu", min_spot_fraction=0.0,
        patch_cache="none",
    )  # fmt: skip
    files = SampleFiles(sample / SAMPLE_FILES["slide"], inputs / "spots.h5ad", name="section")
    return TrainingJob((files,), sample / SAMPLE_FILES["prototypes"], settings, path)


def _read_run(path: Path) -> int:
    """Every file that is there is whole."""
    from napari_cpnn.training.fit.run_folder import RunFolder
    from napari_cpnn.training.jobs.job import TrainingJob
    from napari_cpnn.training.jobs.watch import is_running, look_at_run

    if not any(path.iterdir()) or not (path / "job.json").exists():
        return 0
    assert not is_running(path)
    status = look_at_run(path)
    assert TrainingJob.read(path / "job.json").settings.max_epochs == 2
    if status.model is not None:
        from napari_cpnn.models import load_model

        load_model(status.model)
    if status.resumable:
        state = RunFolder(path, resume=True).read_state()
        assert state is None or 1 <= state.epoch <= 2
    return 0


def _shares(values: np.ndarray) -> np.ndarray:
    """The share of the first type is 0.5 in version 0, 0.25 in version 1."""
    return np.where(np.isclose(values, 0.5), 0, np.where(np.isclose(values, 0.25), 1, 9))


def _version_of(values: np.ndarray) -> int:
    found = np.unique(values)
    assert len(found) == 1
    assert found[0] in VERSIONS
    return int(found[0])


WRITERS: dict[str, Writer] = {
    "model": Writer("m.safetensors", _write_model, _read_model),
    "map": Writer("m.zarr", _write_map, _read_map),
    "prototypes": Writer("p.h5ad", _write_prototypes, _read_prototypes),
    "h5ad": Writer("m.h5ad", _export_all, _read_h5ad),
    "spatialdata": Writer("m.zarr", _export_all, _read_spatialdata),
    "ome-zarr": Writer("m.ome.zarr", _export, _read_ome_zarr),
    "geojson": Writer("m.geojson", _export, _read_geojson),
    "csv": Writer("m.csv", _export, _read_csv),
    "figure": Writer("m.png", _export, _read_figure),
    "regions": Writer("r.geojson", _write_regions, _read_regions),
    "table": Writer("t.csv", _write_table, _read_table),
    "map-cache": Writer("0123456789abcdef0123456789abcdef.zarr", _write_map_cache, _read_map_cache, tidied_by_age=True),
    "feature-cache": Writer("0123456789abcdef0123456789abcdef", _write_features, _read_features, tidied_by_age=True),
    "patch-cache": Writer("patches", _cut_again, _read_patches, begins_anew=True),
    "run": Writer("run", _train, _read_run, begins_anew=True),
}
