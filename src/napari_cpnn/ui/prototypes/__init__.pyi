from .dock import PrototypesDock as PrototypesDock
