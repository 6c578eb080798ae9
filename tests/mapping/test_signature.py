"""Signatures: mean z-scores of gene sets, against scanpy-like sums by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import napari_cpnn as nc
from napari_cpnn.counts import GeneSet, gene_list, load_aliases
from napari_cpnn.errors import GenesError, MappingError
from napari_cpnn.geometry import Grid
from napari_cpnn.mapping import CompositionMap, choose_genes, marker_sets, mean_z
from napari_cpnn.models import Decoder, Trust
from napari_cpnn.painting import Look, Painter, Shown, auto_range, catch_up, paint, values_of

GENES = ("ERBB2", "GRB7", "MKI67", "CD3D", "CD3E", "FLAT", "ESR1")


def world(n_rows: int = 6, n_cols: int = 7, n_types: int = 3, n_programs: int = 2, seed: int = 0) -> CompositionMap:
    rng = np.random.default_rng(seed)
    t = rng.random((n_types, len(GENES))).astype(np.float32)
    programs = rng.normal(size=(n_programs, len(GENES))).astype(np.float32)
    t[:, 5], programs[:, 5] = 0, 0  # FLAT is its beta everywhere
    decoder = Decoder(
        GENES, tuple(f"T{i}" for i in range(n_types)), t, rng.random(7).astype(np.float32) + 1,
        rng.random(7).astype(np.float32), programs,
    )  # fmt: skip
    tissue = np.ones((n_rows, n_cols), dtype=bool)
    tissue[0] = False
    cmap = CompositionMap(Grid((n_rows, n_cols), 100.0), decoder, tissue)
    patches = np.flatnonzero(tissue)[:-3]  # the last three are not computed yet
    weights = rng.dirichlet(np.ones(n_types), len(patches)) if n_types else np.zeros((len(patches), 0))
    cmap.fill(patches, weights, rng.normal(size=(len(patches), n_programs)))
    return cmap


def by_hand(cmap: CompositionMap, genes: list[str]) -> np.ndarray:
    maps = np.stack([cmap.expression(gene) for gene in genes]).astype(np.float64)
    mean, sd = np.nanmean(maps, axis=(1, 2), keepdims=True), np.nanstd(maps, axis=(1, 2), keepdims=True)
    return ((maps - mean) / sd).mean(axis=0)


@pytest.mark.parametrize(("n_types", "n_programs"), [(3, 2), (3, 0), (0, 4)])
def test_scores_are_the_mean_of_z_scores(n_types: int, n_programs: int) -> None:
    cmap = world(n_types=n_types, n_programs=n_programs)
    one = nc.signature(cmap, ["HER2", "GRB7", "Ki-67"], "mine")
    assert one.used == ("ERBB2", "GRB7", "MKI67")
    np.testing.assert_allclose(one.values, by_hand(cmap, ["ERBB2", "GRB7", "MKI67"]), atol=2e-5)
    assert np.isnan(one.values[0]).all()  # background
    assert np.isnan(one.values).sum() == 7 + 3
    assert abs(np.nanmean(one.values)) < 1e-5
    single = nc.signature(cmap, ["ESR1"])
    assert np.nanstd(single.values) == pytest.approx(1.0, abs=1e-4)


def test_every_gene_is_accounted_for() -> None:
    one = nc.signature(world(), GeneSet("mine", ("HER2", "ERBB2", "FLAT", "PD-L1", "nonsense", "CD3"), "a paper"))
    table = one.genes
    assert list(table.index) == ["HER2", "ERBB2", "FLAT", "PD-L1", "nonsense", "CD3"]
    assert list(table["used"]) == [True, False, False, False, False, False]
    reasons = dict(table["reason"])
    assert reasons["ERBB2"] == "the same gene as HER2"
    assert reasons["FLAT"] == "constant on this map"
    assert reasons["PD-L1"] == "PD-L1 is CD274, which the model does not have"
    assert "no gene of that name is known" in reasons["nonsense"]
    assert "CD3 stands for CD3D, CD3E, CD3G" in reasons["CD3"]
    for part in ("1 of 6 genes (ERBB2)", "not calibrated", "CD3", "Source: a paper"):
        assert part in one.note


def test_constant_genes_do_not_change_the_score() -> None:
    cmap = world()
    with_flat = nc.signature(cmap, ["ERBB2", "FLAT"])
    np.testing.assert_array_equal(with_flat.values, nc.signature(cmap, ["ERBB2"]).values)
    with pytest.raises(MappingError, match="No gene of genes can be used: 0 of 1 are not predicted"):
        nc.signature(cmap, ["FLAT"])
    assert np.isnan(mean_z(cmap, ["FLAT"])).all()


def trust(pcc: list[float], scale: list[float]) -> Trust:
    found = Trust(len(pcc))
    found.pcc.copy_(torch.tensor(pcc))
    found.scale_um.copy_(torch.tensor(scale))
    return found


def test_genes_below_the_limit_are_left_out() -> None:
    calibrated = trust([0.5, 0.2, 0.1, 0.4, 0.3, 0.9, 0.0], [200.0, -1.0, 600.0, -2.0, 200.0, 200.0, -1.0])
    sets = GeneSet("mine", ("ERBB2", "GRB7", "MKI67", "CD3D", "ESR1"))
    default = choose_genes(sets, GENES, calibrated)
    assert [c.gene for c in default if not c.reason] == ["ERBB2", "MKI67"]
    assert {c.reason for c in default if c.reason} == {"no trusted scale"}
    at = choose_genes(sets, GENES, calibrated, 0.2)
    assert [c.gene for c in at if not c.reason] == ["ERBB2", "GRB7", "CD3D"]
    assert at[2].reason == "held-out PCC 0.10"
    assert len([c for c in choose_genes(sets, GENES, calibrated, -1) if not c.reason]) == 5
    with pytest.raises(MappingError, match="not calibrated"):
        choose_genes(sets, GENES, None, 0.2)
    for wrong in (1.5, float("nan")):
        with pytest.raises(MappingError, match="between -1 and 1"):
            choose_genes(sets, GENES, calibrated, wrong)


def test_few_patches_have_no_score() -> None:
    full = world()
    cmap = CompositionMap(full.grid, full.decoder, full.tissue)
    patches = np.flatnonzero(full.tissue)[:7]
    cmap.fill(patches, full.rows[patches, :3], full.rows[patches, 3:])
    with pytest.raises(MappingError, match="7 patches are mapped; z-scores need at least 8"):
        nc.signature(cmap, ["ERBB2"])
    assert np.isnan(mean_z(cmap, ["ERBB2"])).all()
    more = np.flatnonzero(full.tissue)[7:9]
    cmap.fill(more, full.rows[more, :3], full.rows[more, 3:])  # the kept scores are of the earlier state
    assert np.isfinite(mean_z(cmap, ["ERBB2"])).sum() == 9
    with pytest.raises(GenesError, match="does not predict no gene"):
        mean_z(cmap, ["no gene"])


def test_it_is_painted_like_a_gene() -> None:
    cmap, shown = world(), Shown("signature", ("mine", "ERBB2", "GRB7"))
    assert (shown.title, shown.unit, shown.label, shown.has_range) == ("Signature: mine", "mean z-score", "mine", True)
    np.testing.assert_array_equal(values_of(cmap, shown), nc.signature(cmap, ["ERBB2", "GRB7"]).values)
    painter = Painter(cmap.tissue)
    catch_up(painter, cmap)
    low, high = paint(painter, cmap, shown, Look(range_mode="full"), auto_range(shown))
    assert low == pytest.approx(np.nanmin(values_of(cmap, shown)), abs=1e-6)
    assert high == pytest.approx(np.nanmax(values_of(cmap, shown)), abs=1e-6)
    assert np.isfinite(painter.rgba).all()
    assert low < 0 < paint(painter, cmap, shown, Look(scale_um=300.0), auto_range(shown))[1]


def test_exports_contain_scores_and_say_what_they_are(tmp_path: Path) -> None:
    cmap = world()
    cmap.provenance["mpp"] = (0.5, 0.5)
    one = nc.signature(cmap, ["ERBB2", "GRB7"], "HER2/17q12")
    cmap.signatures[one.name] = one
    table = nc.to_anndata(cmap, genes=["ERBB2"])
    index = table.obs["array_row"].to_numpy(), table.obs["array_col"].to_numpy()
    np.testing.assert_allclose(table.obs["signature HER2|17q12"], by_hand(cmap, ["ERBB2", "GRB7"])[index], atol=2e-5)
    assert "mean z-score over the mapped tissue of 2 of 2 genes" in table.uns["napari_cpnn"]["signatures"]
    assert "signature HER2/17q12" in nc.to_csv(cmap, tmp_path / "a.csv").read_text().splitlines()[0]
    assert "signature HER2/17q12" in nc.to_geojson(cmap, tmp_path / "a.geojson").read_text()
    nc.to_ome_zarr(cmap, tmp_path / "a.ome.zarr")
    assert "signature HER2/17q12" in (tmp_path / "a.ome.zarr" / "zarr.json").read_text()
    assert nc.to_figure(cmap, tmp_path / "a.png", [one, "ERBB2"]).stat().st_size > 1000
    part = nc.part_of(cmap, nc.geometry.Rect(100, 0, 400, 300))
    assert np.isfinite(part.signatures[one.name].values).sum() == 9


def test_markers_of_the_prototypes_are_sets() -> None:
    t = np.zeros((2, 7), np.float32)
    t[0, :2], t[1, 2:4], t[:, 6] = 0.3, 0.3, 0.4
    one = Decoder(GENES, ("A", "B"), t, np.ones(7, np.float32), np.zeros(7, np.float32), np.zeros((0, 7), np.float32))
    assert {s.name: set(s.genes) for s in marker_sets(one)} == {
        "markers of A": {"ERBB2", "GRB7"}, "markers of B": {"MKI67", "CD3D"},
    }  # fmt: skip
    assert marker_sets(world(n_types=0).decoder) == ()


def test_built_in_sets_have_approved_symbols_and_a_source() -> None:
    table, sets = load_aliases(), nc.builtin_gene_sets()
    assert len({s.name for s in sets}) == len(sets) > 15
    assert {s.name: len(s.genes) for s in sets}["PAM50, all 50 genes"] == 50
    for one in sets:
        assert re.search(r"doi:10\.\d{4}|PMID \d{8}", one.source), one.name
        for gene in one.genes:
            entry = table.entry(gene)
            assert entry is not None
            assert entry.symbol == gene
    with pytest.raises(GenesError, match=r"There is no gene set 'Hypoxy'; there are .*Hypoxia"):
        nc.signature(world(), "Hypoxy")


#: Number of genes and some of them, as others list the set by the same publication (R packages easier, genefu and
#: Seurat, code of other groups; the abstracts of Staaf et al. and Rice et al.).
AS_PUBLISHED = {
    "Proliferation (PAM50)": (11, "BIRC5 CCNB1 CDC20 CEP55 MKI67 NDC80 NUF2 PTTG1 RRM2 TYMS UBE2C"),
    "PAM50, all 50 genes": (50, "ACTR3B ANLN ORC6 TMEM45B UBE2T GPR160 MMP11 MYC PHGDH"),
    "HER2 amplicon (17q12)": (6, "TCAP PNMT PGAP3 ERBB2 MIEN1 GRB7"),
    "Cell cycle, G1/S": (43, "MCM5 CENPU RPA2 BRIP1 E2F8"),
    "Cell cycle, G2/M": (54, "HMGB2 PIMREG JPT1 GAS2L3 CENPA"),
    "Hypoxia": (15, "VEGFA SLC2A1 PGAM1 ENO1 LDHA TPI1 P4HA1 MRPS17 CDKN3 ADM NDRG1 TUBB6 ALDOA MIF ACOT7"),
    "Interferon, type I": (6, "IFI27 IFI44L IFIT1 ISG15 RSAD2 SIGLEC1"),
    "Interferon gamma": (6, "IDO1 CXCL10 CXCL9 HLA-DRA STAT1 IFNG"),
    "T cell-inflamed": (18, "CCL5 CD276 CMKLR1 PSMB10 HLA-DQA1 TIGIT"),
    "Cytolytic activity": (2, "GZMA PRF1"),
    "Tertiary lymphoid structures": (9, "CD79B CD1D CCR6 LAT SKAP1 CETP EIF1AY RBP5 PTGDS"),
    "Lymphoid chemokines (12)": (12, "CCL2 CCL3 CCL4 CCL5 CCL8 CCL18 CCL19 CCL21 CXCL9 CXCL10 CXCL11 CXCL13"),
    "Fibroblast TGF-beta response": (19, "ACTA2 ADAM12 CCN2 RFLNB SH3PXD2A TNS1 TPM1"),
    "EMT, mesenchymal genes": (13, "VIM CDH2 FOXC2 SNAI1 SNAI2 TWIST1 FN1 ITGB6 MMP2 MMP3 MMP9 SOX10 GCLC"),
    "Angiogenesis": (6, "VEGFA KDR ESM1 PECAM1 ANGPTL4 CD34"),
    "Myeloid inflammation": (6, "IL6 CXCL1 CXCL2 CXCL3 CXCL8 PTGS2"),
}


def test_built_in_sets_have_the_genes_of_their_publication() -> None:
    sets = {one.name: one for one in nc.builtin_gene_sets()}
    for name, (number, members) in AS_PUBLISHED.items():
        assert len(set(sets[name].genes)) == len(sets[name].genes) == number, name
        assert set(members.split()) <= set(sets[name].genes), name
    for name in set(sets) - set(AS_PUBLISHED):
        assert sets[name].source.startswith("Our own"), name
        assert set(sets[name].genes) <= set(sets["PAM50, all 50 genes"].genes)
    grouped = {gene for name in set(sets) - set(AS_PUBLISHED) for gene in sets[name].genes}
    assert len(grouped) == 13 + 4 + 10
    assert set(sets["Proliferation (PAM50)"].genes) <= set(sets["PAM50, all 50 genes"].genes) - grouped


def test_files_of_gene_sets_are_read(tmp_path: Path) -> None:
    gmt, msigdb, plain = tmp_path / "a.gmt", tmp_path / "a.json", tmp_path / "mine.txt"
    gmt.write_text("A\thttp://x\tERBB2\tGRB7\tERBB2\n\nB\t\tCD3D\t\n", encoding="utf-8-sig")
    assert nc.read_gene_sets(gmt) == (GeneSet("A", ("ERBB2", "GRB7"), "http://x"), GeneSet("B", ("CD3D",)))
    facts = {"HALLMARK_X": {"systematicName": "M1", "pmid": "26771021", "geneSymbols": ["ERBB2", "GRB7"]}}
    msigdb.write_text(json.dumps(facts))
    assert nc.read_gene_sets(msigdb) == (GeneSet("HALLMARK_X", ("ERBB2", "GRB7"), "M1; PMID 26771021"),)
    plain.write_text("# mine\nERBB2\nGRB7\n")
    assert nc.read_gene_sets(plain) == (GeneSet("mine", ("ERBB2", "GRB7")),)
    assert gene_list(" ERBB2 GRB7\n").genes == gene_list("ERBB2;GRB7").genes == ("ERBB2", "GRB7")
    assert gene_list("HER-2 neu, GRB7").genes == ("HER-2 neu", "GRB7")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.gmt", b""), ("a.gmt", b"only a name\n"), ("a.gmt", b"\x00\x01"), ("a.gmt", b"\xff\xfe\x00"),
        ("a.json", b"[1]"),
        ("a.json", b"{"), ("a.json", b'{"a": {"genes": []}}'), ("a.json", b'{"a": 1}'), ("a.txt", b"\n\n"),
        ("a.json", b'{"a": {"geneSymbols": "ERBB2"}}'),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_a_sentence(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(GenesError) as told:
        nc.read_gene_sets(tmp_path / name)
    assert str(told.value).count("\n") == 0
    with pytest.raises(GenesError, match="is not a file"):
        nc.read_gene_sets(tmp_path / "absent.gmt")
