"""Completion in a shell, the version and the exit codes: what all commands have in common."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from napari_cpnn import __version__
from napari_cpnn.cli import main
from napari_cpnn.cli.parser import EXIT_CODES, SHELLS

REPO = Path(__file__).resolve().parents[2]

#: Completes the last of the words as bash does when Tab is pressed.
PRESS_TAB = """
source "$1"; shift
function=$(complete -p napari-cpnn | sed -E 's/.*-F ([^ ]+).*/\\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); $function; printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> dict[str, Path]:
    pytest.importorskip("shtab")
    folder, found = tmp_path_factory.mktemp("completion"), {}
    for shell in SHELLS:
        done = subprocess.run(
            [sys.executable, "-m", "napari_cpnn.cli", "--print-completion", shell],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[shell] = folder / shell
        found[shell].write_text(done.stdout)
    return found


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_for_each_shell_parses_where_the_shell_is(scripts, shell):
    text = scripts[shell].read_text()
    assert "napari-cpnn" in text
    assert "cohort" in text
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(scripts[shell])], check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("pre", ["predict", "predict-cohort", "predict-typed"]),
        ("cohort st", ["status"]),
        ("predict slide.svs --enc", ["--encoder-weights"]),
        ("export map.zarr --style ou", []),
        ("export map.zarr --style con", ["contours"]),
        ("predict sli", ["slide.svs"]),
    ],
)
def test_tab(scripts, words, completed, tmp_path):
    (tmp_path / "slide.svs").touch()
    line = ["bash", "-c", PRESS_TAB, "bash", str(scripts["bash"]), "napari-cpnn", *words.split()]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout.split() == completed


def test_without_shtab_there_is_a_sentence(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 2
    assert capsys.readouterr().err.endswith('not installed; pip install "napari-cpnn[completion]".\n')


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"napari-cpnn {__version__}\n"


def test_versions_are_told_without_loading_what_they_are_of():
    code = (
        "import sys\nfrom napari_cpnn.cli import main\nmain(['--version', '--json'])\n"
        "print([m for m in ('torch', 'napari', 'qtpy', 'openslide', 'anndata') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_without_a_command_the_usage_is_shown(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: napari-cpnn ")
    assert said.endswith("napari-cpnn: error: the following arguments are required: COMMAND\n")


def test_exit_codes_are_in_the_help_and_in_the_guide(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert EXIT_CODES in capsys.readouterr().out
    codes = set(re.findall(r"\b\d+\b", EXIT_CODES))
    assert codes == {"0", "1", "2", "129", "130", "143"}
    guide = (REPO / "docs" / "guide" / "scripts.md").read_text(encoding="utf-8")
    table = guide.split("| code |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| (\d+)", table, re.MULTILINE)) == codes
