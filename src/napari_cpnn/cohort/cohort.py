"""The manifest of a cohort: one row per slide, checked as a whole before any work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from napari_cpnn.cohort.checks import checked
from napari_cpnn.cohort.rows import read_rows
from napari_cpnn.errors import CohortError

BagBy = Literal["sample", "patient", "slide"]

#: Problems that the message of an error names; its ``problems`` hold all.
_NAMED = 3


@dataclass(frozen=True, eq=False)
class Cohort:
    """Slides with their samples and patients.

    Attributes
    ----------
    table : DataFrame
        One row per slide. The index is the unique name of the slide. Columns: ``path`` (absolute), ``sample``,
        ``patient``, ``mpp`` (um per pixel; NaN: of the file), ``bulk`` (absolute path of the bulk table, or ``""``),
        then all other columns of the manifest (groups, outcomes, clinical), as numbers where all of their cells are.
    source : Path or None
        The manifest.
    groups : tuple of str
        Columns that are constant within a patient, by which reports compare: those called ``group`` or ``group_...``,
        and those that the reader named.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = pd.DataFrame({"slide": [folder / "slide.tiff"], "patient": "P1", "group": "treated"})
    >>> rows.to_csv("slides.csv", index=False)
    >>> cohort = nc.read_cohort("slides.csv")
    >>> cohort.table.loc["slide", "group"], cohort.patients(), cohort.groups
    ('treated', {'P1': ('slide',)}, ('group',))
    """

    table: pd.DataFrame
    source: Path | None = None
    groups: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.table)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the slides, in the order of the manifest."""
        return tuple(self.table.index)

    def patients(self) -> dict[str, tuple[str, ...]]:
        """Return the names of the slides of each patient, in the order of the manifest."""
        return self.bags("patient")

    def bags(self, by: BagBy = "sample") -> dict[str, tuple[str, ...]]:
        """Return the names of the slides that belong together: of a sample, of a patient, or each slide by itself."""
        if by not in ("sample", "patient", "slide"):
            raise CohortError(f"Slides can be joined by 'sample', 'patient' or 'slide', not by {by!r}.")
        if by == "slide":
            return {name: (name,) for name in self.names}
        found: dict[str, list[str]] = {}
        for name, bag in zip(self.names, self.table[by], strict=True):
            found.setdefault(bag, []).append(name)
        return {bag: tuple(names) for bag, names in found.items()}

    def subset(self, names: Iterable[str]) -> Cohort:
        """Return the cohort of some slides, in the order of this one.

        Raises
        ------
        CohortError
            If the cohort has no slide of a name, or no name is given.
        """
        wanted = dict.fromkeys([names] if isinstance(names, str) else names)
        unknown = [name for name in wanted if name not in self.table.index]
        if unknown or not wanted:
            raise CohortError(f"The cohort has no slide {unknown[0]!r}." if unknown else "No slides are chosen.")
        return Cohort(self.table[self.table.index.isin(list(wanted))], self.source, self.groups)


def read_cohort(path: str | Path, root: str | Path | None = None, groups: Sequence[str] = ()) -> Cohort:
    r"""Read and check a manifest.

    Parameters
    ----------
    path
        CSV, TSV or text table (UTF-8 or UTF-16; comma, semicolon or tab), Excel (``.xlsx``, first sheet, with
        openpyxl), or an ``.h5ad`` whose ``obs`` has a row per slide. Headings, in any case: ``slide`` (the file; or
        ``path``, and then ``slide`` is the name), ``name``, ``sample``, ``patient``, ``mpp``, ``bulk``; only the file
        is required. A name that is missing is that of the file, a missing column ``sample`` is the name of the slide,
        and a missing column ``patient`` is the sample.
    root
        Folder to which relative paths refer; ``None``: that of the manifest.
    groups
        Further columns that must be the same for all slides of a patient, and by which reports compare.

    Raises
    ------
    CohortError
        If the manifest cannot be read, or with all problems of its rows at once (``problems``), each with the number
        of its row: files that are missing or cannot be read, two rows of one slide, two slides of one name, a sample
        of two patients, a patient in two groups, two bulk tables of one sample, pixel sizes that make no sense.

    Examples
    --------
    >>> from pathlib import Path
    >>> _ = Path("bad.csv").write_text("slide,patient,mpp\nno.svs,P1,big\n")
    >>> nc.read_cohort("bad.csv")
    Traceback (most recent call last):
    ...
    napari_cpnn.errors.CohortError: bad.csv has 2 problems: row 2: there is no file no.svs; row 2: 'big' is not ...
    """
    path = Path(path).expanduser()
    rows = read_rows(path)
    folder = path.absolute().parent if root is None else Path(root).expanduser().absolute()
    table, kept, problems = checked(rows, folder, tuple(groups))
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        more = f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise CohortError(f"{path} has {count}: {'; '.join(problems[:_NAMED])}{more}.", problems=tuple(problems))
    return Cohort(table, path.absolute(), kept)
