"""Negative binomial deconvolution of spots: the spatial model of cell2location, fitted by Newton steps.

Counts of gene g in spot s, whose counts over all shared genes sum to ``y_s`` (Kleshchevnikov et al. 2022):

    k_sg ~ NB(mean = y_s (m_g sum_c w_sc T_cg + b_g), dispersion theta_g),     variance = mean + mean^2 / theta_g

    m_g  ~ Gamma(mean 1, sd sigma)                what the technology detects of gene g, against the single cells
    b_g  ~ Gamma(1, mean beta p_g)                ambient RNA; p_g is the share of gene g in all counts of the table
    w_sc ~ Gamma(a, mean u_c)                     abundance of type c, pulled to its mean u_c over the spots, learned
    theta_g^(-1/2) ~ Exponential(3)

and the fit is the mode of the posterior of the logarithms of all parameters (near the posterior mean: the mode of a
Gamma(a) in its logarithm is its mean). Shares are ``w_sc / sum_c w_sc``. What cell2location splits into the number of
cells and the detection of a spot cannot be told apart by its counts alone: here the detection is ``y_s``.

One Newton step for all spots, given the genes, alternates with one for all genes, given the spots. That alone would
take thousands of rounds: a type can become rarer in all spots while the scales of its genes grow. So the second step
also moves, together with the genes and coupled to them, one factor per type that is common to all spots.
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


#: Elements of one (spots, genes) array of a block: on a processor these fit its cache; a GPU gets larger ones.
_BLOCK, _BLOCK_GPU = 2**18, 2**24
#: Rate of the prior of ``theta^(-1/2)``: where cell2location's prior of it is centred.
_PHI = 3.0
#: Shape of the prior of the background: each gene may have none, and few times the expected level.
_BACKGROUND_SHAPE = 1.0
#: No mean, abundance or dispersion leaves these bounds: beyond them nothing changes but rounding.
_LEAST_RATE, _LEAST_ABUNDANCE = 1e-12, 1e-9
_DISPERSION = (1e-3, 1e5)
#: Share of the way to zero that an abundance may go in one step.
_TO_ZERO = 0.9
_HALVINGS = 6
#: Gain of the log posterior in a round, per spot, below which it is at its top.
_GAIN = 1e-3


@dataclass(frozen=True, eq=False)
class NbFit:
    """The mode of the posterior.

    Parameters
    ----------
    abundances
        ``(S, C)``, w: positive, in units of the spot's depth.
    share_sd
        ``(S, C)``, posterior standard deviation of each share ``w_sc / sum_c w_sc``.
    gene_scale, background, dispersion
        ``(G,)``, m, b and theta.
    log_posterior
        Natural logarithm, up to a constant.
    iterations, converged
        Rounds, and whether the last one moved no share by more than the tolerance and gained next to nothing.
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
        ``(S, G)``, S at least 1; every spot has a positive depth, every gene a count and a profile.
    profiles
        ``(C, G)``, T.
    depth
        ``(S,)``, y.
    device
        A torch device. Sums over spots and genes are in float32, small systems in float64.
    """
    model = _Model(counts, profiles, depth, settings, device)
    shares, value = model.shares(), -np.inf
    for iteration in range(1, settings.max_iterations + 1):
        model.spot_step()
        last, value = value, model.gene_step()
        before, shares = shares, model.shares()
        # On a long slope the shares move slowly for many rounds, while the posterior still grows.
        settled = value - last <= max(_GAIN * len(shares), 1e-6 * abs(value))
        if settled and float((shares - before).abs().max()) <= settings.tolerance:
            return model.result(iteration, converged=True)
    return model.result(settings.max_iterations, converged=False)


class _Model:
    """Counts, parameters and the steps that move them."""

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
        """``(C,)``, the mean abundance of each type: where the prior of u is flat, this is its mode."""
        return self.w.mean(0)

    def blocks(self) -> Iterator[slice]:
        return (slice(start, start + self.block) for start in range(0, len(self.X), self.block))

    # spots, given the genes

    def spot_step(self) -> None:
        """One damped Newton step of the abundances of each spot."""
        import torch

        u = self.u
        for block in self.blocks():
            w, y = self.w[block], self.y[block]
            before = self._spot_value(block, w, u)
            mean = self._mean(w, y)
            weight = 1 / (mean * (1 + mean / self.theta))
            gradient = ((self.X[block] - mean) * weight * y * self.m) @ self.T.T + self.a * (1 / w - 1 / u)
            hessian = self._square((weight * (y * self.m) ** 2) @ self.pairs.T)
            # Of the logarithms, in which all curvatures are of one order; the prior's is a.
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
        """``(S, C, C)`` from the upper triangles ``(S, pairs)``."""
        C = len(self.T)
        full = upper.new_empty(len(upper), C, C)
        full[:, self.rows, self.columns] = full[:, self.columns, self.rows] = upper
        return full

    def _scaled(self, hessian: Tensor, w: Tensor) -> Tensor:
        """Second derivatives by the logarithms of w, at the mode: those of the likelihood, and a of the prior."""
        scaled = (hessian * w[:, :, None] * w[:, None, :]).double()
        scaled.diagonal(dim1=1, dim2=2).add_(self.a)
        return scaled

    def _spot_value(self, block: slice, w: Tensor, u: Tensor) -> Tensor:
        """``(S,)``, log posterior of each spot given the genes, up to a constant."""
        likelihood = self._likelihood(self.X[block], self._mean(w, self.y[block]), self.theta).sum(1)
        return likelihood + self.a * ((w / u).log() - w / u).sum(1)

    @staticmethod
    def _likelihood(X: Tensor, mean: Tensor, theta: Tensor) -> Tensor:
        """Log likelihood without the terms that are in :class:`GammaTerms`."""
        ratio = mean / theta
        return X * (ratio / (1 + ratio)).log() - theta * ratio.log1p()

    # genes, and one factor per type common to all spots, given the spots

    def gene_step(self) -> float:
        """One Newton step of m, b, theta and of the factors of the types, halved until the posterior grows.

        Returns
        -------
        float
            :meth:`value` after it.
        """
        import torch

        types, genes, mixed, theta_step = self._derivatives()
        # Each gene's system of (log m, log b) is solved by itself, with the factors as a further right-hand side.
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
        """Log posterior up to a constant."""
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
        """Of the log posterior: by the factors of types, by (log m, log b) of genes, mixed; and the step of theta."""
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
        """Gradient and negative expected second derivatives by log m and log b."""
        import torch

        m = self.alpha * self.m.double()
        if self.has_background:
            b = _BACKGROUND_SHAPE * (self.b / self.ambient).double()
            gradient_b, prior_b = sums["b"] + _BACKGROUND_SHAPE - b, b
        else:  # log b stays where it is
            gradient_b, prior_b = torch.zeros_like(m), torch.ones_like(m)
        gradient = torch.stack([sums["m"] + self.alpha - m, gradient_b], dim=1)
        rows = [sums["mm"] + m, sums["mb"], sums["mb"], sums["bb"] + prior_b]
        return _Genes(gradient, torch.stack(rows, dim=1).reshape(-1, 2, 2))

    def _theta_step(self, first: Tensor, second: Tensor) -> Tensor:
        """``(G,)``, Newton step of log theta."""
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
        """``(S, C)`` by the delta method from the covariance of log w (Laplace's approximation).

        That is the covariance of each spot given the genes, plus what the genes' uncertainty adds in common: the
        covariance of the factors of the types with the genes unknown, less that with the genes known.
        """
        import torch

        types, genes, mixed, _ = self._derivatives()
        known = types.hessian
        unknown = known - torch.einsum("gic,gid->cd", mixed, solve_definite(genes.hessian, mixed))
        one = torch.eye(len(known), dtype=known.dtype, device=known.device)
        prior = self.a * len(self.X) * one  # the same in both
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
    """Gradient ``(C,)`` and negative second derivatives ``(C, C)`` by the logarithms of the factors of types."""

    gradient: Tensor
    hessian: Tensor


@dataclass(frozen=True, eq=False)
class _Genes:
    """Gradient ``(G, 2)`` and negative second derivatives ``(G, 2, 2)`` by log m and log b."""

    gradient: Tensor
    hessian: Tensor
