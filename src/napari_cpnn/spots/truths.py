"""Parse yes/no columns such as ``in_tissue``, as written by programs and spreadsheets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_cpnn.decimals import parse_decimal
from napari_cpnn.errors import SpotsError

_YES = {"true", "t", "yes", "y", "wahr", "ja", "vrai", "oui", "verdadero", "vero", "verdadeiro", "waar"}
_NO = {"false", "f", "no", "n", "falsch", "nein", "faux", "non", "falso", "onwaar", "nee"}
_EMPTY = {"", "nan", "na", "none", "null", "<na>"}
TRUTH_WORDS = frozenset(_YES | _NO)
"""Words for yes and no in lower case."""


def truths(values: Any, what: str) -> npt.NDArray[np.bool_]:
    """Return which values of a column mean yes; empty values mean no.

    Parameters
    ----------
    values
        Booleans, 1 and 0, or yes/no words in common languages.
    what
        Name of the column in the message.

    Raises
    ------
    SpotsError
        If values mean neither; the message shows them.
    """
    import pandas as pd

    codes, unique = pd.factorize(pd.Series(np.asarray(values).ravel()), use_na_sentinel=True)
    said = [_truth(value) for value in unique]
    unknown = [str(value)[:30] for value, truth in zip(unique, said, strict=True) if truth is None]
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise SpotsError(f"{what} has values that mean neither yes nor no ({shown}); write 1 and 0.")
    return np.array([*map(bool, said), False])[codes]


def _truth(value: Any) -> bool | None:
    text = (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip().casefold()
    if text in _YES:
        return True
    if text in _NO or text in _EMPTY:
        return False
    try:
        return {1.0: True, 0.0: False}.get(parse_decimal(text))
    except ValueError:
        return None
