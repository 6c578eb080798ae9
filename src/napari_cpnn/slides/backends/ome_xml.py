"""Validate the XML of an OME-TIFF, and extract the pixel size and the colours of channels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from napari_cpnn.decimals import parse_decimal
from napari_cpnn.errors import SlideError
from napari_cpnn.geometry import Mpp
from napari_cpnn.slides.backends.base import Refused
from napari_cpnn.slides.pixel_size import um_per

_MAX_CHARS = 64 * 2**20
#: Maximum number of planes of one image; a 4 GB file can hardly hold more, even of one byte.
_MOST_PLANES = 2**20
_COUNTS = ("SizeC", "SizeZ", "SizeT", "IFD", "PlaneCount", "NumPlanes", "FirstC", "FirstZ", "FirstT")
# RGBA as signed integers, opaque
_COLOURS = {-16776961: "red", 16711935: "green", 65535: "blue"}
_NAMES = {"red": "red", "r": "red", "green": "green", "g": "green", "blue": "blue", "b": "blue"}
_RGB = ("red", "green", "blue")
_OF_FLUORESCENCE = ("Fluor", "EmissionWavelength", "ExcitationWavelength")


class OmeXml:
    """Parsed OME-XML; empty if the text is not XML.

    Parameters
    ----------
    text
        ImageDescription of the first page.
    path
        Path of the file.
    page_px
        Number of pixels of the first page.

    Raises
    ------
    SlideError
        If the XML declares sizes that no slide has, with which the libraries that read it next would exhaust time or
        memory.
    """

    def __init__(self, text: str | None, path: Path, page_px: int) -> None:
        self._path = path
        self._page_px = max(page_px, 2**16)
        self._root = ET.Element("OME")
        if not text:
            return
        if len(text) > _MAX_CHARS or "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise SlideError(f"{path} has OME-XML with entity definitions or of excessive length; it is damaged.")
        try:
            self._root = ET.fromstring(text)  # noqa: S314  (without a DOCTYPE nothing can be expanded)
        except (ET.ParseError, ValueError):
            return
        self._require_sensible()

    def _require_sensible(self) -> None:
        for element in self._root.iter():
            tag = _tag(element)
            if tag in ("Pixels", "TiffData"):
                counts = [_whole(element.get(name)) for name in _COUNTS]
                planes = math.prod(max(count, 1) for count in counts[:3])
                area = max(_whole(element.get("SizeX")), 1) * max(_whole(element.get("SizeY")), 1)
                planes = max(planes, planes * area // self._page_px)
                if max(*counts, planes) > _MOST_PLANES:
                    raise SlideError(f"{self._path} declares {max(*counts, planes):,} planes; it is damaged.")
            elif tag.startswith("ModuloAlong") and element.get("Start") is not None:
                start, end, step = (_number(element.get(name, default)) for name, default in
                                    (("Start", "0"), ("End", "0"), ("Step", "1")))  # fmt: skip
                if not step > 0 or not (end - start) / step <= _MOST_PLANES:
                    raise SlideError(f"{self._path} has an axis of unlimited length in its OME-XML; it is damaged.")
            elif tag == "UUID":
                self._require_neighbour(element.get("FileName", ""))

    def _require_neighbour(self, name: str) -> None:
        """Require that a file name refers to a regular file in the same folder; multi-file OME-TIFF is allowed."""
        if not name:
            return
        other = self._path.parent / name
        if Path(name).name != name or "\0" in name or (other.exists() and not other.is_file()):
            if len({one.get("FileName") for one in self._root.iter() if _tag(one) == "UUID"}) > 1:
                raise in_several_files(self._path)
            raise Refused("its planes are stored in several files")  # but others may find all of them in this one

    def pixel_sizes(self, page: Any) -> list[tuple[str, Mpp]]:
        """Return PhysicalSizeX and Y of the image with the size of level 0."""
        for pixels in self._of(page):
            try:
                y, x = (
                    parse_decimal(pixels.get(f"PhysicalSize{axis}", ""))
                    * _um(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
                    for axis in "YX"
                )
            except ValueError:
                continue
            return [("OME PhysicalSize", (y, x))]
        return []

    def colour_order(self, page: Any) -> tuple[int, int, int] | None:
        """Return the indices of the red, green and blue channels; ``None`` if they are not marked as such.

        Channel names may be in any order. Since fluorescent dyes have colours too, colours are used only for unnamed
        channels in the order red, green, blue without any sign of fluorescence.
        """
        for pixels in self._of(page):
            channels = [element for element in pixels if _tag(element) == "Channel"]
            if len(channels) != 3:
                continue
            names = [(channel.get("Name") or "").strip().lower() for channel in channels]
            named = [_NAMES.get(name) for name in names]
            if sorted(filter(None, named)) == sorted(_RGB):
                red, green, blue = (named.index(colour) for colour in _RGB)
                return red, green, blue
            dyed = any(channel.get(sign) for channel in channels for sign in _OF_FLUORESCENCE)
            dyed |= any("fluorescence" in str(channel.attrib).lower() for channel in channels)
            colours = tuple(_COLOURS.get(_signed(channel.get("Color"))) for channel in channels)
            if not any(names) and not dyed and colours == _RGB:
                return 0, 1, 2
        return None

    def _of(self, page: Any) -> Iterator[ET.Element]:
        for pixels in self._root.iter():
            size = pixels.get("SizeY"), pixels.get("SizeX")
            if _tag(pixels) == "Pixels" and size == (str(page.imagelength), str(page.imagewidth)):
                yield pixels


def in_several_files(path: Path) -> SlideError:
    """Return the error for a file with some of the planes of a slide; others would show one of them as the slide."""
    return SlideError(
        f"{path} is not opened, since its planes are stored in several files; join them in one OME-TIFF, as with "
        "bfconvert of Bio-Formats, and open that."
    )


def _tag(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _whole(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _signed(text: str | None) -> int:
    number = _whole(text)
    return number - 2**32 if number >= 2**31 else number


def _number(text: str) -> float:
    try:
        return parse_decimal(text)
    except ValueError:
        return float("nan")


def _um(unit: str) -> float:
    um = um_per(unit)
    if um is None:
        raise ValueError(unit)
    return um
