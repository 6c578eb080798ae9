"""Values and calls as Python code, in lines that are not too long. No Qt here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_cpnn.geometry import Rect

_WIDTH = 118


def call_code(function: str, *given: str, indent: int = 0) -> str:
    """Return a call: in one line, with its arguments in one line, or with each in its own; it will be indented."""
    inner, width = ", ".join(given), _WIDTH - indent
    if len(function) + len(inner) + 2 <= width:
        return f"{function}({inner})"
    lines = [inner] if len(inner) + 4 <= width else [f"{one}," for one in given]
    return "\n".join([f"{function}(", *(f"    {line}" for line in lines), ")"])


def given_if(condition: bool, code: str) -> list[str]:
    return [code] if condition else []


def literal(text: str) -> str:
    """Return a text as a Python literal in one line, whatever is in it; double quotes where they can be used."""
    written = ascii(text) if not text.isprintable() else repr(text)
    inner = written[1:-1]
    return f'"{inner}"' if written[0] == "'" and '"' not in inner and "\\'" not in inner else written


def value_code(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, (int, float)):
        return number_code(value)
    return literal(str(value)) if isinstance(value, (str, Path)) else repr(value)


def number_code(value: float) -> str:
    return repr(float(value)) if isinstance(value, float) else repr(int(value))


def tuple_code(values: Iterable[float]) -> str:
    return f"({', '.join(number_code(value) for value in values)})"


def whole_um(rects: Sequence[Rect]) -> Rect:
    """Return the smallest rectangle in whole micrometres that holds all."""
    low = [math.floor(min(getattr(rect, name) for rect in rects)) for name in ("y0", "x0")]
    high = [math.ceil(max(getattr(rect, name) for rect in rects)) for name in ("y1", "x1")]
    return Rect(*low, *high)


def names_code(names: Iterable[str]) -> str:
    """Return a list of names as code; a long one fills several lines."""
    found = [literal(name) for name in names]
    one_line = f"[{', '.join(found)}]"
    if len(one_line) <= _WIDTH - 10:
        return one_line
    rows, row = [], "       "
    for name in found:
        if len(row) + len(name) + 2 > _WIDTH:
            rows.append(row)
            row = "       "
        row += f" {name},"
    return "\n".join(["[", *rows, row, "    ]"])


def mapping_code(values: Mapping[str, str]) -> str:
    inner = [f"{literal(key)}: {literal(value)}" for key, value in values.items()]
    line = f"{{{', '.join(inner)}}}"
    return line if len(line) <= _WIDTH - 20 else "\n".join(["{", *(f"    {one}," for one in inner), "}"])
