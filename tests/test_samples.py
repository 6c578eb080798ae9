"""The packaged sample, and the real one from a mirror folder, a local web server, and no network at all."""

from __future__ import annotations

import hashlib
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from napari_cpnn import samples
from napari_cpnn.errors import CpnnError, DownloadError

CONTENT = {"data/a.tsv": b"counts" * 1000, "data/img/b.jpg": b"image" * 5000}


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder laid out as the public files are, in place of the real 30 MB; the catalogue knows their hashes."""
    folder = tmp_path / "public"
    for name, content in CONTENT.items():
        (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "set" / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    source = samples._Source("set", "http://127.0.0.1:9/", hashes)  # port 9: nobody answers
    monkeypatch.setattr(samples, "_HER2ST", source)
    monkeypatch.setattr(samples, "_WU2021", samples._Source("none", "", {}))
    monkeypatch.delenv("NAPARI_CPNN_MIRROR", raising=False)
    return folder


@pytest.fixture
def server(public: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same files over HTTP."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(public / "set"))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{http.server_port}/"
        monkeypatch.setattr(samples, "_HER2ST", samples._Source("set", base, samples._HER2ST.sha256))
        yield public / "set"
        http.shutdown()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_from_a_mirror_into_the_users_cache(public: Path, private_cache: Path) -> None:
    seen = []
    folder = samples.fetch_her2st(mirror=public, progress=lambda name, i, n: seen.append((name, i, n)))
    assert folder == private_cache / "samples"
    assert files(folder / "set") == CONTENT
    assert seen == [("data/a.tsv", 0, 2), ("data/img/b.jpg", 1, 2)]


def test_mirror_from_the_environment(public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_CPNN_MIRROR", str(public))
    assert files(samples.fetch_her2st(tmp_path / "here") / "set") == CONTENT


def test_what_is_there_and_whole_is_kept_and_what_is_damaged_is_fetched_again(public: Path, tmp_path: Path) -> None:
    folder = samples.fetch_her2st(tmp_path / "here", mirror=public)
    (folder / "set/data/a.tsv").write_bytes(b"damaged")
    (public / "set/data/img/b.jpg").unlink()  # not needed: the copy is whole
    samples.fetch_her2st(folder, mirror=public)
    assert files(folder / "set") == CONTENT


def test_a_damaged_mirror_leaves_nothing(public: Path, tmp_path: Path) -> None:
    (public / "set/data/a.tsv").write_bytes(b"other")
    with pytest.raises(DownloadError, match=r"a.tsv is damaged: its SHA-256 does not match"):
        samples.fetch_her2st(tmp_path / "here", mirror=public)
    assert files(tmp_path / "here") == {}


def test_a_mirror_without_the_file(public: Path, tmp_path: Path) -> None:
    shutil.rmtree(public)
    with pytest.raises(DownloadError, match=r"data/a.tsv could not be fetched from .*public \(FileNotFoundError\)"):
        samples.fetch_her2st(tmp_path / "here", mirror=public)
    assert files(tmp_path / "here") == {}


def test_over_the_network(server: Path, tmp_path: Path) -> None:
    assert files(samples.fetch_her2st(tmp_path / "here") / "set") == CONTENT


def test_a_download_that_arrives_damaged(server: Path, tmp_path: Path) -> None:
    (server / "data/img/b.jpg").write_bytes(b"half")
    with pytest.raises(DownloadError, match=r"b.jpg arrived damaged"):
        samples.fetch_her2st(tmp_path / "here")
    assert files(tmp_path / "here") == {"set/data/a.tsv": CONTENT["data/a.tsv"]}  # what was whole before stays


@pytest.mark.usefixtures("public")
def test_offline(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"data/a.tsv could not be fetched .*check the network") as caught:
        samples.fetch_her2st(tmp_path / "here")
    assert "\n" not in str(caught.value)
    assert files(tmp_path / "here") == {}


def test_an_interrupted_copy_leaves_nothing(public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_from: Path, to: Path) -> None:
        to.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(samples.shutil, "copyfile", stop)
    with pytest.raises(KeyboardInterrupt):
        samples.fetch_her2st(tmp_path / "here", mirror=public)
    assert files(tmp_path / "here") == {}


def test_the_catalogue_is_that_of_the_data_folder(shared_data: Path, tmp_path: Path) -> None:
    sums = dict(reversed(line.split("  ")) for line in (shared_data / "SHA256SUMS").read_text().splitlines())
    for source in (samples._HER2ST, samples._WU2021):
        for name, sha256 in source.sha256.items():
            assert sums[f"{source.folder}/{name}"] == sha256
    folder = samples.fetch_her2st(tmp_path / "real", mirror=shared_data)
    for section in samples.HER2ST_SECTIONS:
        slide, counts, positions = samples.her2st_section(folder, section)
        assert slide.suffix == ".jpg"
        assert section in counts.name
        assert section in positions.name
    assert samples.her2st_cells(folder).suffix == ".RData"


def test_paths_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CpnnError, match="no section 'D9'; choose one of B4, C2, C3, C4"):
        samples.her2st_section(tmp_path, "D9")
    with pytest.raises(CpnnError, match=r"is missing; run `napari-cpnn fetch her2st`"):
        samples.her2st_section(tmp_path, "C4")
    with pytest.raises(CpnnError, match=r"is missing; run `napari-cpnn fetch her2st`"):
        samples.her2st_cells(tmp_path)


def test_cache_folder(private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert samples.cache_folder() == private_cache
    monkeypatch.delenv("NAPARI_CPNN_CACHE")
    assert samples.cache_folder().name == "napari-cpnn"


def test_sample_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "repo" / "src" / "napari_cpnn"
    package.mkdir(parents=True)
    monkeypatch.setattr(samples, "__file__", str(package / "samples.py"))
    with pytest.raises(CpnnError, match="has no sample data"):
        samples.sample_folder()
    for folder in (tmp_path / "repo" / "sample_data", package / "sample_data"):  # a checkout, then a wheel
        folder.mkdir()
        (folder / "slide.tiff").write_bytes(b"")
        assert samples.sample_folder() == folder
