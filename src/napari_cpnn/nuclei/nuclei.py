"""Nuclei of a slide: centres, outlines, classes, in arrays that bear millions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray, IntArray
from napari_cpnn.errors import NucleiError
from napari_cpnn.geometry import Rect
from napari_cpnn.nuclei.outlines import Outlines
from napari_cpnn.nuclei.searched import Searched
from napari_cpnn.nuclei.store import NUCLEI, Arrays
from napari_cpnn.texts import counted
from napari_cpnn.untrusted import reason_of

if TYPE_CHECKING:
    from napari_cpnn.slides import Slide

#: Class code of a nucleus without a class.
NO_CLASS = -1
#: Side of the squares of the spatial index in um; a view of single cells has a few dozen of them.
_SQUARE_UM = 64.0
_MOST_SQUARES = 4_000_000
#: Beyond this no slide reaches, in um.
_FARTHEST_UM = 1e6
_MOST_CLASSES = 32_000


@dataclass(frozen=True, eq=False)
class Nuclei:
    """Nuclei of a slide.

    Arrays are read-only. A nucleus with an outline of 20 vertices takes about 180 bytes, one without 14.

    Parameters
    ----------
    centers_um
        ``(N, 2)`` float32, slide micrometres ``(y, x)``.
    outlines
        Outline of each nucleus, or ``None``.
    classes
        Class of each nucleus: codes ``(N,)`` int16 into ``class_names``, -1 for none; or ``None``.
    class_names
        Names of the classes.
    source
        Where the nuclei are from: a detector and its version, or a file.
    searched
        Where they were looked for; ``None``: everywhere. A subset keeps it.

    Raises
    ------
    NucleiError
        If a centre is not a number, lengths differ, or a class has no name.

    Examples
    --------
    >>> nuclei = nc.Nuclei([[10.0, 20.0], [30.0, 45.0]], classes=[0, 1], class_names=["tumour", "immune"])
    >>> len(nuclei), nuclei.class_counts()
    (2, {'tumour': 1, 'immune': 1})
    >>> nuclei.query((0, 0, 20, 40)).tolist()
    [0]
    """

    centers_um: Float32Array
    outlines: Outlines | None = None
    classes: npt.NDArray[np.int16] | None = None
    class_names: tuple[str, ...] = ()
    source: str = ""
    searched: Searched | None = None

    def __post_init__(self) -> None:
        centers = np.asarray(self.centers_um)
        centers = centers.reshape(0, 2) if centers.size == 0 else centers
        if centers.ndim != 2 or centers.shape[1] != 2:
            raise NucleiError(f"Centres of nuclei must have the shape (N, 2), not {centers.shape}.")
        wrong = ~(np.abs(centers) <= _FARTHEST_UM).all(axis=1)  # NaN, too
        if wrong.any():
            raise NucleiError(
                f"{int(wrong.sum()):,} of {counted_nuclei(len(centers))} have no possible centre: a coordinate is not "
                f"a number, or farther away than any slide reaches; the first is number {int(np.argmax(wrong))}."
            )
        if self.outlines is not None and len(self.outlines) != len(centers):
            raise NucleiError(f"There are {counted(len(self.outlines), 'outline')} for {counted_nuclei(len(centers))}.")
        object.__setattr__(self, "centers_um", _frozen(np.ascontiguousarray(centers, dtype=np.float32)))
        object.__setattr__(self, "class_names", tuple(str(name) for name in self.class_names))
        object.__setattr__(self, "source", str(self.source))
        if self.classes is not None:
            object.__setattr__(self, "classes", _frozen(_checked_codes(self.classes, self.class_names, len(centers))))

    def __len__(self) -> int:
        return len(self.centers_um)

    def __repr__(self) -> str:
        return f"<Nuclei: {self.summary}>"

    @property
    def summary(self) -> str:
        """Number, whether there are outlines, classes and source, in words."""
        parts = [counted_nuclei(len(self)), "centres only" if self.outlines is None else "with outlines"]
        if self.classes is not None:
            parts.append(f"classes {', '.join(self.class_names)}")
        return ", ".join([*parts, self.source] if self.source else parts)

    @classmethod
    def joined(cls, parts: Sequence[Nuclei], source: str = "") -> Nuclei:
        """Return the nuclei of several, which have outlines all or none, and no classes."""
        centers = np.concatenate([np.empty((0, 2), np.float32), *(part.centers_um for part in parts)])
        outlines = [part.outlines for part in parts if part.outlines is not None]
        return cls(centers, Outlines.joined(outlines) if outlines else None, source=source)

    @property
    def n_bytes(self) -> int:
        """Memory of the arrays in bytes, without the spatial index."""
        arrays: list[npt.NDArray[Any]] = [self.centers_um, *([] if self.classes is None else [self.classes])]
        if self.outlines is not None:
            arrays += [self.outlines.vertices_um, self.outlines.starts]
        return sum(array.nbytes for array in arrays)

    def class_of(self, index: int) -> str:
        """Return the class of a nucleus; empty without one."""
        code = NO_CLASS if self.classes is None else int(self.classes[index])
        return "" if code == NO_CLASS else self.class_names[code]

    def class_counts(self) -> dict[str, int]:
        """Return the number of nuclei of each class, in the order of ``class_names``; those without are left out."""
        if self.classes is None:
            return {}
        counts = np.bincount(self.classes[self.classes >= 0], minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def areas_um2(self) -> FloatArray:
        """Return the areas of the outlines ``(N,)`` in um2; :class:`NucleiError` for centres only."""
        if self.outlines is None:
            raise NucleiError("These nuclei are centres only; an area needs outlines.")
        return self.outlines.areas_um2()

    def subset(self, index: npt.ArrayLike) -> Nuclei:
        """Return the nuclei with these numbers, or where a mask ``(N,)`` is true, with all that belongs to them."""
        given = np.asarray(index)
        if given.dtype == bool and given.shape != (len(self),):
            raise NucleiError(f"A mask of {given.shape} does not fit {len(self):,} nuclei.")
        numbers: IntArray = np.flatnonzero(given) if given.dtype == bool else given.astype(np.intp).reshape(-1)
        if numbers.size and not (-len(self) <= numbers.min() and numbers.max() < len(self)):
            raise NucleiError(f"There are {len(self):,} nuclei, numbered from 0.")
        numbers = numbers % max(len(self), 1)
        return Nuclei(
            self.centers_um[numbers],
            None if self.outlines is None else self.outlines.subset(numbers),
            None if self.classes is None else self.classes[numbers],
            self.class_names,
            self.source,
            self.searched,
        )

    def query(self, bounds_um: Rect | Sequence[float]) -> IntArray:
        """Return the numbers of the nuclei whose centre lies in a rectangle, in ascending order.

        Parameters
        ----------
        bounds_um
            A :class:`~napari_cpnn.geometry.Rect`, or ``y0, x0, y1, x1`` in um; the upper bounds are excluded.
        """
        rect = bounds_um if isinstance(bounds_um, Rect) else Rect(*(float(v) for v in bounds_um))
        found = self._index.candidates(rect)
        y, x = self.centers_um[found].T
        inside = (y >= rect.y0) & (y < rect.y1) & (x >= rect.x0) & (x < rect.x1)
        return np.sort(found[inside])

    def on_slide(self, slide: Slide) -> BoolArray:
        """Return which nuclei have their centre on a slide, ``(N,)``."""
        height, width = (n * m for n, m in zip(slide.shape[:2], slide.require_mappable(), strict=True))
        y, x = self.centers_um.T
        on: BoolArray = (y >= 0) & (x >= 0) & (y <= height) & (x <= width)
        return on

    def require_on(self, slide: Slide) -> None:
        """Raise a :class:`NucleiError` if nuclei lie outside a slide; says how many, and the usual reason."""
        off = int((~self.on_slide(slide)).sum())
        if off:
            raise NucleiError(
                f"{off:,} of {counted_nuclei(len(self))} lie outside {slide.label}; are their coordinates in "
                "pixels of another image, or is the pixel size wrong?"
            )

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write to a ``.zarr`` folder, atomically; :class:`NucleiError` if that fails."""
        return NUCLEI.write(*self.content(), Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Nuclei:
        """Read what :meth:`save` wrote; :class:`NucleiError` if it is missing, damaged or something else."""
        return cls.of_content(*NUCLEI.read(path), path)

    def content(self) -> tuple[Arrays, dict[str, Any]]:
        """Return arrays by name, and the names of classes and the source, as they are stored."""
        arrays: Arrays = {"centers_um": self.centers_um}
        if self.outlines is not None:
            arrays |= {"vertices_um": self.outlines.vertices_um, "starts": self.outlines.starts}
        if self.classes is not None:
            arrays["classes"] = self.classes
        card: dict[str, Any] = {"source": self.source, "class_names": list(self.class_names)}
        if self.searched is not None:
            arrays["searched"] = self.searched.state
            card["searched_um_per_px"] = list(self.searched.um_per_px)
        return arrays, card

    @classmethod
    def of_content(cls, arrays: Arrays, card: dict[str, Any], path: str | Path) -> Nuclei:
        """Return the nuclei of what :meth:`content` gave; :class:`NucleiError`, which names the file, if damaged."""
        try:
            outlines = Outlines(arrays["vertices_um"], arrays["starts"]) if "starts" in arrays else None
            names = tuple(map(str, card["class_names"]))
            searched = Searched(arrays["searched"], card["searched_um_per_px"]) if "searched" in arrays else None
            return cls(arrays["centers_um"], outlines, arrays.get("classes"), names, str(card["source"]), searched)
        except (NucleiError, KeyError, TypeError, ValueError) as error:
            raise NucleiError(f"{path} is damaged: {reason_of(error)}.") from error

    @cached_property
    def _index(self) -> _Squares:
        return _Squares.of(self.centers_um)


@dataclass(frozen=True)
class _Squares:
    """Numbers of the nuclei, ordered by the square of a lattice they lie in: 4 bytes per nucleus."""

    origin: tuple[float, float]
    side: float
    shape: tuple[int, int]
    order: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, centers: Float32Array) -> _Squares:
        if not len(centers):
            return cls((0.0, 0.0), _SQUARE_UM, (1, 1), np.empty(0, np.int32), np.zeros(2, np.int64))
        low, high = centers.min(axis=0).astype(np.float64), centers.max(axis=0).astype(np.float64)
        side = max(_SQUARE_UM, float(np.sqrt(np.prod(high - low + 1) / _MOST_SQUARES)))
        shape = tuple((np.floor((high - low) / side).astype(int) + 1).tolist())
        places = np.floor((centers - low) / side).astype(np.int64)
        keys = places[:, 0] * shape[1] + places[:, 1]
        order = np.argsort(keys, kind="stable").astype(np.int32)
        starts = np.searchsorted(keys[order], np.arange(shape[0] * shape[1] + 1))
        return cls((float(low[0]), float(low[1])), side, (shape[0], shape[1]), order, starts)

    def candidates(self, rect: Rect) -> npt.NDArray[np.intp]:
        """Numbers of the nuclei in all squares that a rectangle touches."""
        bounds = np.array([[rect.y0, rect.x0], [rect.y1, rect.x1]])
        first, last = (
            np.floor((bounds - self.origin) / self.side).clip([[0, 0], [-1, -1]], np.array(self.shape)).astype(int)
        )
        rows, cols = zip(first, np.minimum(last, np.array(self.shape) - 1), strict=True)
        parts = [
            self.order[self.starts[row * self.shape[1] + cols[0]] : self.starts[row * self.shape[1] + cols[1] + 1]]
            for row in range(rows[0], rows[1] + 1)
            if cols[1] >= cols[0]
        ]
        return np.concatenate([np.empty(0, np.int32), *parts]).astype(np.intp)


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Read-only view; the caller's own array stays writable."""
    view = array.view()
    view.setflags(write=False)
    return view


def counted_nuclei(n: int) -> str:
    """Return a number of nuclei as text."""
    return f"{n:,} nucleus" if n == 1 else f"{n:,} nuclei"


def _checked_codes(classes: npt.ArrayLike, names: tuple[str, ...], n: int) -> npt.NDArray[np.int16]:
    codes = np.asarray(classes)
    if codes.shape != (n,):
        raise NucleiError(f"There are classes of shape {codes.shape} for {n:,} nuclei.")
    if len(names) > _MOST_CLASSES:
        raise NucleiError(f"There are {len(names):,} names of classes, more than {_MOST_CLASSES:,}.")
    if n and (codes.min() < NO_CLASS or codes.max() >= len(names)):
        raise NucleiError(f"Classes of nuclei must be numbers of {counted(len(names), 'name')}, or -1 for none.")
    return np.ascontiguousarray(codes, dtype=np.int16)
