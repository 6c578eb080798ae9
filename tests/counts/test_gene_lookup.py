"""Synonyms of genes: names of the pathology lab, previous symbols, aliases and Ensembl ids."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from napari_cpnn.counts import alias_table as tables
from napari_cpnn.counts import find_gene, load_aliases, match_gene, match_genes, other_names, require_genes
from napari_cpnn.counts.hgnc import fetch_hgnc
from napari_cpnn.errors import DownloadError, GenesError

GENES = (
    "ERBB2",
    "MKI67",
    "CD274",
    "ESR1",
    "PGR",
    "MS4A1",
    "CD3D",
    "CD3E",
    "TP53",
    "TP63",
    "CTGF",
    "NDC80",
    "TTF1",
    "KRT7",
)


@pytest.mark.parametrize(
    ("name", "gene"),
    [
        ("HER2", "ERBB2"), ("HER-2/neu", "ERBB2"), ("her2", "ERBB2"), ("erbb2", "ERBB2"),
        ("ENSG00000141736.14", "ERBB2"),
        ("Ki-67", "MKI67"), ("Ki67", "MKI67"), ("MIB-1", "MKI67"), ("PD-L1", "CD274"), ("PDL1", "CD274"),
        ("B7-H1", "CD274"),
        ("ER", "ESR1"), ("PR", "PGR"), ("CD20", "MS4A1"), ("p53", "TP53"), ("p40", "TP63"), ("p63", "TP63"),
        ("CK7", "KRT7"), ("KNTC2", "NDC80"), ("HEC1", "NDC80"),
        ("CCN2", "CTGF"), ("CTGF", "CTGF"), ("IGFBP8", "CTGF"),  # the list has the previous symbol
    ],
)  # fmt: skip
def test_names_find_their_gene_in_either_direction(name: str, gene: str) -> None:
    assert find_gene(name, GENES) == gene


def test_a_list_of_ensembl_ids_is_searched_by_symbols_and_synonyms() -> None:
    ids = ["ENSG00000148773", "ENSG00000141736.14"]
    assert [find_gene(name, ids) for name in ("HER2", "ERBB2", "Ki67")] == [ids[1], ids[1], ids[0]]


def test_a_name_of_several_genes_is_asked_about_and_never_guessed() -> None:
    match = match_gene("CD3", GENES)
    assert match.gene is None
    assert match.candidates == ("CD3D", "CD3E")
    with pytest.raises(GenesError, match=r"CD3 stands for CD3D, CD3E, CD3G; choose one of CD3D, CD3E\."):
        find_gene("CD3", GENES)
    alone = match_gene("CD8", ["CD8A"], "the model")  # one of two is no answer either
    assert alone.gene is None
    assert alone.note == "CD8 stands for CD8A, CD8B; of these, the model has only CD8A."
    with pytest.raises(GenesError, match="choose one of"):
        find_gene("ALK1", ["ACVRL1", "SLPI", "ALK"])  # an alias of two genes in HGNC


def test_a_gene_that_is_not_there_is_named() -> None:
    assert match_gene("PD-1", GENES, "the model").note == "PD-1 is PDCD1, which the model does not have."
    assert match_gene("GAPDH", GENES, "the model").note == "The model does not have the gene GAPDH."
    assert "does not have nonsense, and no gene of that name is known" in match_gene("nonsense", GENES).note
    for name in ("", " ", "-", "\t", "(", "\n;"):
        assert match_gene(name, GENES).gene is None


def test_a_symbol_keeps_its_gene_and_tells_of_the_antibody_of_that_name() -> None:
    match = match_gene("TTF1", [*GENES, "NKX2-1"])
    assert match.gene == "TTF1"
    assert "NKX2-1" in match.note
    assert find_gene("TTF-1", [*GENES, "NKX2-1"]) == "NKX2-1"
    assert match_gene("TTF-1", GENES).gene is None  # NKX2-1 is not there, and TTF1 is not meant
    assert match_gene("CTGF", GENES).note == ""  # no gene of its own, a previous symbol


def test_an_alias_does_not_take_the_place_of_an_approved_symbol_in_the_list() -> None:
    entry = load_aliases().entry("NKX2-1")
    assert entry is not None
    assert "TTF-1" in entry.aliases
    assert match_gene("NKX2-1", ["TTF1"]).gene is None
    assert match_gene("NKX2-1", ["TITF1"]).gene == "TITF1"  # its previous symbol


def test_many_names_are_matched_as_one_by_one() -> None:
    names = ["HER2", "ERBB2", "erbb2", "CD3", "nonsense", "CCN2", "ENSG00000148773.2"]
    together = match_genes(names, GENES)
    assert {name: match.gene for name, match in together.items()} == {
        name: match_gene(name, GENES).gene for name in names
    }
    assert together["CD3"].candidates == ("CD3D", "CD3E")


def test_all_names_of_the_pathology_table_lead_to_approved_symbols() -> None:
    table, seen = load_aliases(), dict[str, tuple[str, ...]]()
    for symbols, names in tables.pathology_rows():
        for symbol in symbols:
            entry = table.entry(symbol)
            assert entry is not None, symbol
            assert entry.symbol == symbol
        for name in names:
            assert seen.setdefault(tables.folded(name), symbols) == symbols, name
            assert tables.names_in_pathology()[tables.folded(name)] == symbols
    assert len(seen) > 700
    assert len(table) > 40_000


def test_the_middle_column_of_the_pathology_table_is_what_hgnc_ncbi_and_ensembl_say() -> None:
    """The names that were checked: each is another name, or the symbol, of one of the genes of its line."""
    table, n_known, n_own = load_aliases(), 0, 0
    for line in (Path(tables.__file__).parent / "tables" / "names_in_pathology.tsv").read_text("utf-8").splitlines():
        if line.startswith("#"):
            continue
        symbols, known, *own = line.split("\t")
        n_own += len(own)
        for name in filter(None, known.split(";")):
            entries = [*table.named(name.strip()), *filter(None, [table.entry(name.strip())])]
            assert {entry.symbol for entry in entries} & set(symbols.split(", ")), name
            n_known += 1
    assert n_known > 500
    assert n_own > 200


@pytest.mark.parametrize(
    ("name", "symbols"),
    [
        ("CAM5.2", ("KRT7", "KRT8")),  # not KRT18: Am J Clin Pathol 133, 514
        ("MNF116", ("KRT5", "KRT6A", "KRT6B", "KRT6C", "KRT8", "KRT17", "KRT19")),
        ("AE1/AE3", tuple(f"KRT{n}" for n in (1, 2, 3, 4, 5, "6A", "6B", "6C", 7, 8, 10, 14, 15, 16, 19))),
        ("34betaE12", ("KRT1", "KRT5", "KRT10", "KRT14")), ("CD8", ("CD8A", "CD8B")), ("AKT", ("AKT1", "AKT2", "AKT3")),
        ("Ki-67", ("MKI67",)), ("ER", ("ESR1",)), ("PR", ("PGR",)), ("PD-L1", ("CD274",)), ("CD20", ("MS4A1",)),
        ("D2-40", ("PDPN",)), ("HepPar-1", ("CPS1",)), ("p40", ("TP63",)), ("INI1", ("SMARCB1",)), ("CD15", ("FUT4",)),
    ],
)  # fmt: skip
def test_what_names_of_the_lab_mean(name: str, symbols: tuple[str, ...]) -> None:
    assert match_gene(name, []).symbols == symbols


@pytest.mark.parametrize(
    ("symbol", "antibody", "gene"), [("MIB1", "MIB-1", "MKI67"), ("SF1", "SF-1", "NR5A1"), ("PGM1", "PG-M1", "CD68")]
)
def test_the_symbol_of_one_gene_is_never_taken_for_the_protein_of_another(
    symbol: str, antibody: str, gene: str
) -> None:
    assert match_gene(antibody, [gene]).gene == gene
    assert match_gene(symbol, [gene, symbol]).gene == symbol
    only = match_gene(symbol, [gene], "the model")
    assert only.gene is None
    assert only.note == f"{symbol} stands for {symbol}, {gene}; of these, the model has only {gene}."


def test_a_missing_gene_is_reported_with_its_name_in_the_list() -> None:
    with pytest.raises(GenesError, match=r"The model does not have HER2; it has ERBB2\."):
        require_genes(GENES, ["HER2"], "The model")


def test_clear_synonyms_are_offered() -> None:
    found = other_names(GENES)
    assert found["HER2"] == "ERBB2"
    assert found["Ki67"] == "MKI67"
    assert "CD3" not in found
    assert other_names([]) == {}


HEAD = "hgnc_id\tsymbol\tname\tstatus\talias_symbol\tprev_symbol\tensembl_gene_id\n"
ROWS = (
    'HGNC:1\tNEWGENE1\ta gene\tApproved\tNG|"NG-1"|new; odd\tOLDGENE1\tENSG00000000001\n'
    "HGNC:2\tGONE2\tgone\tEntry Withdrawn\tGG\t\t\n"
)  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_CPNN_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_the_table_of_hgnc_replaces_the_packaged_one(cache: Path) -> None:
    assert match_gene("OLDGENE1", ["NEWGENE1"]).gene is None
    (cache / "hgnc.txt").write_text(HEAD + ROWS)
    path = fetch_hgnc(cache / "hgnc.txt")
    assert path.is_relative_to(cache)
    assert [find_gene(name, ["NEWGENE1"]) for name in ("OLDGENE1", "NG", "ENSG00000000001")] == ["NEWGENE1"] * 3
    assert find_gene("NEWGENE1", ["OLDGENE1"]) == "OLDGENE1"
    table = load_aliases()
    assert len(table) == 1
    assert "SHA-256" in table.source
    assert find_gene("HER2", ["ERBB2"]) == "ERBB2"  # the names of the lab stay
    assert fetch_hgnc(cache / "hgnc.txt").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("content", ["", "symbol\tname\nA\tb\n", "\x00\x01", HEAD, "\xff\xfe"])
def test_another_file_is_refused_and_the_table_kept(cache: Path, content: str) -> None:
    (cache / "hgnc.txt").write_text(HEAD + ROWS)
    before = fetch_hgnc(cache / "hgnc.txt").read_bytes()
    (cache / "other.txt").write_bytes(content.encode("latin-1"))
    with pytest.raises(DownloadError):
        fetch_hgnc(cache / "other.txt")
    with pytest.raises(DownloadError, match="SHA-256"):
        fetch_hgnc(cache / "hgnc.txt", sha256="0" * 64)
    assert tables.own_table().read_bytes() == before


def test_a_damaged_table_is_named(cache: Path) -> None:
    path = tables.own_table()
    path.parent.mkdir(parents=True)
    for content in (
        b"no gzip",
        gzip.compress(b"another table"),
        gzip.compress(f"{tables.FORMAT}: x\nA\tb\n".encode())[:-9],
    ):
        path.write_bytes(content)
        with pytest.raises(GenesError, match="gene_aliases"):
            match_gene("HER2", GENES)
