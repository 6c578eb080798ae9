from .dock import Panels as Panels
from .panel import MOST_PANELS as MOST_PANELS
from .panel import Kind as Kind
from .panel import PanelSpec as PanelSpec
from .panel import Source as Source
