"""Newton steps of the regression for a block of genes, given the parameters shared by all genes (see ``regression``).

All parameters are logarithms: ``u = log t``, ``e = log(b / (rho a))``, ``h = log(theta / phi^2)``. In these, a Gamma
prior of shape k is ``k (x - exp(x))`` up to a constant, and the mode is close to the posterior mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from napari_cpnn.prototypes.statistics import Histogram

if TYPE_CHECKING:
    from torch import Tensor

#: Shape of the prior of b around rho a while rho is fitted, and afterwards (see ``regression``).
HELD_SHAPE, FREE_SHAPE = 1000.0, 9.0
#: Maximum change of a logarithm per step.
_MAX_STEP = 2.0


@dataclass(frozen=True, eq=False)
class Shared:
    """Parameters shared by all genes: scales s and ambient shares rho of the batches ``(D,)``, and phi."""

    scale: Tensor
    ambient: Tensor
    phi: Tensor


class Derivatives(NamedTuple):
    """Derivatives of the log posterior of each gene: gradients and negative second derivatives.

    ``uu (C, g)``, ``ee (D, g)`` and ``ue (C, D, g)`` are blocks of one matrix per gene: observed, and with ``_fisher``
    expected, which is always positive definite. ``weight`` and ``share`` are the Fisher weight of a group's log mean
    and the background's share of the mean, ``residual`` the derivative with respect to the log mean, all ``(C, D, g)``.
    """

    u: Tensor
    e: Tensor
    uu: Tensor
    ee: Tensor
    ue: Tensor
    uu_fisher: Tensor
    ee_fisher: Tensor
    ue_fisher: Tensor
    weight: Tensor
    share: Tensor
    residual: Tensor
    theta: Tensor
    """``(g,)``, derivative of the likelihood with respect to log theta."""
    theta_likelihood: Tensor
    """``(g,)``, negative second derivative of the likelihood with respect to log theta, where positive."""
    theta_prior: Tensor


class SharedSystem(NamedTuple):
    """Gradient and negative expected Hessian of the likelihood in the shared parameters, with the genes eliminated.

    ``gradient (2 D,)`` and ``matrix (2 D, 2 D)`` refer to the logarithms of the scales, followed by the ambient shares.
    ``curved (D,)`` is the difference of observed and expected second derivatives for the ambient shares.
    """

    gradient: Tensor
    matrix: Tensor
    curved: Tensor
    phi_gradient: Tensor
    phi_curvature: Tensor

    def plus(self, other: SharedSystem) -> SharedSystem:
        """Return the sum over two blocks of genes."""
        return SharedSystem(*(a + b for a, b in zip(self, other, strict=True)))


class GeneBlock:
    """Counts and parameters of a block of genes.

    Parameters
    ----------
    sums
        ``(C, D, g)``, summed counts of each type in each batch.
    n_cells
        ``(C, D, 1)``, number of cells; 0 for missing groups.
    histogram
        Count values of these genes, which are numbered from 0.
    mean, ambient
        ``(C, g)`` and ``(D, g)``, prior means of t and of ``b / rho``.
    shape
        Shape of the prior of t; None: 1 until :meth:`set_shape` is called.
    shared
        Initial values of the shared parameters.
    """

    def __init__(
        self,
        sums: Tensor,
        n_cells: Tensor,
        histogram: Histogram,
        mean: Tensor,
        ambient: Tensor,
        shape: float | None,
        shared: Shared,
    ) -> None:
        import torch

        self.shape = torch.full_like(mean[0], 1.0 if shape is None else shape)
        self._background_shape = HELD_SHAPE
        self.sums, self.n_cells, self.mean, self.ambient = sums, n_cells, mean, ambient
        self.has_background = sums.shape[1] > 1
        self._gene = torch.as_tensor(histogram.gene, device=sums.device)
        self._value, self._cells = (
            torch.as_tensor(part, dtype=sums.dtype, device=sums.device) for part in (histogram.value, histogram.cells)
        )
        exposure = (n_cells[..., 0] * shared.scale).sum(1)[:, None]
        self.u = ((sums.sum(1) + self.shape) / (exposure + self.shape / mean)).log()
        self.e = torch.zeros_like(ambient)
        self.h = torch.zeros_like(mean[0])
        self.h = (self._moment_dispersion(shared) / shared.phi**2).log()
        self._damping = torch.zeros_like(mean[0])
        self._last: tuple[Shared, Tensor] | None = None

    def free_background(self) -> None:
        """Allow each gene's background to deviate from the batch's profile from now on."""
        self._background_shape, self._last = FREE_SHAPE, None

    def type_counts(self, shared: Shared) -> tuple[Tensor, Tensor]:
        """Return the counts of each type without background, and those under the common profile, ``(C, g)`` each.

        A batch's counts weigh as much as they tell: less for overdispersed genes, and where the background is high.
        """
        background = self.background(shared)
        own = self.mean[:, None] / (self.mean[:, None] + background)
        mean, theta = shared.scale[:, None] * (self.mean[:, None] + background), self.dispersion(shared)
        weight = own * theta / (theta + mean)
        rate = self.u.exp()[:, None]
        counts = (weight * self.sums * rate / (rate + background)).sum(1)
        return counts, (weight * self.n_cells * shared.scale[:, None]).sum(1) * self.mean

    def set_shape(self, shape: Tensor) -> None:
        """Set the shape of the prior of t, ``(g,)``."""
        self.shape, self._last = shape, None

    def _moment_dispersion(self, shared: Shared) -> Tensor:
        """Return a moment estimate of theta from the variance around the means, ``(g,)``, within bounds."""
        mean = shared.scale[:, None] * (self.u.exp()[:, None] + self.background(shared))
        squares = self._over_cells(self._value**2) + (mean * (self.n_cells * mean - 2 * self.sums)).sum((0, 1))
        excess = squares - (self.n_cells * mean).sum((0, 1))
        return ((self.n_cells * mean**2).sum((0, 1)) / excess.clamp(min=1e-9)).clamp(0.1, 10)

    def background(self, shared: Shared, e: Tensor | None = None) -> Tensor:
        """Return the background b, ``(D, g)``."""
        return shared.ambient[:, None] * self.ambient * (self.e if e is None else e).exp()

    def dispersion(self, shared: Shared) -> Tensor:
        """Return the dispersion theta, ``(g,)``."""
        return shared.phi**2 * self.h.exp()

    def log_likelihood(self, shared: Shared, u: Tensor, e: Tensor, h: Tensor) -> Tensor:
        """Return the log likelihood over all cells without ``sum log(count!)``, ``(g,)``."""
        theta = shared.phi**2 * h.exp()
        mean = shared.scale[:, None] * (u.exp()[:, None] + self.background(shared, e))
        means = (self.sums * (mean / (theta + mean)).log() - self.n_cells * theta * (mean / theta).log1p()).sum((0, 1))
        each = theta[self._gene]
        return means + self._over_cells((self._value + each).lgamma() - each.lgamma())

    def log_prior(self, u: Tensor, e: Tensor, h: Tensor) -> Tensor:
        """Return the log prior up to a constant, ``(g,)``."""
        prior = self.shape * (u - u.exp() / self.mean).sum(0) - h / 2 - (-h / 2).exp()
        return prior + self._background_shape * (e - e.exp()).sum(0) if self.has_background else prior

    def step(self, shared: Shared) -> tuple[Tensor, Tensor]:
        """Take one damped Newton step per gene; return the log posteriors after it and the predicted gains."""
        import torch

        d = self.derivatives(shared)
        du, de, ok = self._solve(d, d.uu, d.ee, d.ue)
        if not ok.all():
            fu, fe, _ = self._solve(d, d.uu_fisher, d.ee_fisher, d.ue_fisher)
            du, de = torch.where(ok, du, fu), torch.where(ok, de, fe)
        gradient = d.theta - (1 - (-self.h / 2).exp()) / 2
        dh = gradient / (d.theta_likelihood + d.theta_prior) / (1 + 10 * self._damping)
        # Damping shortens the step, but does not change the remaining gain.
        gain = ((d.u * du).sum(0) + (d.e * de).sum(0) + gradient * dh) / 2 * (1 + 10 * self._damping)
        last = self._last if self._last is not None and self._last[0] is shared else None
        old = self.value(shared, self.u, self.e, self.h) if last is None else last[1]
        moved = [x + dx.clamp(-_MAX_STEP, _MAX_STEP) for x, dx in ((self.u, du), (self.e, de), (self.h, dh))]
        new = self.value(shared, *moved)
        better = new >= old - 1e-10 * (1 + old.abs())
        self.u, self.e, self.h = (
            torch.where(better, x, y) for x, y in zip(moved, (self.u, self.e, self.h), strict=True)
        )
        self._damping = torch.where(better, self._damping / 10, (self._damping * 10).clamp(min=1e-2))
        self._damping[self._damping < 1e-4] = 0
        self._last = shared, torch.where(better, new, old)
        return self._last[1], gain

    def value(self, shared: Shared, u: Tensor, e: Tensor, h: Tensor) -> Tensor:
        """Return the log posterior, ``(g,)``."""
        return self.log_likelihood(shared, u, e, h) + self.log_prior(u, e, h)

    def derivatives(self, shared: Shared) -> Derivatives:
        """Return the derivatives at the current parameters."""
        import torch

        t, b, theta = self.u.exp(), self.background(shared), self.dispersion(shared)
        total = t[:, None] + b
        q = b / total
        p = 1 - q
        mean = shared.scale[:, None] * total
        spread = theta + mean
        residual = theta * (self.sums - self.n_cells * mean) / spread
        expected = self.n_cells * mean * theta / spread
        observed = mean * theta * (self.sums + self.n_cells * theta) / spread**2
        pq = p * q
        curved = residual * pq  # the mean is a sum of exponentials
        prior_u, prior_e = self.shape * t / self.mean, self._background_shape * self.e.exp()
        theta_1, theta_2 = self._theta_derivatives(theta, mean, spread)
        if not self.has_background:
            prior_e = torch.full_like(prior_e, self._background_shape)  # keeps e at 0
        return Derivatives(
            u=(residual * p).sum(1) + self.shape - prior_u,
            e=(residual * q).sum(0) + self._background_shape - prior_e,
            uu=(observed * p * p - curved).sum(1) + prior_u,
            ee=(observed * q * q - curved).sum(0) + prior_e,
            ue=observed * pq + curved,
            uu_fisher=(expected * p * p).sum(1) + prior_u,
            ee_fisher=(expected * q * q).sum(0) + prior_e,
            ue_fisher=expected * pq,
            weight=expected,
            share=q,
            residual=residual,
            theta=theta_1,
            theta_likelihood=torch.where(theta_2 < 0, -theta_2, theta_1.abs()),
            theta_prior=(-self.h / 2).exp() / 4,
        )

    def _theta_derivatives(self, theta: Tensor, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """Return first and second derivative of the likelihood with respect to log theta, ``(g,)`` each."""
        n, both = self.n_cells, self.sums + self.n_cells * theta
        each = theta[self._gene]
        first = self._over_cells((self._value + each).digamma() - each.digamma())
        first = first + (n - n * (mean / theta).log1p() - both / spread).sum((0, 1))
        second = self._over_cells((self._value + each).polygamma(1) - each.polygamma(1))
        second = second + (n / theta - 2 * n / spread + both / spread**2).sum((0, 1))
        return theta * first, theta * (first + theta * second)

    def _over_cells(self, values: Tensor) -> Tensor:
        """Sum a function of the counts over cells, given its values for the counts in the histogram."""
        import torch

        return torch.zeros_like(self.h).index_add_(0, self._gene, self._cells * values)

    def _factor(self, d: Derivatives, uu: Tensor, ee: Tensor, ue: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the Cholesky factor of the Schur complement for e after eliminating u, which is diagonal."""
        import torch

        diagonal = uu + self._damping * d.uu_fisher
        scaled = ue / diagonal[:, None]
        left = -torch.einsum("cdg,ceg->gde", scaled, ue)
        left.diagonal(dim1=1, dim2=2).add_((ee + self._damping * d.ee_fisher).T)
        factor, info = torch.linalg.cholesky_ex(left)
        return diagonal, scaled, factor, (info == 0) & (diagonal > 0).all(0)

    def _solve(self, d: Derivatives, uu: Tensor, ee: Tensor, ue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Newton steps of u and e, and for which genes the matrix is positive definite."""
        import torch

        diagonal, scaled, factor, ok = self._factor(d, uu, ee, ue)
        right = d.e.T - torch.einsum("cdg,cg->gd", scaled, d.u)
        de = torch.cholesky_solve(right[..., None], factor)[..., 0].T
        return (d.u - torch.einsum("cdg,dg->cg", ue, de)) / diagonal, de, ok

    def shared_system(self, shared: Shared) -> SharedSystem:
        """Return the derivatives of these genes' likelihood with respect to the shared parameters."""
        import torch

        d = self.derivatives(shared)
        # A change of log s shifts every group's log mean by 1, of log rho by the background's share q.
        wp, wq = d.weight * (1 - d.share), d.weight * d.share
        wqq = wq * d.share
        by_u = torch.cat([wp, wp * d.share], dim=1)  # (C, 2D, g)
        by_e = torch.cat([torch.diag_embed(wq.sum(0).T), torch.diag_embed(wqq.sum(0).T)], dim=2)  # (g, D, 2D)
        diagonal, scaled, factor, _ = self._factor(d, d.uu_fisher, d.ee_fisher, d.ue_fisher)
        right = torch.cat([by_e, d.e.T[..., None]], dim=2)
        right = right - torch.einsum("cdg,cfg->gdf", scaled, torch.cat([by_u, d.u[:, None]], dim=1))
        of_e = torch.cholesky_solve(right, factor)  # (g, D, 2D + 1), the last column for the gradient
        of_u = torch.cat([by_u, d.u[:, None]], dim=1) - torch.einsum("cdg,gdf->cfg", d.ue_fisher, of_e)
        of_u = of_u / diagonal[:, None]
        eliminated = torch.einsum("ceg,cfg->ef", by_u, of_u) + torch.einsum("gde,gdf->ef", by_e, of_e)
        direct = torch.cat([d.residual.sum((0, 2)), (d.residual * d.share).sum((0, 2))])
        D = len(shared.scale)
        matrix = torch.zeros(2 * D, 2 * D, dtype=direct.dtype, device=direct.device)
        matrix[:D, :D] = torch.diag(d.weight.sum((0, 2)))
        matrix[D:, D:] = torch.diag(wqq.sum((0, 2)))
        matrix[:D, D:] = matrix[D:, :D] = torch.diag(wq.sum((0, 2)))
        # theta = phi^2 exp(h)
        dh = (d.theta - (1 - (-self.h / 2).exp()) / 2) / (d.theta_likelihood + d.theta_prior)
        of_phi = d.theta_likelihood * d.theta_prior / (d.theta_likelihood + d.theta_prior)
        return SharedSystem(
            gradient=direct - eliminated[:, -1],
            matrix=matrix - eliminated[:, :-1],
            curved=-(d.residual * d.share * (1 - d.share)).sum((0, 2)),
            phi_gradient=2 * (d.theta - d.theta_likelihood * dh).sum(),
            phi_curvature=4 * of_phi.sum(),
        )
