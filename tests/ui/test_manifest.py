from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from npe2 import PluginManifest

MANIFEST = Path(str(files("napari_cpnn") / "napari.yaml"))


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()  # every python_name exists and can be called
    return manifest


def test_npe2_finds_nothing_wrong():
    result = subprocess.run(
        [sys.executable, "-m", "npe2", "validate", str(MANIFEST)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_contributions(manifest):
    contributions = manifest.contributions
    assert manifest.name == "napari-cpnn"
    assert [w.display_name for w in contributions.widgets][:2] == ["Explore", "Compare"]
    assert {s.key for s in contributions.sample_data} == {"synthetic", "her2st"}
    assert "her2st C4 (human breast cancer)" in {s.display_name for s in contributions.sample_data}


def test_patterns_are_those_that_the_reader_takes(manifest):
    from napari_cpnn.slides import SLIDE_SUFFIXES
    from napari_cpnn.ui.layers.reader import PLAIN_SUFFIXES

    patterns = {p.removeprefix("*") for p in manifest.contributions.readers[0].filename_patterns}
    assert patterns == set(SLIDE_SUFFIXES) - set(PLAIN_SUFFIXES) | {".zarr", ".zarr.zip"}


def test_commands_say_what_they_belong_to(manifest):
    """The palette shows the title only, so it begins with the dock; readers and writers cannot be run from there."""
    contributions = manifest.contributions
    widgets = {widget.command for widget in contributions.widgets}
    samples = {sample.command for sample in contributions.sample_data}
    called = {one.command for one in [*contributions.readers, *contributions.writers]}
    for command in contributions.commands:
        if command.id in called:
            assert command.enablement == "False", command.id
        elif command.id not in samples | widgets:
            belongs = ("Explore: ", "Session: ", "Export: ", "Regions: ", "Tour of Explore")
            assert command.title.startswith(belongs), command.title
            assert command.category == "CPNN"


def test_entries_of_menus_are_where_napari_takes_them(manifest):
    from napari._app_model.constants import MenuId

    known = {menu.value for menu in MenuId.contributables()}
    menus = manifest.contributions.menus
    assert set(menus) <= known
    commands = {command.id for command in manifest.contributions.commands}
    assert {item.command for items in menus.values() for item in items} <= commands
    assert [item.command for item in menus["napari/file/io_utilities"]][:2] == [
        "napari-cpnn.open_session",
        "napari-cpnn.save_session",
    ]
