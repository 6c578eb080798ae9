from .color_bar import ColorBar as ColorBar
from .dock import Explore as Explore
from .drawn_ahead import drawings_ahead as drawings_ahead
from .finer import STEPS as STEPS
from .placing import place as place
from .placing import transform_events as transform_events
from .signatures import Signatures as Signatures
