from .canvas import CellsOnCanvas as CellsOnCanvas
from .colored import CellContent as CellContent
from .colored import CellShown as CellShown
from .colored import color_cells as color_cells
from .colored import grid_of as grid_of
from .controller import CellsController as CellsController
from .dock import CellsDock as CellsDock
from .in_view import draw_view as draw_view
