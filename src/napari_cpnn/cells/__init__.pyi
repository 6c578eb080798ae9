from .binning import CellsOfPatches as CellsOfPatches
from .cell_map import CellMap as CellMap
