"""Which genes are learned, and how much each counts."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from napari_cpnn.errors import CpnnWarning, GenesError
from napari_cpnn.spots import expression
from napari_cpnn.training.data.gene_choice import choose_genes, gene_weights
from napari_cpnn.training.data.spot_samples import check_samples
from training.prepared import prepare


@pytest.fixture
def parts(world, quick):
    """Two training slides and a held-out one, which must not be looked at."""
    samples = [world.sample(i, name=f"s{i}") for i in (1, 2, 3)]
    return check_samples(samples, quick)[0]


def training_expression(parts):
    return [expression(part.spots, list(part.spots.var_names)) for part in parts if part.train.any()]


def test_the_most_variable_and_the_most_abundant(world, quick, parts):
    values = training_expression(parts)
    assert len(values) == 2
    names = np.array(world.prototypes.genes)
    variance = np.mean([v.var(axis=0) for v in values], axis=0)
    mean = np.concatenate(values).mean(axis=0)
    for kind, score in (("variable", variance), ("abundant", mean)):
        chosen = choose_genes(parts, world.prototypes, quick.replace(genes=kind, n_genes=7))
        assert chosen == list(names[np.sort(np.argsort(-score)[:7])])
    everything = choose_genes(parts, world.prototypes, quick.replace(genes="variable", n_genes=1000))
    assert everything == choose_genes(parts, world.prototypes, quick)


def test_a_difference_between_slides_is_no_variance(world, quick):
    first, second = world.sample(1), world.sample(2)
    for (_, spots), level in ((first, 5), (second, 500)):
        counts = spots.layers["counts"].toarray()
        counts[:, 0] = level * counts.sum(axis=1) / 3000  # a constant share of each spot, another in each slide
        spots.layers["counts"] = sparse.csr_matrix(counts)
    parts = check_samples([first, second], quick.replace(validation="none"))[0]
    settings = quick.replace(genes="variable", n_genes=20, validation="none")
    assert "GENE0" not in choose_genes(parts, world.prototypes, settings)


def test_genes_in_other_case(world, quick, tmp_path):
    slide, spots = world.sample(1)
    as_they_are = prepare([(slide, spots)], world.prototypes, quick.replace(patch_cache="none"), tmp_path)
    expected = as_they_are.genes, np.array(as_they_are.targets), as_they_are.shares
    spots.var_names = ["GENE0", *(gene.capitalize() for gene in spots.var_names[1:])]
    with pytest.raises(GenesError, match=r"share only 1 of 40 gene names: .* 40 of 40 would be shared"):
        prepare([(slide, spots)], world.prototypes, quick.replace(patch_cache="none"), tmp_path)
    settings = quick.replace(patch_cache="none", ignore_gene_case=True)
    found = prepare([(slide, spots)], world.prototypes, settings, tmp_path)
    assert found.genes == expected[0]
    np.testing.assert_array_equal(found.targets, expected[1])
    np.testing.assert_array_equal(found.shares, expected[2])


def test_few_shared_genes_are_said_once(world, quick, tmp_path):
    slide, spots = world.sample(1)
    spots.var_names = [gene if i < 10 else f"OTHER{i}" for i, gene in enumerate(spots.var_names)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepare([(slide, spots)], world.prototypes, quick.replace(patch_cache="none"), tmp_path)
    assert ["share only 10 of 40 gene names" in str(w.message) for w in caught if w.category is CpnnWarning] == [True]


def test_a_list_of_genes(world, quick, parts, tmp_path):
    path = tmp_path / "genes.txt"
    path.write_text("# my genes\nGENE7\n\nGENE3\nNOSUCH\nGENE7\n")
    with pytest.warns(CpnnWarning, match=r"1 of 3 genes in genes\.txt are not shared"):
        chosen = choose_genes(parts, world.prototypes, quick.replace(genes=str(path)))
    assert chosen == ["GENE3", "GENE7"]


def test_a_listed_gene_that_is_hardly_ever_seen_is_left_out_aloud(world, quick, tmp_path):
    slide, spots = world.sample(1)
    counts = spots.layers["counts"].toarray()
    counts[1:, 3] = 0
    spots.layers["counts"] = sparse.csr_matrix(counts)
    (tmp_path / "genes.txt").write_text("GENE3\nGENE7\n")
    settings = quick.replace(genes=str(tmp_path / "genes.txt"), validation="none")
    with pytest.warns(CpnnWarning, match=r"1 of 2 listed genes are in too few training spots"):
        assert choose_genes(check_samples([(slide, spots)], settings)[0], world.prototypes, settings) == ["GENE7"]


def test_losing_most_genes_is_said(world, quick):
    slide, spots = world.sample(1)
    counts = spots.layers["counts"].toarray()
    counts[1:, :21] = 0
    spots.layers["counts"] = sparse.csr_matrix(counts)
    settings = quick.replace(validation="none")
    parts = check_samples([(slide, spots)], settings)[0]
    said = r"Of 40 genes that the prototypes and the spots share, 19 are detected in at least 10% .*min_spot_fraction"
    with pytest.warns(CpnnWarning, match=said):
        assert len(choose_genes(parts, world.prototypes, settings)) == 19


def test_prototypes_that_lack_most_genes_are_named(world, quick, parts):
    note = "Most genes are left out: of 400 detected genes 40 are in at least 200 of the 300 cells (min_cells)"
    lacking = dataclasses.replace(world.prototypes, provenance={"notes": ["another", note]})
    with pytest.warns(CpnnWarning, match=r"^The prototypes lack most genes of their cells: of 400 detected genes 40"):
        choose_genes(parts, lacking, quick)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read \(No such file or directory\); give 'shared'"),
        (b"\xff\xfe\x00\xd8", r"cannot be read \(it is no text\)"),
        (b"TP53\nERBB2\n", r"None of the genes in .* \(ERBB2, TP53\) is shared"),
        (b"", "it is empty"),
    ],
)
def test_a_list_that_cannot_be_used(world, quick, parts, tmp_path, content, message):
    if content is not None:
        (tmp_path / "genes.txt").write_bytes(content)
    with pytest.raises(GenesError, match=message):
        choose_genes(parts, world.prototypes, quick.replace(genes=str(tmp_path / "genes.txt")))


def test_weights_follow_the_truth(quick):
    """Counts of known mean: the reliability is the variance of the true expression over that of the measured."""
    rng = np.random.default_rng(0)
    n, n_genes = 3000, 30
    level = np.geomspace(0.02, 20, n_genes)
    truth = level * np.exp(rng.normal(0, 0.5, (n, n_genes)))
    filler = np.full((n, 1), 5000.0)  # so that the total hardly varies
    counts = rng.poisson(np.c_[truth, filler])
    genes = [f"G{i}" for i in range(n_genes)]
    spots = AnnData(sparse.csr_matrix(counts), layers={"counts": sparse.csr_matrix(counts)})
    spots.var_names = [*genes, "FILLER"]

    class Part:
        pass

    part = Part()
    part.spots, part.counts, part.train = spots, sparse.csr_matrix(counts), np.ones(n, dtype=bool)
    weights = gene_weights([part], genes, seed=0)
    # Another way: the correlation of two independent sequencings of the same tissue.
    again = rng.poisson(np.c_[truth, filler])
    values = [np.log1p(1e4 * c / c.sum(axis=1, keepdims=True)) for c in (counts, again)]
    repeated = [np.corrcoef(values[0][:, g], values[1][:, g])[0, 1] for g in range(n_genes)]
    assert np.abs(weights - np.clip(repeated, 0.05, 1)).max() < 0.1
    assert weights.min() == np.float32(0.05)
    assert weights[-1] > 0.75


def test_weights_come_with_the_data_when_asked_for(world, quick, tmp_path):
    samples = [world.sample(1), world.sample(2)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert prepare(samples, world.prototypes, quick, tmp_path / "a").gene_weights is None
    weighted = prepare(samples, world.prototypes, quick.replace(gene_weights="reliability"), tmp_path / "b")
    assert weighted.gene_weights.shape == (len(weighted.genes),)
    assert weighted.gene_weights.dtype == np.float32
