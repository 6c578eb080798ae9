from .color_bar import ColorBar as ColorBar
from .dock import Explore as Explore
from .signatures import Signatures as Signatures
