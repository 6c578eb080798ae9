"""What is written is whole, whatever ends the program; what a killed program leaves is swept, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from napari_cpnn.errors import CpnnError, SpotsError
from napari_cpnn.export.files import replacing
from napari_cpnn.storage import files, temporaries
from napari_cpnn.storage.files import exchange, put_in_place, require_separate, staged, whole_file
from napari_cpnn.storage.temporaries import old_name, remove, restored, sweep, temporary_beside

KILLED = """
import os, pathlib, signal, sys
from napari_cpnn.storage.files import staged
from napari_cpnn.storage.temporaries import old_name
path = pathlib.Path(sys.argv[1])
with staged(path) as temporary:
    if sys.argv[2] == "folder":
        temporary.mkdir()
        (temporary / "part").write_text("new")
    else:
        temporary.write_text("new")
    if sys.argv[2] == "between":
        path.rename(old_name(path))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_while_it_wrote(path: Path, what: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), what], check=False)
    assert done.returncode == -9


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def folder_with(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "part").write_text(text)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_a_killed_program_left_is_swept_by_the_next_writer(tmp_path, what):
    killed_while_it_wrote(tmp_path / "a.csv", what)
    assert len(names(tmp_path)) == 1
    with whole_file(tmp_path / "b.csv") as temporary:
        temporary.write_text("b")
    assert names(tmp_path) == ["b.csv"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("finds_it", ["reader", "writer", "writer of another"])
def test_a_kill_between_two_renames_loses_nothing(tmp_path, finds_it):
    path = tmp_path / "map.zarr"
    path.write_text("old")
    killed_while_it_wrote(path, "between")
    assert not path.exists()
    if finds_it == "writer of another":
        with staged(tmp_path / "other") as temporary:
            temporary.write_text("other")
    if finds_it == "writer":
        with pytest.raises(KeyboardInterrupt), staged(path):
            raise KeyboardInterrupt
    else:
        assert restored(path) == path
    assert path.read_text() == "old"
    sweep(tmp_path)
    assert names(tmp_path) == (["map.zarr", "other"] if finds_it == "writer of another" else ["map.zarr"])


def test_what_was_replaced_is_swept_when_its_program_could_not(tmp_path, monkeypatch):
    left = old_name(tmp_path / "map.zarr")
    folder_with(left, "old")
    folder_with(tmp_path / "map.zarr", "new")
    sweep(tmp_path)  # it is ours, and we live
    assert len(names(tmp_path)) == 2
    monkeypatch.setattr(temporaries, "_may_live", lambda *_: False)
    sweep(tmp_path)
    assert names(tmp_path) == ["map.zarr"]


def test_files_of_others_are_never_swept(tmp_path, monkeypatch):
    mine = [".a1b2c3d4.notes.txt", ".napari-cpnn-notes", ".napari-cpnn", ".run-abcdefgh", ".x.part", "a.csv"]
    for name in mine:
        (tmp_path / name).write_text("mine")
    monkeypatch.setattr(temporaries, "_may_live", lambda *_: False)
    sweep(tmp_path)
    assert names(tmp_path) == sorted(mine)


def test_a_temporary_of_a_living_program_stays(tmp_path):
    code = (
        "import pathlib, sys; from napari_cpnn.storage.temporaries import temporary_beside; "
        "temporary_beside(pathlib.Path(sys.argv[1])).touch(); print('there', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "a.csv")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline().strip() == "there"
        sweep(tmp_path)
        assert len(names(tmp_path)) == 1
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_a_number_that_another_process_has_by_now_protects_nothing(tmp_path):
    host, process, _, token = temporary_beside(tmp_path / "a").name.removeprefix(".napari-cpnn-").split("-")
    parent = os.getppid()
    assert int(process) == os.getpid()
    (tmp_path / f".napari-cpnn-{host}-{parent}-1000-{token}").touch()
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_what_another_computer_left_on_a_shared_disk_goes_by_its_age(tmp_path):
    left = tmp_path / ".napari-cpnn-00000000-1-1000-0123abcd.h5ad"
    left.touch()
    sweep(tmp_path)
    assert left.exists()
    old = time.time() - temporaries.OLD_SECONDS - 60
    os.utime(left, (old, old))
    sweep(tmp_path)
    assert not left.exists()


def test_endings_stay_and_names_are_short():
    for name, ending in (("map.ome.zarr", ".ome.zarr"), ("a b.c d.png", ".png"), ("x" * 250, ""), ("ü.csv", ".csv")):
        found = temporary_beside(Path(name)).name
        assert found.endswith(ending)
        assert len(found) < 90


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_over_a_folder(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(files, "exchange", lambda *_: False)
    path = folder_with(tmp_path / "map.zarr", "old")
    with staged(path) as temporary:
        folder_with(temporary, "new")
        assert (path / "part").read_text() == "old"
    assert (path / "part").read_text() == "new"
    assert names(tmp_path) == ["map.zarr"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows exchanges no folders")
def test_two_folders_are_exchanged_in_one_step(tmp_path):
    one, other = folder_with(tmp_path / "a", "a"), folder_with(tmp_path / "b", "b")
    assert exchange(one, other)
    assert ((one / "part").read_text(), (other / "part").read_text()) == ("b", "a")
    assert not exchange(one, tmp_path / "nothing")


def test_nothing_is_written_over_what_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("mine")
    (tmp_path / "link.csv").symlink_to("a.csv")
    os.link(tmp_path / "a.csv", tmp_path / "hard.csv")
    folder_with(tmp_path / "m.zarr", "mine")
    folder_with(tmp_path / "run", "mine")
    inputs = [tmp_path / "a.csv", tmp_path / "m.zarr", tmp_path / "run", None]
    for name in ("a.csv", "link.csv", "hard.csv", "run/../a.csv", "m.zarr", "run"):
        with pytest.raises(SpotsError, match="is read by the same task; choose another name"):
            require_separate([None, tmp_path / name], inputs, SpotsError)
    with pytest.raises(CpnnError, match=r"lies in .*m\.zarr, which is read"):
        require_separate([tmp_path / "m.zarr" / "new.csv"], inputs)
    require_separate([tmp_path / "run" / "new.csv", tmp_path / "b.csv", None], inputs)


def test_no_result_is_written_over_another(tmp_path):
    for one, other in (("a.csv", "a.csv"), ("a.csv", "x/../a.csv")):
        with pytest.raises(CpnnError, match="is given for two results"):
            require_separate([tmp_path / one, tmp_path / other], [])
    for one, other in (("a", "a/b.csv"), ("a/b/c.csv", "a")):
        with pytest.raises(CpnnError, match="is to be a file"):
            require_separate([tmp_path / one, tmp_path / other], [])
    require_separate([tmp_path / "a" / "b.csv", tmp_path / "a" / "c.csv"], [])


def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path):
    target = tmp_path / "there" / "map.zarr"
    target.parent.mkdir()
    folder_with(target, "old")
    link = tmp_path / "map.zarr"
    link.symlink_to(target)
    with staged(link) as temporary:
        assert temporary.parent == target.parent
        folder_with(temporary, "new")
    assert link.is_symlink()
    assert (target / "part").read_text() == "new"
    assert names(tmp_path) == ["map.zarr", "there"]
    assert names(target.parent) == ["map.zarr"]


def test_a_link_to_nothing_is_written_through(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a.csv").symlink_to("b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "there" / "c.csv")
    with whole_file(tmp_path / "a.csv") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "there" / "c.csv").read_text() == "new"
    assert (tmp_path / "a.csv").is_symlink()


def test_links_that_go_around_in_a_circle_are_a_sentence(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(CpnnError, match="symbolic link"), whole_file(tmp_path / "a"):
        raise AssertionError


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("writer", [whole_file, replacing, staged])
def test_nothing_takes_the_place_of_a_pipe_or_a_device(tmp_path, writer, linked):
    path = pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    if linked:
        path = tmp_path / "link.csv"
        path.symlink_to(pipe)
    with pytest.raises((CpnnError, OSError), match=r"is a pipe, not a file"), writer(path):
        raise AssertionError
    assert pipe.is_fifo()
    assert names(tmp_path) == sorted({"pipe.csv", path.name})
    with pytest.raises((CpnnError, OSError), match=r"is a device, not a file"), writer(Path(os.devnull)):
        raise AssertionError


def test_a_file_never_takes_the_place_of_a_folder(tmp_path):
    folder_with(tmp_path / "a.csv", "mine")
    with (
        pytest.raises(SpotsError, match="could not be written: Is a directory"),
        whole_file(tmp_path / "a.csv", SpotsError),
    ):
        raise AssertionError
    assert (tmp_path / "a.csv" / "part").read_text() == "mine"


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_names_that_no_disk_takes(tmp_path, name):
    with pytest.raises(CpnnError, match=r"is not a file name|File name too long"), whole_file(tmp_path / name):
        raise AssertionError


def test_memory_that_runs_out_is_a_sentence(tmp_path):
    with pytest.raises(CpnnError, match="more memory than this computer has"), whole_file(tmp_path / "a"):
        raise MemoryError
    assert names(tmp_path) == []


def test_put_in_place_over_nothing(tmp_path):
    folder_with(tmp_path / "new", "new")
    put_in_place(tmp_path / "new", tmp_path / "map.zarr")
    assert names(tmp_path) == ["map.zarr"]


def test_a_folder_that_a_thread_writes_again_is_removed_as_well(tmp_path, monkeypatch):
    """The threads that write chunks are not reached by Ctrl-C, and make the folder anew when it is gone."""
    folder, writers = tmp_path / "part", []
    folder.mkdir()
    rmtree = shutil.rmtree

    def gone_and_written_again(path, **options):
        rmtree(path, **options)
        if not writers:
            writers.append(threading.Thread(target=folder.mkdir))
            writers[0].start()
            writers[0].join()

    def written_later(path, **options):
        rmtree(path, **options)
        if not writers:
            writers.append(threading.Timer(0.02, folder.mkdir))
            writers[0].start()

    for behaviour in (gone_and_written_again, written_later):
        writers.clear()
        folder.mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", behaviour)
            patch.setattr(time, "sleep", lambda _seconds: [one.join() for one in writers])
            remove(folder, interrupted=True)
        assert not folder.exists()


@pytest.mark.parametrize("ends", ["complete", "interrupted"])
def test_only_after_an_interruption_late_writers_are_waited_for(tmp_path, monkeypatch, ends):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    folder_with(tmp_path / "map.zarr", "old")

    with suppress(KeyboardInterrupt), staged(tmp_path / "map.zarr") as temporary:
        folder_with(temporary, "new")
        if ends == "interrupted":
            raise KeyboardInterrupt
    assert bool(slept) == (ends == "interrupted")
    assert names(tmp_path) == ["map.zarr"]
