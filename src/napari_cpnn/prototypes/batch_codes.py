"""Replace batch names, which may identify donors, by neutral codes before they are saved."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_cpnn.prototypes.statistics import GroupStatistics

_log = logging.getLogger(__name__)

#: Start of the note that lists batches which cannot be compared.
ISLANDS = "The batches fall into sets without a common cell type"


def codes_of(names: Iterable[str]) -> dict[str, str]:
    """Return a code for each name, in alphabetical order.

    >>> codes_of(["patient B", "patient A"])
    {'patient A': 'batch 1', 'patient B': 'batch 2'}
    """
    return {name: f"batch {number}" for number, name in enumerate(sorted(names), start=1)}


def coded_statistics(stats: GroupStatistics) -> GroupStatistics:
    """Return statistics with batch names replaced by codes; the mapping is written only to the log."""
    codes = codes_of(stats.batches)
    _log.info("batches: %s", ", ".join(f"{code} is {name}" for name, code in codes.items()))
    return replace(stats, batches=tuple(codes[name] for name in stats.batches))


def coded_provenance(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return provenance with batch names, as stored by earlier versions, replaced by codes."""
    batches, fit = provenance.get("batches"), provenance.get("fit")
    tables = [fit.get(key) for key in ("batch_scales", "background_shares")] if isinstance(fit, dict) else []
    names = {str(name) for table in (batches, *tables) if isinstance(table, dict) for name in table}
    codes = codes_of(names)
    if names <= {"all", *codes.values()}:
        return provenance
    coded = {**provenance, "batches": _renamed(batches, codes)}
    if isinstance(fit, dict):
        scales = {key: _renamed(fit[key], codes) for key in ("batch_scales", "background_shares") if key in fit}
        coded["fit"] = {**fit, **scales}
    if isinstance(provenance.get("notes"), list):
        coded["notes"] = [_coded_note(str(note), codes) for note in provenance["notes"]]
    return coded


def _renamed(table: Any, codes: dict[str, str]) -> Any:
    return {codes[str(name)]: value for name, value in table.items()} if isinstance(table, dict) else table


def _coded_note(note: str, codes: dict[str, str]) -> str:
    if not note.startswith(ISLANDS) or "(" not in note:
        return note
    start, end = note.index("(") + 1, note.rindex(")")
    sets = [[_coded_name(name, codes) for name in one.split(", ")] for one in note[start:end].split("; ")]
    return note[:start] + "; ".join(", ".join(names) for names in sets) + note[end:]


def _coded_name(name: str, codes: dict[str, str]) -> str:
    """Return the code of a name in the note, which may end in ``and more``; unknown names are not repeated."""
    bare = name.removesuffix(" and more")
    return codes.get(bare, "another batch") + name[len(bare) :]
