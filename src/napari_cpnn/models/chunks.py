"""Split batches into chunks of constant size, so that predictions hardly depend on the rest of the batch.

Guarantee on a CPU in float32: the same call gives the same bits, on one machine and with one
number of threads. In another batch, or at another place in it, a patch gets the same numbers within 1e-5. On all
tested processors the bits are identical (``make test-isa``), but that depends on library code that differs between
processors, and is not guaranteed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from napari_cpnn.models.triplex import Surroundings

#: Patches per forward pass on a CPU. With DenseNet-121 at 224 px, 8 is fastest; 32 takes 1.5 times as long, since its
#: feature maps exceed the processor's cache.
CHUNK = 8

Inputs = Tensor | Surroundings | None


def in_chunks(function: Callable[..., Sequence[Tensor]], *inputs: Inputs) -> tuple[Tensor, ...]:
    """Apply ``function(*inputs)`` in chunks of `CHUNK` rows; the last is padded by repeating its first row.

    Matrix products of different shapes may sum in different order, and then differ in the last bits. In chunks of one
    shape the order is the same, unless a library sums the rows of one product in several ways. Two such cases are known
    and avoided: layers of very few outputs (:mod:`napari_cpnn.models.heads`), and attention of a single query
    (:mod:`napari_cpnn.models.triplex.attention`).
    """
    n = next(len(values) for values in inputs if values is not None)
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, max(n, 1), CHUNK):
        size = min(CHUNK, n - start)
        rows = torch.arange(start, start + CHUNK)
        rows[size:] = start
        piece = [values if values is None or not n else _rows(values, start, size, rows) for values in inputs]
        parts.append(tuple(values[:size] for values in function(*piece)))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _rows(values: Tensor | Surroundings, start: int, size: int, rows: Tensor) -> Tensor | Surroundings:
    # A full chunk is a view, which keeps its memory format.
    return values[start : start + CHUNK] if size == CHUNK else values[rows]
