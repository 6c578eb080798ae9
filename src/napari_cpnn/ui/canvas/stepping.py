"""The quantity after, or before, the one on screen. No Qt here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from napari_cpnn.painting import Shown


def neighbour(shown: Shown | None, types: Sequence[str], genes: Sequence[str], by: int) -> Shown | None:
    """Return the gene, or cell type, that follows in its list, around its end; None if there is none.

    From the dominant type or a blend, steps go to the cell types.

    >>> neighbour(Shown("gene", ("B",)), [], ["A", "B"], 1).name
    'A'
    """
    if shown is None:
        return None
    if shown.kind == "gene":
        name = _next(genes, shown.name, by)
    elif shown.kind == "contribution":
        name = _next(types, shown.names[1], by)
        return None if name is None else Shown("contribution", (shown.names[0], name))
    else:
        name = _next(types, shown.name if shown.kind == "type" else "", by)
        if name is None:
            return None
        return dataclasses.replace(shown, kind="type", names=(name,))
    return None if name is None else dataclasses.replace(shown, names=(name,))


def _next(names: Sequence[str], name: str, by: int) -> str | None:
    if not names:
        return None
    if name not in names:
        return names[0 if by > 0 else -1]
    return names[(list(names).index(name) + by) % len(names)]
