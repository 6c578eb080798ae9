"""Heads with a free mixture and programs that count less outside of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_cpnn.models import CPNN, build_model, load_model, save_model
from napari_cpnn.settings import TrainingSettings


@pytest.fixture
def mixed(settings: TrainingSettings, profiles: np.ndarray, mean_expression: np.ndarray) -> CPNN:
    chosen = settings.replace(free_mixture=0.4, program_gain=0.5)
    return build_model(chosen, [f"g{i}" for i in range(40)], ["A", "B", "C"], profiles, mean_expression)


def test_free_mixture_and_composition_share_alpha(mixed: CPNN) -> None:
    head, features = mixed.head.eval(), torch.randn(6, 512)
    assert mixed.n_programs == 3 + 4
    weights, programs = head(features)
    v, z = programs[:, :3], programs[:, 3:]
    torch.testing.assert_close(v.sum(dim=1), torch.ones(6))
    T, U = head.log_prototypes.softmax(1), head.log_free.softmax(1)
    torch.testing.assert_close(T, U)  # the free profiles start at the prototypes
    alpha, beta = head.log_alpha.exp(), head.log_beta.exp()
    expected = alpha * (0.6 * weights @ T + 0.4 * v @ U) + z @ head.program_genes + beta
    torch.testing.assert_close(mixed.decode(weights, programs), expected, rtol=1e-4, atol=1e-4)
    decoded = mixed.decoder().expression(weights.detach().numpy(), programs.detach().numpy(), mixed.genes)
    np.testing.assert_allclose(decoded, expected.detach().numpy(), rtol=1e-4, atol=1e-4)


def test_residual_programs_count_less_outside_of_training(mixed: CPNN) -> None:
    features = torch.randn(6, 512)
    mixed.head.train()
    full = mixed.head(features)[1]
    mixed.head.eval()
    seen = mixed.head(features)[1]
    torch.testing.assert_close(seen[:, :3], full[:, :3])
    torch.testing.assert_close(seen[:, 3:], 0.5 * full[:, 3:])


def test_a_model_with_a_free_mixture_is_saved_and_read(mixed: CPNN, tmp_path) -> None:
    save_model(mixed, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert (again.spec, again.fingerprint) == (mixed.spec, mixed.fingerprint)
    features = torch.randn(2, 512)
    for one, other in zip(again.head(features), mixed.head.eval()(features), strict=True):
        assert torch.equal(one, other)


def test_the_paper_has_neither() -> None:
    paper = TrainingSettings.paper()
    assert (paper.free_mixture, paper.n_programs, paper.composition_weight) == (0, 0, 0)
