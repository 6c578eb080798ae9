"""The work of one slide: quality control, map, tables and pictures, and its summary, which is written last."""

from __future__ import annotations

import errno
import math
import platform
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from napari_cpnn._version import __version__
from napari_cpnn.cohort_run.folder import SlideFolder, write_json
from napari_cpnn.cohort_run.pictures import dominant_picture, write_picture
from napari_cpnn.cohort_run.quality import quality_of
from napari_cpnn.cohort_run.small_maps import small_rows, write_small
from napari_cpnn.errors import CohortError, CpnnError, CpnnWarning, RegionsError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import DONE, CompositionMap, predict_map
from napari_cpnn.regions import Region, read_regions, summarise_regions
from napari_cpnn.settings import CohortSettings, MappingSettings, RegionSettings
from napari_cpnn.slides import Slide, copy_identity, open_slide, overview_of, resolve_path
from napari_cpnn.storage import key_of, remove, write_csv
from napari_cpnn.untrusted import reason_of

if TYPE_CHECKING:
    from distributed import Client

    from napari_cpnn.models import CPNN

Kind = Literal["done", "failed", "stop"]

#: What stops a run rather than a slide: the next one would meet it too.
_STOPPING = {errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}
#: Name of the region that is the whole slide.
WHOLE = "slide"
_FORMAT = 1


@dataclass(frozen=True)
class SlideJob:
    """What a worker needs to know of a slide; small, since it travels to it.

    Attributes
    ----------
    name, path, mpp
        As in the manifest.
    regions
        Path of a GeoJSON, or ``""``.
    out
        Folder of the slide.
    key
        Of everything that its results depend on.
    settings
        Of the run.
    """

    name: str
    path: str
    mpp: float
    regions: str
    out: str
    key: str
    settings: CohortSettings

    @property
    def folder(self) -> SlideFolder:
        return SlideFolder(Path(self.out))

    @property
    def mapping(self) -> MappingSettings:
        """Settings of the map, which is kept with the slide until it is complete."""
        return self.settings.mapping.replace(cache=True, cache_dir=str(self.folder.work), cache_gb=1e6)


@dataclass(frozen=True)
class Outcome:
    """What became of a slide; ``stop``: nothing can be written any more."""

    name: str
    kind: Kind
    sentence: str = ""


def job_key(run_key: str, path: str, mpp: float, regions: str) -> str:
    """Return the key of a slide in a run: it changes with the file, its pixel size and its regions."""
    facts: list[Any] = [run_key, None if math.isnan(mpp) else mpp]
    for file in (path, regions):
        try:
            about = Path(file).stat() if file else None
        except OSError:
            about = None
        facts.append([file, None if about is None else [about.st_size, about.st_mtime_ns]])
    if Path(path).is_dir():  # its own time does not tell of changes inside
        with suppress(CpnnError, OSError), warnings.catch_warnings():  # the slide says so when it is opened
            warnings.simplefilter("ignore")
            facts.append(copy_identity(resolve_path(Path(path))))
    return key_of(facts)


#: Gives the client of the cluster that a worker belongs to.
ClientOf = Callable[[], AbstractContextManager["Client"]]


def run_slide(job: SlideJob, model: CPNN, client_of: ClientOf | None = None) -> Outcome:
    """Do all of one slide, or what is left of it; an error is told, not raised.

    Parameters
    ----------
    job, model
        The slide and the model.
    client_of
        Of the cluster, over whose workers a large slide is split.
    """
    folder = job.folder
    if folder.is_done(job.key):
        return Outcome(job.name, "done")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", CpnnWarning)
            start = time.monotonic()
            facts = _facts(job, model, client_of)
            facts["warnings"] = list(dict.fromkeys(str(w.message) for w in said if issubclass(w.category, CpnnWarning)))
            facts["run"] = {
                "host": platform.node(),
                "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
                "seconds": round(time.monotonic() - start, 3),
            }
        # The summary is last: nobody comes back to a slide that has one.
        remove(folder.failure)
        remove(folder.work)
        write_json(folder.summary, facts)
    except Exception as error:  # noqa: BLE001 -- one bad slide does not stop the rest
        return _failed(job, error)
    return Outcome(job.name, "done")


def _failed(job: SlideJob, error: Exception) -> Outcome:
    sentence = str(error) if isinstance(error, CpnnError) else f"{job.name}: {reason_of(error)}."
    if _is_stopping(error):
        return Outcome(job.name, "stop", sentence)
    return note_failure(job, sentence, "" if isinstance(error, CpnnError) else traceback.format_exc()[-4000:])


def note_failure(job: SlideJob, sentence: str, trace: str = "") -> Outcome:
    """Write why a slide failed."""
    folder = job.folder
    try:
        remove(folder.summary)  # of an earlier run, with other settings
        write_json(folder.failure, {"slide": job.name, "path": job.path, "sentence": sentence, "traceback": trace})
    except CpnnError as error:
        return Outcome(job.name, "stop", str(error))
    return Outcome(job.name, "failed", sentence)


def _is_stopping(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in _STOPPING:
            return True
        error = error.__cause__ or error.__context__
    return False


def _facts(job: SlideJob, model: CPNN, client_of: ClientOf | None) -> dict[str, Any]:
    """Map a slide, write its files, and return its summary."""
    folder, settings = job.folder, job.settings
    with open_slide(job.path, None if math.isnan(job.mpp) else job.mpp) as slide:
        slide.require_mappable()
        overview = overview_of(slide, settings.mapping.tissue)
        map_key = key_of([slide.identity, slide.mpp, model.fingerprint, map_facts(settings.mapping)])
        cmap = _kept(folder, map_key)
        if cmap is None:
            remove(folder.summary)
            cmap = _map(slide, model, job, client_of)
            cmap.provenance["slide"] = job.name
            cmap.save(folder.map)
        values, flags = quality_of(slide, cmap, model, overview, settings)
        if any(map(model.has_seen, (job.name, Path(job.path).name))):
            flags.insert(0, "The model was trained on this slide, so that its map shows nothing of new slides.")
        table = _table(cmap, slide, job)
        write_csv(table, folder.table, CohortError, index=False)
        picture = slide.thumbnail(settings.thumbnail_px)
        write_picture(picture, folder.thumbnail)
        write_picture(dominant_picture(picture, slide, cmap), folder.dominant)
        write_small(small_rows(cmap), folder.small, map_key)
        return {
            "format": _FORMAT,
            "slide": job.name,
            "key": job.key,
            "map_key": map_key,
            "software": f"napari-cpnn {__version__}",
            "file": {"path": job.path, "identity": slide.identity, "shape": list(slide.shape[:2]), "mpp": slide.mpp},
            "model": {"title": model.title, "fingerprint": model.fingerprint, "trained_on": model.trained_on},
            "grid": cmap.grid.to_dict(),
            "quality": values,
            "flags": flags,
            "composition": _composition(table, cmap),
        }


def _map(slide: Slide, model: CPNN, job: SlideJob, client_of: ClientOf | None) -> CompositionMap:
    stride = job.mapping.stride_um or model.patch.size_um
    is_large = Grid.over(slide.shape[:2], slide.require_mappable(), stride).n_cells > job.settings.split_patches
    if client_of is None or not is_large:
        return predict_map(slide, model, settings=job.mapping)
    with client_of() as client:
        return predict_map(slide, model, settings=job.mapping, client=client)


def map_facts(settings: MappingSettings) -> dict[str, Any]:
    """Return the settings that a map depends on; device and batches change nothing but rounding on other processors."""
    return {"stride_um": settings.stride_um, "precision": settings.precision, "tissue": settings.tissue.to_dict()}


def _kept(folder: SlideFolder, map_key: str) -> CompositionMap | None:
    """Return the map of an earlier run if only other things than the map have changed."""
    before = folder.read()
    if before is None or before.get("map_key") != map_key:
        return None
    try:
        return CompositionMap.load(folder.map)
    except CpnnError:
        return None


def _table(cmap: CompositionMap, slide: Slide, job: SlideJob) -> pd.DataFrame:
    """Return what the map says of the whole slide and of its regions, as :func:`summarise_regions`, with ``sd``."""
    mpp = slide.require_mappable()
    height, width = (n * m for n, m in zip(slide.shape[:2], mpp, strict=True))
    whole = Region.from_vertices(WHOLE, [(0, 0), (0, width), (height, width), (height, 0)])
    regions = [whole, *(read_regions(job.regions, mpp) if job.regions else [])]
    settings, tables = RegionSettings(interval=job.settings.interval), []
    for region in regions:
        try:
            table = summarise_regions(cmap, [region], job.settings.gene_list, settings)
        except RegionsError as error:
            if region is whole:
                raise
            warnings.warn(str(error), CpnnWarning, stacklevel=2)
            continue
        tables.append(table.assign(sd=_spread(table, cmap, region)))
    return pd.concat(tables, ignore_index=True)


def _spread(table: pd.DataFrame, cmap: CompositionMap, region: Region) -> list[float]:
    """Standard deviation over the mapped patches of a region, of shares and of expression; NaN for others."""
    cells, areas = region.cells(cmap.grid)
    inside = cells[(cmap.state[cells[:, 0], cells[:, 1]] == DONE) & (areas > 0)]
    rows = cmap.rows[inside[:, 0] * cmap.grid.shape[1] + inside[:, 1]].astype(np.float64)
    types = dict(zip(cmap.cell_types, range(cmap.n_types), strict=True))
    found = []
    for kind, name in zip(table["kind"], table["name"], strict=True):
        sd = math.nan
        if kind == "share" and name in types:
            sd = float(rows[:, types[name]].std())
        elif kind == "expression":
            weights, programs = rows[:, : cmap.n_types], rows[:, cmap.n_types :]
            sd = float(cmap.decoder.expression(weights, programs, [name]).std())
        found.append(sd)
    return found


def _composition(table: pd.DataFrame, cmap: CompositionMap) -> dict[str, dict[str, float]]:
    shares = table[(table["region"] == WHOLE) & (table["kind"] == "share")].drop_duplicates("name").set_index("name")
    named = shares[["value", "sd", "low", "high"]].set_axis(["mean", "sd", "low", "high"], axis=1)
    values = named.loc[list(cmap.cell_types)].astype(float).to_dict("index")
    return {str(name): {str(key): value for key, value in row.items()} for name, row in values.items()}
