"""Models of typed expression: the penalty is chosen by inner patients, and each inner fold gives a member."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.counts import require_genes
from napari_cpnn.errors import TrainingError
from napari_cpnn.prototypes import TypedExpression
from napari_cpnn.settings import TypedSettings
from napari_cpnn.storage import whole_file
from napari_cpnn.training.bags import Bags
from napari_cpnn.training.bags.typed import linear, modulated
from napari_cpnn.training.bags.typed.composition import TileComposition, composition_of
from napari_cpnn.training.bags.typed.folds import grouped_folds
from napari_cpnn.training.bags.typed.labels import TypedLabels
from napari_cpnn.training.bags.typed.linear import BagLinear
from napari_cpnn.training.bags.typed.modulated import Modulated
from napari_cpnn.training.bags.typed.scaling import Scaling
from napari_cpnn.untrusted import reading, to_path

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class TypedEnsemble:
    """Members trained on different patients; a prediction is their mean.

    Parameters
    ----------
    members
        One per inner fold.
    cell_types, genes
        Names.
    penalty
        Median over genes of the penalties that the inner patients chose.
    patients, bags
        Names of the patients and bags that it was trained on.
    settings
        Of the training.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.training.bags.typed import TypedEnsemble
    >>> [name for name in ("predict", "shares", "parts", "save") if hasattr(TypedEnsemble, name)]
    ['predict', 'shares', 'parts', 'save']
    """

    members: tuple[BagLinear | Modulated, ...]
    cell_types: tuple[str, ...]
    genes: tuple[str, ...]
    penalty: float
    patients: tuple[str, ...]
    bags: tuple[str, ...]
    settings: TypedSettings

    def predict(self, bags: Bags) -> FloatArray:
        """Expression ``(S, C, G)``, log1p of counts per 10,000 of the type: mean over members."""
        total = sum(member.predict(bags) for member in self.members)
        return np.asarray(total / len(self.members))

    def predict_sd(self, bags: Bags) -> FloatArray:
        """Standard deviation ``(S, C, G)`` of :meth:`predict` over members."""
        return np.asarray(np.std([member.predict(bags) for member in self.members], axis=0))

    def shares(self, bags: Bags) -> FloatArray:
        """Composition ``(S, C)``: mean over members; rows sum to 1."""
        return np.asarray(np.mean([member.shares(bags) for member in self.members], axis=0))

    def typed_expression(self, bags: Bags) -> TypedExpression:
        """Predictions in the form of :func:`~napari_cpnn.deconvolve_typed`, which can be saved and given to an outcome.

        ``counts`` are those of a sample of 10,000; ``relative`` is relative to the mean over these bags; confidences
        are 0, since nothing was measured.
        """
        import pandas as pd

        values, shares = np.expm1(np.maximum(self.predict(bags), 0.0)), self.shares(bags)
        profiles = np.maximum(values.mean(axis=0), 1e-9)
        types, genes = pd.Index(self.cell_types, name="cell_type"), pd.Index(self.genes, name="gene")
        nothing = pd.DataFrame(0.0, index=genes, columns=types)
        return TypedExpression(
            (shares[..., None] * values).swapaxes(0, 1).astype(np.float32),
            (values / profiles).swapaxes(0, 1).astype(np.float32),
            pd.DataFrame(profiles / 1e4, index=types, columns=genes),
            pd.DataFrame(shares, index=bags.names.astype(object), columns=types),
            nothing,
            nothing.copy(),
            self.patients,
        )

    def parts(self, features: Float32Array, cell_type: str, gene: str) -> FloatArray:
        """Part ``(N,)`` of each patch of a bag ``(N, F)`` in the expression of a gene in a type.

        Their mean is exactly the prediction of ``bag-linear``, and the log ratio to the prototype of the typed head
        (before it is bounded): "which patches make CAF FAP high".
        """
        c, g = self.require_type(cell_type), int(require_genes(self.genes, [gene], "The model")[0])
        return np.asarray(np.mean([member.parts(features, c, g) for member in self.members], axis=0))

    def require_type(self, cell_type: str) -> int:
        """Index of a cell type; :class:`TrainingError` if the model has no such type."""
        if cell_type not in self.cell_types:
            raise TrainingError(f"The model has no cell type {cell_type!r}; it has {', '.join(self.cell_types)}.")
        return self.cell_types.index(cell_type)

    def require_unseen(self, patients: Iterable[str], bags: Iterable[str] = ()) -> None:
        """Raise an error if the model was trained on one of the patients or bags.

        Raises
        ------
        TrainingError
            With the names.
        """
        seen = sorted({str(p) for p in patients} & {*self.patients} | {str(b) for b in bags} & {*self.bags})
        if seen:
            raise TrainingError(
                f"The model was trained on {', '.join(seen[:3])}{' and others' if len(seen) > 3 else ''}, so its "
                "predictions there say nothing about other patients; give slides of other patients, or cross-validate."
            )

    def save(self, path: str | Path) -> None:
        """Write a ``.safetensors`` file, whole or not at all."""
        from safetensors.numpy import save_file

        arrays: dict[str, FloatArray] = {}
        for i, member in enumerate(self.members):
            part = member.arrays() | {
                "composition.center": member.composition.scaling.center,
                "composition.rotation": member.composition.scaling.rotation,
                "composition.weights": member.composition.weights,
                "composition.bias": member.composition.bias,
            }
            if member.composition.level is not None:
                part["composition.level"] = member.composition.level
            arrays |= {f"{i}.{name}": np.ascontiguousarray(values) for name, values in part.items()}
        card = {
            "format": _FORMAT,
            "cell_types": self.cell_types,
            "genes": self.genes,
            "penalty": self.penalty,
            "patients": self.patients,
            "bags": self.bags,
            "settings": self.settings.to_dict(),
            "n_members": len(self.members),
        }
        with whole_file(Path(path), TrainingError) as temporary:
            save_file(arrays, temporary, {"napari_cpnn_typed": json.dumps(card)})


def load_typed(path: str | Path) -> TypedEnsemble:
    """Read a file of :meth:`TypedEnsemble.save`.

    Raises
    ------
    TrainingError
        If the file is missing, damaged, of another kind or of a newer format.

    Examples
    --------
    >>> from napari_cpnn.training.bags.typed import load_typed
    >>> load_typed("absent.safetensors")
    Traceback (most recent call last):
    napari_cpnn.errors.TrainingError: The model absent.safetensors does not exist.
    """
    source = to_path(path, TrainingError)
    if not source.is_file():
        raise TrainingError(f"The model {source} does not exist.")
    from safetensors import safe_open

    with reading(source, TrainingError, "it is damaged; train it again."):
        try:
            with safe_open(source, "numpy") as file:
                text = (file.metadata() or {}).get("napari_cpnn_typed")
                if text is None:
                    raise TrainingError(f"{source} holds no model of typed expression; make it with `train --head`.")
                card = json.loads(text)
                if int(card["format"]) > _FORMAT:
                    raise TrainingError(f"{source} was written by a newer version of napari-cpnn; update napari-cpnn.")
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            settings = TypedSettings.from_dict(card["settings"])
            members = tuple(_member(arrays, i, settings) for i in range(int(card["n_members"])))
            names = {key: tuple(str(n) for n in card[key]) for key in ("cell_types", "genes", "patients", "bags")}
            return TypedEnsemble(members, penalty=float(card["penalty"]), settings=settings, **names)
        except (KeyError, ValueError, TypeError) as error:
            raise TrainingError(f"{source} is damaged; train it again.") from error


def _member(arrays: dict[str, FloatArray], i: int, settings: TypedSettings) -> BagLinear | Modulated:
    own = {name.split(".", 1)[1]: a for name, a in arrays.items() if name.startswith(f"{i}.")}
    inner = {name.removeprefix("composition."): own.pop(name) for name in list(own) if name.startswith("composition.")}
    scaling = Scaling(inner["center"], inner["rotation"])
    composition = TileComposition(scaling, inner["weights"], inner["bias"], inner.get("level"))
    return (BagLinear if settings.head == "bag-linear" else Modulated)(composition, **own)


def train_typed(bags: Bags, labels: TypedLabels, settings: TypedSettings | None = None) -> TypedEnsemble:
    """Train a model of typed expression; seconds for hundreds of bags, since bags are summed up by mean features.

    Parameters
    ----------
    bags
        Features of patches. Bags of a patient are never in both parts of an inner fold.
    labels
        In the order of the bags.
    settings
        Head, rank, folds.

    Raises
    ------
    TrainingError
        If labels are of other bags, or there are fewer patients than inner folds.

    Examples
    --------
    >>> import inspect
    >>> from napari_cpnn.training.bags.typed import train_typed
    >>> list(inspect.signature(train_typed).parameters)
    ['bags', 'labels', 'settings']
    """
    settings = settings or TypedSettings()
    require_same(bags, labels)
    folds = grouped_folds(bags.patients, settings.n_inner, settings.seed)
    head: type[BagLinear | Modulated] = BagLinear if settings.head == "bag-linear" else Modulated
    grid = np.array(linear.PENALTIES if settings.head == "bag-linear" else modulated.PENALTIES)
    parts, errors = [], []
    for fold in range(settings.n_inner):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        one, other = ((bags.subset(rows), labels.subset(rows)) for rows in (train, test))
        composition = composition_of(*one, settings)
        parts.append((*one, composition))
        errors.append(head.errors(one, other, settings, composition))
    # A gene that no slide tells is shrunk to its mean, and does not decide for the others.
    best = grid[np.sum(errors, axis=0).argmin(axis=0)]
    members = [head.fit(*part[:2], settings, part[2], best) for part in parts]
    return TypedEnsemble(
        tuple(members),
        labels.cell_types,
        labels.genes,
        float(np.median(best)),
        tuple(sorted({str(p) for p in bags.patients})),
        tuple(str(name) for name in bags.names),
        settings,
    )


def require_same(bags: Bags, labels: TypedLabels) -> None:
    """Raise an error unless the labels are of these bags, in this order."""
    if bags.names.tolist() != labels.names.tolist():
        raise TrainingError(
            f"Labels must be of the same bags in the same order: {len(bags)} bags, {len(labels)} labels; "
            "take the bags' order for the bulk."
        )
