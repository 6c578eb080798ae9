"""Words of the settings of an estimate in the Prototypes dock."""

from __future__ import annotations

from napari_cpnn.ui.frame import SettingWords

WORDS = SettingWords(
    short={
        "method": "Estimator",
        "min_cells": "Cells that must have a gene",
        "min_genes": "Genes that a cell must have",
    },
    groups=(
        (
            "Cells and types",
            {
                "max_mito": "Mitochondrial share at most",
                "min_cells_per_type": "Cells of a type, below which it is marked",
            },
        ),
        (
            "Regression",
            {
                "prior_counts": "Shrinkage, in counts per gene",
                "max_iterations": "Newton steps at most",
                "device": "Device",
            },
        ),
    ),
    values={"nb": "negative binomial regression", "mean": "mean of the cells"},
)
"""Words of all settings, the same as in the Fine-tune dock."""
