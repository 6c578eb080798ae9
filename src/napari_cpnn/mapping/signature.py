"""Signatures: the mean z-score of a set of genes, in each patch of a map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from napari_cpnn.arrays import BoolArray, Float32Array, FloatArray
from napari_cpnn.counts import GeneSet, builtin_gene_sets, gene_list, match_genes, positions, read_gene_sets
from napari_cpnn.errors import GenesError, MappingError
from napari_cpnn.mapping.scored_genes import GeneChoice, Signature
from napari_cpnn.mapping.states import DONE, SKETCH
from napari_cpnn.prototypes import marker_genes

if TYPE_CHECKING:
    from napari_cpnn.mapping.composition_map import CompositionMap
    from napari_cpnn.models import Decoder, Trust

#: Least number of patches over which z-scores mean something.
LEAST_PATCHES = 8
#: A gene whose standard deviation is a smaller part of its mean (or of 1) is constant: float16 rounds to 0.0005.
_CONSTANT = 1e-3
#: Patches decoded at a time.
_BLOCK = 8192
_N_MARKERS = 20
#: Letters of the name of a list of genes.
_LONGEST = 40


def signature(
    cmap: CompositionMap,
    genes: GeneSet | str | Sequence[str],
    name: str = "",
    *,
    least_pcc: float | None = None,
) -> Signature:
    """Score a set of genes in each patch of a map.

    Put the result into ``cmap.signatures`` to have it in exports (``cmap.signatures[one.name] = one``), or pass it to
    :func:`~napari_cpnn.to_figure`.

    Parameters
    ----------
    cmap
        The map.
    genes
        A set, the name of a built-in one (:func:`~napari_cpnn.builtin_gene_sets`), ``"markers of TYPE"`` for the
        genes of the model's prototypes that are specific to a cell type, or names of genes. Synonyms are understood.
    name
        Name of a set that is given as names of genes.
    least_pcc
        Least correlation on held-out spots of a gene that counts, -1 to 1. By default the genes count that have a
        trusted scale (:class:`~napari_cpnn.models.Trust`), or all genes of a model that is not calibrated.

    Raises
    ------
    GenesError
        If there is no such set.
    MappingError
        If no gene of the set can be used, the model is not calibrated although ``least_pcc`` is given, or fewer than
        eight patches are computed.

    Examples
    --------
    >>> one = nc.signature(cmap, ["HER2", "CD3E", "no gene"], "my genes")
    >>> one.used, one.genes.loc["no gene", "reason"]
    (('ERBB2', 'CD3E'), 'The model does not have no gene, and no gene of that name is known')
    >>> one.values.shape == cmap.state.shape
    True
    """
    chosen = gene_set_of(cmap.decoder, genes, name)
    choices = choose_genes(chosen, cmap.genes, cmap.trust, least_pcc)
    used = [choice.gene for choice in require_some(chosen, choices)]
    n_known = int(_known(cmap).sum())
    if n_known < LEAST_PATCHES:
        raise MappingError(f"{n_known} patches are mapped; z-scores need at least {LEAST_PATCHES}.")
    values, constant = _mean_z(cmap, used)
    flat = {gene for gene, still in zip(used, constant, strict=True) if still}
    choices = tuple(
        replace(c, reason="constant on this map") if c.gene in flat and not c.reason else c for c in choices
    )
    require_some(chosen, choices)
    return Signature(chosen, values, choices, rule_text(cmap.trust, least_pcc))


def gene_set_of(decoder: Decoder, genes: GeneSet | str | Sequence[str], name: str = "") -> GeneSet:
    """Return a set as :func:`signature` takes it; :class:`GenesError` if there is none of that name."""
    if isinstance(genes, GeneSet):
        return genes
    if not isinstance(genes, str):
        return GeneSet(name or "genes", tuple(dict.fromkeys(str(gene) for gene in genes)))
    wanted, known = genes.strip().casefold(), list(builtin_gene_sets())
    if wanted.startswith("markers of "):
        known = list(marker_sets(decoder))
    for one in known:
        if one.name.casefold() == wanted:
            return one
    markers = f", and markers of {', '.join(decoder.cell_types)}" if decoder.cell_types else ""
    raise GenesError(f"There is no gene set {genes!r}; there are {'; '.join(one.name for one in known)}{markers}.")


def gene_sets_of(decoder: Decoder, text: str) -> tuple[GeneSet, ...]:
    """Return the sets that one text names, as on the command line.

    Parameters
    ----------
    decoder
        Of a model, for ``"markers of TYPE"``.
    text
        The name of a built-in set, genes separated by commas, or the path of a file: all its sets, or one of them with
        its name after a colon, as in ``"h.all.gmt:HALLMARK_HYPOXIA"``.

    Raises
    ------
    GenesError
        If there is no such set, or the file cannot be read.

    Examples
    --------
    >>> from napari_cpnn.mapping import gene_sets_of
    >>> gene_sets_of(model.decoder(), "HER2, GRB7")
    (GeneSet(name='HER2, GRB7', genes=('HER2', 'GRB7'), source=''),)
    """
    if text.strip().casefold() in {one.name.casefold() for one in builtin_gene_sets()}:
        return (gene_set_of(decoder, text),)
    file, _, name = text.rpartition(":")
    if _is_file(text):
        return read_gene_sets(text)
    if file and _is_file(file):
        sets = tuple(one for one in read_gene_sets(file) if one.name == name)
        if not sets:
            raise GenesError(f"{file} has no gene set {name!r}; see napari-cpnn signatures {file}.")
        return sets
    if "," in text:
        return (gene_list(text, text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."),)
    return (gene_set_of(decoder, text),)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def marker_sets(decoder: Decoder, n: int = _N_MARKERS) -> tuple[GeneSet, ...]:
    """Return up to ``n`` marker genes of each cell type of a model, from its prototypes."""
    if len(decoder.cell_types) < 2:
        return ()
    profiles, names = decoder.prototypes, decoder.cell_types
    table = marker_genes(profiles, names, decoder.genes, {}, n=n, min_fold_change=2.0, min_cp10k=1.0, min_counts=0.0)
    source = "prototypes of the model: higher than in every other cell type, and twice their mean"
    groups = table.groupby("cell_type", sort=False)["gene"]
    return tuple(GeneSet(f"markers of {name}", tuple(genes), source) for name, genes in groups)


def choose_genes(
    gene_set: GeneSet, genes: Sequence[str], trust: Trust | None, least_pcc: float | None = None
) -> tuple[GeneChoice, ...]:
    """Return which genes of a set count; parameters as of :func:`signature`."""
    if least_pcc is not None and not -1 <= least_pcc <= 1:
        raise MappingError(f"The least held-out correlation must be between -1 and 1, not {least_pcc:g}.")
    if least_pcc is not None and trust is None:
        raise MappingError("The model is not calibrated, so the held-out correlations of its genes are not known.")
    matches, seen, choices = match_genes(gene_set.genes, genes, "the model"), dict[str, str](), []
    index = dict(zip(genes, range(len(genes)), strict=True))
    for name in gene_set.genes:
        match = matches[name]
        if match.gene is None:
            choices.append(GeneChoice(name, "", match.note.rstrip(".")))
            continue
        choice = GeneChoice(name, match.gene)
        if trust is not None:
            quantity = index[match.gene]
            choice = replace(choice, held_out_pcc=float(trust.pcc[quantity]), trusted_um=trust.scale(quantity))
        if match.gene in seen:
            choice = replace(choice, reason=f"the same gene as {seen[match.gene]}")
        elif trust is not None:
            choice = replace(choice, reason=_distrust(choice, least_pcc))
        seen.setdefault(match.gene, name)
        choices.append(choice)
    return tuple(choices)


def _distrust(choice: GeneChoice, least_pcc: float | None) -> str:
    if least_pcc is None:
        return "" if math.isfinite(choice.trusted_um) else "no trusted scale"
    return "" if choice.held_out_pcc >= least_pcc else f"held-out PCC {choice.held_out_pcc:.2f}"


def require_some(gene_set: GeneSet, choices: Sequence[GeneChoice]) -> list[GeneChoice]:
    """Return the choices that count; raise a :class:`MappingError` that says why there is none."""
    used = [choice for choice in choices if not choice.reason]
    if not used:
        n_unknown = sum(not choice.gene for choice in choices)
        n_left = len(choices) - n_unknown
        raise MappingError(
            f"No gene of {gene_set.name} can be used: {n_unknown} of {len(choices)} are not predicted by the model, "
            f"{n_left} are constant or below the limit; lower the least held-out correlation to show them anyway."
        )
    return used


def rule_text(trust: Trust | None, least_pcc: float | None) -> str:
    """Describe by which rule genes were chosen."""
    if trust is None:
        return "the model is not calibrated, so that no gene was left out for its score"
    return "genes with a trusted scale" if least_pcc is None else f"genes with a held-out PCC of at least {least_pcc:g}"


_SCORES: WeakKeyDictionary[CompositionMap, tuple[int, tuple[str, ...], Float32Array]] = WeakKeyDictionary()


def mean_z(cmap: CompositionMap, genes: Sequence[str]) -> Float32Array:
    """Return the mean z-score of genes ``(rows, cols)``, as :attr:`Signature.values`; kept while the map is unchanged.

    All NaN while fewer than eight patches are computed, or all genes are constant.

    Raises
    ------
    GenesError
        If the model does not predict a gene.
    """
    key, kept = tuple(genes), _SCORES.get(cmap)
    revision = cmap.revision
    if kept is None or kept[:2] != (revision, key):
        kept = revision, key, _mean_z(cmap, key)[0]
        _SCORES[cmap] = kept
    return kept[2].copy()


def _known(cmap: CompositionMap) -> BoolArray:
    return np.asarray(np.isin(cmap.state, (DONE, SKETCH)))


def _mean_z(cmap: CompositionMap, genes: Sequence[str]) -> tuple[Float32Array, BoolArray]:
    """Return mean z-scores ``(rows, cols)``, and which genes are constant ``(n,)``."""
    known, result = _known(cmap), np.full(cmap.state.shape, np.nan, dtype=np.float32)
    result[known], constant = mean_z_of_rows(cmap.decoder, cmap.rows[known.ravel()], genes)
    return result, constant


def mean_z_of_rows(d: Decoder, values: Float32Array, genes: Sequence[str]) -> tuple[Float32Array, BoolArray]:
    """Return mean z-scores ``(N,)`` over patches or cells, and which genes are constant ``(n,)``.

    Expression is linear in the values of a patch, and so is the mean z-score: only mean and standard deviation need
    the expression of each gene. On the count scale, expression of each gene is computed.

    Parameters
    ----------
    d
        From shares and programs to expression.
    values
        ``(N, C + R)``, known shares and programs of each.
    genes
        The genes of the set.

    Raises
    ------
    GenesError
        If the model does not predict a gene.
    """
    index = positions(d.genes, genes)
    if (index < 0).any():
        raise GenesError(f"The model does not predict {genes[int(np.argmin(index))]}.")
    loadings = np.concatenate([d.prototypes[:, index] * d.alpha[index], d.programs[:, index]]).astype(np.float64)
    nothing = np.full(len(values), np.nan, dtype=np.float32)
    if len(values) < LEAST_PATCHES:
        return nothing, np.zeros(len(genes), dtype=bool)
    if d.scale == "count":
        n = len(d.cell_types)
        z, constant = _z_scores(d.expression(values[:, :n], values[:, n:], list(genes)))
        return (nothing if constant.all() else z), constant
    mean, sd = _moments(values, loadings)
    constant = np.asarray(sd <= _CONSTANT * np.maximum(np.abs(mean + d.beta[index]), 1.0))
    if constant.all():
        return nothing, constant
    share = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, sd)) / (~constant).sum()
    return np.asarray(values @ (loadings @ share) - float(mean @ share), dtype=np.float32), constant


def _z_scores(expression: Float32Array) -> tuple[Float32Array, BoolArray]:
    """Mean z-score ``(N,)`` of expression ``(N, n)``, and which genes are constant ``(n,)``."""
    mean, sd = expression.mean(axis=0, dtype=np.float64), expression.std(axis=0, dtype=np.float64)
    constant = np.asarray(sd <= _CONSTANT * np.maximum(np.abs(mean), 1.0))
    share = np.where(constant, 0.0, 1.0 / np.where(constant, 1.0, sd)) / max(int((~constant).sum()), 1)
    return np.asarray((expression - mean) @ share, dtype=np.float32), constant


def _moments(values: Float32Array, loadings: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation ``(n,)`` of ``values @ loadings``, by blocks."""
    center = values.mean(axis=0, dtype=np.float64)
    squares = np.zeros(loadings.shape[1])
    for start in range(0, len(values), _BLOCK):
        squares += (((values[start : start + _BLOCK] - center) @ loadings) ** 2).sum(axis=0)
    return center @ loadings, np.sqrt(squares / len(values))
