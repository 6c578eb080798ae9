"""Features of the patches of many slides, grouped in bags: what slide-level models learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import Float32Array, FloatArray, Int64Array
from napari_cpnn.errors import SettingsError


@dataclass(frozen=True)
class Bags:
    """Features of N patches of S bags; the patches of a bag are consecutive rows.

    A bag is what has one label: a slide, or the slides of a sample or patient.

    Parameters
    ----------
    features
        ``(N, F)`` float32, features of each patch.
    starts
        ``(S + 1,)`` int64; the patches of bag i are the rows ``starts[i]`` to ``starts[i + 1]``. No bag is empty.
    names
        ``(S,)`` unique names of the bags.
    patients
        ``(S,)`` names of their patients. A patient is never split between training and test.
    centers_um
        ``(N, 2)`` float64, centres of the patches in their slide, in um as ``(y, x)``.
    log_areas
        ``(N,)`` float32, logarithm of the area of the nucleus of each patch over one area that all patches of a bag
        share; None where patches count alike.

    Raises
    ------
    SettingsError
        If the shapes do not fit together, a bag is empty, a name comes twice, or a feature is not a finite number.

    Examples
    --------
    >>> import numpy as np
    >>> from napari_cpnn.training.bags import Bags
    >>> one, other = np.zeros((3, 2)), np.ones((1, 2))
    >>> bags = Bags.of([one, other], ["slide 1", "slide 2"], ["patient 1", "patient 2"])
    >>> bags.means()
    array([[0., 0.],
           [1., 1.]])
    >>> bags.subset([1]).names.tolist()
    ['slide 2']
    """

    features: Float32Array
    starts: Int64Array
    names: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    centers_um: FloatArray
    log_areas: Float32Array | None = None

    def __post_init__(self) -> None:
        for name, dtype in (("features", np.float32), ("starts", np.int64), ("centers_um", np.float64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=dtype))
        if self.log_areas is not None:
            object.__setattr__(self, "log_areas", _checked_areas(self.log_areas, len(self.features)))
        for name in ("names", "patients"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.str_))
        n_patches, n_bags = len(self.features), len(self.names)
        if self.features.ndim != 2 or self.centers_um.shape != (n_patches, 2):
            raise SettingsError(
                f"Bags need features (N, F) and centres (N, 2), not {self.features.shape} and {self.centers_um.shape}."
            )
        if self.patients.shape != (n_bags,) or self.names.ndim != 1:
            raise SettingsError(f"Bags need one patient per bag: {n_bags} bags, {self.patients.size} patients.")
        if self.starts.shape != (n_bags + 1,) or self.starts[0] != 0 or self.starts[-1] != n_patches:
            raise SettingsError(f"The starts of {n_bags} bags must be {n_bags + 1} numbers from 0 to {n_patches}.")
        if empty := [str(name) for name, n in zip(self.names, np.diff(self.starts), strict=True) if n <= 0]:
            raise SettingsError(f"No patch is in {', '.join(empty[:5])}; leave such slides out.")
        if len(set(self.names.tolist())) < n_bags:
            raise SettingsError("Two bags have the same name; each needs a name of its own.")
        if not np.isfinite(self.features).all():
            raise SettingsError("Some features are not finite numbers; compute them again.")

    @classmethod
    def of(
        cls,
        features: Sequence[npt.ArrayLike],
        names: Sequence[str],
        patients: Sequence[str] | None = None,
        centers_um: Sequence[npt.ArrayLike] | None = None,
        log_areas: Sequence[npt.ArrayLike] | None = None,
    ) -> Bags:
        """Stack one array of features ``(n_i, F)`` per bag; without patients, each bag is a patient of its own."""
        arrays = [np.asarray(one, dtype=np.float32) for one in features]
        if not arrays or len(arrays) != len(names):
            raise SettingsError(f"Bags need features and a name each, not {len(arrays)} arrays and {len(names)} names.")
        if len({one.shape[1:] for one in arrays}) > 1 or arrays[0].ndim != 2:
            raise SettingsError("All bags need features of the same number, as (patches, features).")
        places = [np.zeros((len(one), 2)) for one in arrays] if centers_um is None else centers_um
        return cls(
            np.concatenate(arrays),
            np.cumsum([0, *(len(one) for one in arrays)]),
            np.asarray(names, dtype=np.str_),
            np.asarray(names if patients is None else patients, dtype=np.str_),
            np.concatenate([np.asarray(one, dtype=np.float64).reshape(-1, 2) for one in places]),
            None if log_areas is None else np.concatenate([np.asarray(one, dtype=np.float32) for one in log_areas]),
        )

    def __len__(self) -> int:
        return len(self.names)

    @property
    def n_features(self) -> int:
        """Number of features F."""
        return int(self.features.shape[1])

    @property
    def sizes(self) -> Int64Array:
        """``(S,)`` number of patches of each bag."""
        return np.diff(self.starts)

    @property
    def owners(self) -> Int64Array:
        """``(N,)`` index of the bag of each patch."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.sizes)

    def bag(self, i: int) -> Float32Array:
        """Features ``(n_i, F)`` of bag ``i``."""
        return self.features[self.starts[i] : self.starts[i + 1]]

    def means(self) -> FloatArray:
        """``(S, F)`` mean features of each bag, summed in float64."""
        return np.stack([self.bag(i).mean(axis=0, dtype=np.float64) for i in range(len(self))])

    def subset(self, index: npt.ArrayLike) -> Bags:
        """Bags of these indices, in this order, or where a mask ``(S,)`` is true."""
        chosen = np.asarray(index)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        if not chosen.size:
            raise SettingsError("No bag is chosen.")
        rows = np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in chosen])
        starts = np.cumsum([0, *self.sizes[chosen]])
        areas = None if self.log_areas is None else self.log_areas[rows]
        return Bags(
            self.features[rows], starts, self.names[chosen], self.patients[chosen], self.centers_um[rows], areas
        )


def _checked_areas(log_areas: npt.ArrayLike, n_patches: int) -> Float32Array:
    areas = np.asarray(log_areas, dtype=np.float32)
    if areas.shape != (n_patches,) or not np.isfinite(areas).all():
        raise SettingsError(f"Bags need one finite area for each of {n_patches} patches, or none.")
    return areas
