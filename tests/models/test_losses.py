from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from torchmetrics.functional import pearson_corrcoef

from napari_cpnn.models.losses import composition_penalty, mse_loss, pcc_loss, prototype_penalty


@pytest.fixture
def spots() -> tuple[torch.Tensor, torch.Tensor]:
    predicted = torch.randn(64, 12) * torch.logspace(-3, 2, 12) + 5
    return predicted, 0.3 * predicted + torch.randn(64, 12)


def test_pcc_loss_is_one_minus_the_mean_of_scipys_correlations(spots: tuple[torch.Tensor, torch.Tensor]) -> None:
    predicted, measured = spots
    columns = zip(predicted.T.numpy(), measured.T.numpy(), strict=True)
    expected = 1 - np.mean([pearsonr(p, m).statistic for p, m in columns])
    assert pcc_loss(predicted, measured).item() == pytest.approx(expected, abs=2e-5)
    by_torchmetrics = 1 - pearson_corrcoef(predicted.double(), measured.double()).mean()
    assert pcc_loss(predicted.double(), measured.double()).item() == pytest.approx(by_torchmetrics.item(), abs=1e-9)


def test_genes_constant_in_the_measurement_contribute_nothing(spots: tuple[torch.Tensor, torch.Tensor]) -> None:
    predicted, measured = spots
    measured = measured.clone()
    measured[:, 3] = 0
    measured[:, 7] = 1.1
    varying = [g for g in range(12) if g not in (3, 7)]
    predicted.requires_grad_()
    loss = pcc_loss(predicted, measured)
    assert loss.item() == pytest.approx(pcc_loss(predicted[:, varying], measured[:, varying]).item(), abs=1e-6)
    loss.backward()
    assert torch.isfinite(predicted.grad).all()
    assert (predicted.grad[:, [3, 7]] == 0).all()
    assert (predicted.grad[:, varying] != 0).any()


def test_all_constant_gives_zero_with_a_gradient() -> None:
    predicted = torch.randn(8, 3, requires_grad=True)
    loss = pcc_loss(predicted, torch.zeros(8, 3))
    assert loss.item() == 0
    loss.backward()
    assert (predicted.grad == 0).all()


@pytest.mark.parametrize("value", [0.0, 2.3, 1e4])
def test_a_constant_prediction_is_uncorrelated_and_can_be_left(value: float) -> None:
    """The plain head starts at zero weights, where the correlation itself has no gradient."""
    measured = torch.randn(32, 4)
    predicted = torch.full((32, 4), value, requires_grad=True)
    loss = pcc_loss(predicted, measured)
    assert loss.item() == pytest.approx(1, abs=1e-6)
    loss.backward()
    assert torch.isfinite(predicted.grad).all()
    step = torch.zeros(32, 4) - predicted.grad
    assert pcc_loss(step, measured).item() == pytest.approx(0, abs=1e-5)
    assert predicted.grad.abs().max() < 1


def test_one_spot_and_no_spot_are_no_nan() -> None:
    assert pcc_loss(torch.randn(1, 5), torch.randn(1, 5)).item() == 0


def test_pcc_gradient_against_finite_differences() -> None:
    predicted = torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
    measured = torch.randn(9, 4, dtype=torch.float64)
    measured[:, 1] = 0.5
    assert torch.autograd.gradcheck(lambda p: pcc_loss(p, measured), predicted)


def test_losses_do_not_follow_autocast_down(spots: tuple[torch.Tensor, torch.Tensor]) -> None:
    predicted, measured = spots
    with torch.autocast("cpu", torch.bfloat16):
        inside = pcc_loss(predicted, measured), mse_loss(predicted, measured)
    outside = pcc_loss(predicted, measured), mse_loss(predicted, measured)
    assert [v.item() for v in inside] == [v.item() for v in outside]
    assert inside[0].dtype == torch.float32
    assert pcc_loss(predicted.bfloat16(), measured).dtype == torch.float32


def test_mse_and_prototype_penalty_against_numpy(spots: tuple[torch.Tensor, torch.Tensor]) -> None:
    a, b = (v.numpy().astype(float) for v in spots)
    assert mse_loss(*spots).item() == pytest.approx(((a - b) ** 2).mean(), rel=1e-5)
    assert prototype_penalty(*spots).item() == pytest.approx(np.linalg.norm(a - b) ** 2, rel=1e-5)


def test_composition_penalty_leaves_out_spots_without_shares() -> None:
    weights = torch.softmax(torch.randn(6, 3), dim=1).requires_grad_()
    shares = torch.softmax(torch.randn(6, 3), dim=1)
    shares[2] = torch.nan
    shares[4, 1] = torch.nan
    known = [0, 1, 3, 5]
    expected = np.mean([np.sum((weights[i].detach().numpy() - shares[i].numpy()) ** 2) for i in known])
    loss = composition_penalty(weights, shares)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, weights)
    assert torch.isfinite(gradient).all()
    assert (gradient[[2, 4]] == 0).all()
    none_known = composition_penalty(weights, torch.full((6, 3), torch.nan))
    assert none_known.item() == 0
    (gradient,) = torch.autograd.grad(none_known, weights)
    assert (gradient == 0).all()


def test_weighted_losses_are_weighted_means_over_genes(spots: tuple[torch.Tensor, torch.Tensor]) -> None:
    predicted, measured = spots
    weights = torch.linspace(0, 2, 12)
    per_gene = [pearsonr(p, m).statistic for p, m in zip(predicted.T.numpy(), measured.T.numpy(), strict=True)]
    expected = np.average(1 - np.array(per_gene), weights=weights)
    assert pcc_loss(predicted, measured, weights).item() == pytest.approx(expected, abs=2e-5)
    errors = ((predicted - measured) ** 2).mean(dim=0).numpy()
    assert mse_loss(predicted, measured, weights).item() == pytest.approx(np.average(errors, weights=weights), rel=1e-5)
    ones = torch.ones(12)
    assert pcc_loss(predicted, measured, ones).item() == pcc_loss(predicted, measured).item()
    assert mse_loss(predicted, measured, ones).item() == pytest.approx(mse_loss(predicted, measured).item(), rel=1e-6)


def test_a_weight_of_a_constant_gene_counts_for_nothing(spots: tuple[torch.Tensor, torch.Tensor]) -> None:
    predicted, measured = spots[0].clone().requires_grad_(), spots[1].clone()
    measured[:, 3] = 1.0
    weights = torch.full((12,), 0.1)
    weights[3] = 5.0
    others = [g for g in range(12) if g != 3]
    loss = pcc_loss(predicted, measured, weights)
    assert loss.item() == pytest.approx(pcc_loss(predicted[:, others], measured[:, others]).item(), abs=1e-6)
    only = torch.zeros(12)
    only[3] = 1.0
    nothing = pcc_loss(predicted, measured, only)
    nothing.backward()
    assert nothing.item() == 0
    assert torch.isfinite(predicted.grad).all()


def plain_pcc_loss(p: torch.Tensor, m: torch.Tensor, weights: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The definition, group by group and gene by gene, differentiated by autograd."""
    total = p.new_zeros(())
    for group in groups.unique():
        mine = groups == group
        losses, counts = [], []
        for g in range(p.shape[1]):
            x, y = p[mine, g] - p[mine, g].mean(), m[mine, g] - m[mine, g].mean()
            if m[mine, g].std() > 0:
                losses.append(weights[g] * (1 - (x @ y) / (x.norm() * y.norm())))
                counts.append(weights[g])
        total = total + mine.sum() * torch.stack(losses).sum() / torch.stack(counts).sum()
    return total / len(p)


@pytest.mark.parametrize("order", ["one after the other", "mixed"])
@pytest.mark.parametrize("block", [2**18, 40])
def test_the_loss_over_groups_and_its_gradients_against_the_definition(
    order: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_cpnn.models.losses._BLOCK", block)
    groups = torch.tensor([0] * 9 + [3] * 6 + [1] * 5)
    groups = groups if order != "mixed" else groups[torch.randperm(20)]
    leaves = [torch.randn(20, 7, dtype=torch.float64) for _ in range(2)] + [torch.rand(7, dtype=torch.float64) + 0.1]
    leaves[1][groups == 3, 4] = 2.0  # constant in one group
    inputs, others = ([leaf.clone().requires_grad_() for leaf in leaves] for _ in range(2))
    loss, expected = pcc_loss(*inputs, groups), plain_pcc_loss(*others, groups)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-12)
    for got, want in zip(torch.autograd.grad(3 * loss, inputs), torch.autograd.grad(3 * expected, others), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda *args: pcc_loss(*args, groups), inputs)
    single = pcc_loss(*(leaf.float() for leaf in leaves), groups)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected.item(), abs=1e-6)
