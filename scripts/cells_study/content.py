"""Does a large nucleus hold more RNA? A spot as the mean of cells that count by their nuclear area."""

from __future__ import annotations

from functools import partial

import numpy as np

import napari_cpnn as nc
from cells_study.her2st import INNER, SECTIONS, Cells, Tested, kept
from cells_study.page import minus, points, section, short, spread, within
from her2st_study.report import markdown

CONTENTS = ("equal", "area")
TESTS = tuple(test for _, test in INNER)
#: Of the exponent, in training.
START = 0.5


def content_section(cells: Cells, encoder: str, patch: nc.PatchSpec, radius_um: float, seeds: int) -> str:
    """Train on one section and test on another, with and without areas, and say what came of it."""
    base = cells.settings(encoder, patch, radius_um=radius_um)
    found: dict[str, dict[str, list[Tested]]] = {content: {} for content in CONTENTS}
    for train, test in INNER:
        for content in CONTENTS:
            for seed in range(seeds):
                settings = base.replace(rna_content=content, seed=seed)
                path = cells.runs / "content" / f"{content}, {train} to {test} {seed}.json"
                one = kept(path, partial(cells.tested, settings, [train], test))
                found[content].setdefault(test, []).append(one)
                print(
                    f"{train} to {test}, {content}, seed {seed}: PCC {one.pcc:.4f}, composition {one.composition:.3f}, "
                    f"exponent {one.exponent:.3f}",
                    flush=True,
                )
    return _section(found, encoder, patch, radius_um, seeds)


def _section(
    found: dict[str, dict[str, list[Tested]]], encoder: str, patch: nc.PatchSpec, radius_um: float, seeds: int
) -> str:
    def values(content: str, key: str, tests: tuple[str, ...] = TESTS) -> np.ndarray:
        return np.mean([[getattr(one, key) for one in found[content][test]] for test in tests], axis=0)

    rows = []
    for content, name in zip(CONTENTS, ("all cells alike", "by nuclear area"), strict=True):
        scores = [spread(values(content, "pcc", (test,)), 3, brief=False) for _, test in INNER]
        scores += [spread(values(content, key), 3, brief=False) for key in ("pcc", "pcc_given_depth", "composition")]
        exponents = ", ".join(spread(values(content, "exponent", (test,)), 2, brief=False) for _, test in INNER)
        rows.append([name, *scores, exponents if content == "area" else "0 (fixed)"])
    gains = []
    for key, words in (("pcc", "PCC"), ("pcc_given_depth", "PCC given depth"), ("composition", "composition")):
        alike, by_area = (values(content, key) for content in CONTENTS)
        gains.append(f"{words} {minus(by_area.mean() - alike.mean(), 3)} ({within(alike, by_area)})")
    ends = " and ".join(short(values("area", "exponent", (test,)).mean()) for test in TESTS)
    left_out = next(name for name in SECTIONS if name not in INNER[0])
    return section(
        "RNA content of cells",
        "`python scripts/results_cells.py --only rna-content`: a spot as the mean of its cells, and with cells that "
        "count as their nuclear area to the power of an exponent that is learnt (`CellSettings.rna_content`). CPNN, "
        f"frozen {encoder}, crops of {patch.size_um:g} um, cells within {radius_um:g} um of a spot, trained on one "
        f"section of patient C and tested on another; {left_out} takes no part. Composition as in *Cells on her2st*; "
        f"± over {seeds} seeds.",
        markdown(
            [
                "cells count", *(f"{a} to {b}: PCC" for a, b in INNER), "mean PCC", "PCC given depth", "composition",
                "exponent, trained on " + ", ".join(a for a, _ in INNER),
            ],
            rows,
        ),
        points(
            f"With areas: {'; '.join(gains)}.",
            f"The exponent starts at {short(START)} and ends at {ends}. These trainings have about 60 steps, in which "
            "it could move by about .3; in the tests, where larger nuclei do hold more RNA, it is found.",
        ),
    )  # fmt: skip
