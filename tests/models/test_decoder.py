from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

from napari_cpnn.errors import GenesError, PrototypesError
from napari_cpnn.models.decoder import Decoder


@pytest.fixture
def decoder() -> Decoder:
    rng = np.random.default_rng(3)
    prototypes = rng.dirichlet(np.full(30, 0.3), size=5).astype(np.float32)
    return Decoder(
        genes=tuple(f"G{i}" for i in range(30)),
        cell_types=tuple("ABCDE"),
        prototypes=prototypes,
        alpha=rng.uniform(10, 200, 30).astype(np.float32),
        beta=rng.uniform(0, 1, 30).astype(np.float32),
        programs=rng.normal(0, 0.1, (2, 30)).astype(np.float32),
    )


@pytest.fixture
def maps() -> tuple[np.ndarray, np.ndarray]:
    """A map of more than one block, a third of it unknown."""
    rng = np.random.default_rng(4)
    weights = rng.dirichlet(np.ones(5), size=(90, 110)).astype(np.float16)
    programs = rng.normal(size=(90, 110, 2)).astype(np.float16)
    unknown = rng.random((90, 110)) < 0.3
    unknown[:40] = True  # whole blocks of nothing
    weights[unknown] = np.nan
    programs[unknown] = np.nan
    return weights, programs


def test_expression_is_the_formula_written_out(decoder: Decoder, maps: tuple[np.ndarray, np.ndarray]) -> None:
    weights, programs = maps
    got = decoder.expression(weights, programs, ["G7", "G2"])
    assert got.shape == (90, 110, 2)
    assert got.dtype == np.float32
    for k, g in enumerate((7, 2)):
        for row, col in ((0, 0), (41, 3), (60, 60), (89, 109), (70, 11)):
            w, z = weights[row, col].astype(float), programs[row, col].astype(float)
            mixed = sum(w[c] * float(decoder.prototypes[c, g]) for c in range(5))
            residual = sum(z[r] * float(decoder.programs[r, g]) for r in range(2))
            expected = float(decoder.alpha[g]) * mixed + residual + float(decoder.beta[g])
            np.testing.assert_allclose(got[row, col, k], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(np.isnan(got[..., 0]), np.isnan(weights[..., 0]))


def test_contributions_programs_and_shift_sum_to_the_expression(
    decoder: Decoder, maps: tuple[np.ndarray, np.ndarray]
) -> None:
    weights, programs = maps
    parts = sum(decoder.contribution(weights, "G4", name).astype(float) for name in decoder.cell_types)
    parts = parts + programs.astype(float) @ decoder.programs[:, 4] + decoder.beta[4]
    np.testing.assert_allclose(decoder.expression(weights, programs, ["G4"])[..., 0], parts, rtol=1e-5, atol=1e-6)


def test_no_genes_and_no_patches(decoder: Decoder) -> None:
    assert decoder.expression(np.ones((3, 5)), np.ones((3, 2)), []).shape == (3, 0)
    assert decoder.expression(np.ones((0, 5)), np.ones((0, 2)), ["G1"]).shape == (0, 1)
    assert decoder.expression(np.ones(5), np.ones(2), ["G1"]).shape == (1,)


def test_a_head_without_types_decodes_programs_alone(rng: np.random.Generator) -> None:
    program_genes = rng.normal(size=(6, 3)).astype(np.float32)
    bias = np.array([-1.0, 0.0, 2.0], dtype=np.float32)
    plain = Decoder(("a", "b", "c"), (), np.zeros((0, 3), np.float32), np.ones(3, np.float32), bias, program_genes)
    features = rng.normal(size=(4, 6)).astype(np.float32)
    features[2] = np.nan
    got = plain.expression(np.zeros((4, 0)), features, ["c", "a"])
    np.testing.assert_allclose(got, (features @ program_genes + bias)[:, [2, 0]], rtol=1e-6)
    assert np.isnan(got[2]).all()
    with pytest.raises(PrototypesError, match="it has none"):
        plain.contribution(np.zeros((4, 0)), "a", "T-cells")


def test_unknown_names_are_said(decoder: Decoder) -> None:
    weights, programs = np.ones((2, 5)), np.ones((2, 2))
    with pytest.raises(GenesError, match="does not have ERBB2"):
        decoder.expression(weights, programs, ["G1", "ERBB2"])
    with pytest.raises(GenesError, match=r"write \['G1'\]"):
        decoder.expression(weights, programs, "G1")
    with pytest.raises(PrototypesError, match="does not know the cell type Z; it has A, B, C, D, E"):
        decoder.contribution(weights, "G1", "Z")


def test_shapes_that_do_not_fit_are_refused(decoder: Decoder) -> None:
    with pytest.raises(ValueError, match="do not fit 5 types, 2 programs"):
        decoder.expression(np.ones((2, 4)), np.ones((2, 2)), ["G1"])
    with pytest.raises(ValueError, match="alpha has shape"):
        Decoder(decoder.genes, decoder.cell_types, decoder.prototypes, np.ones(3), decoder.beta, decoder.programs)


def test_it_pickles(decoder: Decoder) -> None:
    again = pickle.loads(pickle.dumps(decoder))
    args = np.ones((1, 5)) / 5, np.ones((1, 2)), ["G3"]
    np.testing.assert_array_equal(again.expression(*args), decoder.expression(*args))


def test_decoder_card_and_registry_need_no_torch() -> None:
    code = (
        "import sys, napari_cpnn.models.decoder, napari_cpnn.models.card, napari_cpnn.models.backbones\n"
        "from napari_cpnn.models import Decoder, read_card, BACKBONES\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
