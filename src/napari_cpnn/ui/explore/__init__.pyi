from .color_bar import ColorBar as ColorBar
from .dock import Explore as Explore
from .finer import STEPS as STEPS
from .signatures import Signatures as Signatures
