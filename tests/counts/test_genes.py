"""Gene names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_cpnn.counts.genes import (
    is_mitochondrial,
    look_like_ensembl,
    named_as,
    positions,
    require_genes,
    shared_genes,
    symbols_beside,
)
from napari_cpnn.errors import CpnnWarning, GenesError

NAMES = st.lists(st.sampled_from([f"G{i}" for i in range(12)]), max_size=20)


@given(NAMES, NAMES)
def test_positions_point_at_the_first_of_each(genes: list[str], wanted: list[str]) -> None:
    for gene, i in zip(wanted, positions(genes, wanted), strict=True):
        assert i == (genes.index(gene) if gene in genes else -1)


@given(NAMES, NAMES)
def test_shared_genes_are_the_intersection_in_the_order_of_the_first(first: list[str], second: list[str]) -> None:
    common, shorter = set(first) & set(second), min(len(set(first)), len(set(second)))
    if not common or len(common) < min(5, shorter / 2):
        with pytest.raises(GenesError):
            shared_genes(first, second, ("one", "two"))
        return
    shared = shared_genes(first, second, ("one", "two"))
    assert set(shared) == common
    assert len(set(shared)) == len(shared)
    assert shared == sorted(shared, key=first.index)


MANY = [f"GENE{i}" for i in range(1000)]


def test_hardly_any_shared_gene_is_refused_and_few_are_said() -> None:
    other = [f"X{i}" for i in range(1000)]
    for n in (1, 4):
        with pytest.raises(GenesError, match=rf"share only {n} of 16 gene names: for instance GENE{n}"):
            shared_genes(MANY[:16], [*MANY[:n], *other], ("the model", "the spots"))
    with pytest.raises(GenesError, match="share only 9 of 1,000 gene names"):
        shared_genes(MANY, [*MANY[:9], *other], ("the model", "the spots"))
    with pytest.warns(CpnnWarning, match=r"only 200 of 1,000 gene names: .* GENE200, .* against X0, X1, X2\."):
        assert shared_genes(MANY, [*MANY[:200], *other], ("the model", "the spots")) == MANY[:200]
    assert shared_genes(MANY, [*MANY[:300], *other], ("the model", "the spots")) == MANY[:300]
    assert shared_genes(MANY, MANY[5:25], ("the model", "the spots")) == MANY[5:25]  # a panel, all of it known


def test_upper_and_lower_case_are_offered() -> None:
    mouse = [gene.capitalize() for gene in MANY]
    said = (
        r"with upper and lower case ignored, 1,000 of 1,000 would be shared: set ignore_gene_case \(--ignore-gene-case"
    )
    with pytest.raises(GenesError, match=said):
        shared_genes(MANY, [MANY[0], *mouse[1:]], ("the model", "the spots"))
    with pytest.raises(GenesError, match=said):  # another species' names, of which some are the same by chance
        shared_genes(MANY, [*MANY[:50], *mouse[50:]], ("the model", "the spots"))
    with pytest.warns(CpnnWarning, match=said):
        shared_genes(MANY, [*MANY[:600], *mouse[600:]], ("the model", "the spots"))
    assert shared_genes(MANY, [*MANY[:950], *mouse[950:]], ("the model", "the spots")) == MANY[:950]


def test_names_in_other_case_are_taken_where_they_mean_one_gene() -> None:
    assert named_as(["ERBB2", "x"], None, ["Erbb2", "Cd3e"], None, ignore_case=True) == ["Erbb2", "x"]
    assert named_as(["ERBB2"], None, ["Erbb2"], None) == ["ERBB2"]
    assert named_as(["ERBB2"], None, ["Erbb2", "erbb2"], None, ignore_case=True) == ["ERBB2"]  # which of the two?
    assert named_as(["ERBB2", "Erbb2"], None, ["Erbb2"], None, ignore_case=True) == ["ERBB2", "Erbb2"]
    assert named_as(["ERBB2", "ErbB2"], None, ["Erbb2"], None, ignore_case=True) == ["Erbb2", "ErbB2"]


def test_ids_against_symbols_is_said() -> None:
    ids = ["ENSG00000141736", "ENSG00000075624.17"]
    with pytest.raises(GenesError, match=r"the former has symbols, the latter Ensembl ids; convert one"):
        shared_genes(["ERBB2", "ACTB"], ids, ("the model", "the spots"))
    with pytest.raises(GenesError, match="for instance ERBB2 against Erbb2"):
        shared_genes(["ERBB2"], ["Erbb2"], ("the model", "the spots"))


def test_what_looks_like_ensembl() -> None:
    assert look_like_ensembl(["ENSG00000141736", "ENSG00000075624.17", "ERBB2"])
    assert look_like_ensembl(["ENSMUSG00000062312"])
    assert not look_like_ensembl(["ENSA", "ERBB2", "ENSG1"])
    assert not look_like_ensembl([])


def test_mitochondrial() -> None:
    assert is_mitochondrial(["MT-CO1", "mt-Nd1", "MTOR", "MT1X", "ERBB2"]).tolist() == [True, True, False, False, False]


def test_missing_genes_are_named() -> None:
    assert require_genes(["A", "B", "C"], ["C", "A"], "The model").tolist() == [2, 0]
    with pytest.raises(GenesError, match=r"The model does not have X, Y\.$"):
        require_genes(["A"], ["X", "A", "Y"], "The model")
    with pytest.raises(GenesError, match=r"does not have ERBB2, Actb; it has Erbb2\.$"):
        require_genes(["Erbb2"], ["ERBB2", "Actb"], "The model")
    with pytest.raises(GenesError, match=r"does not have ERBB2; its genes are Ensembl ids\.$"):
        require_genes([f"ENSG{i:011d}" for i in range(3)], ["ERBB2"], "The model")
    with pytest.raises(GenesError, match=r"does not have ENSG00000000001; it has ENSG00000000001\.7\.$"):
        require_genes(["ENSG00000000001.7"], ["ENSG00000000001"], "The model")
    with pytest.raises(GenesError, match=r"does not have 0, 1, 2, 3, 4 and 2 more\.$"):
        require_genes(["A"], list("0123456"), "The model")


IDS = [f"ENSG{i:011d}" for i in range(6)]


def test_symbols_beside_ensembl_ids_are_found_and_a_gene_without_one_keeps_its_id():
    symbols = ["ERBB2", "CD3E", float("nan"), "ACTB", "", "COL1A1"]
    found = symbols_beside(IDS, {"length": [1] * 6, "feature_name": symbols})
    assert found == ["ERBB2", "CD3E", IDS[2], "ACTB", IDS[4], "COL1A1"]


def test_no_symbols_where_there_are_none():
    assert symbols_beside(["ERBB2", "CD3E"], {"feature_name": ["a", "b"]}) is None  # these are symbols already
    assert symbols_beside(IDS, {"length": [1] * 6}) is None
    assert symbols_beside(IDS, {"gene_ids": IDS}) is None


def test_ids_and_symbols_meet_where_one_side_has_both():
    symbols = ["ERBB2", "CD3E", "ACTB"]
    # spots named by ids (with versions), prototypes with symbols and ids
    assert named_as([IDS[2] + ".17", IDS[0], IDS[5]], None, symbols, IDS[:3]) == ["ACTB", "ERBB2", IDS[5]]
    # spots with symbols and ids, prototypes named by ids
    assert named_as(symbols, IDS[:3], [IDS[1], IDS[4]], None) == ["ERBB2", IDS[1], "ACTB"]
    # an old symbol of the same gene
    assert named_as(["HER2", "CD3E"], IDS[:2], symbols, IDS[:3]) == ["ERBB2", "CD3E"]
    # neither side has both
    assert named_as(IDS[:3], None, symbols, None) == IDS[:3]
    assert named_as(symbols, None, IDS[:3], None) == symbols


def test_two_genes_never_take_one_name():
    assert named_as(["ERBB2", "HER2"], [IDS[0], IDS[0]], ["ERBB2"], [IDS[0]]) == ["ERBB2", "HER2"]
    assert named_as(["HER2", "ERBB2"], [IDS[0], IDS[0]], ["ERBB2"], [IDS[0]]) == ["HER2", "ERBB2"]
    assert named_as([IDS[0], IDS[0] + ".2"], None, ["ERBB2"], [IDS[0]]) == ["ERBB2", IDS[0] + ".2"]


@pytest.mark.parametrize(
    "column",
    ["SYMBOL", "Symbol", "gene_name", "gene_symbols", "feature_name", "hgnc_symbol", "GeneSymbol", "Gene.Symbol",
     "gene symbol", "Gene Name", "GENE-NAME", "HGNC.symbol", "external_gene_name", "names"],
)  # fmt: skip
def test_symbols_are_found_under_any_name_in_use(column):
    ids = [f"ENSG{i:011d}" for i in range(4)]
    columns = {"Length": [1, 2, 3, 4], "gene_ids": ids, column: ["ERBB2", "nan", "CD3E", "EPCAM"]}
    assert symbols_beside(ids, columns) == ["ERBB2", ids[1], "CD3E", "EPCAM"]


def test_the_likeliest_of_several_columns_counts():
    ids = [f"ENSG{i:011d}" for i in range(3)]
    columns = {"Genes": ["x", "y", "z"], "Feature_Name": ["ERBB2", "CD3E", "EPCAM"], "SYMBOL": [""] * 3}
    assert symbols_beside(ids, columns) == ["ERBB2", "CD3E", "EPCAM"]
