"""docs/skill.md: its examples run in order, in one folder, and it has every command."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from pathlib import Path

import pytest

import napari_cpnn as nc
from napari_cpnn.cli import _parser, main
from napari_cpnn.cli.parser import leaves
from napari_cpnn.cli.slide_level import of_cohort
from napari_cpnn.errors import CpnnWarning

PAGE = Path(__file__).resolve().parents[1] / "docs" / "skill.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """Commands of a block, without ``napari-cpnn``."""
    lines = block.replace("$SAMPLE", str(nc.sample_folder())).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("napari-cpnn ")]


def test_examples_run_one_after_the_other(tmp_path, monkeypatch, private_cache, capsys):
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {}
    n_python = n_commands = 0
    for kind, block in BLOCKS:
        if kind == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CpnnWarning)
                exec(compile(block, str(PAGE), "exec"), known)
            n_python += 1
        elif kind == "sh":
            for command in commands(block):
                capsys.readouterr()
                assert main([*command, "--quiet"] if command[0] in ("predict", "nuclei") else command) == 0, command
                said = json.loads(capsys.readouterr().out)
                assert all((tmp_path / path).exists() for path in said["written"])
                n_commands += 1
    assert (n_python, n_commands) == (4, 6)
    assert {"map.zarr", "map.csv", "map.png", "regions.csv", "nuclei.csv", "shares.csv"} <= {
        path.name for path in tmp_path.iterdir()
    }


@pytest.mark.parametrize(
    "command", [one for kind, block in BLOCKS if kind == "text" for one in commands(block)], ids=" ".join
)
def test_what_needs_other_files_parses(command):
    assert _parser().parse_args(of_cohort(command)).json


def test_every_command_is_there_and_nothing_else():
    table = PAGE.read_text(encoding="utf-8").split("\n## Commands\n")[1].split("\n## ")[0]
    named = {name for row in table.splitlines() if row.startswith("| ") for name in re.findall(r"`([a-z -]+)`", row)}
    assert named - {"command"} == set(dict(leaves(_parser())))


def test_the_page_is_printed(capsys):
    assert main(["skill"]) == 0
    assert capsys.readouterr().out == PAGE.read_text(encoding="utf-8")
