"""The table of gene names that ``fetch hgnc`` makes from HGNC's file, over HTTP as from a file."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from napari_cpnn.cli import main
from napari_cpnn.counts import fetch_hgnc, find_gene, hgnc, load_aliases
from napari_cpnn.counts.alias_table import own_table
from napari_cpnn.errors import DownloadError

#: Columns of HGNC's complete set, in its order.
HEADER = (
    "hgnc_id symbol name locus_group locus_type status location location_sortable alias_symbol alias_name prev_symbol "
    "prev_name gene_group gene_group_id date_approved_reserved date_symbol_changed date_name_changed date_modified "
    "entrez_id ensembl_gene_id vega_id ucsc_id ena refseq_accession ccds_id uniprot_ids pubmed_id mgd_id rgd_id lsdb "
    "cosmic omim_id mirbase homeodb snornabase bioparadigms_slc orphanet pseudogene.org horde_id merops imgt iuphar "
    "kznf_gene_catalog mamit-trnadb cd lncrnadb enzyme_id intermediate_filament_db rna_central_ids lncipedia gtrnadb "
    "agr mane_select gencc"
)
COLUMNS = HEADER.split()
ROWS = (
    {"hgnc_id": "HGNC:3430", "symbol": "ERBB2", "name": "erb-b2 receptor tyrosine kinase 2", "status": "Approved",
     "location": "17q12", "alias_symbol": '"NEU|HER-2|CD340|HER2"', "prev_symbol": "NGL",
     "ensembl_gene_id": "ENSG00000141736", "omim_id": "164870"},
    {"hgnc_id": "HGNC:7107", "symbol": "MKI67", "name": "marker of proliferation Ki-67", "status": "Approved",
     "alias_symbol": '"MIB-|PPP1R105"', "ensembl_gene_id": "ENSG00000148773"},
    {"hgnc_id": "HGNC:2500", "symbol": "CCN2", "name": "cellular communication network factor 2",
     "status": "Approved", "alias_symbol": "IGFBP8", "prev_symbol": "CTGF", "ensembl_gene_id": "ENSG00000118523"},
    {"hgnc_id": "HGNC:99", "symbol": "GONE~withdrawn", "status": "Entry Withdrawn"},
)  # fmt: skip
TEXT = "\n".join(["\t".join(COLUMNS), *("\t".join(row.get(c, "") for c in COLUMNS) for row in ROWS), ""])
WHOLE = TEXT.encode()


class Answer:
    """What the server sends."""

    def __init__(self) -> None:
        self.body, self.status, self.length = WHOLE, 200, len(WHOLE)
        self.asked: list[str] = []

    def cut(self, at: int) -> None:
        """Send only the first bytes of what is announced."""
        self.body = WHOLE[:at]


@pytest.fixture
def answer(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Answer]:
    """A server on this machine in the place of HGNC's."""
    given = Answer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given.asked.append(self.path)
            self.send_response(given.status)
            self.send_header("Content-Length", str(given.length))
            self.end_headers()
            self.wfile.write(given.body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        monkeypatch.setattr(hgnc, "HGNC_URL", f"http://127.0.0.1:{http.server_port}/hgnc_complete_set.txt")
        monkeypatch.setattr(hgnc, "_LEAST_DOWNLOADED", 3)
        yield given
        http.shutdown()


def left() -> list[str]:
    """Names of all files beside the table."""
    folder = own_table().parent
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_downloaded_file_becomes_the_table(answer: Answer) -> None:
    path = fetch_hgnc()
    assert answer.asked == ["/hgnc_complete_set.txt"]
    assert path == own_table()
    assert left() == [path.name]
    table = load_aliases()
    assert len(table) == 3
    assert table.source == f"HGNC complete set (CC0), SHA-256 {hashlib.sha256(WHOLE).hexdigest()}"
    entry = table.entry("ERBB2")
    assert entry is not None
    assert (entry.ids, entry.previous) == (("ENSG00000141736",), ("NGL",))
    assert entry.aliases == ("NEU", "HER-2", "CD340")  # HER2 is HER-2
    assert [find_gene(name, ["ERBB2", "CTGF"]) for name in ("NGL", "cd340", "CCN2", "IGFBP8")] == [
        "ERBB2", "ERBB2", "CTGF", "CTGF",
    ]  # fmt: skip


def test_a_file_gives_the_same_table_as_the_network(answer: Answer, tmp_path: Path) -> None:
    over_http = fetch_hgnc().read_bytes()
    own_table().unlink()
    (tmp_path / "hgnc_complete_set.txt").write_bytes(WHOLE)
    assert fetch_hgnc(tmp_path / "hgnc_complete_set.txt").read_bytes() == over_http
    assert len(answer.asked) == 1


def test_a_checksum_that_is_given_is_compared(answer: Answer) -> None:
    before = fetch_hgnc(sha256=hashlib.sha256(WHOLE).hexdigest().upper()).read_bytes()
    answer.body = WHOLE.replace(b"NGL", b"XYZ")
    found = hashlib.sha256(answer.body).hexdigest()
    with pytest.raises(DownloadError, match=rf"^The file from http://.* another date: its SHA-256 is {found}\.$"):
        fetch_hgnc(sha256=hashlib.sha256(WHOLE).hexdigest())
    assert own_table().read_bytes() == before
    assert left() == [own_table().name]


@pytest.mark.parametrize("status", [404, 500, 503])
def test_a_server_that_does_not_have_it_is_named_with_what_to_do(answer: Answer, status: int) -> None:
    answer.status = status
    with pytest.raises(DownloadError) as told:
        fetch_hgnc()
    assert f"hgnc_complete_set.txt could not be downloaded (HTTP {status}); download it elsewhere" in str(told.value)
    assert "give the file (--from FILE)" in str(told.value)
    assert left() == []


def test_an_answer_that_ends_early_replaces_nothing(answer: Answer) -> None:
    before = fetch_hgnc().read_bytes()
    answer.cut(len(WHOLE) - 80)  # the length that was announced is that of the whole file
    with pytest.raises(DownloadError, match="could not be downloaded"):
        fetch_hgnc()
    answer.cut(WHOLE.index(b"HGNC:7107"))
    answer.length = len(answer.body)  # cut before it was sent
    with pytest.raises(DownloadError, match=r"^The file from http://.* has 1 approved genes only; it is not whole\.$"):
        fetch_hgnc()
    assert own_table().read_bytes() == before
    assert left() == [own_table().name]


@pytest.mark.parametrize("body", [b"", b"<html>moved</html>", b"\x1f\x8b\x00\xff" * 50, WHOLE.replace(b"status", b"x")])
def test_another_file_is_refused_by_its_address(answer: Answer, body: bytes) -> None:
    answer.body, answer.length = body, len(body)
    with pytest.raises(DownloadError) as told:
        fetch_hgnc()
    assert "\n" not in str(told.value)
    assert hgnc.HGNC_URL in str(told.value)
    assert left() == []


def test_offline_says_how_to_go_on(
    private_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hgnc, "HGNC_URL", "http://127.0.0.1:9/hgnc_complete_set.txt")  # nobody answers
    assert main(["fetch", "hgnc"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "http://127.0.0.1:9/hgnc_complete_set.txt could not be downloaded (ConnectionError)" in told
    assert "give the file (--from FILE)" in told
    assert len(load_aliases()) > 40_000  # that of the package


def test_the_command_takes_the_network_or_a_file(
    answer: Answer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch", "hgnc"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(own_table())
    assert told.err.startswith("napari-cpnn: 3 genes: HGNC complete set (CC0), SHA-256 ")
    (tmp_path / "mine.txt").write_bytes(WHOLE)
    assert main(["fetch", "hgnc", "--from", str(tmp_path / "mine.txt"), "--sha256", "0" * 64]) == 2
    assert "mine.txt is damaged or of another date" in capsys.readouterr().err
    assert main(["fetch", "hgnc", "--from", str(tmp_path / "mine.txt")]) == 0
    assert len(answer.asked) == 1
