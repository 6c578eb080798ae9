"""Models of typed expression as models that map slides: the part of each patch in the genes of a cell type."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from napari_cpnn.arrays import FloatArray
from napari_cpnn.errors import TrainingError
from napari_cpnn.models import CPNN, build_model
from napari_cpnn.settings import SlideLevelSettings
from napari_cpnn.training.bags.features import model_settings
from napari_cpnn.training.bags.typed.composition import TileComposition
from napari_cpnn.training.bags.typed.ensemble import TypedEnsemble
from napari_cpnn.training.bags.typed.linear import BagLinear
from napari_cpnn.training.bags.typed.modulated import Modulated

#: Bound of programs, in log1p CP10k: tissue unlike all of the training can have any, which half precision cannot keep.
_LARGEST = 1e3


def typed_name(gene: str, cell_type: str) -> str:
    """Name of a gene in a cell type on maps.

    Examples
    --------
    >>> from napari_cpnn.training.bags.typed import typed_name
    >>> typed_name("FAP", "CAFs")
    'FAP in CAFs'
    """
    return f"{gene} in {cell_type}"


def map_model(ensemble: TypedEnsemble, cell_type: str) -> CPNN:
    """Return a model whose maps show the part of each patch in the expression of a cell type.

    Its genes are those of the type (:func:`typed_name`), it has no cell types, and its programs are the factors U of
    all members, so that another gene of the type needs no new prediction. Values are in log1p CP10k of the type:

    ``bag-linear``
        ``h_i U_c V_cg + b_cg``; the mean over the patches of a slide is exactly its prediction.
    ``typed``
        ``log1p(t) + t / (1 + t) m_icg``, with ``t`` the expression of the type without its modulation, and ``m_icg``
        the part of the patch in its log modulation. To first order in the modulation, the mean over a slide is its
        prediction, but for one factor per slide and member: the amount of the type is taken relative to its mean over
        the patches of the *training*, since the slide's own mean is known only when all of it is mapped.

    Parameters
    ----------
    ensemble
        Of :func:`train_typed`, or of a file.
    cell_type
        One of its cell types.

    Raises
    ------
    TrainingError
        If there is no such type, or the model is of an earlier version that does not hold the mean amounts.

    Examples
    --------
    >>> import inspect
    >>> from napari_cpnn.training.bags.typed import map_model
    >>> list(inspect.signature(map_model).parameters)
    ['ensemble', 'cell_type']
    """
    c = ensemble.require_type(cell_type)
    factors = [_factors(member, c) for member in ensemble.members]
    settings = ensemble.settings
    frozen = SlideLevelSettings(
        encoder=settings.encoder, encoder_weights=settings.encoder_weights, patch=settings.patch, head="ridge"
    )
    genes = [typed_name(gene, cell_type) for gene in ensemble.genes]
    bias = np.mean([one.bias for one in factors], axis=0)
    model = build_model(model_settings(frozen), genes, [], None, bias)
    if (n_features := model.n_own_features) != factors[0].left.shape[0]:
        raise TrainingError(
            f"The model was trained on {factors[0].left.shape[0]} features, but its encoder {settings.encoder} gives "
            f"{n_features}."
        )
    model.head = PartsHead(factors, c)  # type: ignore[assignment]  # the interface of a linear head
    model.provenance |= {
        "name": f"typed expression of {cell_type}",
        "training_data": [{"slide": name} for name in ensemble.bags],
        "typed": {"cell_type": cell_type, "head": settings.head, "n_patients": len(ensemble.patients)},
    }
    model.title = str(model.provenance["name"])
    return model.eval().requires_grad_(False)


class _Factors:
    """``left (F, r)`` of centred features, ``right (r, G)``, ``bias (G,)`` of a member; the amounts of its type."""

    def __init__(
        self, center: FloatArray, left: FloatArray, right: FloatArray, bias: FloatArray, amounts: TileComposition | None
    ) -> None:
        # Programs in units of the gene that they move most: they are kept in half precision.
        unit = np.maximum(np.abs(right).max(axis=1), 1e-12)
        self.center, self.left, self.right, self.bias = center, left * unit, right / unit[:, None], bias
        self.amounts = amounts


def _factors(member: BagLinear | Modulated, c: int) -> _Factors:
    if isinstance(member, BagLinear):
        center = member.composition.scaling.center
        bias = member.bias[c] + center @ member.left[c] @ member.right[c]
        return _Factors(center, member.left[c], member.right[c], bias, None)
    if member.composition.level is None:
        raise TrainingError("The model is of an earlier version, which cannot be mapped; train it again.")
    plain = 1e4 * member.profiles[c] * np.exp(member.offset[c])
    right = member.right[c] * (plain / (1 + plain))
    return _Factors(member.center, member.left[c], right, np.log1p(plain), member.composition)


class PartsHead(nn.Module):
    """Features -> no weights, and the factors of all members as programs ``(N, M r)``, in double precision inside."""

    center: Tensor
    left: Tensor
    loadings: Tensor
    bias: Tensor
    turn: Tensor | None
    offset: Tensor | None

    def __init__(self, factors: list[_Factors], c: int) -> None:
        super().__init__()
        n = len(factors)
        self.register_buffer("center", _tensor([one.center for one in factors]))
        self.register_buffer("left", _tensor([one.left for one in factors]))
        self.register_buffer("loadings", _tensor(np.concatenate([one.right for one in factors]) / n).float())
        self.register_buffer("bias", _tensor(np.mean([one.bias for one in factors], axis=0)).float())
        turn, offset = [], []
        for one in factors:
            if one.amounts is not None and one.amounts.level is not None:
                scaling, weights = one.amounts.scaling, one.amounts.weights[:, c]
                own = scaling.rotation * weights if scaling.rotation.ndim == 1 else scaling.rotation @ weights
                turn.append(own)
                offset.append((one.amounts.bias[c] - scaling.center @ own, one.amounts.level[c]))
        #: Linear predictor of the amount of the type, (M, F) and (M, 2) with its level; None for bag-linear.
        self.register_buffer("turn", _tensor(turn) if turn else None)
        self.register_buffer("offset", _tensor(offset) if turn else None)

    @property
    def n_programs(self) -> int:
        """Number of factors of all members."""
        return len(self.loadings)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        values = features.double()
        programs = torch.einsum("nmf,mfr->nmr", values[:, None] - self.center, self.left)
        if self.turn is not None and self.offset is not None:
            linear = values @ self.turn.T + self.offset[:, 0]
            amount = torch.where(linear > 0, 1 + linear, linear.clamp(max=0).exp())
            programs = programs * (amount / self.offset[:, 1])[..., None]
        bounded = programs.flatten(1).clamp(-_LARGEST, _LARGEST)
        return features.new_zeros((len(features), 0)), bounded.float()

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """T (none), alpha, beta and V of the decoder."""
        n_genes = len(self.bias)
        return self.bias.new_zeros((0, n_genes)), self.bias.new_ones(n_genes), self.bias, self.loadings


def _tensor(values: object) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float64))
