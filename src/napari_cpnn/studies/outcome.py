"""Does an outcome follow from what a slide shows? Nested cross-validation of logistic regressions over patients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from napari_cpnn.arrays import FloatArray, IntArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.studies.per_type import by_patient
from napari_cpnn.studies.roc import Auc, auc, auc_difference
from napari_cpnn.training.bags.typed import grouped_folds

#: Newton steps at most.
_STEPS = 50
#: Texts of values that are no outcome.
_NOTHING = ("", "nan", "none", "na", "<na>", "nat")
#: Ridge penalties tried, in units of the mean square of the singular values of the features.
PENALTIES = tuple(10.0**k for k in np.arange(-3.0, 3.1, 0.75))


@dataclass(frozen=True, eq=False)
class OutcomeStudy:
    """How well each set of features predicts the outcome of patients that it was not fitted to.

    Parameters
    ----------
    table
        One row per set of features: ``auc`` over pairs of patients of one fold, ``low`` and ``high`` (95 %, DeLong,
        patients are the unit),
        ``n_positive``, ``n_negative``, ``n_features``, and ``difference`` from the first set with ``difference_low``
        and ``difference_high`` (paired).
    log_odds
        ``(patients, sets)``, held-out log odds relative to those of the mean patient of each training part, mean over
        repeats.
    positive
        The value of the outcome that is predicted.
    """

    table: pd.DataFrame
    log_odds: pd.DataFrame
    positive: str


def outcome_study(
    features: Mapping[str, FloatArray],
    patients: Sequence[str],
    outcome: Sequence[object],
    n_folds: int = 5,
    n_repeats: int = 5,
    seed: int = 0,
    positive: object | None = None,
) -> OutcomeStudy:
    """Cross-validate a ridge logistic regression of each set of features, folds by patient and stratified by outcome.

    Parameters
    ----------
    features
        ``(S, F)`` by name, rows in the order of ``patients``: the mean of a patient's rows is used. All sets share the
        folds. Features must come from models that have not seen these patients
        (:meth:`~napari_cpnn.training.bags.typed.TypedEnsemble.require_unseen`).
    patients, outcome
        ``(S,)``. Rows without an outcome (None, NaN, empty) are left out; it is the same in all rows of a patient.
    n_folds, n_repeats
        Outer folds, with other folds in each repeat. The penalty is chosen by ``n_folds`` inner folds of each training
        part.
    positive
        Value that is predicted (default: the last of the two in sorted order, so 1 rather than 0).

    Raises
    ------
    TrainingError
        If the outcome has not two values, differs within a patient, or a value has fewer patients than folds.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.studies import outcome_study
    >>> state = np.linspace(-1, 1, 30)[:, None]
    >>> patients, outcome = [f"P{i}" for i in range(30)], ["yes" if value > 0 else "no" for value in state[:, 0]]
    >>> study = outcome_study({"state": state}, patients, outcome, n_repeats=1)
    >>> study.positive, bool(study.table.loc["state", "auc"] > 0.95)
    ('yes', True)
    """
    rows, labels, chosen = _outcome_of(patients, outcome, positive)
    kept = [str(patients[i]) for i in rows]
    names = np.unique(kept)
    y = np.array([labels[name] for name in names], dtype=np.intp)
    if min(int(y.sum()), int((1 - y).sum())) < n_folds:
        raise TrainingError(
            f"The outcome has {int(y.sum())} patients with {chosen} and {int((1 - y).sum())} without; cross-validation "
            f"in {n_folds} folds needs {n_folds} of each, so add patients or take fewer folds."
        )
    folds = [grouped_folds(names, n_folds, seed + k, y) for k in range(n_repeats)]
    held_out = {}
    for name, table in features.items():
        X = by_patient(np.asarray(table, dtype=np.float64)[rows], kept)
        if not np.isfinite(X).all():
            raise TrainingError(f"The features {name!r} have missing values; leave out such slides or columns.")
        held_out[name] = np.stack([_held_out(X, y, fold, seed) for fold in folds])
    reference = next(iter(held_out))
    found = []
    for name, values in held_out.items():
        one: Auc = auc(values, y, folds=folds)
        difference = auc_difference(values, held_out[reference], y, folds)
        found.append(
            {
                "features": name,
                "auc": one.value,
                "low": one.low,
                "high": one.high,
                "n_positive": one.n_positive,
                "n_negative": one.n_negative,
                "n_features": int(features[name].shape[1]),
                **dict(zip(("difference", "difference_low", "difference_high"), difference, strict=True)),
            }
        )
    result = pd.DataFrame(found).set_index("features")
    means = {name: values.mean(axis=0) for name, values in held_out.items()}
    return OutcomeStudy(result, pd.DataFrame(means, index=pd.Index(names, name="patient")), str(chosen))


def feature_sets(
    expression: FloatArray,
    shares: FloatArray,
    cell_types: Sequence[str],
    clinical: pd.DataFrame | None = None,
) -> dict[str, FloatArray]:
    """Features of an outcome study: typed expression, its sum over types (bulk), abundance, clinical ones, each type.

    Parameters
    ----------
    expression
        ``(S, C, G)``, log1p of counts per 10,000 of each type, predicted.
    shares
        ``(S, C)``, predicted.
    clinical
        ``(S, columns)``: numbers are taken as they are (missing ones become the mean), texts as one column per value.
    """
    whole = np.log1p(np.einsum("sc,scg->sg", shares, np.expm1(expression)))
    sets = {
        "typed expression": expression.reshape(len(expression), -1),
        "bulk": whole,
        "abundance": np.log(np.maximum(shares, 1e-4)),
    }
    if clinical is not None and clinical.shape[1]:
        numbers = clinical.select_dtypes("number").astype(float)
        texts = clinical.drop(columns=numbers.columns)
        parts = [numbers.fillna(numbers.mean()).fillna(0.0)]
        if texts.shape[1]:
            parts.append(pd.get_dummies(texts.astype(str), dtype=float))
        sets["clinical"] = pd.concat(parts, axis=1).to_numpy(dtype=np.float64)
    sets |= {f"typed: {name}": expression[:, c] for c, name in enumerate(cell_types)}
    return sets


def _outcome_of(
    patients: Sequence[str], outcome: Sequence[object], positive: object | None
) -> tuple[IntArray, dict[str, int], object]:
    rows = [i for i, value in enumerate(outcome) if str(value).strip().lower() not in _NOTHING]
    texts = {i: _text(outcome[i]) for i in rows}
    values = sorted(set(texts.values()))
    if len(values) != 2:
        raise TrainingError(
            f"The outcome needs two values, and has {len(values)}: {', '.join(values[:5])}; choose another column, or "
            "leave out what is neither."
        )
    chosen = values[1] if positive is None else _text(positive)
    if chosen not in values:
        raise TrainingError(f"No patient has the outcome {chosen}; there are {' and '.join(values)}.")
    labels: dict[str, int] = {}
    for i in rows:
        label, name = int(texts[i] == chosen), str(patients[i])
        if labels.setdefault(name, label) != label:
            raise TrainingError(f"The patient {name} has two outcomes; a patient has one.")
    return np.asarray(rows, dtype=np.intp), labels, chosen


def _text(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _held_out(X: FloatArray, y: IntArray, fold: IntArray, seed: int) -> FloatArray:
    found = np.empty(len(y))
    for k in range(int(fold.max()) + 1):
        train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        inner = grouped_folds(train.astype(str), int(fold.max()) + 1, seed + 100 + k, y[train])
        losses = np.zeros(len(PENALTIES))
        for j in range(int(inner.max()) + 1):
            fit, check = train[inner != j], train[inner == j]
            for i, odds in enumerate(_logistic(X[fit], y[fit], X[check], PENALTIES)):
                losses[i] += np.logaddexp(0, np.where(y[check] == 1, -odds, odds)).sum()
        # Among equally good ones, the strongest: small differences are chance.
        best = int(np.flatnonzero(losses <= losses.min() * (1 + 1e-6)).max())
        # Relative to the mean patient: the share of positives in a training part is the higher, the fewer are held out,
        # so that log odds with intercepts order the folds the wrong way round where features say little.
        both = np.r_[X[test], X[train].mean(axis=0, keepdims=True)]
        odds = next(_logistic(X[train], y[train], both, PENALTIES[best : best + 1]))
        found[test] = odds[:-1] - odds[-1]
    return found


def _logistic(X: FloatArray, y: IntArray, new: FloatArray, penalties: Sequence[float]) -> Iterator[FloatArray]:
    """Yield log odds of the new rows by ridge logistic regressions on standardised features, one for each penalty.

    Exact for any number of features: in their row space there are no more coordinates than patients.
    """
    center, spread = X.mean(axis=0), X.std(axis=0)
    inverse = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-9 * (1 + np.abs(center)))
    scaled = (X - center) * inverse
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    keep = values > 1e-12 * max(float(values.max()), 1e-300)
    scale = np.sqrt(values[keep])
    Z, unit = vectors[:, keep] * scale, max(float(values.sum()) / min(X.shape), 1e-12)
    rows = ((new - center) * inverse) @ scaled.T @ vectors[:, keep] / scale
    design, target = np.c_[Z, np.ones(len(Z))], y.astype(np.float64)
    start = np.zeros(design.shape[1])
    start[-1] = np.log((target.sum() + 0.5) / (len(y) - target.sum() + 0.5))
    for penalty in penalties:
        b = _newton(design, target, np.r_[np.full(Z.shape[1], penalty * unit), 1e-8], start)
        yield rows @ b[:-1] + b[-1]


def _newton(design: FloatArray, y: FloatArray, ridge: FloatArray, start: FloatArray) -> FloatArray:
    """Coefficients of a ridge logistic regression, by Newton steps that are halved until the loss falls."""

    def loss(b: FloatArray) -> float:
        linear = design @ b
        return float((np.logaddexp(0, linear) - y * linear).sum() + (ridge * b**2).sum() / 2)

    b, value = start, loss(start)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ b, -500, 500)))
        gradient = design.T @ (p - y) + ridge * b
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        part = 1.0
        while (after := loss(b - part * step)) > value and part > 1e-6:
            part /= 2
        b, gain, value = b - part * step, value - after, after
        if gain <= 1e-10 * (1 + abs(value)):
            break
    return b
