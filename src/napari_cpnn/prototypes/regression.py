"""Negative binomial regression of single cells on cell type and batch.

The model of cell2location's reference regression (Kleshchevnikov et al. 2022; eq. 5 and 6 of the CPNN paper). For cell
k of type c in batch d

    counts_kg ~ NB(mean = s_d (t_cg + b_dg), dispersion theta_g),      variance = mean + mean^2 / theta_g

    t_cg  ~ Gamma(k, mean m_cg)          m_cg: share of gene g of all counts, times the mean depth of type c
    b_dg  ~ Gamma(9, mean rho_d a_dg)    a_dg: mean count of gene g in batch d
    rho_d ~ Gamma(1, mean 0.01),   s_d ~ Gamma(1, 1)
    theta_g^(-1/2) ~ Exponential(phi),   phi ~ Gamma(9, 3)

The fit is the posterior mode in the logarithms of the parameters, given rho, which is fitted first with b fixed to
rho_d a_dg, and given k, which is estimated for each gene from its variation between types unless set
(:mod:`napari_cpnn.prototypes.shrinkage`): with one k for all genes, markers are drawn towards the common profile too
much, and housekeeping genes not enough. The background is ambient RNA: each batch adds a share rho_d of its own
average profile, up to a factor per gene. The priors are cell2location's, with three differences: k, and two more. Its
Gamma(1, 1) for t and its background level per batch are here in units of the gene's own level, since the counts of
genes differ by four orders of magnitude. And the shape of the prior of b is fixed at 9, the centre of cell2location's
hyperprior, since the mode of a hierarchy with a free shape lies at infinity.

With a single batch, neither background nor scale are identifiable: then b = 0 and s = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cpnn.arrays import FloatArray
from napari_cpnn.progress import Progress, no_progress, part
from napari_cpnn.prototypes.gene_block import GeneBlock, Shared, SharedSystem
from napari_cpnn.prototypes.shrinkage import estimate_shapes
from napari_cpnn.prototypes.statistics import GroupStatistics

if TYPE_CHECKING:
    import torch


#: Elements of one (types, batches, genes) array of float64; larger problems are split along the genes. On a CPU, a
#: block fits into the cache.
_CPU_BLOCK, _GPU_BLOCK = 2**16, 2**22
#: Priors of the shared parameters, as in cell2location, and their initial values.
_AMBIENT_MEAN = 0.01
_PHI_SHAPE, _PHI_RATE = 9.0, 3.0
_START, _PHI = 0.05, 1.0
#: Maximum change of the logarithm of a shared parameter per step.
_MAX_STEP = 1.5
#: Approximate share of the time needed by the first of the two fits, and minimum progress per step.
_FIRST_FIT, _PER_STEP = 0.85, 0.03


@dataclass(frozen=True, eq=False)
class RegressionFit:
    """The posterior mode.

    Parameters
    ----------
    rates
        ``(C, G)``, t: expected counts of a cell of each type in a batch of scale 1, without background.
    background
        ``(D, G)``, b; 0 for a single batch.
    scales, ambient
        ``(D,)``, s and rho; 1 and 0 for a single batch.
    dispersion
        ``(G,)``, theta.
    shape
        ``(G,)``, k.
    phi
        Rate of the prior of ``theta^(-1/2)``.
    log_likelihood, log_posterior
        Natural logarithms over all cells and genes, the likelihood without ``sum log(count!)``, the posterior up to a
        constant.
    iterations, converged
        Newton steps, and whether every parameter is within about 1e-2 posterior standard deviations of the mode.
    """

    rates: FloatArray
    background: FloatArray
    scales: FloatArray
    ambient: FloatArray
    dispersion: FloatArray
    shape: FloatArray
    phi: float
    log_likelihood: float
    log_posterior: float
    iterations: int
    converged: bool

    def means(self, stats: GroupStatistics) -> FloatArray:
        """Return expected counts of a cell of each group, ``(K, G)``."""
        d = stats.batch_of
        mean: FloatArray = self.scales[d, None] * (self.rates[stats.type_of] + self.background[d])
        return mean


def fit_regression(
    stats: GroupStatistics,
    prior_counts: float | None = None,
    device: str = "cpu",
    max_iterations: int = 200,
    tolerance: float = 1e-4,
    progress: Progress = no_progress,
) -> RegressionFit:
    """Fit the regression to group statistics.

    The first fit has background proportional to the batch's profile, which gives the ambient shares rho; the second has
    rho fixed and background free per gene. In a single fit, the background would follow the noise of each gene and
    inflate rho: a share of 7 % was found for cells without any ambient RNA. The shapes k of the genes' priors are
    estimated before the first fit and, with its dispersion and background, before the second.

    Genes are independent given the shared parameters: the batch scales s, the ambient shares rho and phi. Each
    iteration takes one damped Newton step per gene and, once the genes have settled, one in the shared parameters, with
    the genes eliminated from the Hessian (Schur complement). A shared step that lowers the posterior is halved.

    Parameters
    ----------
    stats
        Group statistics; every type and every gene has a count.
    prior_counts
        Shape k of the prior of t: weight of the common profile, in counts of each gene; None: estimated by gene.
    device
        A torch device. Arithmetic uses float64.
    max_iterations
        Maximum number of Newton steps.
    tolerance
        Maximum Newton decrement (predicted gain of the log posterior) of a gene or of the shared parameters at
        convergence.
    progress
        Called for each block of genes in each step. The finished share is estimated from the decrement.
    """
    problem = _Problem(stats, prior_counts, device)
    if prior_counts is None:
        problem.estimate_shapes()
    again = len(stats.batches) > 1 or prior_counts is None
    first = _FIRST_FIT if again else 1.0
    done, converged = problem.climb(max_iterations, tolerance, part(progress, 0.0, first))
    if again and converged:
        if prior_counts is None:
            problem.estimate_shapes()
        if len(stats.batches) > 1:
            problem.free_background()
        more, converged = problem.climb(max_iterations - done, tolerance, part(progress, first, 1.0))
        done += more
    return problem.result(done, converged)


class _Problem:
    """Blocks of genes, and the parameters they share."""

    def __init__(self, stats: GroupStatistics, prior_counts: float | None, device: str) -> None:
        import torch

        C, D, G = len(stats.cell_types), len(stats.batches), stats.sums.shape[1]
        n_cells = np.zeros((C, D))
        n_cells[stats.type_of, stats.batch_of] = stats.n_cells
        scales = _start_scales(stats, n_cells)
        exposure = n_cells * scales
        profile = stats.sums.sum(axis=0) / stats.sums.sum()
        depth = stats.per_type()[1].sum(axis=1) / exposure.sum(axis=1)
        mean = depth[:, None] * profile
        in_batch = np.zeros((D, G))
        np.add.at(in_batch, stats.batch_of, stats.sums)
        ambient = (in_batch + profile * depth.mean()) / (exposure.sum(axis=0) + 1)[:, None]

        def tensor(values: FloatArray) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float64, device=device)

        self._n_batches = D
        #: Number of fitted scales and ambient shares.
        self._n_free = 2 * D if D > 1 else 0
        self._log_shared = tensor(np.concatenate([np.log(scales), np.full(D, math.log(_START)), [math.log(_PHI)]]))
        self.move(torch.zeros_like(self._log_shared))
        cells = tensor(n_cells[..., None])
        self._blocks = []
        width = max(1, (_CPU_BLOCK if device == "cpu" else _GPU_BLOCK) // (C * D))
        for start in range(0, G, width):
            part = slice(start, min(start + width, G))
            sums = np.zeros((C, D, part.stop - start))
            sums[stats.type_of, stats.batch_of] = stats.sums[:, part]
            histogram = stats.histogram.between(start, part.stop)
            priors = (tensor(mean[:, part]), tensor(ambient[:, part]), prior_counts)
            self._blocks.append(GeneBlock(tensor(sums), cells, histogram, *priors, self._shared))

    def estimate_shapes(self) -> None:
        """Estimate the shape of each gene's prior from its variation between types."""
        import torch

        parts = [block.type_counts(self._shared) for block in self._blocks]
        counts, expected = (torch.cat(tensors, dim=1).cpu().numpy() for tensors in zip(*parts, strict=True))
        shapes, start = estimate_shapes(counts, expected), 0
        for block in self._blocks:
            stop = start + block.mean.shape[1]
            block.set_shape(torch.as_tensor(shapes[start:stop], dtype=block.mean.dtype, device=block.mean.device))
            start = stop

    def free_background(self) -> None:
        """Fix the ambient shares, and allow each gene's background to deviate from them."""
        self._n_free = self._n_batches
        for block in self._blocks:
            block.free_background()

    def climb(self, max_iterations: int, tolerance: float, progress: Progress = no_progress) -> tuple[int, bool]:
        """Iterate to the mode; return the number of steps and whether they converged."""
        best, step, gain = -math.inf, None, math.inf
        way = _Way(tolerance)
        for iteration in range(1, max_iterations + 1):
            value, worst = self.sweep(part(progress, way.done, way.next_done))
            way.go(max(worst, gain))
            if worst > max(tolerance, min(0.01 * gain, 1.0)):
                continue
            if value < best - 1e-6 and step is not None:
                step = step / 2
                self.move(-step)
                continue
            if worst <= tolerance and gain <= tolerance:
                return iteration, True
            best = value
            step, gain = self.shared_step()
            self.move(step)
        return max_iterations, False

    def sweep(self, progress: Progress = no_progress) -> tuple[float, float]:
        """Take a Newton step in every gene; return the log posterior after it and the largest predicted gain."""
        shared, value, worst = self._shared, 0.0, 0.0
        for number, block in enumerate(self._blocks):
            progress("Negative binomial regression", number / len(self._blocks))
            values, gains = block.step(shared)
            value += float(values.sum())
            worst = max(worst, float(gains.max()))
        return value + float(self._shared_prior()), worst

    def _shared_prior(self) -> torch.Tensor:
        shared = self._shared
        prior = _PHI_SHAPE * shared.phi.log() - _PHI_RATE * shared.phi
        if self._n_batches > 1:
            prior = prior + (shared.scale.log() - shared.scale).sum()
            prior = prior + (shared.ambient.log() - shared.ambient / _AMBIENT_MEAN).sum()
        return prior

    def shared_step(self) -> tuple[torch.Tensor, float]:
        """Return the Newton step of the logarithms of the shared parameters, and its predicted gain."""
        import torch

        shared, D = self._shared, self._n_batches
        system = reduce(SharedSystem.plus, (block.shared_system(shared) for block in self._blocks))
        slopes = torch.cat([shared.scale, shared.ambient / _AMBIENT_MEAN])
        gradient = system.gradient + 1 - slopes
        # Where the data favour a lower background, log rho is far from quadratic, and its step must be short.
        curved = torch.cat([torch.zeros_like(system.curved), system.curved.clamp(min=0)])
        phi_gradient = system.phi_gradient + _PHI_SHAPE - _PHI_RATE * shared.phi
        step, free = torch.zeros_like(self._log_shared), slice(0, self._n_free)
        step[free] = torch.linalg.solve((system.matrix + torch.diag(slopes + curved))[free, free], gradient[free])
        step[-1] = phi_gradient / (system.phi_curvature + _PHI_RATE * shared.phi)
        gain = float((gradient * step[: 2 * D]).sum() + phi_gradient * step[-1]) / 2
        return step * min(1.0, _MAX_STEP / float(step.abs().max())), gain

    def move(self, step: torch.Tensor) -> None:
        """Change the logarithms of the shared parameters."""
        self._log_shared = self._log_shared + step
        D, values = self._n_batches, self._log_shared.exp()
        self._shared = Shared(values[:D], values[D : 2 * D] if D > 1 else values[D : 2 * D] * 0, values[-1])

    def result(self, iterations: int, converged: bool) -> RegressionFit:
        """Return the fit at the current parameters."""
        import torch

        shared = self._shared
        likelihood = sum(float(b.log_likelihood(shared, b.u, b.e, b.h).sum()) for b in self._blocks)
        prior = sum(float(b.log_prior(b.u, b.e, b.h).sum()) for b in self._blocks) + float(self._shared_prior())

        def whole(parts: list[torch.Tensor]) -> FloatArray:
            values: FloatArray = torch.cat(parts, dim=-1).cpu().numpy()
            return values

        several = self._n_batches > 1
        return RegressionFit(
            rates=whole([b.u.exp() for b in self._blocks]),
            background=whole([b.background(shared) for b in self._blocks]),
            scales=whole([shared.scale]) if several else np.ones(1),
            ambient=whole([shared.ambient]),
            dispersion=whole([b.dispersion(shared) for b in self._blocks]),
            shape=whole([b.shape for b in self._blocks]),
            phi=float(shared.phi),
            log_likelihood=likelihood,
            log_posterior=likelihood + prior,
            iterations=iterations,
            converged=converged,
        )


class _Way:
    """Progress of an iteration, from the logarithm of the remaining gain, with a minimum per step.

    Parameters
    ----------
    tolerance
        Gain at which the iteration ends.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance, self._start = tolerance, math.nan
        self.done = 0.0

    @property
    def next_done(self) -> float:
        """Return the finished share if the next step gains nothing."""
        return self.done + _PER_STEP * (1 - self.done)

    def go(self, gain: float) -> None:
        """Record a step after which at most ``gain`` remains; infinite if unknown."""
        known = 0.0
        if math.isfinite(gain):
            self._start = max(gain, self._start) if math.isfinite(self._start) else max(gain, 10 * self._tolerance)
            known = math.log(self._start / max(gain, self._tolerance)) / math.log(self._start / self._tolerance)
        self.done = max(self.next_done, min(known, 1.0))


def _start_scales(stats: GroupStatistics, n_cells: FloatArray) -> FloatArray:
    """Return the depth of each batch relative to its types in other batches, ``(D,)``; geometric mean 1."""
    depth = np.zeros_like(n_cells)
    depth[stats.type_of, stats.batch_of] = stats.sums.sum(axis=1)
    scales = np.ones(n_cells.shape[1])
    for _ in range(20):
        of_type = depth.sum(axis=1) / (n_cells * scales).sum(axis=1)
        scales = (depth.sum(axis=0) + 1) / (of_type[:, None] * n_cells).sum(axis=0).clip(min=1)
        scales = scales / np.exp(np.log(scales).mean())
    return scales


def quality(fit: RegressionFit, stats: GroupStatistics) -> dict[str, Any]:
    """Summarise the quality of the fit in JSON types.

    ``mean_correlation`` is Pearson's correlation over groups and genes with counts between the logarithms of observed
    and modelled mean counts of a cell; ``variance_correlation`` is that over genes between the logarithms of the
    variance around the modelled means and the modelled variance.
    """
    n, means, sums = stats.n_cells[:, None], fit.means(stats), stats.sums
    seen = sums > 0
    observed = stats.histogram.squares(sums.shape[1]) + (means * (n * means - 2 * sums)).sum(axis=0)
    modelled = (n * means * (1 + means / fit.dispersion)).sum(axis=0)
    varies = (observed > 0) & (modelled > 0)
    ambient = fit.background.sum(axis=1)[stats.batch_of] * fit.scales[stats.batch_of] / means.sum(axis=1)
    share = np.bincount(stats.batch_of, ambient * stats.n_cells) / np.bincount(stats.batch_of, stats.n_cells)
    return {
        "converged": fit.converged,
        "iterations": fit.iterations,
        "log_likelihood": fit.log_likelihood,
        "log_posterior": fit.log_posterior,
        "batch_scales": _by_name(stats.batches, fit.scales),
        "background_shares": _by_name(stats.batches, share),
        "phi": fit.phi,
        "mean_correlation": _correlation(np.log((sums / n)[seen]), np.log(means[seen])),
        "variance_correlation": _correlation(np.log(observed[varies]), np.log(modelled[varies])),
    }


def _by_name(names: tuple[str, ...], values: FloatArray) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _correlation(x: FloatArray, y: FloatArray) -> float | None:
    """Return Pearson's correlation, None if an input is constant."""
    return float(np.corrcoef(x, y)[0, 1]) if len(x) > 1 and x.std() > 0 and y.std() > 0 else None
