"""The typed head: patches of a type modulate the type's prototype, and bulk is the sum over types.

Bag n, gene g, type c, patches i with features ``h_i`` and compositions ``w_i``:

    k_ng ~ NB(y_n a_g sum_c W_nc E_ncg, p_g),    E_ncg = T_cg exp(o_cg + m_nc U_c V_cg)
    m_nc = mean_i(w_ic h_i) / mean_i(w_ic)

with counts ``y_n`` of the sample, detection ``a_g``, shares ``W_nc`` of its deconvolution (in training; those of the
patches in prediction), and prototypes ``T_c``. No typed labels are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_cpnn.arrays import Float32Array, FloatArray
from napari_cpnn.settings import TypedSettings
from napari_cpnn.training.bags import Bags
from napari_cpnn.training.bags.typed.composition import TileComposition
from napari_cpnn.training.bags.typed.labels import TypedLabels
from napari_cpnn.training.bags.typed.scaling import Scaling

#: Penalties tried.
PENALTIES = tuple(10.0**k for k in np.arange(0.0, 3.1, 1.0))
#: Prior variances, in units of a gene's noise, of its detection and of the offset of a type.
_DETECTION, _OFFSET = 1e4, 4.0
#: Steps of Fisher scoring (two more change modulations by a few per cent), and bounds of log modulations.
_STEPS, _LARGEST = 2, 3.0
#: Elements of a (genes, samples, samples) block.
_BLOCK = 2**18


@dataclass(frozen=True, eq=False)
class Modulated:
    """A fitted typed head.

    Parameters
    ----------
    composition
        Of patches, which says which patches speak for a type.
    left, right, offset
        U ``(C, F, r)``, V ``(C, r, G)`` and o ``(C, G)``; features less ``center`` ``(F,)``.
    profiles, detection
        T ``(C, G)``, and a ``(G,)``.
    """

    composition: TileComposition
    center: FloatArray
    left: FloatArray
    right: FloatArray
    offset: FloatArray
    profiles: FloatArray
    detection: FloatArray

    @classmethod
    def fit(
        cls,
        bags: Bags,
        labels: TypedLabels,
        settings: TypedSettings,
        composition: TileComposition,
        penalty: FloatArray,
    ) -> Modulated:
        """Fit with penalties ``(G,)``: the posterior mode under a normal prior of ``U V``, then reduced in rank."""
        scaling, features, unit = _scaled(composition, bags, settings)
        weights, offset, detection = _modes(features, labels, penalty[None])[0]
        left, right = [], []
        for own in weights / unit:
            u, s, v = np.linalg.svd(own, full_matrices=False)
            r = max(1, min(len(s), settings.rank or len(s)))
            left.append(scaling.back(u[:, :r] * s[:r]))
            right.append(v[:r])
        return cls(composition, scaling.center, np.stack(left), np.stack(right), offset, labels.profiles, detection)

    @classmethod
    def errors(
        cls,
        train: tuple[Bags, TypedLabels],
        test: tuple[Bags, TypedLabels],
        settings: TypedSettings,
        composition: TileComposition,
    ) -> FloatArray:
        """Sum of squared errors ``(K, G)`` of log bulk on the tested bags, of all ``PENALTIES`` and of full rank.

        The shares of the tested bags are those of their deconvolution: a penalty is for what these leave unexplained.
        """
        scaling, features, unit = _scaled(composition, train[0], settings)
        new = scaling(own_means(composition, test[0]).reshape(-1, len(scaling.center)))
        new = new.reshape(len(test[0]), -1, features.shape[2]) / unit
        whole = np.log(test[1].counts + 0.5) - np.log(test[1].totals)[:, None]
        found = []
        penalties = np.tile(np.array(PENALTIES)[:, None], len(train[1].genes))
        # One step is enough to compare penalties.
        for weights, offset, detection in _modes(features, train[1], penalties, steps=1):
            log = np.clip(np.einsum("ncp,cpg->ncg", new, weights, optimize=True) + offset, -_LARGEST, _LARGEST)
            share = np.einsum("nc,ncg->ng", test[1].shares, train[1].profiles * np.exp(log)) * detection
            found.append(((whole - np.log(np.maximum(share, 1e-12))) ** 2).sum(axis=0))
        return np.stack(found)

    def modulation(self, bags: Bags) -> FloatArray:
        """Log ratio ``(S, C, G)`` of a type's expression to its prototype."""
        inner = np.einsum("scf,cfr->scr", own_means(self.composition, bags) - self.center, self.left, optimize=True)
        found = np.einsum("scr,crg->scg", inner, self.right, optimize=True) + self.offset
        return np.asarray(np.clip(found, -_LARGEST, _LARGEST))

    def predict(self, bags: Bags) -> FloatArray:
        """Expression ``(S, C, G)``, log1p of counts per 10,000 of the type."""
        return np.asarray(np.log1p(1e4 * self.profiles * np.exp(self.modulation(bags))))

    def shares(self, bags: Bags) -> FloatArray:
        """Composition ``(S, C)``."""
        return self.composition.predict(bags)

    def bulk(self, bags: Bags) -> FloatArray:
        """Expected share ``(S, G)`` of each gene in the counts of the sample."""
        expression = self.profiles * np.exp(self.modulation(bags))
        return np.asarray(np.einsum("sc,scg->sg", self.shares(bags), expression) * self.detection)

    def parts(self, features: Float32Array, cell_type: int, gene: int) -> FloatArray:
        """Part ``(N,)`` of each patch of a bag in the log modulation of a gene in a type.

        ``w_ic / mean_i(w_ic) * (h_i - center) U_c V_cg + o_cg``: the mean over the patches of the bag is its
        modulation.
        """
        w = self.composition.amounts(features)[:, cell_type]
        weights = self.left[cell_type] @ self.right[cell_type][:, gene]
        return np.asarray(w / w.mean() * ((features - self.center) @ weights) + self.offset[cell_type, gene])

    def arrays(self) -> dict[str, FloatArray]:
        """Parameters by name, to be saved."""
        names = ("center", "left", "right", "offset", "profiles", "detection")
        return {name: getattr(self, name) for name in names}


def own_means(composition: TileComposition, bags: Bags) -> FloatArray:
    """Mean features ``(S, C, F)`` of the patches of each bag, weighted by how much of a patch is of the type."""
    found = []
    for i in range(len(bags)):
        features = bags.bag(i).astype(np.float64)
        w = composition.amounts(bags.bag(i))
        found.append((w / w.sum(axis=0)).T @ features)
    return np.stack(found)


def _scaled(composition: TileComposition, bags: Bags, settings: TypedSettings) -> tuple[Scaling, FloatArray, float]:
    """Scaling of the types' own means, these ``(S, C, P)`` with a mean square of 1, and what they were divided by."""
    own = own_means(composition, bags)
    S, C, F = own.shape
    scaling = Scaling.of(own.reshape(S * C, F), settings.n_components)
    features = scaling(own.reshape(S * C, F)).reshape(S, C, -1)
    unit = float(np.sqrt(max(float((features**2).sum(axis=-1).mean()), 1e-12)))
    return scaling, features / unit, unit


def _modes(
    features: FloatArray, labels: TypedLabels, penalties: FloatArray, steps: int = _STEPS
) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    """Weights ``(C, P, G)``, offsets ``(C, G)`` and detections ``(G,)`` by Fisher scoring, for each row of ``(K, G)``.

    In the logarithm of the mean, a type's modulation counts by its share ``q_nc`` of the gene's counts. A step is a
    ridge regression, here in its dual form: with ``K_c`` the Gram matrix of the type's features,

        (sum_c q_c q_c' (K_c / penalty + offset) + detection + diag(1 / weight)) a = z
        u_c = sum_n q_nc a_n m_nc / penalty

    Weights are those of the negative binomial, of mean 1, so that the penalty is in units of the gene's noise.
    """
    gram = np.einsum("ncp,mcp->cnm", features, features, optimize=True)
    size = max(1, _BLOCK // len(features) ** 2)
    blocks = [np.arange(start, min(start + size, len(labels.genes))) for start in range(0, len(labels.genes), size)]
    parts = [_modes_of(features, gram, labels.select(block), penalties[:, block], steps) for block in blocks]
    return [
        (
            np.concatenate([part[k][0] for part in parts], axis=-1),
            np.concatenate([part[k][1] for part in parts], axis=-1),
            np.concatenate([part[k][2] for part in parts]),
        )
        for k in range(len(penalties))
    ]


def _modes_of(
    features: FloatArray, gram: FloatArray, labels: TypedLabels, penalties: FloatArray, steps: int
) -> list[tuple[FloatArray, FloatArray, FloatArray]]:
    gene = _Genes.of(labels)
    first = gene.linearised(np.zeros_like(gene.plain), gene.start, gram)  # the same for all penalties
    found = []
    for penalty in penalties:
        step = first
        for number in range(steps):
            weights, offset, detection = step.solved(features, penalty)
            if number + 1 < steps:
                modulation = np.einsum("ncp,cpg->ncg", features, weights, optimize=True) + offset
                step = gene.linearised(np.clip(modulation, -_LARGEST, _LARGEST), detection, gram)
        found.append((weights, offset, np.exp(detection)))
    return found


@dataclass(frozen=True, eq=False)
class _Genes:
    """Bulk of some genes: expected counts of the types ``(S, C, G)``, log detections and relative noise ``(G,)``."""

    labels: TypedLabels
    plain: FloatArray
    start: FloatArray
    noise: FloatArray

    @classmethod
    def of(cls, labels: TypedLabels) -> _Genes:
        plain = np.einsum("sc,cg->scg", labels.shares, labels.profiles) * labels.totals[:, None, None]
        start = np.log((labels.counts.sum(axis=0) + 1) / (plain.sum(axis=(0, 1)) + 1))
        mean = np.maximum(plain.sum(axis=1) * np.exp(start), 1e-9)
        ratio = (labels.counts - mean) / mean
        return cls(labels, plain, start, np.maximum((ratio**2 - 1 / mean).mean(axis=0), 1e-3))

    def linearised(self, modulation: FloatArray, detection: FloatArray, gram: FloatArray) -> _Step:
        """Working response, weights and kernels at modulations ``(S, C, G)`` and log detections ``(G,)``."""
        typed = self.plain * np.exp(detection + modulation)
        mean = np.maximum(typed.sum(axis=1), 1e-9)
        share = typed / mean[:, None, :]
        response = np.clip((self.labels.counts - mean) / mean, -2, 2) + detection + (share * modulation).sum(axis=1)
        inverse = 1 / mean + self.noise
        inverse *= (1 / inverse).mean(axis=0)
        q = np.ascontiguousarray(share.transpose(1, 2, 0))
        kernel, pairs = np.zeros((q.shape[1], q.shape[2], q.shape[2])), np.empty((q.shape[1], q.shape[2], q.shape[2]))
        for own, same in zip(q, gram, strict=True):
            np.multiply(own[:, :, None], own[:, None, :], out=pairs)
            pairs *= same
            kernel += pairs
        fixed = _DETECTION + _OFFSET * np.einsum("cgn,cgm->gnm", q, q, optimize=True)
        fixed[:, np.arange(len(mean)), np.arange(len(mean))] += inverse.T
        return _Step(share, response, kernel, fixed)


@dataclass(frozen=True, eq=False)
class _Step:
    """A linearised problem: shares ``(S, C, G)``, response ``(S, G)``, both parts of the kernels ``(G, S, S)``."""

    share: FloatArray
    response: FloatArray
    kernel: FloatArray
    fixed: FloatArray

    def solved(self, features: FloatArray, penalty: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Weights, offsets and log detections, for penalties ``(G,)``."""
        middle = self.response.mean(axis=0)
        whole = self.kernel / penalty[:, None, None] + self.fixed
        dual = np.linalg.solve(whole, (self.response - middle).T[..., None])[..., 0].T
        spoken = self.share * dual[:, None, :]
        weights = np.einsum("ncp,ncg->cpg", features, spoken, optimize=True) / penalty
        return weights, _OFFSET * spoken.sum(axis=0), middle + _DETECTION * dual.sum(axis=0)
