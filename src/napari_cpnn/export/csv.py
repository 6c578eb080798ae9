"""Export maps as CSV: one line per computed patch, written block by block."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cpnn.export.cells import MapCells
from napari_cpnn.export.files import replacing
from napari_cpnn.export.progress import reporter
from napari_cpnn.settings import ExportSettings
from napari_cpnn.texts import csv_texts

if TYPE_CHECKING:
    from napari_cpnn.mapping import CompositionMap


def to_csv(
    cmap: CompositionMap,
    path: str | Path,
    genes: Sequence[str] | None = (),
    settings: ExportSettings | None = None,
    *,
    overwrite: bool = False,
) -> Path:
    """Write one line per computed patch.

    Parameters
    ----------
    cmap
        The map.
    path
        Path of the file, which appears when it is complete.
    genes
        Names of genes; ``None`` for all, by default none.
    settings
        Settings, of which the block size is used.
    overwrite
        Whether to replace an existing file.

    Returns
    -------
    Path
        The file. Columns: ``warning``, in each line, where the tissue is unlike that of the training; ``row``, ``col``;
        ``x_um``, ``y_um`` (centre, slide micrometres); ``dominant_type``; ``out_of_domain``; ``GENE high`` (``GENE
        low``), 1 in places that are marked (:meth:`CompositionMap.mark`); ``signature NAME``, the mean z-score of a
        gene set (:func:`napari_cpnn.signature`); ``share: TYPE`` for each cell type, summing
        to 1; then one column per gene (log1p of counts
        per 10,000). Unknown scores are empty. Texts that a spreadsheet would interpret as a formula are prefixed with
        an apostrophe.

    Raises
    ------
    ExportError
        If nothing is computed, or the file exists or cannot be written.
    GenesError
        If the model does not predict a gene.

    Examples
    --------
    >>> path = nc.to_csv(cmap, "patches.csv", genes=["ERBB2"])
    >>> path.read_text().splitlines()[0].split(",")[:4]
    ['row', 'col', 'x_um', 'y_um']
    """
    import pandas as pd

    settings, path, report = settings or ExportSettings(), Path(path), reporter()
    with replacing(path, overwrite=overwrite) as temporary:
        cells = MapCells.of(cmap)
        chosen, types = cells.genes(genes), list(cells.cell_types)
        written, share_columns = csv_texts(types), csv_texts(f"share: {t}" for t in types)
        centers, dominant, warning = cells.centers_um, cells.dominant, cells.domain_report.warning
        with temporary.open("w", newline="", encoding="utf-8") as file:
            for part in cells.blocks((*types, *chosen), settings.block_mb):
                report(f"Writing {path.name}", part.start / len(cells))
                table = pd.DataFrame(cells.index[part], columns=["row", "col"])
                if warning:  # in each line, so that it survives sorting and filtering
                    table.insert(0, "warning", csv_texts([warning])[0])
                table["x_um"], table["y_um"] = centers[part, 1], centers[part, 0]
                if types:
                    table["dominant_type"] = [written[k] for k in dominant[part]]
                table["out_of_domain"] = cells.out_of_domain[part]
                shares = pd.DataFrame(cells.weights[part].astype(np.float32), columns=share_columns)
                for name, marked in cells.marked.items():
                    table[csv_texts([name])[0]] = marked[part].astype(np.uint8)
                for name, scores in cells.signatures.items():
                    table[csv_texts([name])[0]] = scores[part]
                values = pd.DataFrame(cells.expression(chosen, part), columns=csv_texts(chosen))
                table = pd.concat([table, shares, values], axis=1)
                table.to_csv(file, index=False, header=part.start == 0, float_format="%.8g")
    return path
