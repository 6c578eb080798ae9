"""Backend for vendor formats (NDPI, MRXS, SCN, VMS, BIF, DICOM, ...) by OpenSlide, and fallback for TIFF and SVS."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_cpnn.decimals import parse_decimal
from napari_cpnn.errors import SlideError
from napari_cpnn.geometry import Mpp
from napari_cpnn.slides.backends.base import MAX_SIDE_PX, Pixels, Refused, SourceInfo, over_white
from napari_cpnn.slides.backends.bounds import crop_of, cropped_levels
from napari_cpnn.slides.backends.trials import require_readable
from napari_cpnn.slides.pixel_size import parse_um
from napari_cpnn.slides.pyramid import true_levels
from napari_cpnn.untrusted import reason_of

VENDOR_SUFFIXES = frozenset((".ndpi", ".ndpis", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide", ".dcm", ".czi"))
_TIFF_SUFFIXES = frozenset((".svs", ".tif", ".tiff", ".btf"))
_ONE_FILE = _TIFF_SUFFIXES | {".ndpi", ".scn", ".bif", ".svslide", ".czi", ".ndpis", ".vms", ".vmu"}

# OpenSlide aborts the process if a damaged file makes it allocate too much memory, and may hang on others. Errors that
# it reports are ignored here, since they recur in the main process.
_TRIAL = """
import openslide
try:
    slide = openslide.OpenSlide(sys.argv[1])
    sizes = slide.level_dimensions
except openslide.OpenSlideError:
    raise SystemExit(0)
for level, (width, height) in enumerate(sizes):
    for y, x in ((0, 0), (height // 2, width // 2)):
        down = slide.level_downsamples[level]
        try:
            slide.read_region((int(x * down), int(y * down)), level, (min(width, 64), min(height, 64)))
        except openslide.OpenSlideError:
            slide = openslide.OpenSlide(sys.argv[1])
"""


class OpenSlideSource:
    """A file opened by OpenSlide; level ``i`` of :attr:`info` is level ``_levels[i]`` of the file."""

    def __init__(self, path: Path) -> None:
        import openslide

        _refuse_pipes(path)
        require_readable(_TRIAL, path)
        self._path = path
        self._error = openslide.OpenSlideError
        self._lock = threading.Lock()
        try:
            self._handle: Any = openslide.OpenSlide(path)
            shapes = [(h, w) for w, h in self._handle.level_dimensions]
            self._downsamples = tuple(self._handle.level_downsamples)
            props = dict(self._handle.properties)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise Refused("unknown format") from error
        except Exception as error:  # the bindings raise KeyError and UnicodeDecodeError, too
            raise Refused(reason_of(error).rstrip(".")) from error
        if not shapes or min(shapes[0]) < 1:
            raise Refused("it holds no pixels")
        if max(shapes[0]) > MAX_SIDE_PX:
            raise SlideError(
                f"{path} declares {shapes[0][1]:,} x {shapes[0][0]:,} px, more than any slide; it is damaged."
            )
        self._levels = true_levels(shapes)
        shown = tuple(shapes[i] for i in self._levels)
        downsamples: tuple[tuple[float, float], ...] = ()
        crop = crop_of(props, shown[0])
        self._corner = (0, 0) if crop is None else (crop.y, crop.x)
        if crop is not None:
            shown, downsamples = cropped_levels(crop, shown)
        self.info = SourceInfo(
            level_shapes=shown,
            downsamples=downsamples,
            pixel_sizes=_pixel_sizes(props),
            properties=_harmless(props),
            view="" if crop is None else str(crop),
        )

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        number = self._levels[level]
        scale = self._downsamples[number]
        top, left = self._corner
        handle = self._handle
        if handle is None:
            raise SlideError(f"{self._path} has been closed.")
        try:
            # OpenSlide expects the corner in whole level-0 pixels.
            rgba = handle.read_region((left + round(x * scale), top + round(y * scale)), number, (width, height))
        except self._error as error:
            self._reopen(handle)
            raise SlideError(
                f"{self._path} cannot be read at level {level}, row {y}, column {x} ({error}); the file may be damaged."
            ) from error
        return over_white(np.asarray(rgba))

    def _reopen(self, broken: Any) -> None:
        """Re-open the file after an error, since OpenSlide then fails all further reads on the handle."""
        import openslide

        with self._lock:
            if self._handle is not broken:
                return
            try:
                # The broken handle is left to garbage collection, since other threads may be using it.
                self._handle = openslide.OpenSlide(self._path)
            except (openslide.OpenSlideError, OSError) as error:
                raise SlideError(f"{self._path} can no longer be read: {error}.") from error

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:  # noqa: ARG002
        return False

    def close(self) -> None:
        with self._lock:
            # Another thread may be reading; the file is closed with the last reference.
            self._handle = None


def _refuse_pipes(path: Path) -> None:
    """Raise an error if the folder has pipes: OpenSlide opens all files next to a DICOM or in an MRXS folder."""
    folder = path.with_suffix("") if path.suffix.lower() == ".mrxs" else path.parent
    if path.suffix.lower() in _ONE_FILE or not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.is_file() and not entry.is_dir() and Path(entry).is_fifo():
                raise SlideError(f"{path} is not opened, since {entry.name} in {folder} is a pipe; remove it.")


def _pixel_sizes(props: Mapping[str, str]) -> tuple[tuple[str, Mpp], ...]:
    """Return OpenSlide's pixel sizes, else the vendor's properties that OpenSlide did not interpret."""
    vendor = props.get("openslide.vendor", "OpenSlide")
    mirax = "mirax.LAYER_0_LEVEL_0_SECTION.MICROMETER_PER_PIXEL_"
    names = (("openslide.mpp-y", "openslide.mpp-x"), ("aperio.MPP", "aperio.MPP"), (f"{mirax}Y", f"{mirax}X"))
    # Restore Aperio's keys as in the file's description.
    props = {f"aperio.{key[7:].upper()}" if key.startswith("aperio.") else key: value for key, value in props.items()}
    for name_y, name_x in names:
        try:
            mpp = parse_um(props[name_y]), parse_um(props[name_x])
        except (KeyError, ValueError):
            continue
        return ((f"{vendor} metadata", mpp),)
    return ()


def _harmless(props: Mapping[str, str]) -> dict[str, str]:
    found = {"vendor": props["openslide.vendor"]} if "openslide.vendor" in props else {}
    with contextlib.suppress(KeyError, ValueError):  # missing or not a number
        found["objective power"] = f"{parse_decimal(props['openslide.objective-power']):g}"
    return found


class OpenSlideBackend:
    """Preferred for vendor formats, second choice for TIFF."""

    name = "OpenSlide"

    def rank(self, path: Path, head: bytes) -> int:
        suffix = path.suffix.lower()
        if suffix in VENDOR_SUFFIXES or head[128:132] == b"DICM":
            return 30
        return 10 if suffix in _TIFF_SUFFIXES or head[:2] in (b"II", b"MM") else 0

    def open(self, path: Path) -> OpenSlideSource:
        try:
            import openslide  # noqa: F401
        except (ImportError, OSError) as error:
            raise Refused(f"the library is missing ({error})") from error
        return OpenSlideSource(path)
