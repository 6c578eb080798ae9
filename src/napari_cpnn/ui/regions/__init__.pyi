from .dock import Regions as Regions
from .layer import compile_shapes as compile_shapes
from .layer import regions_of as regions_of
