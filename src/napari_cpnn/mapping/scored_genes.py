"""Result of scoring a set of genes on a map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cpnn.arrays import Float32Array
from napari_cpnn.counts import GeneSet

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class GeneChoice:
    """A gene of a set, and whether it counts.

    Parameters
    ----------
    name
        Its name in the set.
    gene
        The gene of the model; empty if there is none.
    reason
        Why it is left out; empty if it is used.
    held_out_pcc, trusted_um
        Correlation on held-out spots, and finest trusted scale in um (infinity: none); NaN where not known.
    """

    name: str
    gene: str
    reason: str = ""
    held_out_pcc: float = math.nan
    trusted_um: float = math.nan


@dataclass(frozen=True, eq=False)
class Signature:
    """Mean z-score of a set of genes in each patch.

    Parameters
    ----------
    gene_set
        The set.
    values
        ``(rows, cols)`` float32: the mean of the z-scores of the used genes; NaN where the map is not computed. The
        z-score of a gene is its distance from its mean over the mapped tissue, in standard deviations (of all patches,
        ``ddof=0``): 0 is the average tissue of this section, so that values of two sections are not comparable.
    choices
        Every gene of the set, used or not, with the reason.
    rule
        The rule by which genes were chosen, such as ``"held-out PCC at least 0.2"``.
    """

    gene_set: GeneSet
    values: Float32Array
    choices: tuple[GeneChoice, ...]
    rule: str

    @property
    def name(self) -> str:
        return self.gene_set.name

    @property
    def used(self) -> tuple[str, ...]:
        """Genes that count, as spelt by the model."""
        return tuple(choice.gene for choice in self.choices if not choice.reason)

    @property
    def genes(self) -> pd.DataFrame:
        """Table of all genes of the set: ``gene``, ``used``, ``reason``, ``held_out_pcc``, ``trusted_um``, by name."""
        import pandas as pd

        columns = ["gene", "reason", "held_out_pcc", "trusted_um"]
        rows = [[getattr(choice, column) for column in columns] for choice in self.choices]
        table = pd.DataFrame(rows, columns=columns, index=pd.Index([c.name for c in self.choices], dtype=object))
        table.insert(1, "used", table["reason"] == "")
        return table

    @property
    def note(self) -> str:
        """What was averaged, in a sentence or two."""
        left = [choice for choice in self.choices if choice.reason]
        out = f" Left out: {', '.join(f'{c.name} ({c.reason})' for c in left)}." if left else ""
        source = f" Source: {self.gene_set.source}." if self.gene_set.source else ""
        genes = f"{len(self.used)} of {len(self.choices)} genes ({', '.join(self.used)})"
        return f"{self.name}: mean z-score over the mapped tissue of {genes}; {self.rule}.{out}{source}"
