from .dock import FineTune as FineTune
