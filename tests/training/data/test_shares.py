"""Deconvolved shares of the spots of a run, computed once."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn import Prototypes, deconvolve
from napari_cpnn.errors import CpnnWarning
from napari_cpnn.settings import DeconvolutionSettings
from napari_cpnn.training.data import shares as module
from napari_cpnn.training.data.shares import deconvolved_shares
from napari_cpnn.training.data.spot_samples import check_samples


@pytest.fixture
def calls(monkeypatch):
    made = []

    def counted(spots, protos, settings):
        made.append(settings.method)
        return deconvolve(spots, protos, settings)

    monkeypatch.setattr(module, "deconvolve", counted)
    return made


@pytest.fixture
def quick(quick):
    return quick.replace(deconvolution="nnls")


@pytest.fixture
def parts(world, quick):
    return check_samples([world.sample(1), world.sample(2)], quick)[0]


ROWS = [np.arange(0, 90, 2), np.arange(50)]


def test_shares_are_those_of_deconvolve_and_are_kept(world, quick, parts, tmp_path, calls):
    first = deconvolved_shares(parts, ROWS, world.prototypes, quick, tmp_path)
    tables = [
        deconvolve(p.spots[r], world.prototypes, DeconvolutionSettings(method="nnls"))
        for p, r in zip(parts, ROWS, strict=True)
    ]
    np.testing.assert_allclose(first, np.concatenate(tables), atol=1e-6)
    assert calls == ["nnls", "nnls"]
    again = deconvolved_shares(parts, ROWS, world.prototypes, quick.replace(device="auto"), tmp_path)
    assert (again == first).all()
    assert len(calls) == 2


def test_whatever_changes_them_is_computed_anew(world, quick, parts, tmp_path, calls):
    def compute(rows=ROWS, prototypes=world.prototypes, settings=quick):
        return deconvolved_shares(parts, rows, prototypes, settings, tmp_path)

    compute()
    compute(rows=[ROWS[0], ROWS[1][:20]])
    assert len(calls) == 3
    others = Prototypes(
        world.prototypes.profiles[:, ::-1], world.prototypes.cell_types, world.prototypes.genes, [9] * 3
    )
    compute(prototypes=others)
    assert len(calls) == 5
    compute(settings=quick.replace(deconvolution="nb"))
    assert calls[5:] == ["nb", "nb"]
    parts[0].counts[0, 0] += 1
    compute()
    assert len(calls) == 8


def test_damaged_shares_are_computed_anew(world, quick, parts, tmp_path, calls):
    first = deconvolved_shares(parts, ROWS, world.prototypes, quick, tmp_path)
    for path in tmp_path.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:-4] + b"oops")
    with pytest.warns(CpnnWarning, match=r"Cached shares of slide\d were damaged"):
        again = deconvolved_shares(parts, ROWS, world.prototypes, quick, tmp_path)
    assert (again == first).all()
    assert len(calls) == 4


def test_no_spots_no_shares(world, quick, parts, tmp_path):
    nothing = [np.zeros(0, dtype=int)] * 2
    assert deconvolved_shares(parts, nothing, world.prototypes, quick, tmp_path).shape == (0, 3)
