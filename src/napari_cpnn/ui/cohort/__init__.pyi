from .dock import CohortDock as CohortDock
from .thumbnails import Gallery as Gallery
from .thumbnails import decoder_of as decoder_of
from .thumbnails import read_small as read_small
