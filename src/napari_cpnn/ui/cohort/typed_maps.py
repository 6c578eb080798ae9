"""Thumbnails of a gene in a cell type over a cohort, from features that are kept on this computer. No Qt here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_cpnn.cohort_run import averaged
from napari_cpnn.errors import CpnnError
from napari_cpnn.mapping import StoredRows
from napari_cpnn.slides import open_slide
from napari_cpnn.ui.cohort.thumbnails import THUMBNAIL_PX, Picture, SmallMap, small_map

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN
    from napari_cpnn.training.bags import BagReader


class SlideFile(NamedTuple):
    """A slide of the cohort: its file, its pixel size (None: of the file), and its picture, where there is one."""

    name: str
    path: Path
    mpp: float | None
    picture: Picture | None


def typed_map(slide: SlideFile, model: CPNN, reader: BagReader, fingerprint: str) -> SmallMap | None:
    """Return the small map of a slide by a model of :func:`~napari_cpnn.training.bags.typed.map_model`.

    Features of the slide are read where they are kept (by training, prediction or a map); nothing is computed from
    pixels. None: there are none, or the slide cannot be opened.
    """
    import torch

    try:
        with open_slide(slide.path, slide.mpp) as opened:
            grid, done, features = reader.kept(opened)
            if not len(features):
                return None
            size_um = tuple(n * m for n, m in zip(opened.shape[:2], opened.require_mappable(), strict=True))
            picture = slide.picture if slide.picture is not None else opened.thumbnail(THUMBNAIL_PX)
    except CpnnError:
        return None
    with torch.no_grad():
        programs = model.head(torch.from_numpy(features))[1].numpy()
    rows = np.zeros((*grid.shape, programs.shape[1]), dtype=np.float16)
    rows[done] = programs
    unknown = np.full(grid.shape, np.nan, dtype=np.float16)
    stored = StoredRows(grid, (), {"model_fingerprint": fingerprint}, rows, unknown, done)
    return small_map(averaged(stored), picture, (size_um[0], size_um[1]))
