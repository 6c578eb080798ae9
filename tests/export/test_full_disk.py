"""A disk that is full, or a limit of file sizes, while a map is exported: a sentence, exit code 2, nothing left."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from map_world import World
from napari_cpnn.errors import ExportError
from napari_cpnn.export import to_figure, to_h5ad
from napari_cpnn.export.progress import reporting
from napari_cpnn.settings import ExportSettings

_EXPORT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from napari_cpnn.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="no limit of file sizes")
@pytest.mark.parametrize(
    "limit", [pytest.param(0, marks=pytest.mark.slow), 3000, pytest.param(20_000, marks=pytest.mark.slow)]
)
def test_a_limit_of_file_sizes_ends_an_export_in_a_sentence(world: World, tmp_path: Path, limit: int) -> None:
    world.cmap.save(tmp_path / "map.zarr")
    out = tmp_path / "out"
    out.mkdir()
    arguments = ["export", str(tmp_path / "map.zarr"), "--out", str(out / "t.h5ad")]
    done = subprocess.run(
        [sys.executable, "-c", _EXPORT, str(limit), *arguments],
        capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "NAPARI_CPNN_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == f"napari-cpnn: {out / 't.h5ad'} could not be written: File too large."
    assert not list(out.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk at hand")
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
@pytest.mark.parametrize("limit", [0, 1000, 4000, 12_000])
def test_a_figure_on_a_full_disk_is_a_sentence(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, limit: int
) -> None:
    class Full(io.FileIO):
        def write(self, data: object) -> int:
            if self.tell() + len(memoryview(data).cast("B")) > limit:  # type: ignore[arg-type]
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data)  # type: ignore[arg-type]

    def opened(file: object, mode: str = "r", *args: object, **options: object) -> object:
        if Path(str(file)).parent == tmp_path and "w" in mode:
            return Full(str(file), mode.replace("b", ""))
        return plain(file, mode, *args, **options)  # type: ignore[call-overload]

    plain = io.open
    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(ExportError, match="could not be written: No space left on device"):
        to_figure(world.cmap, tmp_path / f"f.{ending}")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_not_computed(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def on_a_full_disk(path: Path, mode: str = "r", *args: int, **options: int) -> object:
        return opened(Path("/dev/full") if mode == "w+b" else path, mode, *args, **options)

    if not Path("/dev/full").exists():
        pytest.skip("no full disk at hand")
    monkeypatch.setattr(Path, "open", on_a_full_disk)
    shares: list[float] = []
    with reporting(lambda _, done: shares.append(done)), pytest.raises(ExportError, match="No space left on device"):
        to_h5ad(world.cmap, tmp_path / "t.h5ad", settings=ExportSettings(block_mb=0.001, compression="none"))
    assert max(shares, default=0) < 1
    assert not list(tmp_path.iterdir())


def test_an_export_on_a_good_disk_is_whole(world: World, tmp_path: Path) -> None:
    path = to_h5ad(world.cmap, tmp_path / "t.h5ad")
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"encoding-type": "anndata", "encoding-version": "0.1.0"}
        assert "raw" not in file
