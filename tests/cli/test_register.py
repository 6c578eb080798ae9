"""The command that registers, and the option by which others use what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from anndata import read_h5ad
from PIL import Image

from drawn_tissue import SIDE, UM, picture, similarity, turned_picture
from napari_cpnn import TrainingSettings, read_spots
from napari_cpnn.cli import _parser, main
from napari_cpnn.cli.options import open_samples
from napari_cpnn.errors import CpnnError
from napari_cpnn.registration import load_registration
from napari_cpnn.samples import SAMPLE_FILES, sample_folder
from napari_cpnn.training.jobs import SampleFiles, TrainingJob, open_files

PAIRS = "moving_x,moving_y,fixed_x,fixed_y\n0,0,20,10\n0,1000,520,10\n800,0,20,-390\n500,500,270,-240\n"


@pytest.fixture
def sample(tmp_path, monkeypatch):
    """The sample's spots in pixels half as large, turned by a quarter; and the pairs that lead back."""
    monkeypatch.chdir(tmp_path)
    spots = read_spots(sample_folder() / SAMPLE_FILES["spots"])
    spots.obsm["spatial"] = np.c_[(10 - spots.obsm["spatial"][:, 1]) * 2, (spots.obsm["spatial"][:, 0] - 20) * 2]
    spots.uns.pop("spatial")
    spots.write_h5ad("moved.h5ad")
    (tmp_path / "pairs.csv").write_text(PAIRS)
    return sample_folder() / SAMPLE_FILES["slide"], tmp_path


def test_landmarks_lead_spots_back_to_their_slide(sample, capsys):
    slide, _ = sample
    command = ["register", "moved.h5ad", str(slide), "--landmarks", "pairs.csv"]
    assert main([*command, "--out", "r.json", "--moved", "back.h5ad", "--ngff", "ngff.json"]) == 0
    said = capsys.readouterr().out
    assert "moved.h5ad on " in said
    assert "4 landmarks, residual 0.0 um, left out 0.0 um" in said
    assert said.endswith("wrote r.json, back.h5ad, ngff.json\n")
    true = read_spots(sample_folder() / SAMPLE_FILES["spots"]).obsm["spatial"]
    np.testing.assert_allclose(read_h5ad("back.h5ad").obsm["spatial"], true, atol=1e-6)
    ngff = np.array(json.loads(Path("ngff.json").read_text())["affine"])
    np.testing.assert_allclose(ngff, [[0, -0.5, 10], [0.5, 0, 20]], atol=1e-9)

    opened, spots = open_files(SampleFiles(slide, "moved.h5ad", registration="r.json"))
    np.testing.assert_allclose(spots.obsm["spatial"], true, atol=1e-6)
    assert opened.mpp == (0.5, 0.5)


def test_landmarks_in_other_units_than_pixels_of_the_slide_are_told(sample, capsys):
    slide, folder = sample
    (folder / "pairs.csv").write_text("moving_x,moving_y,fixed_x,fixed_y\n0,0,20,10\n0,1000,20,90000\n")
    assert main(["register", "moved.h5ad", str(slide), "--landmarks", "pairs.csv", "--out", "r.json"]) == 2
    assert "Landmark 2 is at x = 20, y = 90,000 px, outside slide (12,000 x 12,000 px)" in capsys.readouterr().err
    assert not Path("r.json").exists()


def test_two_landmarks_are_said_without_what_is_not_known(sample, capsys):
    slide, folder = sample
    (folder / "pairs.csv").write_text("".join(PAIRS.splitlines(keepends=True)[:3]))
    assert main(["register", "moved.h5ad", str(slide), "--landmarks", "pairs.csv", "--out", "r.json"]) == 0
    assert "nan" not in capsys.readouterr().out


def test_a_thin_plate_is_written_for_ngff_only_when_asked(sample, capsys):
    slide, folder = sample
    (folder / "pairs.csv").write_text(PAIRS + "400,900,460,-160\n")
    command = ["register", "moved.h5ad", str(slide), "--landmarks", "pairs.csv", "--kind", "thin-plate"]
    command += ["--out", "r.json", "--ngff", "n.json"]
    assert main(command) == 2
    assert "NGFF has no thin-plate splines" in capsys.readouterr().err
    assert not (folder / "r.json").exists()
    assert main([*command, "--approximate"]) == 0
    assert load_registration("r.json").kind == "thin-plate"
    _, spots = open_files(SampleFiles(slide, "moved.h5ad", registration="r.json"), check=False)
    px = read_h5ad("moved.h5ad").obsm["spatial"]
    np.testing.assert_allclose(spots.obsm["spatial"], load_registration("r.json").map_px(px), atol=1e-6)


def test_the_option_is_that_of_every_command_with_samples(sample):
    slide, _ = sample
    assert main(["register", "moved.h5ad", str(slide), "--landmarks", "pairs.csv", "--out", "r.json"]) == 0
    files = ["--slide", str(slide), "--spots", "moved.h5ad", "--registration", "r.json"]
    true = read_spots(sample_folder() / SAMPLE_FILES["spots"]).obsm["spatial"]
    for command in (
        "evaluate --model m",
        "benchmark --predictions m --out o",
        "cross-validate --prototypes p --out o --groups g",
    ):
        args = _parser().parse_args([*command.split(), *files])
        ((_, spots),) = open_samples(args)
        np.testing.assert_allclose(spots.obsm["spatial"], true, atol=1e-6)
        args = _parser().parse_args([*command.split(), *files, "--registration", "-"])
        with pytest.raises(CpnnError, match=r"2 registrations\.$"):
            list(open_samples(args))
    assert main(["evaluate", *files, "--model", "m", "--out", "r.json", "--overwrite"]) == 2  # it is an input
    assert load_registration("r.json").kind == "similarity"


def test_a_job_remembers_its_registration(tmp_path):
    files = SampleFiles(tmp_path / "s.tif", tmp_path / "s.h5ad", registration=tmp_path / "r.json")
    job = TrainingJob((files,), tmp_path / "p.h5ad", TrainingSettings(), tmp_path / "out")
    job.write(tmp_path / "job.json")
    assert TrainingJob.read(tmp_path / "job.json").samples == (files,)


def test_a_guess_is_written_where_it_is_to_be_believed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture(0)).save("fixed.png")
    other, truth = turned_picture(picture(0), similarity(-140, mirror=False), (UM, UM))
    Image.fromarray(np.asarray(other.levels[0])).save("turned.png")
    Image.fromarray(picture(5)).save("other.png")
    mpp = ["--mpp", str(UM), "--moving-mpp", str(UM), "--auto", "--out", "r.json"]
    assert main(["register", "turned.png", "fixed.png", *mpp]) == 0
    found = load_registration("r.json")
    points = np.full((1, 2), SIDE * UM / 2)
    assert np.abs(found.map(points) - (points @ truth[:, :2].T + truth[:, 2])).max() < 3 * UM
    capsys.readouterr()
    assert main(["register", "other.png", "fixed.png", *mpp, "--overwrite"]) == 2
    assert "hardly resemble each other" in capsys.readouterr().err
    assert load_registration("r.json").moving_name == "turned"
    assert main(["register", "other.png", "fixed.png", *mpp, "--overwrite", "--accept"]) == 0
    assert "not to be believed without a look" in capsys.readouterr().out
    assert not load_registration("r.json").trusted


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--auto", "--kind", "affine"], "--kind and --mirror are for landmarks"),
        (["--auto", "--ngff", "r.json"], "need a name each"),
        (["--landmarks", "pairs.csv", "--moved", "m.h5ad"], "--moved writes spots"),
        (["--landmarks", "none.csv"], "There is no table of landmarks"),
        (["--landmarks", "pairs.csv", "--mirror", "yes", "--kind", "affine"], "is not mirrored"),
    ],
)
def test_what_cannot_be_is_a_sentence(more, said, sample, capsys):
    slide, folder = sample
    assert main(["register", str(slide), str(slide), "--out", "r.json", *more]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "r.json").exists()


def test_a_registration_of_another_slide_is_refused(sample):
    slide, folder = sample
    assert (
        main(["register", "moved.h5ad", str(slide), "--landmarks", "pairs.csv", "--out", "r.json", "--mpp", "0.6"]) == 0
    )
    with pytest.raises(Exception, match="is it the right slide"):
        open_files(SampleFiles(slide, "moved.h5ad", registration=folder / "r.json"))
    without = folder / "slide.png"  # of the same name, without a pixel size
    Image.fromarray(np.full((4000, 4000, 3), 240, np.uint8)).save(without)
    opened, _ = open_files(SampleFiles(without, "moved.h5ad", registration=folder / "r.json"), check=False)
    assert opened.mpp == pytest.approx((0.6, 0.6))  # that of the registration
