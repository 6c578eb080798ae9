"""Words and numbers of the sections of docs/results.md about cells."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from cells_study.her2st import SECTIONS, Tested

#: Scores by section and seed.
Runs = dict[str, list[Tested]]
#: Of lines of the page.
WIDTH = 140


def section(title: str, *parts: str) -> str:
    """A section of the page; paragraphs are wrapped, tables and lists stay as they are."""
    wrapped = [part.strip() if part.startswith(("|", "- ")) else textwrap.fill(part, WIDTH) for part in parts]
    return "\n\n".join([f"## {title}", *wrapped]) + "\n"


def points(*texts: str) -> str:
    """A list, each point wrapped."""
    return "\n".join(textwrap.fill(f"- {text}", WIDTH, subsequent_indent="  ") for text in texts)


def short(value: float, digits: int = 2) -> str:
    """A number below one as the text of the page has it, such as .25."""
    return f"{value:.{digits}f}".replace("0.", ".", 1)


def over_seeds(of: Runs, key: str, sections: Sequence[str] = SECTIONS) -> np.ndarray:
    """Mean over sections of each seed."""
    return np.mean([[getattr(one, key) for one in of[name]] for name in sections], axis=0)


def spread(values: np.ndarray, digits: int, brief: bool = True) -> str:
    """Mean and, of several seeds, standard deviation."""
    words = short if brief else (lambda value, n: f"{value:.{n}f}")
    return words(values.mean(), digits) + (f" ± {words(values.std(ddof=1), digits)}" if len(values) > 1 else "")


def minus(value: float, digits: int) -> str:
    """A difference, with its sign."""
    return ("+" if value >= 0 else "-") + short(abs(value), digits)


def within(one: np.ndarray, other: np.ndarray) -> str:
    """Whether the ranges of two heads over their seeds overlap."""
    apart = one.min() > other.max() or other.min() > one.max()
    return "the ranges of the seeds do not overlap" if apart else "the ranges of the seeds overlap"
