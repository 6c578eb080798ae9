from .dock import Explore as Explore
