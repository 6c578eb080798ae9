"""Tiled TIFF, SVS and OME-TIFF by tifffile and imagecodecs: which pages are levels, what their samples mean."""

from __future__ import annotations

import logging
import math
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import tifffile

from napari_cpnn.errors import CpnnWarning, SlideError
from napari_cpnn.geometry import Mpp
from napari_cpnn.slides.backends.base import Pixels, Refused, SourceInfo
from napari_cpnn.slides.backends.tiff_tiles import JPEG, Plane, PlaneKind, TileReader
from napari_cpnn.slides.orientation import as_orientation
from napari_cpnn.slides.pixel_size import aperio_facts, um_per
from napari_cpnn.slides.pyramid import true_levels

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_OPENSLIDE_FORMATS = ("ndpi", "scn", "bif", "philips")
_APERIO_JPEG2000_YCBCR = 33003
_NOT_LEVELS = ("label", "macro", "overview", "thumbnail", "preview", "map")
_MINISWHITE, _MINISBLACK, _RGB, _YCBCR = 0, 1, 2, 6
# tifffile logs what it does not like in a file; without a handler that would go to the terminal.
logging.getLogger("tifffile").addHandler(logging.NullHandler())
_OPEN_ERRORS = (
    tifffile.TiffFileError,
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    struct.error,
    RuntimeError,
)


class TiffSource:
    """A TIFF file whose tiles we decode ourselves."""

    def __init__(self, path: Path) -> None:
        try:
            with tifffile.TiffFile(path) as tif:
                for name in _OPENSLIDE_FORMATS:
                    if getattr(tif, f"is_{name}"):
                        raise Refused(f"{name.upper()} files are left to OpenSlide")
                if not len(tif.pages):
                    raise SlideError(
                        f"{path} is cut short: the directory of its pages lies behind its end; copy it again."
                    )
                if tif.pages.first.software.startswith("MedScan"):
                    raise Refused("Trestle's overlapping tiles are left to OpenSlide")
                series = _level_series(tif)
                planes = [_planes(tif, s) for s in series]
                page = series[0].pages[0].keyframe
                info = _describe(tif, page, planes)
                whole = _chain_is_whole(tif)
        except _OPEN_ERRORS as error:
            raise Refused(f"not a usable TIFF ({_first_sentence(error)})") from error
        size = path.stat().st_size
        end = max(plane.end for level in planes for plane in level)
        if end > size:
            raise SlideError(
                f"{path} is incomplete: it has {size:,} bytes and its tiles reach to {end:,}; copy it again."
            )
        if not whole:
            warnings.warn(
                f"{path} is cut short: its finest level is there, others may be missing; copy it again.",
                CpnnWarning,
                stacklevel=5,
            )
        self.info = info
        self._tiles = TileReader(path, planes, info.channels)

    def read(self, level: int, y: int, x: int, height: int, width: int) -> Pixels:
        return self._tiles.read(level, y, x, height, width)

    def is_blank(self, level: int, y: int, x: int, height: int, width: int) -> bool:
        return self._tiles.is_blank(level, y, x, height, width)

    def close(self) -> None:
        self._tiles.close()


class TiffBackend:
    """First for everything that starts like a TIFF, unless its name says that OpenSlide knows it better."""

    name = "tifffile"

    def rank(self, path: Path, head: bytes) -> int:  # noqa: ARG002
        return 20 if head[:4] in _MAGIC else 0

    def open(self, path: Path) -> TiffSource:
        return TiffSource(path)


def _first_sentence(error: BaseException) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


def _chain_is_whole(tif: Any) -> bool:
    """Whether the last page that could be read is the last that the file announces."""
    form, file = tif.tiff, tif.filehandle
    file.seek(tif.pages[-1].offset)
    (n_tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
    file.seek(n_tags * form.tagsize, 1)
    (following,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
    return int(following) == 0


def _level_series(tif: Any) -> list[Any]:
    """The series of one image, finest first: its own levels, or others that are smaller copies of it."""
    every = [s for s in tif.series if len(s.pages) and s.pages[0] is not None and _height_width(s) != (0, 0)]
    if not every:
        raise Refused("it holds no pixels")
    named = [s for s in every if not any(word in (s.name or "").lower() for word in _NOT_LEVELS)] or every[:1]
    # Bio-Formats may put a macro image first: the slide is the largest one.
    base = named[0] if tif.is_svs else max(named, key=lambda s: math.prod(_height_width(s)))
    levels = list(base.levels)
    if len(levels) == 1 and not tif.is_svs:
        first = base.pages[0].keyframe
        others = [s for s in named if s is not base and _same_kind(s.pages[0].keyframe, first)]
        levels += sorted((s for s in others if _halving(base, s)), key=lambda s: -math.prod(_height_width(s)))
    shapes = [_height_width(s) for s in levels]
    return [levels[i] for i in true_levels(shapes)]


def _height_width(series: Any) -> tuple[int, int]:
    page = series.pages[0].keyframe
    if page.dtype is None or page.imagelength < 1 or page.imagewidth < 1:
        return 0, 0
    return int(page.imagelength), int(page.imagewidth)


def _same_kind(page: Any, other: Any) -> bool:
    names = ("dtype", "samplesperpixel", "photometric")
    return all(getattr(page, name) == getattr(other, name) for name in names)


def _halving(base: Any, series: Any) -> bool:
    """Whether a separate image has a power of two fewer pixels a side, as pyramids have and other scans do not."""
    (height, width), (h, w) = _height_width(base), _height_width(series)
    scale = 2 ** round(math.log2(height / h))
    return bool(scale > 1 and abs(height / scale - h) < 1.5 and abs(width / scale - w) < 1.5)


def _planes(tif: Any, series: Any) -> list[Plane]:
    """The planes to show: all channels, the middle focal plane, the first of anything else."""
    page = series.pages[0].keyframe
    lead = series.axes[: len(series.axes) - len(page.axes)] if series.axes.endswith(page.axes) else ""
    sizes = series.shape[: len(lead)]
    if math.prod(sizes) > len(series.pages):
        raise Refused("its pages are not laid out in a way that we know")
    fixed = [size // 2 if axis == "Z" and not tif.is_svs else 0 for axis, size in zip(lead, sizes, strict=True)]
    channel = lead.find("C")
    planes: list[Plane] = []
    for c in range(sizes[channel] if channel >= 0 else 1):
        where = [c if i == channel else position for i, position in enumerate(fixed)]
        index = int(np.ravel_multi_index(where, sizes)) if lead else 0
        one = series.pages[index]
        if one is None or one.parent.filehandle.name != tif.filehandle.name:
            raise Refused("its planes are spread over several files")
        kind = _kind_of(one.keyframe)
        samples = one.keyframe.samplesperpixel if one.keyframe.planarconfig == 2 else 1
        planes += [Plane(one, sample, kind) for sample in range(samples)]
    return planes


def _kind_of(page: Any) -> PlaneKind:
    """What the samples mean; :class:`Refused` for colour spaces that other backends convert."""
    if page.imagedepth > 1 or page.tiledepth > 1:
        raise Refused("it is a volume")
    if page.dtype is None or page.dtype.kind not in "ui" or page.bitspersample not in (8, 16):
        raise Refused(f"its samples have {page.bitspersample} bits of a kind that is not an image of light")
    if page.compression != 1 and page.compression not in tifffile.TIFF.DECOMPRESSORS:
        raise Refused(f"its compression {int(page.compression)} is unknown")
    if page.compression == _APERIO_JPEG2000_YCBCR:
        raise Refused("Aperio's JPEG 2000 with YCbCr colours is left to OpenSlide")
    photometric = int(page.photometric)
    if photometric not in (_MINISWHITE, _MINISBLACK, _RGB, _YCBCR):
        raise Refused(f"its colours are {getattr(page.photometric, 'name', photometric)}, not RGB or grey")
    if photometric == _YCBCR and page.compression not in JPEG:
        raise Refused("its YCbCr colours are not in JPEG tiles")
    alpha = photometric == _RGB and page.samplesperpixel == 4 and page.dtype == np.uint8 and page.planarconfig == 1
    return PlaneKind(inverted=photometric == _MINISWHITE, alpha=alpha)


def _describe(tif: Any, page: Any, planes: Sequence[Sequence[Plane]]) -> SourceInfo:
    channels = sum(3 if plane.kind.alpha else plane.samples for plane in planes[0])
    facts = aperio_facts(page.description) if tif.is_svs else {}
    props = {"format": _format_name(tif), "compression": getattr(page.compression, "name", str(page.compression))}
    if tif.is_svs:
        props["vendor"] = "aperio"
    if "AppMag" in facts:
        props["objective power"] = facts["AppMag"]
    tag = page.tags.get(274)
    return SourceInfo(
        level_shapes=tuple(level[0].shape for level in planes),
        channels=channels,
        dtype=planes[0][0].dtype,
        rgb=channels == 3 and (page.samplesperpixel >= 3 or _channels_are_rgb(tif)),
        pixel_sizes=tuple(_pixel_sizes(tif, page, facts)),
        properties=props,
        orientation=as_orientation(None if tag is None else tag.value),
    )


def _channels_are_rgb(tif: Any) -> bool:
    """Whether three separate channels are the colours of one picture, as some converters to OME-TIFF write it."""
    try:
        root = ET.fromstring(tif.ome_metadata or "")  # noqa: S314  (expat expands no external entities)
    except ET.ParseError:
        return False
    names = [e.get("Name", "").lower() for e in root.iter() if e.tag.rpartition("}")[2] == "Channel"]
    return names[:3] in (["red", "green", "blue"], ["r", "g", "b"])


def _format_name(tif: Any) -> str:
    for name, shown in (("svs", "Aperio SVS"), ("ome", "OME-TIFF"), ("qpi", "QPTIFF"), ("imagej", "ImageJ TIFF")):
        if getattr(tif, f"is_{name}"):
            return shown
    return "TIFF"


def _pixel_sizes(tif: Any, page: Any, facts: dict[str, str]) -> list[tuple[str, Mpp]]:
    """All claims about the pixel size, most trustworthy first."""
    claims: list[tuple[str, Mpp]] = []
    if "MPP" in facts:
        claims.append(("Aperio's MPP", (float(facts["MPP"]), float(facts["MPP"]))))
    if tif.is_ome:
        claims += _ome_pixel_sizes(tif.ome_metadata, page)
    x, y = (_rational(page, code) for code in (282, 283))
    if not x or not y:
        return claims
    if tif.is_imagej:
        um = um_per(str((tif.imagej_metadata or {}).get("unit", "")))
        if um is not None:
            claims.append(("ImageJ's unit", (um / y, um / x)))
    unit = page.tags.get(296)
    um = {2: 25_400.0, 3: 10_000.0}.get(2 if unit is None else int(unit.value))
    # 1 pixel per inch or centimetre is what writers put when they know nothing.
    if um is not None and (x, y) != (1, 1):
        claims.append(("TIFF resolution tags", (um / y, um / x)))
    return claims


def _rational(page: Any, code: int) -> float | None:
    tag = page.tags.get(code)
    if tag is None:
        return None
    try:
        numerator, denominator = tag.value
        return float(numerator) / float(denominator)
    except (TypeError, ValueError, ZeroDivisionError):
        return None


def _ome_pixel_sizes(xml: str | None, page: Any) -> list[tuple[str, Mpp]]:
    """PhysicalSizeX and Y of the image whose size is that of level 0."""
    try:
        root = ET.fromstring(xml or "")  # noqa: S314  (expat expands no external entities)
    except ET.ParseError:
        return []
    for pixels in root.iter():
        if pixels.tag.rpartition("}")[2] != "Pixels":
            continue
        if (pixels.get("SizeY"), pixels.get("SizeX")) != (str(page.imagelength), str(page.imagewidth)):
            continue
        sizes = []
        for axis in "YX":
            um = um_per(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
            value = pixels.get(f"PhysicalSize{axis}")
            try:
                sizes.append(float(value or "nan") * (math.nan if um is None else um))
            except ValueError:
                sizes.append(math.nan)
        if not any(math.isnan(size) for size in sizes):
            return [("OME PhysicalSize", (sizes[0], sizes[1]))]
    return []
