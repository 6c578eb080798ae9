from .dock import Regions as Regions
from .layer import regions_of as regions_of
