from .dock import Compare as Compare
from .gene_table import GeneTable as GeneTable
from .scatter import Scatter as Scatter
from .spots_layer import SpotsLayer as SpotsLayer
from .words import Painted as Painted
