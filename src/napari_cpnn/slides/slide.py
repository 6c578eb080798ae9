"""Slides: levels as dask arrays, thread-safe region reads, pixel size and identity."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from napari_cpnn.errors import CpnnWarning, PixelSizeError, SlideError
from napari_cpnn.geometry import Mpp, as_mpp
from napari_cpnn.slides.backends import open_source
from napari_cpnn.slides.backends.arrays import ArraySource
from napari_cpnn.slides.backends.base import Pixels, SourceInfo, background_value
from napari_cpnn.slides.backends.folders import resolve_path
from napari_cpnn.slides.backends.zarr_places import address_of
from napari_cpnn.slides.handles import Handles
from napari_cpnn.slides.identity import content_identity, file_identity
from napari_cpnn.slides.orientation import orientation_notice
from napari_cpnn.slides.pixel_size import choose_mpp
from napari_cpnn.slides.pyramid import CHUNK_PX, Pyramid
from napari_cpnn.untrusted import reading


class _LevelArray:
    """One level with the interface that ``dask.array.from_array`` needs."""

    def __init__(self, slide: Slide, level: int) -> None:
        self._slide, self._level = slide, level
        channels = slide.shape[2]
        self.shape = (*slide.level_shapes[level], *(() if channels == 1 else (channels,)))
        self.dtype = slide.dtype
        self.ndim = len(self.shape)

    def __getitem__(self, index: tuple[slice, ...]) -> Pixels:
        rows, cols = (s.indices(n) for s, n in zip(index, self.shape[:2], strict=False))
        box = self._slide.read_shown(rows[0], cols[0], rows[1] - rows[0], cols[1] - cols[0], self._level)
        return box[:: rows[2], :: cols[2]][(slice(None), slice(None), *index[2:])]


class Slide:
    """A whole-slide image, opened with :func:`open_slide` or :meth:`Slide.from_arrays`.

    Reads are thread-safe. Slides can be pickled; the copy re-opens its file when first read.

    Attributes
    ----------
    path : pathlib.Path or None
        The file, ``None`` for arrays without one and for a slide at an address.
    name : str
        Display name: the file name without its extension.
    backend : str
        Library that reads the file: ``"tifffile"``, ``"OpenSlide"``, ``"Pillow"``, ``"zarr"`` or ``"arrays"``.
    level_shapes : list of (int, int)
        ``(height, width)``, finest first. If the file has no small level, it is followed by overviews computed on
        demand.
    downsamples : list of (float, float)
        Level-0 pixels per level pixel, ``(y, x)``.
    shape : (int, int, int)
        ``(Y, X, channels)`` of level 0.
    dtype : numpy.dtype
        Type of the pixels; ``uint8`` for slides that can be mapped.
    is_rgb : bool
        Whether the channels are red, green and blue.
    mpp : (float, float) or None
        Micrometres per level-0 pixel, ``(y, x)``; ``None`` when unknown.
    properties : dict of str
        Facts about the file for display; never labels, macro images or names.
    identity : str
        Key of the file's content, which changes with the file.

    Examples
    --------
    >>> slide.shape, slide.mpp, len(slide.levels)
    ((12000, 12000, 3), (0.5, 0.5), 3)
    >>> slide.read_region(y=4000, x=3000, height=100, width=200).shape
    (100, 200, 3)
    """

    def __init__(self, handles: Handles, info: SourceInfo, *, name: str, mpp: Mpp | None, identity: str) -> None:
        pyramid = handles.pyramid()
        self._handles = handles
        self._levels: list[Any] | None = None
        self.path = handles.path
        self.name = name
        self.backend = handles.backend
        self._places = [(level, 1) for level in range(len(pyramid.shapes))]  # level and factor of the pyramid
        self.level_shapes = list(pyramid.shapes)
        self.downsamples = list(pyramid.downsamples)
        self.shape = (*pyramid.shapes[0], info.channels)
        self.dtype = info.dtype
        self.is_rgb = info.rgb
        self.mpp = mpp
        self.properties = dict(info.properties)
        self.identity = identity

    @classmethod
    def from_arrays(
        cls,
        levels: Sequence[Any],
        mpp: float | tuple[float, float] | None,
        name: str = "slide",
        path: str | Path | None = None,
    ) -> Slide:
        """Create a slide from a pyramid of arrays that are already open.

        Parameters
        ----------
        levels
            Numpy, dask or zarr arrays, ``(Y, X, 3)`` or ``(Y, X, 4)`` uint8, finest first.
        mpp
            Micrometres per pixel of the first, one number or ``(y, x)``; ``None`` when unknown.
        name
            Display name.
        path
            The file behind the arrays, if any; it determines the slide's identity.
        """
        source = ArraySource(levels)
        file = None if path is None else Path(path)
        handles = Handles(file, ArraySource.backend, Pyramid(source))
        size = None if mpp is None else as_mpp(mpp)
        slide = cls(handles, source.info, name=name, mpp=size, identity="")
        if file is None or not file.is_file():
            facts = (slide.level_shapes, slide.shape, str(slide.dtype))
            slide.identity = content_identity(facts, slide.thumbnail(256).tobytes())
        else:
            slide.identity = file_identity(file, slide.shape)
        return slide

    @property
    def levels(self) -> list[Any]:
        """The pyramid as dask arrays, ``(Y, X, 3)`` uint8 in square chunks of 512, finest first.

        Slides that cannot be mapped keep their layout: ``(Y, X)`` for grey, ``(Y, X, channels)`` otherwise.
        """
        if self._levels is None:
            import dask.array as da

            self._levels = [
                da.from_array(  # type: ignore[no-untyped-call]
                    _LevelArray(self, level),
                    chunks=(CHUNK_PX, CHUNK_PX, *((self.shape[2],) if self.shape[2] > 1 else ())),
                    name=f"slide-{self.identity[:16]}-{level}",
                    meta=np.empty((0,) * (2 + (self.shape[2] > 1)), self.dtype),
                    asarray=False,
                )
                for level in range(len(self.level_shapes))
            ]
        return list(self._levels)

    def read_region(self, y: int, x: int, height: int, width: int, level: int = 0) -> Pixels:
        """Read a box of pixels; pixels outside the slide are white.

        Parameters
        ----------
        y, x
            Upper left corner in pixels of ``level``; may be negative.
        height, width
            Size in pixels of ``level``.
        level
            Index into :attr:`level_shapes`.

        Returns
        -------
        numpy.ndarray
            ``(height, width, 3)`` uint8 for slides that can be mapped.

        Raises
        ------
        SlideError
            If the file cannot be read there.
        """
        return self._read((y, x, height, width), level, shown=False)

    def read_shown(self, y: int, x: int, height: int, width: int, level: int = 0) -> Pixels:
        """Read as :meth:`read_region` for display: unreadable pixels are grey, with one :class:`CpnnWarning`.

        :attr:`levels`, :meth:`thumbnail` and the tissue mask use this, so that a damaged tile does not make the whole
        image fail. A missing slide file still raises :class:`SlideError`.
        """
        pixels = self._read((y, x, height, width), level, shown=True)
        if self._handles.first_damage():
            warnings.warn(f"{self.label} is damaged: unreadable parts are shown in grey.", CpnnWarning, stacklevel=2)
        return pixels

    def _read(self, box: tuple[int, int, int, int], level: int, *, shown: bool) -> Pixels:
        y, x, height, width = box
        if not 0 <= level < len(self.level_shapes):
            raise SlideError(f"{self.label} has {len(self.level_shapes)} levels, so there is no level {level}.")
        if height < 0 or width < 0:
            raise SlideError(f"A region of {width} x {height} px cannot be read.")
        rows, cols = self.level_shapes[level]
        y0, x0 = min(max(y, 0), rows), min(max(x, 0), cols)
        y1, x1 = min(max(y + height, y0), rows), min(max(x + width, x0), cols)
        inside = y1 > y0 and x1 > x0
        if inside:
            self._check_present()
            pyramid = self._handles.pyramid()
            read = pyramid.read_shown if shown else pyramid.read
            number, factor = self._places[level]
            pixels = read(number, y0, x0, y1 - y0, x1 - x0, factor)
            if pixels.shape[:2] == (height, width):
                # Pixels may be a view of the source's cache; the caller gets its own array.
                return pixels if pixels.flags.owndata and pixels.flags.c_contiguous else np.array(pixels, order="C")
        tail = (self.shape[2],) if self.shape[2] > 1 else ()
        out = np.full((height, width, *tail), background_value(self.dtype), self.dtype)
        if inside:
            out[y0 - y : y1 - y, x0 - x : x1 - x] = pixels
        return out

    def _check_present(self) -> None:
        """Raise an error if the file was removed; depending on the system, an open handle would return wrong pixels."""
        if self.path is not None and self.backend != ArraySource.backend and not self.path.exists():
            raise SlideError(f"{self.path} has been moved or deleted since it was opened.")

    def thumbnail(self, max_px: int = 1024) -> npt.NDArray[np.uint8]:
        """Return the whole slide as ``(h, w, 3)`` uint8 with at most ``max_px`` per side.

        Grey is shown as grey; other depths and channels are scaled to the brightest value.
        """
        from napari_cpnn.slides.thumbnail import thumbnail

        return thumbnail(self, max_px)

    def with_mpp(self, mpp: float | tuple[float, float] | None) -> Slide:
        """Return the same slide with another pixel size, sharing the open file."""
        other = copy.copy(self)
        other.mpp = None if mpp is None else as_mpp(mpp)
        return other

    def with_reduced_levels(self) -> Slide:
        """Return the same slide with levels between those of the file, sharing the open file.

        Tiles in JPEG can be decoded at a half, a quarter or an eighth of their size, which is faster than to decode
        and shrink them. The pixels are the means of 2 x 2, 4 x 4 or 8 x 8, as in overviews, but for chroma that the
        file has at half the size. Patches that would be shrunk from a level twice as fine or finer are then read
        from such levels; that changes maps a little, so the slide has another :attr:`identity`.

        Returns
        -------
        Slide
            This slide if there are no such levels: its tiles are not in JPEG, or the file has all of them.

        Examples
        --------
        >>> [down for down, _ in slide.downsamples], [down for down, _ in slide.with_reduced_levels().downsamples][:5]
        ([1.0, 4.0, 16.0], [1.0, 2.0, 4.0, 8.0, 16.0])
        """
        pyramid = self._handles.pyramid()
        places = pyramid.places()
        if all(factor == 1 for _, factor in places):
            return self
        other = copy.copy(self)
        other._levels, other._places = None, places  # noqa: SLF001
        shapes = [pyramid.shapes[level] for level, _ in places]
        other.level_shapes = [(h // f, w // f) for (h, w), (_, f) in zip(shapes, places, strict=True)]
        other.downsamples = [(pyramid.downsamples[n][0] * f, pyramid.downsamples[n][1] * f) for n, f in places]
        other.identity = content_identity((self.identity, "reduced levels"), b"")
        return other

    def require_mappable(self) -> Mpp:
        """Return the pixel size, raising an error if the slide cannot be mapped.

        Raises
        ------
        SlideError
            If the slide is not RGB, or not 8 bit.
        PixelSizeError
            If its pixel size is unknown.
        """
        if not self.is_rgb:
            kind = "grey" if self.shape[2] == 1 else f"an image of {self.shape[2]} channels"
            raise SlideError(f"{self.label} is {kind}; only RGB slides (brightfield) can be mapped.")
        if self.dtype != np.uint8:
            kind = f"{self.dtype.itemsize * 8} bits per sample" + " of another kind" * (self.dtype.itemsize == 1)
            raise SlideError(f"{self.label} has {kind}; only 8-bit RGB slides can be mapped.")
        if self.mpp is None:
            power = self.properties.get("objective power")
            hint = "0.5 for a 20x objective, 0.25 for 40x" if power is None else f"it was scanned at {power}x"
            raise PixelSizeError(f"{self.label} has no pixel size; give mpp in micrometres per pixel ({hint}).")
        return self.mpp

    @property
    def label(self) -> str:
        """Name of the slide in messages: its path or address, or its name."""
        return str(self._handles.address or self.path or self.name)

    def close(self) -> None:
        """Close the file; this slide and its copies cannot be read afterwards."""
        self._handles.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_levels": None}

    def __repr__(self) -> str:
        height, width, channels = self.shape
        mpp = "unknown" if self.mpp is None else f"{self.mpp[1]:.4g} x {self.mpp[0]:.4g}"
        return f"<Slide {self.name!r}, {width} x {height} px, {channels} channels, {mpp} um/px, {self.backend}>"


def open_slide(path: str | Path, mpp: float | tuple[float, float] | None = None) -> Slide:
    """Open a whole-slide image, or a plain image of one.

    Parameters
    ----------
    path
        SVS, (OME-)TIFF, NDPI, MRXS, SCN, VMS, BIF, DICOM (one file of the slide, or its folder), JPEG, PNG; OME-Zarr
        as a folder, as a zip file (``.ozx``, ``.zarr.zip``), or at an address (``https://``, ``s3://``).
    mpp
        Micrometres per pixel of the finest level, one number or ``(y, x)``, if missing or wrong in the file.

    Returns
    -------
    Slide
        The slide, with only its metadata read.

    Raises
    ------
    SlideError
        If no backend opens the file, with the reason of each; or if the file is incomplete.

    Warns
    -----
    CpnnWarning
        If the file states a pixel size that no microscope has, which is ignored; if the image is not stored upright; if
        a folder holds several DICOM series.

    Examples
    --------
    >>> nc.open_slide(folder / "slide.tiff")
    <Slide 'slide', 12000 x 12000 px, 3 channels, 0.5 x 0.5 um/px, tifffile>
    >>> nc.open_slide(folder / "slide.tiff", mpp=0.25).mpp
    (0.25, 0.25)
    """
    given = None if mpp is None else as_mpp(mpp)
    address = address_of(path)
    if address is not None:
        return _open_address(address, given)
    with reading(path, SlideError, "the file may be damaged."):
        asked = Path(path)
        file = resolve_path((asked.expanduser() if str(asked).startswith("~") else asked).absolute())
        backend, source = open_source(file)
        handles = Handles(file, backend, Pyramid(source, file))
        info = source.info
        shape = (*info.level_shapes[0], info.channels)
        turned = f" orientation {info.orientation}" if info.orientation != 1 else ""
        identity = file_identity(file, shape, info.view + turned)
    notice = orientation_notice(info.orientation, file)
    if notice is not None:
        warnings.warn(notice, CpnnWarning, stacklevel=2)
    return Slide(
        handles, info, name=_display_name(asked, file), mpp=_pixel_size(info, given, file, 4), identity=identity
    )


def _open_address(address: str, given: Mpp | None) -> Slide:
    backend, source = open_source(address)
    handles = Handles(None, backend, Pyramid(source, address), address)
    name = address.rsplit("/", 1)[-1].removesuffix(".zarr").removesuffix(".ome")
    slide = Slide(handles, source.info, name=name, mpp=_pixel_size(source.info, given, address, 5), identity="")
    facts = (address, slide.level_shapes, slide.shape, str(slide.dtype), source.info.pixel_sizes)
    level = len(source.info.level_shapes) - 1
    height, width = (min(n, CHUNK_PX) for n in slide.level_shapes[level])
    middle = [(n - side) // 2 for n, side in zip(slide.level_shapes[level], (height, width), strict=True)]
    slide.identity = content_identity(facts, slide.read_region(middle[0], middle[1], height, width, level).tobytes())
    return slide


def _pixel_size(info: SourceInfo, given: Mpp | None, what: object, stacklevel: int) -> Mpp | None:
    """Return the pixel size that is given, or that of the file, and note in the properties where it is from."""
    if given is None:
        found = choose_mpp(info.pixel_sizes, what, stacklevel)
        if found is not None:
            info.properties["pixel size from"], given = found
    else:
        info.properties["pixel size from"] = "given"
    return given


def _display_name(asked: Path, file: Path) -> str:
    """Return the display name: that of a DICOM folder if opened, since its files have numbers as names.

    The first image of bioformats2raw has one too, and is named like its store.
    """
    name = asked.name if asked.name and asked.is_dir() else file.stem
    name = file.parent.name if name == "0" and file.parent.suffix == ".zarr" else name
    return name.removesuffix(".zarr").removesuffix(".ome")
