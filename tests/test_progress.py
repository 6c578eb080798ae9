"""Progress in the terminal looks alike everywhere: what is done, and the time left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from napari_cpnn.progress import ShareBar, counting, part, reporter, terminal_bar, titled

SOURCES = Path(__file__).resolve().parents[1] / "src" / "napari_cpnn"


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What is left of the bars when they are done: the last state of each line."""
    return [line.split("\r")[-1] for line in capsys.readouterr().err.split("\n")[:-1]]


def test_parts_are_counted_with_their_rate(capsys):
    with counting(True, "cutting patches", 4, "spot") as count:
        count(4)
    (line,) = lines(capsys)
    assert re.fullmatch(r"cutting patches: 100%\|[█#]+\| 4/4 \[\d\d:\d\d<00:00, .*spot/s\]", line)
    with counting(True, "nothing", 0, "spot") as count:
        count(0)
    with counting(False, "in silence", 3, "spot") as count:
        count(3)
    assert lines(capsys) == []
    with terminal_bar("mapping", None, "patch") as bar:  # how many there are is known later
        bar.total = 2
        bar.update(2)
    assert "mapping: 100%" in lines(capsys)[-1]


def test_shares_have_the_time_left_and_each_step_a_line(capsys):
    report = reporter(True)
    for text, done in (("reading", 0.0), ("reading", 0.5), ("reading", 1.0), ("fitting", 0.25), ("fitting", 0.5)):
        report(text, done)
    report("calibrating", 0.0)  # fitting ended early
    report("calibrating", 1.0)
    found = lines(capsys)
    assert [re.sub(r"\|.*", "", line) for line in found] == ["reading: 100%", "fitting:  50%", "calibrating: 100%"]
    assert all(re.search(r"\| \[\d\d:\d\d<(\d\d:\d\d|\?)\]", line) for line in found)


def test_bars_of_work_that_failed_are_ended(capsys):
    report = reporter(True)
    report("reading", 0.5)
    ShareBar.close_all()
    assert [re.sub(r"\|.*", "", line) for line in lines(capsys)] == ["reading:  50%"]
    ShareBar.close_all()
    assert lines(capsys) == []


def test_parts_of_one_work_share_a_line(capsys):
    """Sums of shares are rounded, and may fall by a last digit where one part ends and the next begins."""
    bar = ShareBar()
    for i in range(7):
        its = titled(part(bar, i / 7, (i + 1) / 7 + 1e-12), f"slide {i + 1}")
        its("looking", 0.0)
        its("looking", 1.0)
    (line,) = lines(capsys)
    assert line.startswith("slide 7: looking: 100%")


def test_a_function_takes_the_place_of_a_bar(capsys):
    said = []
    with counting(lambda text, done: said.append((text, done)), "reading", 4, "tile") as count:
        count(1)
        count(3)
    assert said == [("reading", 0.0), ("reading", 0.25), ("reading", 1.0)]
    reporter(False)("reading", 0.5)
    assert lines(capsys) == []


def test_no_other_bar_is_made():
    """That of an epoch, which has the loss beside it, has the same parts."""
    made = {
        str(path.relative_to(SOURCES)): re.findall(r"\btqdm\(\s", text) + re.findall(r"\btqdm\([^)\s]", text)
        for path in SOURCES.rglob("*.py")
        if "tqdm" in (text := path.read_text(encoding="utf-8"))
    }
    assert {name for name, found in made.items() if found} == {"progress.py", "training/fit/recorder.py"}
    shape = (SOURCES / "training" / "fit" / "recorder.py").read_text(encoding="utf-8")
    assert "{desc}: {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]" in shape
