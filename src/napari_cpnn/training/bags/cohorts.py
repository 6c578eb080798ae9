"""Bags and bulk counts of a cohort: from its manifest to what training and evaluation take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_cpnn.bulk import read_bulk
from napari_cpnn.errors import TrainingError
from napari_cpnn.progress import Progress, no_progress, part, titled
from napari_cpnn.slides import Slide, open_slide
from napari_cpnn.training.bags.bags import Bags
from napari_cpnn.training.bags.features import BagReader

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_cpnn.cohort import Cohort

BagBy = Literal["sample", "patient", "slide"]


def read_cohort_bags(cohort: Cohort, reader: BagReader, by: BagBy = "sample", progress: Progress = no_progress) -> Bags:
    """Read the features of all slides of a cohort; slides of a sample (patient) are one bag.

    Raises
    ------
    SlideError
        If a slide cannot be read or has no tissue; the message names it.

    Examples
    --------
    >>> from napari_cpnn.training.bags import BagReader, read_cohort_bags
    >>> import pandas as pd
    >>> pd.DataFrame({"slide": [folder / "slide.tiff"], "sample": "S1"}).to_csv("one.csv", index=False)
    >>> reader = BagReader(nc.SlideLevelSettings(encoder="colour", patch=nc.PatchSpec(32, 2.0)))
    >>> read_cohort_bags(nc.read_cohort("one.csv"), reader).names.tolist()
    ['S1']
    """
    table = cohort.table
    paths, sizes = table["path"].to_dict(), table["mpp"].astype(float).to_dict()
    patients = {bag: str(table.loc[names[0], "patient"]) for bag, names in cohort.bags(by).items()}
    bags, parts = cohort.bags(by), []
    for i, (bag, names) in enumerate(bags.items()):
        with ExitStack() as opened:  # of one bag at a time: a cohort may have more files than a process may open
            slides = [opened.enter_context(_open(str(paths[name]), float(sizes[name]))) for name in names]
            its = titled(part(progress, i / len(bags), (i + 1) / len(bags)), f"bag {i + 1} of {len(bags)}")
            parts.append(reader.read({bag: slides}, patients, its))
    return Bags.of(
        [one.features for one in parts],
        list(bags),
        [patients[bag] for bag in bags],
        [one.centers_um for one in parts],
    )


def cohort_bulk(
    cohort: Cohort, by: BagBy = "sample", path: str | Path | None = None, values: Literal["counts", "tpm"] = "counts"
) -> AnnData:
    """Read the bulk counts of a cohort: one table with a row per bag, or the files that its column ``bulk`` names.

    A file with one sample is that of its bag, whatever its name; of others, the row with the name of the bag is taken.

    Raises
    ------
    TrainingError
        If a bag has no sample.
    """
    import anndata as ad

    if path is not None:
        return read_bulk(path, values=values)
    tables: dict[str, AnnData] = {}
    parts = []
    for bag, names in cohort.bags(by).items():
        files = list(_files(cohort, names))
        if len(files) != 1:
            raise TrainingError(f"{bag} has {len(files)} bulk tables in the manifest instead of one; or give --bulk.")
        if files[0] not in tables:
            tables[files[0]] = read_bulk(files[0], values=values)
        table = tables[files[0]]
        row = table if table.n_obs == 1 else table[[str(one) == bag for one in table.obs_names]]
        if row.n_obs != 1:
            raise TrainingError(f"{files[0]} has no sample {bag}.")
        row = row.copy()
        row.obs_names = [bag]
        parts.append(row)
    joined = ad.concat(parts, join="inner")
    if not joined.n_vars:
        raise TrainingError("The bulk tables of the cohort have no gene in common.")
    return joined


def _open(path: str, mpp: float) -> Slide:
    return open_slide(path, mpp=None if math.isnan(mpp) else mpp)


def _files(cohort: Cohort, names: tuple[str, ...]) -> Iterator[str]:
    yield from dict.fromkeys(str(one) for one in cohort.table.loc[list(names), "bulk"] if str(one))
