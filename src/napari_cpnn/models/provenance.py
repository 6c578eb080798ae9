"""What a model says about its origin, from a file that anybody may have written.

Readers get values of the kinds below or none at all, so that each of them may take what is there at its word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from napari_cpnn.samples import her2st_section_of
from napari_cpnn.texts import shown

#: Maximum number of letters of a text, and largest size of a number.
_MOST_LETTERS, _LARGEST = 500, 1e15

#: Maximum number of baselines beside the scores of a model.
_MOST_BASELINES = 4

#: Maximum number of letters of the name of a model.
_LONGEST_NAME = 80

Check = Callable[[Any], Any]
"""Returns a usable value, or None."""


def _text(value: Any) -> str | None:
    return shown(value, _MOST_LETTERS) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    known = type(value) in (int, float) and -_LARGEST <= value <= _LARGEST
    return value if known else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _texts(value: Any) -> str | list[str] | None:
    if not isinstance(value, list):
        return _text(value)
    return [shown(item, _MOST_LETTERS) for item in value] if all(isinstance(item, str) for item in value) else None


def _slides(value: Any) -> list[Any] | None:
    if not isinstance(value, list):
        return None
    entries = [_SLIDE(item) if isinstance(item, dict) else _text(item) for item in value]
    return entries if all(entry is not None for entry in entries) else None


def _scores(value: Any) -> dict[str, float] | None:
    if not isinstance(value, dict):
        return None
    return {gene: r for gene, r in value.items() if _number(r) is not None and abs(r) <= 1}


def _baselines(value: Any) -> dict[str, dict[str, float]] | None:
    if not isinstance(value, dict):
        return None
    checked = {_text(name): _scores(genes) for name, genes in list(value.items())[:_MOST_BASELINES]}
    return {name: genes for name, genes in checked.items() if name is not None and genes is not None}


def _majors(value: Any) -> dict[str, str] | None:
    if not isinstance(value, dict):
        return None
    return {minor: shown(major, _MOST_LETTERS) for minor, major in value.items() if isinstance(major, str)}


def _table(**known: Check) -> Check:
    """Check of a table: entries of a known name are checked, the others are kept as they are."""

    def check(value: Any) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            return None
        checked = {name: known[name](entry) if name in known else entry for name, entry in value.items()}
        return {name: entry for name, entry in checked.items() if entry is not None or name not in known}

    return check


_SLIDE = _table(slide=_text, patient=_text, n_spots=_number)
_HELD_OUT = _table(
    slide=_text, pcc_mean=_number, scc_mean=_number, n_genes=_number, per_gene_pcc=_scores, baselines=_baselines
)

_CHECKS: dict[str, Check] = {
    "hierarchy": _majors,
    "name": _text,
    "version": _text,
    "purpose": _text,
    "settings": _table(tissue=_text, symmetries=_flag),
    "training_data": _slides,
    "metrics": _table(held_out=_HELD_OUT),
    "held_out": _text,
    "domain": _table(calibrated_on=_text),
    "trust": _table(calibrated_on=_text, n_spots=_number, n_slides=_number, n_patients=_number),
    "encoder": _table(name=_text, description=_text, licence=_text, commercial_use=_flag, source=_text),
    "licence_notes": _texts,
    "backbone_weights": _text,
    "epoch": _number,
    "content_exponent": _number,
    "between_types": _scores,
}


def usable(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return a provenance without entries of another kind than readers expect; texts are on one line.

    Examples
    --------
    >>> from napari_cpnn.models import usable
    >>> usable({"training_data": 3, "held_out": "C4", "metrics": {"held_out": {"pcc_mean": "high", "n_genes": 5}}})
    {'held_out': 'C4', 'metrics': {'held_out': {'n_genes': 5}}}
    """
    checked: dict[str, Any] = _table(**_CHECKS)(dict(provenance))
    if checked.get("encoder", {}).keys() < {"name", "licence", "commercial_use"}:
        checked.pop("encoder", None)
    return checked


def unusable(provenance: Mapping[str, Any]) -> list[str]:
    """Names of the entries that :func:`usable` leaves out or shortens."""
    checked = usable(provenance)
    known = {name: value for name, value in provenance.items() if name in _CHECKS}
    return [name for name, value in known.items() if _differ(value, checked.get(name))]


def _differ(value: Any, checked: Any) -> bool:
    """Whether entries are missing; scores that are not known are none."""
    if value is checked:  # entries of unknown names, nested as deep as anybody likes
        return False
    if isinstance(value, dict) and isinstance(checked, dict):
        return any(entry is not None and _differ(entry, checked.get(name)) for name, entry in value.items())
    return value is not None and checked is None


def trained_on(provenance: Mapping[str, Any]) -> str:
    """Describe the training tissue of a model by its provenance: tissue, patients and slides, as far as recorded."""
    known = usable(provenance)
    entries = [item for item in known.get("training_data", []) if isinstance(item, dict)]
    parts = [known.get("settings", {}).get("tissue", "")]
    patients = {item["patient"] for item in entries if item.get("patient")}
    for number, name in ((len(patients), "patient"), (len(entries), "slide")):
        parts.append(f"{number} {name}{'s' * (number != 1)}" if number else "")
    return ", ".join(part for part in parts if part)


def model_title(provenance: Mapping[str, Any], name: str = "", written_by: str = "") -> str:
    """Name of a model with its version, such as ``"breast-her2st (napari-cpnn 0.1.0)"``; empty if it has no name.

    Parameters
    ----------
    provenance
        Its ``name`` and ``version`` (or date), where it has them.
    name, written_by
        Name of the file without extension, and the program that wrote it, for models that do not say.

    Examples
    --------
    >>> from napari_cpnn.models import model_title
    >>> model_title({"name": "her2", "version": "2026-11"}, "model"), model_title({}, "model")
    ('her2 (2026-11)', 'model')
    """
    known = usable(provenance)
    named = known.get("name") or shown(name, _LONGEST_NAME)
    if is_synthetic(known) and not str(named).upper().startswith("SYNTHETIC"):
        named = f"SYNTHETIC {named}".strip()
    version = known.get("version") or shown(written_by, _LONGEST_NAME)
    return f"{named} ({version})" if named and version else named


def model_words(title: object, fingerprint: object) -> str:
    """Name a model in figures and tables, such as ``"model breast-her2st (napari-cpnn 0.1.0), bbede99d"``.

    Parameters
    ----------
    title, fingerprint
        Of the model, perhaps from a file of anybody; None or empty where they are not known.
    """
    words = shown(title, _MOST_LETTERS) if title else ""
    digits = shown(fingerprint, _LONGEST_NAME)[:8] if fingerprint else ""
    if not words:
        return f"CPNN model {digits}" if digits else "CPNN"
    return f"model {words}, {digits}" if digits else f"model {words}"


def training_slides(provenance: Mapping[str, Any]) -> list[str]:
    """Names of the slides that a model was trained on, as far as recorded."""
    entries = usable(provenance).get("training_data", [])
    names = [item.get("slide") if isinstance(item, dict) else item for item in entries]
    return [name for name in names if name]


def has_seen(provenance: Mapping[str, Any], slide: str) -> bool:
    """Whether a slide of this name, with or without extension, is among those that a model was trained on.

    Pictures of the real sample are known by their file names, too, which are not those of its sections.

    Examples
    --------
    >>> from napari_cpnn.models import has_seen
    >>> has_seen({"training_data": ["C2.jpg", "C3.jpg"]}, "C2"), has_seen({"training_data": ["C2.jpg"]}, "C4")
    (True, False)
    """
    names = training_slides(provenance)
    stems = {*names, *map(_stem, names)}
    known = [shown(slide, _MOST_LETTERS), her2st_section_of(Path(slide)) or ""]
    return any(name in stems or _stem(name) in names for name in known if name)


def is_synthetic(provenance: Mapping[str, Any]) -> bool:
    """Whether a model was trained on tissue that a program has drawn, such as the packaged sample.

    Examples
    --------
    >>> from napari_cpnn.models import is_synthetic
    >>> is_synthetic({"settings": {"tissue": "synthetic tissue"}})
    True
    """
    tissue = usable(provenance).get("settings", {}).get("tissue", "")
    return str(tissue).lower().startswith("synthetic")


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name
