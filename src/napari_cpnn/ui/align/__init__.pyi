from .controller import AlignController as AlignController
from .dock import Align as Align
