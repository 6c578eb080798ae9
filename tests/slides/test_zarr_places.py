"""OME-Zarr in zip files and on a web server: the same pixels as from the folder, and every failure in a sentence."""

from __future__ import annotations

import pickle
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

import napari_cpnn as nc
from napari_cpnn.errors import SlideError
from napari_cpnn.slides.backends.zarr_places import address_of
from ome_zarr_files import IMAGE, write

SHARDED = {"chunks": (100, 100, 1), "shards": (200, 200, 3)}


def zipped(folder: Path, path: Path, inside: str = "", compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, f"{inside}{file.relative_to(folder).as_posix()}")
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("name", "inside"), [("a.ozx", ""), ("a.ome.zarr.zip", "a.ome.zarr/")])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_file_is_the_folder(tmp_path, version, name, inside, compression):
    folder = write(tmp_path / "a.ome.zarr", version, "yxc")
    with nc.open_slide(zipped(folder, tmp_path / name, inside, compression)) as slide:
        with nc.open_slide(folder) as expected:
            assert (slide.level_shapes, slide.mpp) == (expected.level_shapes, expected.mpp)
        assert (slide.name, slide.backend, slide.path) == ("a", "zarr", tmp_path / name)
        for again in (slide, pickle.loads(pickle.dumps(slide))):
            np.testing.assert_array_equal(again.read_region(150, 333, 300, 250), IMAGE[150:450, 333:583])
        (tmp_path / name).unlink()
        with pytest.raises(SlideError, match="moved or deleted"):
            slide.read_region(0, 0, 10, 10)


def test_a_zip_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no slide")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "notes.txt", "notes.txt")
    with pytest.raises(SlideError, match="zip file without an OME-Zarr"):
        nc.open_slide(tmp_path / "a.zip")
    whole = zipped(write(tmp_path / "b.zarr"), tmp_path / "b.ozx")
    whole.write_bytes(whole.read_bytes()[:-500])
    with pytest.raises(SlideError, match="damaged zip file"):
        nc.open_slide(whole)


def test_a_zip_file_that_grows_beyond_measure_is_refused(tmp_path):
    folder = write(tmp_path / "a.zarr")
    with zipfile.ZipFile(zipped(folder, tmp_path / "a.ozx"), "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("0/9.9", bytes(300 * 2**20))
    with pytest.raises(SlideError, match=r"314,572,800 bytes for '0/9\.9'; it is damaged"):
        nc.open_slide(tmp_path / "a.ozx")


def test_a_codec_that_may_run_code_is_refused_in_a_zip_file(tmp_path):
    folder = write(tmp_path / "a.zarr")
    facts = (folder / "0" / ".zarray").read_text()
    (folder / "0" / ".zarray").write_text(re.sub(r'"filters": null', '"filters": [{"id": "pickle"}]', facts))
    with pytest.raises(SlideError, match="codec 'pickle', which is not allowed"):
        nc.open_slide(zipped(folder, tmp_path / "a.ozx"))


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and parts of files as web servers of data do; some requests fail."""

    failing: str | None = None

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if self.failing is not None and re.search(self.failing, self.path):
            self.send_error(500)
        elif not path.is_file():
            self.send_error(404)
        else:
            content = path.read_bytes()
            part = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
            first, last = 0, len(content) - 1
            if part and part[1]:
                first, last = int(part[1]), min(int(part[2] or last), last)
            elif part:
                first = len(content) - int(part[2])
            self.send_response(206 if part else 200)
            self.send_header("Content-Length", str(len(content[first : last + 1])))
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            self.wfile.write(content[first : last + 1])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def served(tmp_path) -> Iterator[str]:
    Handler.failing = None
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Handler(*a, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("version", ["0.4", "0.5", "sharded"])
def test_an_address_is_the_folder(tmp_path, served, version):
    more = SHARDED if version == "sharded" else {}
    folder = tmp_path / "a.ome.zarr"
    if more:
        write_sharded(folder)
    else:
        write(folder, version)
    with nc.open_slide(f"{served}/a.ome.zarr/") as slide, nc.open_slide(folder) as expected:
        assert (slide.name, slide.path, slide.label) == ("a", None, f"{served}/a.ome.zarr")
        assert (slide.level_shapes, slide.mpp) == (expected.level_shapes, expected.mpp)
        for again in (slide, pickle.loads(pickle.dumps(slide)), nc.open_slide(Path(f"{served}/a.ome.zarr"))):
            np.testing.assert_array_equal(again.read_region(150, 333, 300, 250), IMAGE[150:450, 333:583])
            assert again.identity == slide.identity


def write_sharded(folder: Path) -> None:
    """As ``write`` does, with one file for six chunks."""
    import zarr

    write(folder, "0.5", "yxc")
    group = zarr.open_group(str(folder), mode="a")
    for i, level in enumerate((IMAGE, IMAGE[::2, ::2], IMAGE[::4, ::4])):
        group.create_array(str(i), data=level, overwrite=True, **SHARDED)


def test_a_server_that_fails_is_never_a_black_slide(tmp_path, served):
    folder = write(tmp_path / "a.zarr")
    with nc.open_slide(f"{served}/a.zarr") as slide:
        Handler.failing = r"/0/"
        with pytest.raises(SlideError, match=r"a\.zarr cannot be read at row 0, column 0 of level 0"):
            slide.read_region(0, 0, 50, 50)
        Handler.failing = None
        np.testing.assert_array_equal(slide.read_region(0, 0, 50, 50), IMAGE[:50, :50])
        for file in sorted((folder / "0").rglob("*")):
            if file.is_file():
                file.unlink()
        with pytest.raises(SlideError, match=r"a\.zarr/0 has been moved or deleted"):
            slide.read_region(600, 800, 50, 50)


def test_addresses_that_cannot_be_opened(served, monkeypatch):
    with pytest.raises(SlideError, match=r"There is no Zarr at http.*nothing\.zarr"):
        nc.open_slide(f"{served}/nothing.zarr")
    with pytest.raises(SlideError, match=r"is the server reachable\?"):
        nc.open_slide("http://127.0.0.1:9/a.zarr")

    def missing(*_: object, **__: object) -> None:
        raise ImportError("s3fs")

    monkeypatch.setattr(fsspec, "filesystem", missing)
    with pytest.raises(SlideError, match=r'needs s3fs: pip install "napari-cpnn\[remote\]"'):
        nc.open_slide("s3://bucket/a.zarr")


def test_what_a_server_answers_is_said_in_words(served, tmp_path, monkeypatch):
    def turned_away(handler: Handler) -> None:
        handler.send_response(302 if "loop" in handler.path else 500)
        if "loop" in handler.path:
            handler.send_header("Location", handler.path)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(Handler, "do_GET", turned_away)
    with pytest.raises(SlideError, match=r"leads from one address to the next without an end\); is the server"):
        nc.open_slide(f"{served}/loop.zarr")
    with pytest.raises(SlideError, match=r"its server answers 500 Internal Server Error\); is the server"):
        nc.open_slide(f"{served}/a.zarr")


def test_what_is_an_address():
    assert address_of("s3://bucket/a.zarr") == address_of(Path("s3://bucket/a.zarr/")) == "s3://bucket/a.zarr"
    assert address_of("https://x.org/a.zarr?key=1") == "https://x.org/a.zarr?key=1"
    assert [address_of(p) for p in ("a.zarr", "/http:/a", "file:///a", "c:/a", "")] == [None] * 5
