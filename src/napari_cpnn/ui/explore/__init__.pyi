from .color_bar import ColorBar as ColorBar
from .dock import Explore as Explore
from .finer import STEPS as STEPS
from .placing import place as place
from .placing import transform_events as transform_events
from .signatures import Signatures as Signatures
