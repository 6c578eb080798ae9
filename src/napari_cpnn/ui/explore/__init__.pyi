from .color_bar import ColorBar as ColorBar
from .dock import Explore as Explore
