from __future__ import annotations

import numpy as np
import pytest

from napari_cpnn.errors import GenesError, MappingError
from napari_cpnn.geometry import Grid, Rect
from napari_cpnn.mapping import BACKGROUND, DONE, FAILED, UNKNOWN, CompositionMap
from napari_cpnn.models.decoder import Decoder

RNG = np.random.default_rng(5)
C, R, G = 5, 2, 7
SHAPE = (6, 9)


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(
        genes=tuple(f"G{i}" for i in range(G)),
        cell_types=tuple(f"T{i}" for i in range(C)),
        prototypes=RNG.dirichlet(np.ones(G), C).astype(np.float32),
        alpha=RNG.random(G).astype(np.float32) * 10,
        beta=RNG.random(G).astype(np.float32),
        programs=RNG.normal(size=(R, G)).astype(np.float32),
    )


@pytest.fixture
def tissue() -> np.ndarray:
    mask = np.ones(SHAPE, dtype=bool)
    mask[0] = False
    return mask


def filled(decoder, tissue, share=1.0):
    cmap = CompositionMap(Grid(SHAPE, 100.0), decoder, tissue)
    cells = np.flatnonzero(tissue & (np.random.default_rng(1).random(SHAPE) < share))
    cmap.fill(cells, RNG.dirichlet(np.ones(C), len(cells)), RNG.normal(size=(len(cells), R)))
    return cmap, cells


def test_fresh_map_knows_nothing(decoder, tissue):
    cmap = CompositionMap(Grid(SHAPE, 100.0), decoder, tissue)
    assert cmap.weights.shape == (*SHAPE, C)
    assert cmap.weights.dtype == np.float16
    assert cmap.programs.shape == (*SHAPE, R)
    assert np.isnan(cmap.weights).all()
    assert np.isnan(cmap.expression("G1")).all()
    assert (cmap.state[0] == BACKGROUND).all()
    assert (cmap.state[1:] == UNKNOWN).all()
    assert (cmap.dominant() == -1).all()
    assert np.isnan(cmap.mean_weights()).all()
    assert cmap.values_at(2, 2) is None


def test_expression_is_the_sum_of_its_parts(decoder, tissue):
    cmap, cells = filled(decoder, tissue, 0.6)
    for g, gene in enumerate(decoder.genes):
        total = sum(cmap.contribution(gene, t) for t in cmap.cell_types).astype(np.float64)
        total += (cmap.programs.astype(np.float64) * decoder.programs[:, g]).sum(axis=-1) + decoder.beta[g]
        np.testing.assert_allclose(cmap.expression(gene), total, rtol=1e-5, atol=1e-5)
        known = ~np.isnan(cmap.expression(gene))
        assert set(np.flatnonzero(known)) == set(cells)


def test_maps_follow_what_was_filled(decoder, tissue):
    cmap, cells = filled(decoder, tissue, 0.5)
    assert (cmap.state.ravel()[cells] == DONE).all()
    weights = cmap.weights.astype(np.float32)
    np.testing.assert_array_equal(cmap.weight("T3"), weights[..., 3])
    expected = np.where(cmap.state == DONE, np.nan_to_num(weights).argmax(-1), -1)
    np.testing.assert_array_equal(cmap.dominant(), expected)


def test_the_last_gene_is_kept_until_the_map_changes(decoder, tissue):
    cmap, patches = filled(decoder, tissue, 0.5)[0], np.flatnonzero(tissue)
    gene = cmap.genes[1]
    first = cmap.expression(gene)
    expected = first.copy()
    first[:] = 7  # the caller's own
    np.testing.assert_array_equal(cmap.expression(gene), expected)
    assert not np.array_equal(cmap.expression(cmap.genes[2]), expected, equal_nan=True)
    n = len(patches)
    cmap.fill(patches, np.full((n, cmap.n_types), 1 / cmap.n_types), np.ones((n, cmap.n_programs)))
    known = cmap.expression(gene)[tissue]
    assert np.isfinite(known).all()
    assert np.ptp(known) < 1e-6  # a matrix product rounds by where in a block a row is


def test_changes_are_announced_with_row_and_column(decoder, tissue):
    cmap = CompositionMap(Grid(SHAPE, 100.0), decoder, tissue)
    heard = []
    cmap.changed.connect(heard.append)
    before = cmap.revision
    cmap.fill(np.array([12, 13]), np.full((2, C), 1 / C), np.zeros((2, R)))
    cmap.fail(np.array([20]))
    assert [h.tolist() for h in heard] == [[[1, 3], [1, 4]], [[2, 2]]]
    assert cmap.revision > before
    assert cmap.state[2, 2] == FAILED


def test_values_that_are_not_finite_fail_their_cell(decoder, tissue):
    cmap = CompositionMap(Grid(SHAPE, 100.0), decoder, tissue)
    weights = np.full((2, C), 1 / C)
    weights[1, 2] = np.nan
    cmap.fill(np.array([12, 13]), weights, np.zeros((2, R)))
    assert cmap.state[1, 3] == DONE
    assert cmap.state[1, 4] == FAILED
    assert np.isnan(cmap.weights[1, 4]).all()


def test_mean_weights_in_a_rectangle(decoder, tissue):
    cmap, _ = filled(decoder, tissue)
    window = cmap.weights[2:4, 3:5].astype(np.float64).reshape(-1, C)
    np.testing.assert_allclose(cmap.mean_weights(Rect(200, 300, 400, 500)), window.mean(axis=0), atol=1e-6)
    assert np.isnan(cmap.mean_weights(Rect(0, 0, 100, 900))).all()  # background only


def test_a_coarse_cell_speaks_for_its_block(decoder):
    cmap = CompositionMap(Grid((8, 8), 100.0), decoder)
    cell = int(cmap.lattice.representatives(4)[0, 1])
    cmap.fill(np.array([cell]), np.full((1, C), 1 / C), np.zeros((1, R)))
    donors = cmap.donors()
    assert (donors[:4, 4:] == cell).all()
    assert (np.delete(donors, np.s_[4:], axis=1) == -1).all() or (donors[:, :4] == -1).all()
    assert cmap.values_at(3, 7) is not None
    cmap.fail(np.array([0 * 8 + 4]))
    assert cmap.donors()[0, 4] == -1


def test_unknown_names_are_one_sentence(decoder, tissue):
    cmap, _ = filled(decoder, tissue)
    with pytest.raises(GenesError, match="does not have NOPE"):
        cmap.expression("NOPE")
    with pytest.raises(MappingError, match="no cell type 'Neuron'; it knows: T0, T1"):
        cmap.weight("Neuron")


def test_a_plain_head_has_no_cell_types(tissue):
    decoder = Decoder(
        genes=("A", "B"),
        cell_types=(),
        prototypes=np.zeros((0, 2), np.float32),
        alpha=np.ones(2, np.float32),
        beta=np.array([1, 2], np.float32),
        programs=np.array([[1, 0], [0, 2], [1, 1]], np.float32),
    )
    cmap = CompositionMap(Grid(SHAPE, 100.0), decoder, tissue)
    cmap.fill(np.array([15]), np.zeros((1, 0)), np.array([[0.5, 0.25, 1.0]]))
    assert cmap.expression("A")[1, 6] == 2.5
    assert cmap.expression("B")[1, 6] == 3.5
    assert (cmap.dominant() == -1).all()
    with pytest.raises(MappingError, match="a plain head has no cell types"):
        cmap.weight("A")


def test_save_and_load(decoder, tissue, tmp_path):
    cmap, _ = filled(decoder, tissue, 0.5)
    cmap.provenance["slide"] = "a.svs"
    cmap.save(tmp_path / "map.zarr")
    cmap.save(tmp_path / "map.zarr")  # replaces
    again = CompositionMap.load(tmp_path / "map.zarr")
    np.testing.assert_array_equal(again.weights, cmap.weights)
    np.testing.assert_array_equal(again.programs, cmap.programs)
    np.testing.assert_array_equal(again.state, cmap.state)
    np.testing.assert_array_equal(again.expression("G4"), cmap.expression("G4"))
    assert again.provenance == cmap.provenance
    assert again.grid == cmap.grid
    assert [p.name for p in tmp_path.iterdir()] == ["map.zarr"]


def test_anyone_with_zarr_can_read_it(decoder, tissue, tmp_path):
    import zarr

    cmap, _ = filled(decoder, tissue)
    cmap.save(tmp_path / "map.zarr")
    group = zarr.open_group(tmp_path / "map.zarr", mode="r")
    np.testing.assert_array_equal(group["weights"][...], cmap.weights)
    assert group.attrs["napari_cpnn"]["cell_types"] == list(cmap.cell_types)


def test_what_is_no_map_says_so(tmp_path):
    import zarr

    with pytest.raises(MappingError, match="no map at"):
        CompositionMap.load(tmp_path / "none.zarr")
    (tmp_path / "text.zarr").write_text("hello")
    with pytest.raises(MappingError, match="not a map of napari-cpnn"):
        CompositionMap.load(tmp_path / "text.zarr")
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    with pytest.raises(MappingError, match="not a map of napari-cpnn"):
        CompositionMap.load(tmp_path / "other.zarr")


def test_a_wrong_tissue_mask_is_refused(decoder):
    with pytest.raises(MappingError, match="tissue mask has shape"):
        CompositionMap(Grid(SHAPE, 100.0), decoder, np.ones((2, 2), dtype=bool))


def test_an_interrupted_save_leaves_nothing_behind(decoder, tmp_path, monkeypatch):
    import zarr

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(zarr.Group, "create_array", interrupted)
    with pytest.raises(KeyboardInterrupt):
        CompositionMap(Grid((3, 4), 32.0), decoder).save(tmp_path / "map.zarr")
    assert list(tmp_path.iterdir()) == []
