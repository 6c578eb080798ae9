from .dock import Panels as Panels
from .panel import Kind as Kind
