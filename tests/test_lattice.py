from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_cpnn.lattice import Lattice

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(shapes, st.integers(0, 10_000), st.floats(0.02, 1))
def test_each_block_with_tissue_has_one_representative_inside_it(shape, seed, share):
    tissue = np.random.default_rng(seed).random(shape) < share
    lattice = Lattice(tissue)
    for size in lattice.sizes:
        blocks = lattice.representatives(size)
        assert blocks.shape == (-(-shape[0] // size), -(-shape[1] // size))
        for (row, col), cell in np.ndenumerate(blocks):
            window = tissue[row * size : (row + 1) * size, col * size : (col + 1) * size]
            assert (cell >= 0) == window.any()
            if cell >= 0:
                r, c = divmod(int(cell), shape[1])
                assert tissue[r, c]
                assert (r // size, c // size) == (row, col)


@given(shapes, st.integers(0, 10_000))
def test_lattices_are_nested(shape, seed):
    lattice = Lattice(np.random.default_rng(seed).random(shape) < 0.5)
    for coarse, fine in zip(lattice.sizes, lattice.sizes[1:], strict=False):
        assert set(lattice.representatives(coarse).ravel()) <= set(lattice.representatives(fine).ravel()) | {-1}


@given(shapes, st.integers(0, 10_000), st.floats(0, 1))
def test_donors_against_a_plain_loop(shape, seed, share):
    rng = np.random.default_rng(seed)
    tissue = rng.random(shape) < 0.7
    done = tissue & (rng.random(shape) < share)
    lattice = Lattice(tissue)
    donors = lattice.donors(done)
    for (r, c), donor in np.ndenumerate(donors):
        expected = -1
        if tissue[r, c]:
            for size in (1, 2, 4, 8, 16):
                cell = int(lattice.representatives(size)[r // size, c // size])
                if done.ravel()[cell]:
                    expected = cell
                    break
        assert donor == expected == lattice.donor(r, c, done)


def test_the_coarsest_lattice_alone_covers_all_tissue():
    tissue = np.random.default_rng(3).random((100, 77)) < 0.3
    lattice = Lattice(tissue)
    done = np.zeros(tissue.shape, dtype=bool)
    coarse = lattice.representatives(16)
    done.ravel()[coarse[coarse >= 0]] = True
    assert ((lattice.donors(done) >= 0) == tissue).all()


def test_a_very_large_slide_has_coarser_lattices():
    """150,000 px at a stride of 224 px."""
    lattice = Lattice(np.ones((670, 670), dtype=bool))
    assert lattice.sizes[0] == 128
    assert [int((lattice.representatives(size) >= 0).sum()) for size in (16, 32, 64, 128)] == [1764, 441, 121, 36]
    assert Lattice(np.ones((100, 100), dtype=bool)).sizes[0] == 16
    assert Lattice(np.ones((670, 670), dtype=bool), coarsest=4).sizes == [4, 2, 1]
