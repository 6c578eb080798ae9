"""The packaged sample, and the real one from a mirror folder, a local web server, and no network at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from napari_cpnn import samples
from napari_cpnn.cli import main
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
    for name in ("NAPARI_CPNN_MIRROR", "NAPARI_CPNN_DATA"):
        monkeypatch.delenv(name, raising=False)
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


@pytest.mark.parametrize("name", ["NAPARI_CPNN_MIRROR", "NAPARI_CPNN_DATA"])
def test_a_local_copy_from_the_environment(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert not samples.is_her2st_local()
    monkeypatch.setenv(name, str(public))
    assert samples.is_her2st_local()
    assert files(samples.fetch_her2st(tmp_path / "here") / "set") == CONTENT


def test_a_local_copy_of_the_repository_itself(public: Path, tmp_path: Path) -> None:
    assert files(samples.fetch_her2st(tmp_path / "here", mirror=public / "set") / "set") == CONTENT


def test_what_is_whole_needs_no_network(public: Path, private_cache: Path) -> None:
    samples.fetch_her2st(mirror=public)
    assert samples.is_her2st_local()
    (private_cache / "samples/set/data/a.tsv").write_bytes(CONTENT["data/a.tsv"][:-1])
    assert not samples.is_her2st_local()


def test_one_section(public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {name: name.encode() for name in samples._section_files("C4")}
    for name, content in contents.items():
        (public / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (public / "set" / name).write_bytes(content)
        monkeypatch.setitem(samples._HER2ST.sha256, name, hashlib.sha256(content).hexdigest())
    folder = samples.fetch_her2st(tmp_path / "here", mirror=public, sections=["C4"])
    assert files(folder / "set") == contents
    assert samples.is_her2st_local(folder, ["C4"])
    assert not samples.is_her2st_local(folder)
    assert [path.read_bytes() for path in samples.her2st_section(folder, "C4")] == list(contents.values())
    with pytest.raises(CpnnError, match="no section 'D9'; choose one of B4, C2, C3, C4"):
        samples.fetch_her2st(folder, mirror=public, sections=["D9"])


@pytest.mark.parametrize("options", [("--from", "--to"), ("--mirror", "--out")])
def test_in_the_terminal(
    public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str]
) -> None:
    assert main(["fetch", "her2st", options[0], str(public), options[1], str(tmp_path / "here")]) == 0
    assert files(tmp_path / "here" / "set") == CONTENT
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'here'}\n"
    assert "1 of 2: data/a.tsv" in shown.err
    assert "CC BY 4.0 (Zenodo record 4751624); cite Andersson et al., Nat Commun 12, 6012 (2021)" in shown.err
    assert main(["fetch", "her2st", options[0], str(tmp_path), options[1], str(tmp_path / "there")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"napari-cpnn: data/a.tsv could not be fetched from {tmp_path} (No such file or directory); get it from "
        "http://127.0.0.1:9/data/a.tsv, or leave the folder out to download it."
    )


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
    with pytest.raises(
        DownloadError, match=r"data/a.tsv could not be fetched from .*public \(No such file or directory\)"
    ):
        samples.fetch_her2st(tmp_path / "here", mirror=public)
    assert files(tmp_path / "here") == {}


def test_a_folder_without_the_data_is_told_also_where_nothing_is_needed(
    public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, empty = samples.fetch_her2st(tmp_path / "here", mirror=public), tmp_path / "empty"
    empty.mkdir()
    assert main(["fetch", "her2st", "--from", str(empty), "--to", str(here)]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"napari-cpnn: {empty} holds no file of the real sample, such as data/a.tsv. Nothing was taken from it, since "
        f"those in {here} are whole; leave the folder out, or give one that holds a copy."
    )
    assert files(here / "set") == CONTENT
    monkeypatch.setenv("NAPARI_CPNN_DATA", str(empty))  # a folder for many things, which nobody named for this
    assert samples.fetch_her2st(here) == here


def test_over_the_network(server: Path, tmp_path: Path) -> None:
    assert files(samples.fetch_her2st(tmp_path / "here") / "set") == CONTENT


def test_a_download_that_arrives_damaged(server: Path, tmp_path: Path) -> None:
    (server / "data/img/b.jpg").write_bytes(b"half")
    with pytest.raises(DownloadError, match=r"b.jpg is damaged: its SHA-256 does not match; try again"):
        samples.fetch_her2st(tmp_path / "here")
    assert files(tmp_path / "here") == {"set/data/a.tsv": CONTENT["data/a.tsv"]}  # what was whole before stays


@pytest.mark.usefixtures("server")
def test_a_disk_that_is_full_is_a_sentence(tmp_path: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10_000,) * 2)\n"
        f"from napari_cpnn import samples; samples._HER2ST = samples.{samples._HER2ST!r}\n"
        "from napari_cpnn.cli import main; sys.exit(main(['fetch', 'her2st', '--to', sys.argv[1]]))"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "here")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "data/img/b.jpg could not be fetched" in done.stderr.splitlines()[-1]
    assert "(File too large); check the folder" in done.stderr.splitlines()[-1]
    assert files(tmp_path / "here") == {"set/data/a.tsv": CONTENT["data/a.tsv"]}


def test_a_process_that_is_killed_half_way_leaves_nothing_that_is_taken(public: Path, tmp_path: Path) -> None:
    class Stalling(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(2 * half))
            self.end_headers()
            self.wfile.write(b"x" * half)
            self.wfile.flush()
            ended.wait(60)

        def log_message(self, *args: object) -> None:
            pass

    half, ended, here = 2**18, threading.Event(), tmp_path / "here" / "set" / "data"
    with ThreadingHTTPServer(("127.0.0.1", 0), Stalling) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        source = samples._Source("set", f"http://127.0.0.1:{http.server_port}/", samples._HER2ST.sha256)
        code = (
            f"import sys; from napari_cpnn import samples; samples._HER2ST = samples.{source!r}\n"
            "samples.fetch_her2st(sys.argv[1])"
        )
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "here")])
        try:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (here.is_dir() and any(p.stat().st_size for p in here.iterdir())):
                time.sleep(0.02)
            left = list(here.iterdir())
        finally:
            os.kill(child.pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
            child.wait()
            ended.set()
            http.shutdown()
    assert len(left) == 1
    assert left[0].name.startswith(".napari-cpnn-")
    assert files(samples.fetch_her2st(tmp_path / "here", mirror=public)) == {
        f"set/{name}": content for name, content in CONTENT.items()
    }


@pytest.mark.usefixtures("public")
def test_offline(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"data/a.tsv could not be fetched .*check the network, or give") as caught:
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
        assert samples.her2st_section_of(slide) == samples.her2st_section_of(Path(slide.stem)) == section
    assert samples.her2st_cells(folder).suffix == ".RData"
    assert samples.her2st_section_of(Path("C4.jpg")) is None
    assert samples.her2st_section_of(None) is None


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
