"""The switches of the paper's ablation (Table 4): each does what it says, in a model that was trained with it.

PI, prototypes start at their estimate; MC, modality correction by alpha and beta; U, prototypes are updated; R, they
are pulled back to where they started.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from margins import less_than, more_than
from napari_cpnn import TrainingSettings, evaluate, train
from napari_cpnn.evaluation import summarise
from small_world import draw_nothing

#: Rows of Table 4.
ROWS = {
    "w/o PI, MC, R": {"prototype_mode": "random", "scale_shift": False, "prototype_weight": 0.0},
    "w/o MC, U, R": {"prototype_mode": "fixed", "scale_shift": False, "prototype_weight": 0.0},
    "w/o U, R": {"prototype_mode": "fixed", "prototype_weight": 0.0},
    "w/o R": {"prototype_weight": 0.0},
    "ours": {},
}


@pytest.fixture(scope="module")
def trained(world, quick, tmp_path_factory):
    """Model, its history and mean PCC on a slide that it has not seen, per row of the table."""
    import torch

    torch.set_num_threads(1)
    keep = {
        name: getattr(quick, name)
        for name in (
            "backbone", "weights", "patch", "hidden", "learning_rate", "backbone_learning_rate",
            "device", "precision", "seed",
        )
    }  # fmt: skip
    samples, unseen = [world.sample(1, rows=7), world.sample(2, rows=4)], world.sample(4)
    results = {}
    for name, changes in ROWS.items():
        # No calibration: it would hide what alpha and beta are. A weight that tells in a dozen steps.
        settings = TrainingSettings.paper(
            **{"prototype_weight": 30.0, "max_epochs": 6, "batch_size": 36, "calibrate": False, **keep, **changes},
        )
        out = tmp_path_factory.mktemp("run")
        with pytest.MonkeyPatch.context() as patch:
            draw_nothing(patch)
            patch.setenv("NAPARI_CPNN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
            model = train(samples, world.prototypes, settings, out, progress=False)
            pcc = summarise(evaluate(model, *unseen))["pcc"]
        results[name] = model.decoder(), pd.read_csv(out / "metrics.csv"), pcc
    return results


def distance(world, decoder):
    start = world.prototypes.select(decoder.genes).profiles
    return float(((decoder.prototypes - start) ** 2).sum())


def test_prototypes_start_random_stay_or_move(world, trained):
    assert distance(world, trained["w/o U, R"][0]) < 1e-6
    assert distance(world, trained["w/o MC, U, R"][0]) < 1e-6
    moved = distance(world, trained["w/o R"][0])
    more_than(1e-5, moved, "squared way of the prototypes")
    less_than(1, moved / distance(world, trained["w/o PI, MC, R"][0]), "the same, over that of a random start")


def test_the_regulariser_holds_the_prototypes_back(world, trained):
    less_than(0.85, distance(world, trained["ours"][0]) / distance(world, trained["w/o R"][0]), "way held, over free")
    assert (trained["ours"][1]["prototype_loss"] > 0).any()
    assert (trained["w/o R"][1]["prototype_loss"] == 0).all()


def test_without_correction_there_is_one_scale_and_no_shift(trained):
    for name in ("w/o PI, MC, R", "w/o MC, U, R"):
        decoder = trained[name][0]
        assert np.ptp(decoder.alpha) == 0
        assert decoder.beta.max() < 1e-9
    for name in ("w/o U, R", "ours"):
        decoder = trained[name][0]
        assert np.ptp(decoder.alpha) > 0
        assert decoder.beta.min() > 0


def test_none_has_programs_and_all_learn(trained):
    for name, (decoder, history, pcc) in trained.items():
        assert decoder.programs.shape[0] == 0
        less_than(0.99, history["expression_loss"].iloc[-1] / history["expression_loss"].iloc[0], f"loss, {name}")
        if "PI" not in name:  # random prototypes take longer than this run to be of use on another slide
            more_than(0.3, pcc, f"PCC on another slide, {name}")
