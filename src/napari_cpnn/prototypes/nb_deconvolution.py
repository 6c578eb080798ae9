"""Negative binomial deconvolution of spots: the spatial model of cell2location, fitted by Newton steps.

Counts of gene g in spot s, whose counts over all shared genes sum to ``y_s`` (Kleshchevnikov et al. 2022):

    k_sg ~ NB(mean = y_s (m_g sum_c w_sc T_cg + b_g), dispersion theta_g),     variance = mean + mean^2 / theta_g

    m_g  ~ Gamma(mean 1, sd sigma)                detection of gene g relative to the single cells
    b_g  ~ Gamma(1, mean beta p_g)                ambient RNA; p_g is the share of gene g in all counts of the table
    w_sc ~ Gamma(a, mean u_c)                     abundance of type c, shrunk to its estimated mean u_c over the spots
    theta_g^(-1/2) ~ Exponential(3)

The fit is the posterior mode in the logarithms of all parameters (near the posterior mean: the mode of a Gamma(a) in
its logarithm is its mean). Shares are ``w_sc / sum_c w_sc``. cell2location separates the number of cells from the
detection efficiency of a spot, which its counts alone do not identify; here the efficiency is ``y_s``.

One Newton step for all spots, given the genes, alternates with one for all genes, given the spots. That alone would
take thousands of rounds, since a type can become rarer in all spots while the scales of its genes grow. Therefore, the
second step also moves one factor per type, common to all spots, jointly with the genes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from napari_cpnn.arrays import FloatArray
from napari_cpnn.prototypes.gamma_terms import GammaTerms
from napari_cpnn.prototypes.linear_systems import solve_definite
from napari_cpnn.settings import DeconvolutionSettings

if TYPE_CHECKING:
    from torch import Tensor


#: Elements of one (spots, genes) array of a block, chosen to fit a CPU cache; GPUs use larger blocks.
_BLOCK, _BLOCK_GPU = 2**18, 2**24
#: Rate of the prior of ``theta^(-1/2)``, the centre of cell2location's hyperprior.
_PHI = 3.0
#: Shape of the prior of the background: a gene may have none, but not many times the expected level.
_BACKGROUND_SHAPE = 1.0
#: Lower bounds of means and abundances, beyond which only rounding errors change.
_LEAST_RATE, _LEAST_ABUNDANCE = 1e-12, 1e-9
_DISPERSION = (1e-3, 1e5)
#: Maximum relative decrease of an abundance in one step.
_TO_ZERO = 0.9
_HALVINGS = 6
#: Gain of the log posterior per round and spot below which the fit has converged.
_GAIN = 1e-3


@dataclass(frozen=True, eq=False)
class NbFit:
    """The posterior mode.

    Parameters
    ----------
    abundances
        ``(S, C)``, w: positive, in units of the spot's depth.
    share_sd
        ``(S, C)``, posterior standard deviation of each share ``w_sc / sum_c w_sc``.
    gene_scale, background, dispersion
        ``(G,)``, m, b and theta.
    log_posterior
        Natural logarithm of the posterior, up to a constant.
    iterations, converged
        Number of rounds, and whether the last one changed no share by more than the tolerance and hardly increased the
        posterior.
    """

    abundances: FloatArray
    share_sd: FloatArray
    gene_scale: FloatArray
    background: FloatArray
    dispersion: FloatArray
    log_posterior: float
    iterations: int
    converged: bool


def fit_nb(
    counts: sp.csr_matrix,
    profiles: FloatArray,
    depth: FloatArray,
    settings: DeconvolutionSettings,
    device: str = "cpu",
) -> NbFit:
    """Fit the model to a table of spots.

    Parameters
    ----------
    counts
        ``(S, G)``, S at least 1; every spot has a positive depth, and every gene a count and a nonzero profile.
    profiles
        ``(C, G)``, T.
    depth
        ``(S,)``, y.
    device
        A torch device. Sums over spots and genes use float32, small systems float64.
    """
    model = _Model(counts, profiles, depth, settings, device)
    shares, value = model.shares(), -np.inf
    for iteration in range(1, settings.max_iterations + 1):
        model.spot_step()
        last, value = value, model.gene_step()
        before, shares = shares, model.shares()
        # On long slopes the shares change slowly for many rounds, while the posterior still grows.
        settled = value - last <= max(_GAIN * len(shares), 1e-6 * abs(value))
        if settled and float((shares - before).abs().max()) <= settings.tolerance:
            return model.result(iteration, converged=True)
    return model.result(settings.max_iterations, converged=False)


class _Model:
    """Counts, parameters and their update steps."""

    def __init__(
        self,
        counts: sp.csr_matrix,
        profiles: FloatArray,
        depth: FloatArray,
        settings: DeconvolutionSettings,
        device: str,
    ) -> None:
        import torch

        def tensor(values: npt.NDArray[np.floating]) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(values, dtype=np.float32), device=device)

        self.a, self.alpha = settings.abundance_shape, settings.gene_scale_sd**-2
        self.X, self.T, self.y = tensor(counts.toarray()), tensor(profiles), tensor(depth)[:, None]
        S, C, G = len(self.X), *self.T.shape
        self.w = self.X.new_full((S, C), 1 / C)
        self.m = self.X.new_ones(G)
        self.theta = self.X.new_full((G,), _PHI**2)
        self.ambient = settings.background * self.X.sum(0) / self.y.sum()
        self.b = self.ambient.clone()
        self.rows, self.columns = torch.triu_indices(C, C, device=device)
        self.pairs = self.T[self.rows] * self.T[self.columns]
        self.gamma_terms = GammaTerms(counts)
        self.block = max(1, (_BLOCK if device == "cpu" else _BLOCK_GPU) // G)

    def shares(self) -> Tensor:
        return self.w / self.w.sum(1, keepdim=True)

    @property
    def u(self) -> Tensor:
        """Mean abundance of each type, ``(C,)``, which is the mode of u under a flat prior."""
        return self.w.mean(0)

    def blocks(self) -> Iterator[slice]:
        return (slice(start, start + self.block) for start in range(0, len(self.X), self.block))

    # spots, given the genes

    def spot_step(self) -> None:
        """Take one damped Newton step in the abundances of each spot."""
        import torch

        u = self.u
        for block in self.blocks():
            w, y = self.w[block], self.y[block]
            before = self._spot_value(block, w, u)
            mean = self._mean(w, y)
            weight = 1 / (mean * (1 + mean / self.theta))
            gradient = ((self.X[block] - mean) * weight * y * self.m) @ self.T.T + self.a * (1 / w - 1 / u)
            hessian = self._square((weight * (y * self.m) ** 2) @ self.pairs.T)
            # In the logarithms, in which all curvatures have the same order of magnitude; that of the prior is a.
            relative = solve_definite(self._scaled(hessian, w), (gradient * w)[..., None])[..., 0].float()
            step = (_TO_ZERO / (-relative).amax(1, keepdim=True).clamp(min=_TO_ZERO)) * relative
            moved = (w * (1 + step)).clamp(min=_LEAST_ABUNDANCE)
            for _ in range(_HALVINGS):
                worse = self._spot_value(block, moved, u) < before
                if not worse.any():
                    break
                step = torch.where(worse[:, None], step / 2, step)
                moved = (w * (1 + step)).clamp(min=_LEAST_ABUNDANCE)
            else:
                moved = torch.where(worse[:, None], w, moved)
            self.w[block] = moved

    def _mean(self, w: Tensor, y: Tensor) -> Tensor:
        return y * ((w @ self.T) * self.m + self.b).clamp(min=_LEAST_RATE)

    def _square(self, upper: Tensor) -> Tensor:
        """Return symmetric matrices ``(S, C, C)`` from upper triangles ``(S, pairs)``."""
        C = len(self.T)
        full = upper.new_empty(len(upper), C, C)
        full[:, self.rows, self.columns] = full[:, self.columns, self.rows] = upper
        return full

    def _scaled(self, hessian: Tensor, w: Tensor) -> Tensor:
        """Return the negative Hessian in log w at the mode: that of the likelihood, plus a for the prior."""
        scaled = (hessian * w[:, :, None] * w[:, None, :]).double()
        scaled.diagonal(dim1=1, dim2=2).add_(self.a)
        return scaled

    def _spot_value(self, block: slice, w: Tensor, u: Tensor) -> Tensor:
        """Return the log posterior of each spot given the genes, up to a constant, ``(S,)``."""
        likelihood = self._likelihood(self.X[block], self._mean(w, self.y[block]), self.theta).sum(1)
        return likelihood + self.a * ((w / u).log() - w / u).sum(1)

    @staticmethod
    def _likelihood(X: Tensor, mean: Tensor, theta: Tensor) -> Tensor:
        """Return the log likelihood without the terms in :class:`GammaTerms`."""
        ratio = mean / theta
        return X * (ratio / (1 + ratio)).log() - theta * ratio.log1p()

    # genes, and one factor per type common to all spots, given the spots

    def gene_step(self) -> float:
        """Take one Newton step in m, b, theta and the type factors, halving it until the posterior increases.

        Returns
        -------
        float
            :meth:`value` after the step.
        """
        import torch

        types, genes, mixed, theta_step = self._derivatives()
        # Each gene's (log m, log b) system is solved separately, with the factors as additional right-hand sides.
        right = torch.cat([mixed, genes.gradient[..., None]], dim=2)
        solved = solve_definite(genes.hessian, right)
        left = types.hessian - torch.einsum("gic,gid->cd", mixed, solved[..., :-1])
        gradient = types.gradient - torch.einsum("gic,gi->c", mixed, solved[..., -1])
        left.diagonal().mul_(1 + 1e-6).add_(1e-9)
        factor = solve_definite(left, gradient[:, None])[:, 0].clamp(-1, 1)
        step = (solved[..., -1] - solved[..., :-1] @ factor).clamp(-1, 1)
        before = self.value()
        start = (self.w, self.m, self.b, self.theta)
        for halving in range(_HALVINGS):
            part = 0.5**halving
            self.w = (start[0] * (part * factor).exp().float()).clamp(min=_LEAST_ABUNDANCE)
            self.m = start[1] * (part * step[:, 0]).exp().float()
            self.b = start[2] * (part * step[:, 1]).exp().float()
            self.theta = (start[3] * (part * theta_step).exp().float()).clamp(*_DISPERSION)
            after = self.value()
            if after >= before:
                return after
        self.w, self.m, self.b, self.theta = start
        return before

    def value(self) -> float:
        """Return the log posterior up to a constant."""
        u = self.u
        total = sum(self._spot_value(block, self.w[block], u).double().sum() for block in self.blocks())
        theta = self.theta.double()
        h = (theta / _PHI**2).log()
        priors = self.alpha * (self.m.log() - self.m) - h / 2 - (-h / 2).exp()
        if self.has_background:
            relative = self.b / self.ambient
            priors = priors + _BACKGROUND_SHAPE * (relative.log() - relative)
        return float(total + priors.double().sum() + self.gamma_terms.value(theta).sum())

    @property
    def has_background(self) -> bool:
        return bool((self.ambient > 0).all())

    def _derivatives(self) -> tuple[_Types, _Genes, Tensor, Tensor]:
        """Return log posterior derivatives by type factors, by genes' (log m, log b), and mixed; and the theta step."""
        import torch

        C, G = self.T.shape
        sums = {name: self.X.new_zeros(G, dtype=torch.float64) for name in ("m", "b", "mm", "bb", "mb", "t", "tt")}
        by_type = {name: self.X.new_zeros(C, G, dtype=torch.float64) for name in ("r", "m", "b")}
        hessian = self.X.new_zeros(C, C, dtype=torch.float64)
        for block in self.blocks():
            X, w, y = self.X[block], self.w[block], self.y[block]
            cells, ambient = y * (w @ self.T) * self.m, y * self.b
            mean = (cells + ambient).clamp(min=_LEAST_RATE)
            weight = 1 / (mean * (1 + mean / self.theta))
            residual = (X - mean) * weight
            each = (w * y).T
            for name, values in (("m", residual * cells), ("b", residual * ambient)):
                sums[name] += values.sum(0)
            for name, values in (("mm", cells * cells), ("bb", ambient * ambient), ("mb", cells * ambient)):
                sums[name] += (weight * values).sum(0)
            for name, values in (("r", residual), ("m", weight * cells), ("b", weight * ambient)):
                by_type[name] += each @ values
            upper = self._square((weight * (y * self.m) ** 2) @ self.pairs.T)
            hessian += (upper * w[:, :, None] * w[:, None, :]).sum(0)
            spread = mean + self.theta
            missing = mean - X
            sums["t"] += (missing / spread - (mean / self.theta).log1p()).sum(0)
            sums["tt"] += (mean / self.theta / spread - missing / spread**2).sum(0)
        scaled = (self.T * self.m).double()
        types = _Types((by_type["r"] * scaled).sum(1), hessian)
        genes = self._with_priors(sums)
        mixed = torch.stack([by_type["m"] * scaled, by_type["b"] * scaled]).permute(2, 0, 1)
        return types, genes, mixed, self._theta_step(sums["t"], sums["tt"])

    def _with_priors(self, sums: dict[str, Tensor]) -> _Genes:
        """Return gradient and negative expected second derivatives with respect to log m and log b."""
        import torch

        m = self.alpha * self.m.double()
        if self.has_background:
            b = _BACKGROUND_SHAPE * (self.b / self.ambient).double()
            gradient_b, prior_b = sums["b"] + _BACKGROUND_SHAPE - b, b
        else:  # log b is fixed
            gradient_b, prior_b = torch.zeros_like(m), torch.ones_like(m)
        gradient = torch.stack([sums["m"] + self.alpha - m, gradient_b], dim=1)
        rows = [sums["mm"] + m, sums["mb"], sums["mb"], sums["bb"] + prior_b]
        return _Genes(gradient, torch.stack(rows, dim=1).reshape(-1, 2, 2))

    def _theta_step(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the Newton step of log theta, ``(G,)``."""
        import torch

        theta = self.theta.double()
        h = (theta / _PHI**2).log()
        counted_1, counted_2 = self.gamma_terms.derivatives(theta)
        slope = theta * (counted_1 + first)
        curvature = -(slope + theta**2 * (counted_2 + second))
        curvature = torch.where(curvature > 0, curvature, slope.abs())
        prior = (-h / 2).exp()
        return ((slope - (1 - prior) / 2) / (curvature + prior / 4)).clamp(-1, 1)

    # the result

    def result(self, iterations: int, *, converged: bool) -> NbFit:
        def array(values: Tensor) -> FloatArray:
            return np.asarray(values.double().cpu().numpy())

        return NbFit(
            array(self.w),
            array(self._share_sd()),
            array(self.m),
            array(self.b),
            array(self.theta),
            self.value(),
            iterations,
            converged,
        )

    def _share_sd(self) -> Tensor:
        """Return standard deviations ``(S, C)`` by the delta method from the Laplace covariance of log w.

        This is the covariance of each spot given the genes, plus the common contribution of the genes' uncertainty: the
        covariance of the type factors with unknown genes, minus that with known genes.
        """
        import torch

        types, genes, mixed, _ = self._derivatives()
        known = types.hessian
        unknown = known - torch.einsum("gic,gid->cd", mixed, solve_definite(genes.hessian, mixed))
        one = torch.eye(len(known), dtype=known.dtype, device=known.device)
        prior = self.a * len(self.X) * one  # the same in both cases
        common = solve_definite(unknown + prior, one) - solve_definite(known + prior, one)
        deviations = []
        for block in self.blocks():
            w, y = self.w[block], self.y[block]
            mean = self._mean(w, y)
            weight = 1 / (mean * (1 + mean / self.theta))
            scaled = self._scaled(self._square((weight * (y * self.m) ** 2) @ self.pairs.T), w)
            shares = (w / w.sum(1, keepdim=True)).double()
            jacobian = torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :]
            covariance = solve_definite(scaled, one.expand_as(scaled)) + common
            deviations.append((jacobian @ covariance @ jacobian).diagonal(dim1=1, dim2=2).clamp(min=0).sqrt())
        return torch.cat(deviations)


@dataclass(frozen=True, eq=False)
class _Types:
    """Gradient ``(C,)`` and negative Hessian ``(C, C)`` with respect to the logarithms of the type factors."""

    gradient: Tensor
    hessian: Tensor


@dataclass(frozen=True, eq=False)
class _Genes:
    """Gradient ``(G, 2)`` and negative Hessians ``(G, 2, 2)`` with respect to log m and log b."""

    gradient: Tensor
    hessian: Tensor
