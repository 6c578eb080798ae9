"""HDF5 files that would hang, crash, fill the memory or read other files; and disks that are full."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from cases import CASES, case
from napari_cpnn import Prototypes, read_cells, read_spots
from napari_cpnn.counts.raw_counts import as_counts, csr_of
from napari_cpnn.errors import CellsError, CpnnError, PrototypesError, SpotsError
from napari_cpnn.prototypes.cells import open_cells
from napari_cpnn.prototypes.statistics import count_statistics
from napari_cpnn.settings import PrototypeSettings
from napari_cpnn.storage.hdf5 import check_hdf5, write_h5ad
from napari_cpnn.untrusted import check_in_child


@pytest.fixture(autouse=True)
def warm_child():
    """Children are started as the package does: they are what is tested here."""


def table(n: int = 12, genes: int = 5) -> ad.AnnData:
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(2.0, (n, genes)).astype(np.float32))
    obs = pd.DataFrame({"type": ["a", "b"] * (n // 2)}, index=[f"c{i}" for i in range(n)])
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(genes)]))


def h5ad(tmp_path: Path, change: Callable[[h5py.File], object] | None = None, name: str = "a.h5ad") -> Path:
    path = tmp_path / name
    found = table()
    found.obsm["spatial"] = np.arange(24.0).reshape(12, 2) * 100
    found.write_h5ad(path)
    if change is not None:
        with h5py.File(path, "r+") as file:
            change(file)
    return path


def replaced(file: h5py.File, name: str, values: object, **options: object) -> None:
    attributes = dict(file[name].attrs)
    del file[name]
    file.create_dataset(name, data=values, **options)
    file[name].attrs.update(attributes)


def external_storage(file: h5py.File) -> None:
    del file["obsm/spatial"]
    file.create_dataset("obsm/spatial", (12, 2), dtype="f8", external=[("/etc/passwd", 0, 192)])


def virtual(file: h5py.File) -> None:
    del file["obsm/spatial"]
    layout = h5py.VirtualLayout((12, 2), dtype="f8")
    layout[:] = h5py.VirtualSource("other.h5", "data", (12, 2))
    file.create_virtual_dataset("obsm/spatial", layout)


def loop(file: h5py.File) -> None:
    file["uns/again"] = file["uns"]


def soft_loop(file: h5py.File) -> None:
    file["uns/again"] = h5py.SoftLink("/")


def doubling(file: h5py.File) -> None:
    group = file["uns"].create_group("level")
    for _ in range(40):
        below = group.create_group("a")
        group["b"] = below
        group = below


def deep(file: h5py.File) -> None:
    file.create_group("uns/" + "/".join("x" * 100))


def unstored(file: h5py.File) -> None:
    file.create_dataset("layers/big", (10**6, 10**6), dtype="f4", chunks=(8, 8), fillvalue=1)


def many_unstored(file: h5py.File) -> None:
    for i in range(200):
        file.create_dataset(f"uns/x{i}", (1000, 1000), dtype="f4", chunks=(8, 8))


def bomb(file: h5py.File) -> None:
    # 300 MB of zeros in 0.3 MB.
    big = file.create_dataset("layers/big", (5000, 15000), "f4", compression="gzip", chunks=(50, 15000))
    chunk = zlib.compress(bytes(50 * 15000 * 4), 9)
    for row in range(0, 5000, 50):
        big.id.write_direct_chunk((row, 0), chunk)


def pointers(*changes: tuple[int, int]) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        values = file["X/indptr"][:]
        for at, value in changes:
            values[at] = value
        replaced(file, "X/indptr", values)

    return change


def longer(file: h5py.File) -> None:
    replaced(file, "X/data", np.append(file["X/data"][:], 1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (external_storage, r"'obsm/spatial' lies in another file"),
        (virtual, r"'obsm/spatial' lies in another file"),
        (lambda f: f.__setitem__("uns/x", h5py.ExternalLink("b.h5", "/x")), r"'uns/x' lies in another file"),
        (loop, "its groups form a loop at 'uns/again'"),
        (soft_loop, "its groups form a loop at 'uns/again'"),
        (doubling, "its groups form a loop"),
        (deep, "its groups are nested too deeply"),
        (unstored, r"'layers/big' says that it holds 1,000,000 x 1,000,000 values, which 0 bytes cannot"),
        (many_unstored, r"says that it holds 1,000 x 1,000 values, which 0 bytes cannot"),
        (bomb, r"'layers/big' says that it holds 5,000 x 15,000 values, which [\d,]+ bytes cannot"),
        (pointers((3, 1000)), "the pointers of the sparse matrix 'X' do not ascend"),
        (pointers((-1, 0)), "the pointers of the sparse matrix 'X' do not ascend"),
        (pointers((0, 1)), "the pointers of the sparse matrix 'X' do not begin with 0"),
        (longer, r"'X' has \d+ values with \d+ indices"),
    ],
)  # fmt: skip
def test_what_no_table_has_is_refused_at_once(tmp_path, change, says):
    path = h5ad(tmp_path, change)
    for read, error in ((read_spots, SpotsError), (read_cells, CellsError), (open_cells, CellsError)):
        start = time.monotonic()
        with pytest.raises(error, match=rf"a\.h5ad cannot be read \(.*{says}.*\); get the file again\.$"):
            read(path)
        assert time.monotonic() - start < 20  # on a free computer less than one
    with pytest.raises(PrototypesError, match=says):
        Prototypes.load(path)
    with pytest.raises(CellsError, match=says):
        read_cells(path, backed=True)


def test_a_file_elsewhere_is_not_read_even_when_it_is_there(tmp_path):
    with h5py.File(tmp_path / "b.h5", "w") as other:
        other["x"] = np.arange(24.0).reshape(12, 2)
    path = h5ad(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["obsm/spatial"]
        file["obsm/spatial"] = h5py.ExternalLink(str(tmp_path / "b.h5"), "/x")
    with pytest.raises(SpotsError, match="'obsm/spatial' lies in another file"):
        read_spots(path)


@pytest.mark.parametrize("value", [-1, 5, 10**6, 2**31 - 1])
@pytest.mark.parametrize("by", ["csr", "csc"])
def test_an_index_that_points_nowhere(tmp_path, value, by):
    path = tmp_path / "a.h5ad"
    found = table()
    found.X = found.X.asformat(by)
    found.obsm["spatial"] = np.arange(24.0).reshape(12, 2)
    found.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X/indices"][2] = value if by == "csr" or value != 5 else 12
    for read in (read_spots, read_cells):
        with pytest.raises(CpnnError, match=r"X of .*a\.h5ad is damaged \(an index is outside its range of \d+\)"):
            read(path)


def test_an_index_that_points_nowhere_in_a_table_on_disk(tmp_path):
    path = h5ad(tmp_path)
    cells = read_cells(path, backed=True)
    with h5py.File(h5ad(tmp_path, name="b.h5ad"), "r+") as file:
        file["X/indices"][2] = 10**6
    with pytest.raises(CellsError, match=r"b\.h5ad is damaged \(an index"):
        read_cells(tmp_path / "b.h5ad", backed=True)
    # Beyond what is looked at when the file is opened, and after: each chunk is checked when it is read.
    found = sp.csr_matrix(cells.layers["counts"][:])
    found.indices[0] = 77
    labels = [pd.Series(["a"] * 12)]
    with pytest.raises(CellsError, match="an index is outside its range of 5"):
        count_statistics(found, list(cells.var_names), labels, None, PrototypeSettings(min_genes=1))


@pytest.mark.parametrize(
    "parts",
    [([1.0], [0], [0, 5, 0]), ([], [], [0, 9, 0]), ([1.0, 2], [0, 1], [0, 2, 1]), ([1.0], [0], [0, -4, 1])],
)  # fmt: skip
def test_matrices_that_scipy_lets_pass(parts):
    matrix = sp.csr_matrix((2, 3))
    matrix.data, matrix.indices, matrix.indptr = (
        np.array(parts[0], dtype=float), np.array(parts[1], dtype=np.int32), np.array(parts[2], dtype=np.int32),
    )  # fmt: skip
    with pytest.raises(SpotsError, match=r"^m is damaged \(its index pointers"):
        csr_of(matrix, "m", SpotsError)


def test_good_files_pass_and_are_not_checked_twice(tmp_path, monkeypatch):
    path = h5ad(tmp_path)
    n_bytes = check_hdf5(path, SpotsError)
    assert 500 < n_bytes < 10_000
    monkeypatch.setattr("napari_cpnn.storage.hdf5.check_in_child", lambda *_, **__: pytest.fail("checked again"))
    assert check_hdf5(path, SpotsError) == n_bytes


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no processor time")
def test_a_file_that_hangs_the_library_is_checked_once(tmp_path, monkeypatch):
    path, checked = h5ad(tmp_path), []

    def check(*arguments, **limits):
        checked.append(arguments)
        return check_in_child("while True: pass", [], path, SpotsError, seconds=1)

    monkeypatch.setattr("napari_cpnn.storage.hdf5.check_in_child", check)
    for error in (SpotsError, CellsError):
        with pytest.raises(error, match=r"could not be made out in 1 s; it is damaged"):
            check_hdf5(path, error)
    assert len(checked) == 1


def test_a_check_that_took_too_long_by_the_clock_is_made_again(tmp_path, monkeypatch):
    path, started = h5ad(tmp_path), []

    def busy(command, **_):
        started.append(command)
        raise subprocess.TimeoutExpired(command, 30)

    with monkeypatch.context() as patch:
        patch.setattr("napari_cpnn.untrusted.subprocess.run", busy)
        for _ in range(2):
            with pytest.raises(SpotsError, match="could not be made out"):
                check_hdf5(path, SpotsError)
    assert len(started) == 2
    assert check_hdf5(path, SpotsError)


@pytest.mark.parametrize("ending", ["h5ad", "h5"])
def test_what_is_no_hdf5_file(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    path.write_text("not HDF5")
    with pytest.raises(CellsError, match=r"a\.h5.* cannot be read \(it is no HDF5 file\)"):
        read_cells(path)


def test_a_users_block_before_the_file_is_no_fault(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", userblock_size=2048) as file:
        file["x"] = np.arange(10)
    assert check_hdf5(path, CellsError) == 80


def test_more_than_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_cpnn.untrusted.available_memory", lambda: 1000)
    with pytest.raises(SpotsError, match="more than this computer has memory for"):
        read_spots(h5ad(tmp_path))


def test_sums_of_one_place_that_run_over_are_no_counts():
    matrix = sp.csr_matrix((np.full(2, 2.0**31 - 1), np.zeros(2, np.int32), np.array([0, 2])), shape=(1, 2))
    with pytest.raises(SpotsError, match="too large for a count"):
        as_counts(matrix, "m", SpotsError)


def test_a_bomb_takes_no_memory_here(tmp_path):
    path = h5ad(tmp_path, unstored)
    tracemalloc.start()
    with pytest.raises(SpotsError, match="1,000,000 x 1,000,000"):
        read_spots(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20


CORPUS = [
    (read, path)
    for folder, reads in (
        ("fuzz_h5ad", (read_spots,)),
        ("fuzz_h5adcells", (read_cells, open_cells)),
        ("fuzz_prototypes", (Prototypes.load,)),
        ("fuzz_tenx", (read_cells,)),
    )
    for path in sorted((CASES / "fuzz" / folder).glob("*"))
    for read in reads
    if not path.name.startswith("hang") or path.name.startswith("hang1")  # seconds each; all are in tests/fuzz
]


@pytest.mark.parametrize(("read", "path"), CORPUS, ids=lambda v: getattr(v, "name", None) or v.__name__)
def test_mutated_files_are_a_sentence(read, path):
    with pytest.raises(CpnnError, match=path.name):
        read(path)


def test_the_corpus_is_there():
    assert len(CORPUS) > 20 or case("fuzz")


# --- full disks


WRITE = """
import resource, signal, sys
import numpy as np
from napari_cpnn.errors import CpnnError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
from napari_cpnn import Prototypes
genes = tuple(f"G{i}" for i in range(20_000))
profiles = np.random.default_rng(0).random((9, len(genes)))
try:
    Prototypes(
        profiles / profiles.sum(axis=1, keepdims=True), tuple("abcdefghi"), genes, np.ones(9)
    ).save(sys.argv[1])
except CpnnError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(os.name == "nt", reason="no limit of file sizes")
@pytest.mark.parametrize("limit", [0, 4096, 100_000])
def test_a_limit_of_file_sizes_is_a_sentence_and_no_crash(tmp_path, limit):
    path = tmp_path / "p.h5ad"
    done = subprocess.run(
        [sys.executable, "-c", WRITE, str(path), str(limit)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (1, f"{path} could not be written: File too large.")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk at hand")
def test_a_full_disk_is_an_error_of_the_system():
    with pytest.raises(OSError, match="No space left on device"):
        write_h5ad(table(), Path("/dev/full"))


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("packing", [{}, {"compression": "gzip"}])
def test_what_is_written_is_what_anndata_writes(tmp_path, raw, packing):
    first = table()
    if raw:
        first.raw = first.copy()
    first.layers["counts"], first.uns["a"] = first.X.copy(), {"b": [1, 2], "c": "text"}
    second = first.copy()
    first.write_h5ad(tmp_path / "a.h5ad", **packing)
    write_h5ad(second, tmp_path / "b.h5ad", **packing)

    def content(path: Path) -> dict[str, object]:
        found: dict[str, object] = {}

        def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
            values = (item.dtype, item.compression, item[()]) if isinstance(item, h5py.Dataset) else None
            found[name] = str((sorted(item.attrs.items()), values))

        with h5py.File(path) as file:
            file.visititems(visit)
            visit("/", file["/"])
        return found

    assert content(tmp_path / "a.h5ad") == content(tmp_path / "b.h5ad")
    assert ad.read_h5ad(tmp_path / "b.h5ad").shape == (12, 5)
