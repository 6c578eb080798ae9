from .binning import CellsOfPatches as CellsOfPatches
from .cell_map import CellMap as CellMap
from .predict import predict_cells as predict_cells
from .predict import require_cells as require_cells
