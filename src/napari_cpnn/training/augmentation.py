"""Changes of training patches that leave their meaning as it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from napari_cpnn.geometry import IntArray


def apply_symmetries(images: npt.NDArray[np.uint8], codes: IntArray) -> npt.NDArray[np.uint8]:
    """Turn and flip patches ``(N, S, S, 3)``: code ``k`` is ``k % 4`` quarter turns, then a flip where ``k >= 4``.

    The eight codes are the symmetries of the square (the dihedral group); 0 leaves a patch as it is.
    """
    result = np.empty_like(images)
    for code in np.unique(codes):
        chosen = codes == code
        turned = np.rot90(images[chosen], k=int(code) % 4, axes=(1, 2))
        result[chosen] = turned[:, :, ::-1] if code >= 4 else turned
    return result
