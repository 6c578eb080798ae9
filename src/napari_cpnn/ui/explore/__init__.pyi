from .dock import Explore as Explore
from .overlays import OVERLAY_KEY as OVERLAY_KEY
