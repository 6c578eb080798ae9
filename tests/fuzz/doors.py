"""The doors of the package: functions that open a file somebody gives, each followed by a look at what came in.

A door is a list of steps. Each step may end in a sentence of the :class:`CpnnError` family, or give something that can
be used; the judge runs all of them, so that a refusal by the first does not hide what the second does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Step = Callable[[], Any]

#: Models of patches that are larger than this are not run: that it takes long is no fault of the door.
_LARGEST_PATCH_PX = 512


def slide(path: Path) -> Sequence[Step]:
    def look() -> None:
        import napari_cpnn as nc

        with nc.open_slide(path) as opened:
            opened.thumbnail(256)
            for level, (height, width) in enumerate(opened.level_shapes):
                pixels = opened.read_shown(height // 2, width // 2, 64, 64, level)
                assert pixels.shape[:2] == (64, 64)
            np.asarray(opened.levels[0][:40, :40])
            if opened.mpp is not None:
                assert all(np.isfinite(opened.mpp)), opened.mpp
                assert min(opened.mpp) > 0, opened.mpp

    return [look]


def spots(path: Path, positions: Path | None = None) -> Sequence[Step]:
    found = []

    def look() -> None:
        from napari_cpnn.spots import estimate_mpp, expression, read_spots

        table = read_spots(path, positions)
        found.append(table)
        _check_counts(table)
        assert np.isfinite(table.obsm["spatial"]).all()
        expression(table, list(table.var_names[:3]))
        estimate_mpp(table)

    def find() -> None:
        from napari_cpnn.spots import find_slide, find_spots

        find_spots(path)
        for table in found:
            find_slide(path, table)

    return [look, find]


def legacy(path: Path) -> Sequence[Step]:
    """``path`` is a folder with ``counts.tsv`` and ``positions.tsv``, plain or zipped."""
    return spots(_one(path, "counts.tsv*"), _one(path, "positions.tsv*"))


def cells(path: Path) -> Sequence[Step]:
    def memory() -> None:
        from napari_cpnn.prototypes import read_cells

        _check_counts(read_cells(path))

    def estimate() -> None:
        from napari_cpnn.prototypes import estimate_prototypes
        from napari_cpnn.prototypes.cells import open_cells
        from napari_cpnn.settings import PrototypeSettings

        table = open_cells(path)
        if len(table.obs.columns):
            estimate_prototypes(table, str(table.obs.columns[0]), settings=PrototypeSettings(min_genes=0, min_cells=0))

    return [memory, estimate]


def prototypes(path: Path) -> Sequence[Step]:
    def look() -> None:
        from napari_cpnn.prototypes import Prototypes

        found = Prototypes.load(path)
        assert np.isfinite(found.profiles).all()
        found.markers(3)
        found.left_out()

    return [look]


def model(path: Path) -> Sequence[Step]:
    def look() -> None:
        import torch

        from napari_cpnn.models import load_model

        loaded = load_model(path)
        side = loaded.patch.size_px
        if side <= _LARGEST_PATCH_PX and not loaded.needs_surroundings:
            with torch.no_grad():
                found = loaded.predict(loaded.normalize(torch.zeros((1, side, side, 3), dtype=torch.uint8)))
            loaded.decode(found.weights, found.programs, list(loaded.genes[:2]))

    return [look]


def saved_map(path: Path) -> Sequence[Step]:
    def look() -> None:
        from napari_cpnn.mapping import CompositionMap

        found = CompositionMap.load(path)
        repr(found)
        found.dominant()
        found.mean_weights()
        found.donors()
        for gene in found.genes[:2]:
            known = found.expression(gene)[found.state == 2]
            assert np.isfinite(known).all()

    def export() -> None:
        from napari_cpnn.export import export_map
        from napari_cpnn.mapping import CompositionMap

        export_map(CompositionMap.load(path), path.with_name("out.csv"), overwrite=True)

    return [look, export]


def regions(path: Path) -> Sequence[Step]:
    def look() -> None:
        from napari_cpnn.geometry import Grid
        from napari_cpnn.regions import read_regions

        for region in read_regions(path, (0.5, 0.5)):
            assert region.area_mm2 > 0
            region.vertices_um()
            region.cells(Grid((10, 10), 16.0))

    return [look]


def nuclei(path: Path) -> Sequence[Step]:
    def look() -> None:
        from napari_cpnn.nuclei import read_nuclei

        found = read_nuclei(path, mpp=0.5)
        assert np.isfinite(found.centers_um).all()
        assert len(found.query((-np.inf, -np.inf, np.inf, np.inf))) == len(found)
        found.class_counts()
        if found.outlines is not None:
            assert np.isfinite(found.areas_um2()).all()

    return [look]


def cell_map(path: Path) -> Sequence[Step]:
    def look() -> None:
        from napari_cpnn.cells import CellMap

        cells = CellMap.load(path)
        assert cells.dominant().shape == (len(cells),)
        assert cells.expression(cells.genes[0]).shape == (len(cells),)
        cells.type_counts()

    return [look]


def affine(path: Path) -> Sequence[Step]:
    def look() -> None:
        from napari_cpnn.spots import read_affine

        assert np.isfinite(read_affine(path)).all()

    def typed() -> None:
        from napari_cpnn.errors import SpotsError
        from napari_cpnn.spots import parse_affine
        from napari_cpnn.untrusted import to_path

        to_path(path, SpotsError)  # nobody types a pipe
        parse_affine(path.read_text(encoding="utf-8", errors="replace"))

    return [look, typed]


def run_folder(path: Path) -> Sequence[Step]:
    def look() -> None:
        from napari_cpnn.training.jobs.watch import look_at_run, read_log

        status = look_at_run(path)
        _ = status.epoch, status.seconds_left, status.best, read_log(path)

    def job() -> None:
        from napari_cpnn.training.jobs.watch import job_of_run

        job_of_run(path).check()

    def state() -> None:
        from napari_cpnn.settings import TrainingSettings
        from napari_cpnn.training.fit.run_folder import RunFolder

        found = RunFolder(path, resume=True).read_state()
        if found is not None:
            found.require_same(TrainingSettings.from_dict(found.settings), path)

    def weights() -> None:
        from napari_cpnn.models import load_model

        load_model(path / "model.safetensors")

    return [look, job, state, *([weights] if (path / "model.safetensors").exists() else [])]


def job(path: Path) -> Sequence[Step]:
    from napari_cpnn.training.jobs.job import TrainingJob

    return [partial(TrainingJob.read, path)]


def trouble(path: Path) -> Sequence[Step]:
    """No door of the package: it does what the file says, to show that the judge sees it."""
    import os
    import time

    from napari_cpnn.errors import CpnnError

    def refuse(text: str) -> None:
        error = CpnnError()
        error.args = (text,)  # as it is: the class itself would make one line of it
        raise error

    kinds: dict[str, Step] = {
        "crash": os.abort,
        "hang": partial(time.sleep, 60),
        "memory": lambda: bytes(b"x" * (1200 << 20)),
        "traceback": lambda: 1 / 0,
        "two lines": partial(refuse, "a\nb"),
        "sentence": partial(refuse, "It is no slide."),
        "result": int,
    }
    return [kinds[path.read_text()]]


DOORS: dict[str, Callable[[Path], Sequence[Step]]] = {
    "slide": slide,
    "spots": spots,
    "legacy": legacy,
    "cells": cells,
    "prototypes": prototypes,
    "model": model,
    "map": saved_map,
    "regions": regions,
    "nuclei": nuclei,
    "cell-map": cell_map,
    "affine": affine,
    "run": run_folder,
    "job": job,
    "trouble": trouble,
}


def warm_up() -> None:
    """Import what the doors import, so that the first file does not pay for it."""
    import anndata
    import dask.array
    import spatialdata
    import torch
    import zarr

    import napari_cpnn.cells
    import napari_cpnn.export
    import napari_cpnn.mapping
    import napari_cpnn.models
    import napari_cpnn.nuclei
    import napari_cpnn.prototypes.cells
    import napari_cpnn.regions
    import napari_cpnn.spots
    import napari_cpnn.training.fit.run_folder

    _ = anndata, dask.array, spatialdata, zarr, napari_cpnn
    _ = spatialdata.SpatialData, spatialdata.read_zarr  # loaded when they are first asked for
    torch.set_num_threads(1)


def _check_counts(table: Any) -> None:
    counts = table.layers["counts"]
    assert counts.shape == table.shape
    values = counts.data if hasattr(counts, "indptr") else np.asarray(counts)
    assert (values >= 0).all()
    assert table.obs_names.is_unique
    assert table.var_names.is_unique


def _one(folder: Path, pattern: str) -> Path:
    return next(iter(sorted(folder.glob(pattern))))
