from .backends import SLIDE_SUFFIXES as SLIDE_SUFFIXES
from .backends.tiff_tiles import FileReader as FileReader
from .patches import PatchReader as PatchReader
from .patches import read_patches as read_patches
from .slide import Slide as Slide
from .slide import open_slide as open_slide
from .tissue import find_tissue as find_tissue
from .tissue_mask import TissueMask as TissueMask
