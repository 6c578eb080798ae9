"""Vendor formats (NDPI, MRXS, SCN, VMS, BIF, DICOM, ...) by OpenSlide, which is also the fallback for TIFF and SVS."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn.errors import SlideError
from napari_cpnn.geometry import Mpp
from napari_cpnn.slides.backends.base import Pixels, Refused, SourceInfo, over_white
from napari_cpnn.slides.pyramid import true_levels

_VENDOR_SUFFIXES = frozenset((".ndpi", ".ndpis", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm", ".czi"))
_TIFF_SUFFIXES = frozenset((".svs", ".tif", ".tiff", ".btf"))


class OpenSlideSource:
    """One file opened by OpenSlide; level ``i`` of :attr:`info` is level ``_levels[i]`` of the file."""

    def __init__(self, path: Path) -> None:
        import openslide

        self._path = path
        self._error = openslide.OpenSlideError
        self._lock = threading.Lock()
        try:
            self._handle: Any = openslide.OpenSlide(path)
            shapes = [(h, w) for w, h in self._handle.level_dimensions]
            self._downsamples = tuple(self._handle.level_downsamples)
            props = dict(self._handle.properties)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise Refused("not a format that it knows") from error
        except openslide.OpenSlideError as error:
            raise Refused(str(error).rstrip(".")) from error
        self._levels = true_levels(shapes)
        self.info = SourceInfo(
            level_shapes=tuple(shapes[i] for i in self._levels),
            pixel_sizes=_pixel_sizes(props),
            properties=_harmless(props),
        )

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        number = self._levels[level]
        scale = self._downsamples[number]
        handle = self._handle
        if handle is None:
            raise SlideError(f"{self._path} has been closed.")
        try:
            # OpenSlide wants the corner in whole level-0 pixels.
            rgba = handle.read_region((round(x * scale), round(y * scale)), number, (width, height))
        except self._error as error:
            self._reopen(handle)
            raise SlideError(
                f"{self._path} cannot be read at level {level}, row {y}, column {x} ({error}); the file may be damaged."
            ) from error
        return over_white(np.asarray(rgba))

    def _reopen(self, broken: Any) -> None:
        """After an error OpenSlide refuses everything on that handle, readable places too."""
        import openslide

        with self._lock:
            if self._handle is not broken:
                return
            try:
                # The broken handle is left to the garbage collector: other threads may be inside it.
                self._handle = openslide.OpenSlide(self._path)
            except (openslide.OpenSlideError, OSError) as error:
                raise SlideError(f"{self._path} can no longer be read: {error}.") from error

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        with self._lock:
            # Not closed by force, since another thread may be reading: the last reference closes it.
            self._handle = None


def _pixel_sizes(props: dict[str, str]) -> tuple[tuple[str, Mpp], ...]:
    try:
        mpp = float(props["openslide.mpp-y"]), float(props["openslide.mpp-x"])
    except (KeyError, ValueError):
        return ()
    return ((f"{props.get('openslide.vendor', 'OpenSlide')} metadata", mpp),)


def _harmless(props: dict[str, str]) -> dict[str, str]:
    names = {"openslide.vendor": "vendor", "openslide.objective-power": "objective power"}
    return {ours: props[theirs] for theirs, ours in names.items() if theirs in props}


class OpenSlideBackend:
    """First for vendor formats, second for TIFF."""

    name = "OpenSlide"

    def rank(self, path: Path, head: bytes) -> int:
        suffix = path.suffix.lower()
        if suffix in _VENDOR_SUFFIXES or head[128:132] == b"DICM":
            return 30
        return 10 if suffix in _TIFF_SUFFIXES or head[:2] in (b"II", b"MM") else 0

    def open(self, path: Path) -> OpenSlideSource:
        try:
            import openslide  # noqa: F401
        except (ImportError, OSError) as error:
            raise Refused(f"the library is missing ({error})") from error
        return OpenSlideSource(path)
