from .dock import Regions as Regions
from .layer import compile_shapes as compile_shapes
from .layer import new_layer as new_layer
from .layer import regions_of as regions_of
