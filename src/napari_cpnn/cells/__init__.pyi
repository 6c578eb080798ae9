from .binning import CellsOfPatches as CellsOfPatches
from .cell_map import CellMap as CellMap
from .tables import cells_to_anndata as cells_to_anndata
from .tables import region_of as region_of
from .tables import spot_of as spot_of
