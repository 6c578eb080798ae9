"""How far to trust each prediction: intervals, the finest scale with signal, and where a gene is high or low.

All numbers come from spots that the models of a cross-validation had not seen
(:func:`napari_cpnn.studies.fit_trust`), and are stored with the model.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_cpnn.arrays import FloatArray
from napari_cpnn.models.trust_ranges import N_LEVELS, NO_SCALE, NOT_TESTED, OPEN, TABLE_ROWS, table_values

if TYPE_CHECKING:
    import pandas as pd

#: From this calibration slope down, values spread more than measured.
WIDE = 0.5

#: Groups of genes by their held-out correlation over spots: a group begins at each of these.
PCC_GROUPS = tuple(round(0.1 + 0.05 * i, 2) for i in range(11))

#: Shares of the tissue that can be marked as high (low), increasing.
MARKED_SHARES = tuple(round(0.1 + 0.05 * i, 2) for i in range(9))

#: Scales that differ by less are the same, on arrays whose pitches were measured.
_SAME_SCALE = 0.9

#: Number of scales at which marking is calibrated.
N_SCALES = 6

Side = Literal["high", "low"]


@dataclass(frozen=True)
class Selection:
    """Part of the tissue that can be marked as high (low) for a gene.

    Parameters
    ----------
    scale_um
        Diameter of the neighbourhoods over which predictions are averaged, um.
    radius_um
        Its radius; 0 for single spots.
    share
        Share of the tissue that is marked, where these averages are largest (smallest).
    false_share
        Share of marked places that were not above (below) the median of the section, on held-out sections.
    """

    scale_um: float
    radius_um: float
    share: float
    false_share: float


class Trust(nn.Module):
    """Calibrated uncertainty of the genes and cell types of a model.

    A *quantity* is a gene (log1p of counts per 10,000) or a cell type (share); genes come first.

    Parameters
    ----------
    n_quantities
        Q, genes and cell types.

    Attributes
    ----------
    centers
        ``(N_LEVELS, Q)``, increasing: the median prediction of each level.
    spread
        ``(2, Q)``: the expected absolute error is the first plus the second times the prediction, and at least a
        quarter of its mean, which is ``floor`` ``(Q,)``.
    lower, upper
        ``(N_LEVELS, Q)``, distances of the interval's ends from a prediction, in units of its expected error: not
        positive and not negative, so that a prediction lies in its own interval.
    most
        ``(Q,)``, largest measurement.
    scale_um
        ``(Q,)``, finest scale in um at which the lower bound of the cross-validated correlation is above 0.3;
        `NO_SCALE` where there is none, `NOT_TESTED` where it is not known.
    pcc
        ``(Q,)``, mean correlation over spots of held-out slides; 0 where it is not known.
    n_spots
        ``()``, number of calibration spots.
    slope
        ``(Q,)``, calibration slope: of measurements on predictions, within held-out slides. Below 1, predictions spread
        more than what was measured. `OPEN` where it is not known.
    marked_um
        ``(N_SCALES,)``, increasing scales in um at which places can be marked as high or low; 0 where not known.
    false_share
        ``(2, N_SCALES, len(PCC_GROUPS), len(MARKED_SHARES))``: for high and low, the share of wrong places among those
        that are marked, for genes of a group; 1 where it is not known.
    """

    centers: Tensor
    spread: Tensor
    floor: Tensor
    lower: Tensor
    upper: Tensor
    most: Tensor
    scale_um: Tensor
    pcc: Tensor
    n_spots: Tensor
    slope: Tensor
    marked_um: Tensor
    false_share: Tensor

    def __init__(self, n_quantities: int) -> None:
        super().__init__()
        q = n_quantities
        for name, shape in (
            ("centers", (N_LEVELS, q)), ("spread", (2, q)), ("floor", (q,)), ("lower", (N_LEVELS, q)),
            ("upper", (N_LEVELS, q)), ("most", (q,)), ("scale_um", (q,)), ("pcc", (q,)), ("n_spots", ()),
        ):  # fmt: skip
            self.register_buffer(name, torch.zeros(shape))
        for name, values in (_no_slope(q) | _no_marking()).items():
            self.register_buffer(name, values)

    def not_known(self, stored: Collection[str]) -> dict[str, Tensor]:
        """Return values that say "not known" for what calibrations of earlier versions lack.

        Parameters
        ----------
        stored
            Names of the stored values, each ending with that of a buffer.
        """
        values = _no_slope(self.scale_um.shape[0]) | _no_marking()
        known = {name for name in values if any(other.endswith(name) for other in stored)}
        return {name: value for name, value in values.items() if name not in known}

    @classmethod
    def from_table(cls, table: npt.NDArray[np.float32]) -> Trust:
        """Create from the result of :meth:`to_table`."""
        trust = cls(table.shape[1])
        for name, rows in table_values(table).items():
            buffer, values = trust.get_buffer(name), torch.from_numpy(np.array(rows, dtype=np.float32))
            buffer.copy_(values[0, 0] if buffer.ndim == 0 else values.reshape(buffer.shape))
        return trust

    def to_table(self) -> npt.NDArray[np.float32]:
        """Return the values of each quantity as one table ``(3 N_LEVELS + 8, Q)``, as stored in a map."""
        q = self.scale_um.shape[0]
        buffers = (self.get_buffer(name) for name in TABLE_ROWS)
        rows = (buffer.cpu().numpy().reshape(-1, 1 if buffer.ndim == 0 else q) for buffer in buffers)
        return np.concatenate([np.broadcast_to(row, (len(row), q)) for row in rows])

    def regrouped(self, n_genes: int, types: Sequence[int | None]) -> Trust:
        """Return the calibration of the genes and of other cell types.

        Parameters
        ----------
        n_genes
            Number of genes.
        types
            For each of the other types the index of the type with its shares; None where there is none, so that
            nothing is known of it.
        """
        columns = [*range(n_genes), *(0 if one is None else n_genes + one for one in types)]
        result = Trust.from_table(self.to_table()[:, columns])
        lost = [n_genes + i for i, one in enumerate(types) if one is None]
        for name, value in (("most", OPEN), ("scale_um", NOT_TESTED), ("pcc", 0.0)):
            result.get_buffer(name)[lost] = value
        result.marked_um.copy_(self.marked_um)
        result.false_share.copy_(self.false_share)
        return result

    def ranking(self, names: Sequence[Hashable], patch_um: float = 0.0) -> pd.DataFrame:
        """List quantities by how far to trust them: the finest trusted scale first, then the highest correlation.

        Parameters
        ----------
        names
            Names of the Q quantities.
        patch_um
            As for :meth:`scale`.

        Returns
        -------
        DataFrame
            By name: ``trusted_um`` (infinity where there is no trusted scale, NaN where it was not tested) and
            ``held_out_pcc``.

        Raises
        ------
        ValueError
            If there is not one name for each quantity.

        Examples
        --------
        >>> import torch
        >>> from napari_cpnn.models import Trust
        >>> trust = Trust(2)
        >>> _ = trust.scale_um.copy_(torch.tensor([-1.0, 400.0]))
        >>> trust.ranking(["A", "B"])["trusted_um"].to_dict()
        {'B': 400.0, 'A': inf}
        """
        import pandas as pd

        scales = [self.scale(quantity, patch_um) for quantity in range(len(self.scale_um))]
        values = {"trusted_um": scales, "held_out_pcc": self.pcc.double().cpu().numpy()}
        table = pd.DataFrame(values, index=pd.Index(list(names), dtype=object))
        return table.sort_values(["trusted_um", "held_out_pcc"], ascending=[True, False], kind="stable")

    def has_interval(self, quantity: int) -> bool:
        """Return whether a quantity was measured at enough spots to calibrate its interval."""
        return float(self.most[quantity]) < OPEN

    def scale(self, quantity: int, patch_um: float = 0.0) -> float:
        """Return the finest trusted scale in um; infinity if there is none, NaN if it was not tested.

        Scales are multiples of the distance of the calibration spots, which may be smaller than a patch of the model;
        ``patch_um`` is the size of a patch, which is the finest scale of its maps.
        """
        scale = float(self.scale_um[quantity])
        return {NO_SCALE: math.inf, NOT_TESTED: math.nan}.get(scale, max(scale, patch_um))

    @property
    def knows_slopes(self) -> bool:
        """False for a calibration of an earlier version."""
        return bool((self.slope < OPEN).any())

    def slope_of(self, quantity: int) -> float:
        """Return the calibration slope; NaN if it is not known."""
        slope = float(self.slope[quantity])
        return math.nan if slope >= OPEN else slope

    def spread_note(self, quantity: int) -> str:
        """Return a clause on values that spread more than measured; empty for others, and if it is not known."""
        slope = self.slope_of(quantity)
        return f"values spread more than measured (slope {slope:.2f}); read the ranks" if slope < WIDE else ""

    def interval(self, quantity: int, predicted: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the ends of the prediction intervals for a measured spot, of the shape of ``predicted``.

        Between the centres of levels the distances are interpolated. An end below 0 is 0, and one above the largest
        measurement is that; NaN stays NaN.
        """
        values = np.asarray(predicted, dtype=np.float64)
        error = expected_error(values, self._of("spread", quantity), float(self.floor[quantity]))
        centers = self._of("centers", quantity)
        lower, upper = (np.interp(values, centers, self._of(end, quantity)) for end in ("lower", "upper"))
        low = np.maximum(values + lower * error, 0.0)
        # What was never measured is no end, unless it was predicted.
        high = np.minimum(values + upper * error, np.maximum(float(self.most[quantity]), values))
        return np.minimum(low, values), np.maximum(high, values)

    def selection(self, quantity: int, side: Side = "high", fdr: float = 0.1) -> Selection | None:
        """Return what can be marked as high (low) for a gene at a false discovery rate; None if nothing can.

        *High* is above the median of the section, for means over neighbourhoods. The finest calibrated scale is taken
        that is not finer than the gene's trusted scale, and the largest share of the tissue whose false discovery rate
        on held-out sections is at most ``fdr`` (Benjamini-Hochberg with conformal p-values of ranks, after Jin and
        Candes 2023; see docs/methods.md).
        """
        group = np.searchsorted(PCC_GROUPS, float(self.pcc[quantity]) + 1e-9, side="right") - 1
        scale = float(self.scale_um[quantity])
        if group < 0 or scale <= 0:
            return None
        rates = self.false_share[("high", "low").index(side), :, group].double().cpu().numpy()
        for level, (scale_um, rate) in enumerate(zip(self.marked_um.tolist(), rates, strict=True)):
            passed = np.flatnonzero(rate <= fdr)
            if scale_um >= _SAME_SCALE * scale and passed.size:
                radius = scale_um / 2 if level else 0.0
                return Selection(scale_um, radius, MARKED_SHARES[passed[-1]], float(rate[passed[-1]]))
        return None

    def _of(self, name: str, quantity: int) -> FloatArray:
        values: Tensor = getattr(self, name)
        return np.asarray(values[:, quantity].double().cpu().numpy())


def _no_slope(n_quantities: int) -> dict[str, Tensor]:
    return {"slope": torch.full((n_quantities,), OPEN, device="cpu")}


def _no_marking() -> dict[str, Tensor]:
    shape = (2, N_SCALES, len(PCC_GROUPS), len(MARKED_SHARES))
    # On the processor even where a model is built without memory: they may be loaded as they are.
    return {"marked_um": torch.zeros(N_SCALES, device="cpu"), "false_share": torch.ones(shape, device="cpu")}


def n_marked(share: float, n_places: int) -> int:
    """Number of places that are a share of all; at least one."""
    return max(int(share * n_places + 1e-9), 1)


def expected_error(predicted: FloatArray, spread: FloatArray, floor: FloatArray | float) -> FloatArray:
    """Expected absolute error of predictions ``(..., q)``: linear, ``spread (2, q)``, and at least ``floor (q,)``."""
    return np.asarray(np.maximum(spread[0] + spread[1] * predicted, floor))
