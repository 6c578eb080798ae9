"""Comparison of groups of patients: means with intervals, tests, and the false discovery rate over cell types."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_cpnn.arrays import FloatArray

_COLUMNS = [
    "type", "group", "patients", "mean", "low", "high", "difference", "difference_low", "difference_high", "p",
]  # fmt: skip


def patient_means(shares: pd.DataFrame, patients: pd.Series, areas: pd.Series) -> pd.DataFrame:
    """Mean over the slides of each patient, weighted by mapped area: slides of a patient are no independent samples.

    Parameters
    ----------
    shares
        Slides x cell types.
    patients, areas
        Patient and mapped area of each slide, by the same index.

    Examples
    --------
    >>> import pandas as pd
    >>> from napari_cpnn.cohort_run import patient_means
    >>> shares = pd.DataFrame({"T": [0.2, 0.6]}, index=["a", "b"])
    >>> areas = pd.Series([3.0, 1.0], shares.index)
    >>> float(patient_means(shares, pd.Series("P1", shares.index), areas).loc["P1", "T"].round(3))
    0.3
    """
    weighted = shares.mul(areas, axis=0).groupby(patients, sort=False).sum(min_count=1)
    return weighted.div(areas.groupby(patients, sort=False).sum(), axis=0)


def mean_interval(values: npt.ArrayLike, coverage: float = 0.95) -> tuple[float, float, float]:
    """Mean and t interval of independent values; the interval is NaN of fewer than two."""
    from scipy import stats

    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not known.size:
        return math.nan, math.nan, math.nan
    mean = float(known.mean())
    if known.size < 2:
        return mean, math.nan, math.nan
    half = float(stats.t.ppf((1 + coverage) / 2, known.size - 1) * known.std(ddof=1) / math.sqrt(known.size))
    return mean, mean - half, mean + half


def adjusted(p: npt.ArrayLike) -> FloatArray:
    """P values adjusted by Benjamini and Hochberg (1995); NaN stay NaN and do not count.

    Examples
    --------
    >>> from napari_cpnn.cohort_run import adjusted
    >>> [round(float(q), 3) for q in adjusted([0.01, 0.04, 0.03, 0.5])]
    [0.04, 0.053, 0.053, 0.5]
    """
    values = np.asarray(p, dtype=np.float64)
    result = np.full(values.shape, math.nan)
    known = np.flatnonzero(np.isfinite(values))
    order = known[np.argsort(values[known], kind="stable")]
    scaled = values[order] * len(order) / np.arange(1, len(order) + 1)
    result[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return result


def compare_groups(means: pd.DataFrame, groups: pd.Series, coverage: float = 0.95) -> pd.DataFrame:
    """Compare the composition of groups of patients.

    Parameters
    ----------
    means
        Patients x cell types (:func:`patient_means`).
    groups
        Group of each patient; patients without one are left out.
    coverage
        Of the intervals.

    Returns
    -------
    DataFrame
        One row per cell type and group: ``type``, ``group``, ``patients``, ``mean``, ``low``, ``high`` (t interval over
        patients, within 0 to 1), and of the type ``difference`` (second less first group), ``difference_low``,
        ``difference_high``, ``p`` and ``q``. Two groups: Welch's t test and its interval; more: the test of Kruskal and
        Wallis, without a difference. Groups of one patient have a mean only. ``q``: Benjamini-Hochberg over the types.

    Examples
    --------
    >>> import pandas as pd
    >>> from napari_cpnn.cohort_run import compare_groups
    >>> means = pd.DataFrame({"T": [0.1, 0.2, 0.5, 0.6]}, index=list("abcd"))
    >>> table = compare_groups(means, pd.Series(["x", "x", "y", "y"], means.index))
    >>> table[["group", "patients"]].to_numpy().tolist(), float(table["difference"].iloc[0].round(2))
    ([['x', 2], ['y', 2]], 0.4)
    """
    groups = groups.reindex(means.index).dropna()
    names = list(dict.fromkeys(groups.sort_values(kind="stable")))
    rows, tests = [], {}
    for cell_type in means.columns:
        parts = [means.loc[groups.index[groups == name], cell_type].dropna().to_numpy() for name in names]
        tests[cell_type] = _test([part for part in parts if len(part) > 1], coverage)
        for name, part in zip(names, parts, strict=True):
            mean, low, high = mean_interval(part, coverage)
            possible = np.clip((low, high), 0.0, 1.0).tolist()
            rows.append((cell_type, name, len(part), mean, *possible, *tests[cell_type]))
    table = pd.DataFrame(rows, columns=_COLUMNS)
    of_types = dict(zip(tests, adjusted([test[3] for test in tests.values()]), strict=True))
    return table.assign(q=table["type"].map(of_types).astype(float))


def _test(parts: list[FloatArray], coverage: float) -> tuple[float, float, float, float]:
    """Return difference, its interval, and p of groups with at least two values each."""
    from scipy import stats

    nothing = (math.nan,) * 4
    if len(parts) < 2 or all(np.ptp(part) == 0 for part in parts):
        return nothing
    if len(parts) > 2:
        return (*nothing[:3], float(stats.kruskal(*parts).pvalue))
    first, second = parts
    found = stats.ttest_ind(second, first, equal_var=False)
    low, high = found.confidence_interval(coverage)
    return float(second.mean() - first.mean()), float(low), float(high), float(found.pvalue)
