from .dock import Panels as Panels
