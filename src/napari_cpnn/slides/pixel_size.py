"""Parse and validate pixel sizes stored in files."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterable

from napari_cpnn.decimals import parse_decimal
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.geometry import Mpp, is_plausible_mpp

_UM_PER_UNIT = {
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "nm": 1e-3, "pm": 1e-6, "å": 1e-4,
    "in": 25_400.0, "inch": 25_400.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "millimeter": 1e3, "centimeter": 1e4, "nanometer": 1e-3, "millimetre": 1e3, "centimetre": 1e4, "nanometre": 1e-3,
    "meter": 1e6, "metre": 1e6, "decimeter": 1e5, "picometer": 1e-6, "angstrom": 1e-4,
}  # fmt: skip
#: A number and the text after it.
_LENGTH = re.compile(r"([+-]?[\d.,]+(?:[eE][+-]?\d+)?)\s*([^\W\d_]*(?:\s*/\s*\w+)?)")
_PER_PIXEL = re.compile(r"\s*/\s*(?:px|pixels?)\Z", re.IGNORECASE)


def um_per(unit: str) -> float | None:
    """Return micrometres per unit of length as spelled by OME and ImageJ; ``None`` for pixels and other units."""
    # ImageJ escapes the micro sign, and Unicode has two of them.
    name = unit.strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("\u03bc", "µ")
    return _UM_PER_UNIT.get(name, _UM_PER_UNIT.get(name.lower()))


_MICROMETRES = re.compile(
    r"(^|[_ ])(um|µm|micron|microns|micrometer|micrometre|micrometers|micrometres)$", re.IGNORECASE
)


def is_in_um(name: str) -> bool:
    """Return whether a coordinate system of a SpatialData or a unit is in micrometres by its name.

    >>> [is_in_um(name) for name in ("microns", "aligned_um", "global", "museum")]
    [True, True, False, False]
    """
    return _MICROMETRES.search(name) is not None


#: What has been reported: each implausible pixel size of a file once in a process.
_REPORTED: set[tuple[object, tuple[str, Mpp]]] = set()


def choose_mpp(claims: Iterable[tuple[str, Mpp]], path: object, stacklevel: int = 3) -> tuple[str, Mpp] | None:
    """Return the first plausible candidate; issue a :class:`CpnnWarning` if there are only implausible ones.

    For each file it is issued once.
    """
    claims = list(claims)
    for where, mpp in claims:
        if is_plausible_mpp(mpp):
            return where, mpp
    if claims and (path, claims[0]) not in _REPORTED:
        where, mpp = claims[0]
        if path is not None:  # a slide is opened again and again, by docks and workers
            _REPORTED.add((path, claims[0]))
        warnings.warn(
            f"The pixel size of {mpp[1]:.4g} um/px in {path} ({where}) is implausible for a microscope and is "
            "ignored; give the true one as mpp.",
            CpnnWarning,
            stacklevel=stacklevel,
        )
    return None


def aperio_facts(description: str) -> dict[str, float]:
    """Parse ``MPP`` and ``AppMag`` from an Aperio description; the rest, which may contain names, is ignored.

    >>> aperio_facts("Aperio Image Library|AppMag = 20|MPP = 0,4990|User = x")
    {'AppMag': 20.0, 'MPP': 0.499}
    >>> aperio_facts('Aperio Image Library|appmag = 20x|Mpp = "0.4990 um"')
    {'AppMag': 20.0, 'MPP': 0.499}
    """
    facts = {}
    for key, text in re.findall(r"\|\s*(MPP|AppMag)\s*=([^|]*)", description, re.IGNORECASE):
        with contextlib.suppress(ValueError):
            if key.lower() == "mpp":
                facts["MPP"] = parse_um(text)
            else:
                facts["AppMag"] = parse_decimal(_bare(text).rstrip("xX×"))
    return facts


def parse_um(text: str) -> float:
    """Parse micrometres per pixel, optionally quoted or with a unit.

    Raises
    ------
    ValueError
        If the text is not such a length.

    Examples
    --------
    >>> parse_um("0,499"), parse_um('"0.499 µm/px"'), parse_um("499 nm")
    (0.499, 0.499, 0.499)
    """
    found = _LENGTH.fullmatch(_bare(text))
    um = None if found is None else um_per(_PER_PIXEL.sub("", found[2]) or "um")
    if found is None or um is None:
        message = f"{text!r} is not a length"
        raise ValueError(message)
    return parse_decimal(found[1]) * um


def _bare(text: str) -> str:
    return text.strip().strip("\"'").strip()
