"""What the card of a model says of each gene, beside the scores of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from napari_cpnn.models import CPNN


def with_trust(scores: pd.DataFrame, model: CPNN, *, by_trust: bool = False) -> pd.DataFrame:
    """Add how far to trust each gene, by the calibration of a model, to a table of genes.

    Parameters
    ----------
    scores
        Indexed by gene.
    model
        The model; the table is returned unchanged if it has no calibration.
    by_trust
        Whether to sort by trust: the finest scale first, then the highest correlation.

    Returns
    -------
    DataFrame
        With the columns ``trusted_um`` and ``held_out_pcc`` of :meth:`napari_cpnn.models.Trust.ranking`; NaN for other
        genes.

    Examples
    --------
    >>> import pandas as pd
    >>> from napari_cpnn.evaluation import with_trust
    >>> table = with_trust(pd.DataFrame(index=["ERBB2", "KRT8"]), nc.load_model("breast-her2st"), by_trust=True)
    >>> list(table.columns)
    ['trusted_um', 'held_out_pcc']
    """
    if model.trust is None:
        return scores
    index = {gene: i for i, gene in enumerate(model.genes)}
    ranking = model.trust.ranking(range(len(model.genes) + len(model.cell_types)), model.patch.size_um)
    known = ranking.reindex([index.get(str(gene), -1) for gene in scores.index]).set_axis(scores.index)
    table = scores.assign(**known)
    table.attrs = scores.attrs
    return table.sort_values([*known], ascending=[True, False], kind="stable") if by_trust else table
