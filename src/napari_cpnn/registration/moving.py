"""What is registered to a slide: another slide, or a table of spots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_cpnn.errors import RegistrationError
from napari_cpnn.geometry import Mpp
from napari_cpnn.slides import SLIDE_SUFFIXES, Slide, open_slide
from napari_cpnn.spots import estimate_mpp, find_spots, implied_mpp, read_spots
from napari_cpnn.untrusted import to_path

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True, eq=False)
class Moving:
    """A slide or spots that are registered to a slide.

    Attributes
    ----------
    name
        What it is called.
    content
        The slide, or the table of spots.
    mpp
        Pixel size ``(y, x)`` of its positions; 1 where that of spots is unknown.
    """

    name: str
    content: Slide | AnnData
    mpp: Mpp

    @property
    def slide(self) -> Slide | None:
        """The slide, if it is one."""
        return self.content if isinstance(self.content, Slide) else None

    @property
    def spots(self) -> AnnData | None:
        """The spots, if it is a table of spots."""
        return None if isinstance(self.content, Slide) else self.content

    @classmethod
    def of_spots(cls, spots: AnnData, name: str) -> Moving:
        """Take spots in memory; their pixel size is that of their array, or of the file."""
        return cls(name, spots, estimate_mpp(spots) or implied_mpp(spots) or (1.0, 1.0))

    @classmethod
    def of_slide(cls, slide: Slide) -> Moving:
        """Take an open slide with a pixel size."""
        return cls(slide.name, slide, slide.require_mappable())


def open_moving(
    path: str | Path,
    positions: str | Path | None = None,
    library: str | None = None,
    mpp: float | Mpp | None = None,
) -> Moving:
    """Open what is to be registered: a slide, or anything that :func:`~napari_cpnn.read_spots` reads.

    Parameters
    ----------
    positions, library
        As for :func:`~napari_cpnn.read_spots`.
    mpp
        Pixel size of a slide, if its file does not say.

    Raises
    ------
    RegistrationError
        If nothing is there.
    SlideError, PixelSizeError, SpotsError
        If it cannot be read, or a slide has no pixel size.

    Examples
    --------
    >>> from napari_cpnn.registration import open_moving
    >>> open_moving(folder / "slide.tiff").slide.mpp, open_moving(folder / "spots.h5ad").spots.n_obs
    ((0.5, 0.5), 387)
    """
    file = to_path(path, RegistrationError)
    if not file.exists():
        raise RegistrationError(f"There is no file or folder {file}.")
    is_folder = file.is_dir() or file.suffix.lower() == ".zarr"
    is_slide = not find_spots(file) if is_folder else file.suffix.lower() in SLIDE_SUFFIXES
    if is_slide and positions is None and library is None:
        return Moving.of_slide(open_slide(file, mpp=mpp))
    return Moving.of_spots(read_spots(file, positions, library=library, check=False), file.name)
