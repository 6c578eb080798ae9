"""Models on the count scale: linear before one division by the total over genes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from napari_cpnn.errors import CheckpointError
from napari_cpnn.models import CPNN, Decoder, build_model, load_model, read_card, save_model
from napari_cpnn.models.cpnn import fingerprint
from napari_cpnn.settings import TrainingSettings

CELL_TYPES = ("Epithelial", "CAFs", "T-cells")
GENES = tuple(f"GENE{i}" for i in range(40))


@pytest.fixture
def counting(settings: TrainingSettings, profiles: np.ndarray, mean_expression: np.ndarray) -> CPNN:
    settings = replace(settings, n_programs=0, free_mixture=0.3)
    model = build_model(settings, GENES, CELL_TYPES, profiles, mean_expression, scale="count").eval()
    model.scale.copy_(torch.linspace(0.5, 2, len(GENES)))
    model.shift.copy_(torch.linspace(0, 1, len(GENES)))
    return model


@pytest.fixture
def outputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.dirichlet(np.ones(3), 20).astype(np.float32), rng.dirichlet(np.ones(3), 20).astype(np.float32)


def by_hand(d: Decoder, w: np.ndarray, z: np.ndarray, gene: str) -> tuple[list[float], float, float]:
    """Contributions of the types, of the programs and of the shift at one place, in CP10k, by plain sums."""
    terms = [
        ([d.alpha[g] * w[c] * d.prototypes[c, g] for c in range(len(w))],
         sum(z[r] * d.programs[r, g] for r in range(len(z))), d.beta[g])
        for g in range(len(d.genes))
    ]  # fmt: skip
    total = sum(sum(map(float, of)) + float(p) + float(b) for of, p, b in terms)
    of, p, b = terms[d.genes.index(gene)]
    return [1e4 * float(x) / total for x in of], 1e4 * float(p) / total, 1e4 * float(b) / total


def test_torch_and_numpy_agree_with_sums_written_out(counting, outputs):
    w, z = outputs
    d = counting.decoder()
    assert d.scale == "count"
    by_torch = counting.decode(torch.from_numpy(w), torch.from_numpy(z)).detach().numpy()
    np.testing.assert_allclose(d.expression(w, z, GENES), by_torch, rtol=2e-6, atol=1e-5)
    some = counting.decode(torch.from_numpy(w), torch.from_numpy(z), genes=["GENE7", "GENE2"]).detach().numpy()
    np.testing.assert_allclose(some, by_torch[:, [7, 2]], rtol=2e-6)
    rows = np.concatenate([w, z], axis=1)
    for gene in ("GENE0", "GENE17"):
        g, of_types, of_programs, shift = GENES.index(gene), *d.parts(w, z, gene)
        for i in (0, 13):
            types, programs, rest = by_hand(d, w[i], z[i], gene)
            np.testing.assert_allclose(of_types[i], types, rtol=2e-5, atol=1e-5)
            np.testing.assert_allclose([of_programs[i], shift[i]], [programs, rest], rtol=2e-5, atol=1e-5)
            np.testing.assert_allclose(by_torch[i, g], np.log1p(sum(types) + programs + rest), rtol=1e-5)
        one = [d.contribution(w, gene, name, z) for name in CELL_TYPES]
        np.testing.assert_allclose(np.stack(one, axis=1), of_types, rtol=1e-6)
        np.testing.assert_allclose(d.of_rows(rows, gene), by_torch[:, g], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            d.contribution_of_rows(rows, gene, [0, 2]), of_types[:, [0, 2]].sum(axis=1), rtol=1e-5, atol=1e-5
        )


def test_expression_over_all_genes_is_10000_counts(counting, outputs):
    values = np.expm1(counting.decoder().expression(*outputs, GENES).astype(float)).sum(axis=1)
    np.testing.assert_allclose(values, 1e4, rtol=1e-5)


def test_a_bag_is_one_sample(counting, outputs):
    d = counting.decoder()
    of_genes, totals = d.numerators(*outputs, GENES)
    np.testing.assert_allclose(of_genes.sum(axis=1), totals, rtol=1e-5)
    means = [part.mean(axis=0, keepdims=True) for part in outputs]
    expected = np.log1p(1e4 * of_genes.astype(float).mean(axis=0) / totals.astype(float).mean())
    np.testing.assert_allclose(d.expression(*means, GENES)[0], expected, rtol=1e-5, atol=1e-5)


def test_unknown_places_stay_unknown(counting, outputs):
    w, z = (part.copy() for part in outputs)
    w[3], z[3] = np.nan, np.nan
    assert np.isnan(counting.decoder().expression(w, z, ["GENE4"])).ravel().nonzero()[0].tolist() == [3]


def test_the_first_prediction_is_the_mean(settings, profiles):
    mean = np.random.default_rng(0).dirichlet(np.ones(len(GENES))) * 1e4
    settings = replace(settings, n_programs=0, free_mixture=0.0)
    model = build_model(settings, GENES, CELL_TYPES, profiles, mean, scale="count")
    uniform = np.full((1, 3), 1 / 3, dtype=np.float32)
    got = model.decoder().expression(uniform, np.zeros((1, 0), dtype=np.float32), GENES)[0]
    np.testing.assert_allclose(got, np.log1p(mean), rtol=1e-3)


def test_it_is_saved_and_older_programs_refuse_it(counting, outputs, model, tmp_path: Path):
    path, older = tmp_path / "count.safetensors", tmp_path / "log.safetensors"
    save_model(counting, path)
    again = load_model(path)
    assert again.spec.scale == "count"
    assert again.fingerprint == counting.fingerprint
    np.testing.assert_array_equal(
        again.decoder().expression(*outputs, GENES), counting.decoder().expression(*outputs, GENES)
    )
    assert read_card(path)["format_version"] == 5  # programs that read up to 4 say that they are too old
    save_model(model, older)
    assert read_card(older)["format_version"] < 5


def test_the_scale_is_part_of_the_fingerprint_and_older_cards_have_none(model, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    with safe_open(path, framework="numpy") as file:
        card = json.loads(file.metadata()["napari_cpnn"])
    del card["model"]["scale"]
    assert type(model.spec).from_dict(card["model"]) == model.spec
    changed = replace(model.spec, scale="count", n_programs=0)
    assert fingerprint(changed, model.state_dict()) != fingerprint(replace(changed, scale="log"), model.state_dict())


def test_no_model_with_residual_programs_is_on_the_count_scale(model, tmp_path: Path):
    model.spec = replace(model.spec, scale="count")
    with pytest.raises(CheckpointError, match="no residual programs"):
        save_model(model, tmp_path / "model.safetensors")
    model.spec = replace(model.spec, scale="square")
    with pytest.raises(CheckpointError, match="no scale of expression 'square'"):
        save_model(model, tmp_path / "model.safetensors")
